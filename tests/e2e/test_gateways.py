"""TLS at a real gateway: who has which certificate, who gets in without one, and what a renewal costs."""

from __future__ import annotations

import asyncio
import json
import os
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from cryptography import x509

from tests.support.certificates import Roots
from tests.support.mesh import Mesh, free_port, run

ROOTS = Roots()
HOSTS = ("shop.example", "pay.example")


def pem(pair: tuple[bytes, bytes]) -> dict[str, str]:
    """A certificate and its key as the data of a Secret."""
    return {"tls.crt": pair[0].decode(), "tls.key": pair[1].decode()}


def secret(name: str, data: dict[str, str], namespace: str = "default", kind: str = "Secret") -> dict[str, Any]:
    """A Secret (or a ConfigMap)."""
    field = {"stringData": data, "type": "kubernetes.io/tls"} if kind == "Secret" else {"data": data}
    return {"apiVersion": "v1", "kind": kind, "metadata": {"name": name, "namespace": namespace}, **field}


def listener(name: str, port: int, hostname: str, certificate: str) -> dict[str, Any]:
    """An HTTPS listener."""
    tls = {"certificateRefs": [{"name": certificate}]}
    return {"name": name, "port": port, "protocol": "HTTPS", "hostname": hostname, "tls": tls}


def object_(kind: str, name: str, spec: dict[str, Any], group: str = "gateway.networking.k8s.io") -> dict[str, Any]:
    """An object of the Gateway API, or of Istio's networking group."""
    return {"apiVersion": f"{group}/v1", "kind": kind, "metadata": {"name": name, "namespace": "default"}, "spec": spec}


class Gateways:
    """Objects of one test, which go when it ends."""

    def __init__(self, mesh: Mesh) -> None:
        self.mesh = mesh
        self.applied: list[dict[str, Any]] = []

    def apply(self, *objects: dict[str, Any]) -> None:
        """Apply them, and wait until the gateway has them."""
        text = json.dumps({"apiVersion": "v1", "kind": "List", "items": list(objects)})
        self.mesh.kubectl("apply", "-f", "-", stdin=text)
        self.applied += objects
        self.mesh.synced()

    def remove(self) -> None:
        """Delete all of them."""
        text = json.dumps({"apiVersion": "v1", "kind": "List", "items": self.applied})
        self.mesh.kubectl("delete", "--ignore-not-found", "-f", "-", stdin=text)
        self.mesh.synced()


@pytest.fixture
def gateways(mesh: Mesh) -> Iterator[Gateways]:
    """The demo's ingress, for objects of this test's own."""
    objects = Gateways(mesh)
    yield objects
    objects.remove()


def context(*, alpn: tuple[str, ...] = (), client: tuple[Path, Path] | None = None) -> ssl.SSLContext:
    """A client that trusts the test's roots."""
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    made.load_verify_locations(cadata=ROOTS.pem.decode())
    if alpn:
        made.set_alpn_protocols(list(alpn))
    if client:
        made.load_cert_chain(*client)
    return made


async def shaken(port: int, host: str, using: ssl.SSLContext) -> ssl.SSLObject:
    """A finished handshake; raises where it fails, also where the server says no only after it (TLS 1.3)."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=using, server_hostname=host)
    try:
        found: ssl.SSLObject = writer.get_extra_info("ssl_object")
        if found.selected_alpn_protocol() != "h2":
            writer.write(f"GET /productpage HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n".encode())
            await reader.readexactly(12)
        return found
    finally:
        writer.close()


def handshake(port: int, host: str, using: ssl.SSLContext) -> ssl.SSLObject:
    """As `shaken`."""
    return asyncio.run(shaken(port, host, using))


def names(spoken: ssl.SSLObject) -> tuple[str, ...]:
    """The host names of the certificate that the server showed."""
    certificate: dict[str, Any] = dict(spoken.getpeercert() or {})
    return tuple(value for _kind, value in certificate["subjectAltName"])


def number(spoken: ssl.SSLObject) -> str:
    """The number of the certificate that the server showed."""
    return str((spoken.getpeercert() or {})["serialNumber"]).lstrip("0")


def serial(pair: tuple[bytes, bytes]) -> str:
    """The number of a certificate, as Python's ssl writes it."""
    return f"{x509.load_pem_x509_certificate(pair[0]).serial_number:X}"


def route(gateway: str) -> dict[str, Any]:
    """Everything to productpage."""
    spec = {"parentRefs": [{"name": gateway}], "rules": [{"backendRefs": [{"name": "productpage", "port": 9080}]}]}
    return object_("HTTPRoute", gateway, spec)


def curl(*arguments: str) -> str:
    """The real curl's output."""
    ran = run(["curl", "-sS", "--max-time", "20", *arguments], {"PATH": "/usr/bin:/bin"})
    return ran.text.strip()


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


def test_a_renewed_certificate_fails_no_request(gateways: Gateways) -> None:
    """Each renewal would cut connections, or need a restart of the gateway."""
    port = free_port()
    pairs = [ROOTS.server("shop.example") for _ in range(4)]
    gateways.apply(
        secret("shop", pem(pairs[0])),
        object_(
            "Gateway", "renewed", {"gatewayClassName": "tulle", "listeners": [listener("shop", port, "shop.example", "shop")]}
        ),
        route("renewed"),
    )
    asyncio.run(_renew(gateways, port, pairs))


async def _renew(gateways: Gateways, port: int, pairs: list[tuple[bytes, bytes]]) -> None:
    statuses: list[int | str] = []
    done = asyncio.Event()

    async def load(keep: bool) -> None:
        connector = aiohttp.TCPConnector(force_close=not keep, ssl=context())
        async with aiohttp.ClientSession(connector=connector) as session:
            while not done.is_set():
                try:
                    url = f"https://127.0.0.1:{port}/static/bookinfo.css"
                    async with session.get(url, server_hostname="shop.example", headers={"host": "shop.example"}) as answer:
                        await answer.read()
                        statuses.append(answer.status)
                except (aiohttp.ClientError, OSError) as error:
                    statuses.append(repr(error))

    workers = [asyncio.create_task(load(keep)) for keep in (True, True, False, False)]
    try:
        for pair in pairs[1:]:
            before = len(statuses)
            await asyncio.to_thread(gateways.apply, secret("shop", pem(pair)))
            async with asyncio.timeout(10):
                while number(await shaken(port, "shop.example", context())) != serial(pair):
                    pass
                while len(statuses) < before + 200:
                    await shaken(port, "shop.example", context())
    finally:
        done.set()
        await asyncio.gather(*workers)
    assert set(statuses) == {200}, [one for one in statuses if one != 200][:5]
    assert len(statuses) > 600


def test_certificates_from_files(gateways: Gateways, tmp_path: Path) -> None:
    """A certificate on the gateway's disk would not be served, or not the renewed one; a missing one would block the others."""
    port = free_port()
    folder = tmp_path
    for above in (folder, *folder.parents[:3]):
        if above.stat().st_uid == os.getuid() and above != Path("/tmp"):
            above.chmod(above.stat().st_mode | 0o055)

    def write(pair: tuple[bytes, bytes]) -> None:
        for name, data in zip(("tls.crt", "tls.key"), pair, strict=True):
            (folder / f"new-{name}").write_bytes(data)
            (folder / f"new-{name}").chmod(0o644)
            (folder / f"new-{name}").rename(folder / name)

    first, second = ROOTS.server("shop.example"), ROOTS.server("shop.example")
    write(first)
    servers = [
        {
            "port": {"number": port, "name": name, "protocol": "HTTPS"},
            "hosts": [host],
            "tls": {"mode": "SIMPLE", "serverCertificate": f"{where}/tls.crt", "privateKey": f"{where}/tls.key"},
        }
        for name, host, where in (("shop", "shop.example", folder), ("missing", "missing.example", "/nowhere"))
    ]
    http = [{"route": [{"destination": {"host": "productpage", "port": {"number": 9080}}}]}]
    gateways.apply(
        object_("Gateway", "files", {"selector": {"istio": "ingressgateway"}, "servers": servers}, "networking.istio.io"),
        object_(
            "VirtualService", "files", {"hosts": ["shop.example"], "gateways": ["files"], "http": http}, "networking.istio.io"
        ),
    )

    async def served(pair: tuple[bytes, bytes]) -> None:
        async with asyncio.timeout(60):
            while True:
                try:
                    if number(await shaken(port, "shop.example", context())) == serial(pair):
                        return
                except (OSError, asyncio.IncompleteReadError):
                    await asyncio.sleep(0.05)

    asyncio.run(served(first))
    write(second)
    asyncio.run(served(second))


def test_a_gateway_of_ones_own(gateways: Gateways) -> None:
    """`tulle gateway --gateway` would serve what others say, and others what is this one's alone."""
    port = free_port()
    mesh = gateways.mesh
    socket = mesh.home / "run" / "demo" / "node.sock"
    command = [*mesh.command, "gateway", "--name", "edge", "--gateway", "edge", "--socket", str(socket)]
    process = subprocess.Popen(command, env=mesh.env, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr is not None
        assert "default/edge serves at" in process.stderr.readline()
        gateways.apply(
            secret("shop", pem(ROOTS.server("shop.example"))),
            object_("Gateway", "edge", {"gatewayClassName": "tulle", "listeners": [listener("a", port, "shop.example", "shop")]}),
            route("edge"),
        )
        assert names(handshake(port, "shop.example", context())) == ("shop.example",)
        said = mesh.tulle("proxy", "config", "listener", "ingressgateway", "-n", "tulle-system", "-o", "json").out
        assert str(port) not in said, "the demo's own gateway has nothing to do with it"
    finally:
        process.terminate()
        assert process.wait(30) == 0
    assert "NotFound" in mesh.kubectl("get", "workloadentry", "edge", check=False).err


class Backend:
    """A TLS server with a certificate of its own, and a TCP server, outside the mesh: what they hear is nobody's business."""

    def __init__(self, folder: Path, address: str) -> None:
        self.pair = ROOTS.server("bank.example")
        self.address, self.tls_port, self.tcp_port = address, free_port(), free_port()
        for name, data in zip(("tls.crt", "tls.key"), self.pair, strict=True):
            (folder / name).write_bytes(data)
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(folder / "tls.crt", folder / "tls.key")

    async def __aenter__(self) -> Backend:
        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            line = await reader.readline()
            writer.write(b"heard " + line)
            await writer.drain()
            writer.close()

        self._servers = [
            await asyncio.start_server(answer, self.address, self.tls_port, ssl=self._context),
            await asyncio.start_server(answer, self.address, self.tcp_port),
        ]
        return self

    async def __aexit__(self, *_: object) -> None:
        for server in self._servers:
            server.close()

    def objects(self) -> list[dict[str, Any]]:
        """It as a Service with one endpoint."""
        ports = [{"name": "tls", "port": self.tls_port}, {"name": "tcp", "port": self.tcp_port}]
        service = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "bank", "namespace": "default"}}
        entry = {"address": self.address, "labels": {"app": "bank"}}
        return [
            {**service, "spec": {"selector": {"app": "bank"}, "ports": ports}},
            object_("WorkloadEntry", "bank", entry, "networking.istio.io"),
        ]


async def exchange(port: int, host: str | None = None) -> tuple[str, str]:
    """Say a line to a port of the gateway: what comes back, and the number of the certificate that was shown."""
    using = context() if host else None
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=using, server_hostname=host)
    try:
        writer.write(b"hello\n")
        line = await reader.readline()
        return line.decode().strip(), number(writer.get_extra_info("ssl_object")) if host else ""
    finally:
        writer.close()


def test_bytes_go_through(gateways: Gateways, tmp_path: Path) -> None:
    """TLS that was to be passed through would end at the gateway, and TCP would not arrive; with either API."""
    asyncio.run(_forward(gateways, tmp_path))


async def _forward(gateways: Gateways, folder: Path) -> None:
    api, tcp, istio, istio_tcp = (free_port() for _ in range(4))
    ends = ROOTS.server("ends.example")
    certificates = {"certificateRefs": [{"name": "ends"}]}
    async with Backend(folder, "127.0.0.1") as bank:
        backend = [{"destination": {"host": "bank", "port": {"number": bank.tls_port}}}]
        tcp_backend = [{"destination": {"host": "bank", "port": {"number": bank.tcp_port}}}]
        listeners = [
            {"name": "through", "port": api, "protocol": "TLS", "hostname": "bank.example", "tls": {"mode": "Passthrough"}},
            {"name": "ends", "port": api, "protocol": "TLS", "hostname": "ends.example", "tls": certificates},
            {"name": "tcp", "port": tcp, "protocol": "TCP"},
        ]
        servers = [
            {
                "port": {"number": istio, "name": "tls", "protocol": "TLS"},
                "hosts": ["bank.example"],
                "tls": {"mode": "PASSTHROUGH"},
            },
            {"port": {"number": istio_tcp, "name": "tcp", "protocol": "TCP"}, "hosts": ["*"]},
        ]
        await asyncio.to_thread(
            gateways.apply,
            *bank.objects(),
            secret("ends", pem(ends)),
            object_("Gateway", "l4", {"gatewayClassName": "tulle", "listeners": listeners}),
            _l4("TLSRoute", "through", bank.tls_port, hostnames=["bank.example"]),
            _l4("TLSRoute", "ends", bank.tcp_port, hostnames=["ends.example"]),
            _l4("TCPRoute", "tcp", bank.tcp_port),
            object_("Gateway", "l4", {"selector": {"istio": "ingressgateway"}, "servers": servers}, "networking.istio.io"),
            object_(
                "VirtualService",
                "l4",
                {
                    "hosts": ["bank.example"],
                    "gateways": ["l4"],
                    "tls": [{"match": [{"sniHosts": ["bank.example"]}], "route": backend}],
                    "tcp": [{"match": [{"port": istio_tcp}], "route": tcp_backend}],
                },
                "networking.istio.io",
            ),
        )
        assert await exchange(api, "bank.example") == ("heard hello", serial(bank.pair)), "the backend's own certificate"
        assert await exchange(api, "ends.example") == ("heard hello", serial(ends)), "the gateway's"
        assert await exchange(istio, "bank.example") == ("heard hello", serial(bank.pair))
        assert await exchange(tcp) == ("heard hello", "")
        assert await exchange(istio_tcp) == ("heard hello", "")
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await exchange(api, "other.example")


def _l4(kind: str, name: str, port: int, **more: Any) -> dict[str, Any]:
    """A route of connections to the backend."""
    parent = {"name": "l4", "sectionName": name}
    return object_(kind, name, {"parentRefs": [parent], "rules": [{"backendRefs": [{"name": "bank", "port": port}]}], **more})
