"""TLS at a real gateway: who has which certificate, and who gets in without one."""

from __future__ import annotations

import asyncio
import json
import ssl
import subprocess
import time
from pathlib import Path

import pytest

from tests.support.certificates import Roots
from tests.support.gateways import (
    ISTIO,
    ROOTS,
    Gateways,
    context,
    curl,
    handshake,
    listener,
    names,
    number,
    object_,
    pem,
    route,
    secret,
    serial,
)
from tests.support.mesh import free_port

HOSTS = ("shop.example", "pay.example")


def test_the_server_name_picks_the_certificate(gateways: Gateways, tmp_path: Path) -> None:
    """A host would be answered with another's certificate, or another listener's routes; a broken Secret would close the port."""
    port = free_port()
    mixed = {"tls.crt": ROOTS.server("a")[0].decode(), "tls.key": ROOTS.server("b")[1].decode()}
    gateways.apply(
        *(secret(host, pem(ROOTS.server(host))) for host in HOSTS),
        secret("mixed-up", mixed),
        object_(
            "Gateway",
            "tls",
            {
                "gatewayClassName": "tulle",
                "listeners": [
                    *(listener(host.partition(".")[0], port, host, host) for host in HOSTS),
                    listener("broken", port, "broken.example", "mixed-up"),
                ],
            },
        ),
        route("tls"),
    )
    for host in HOSTS:
        assert names(handshake(port, host, context())) == (host,)
        assert handshake(port, host, context(alpn=("h2",))).selected_alpn_protocol() == "h2"
    for host in ("other.example", "broken.example"):
        with pytest.raises((ssl.SSLError, ConnectionError, asyncio.IncompleteReadError)):
            handshake(port, host, context())
    roots = tmp_path / "roots.pem"
    roots.write_bytes(ROOTS.pem)
    at = ["--cacert", str(roots), "--resolve", f"*:{port}:127.0.0.1", "-o", "/dev/null", "-w", "%{http_code} %{http_version}"]
    assert curl(*at, f"https://shop.example:{port}/productpage") == "200 2"
    assert curl(*at, "--http1.1", f"https://pay.example:{port}/productpage") == "200 1.1"
    assert curl(*at, "-H", "host: pay.example", f"https://shop.example:{port}/productpage") == "421 2", "misdirected"
    shown = subprocess.run(
        ["openssl", "s_client", "-connect", f"127.0.0.1:{port}", "-servername", "pay.example", "-CAfile", str(roots)],
        input="",
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert "Verify return code: 0 (ok)" in shown.stdout
    conditions = json.loads(gateways.mesh.kubectl("get", "gateways.gateway.networking.k8s.io", "tls", "-o", "json").out)["status"]
    (broken,) = (one for one in conditions["listeners"] if one["name"] == "broken")
    assert [one["reason"] for one in broken["conditions"] if one["type"] == "ResolvedRefs"] == ["InvalidCertificateRef"]


def test_a_client_without_a_certificate_is_refused(gateways: Gateways, tmp_path: Path) -> None:
    """A port for known clients would be open to all, with either API."""
    api, istio = free_port(), free_port()
    server = pem(ROOTS.server("shop.example"))
    frontend = {"default": {"validation": {"caCertificateRefs": [{"group": "", "kind": "ConfigMap", "name": "clients"}]}}}
    mutual = {
        "port": {"number": istio, "name": "https", "protocol": "HTTPS"},
        "hosts": ["shop.example"],
        "tls": {"mode": "MUTUAL", "credentialName": "istio"},
    }
    http = [{"route": [{"destination": {"host": "productpage", "port": {"number": 9080}}}]}]
    gateways.apply(
        secret("shop", server),
        secret("clients", {"ca.crt": ROOTS.pem.decode()}, kind="ConfigMap"),
        secret("istio", {**server, "ca.crt": ROOTS.pem.decode()}, "tulle-system"),
        object_(
            "Gateway",
            "mutual",
            {
                "gatewayClassName": "tulle",
                "listeners": [listener("shop", api, "shop.example", "shop")],
                "tls": {"frontend": frontend},
            },
        ),
        route("mutual"),
        object_("Gateway", "mutual", {"selector": {"istio": "ingressgateway"}, "servers": [mutual]}, "networking.istio.io"),
        object_(
            "VirtualService",
            "mutual",
            {"hosts": ["shop.example"], "gateways": ["mutual"], "http": http},
            "networking.istio.io",
        ),
    )
    stranger = Roots()
    files = {}
    for name, roots in (("known", ROOTS), ("stranger", stranger)):
        files[name] = tmp_path / f"{name}.crt", tmp_path / f"{name}.key"
        for file, data in zip(files[name], roots.leaf("spiffe://example/client"), strict=True):
            file.write_bytes(data)
    for port in (api, istio):
        assert names(handshake(port, "shop.example", context(client=files["known"]))) == ("shop.example",)
        for client in (None, files["stranger"]):
            with pytest.raises((ssl.SSLError, ConnectionError, asyncio.IncompleteReadError)):
                handshake(port, "shop.example", context(client=client))


def pair(folder: Path, data: tuple[bytes, bytes]) -> list[str]:
    """A certificate and its key, as curl wants them."""
    files = folder / "curl.crt", folder / "curl.key"
    for file, content in zip(files, data, strict=True):
        file.write_bytes(content)
    return ["--cert", str(files[0]), "--key", str(files[1])]


def test_what_a_server_asks_of_its_clients(gateways: Gateways, tmp_path: Path) -> None:
    """A version that is not to be spoken would be, with either API; who has no certificate would be kept out, or let in;
    a client of a foreign authority would be taken for the workload that its certificate names.
    """
    optional, redirect, api = free_port(), free_port(), free_port()
    server = pem(ROOTS.server("shop.example", "pay.example"))
    strict = {"cipherSuites": ["ECDHE-ECDSA-AES256-GCM-SHA384"], "ecdhCurves": ["P-256"]}
    tls = {"mode": "OPTIONAL_MUTUAL", "credentialName": "optional", "maxProtocolVersion": "TLSV1_2", **strict}
    servers = [
        {"port": {"number": optional, "name": "https", "protocol": "HTTPS"}, "hosts": ["shop.example"], "tls": tls},
        {
            "port": {"number": redirect, "name": "http", "protocol": "HTTP"},
            "hosts": ["shop.example"],
            "tls": {"httpsRedirect": True},
        },
    ]
    modern, known = (listener(name, api, f"{name}.example", "server") for name in ("shop", "pay"))
    modern["tls"]["options"] = {"tulle.dev/tls-min-protocol-version": "TLSV1_3"}
    known["tls"]["options"] = {"gateway.istio.io/tls-terminate-mode": "MUTUAL"}
    http = [{"route": [{"destination": {"host": "productpage", "port": {"number": 9080}}}]}]
    gateways.apply(
        secret("optional", {**server, "ca.crt": ROOTS.pem.decode()}, "tulle-system"),
        secret("server", {**server, "ca.crt": ROOTS.pem.decode()}),
        object_("Gateway", "asks", {"selector": {"istio": "ingressgateway"}, "servers": servers}, ISTIO),
        object_("VirtualService", "asks", {"hosts": ["shop.example"], "gateways": ["asks"], "http": http}, ISTIO),
        object_("Gateway", "asks", {"gatewayClassName": "tulle", "listeners": [modern, known]}),
        route("asks"),
    )
    files = {}
    for name, roots in (("known", ROOTS), ("stranger", Roots())):
        files[name] = tmp_path / f"{name}.crt", tmp_path / f"{name}.key"
        for file, data in zip(files[name], roots.leaf("spiffe://example/client"), strict=True):
            file.write_bytes(data)
    refused = (ssl.SSLError, ConnectionError, asyncio.IncompleteReadError)
    for client in (None, files["known"]):
        spoken = handshake(optional, "shop.example", context(client=client))
        assert (spoken.version(), (spoken.cipher() or ("",))[0]) == ("TLSv1.2", "ECDHE-ECDSA-AES256-GCM-SHA384")
    with pytest.raises(refused):
        handshake(optional, "shop.example", context(client=files["stranger"]))
    old = context()
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    assert handshake(api, "shop.example", context()).version() == "TLSv1.3"
    with pytest.raises(refused):
        handshake(api, "shop.example", old)
    assert handshake(api, "pay.example", context(client=files["known"]))
    for client in (None, files["stranger"]):
        with pytest.raises(refused):
            handshake(api, "pay.example", context(client=client))
    at = ["-o", "/dev/null", "-w", "%{http_code} %{redirect_url}", "--connect-to", f"::127.0.0.1:{redirect}"]
    assert curl(*at, "http://shop.example/productpage?a=b") == "301 https://shop.example/productpage?a=b"
    claims = [*pair(tmp_path, ROOTS.leaf("spiffe://cluster.local/ns/default/sa/curl")), "--connect-to", f"::127.0.0.1:{api}"]
    asks = ["-k", "-o", "/dev/null", "-w", "%{http_code}", *claims, "https://pay.example/productpage"]
    assert curl(*asks) == "200"
    workloads = {
        "selector": {"matchLabels": {"istio": "ingressgateway"}},
        "rules": [{"from": [{"source": {"principals": ["*"]}}]}],
    }
    policy = object_("AuthorizationPolicy", "workloads", workloads, "security.istio.io")
    policy["metadata"]["namespace"] = "tulle-system"
    gateways.apply(policy)
    assert curl(*asks) == "403", "a certificate of somebody else's authority is no identity of the mesh, whatever it says"


def test_a_listener_set_adds_to_a_gateway(gateways: Gateways) -> None:
    """What a team adds would not be served, would take a name from the Gateway, or would stay when the team is gone."""
    port = free_port()
    mesh = gateways.mesh
    takes = {"namespaces": {"from": "Same"}}
    own = {"gatewayClassName": "tulle", "listeners": [listener("shop", port, "shop.example", "shop")], "allowedListeners": takes}
    added = [listener("pay", port, "pay.example", "pay"), listener("shop", port, "shop.example", "pay")]
    pairs = {name: ROOTS.server(f"{name}.example") for name in ("shop", "pay")}
    to_set = route("team")
    to_set["spec"]["parentRefs"] = [{"kind": "ListenerSet", "name": "team", "sectionName": "pay"}]
    gateways.apply(
        *(secret(name, pem(pair)) for name, pair in pairs.items()),
        object_("Gateway", "sets", own),
        route("sets"),
        object_("ListenerSet", "team", {"parentRef": {"name": "sets"}, "listeners": added}),
        to_set,
    )
    for name, pair in pairs.items():
        assert number(handshake(port, f"{name}.example", context())) == serial(pair)
    conditions = {}
    for one in json.loads(mesh.kubectl("get", "listenersets", "team", "-o", "json").out)["status"]["listeners"]:
        conditions[one["name"]] = {it["type"]: (it["status"], it["reason"]) for it in one["conditions"]}
    assert conditions["pay"]["Accepted"][0] == conditions["pay"]["Programmed"][0] == "True"
    assert conditions["shop"]["Conflicted"] == ("True", "HostnameConflict")
    assert conditions["shop"]["Accepted"][0] == "False"
    mesh.kubectl("delete", "listenerset", "team")
    mesh.synced()
    with pytest.raises((ssl.SSLError, ConnectionError, asyncio.IncompleteReadError)):
        handshake(port, "pay.example", context())
    assert number(handshake(port, "shop.example", context())) == serial(pairs["shop"])


def test_a_certificate_that_has_ended_is_told_and_harms_nobody_else(gateways: Gateways) -> None:
    """Broken: its owner would not hear of it, or hosts beside it be cut off with it; or the renewed one not be seen."""
    port, istio = free_port(), free_port()
    ended = pem(ROOTS.server("old.example", begins=time.time() - 7200, ends=time.time() - 3600))
    good = pem(ROOTS.server("shop.example"))

    def server(host: str, name: str) -> dict[str, object]:
        tls = {"mode": "SIMPLE", "credentialName": name}
        return {"port": {"number": istio, "name": f"https-{name}", "protocol": "HTTPS"}, "hosts": [host], "tls": tls}

    of_istio = {
        "selector": {"istio": "ingressgateway"},
        "servers": [server("old.example", "ended"), server("shop.example", "good")],
    }
    to = {"destination": {"host": "productpage", "port": {"number": 9080}}}
    gateways.apply(
        *(
            secret(name, data, space)
            for space in ("default", "tulle-system")
            for name, data in (("ended", ended), ("good", good))
        ),
        object_(
            "Gateway",
            "ends",
            {
                "gatewayClassName": "tulle",
                "listeners": [listener("old", port, "old.example", "ended"), listener("shop", port, "shop.example", "good")],
            },
        ),
        route("ends"),
        object_("Gateway", "ends", of_istio, ISTIO),
        object_("VirtualService", "ends", {"hosts": ["*"], "gateways": ["ends"], "http": [{"route": [to]}]}, ISTIO),
    )
    for at in (port, istio):
        assert names(handshake(at, "shop.example", context())) == ("shop.example",)
        with pytest.raises(ssl.SSLCertVerificationError, match="certificate has expired"):
            handshake(at, "old.example", context())

    def conditions() -> tuple[str, str, str, str]:
        """Of both listeners, of the Gateway's own kind and Istio's; and what Istio's says."""
        found = json.loads(gateways.mesh.kubectl("get", "gateways.gateway.networking.k8s.io", "ends", "-o", "json").out)["status"]
        refs = {
            one["name"]: next(it["reason"] for it in one["conditions"] if it["type"] == "ResolvedRefs")
            for one in found["listeners"]
        }
        theirs = json.loads(gateways.mesh.kubectl("get", "gateways.networking.istio.io", "ends", "-o", "json").out)
        passed = next(it for it in theirs.get("status", {}).get("conditions", ()) if it["type"] == "PassedAnalysis")
        return refs["old"], refs["shop"], passed["status"], passed.get("message", "")

    def until(*wanted: str) -> str:
        deadline = time.monotonic() + 60
        while (found := conditions())[:3] != wanted:
            assert time.monotonic() < deadline, found
        return found[3]

    message = until("InvalidCertificateRef", "ResolvedRefs", "False")
    assert "spec.servers[0].tls.credentialName: Secret tulle-system/ended: the certificate ended" in message
    assert "servers[1]" not in message
    renewed = pem(ROOTS.server("old.example"))
    gateways.apply(*(secret("ended", renewed, space) for space in ("default", "tulle-system")))
    until("ResolvedRefs", "ResolvedRefs", "True")
    for at in (port, istio):
        assert names(handshake(at, "old.example", context())) == ("old.example",)
