"""TLS at gateways: which listener has which server name, what is misdirected, and who can see a certificate."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from tests.support.certificates import Roots
from tests.unit.core.compile.mesh import Mesh, bookinfo, entry, goes, obj, to
from tulle.api.object import Object
from tulle.core import type_urls
from tulle.core.compile.gateway_hosts import gateway_virtual_host
from tulle.core.compile.gateways import table_key
from tulle.core.model.gateway import GatewayChain
from tulle.core.model.route import Route
from tulle.xds.messages import Request, Send
from tulle.xds.stream import DeltaStream

ROOTS = Roots()
INGRESS = ("tulle-system", "ingress")


@pytest.fixture
def mesh() -> Mesh:
    return Mesh([*bookinfo(), secret("shop"), secret("other")])


def secret(name: str, namespace: str = "default", **more: bytes) -> Object:
    chain, key = ROOTS.server(f"{name}.example")
    files = {"tls.crt": chain, "tls.key": key, **{field.replace("_", "."): value for field, value in more.items()}}
    data = {field: value.decode() for field, value in files.items()}
    return obj({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "namespace": namespace}, "stringData": data})


def https(name: str, hostname: str = "", port: int = 443, cert: str = "shop", **more: Any) -> dict[str, Any]:
    one = {"name": name, "port": port, "protocol": "HTTPS", "tls": {"certificateRefs": [{"name": cert}]}, **more}
    return {**one, "hostname": hostname} if hostname else one


def gateway(*listeners: dict[str, Any], name: str = "gw", created: str = "2024-01-01T00:00:00Z", **more: Any) -> Object:
    spec = {"gatewayClassName": "tulle", "listeners": list(listeners), **more}
    metadata = {"name": name, "creationTimestamp": created}
    return obj({"apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway", "metadata": metadata, "spec": spec})


def route(name: str, backend: str, *hostnames: str, **parent: Any) -> Object:
    spec = {
        "parentRefs": [{"name": "gw", **parent}],
        "hostnames": list(hostnames),
        "rules": [{"backendRefs": [{"name": backend, "port": 9080}]}],
    }
    return obj({"apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute", "metadata": {"name": name}, "spec": spec})


def chains(mesh: Mesh, port: int = 443) -> tuple[GatewayChain, ...]:
    found = mesh.pipeline.workload("tulle-system/ingress")
    assert found
    return next((one.chains for one in found.listeners if one.port == port), ())


def routes(mesh: Mesh, listener: str, host: str, port: int = 443) -> tuple[Route, ...]:
    where = table_key(INGRESS, port, f"{listener}~gw~default")
    row = mesh.pipeline.flow.get(gateway_virtual_host, (where, host))
    assert row is not None
    return row.routes


def secrets(mesh: Mesh, proxy: str) -> set[str]:
    layers = mesh.pipeline.layers(proxy)
    return {name for layer in layers for name in mesh.pipeline.table(layer, type_urls.SECRET)}


def test_each_listener_has_its_names_and_its_routes(mesh: Mesh) -> None:
    """One listener's certificate or routes would answer for another's hostname."""
    mesh.apply([gateway(https("any"), https("one", "a.example"), https("wild", "*.example", cert="other"))])
    mesh.apply([route("any", "details", sectionName="any"), route("one", "reviews", sectionName="one")])
    assert [(one.names, [ref.resource for ref in one.tls.certificates] if one.tls else []) for one in chains(mesh)] == [
        ((), ["kubernetes://default/shop"]),
        (("a.example",), ["kubernetes://default/shop"]),
        (("*.example",), ["kubernetes://default/other"]),
    ]
    assert goes(routes(mesh, "any", "*")[0]) == to("details")
    assert goes(routes(mesh, "one", "a.example")[0]) == to("reviews")
    assert routes(mesh, "wild", "*.example") == ()


def test_a_host_of_another_listener_is_misdirected(mesh: Mesh) -> None:
    """A browser that reuses a connection would get the routes of a listener to which it never spoke."""
    mesh.apply([gateway(https("any"), https("one", "a.example"), https("wild", "*.example"))])
    mesh.apply([route("r", "reviews", "a.example", "b.example", "c.org")])
    misdirected = {
        (listener, host): [one.status for one in routes(mesh, listener, host)] == [421]
        for listener in ("any", "one", "wild")
        for host in ("a.example", "*.example", "*")
    }
    assert misdirected == {
        ("any", "a.example"): True,
        ("any", "*.example"): True,
        ("any", "*"): False,
        ("one", "a.example"): False,
        ("one", "*.example"): True,
        ("one", "*"): True,
        ("wild", "a.example"): True,
        ("wild", "*.example"): False,
        ("wild", "*"): True,
    }
    assert goes(routes(mesh, "wild", "b.example")[0]) == to("reviews")
    assert goes(routes(mesh, "any", "c.org")[0]) == to("reviews")
    assert [one.status for one in routes(mesh, "any", "b.example")] == [421], "it belongs to the wildcard"


def test_the_oldest_gateway_has_a_name(mesh: Mesh) -> None:
    """Envoy refuses a listener with two chains for one name: nothing of the port would be served."""
    young = gateway(https("x", "a.example", cert="other"), https("y", "b.example"), name="young", created="2024-02-01T00:00:00Z")
    mesh.apply([gateway(https("one", "a.example")), young])
    spec = {"parentRefs": [{"name": "young"}], "rules": [{"backendRefs": [{"name": "details", "port": 9080}]}]}
    mesh.apply([obj({**_META, "metadata": {"name": "r"}, "spec": spec})])
    assert [(one.names, one.tls.certificates[0].resource) for one in chains(mesh) if one.tls] == [
        (("a.example",), "kubernetes://default/shop"),
        (("b.example",), "kubernetes://default/shop"),
    ]
    assert goes(routes(mesh, "one", "a.example")[0]) == to("details"), "its routes join those of the older one"


_META = {"apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute"}


def test_plain_http_and_tls_share_a_port(mesh: Mesh) -> None:
    """Two Gateways on one bound port would take it from each other."""
    plain = {"name": "http", "port": 443, "protocol": "HTTP"}
    mesh.apply([gateway(https("any")), gateway(plain, name="plain")])
    assert [(one.encrypted, one.table.name if one.table else "") for one in chains(mesh)] == [
        (False, "http.443.tulle-system.ingress"),
        (True, "https.443.any~gw~default.tulle-system.ingress"),
    ]


def test_a_broken_certificate_takes_nothing_else_with_it(mesh: Mesh) -> None:
    """One mistake would close the port for all hostnames; and Envoy would refuse what it cannot use."""
    (chain, _), (_, key) = ROOTS.server("a"), ROOTS.server("b")
    data = {"tls.crt": chain.decode(), "tls.key": key.decode()}
    mixed = obj({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "mixed"}, "stringData": data})
    mesh.apply([mixed, gateway(https("bad", "a.example", cert="mixed"), https("good", "b.example"))])
    assert [one.names for one in chains(mesh)] == [("b.example",)]
    assert secrets(mesh, "tulle-system/ingress") == {"kubernetes://default/shop"}
    (problem,) = mesh.problems()
    assert (problem.path, problem.reason) == ("spec.listeners[0].tls.certificateRefs", "InvalidCertificateRef")
    assert "not that of its certificate" in problem.message
    mesh.apply([secret("mixed")])
    assert [one.names for one in chains(mesh)] == [("a.example",), ("b.example",)]
    assert mesh.problems() == []


def test_only_the_gateway_sees_its_secrets(mesh: Mesh) -> None:
    """A key would be sent to whoever asks for it by name."""
    second = entry("second", "10.0.0.3", {"gateway.networking.k8s.io/gateway-name": "own"}, capture="none")
    mesh.apply([gateway(https("any")), gateway(https("any", cert="other"), name="own"), second])
    assert secrets(mesh, "tulle-system/ingress") == {"kubernetes://default/shop"}
    assert secrets(mesh, "default/second") == {"kubernetes://default/other"}
    for proxy in ("default/curl", "default/reviews-v1", "default/nobody"):
        assert secrets(mesh, proxy) == set()
    mesh.delete([gateway(https("any"))])
    assert secrets(mesh, "tulle-system/ingress") == set(), "what is not served any more is not seen any more"


def test_a_renewed_secret_changes_nothing_but_the_secret(mesh: Mesh) -> None:
    """A listener that is replaced drains its connections: a renewed certificate would cut those that stand."""
    mesh.apply([gateway(https("any"))])
    changed = mesh.apply([secret("shop")])
    assert {layer: {url: set(names) for url, names in types.items()} for layer, types in changed.items()} == {
        "workload/tulle-system/ingress": {type_urls.SECRET: {"kubernetes://default/shop"}}
    }


def shows(name: str, secret_name: str, port: int) -> Object:
    backend: dict[str, Any] = {"tls": {"backend": {"clientCertificateRef": {"name": secret_name}}}} if secret_name else {}
    return gateway({"name": "http", "port": port, "protocol": "HTTP"}, name=name, **backend)


def test_a_gateway_shows_its_own_certificate_and_nobody_else_does(mesh: Mesh) -> None:
    """A backend would see the certificate of another Gateway, or a sidecar's route lead to a cluster that it does not have."""
    policy = {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "BackendTLSPolicy",
        "metadata": {"name": "reviews"},
        "spec": {
            "targetRefs": [{"group": "", "kind": "Service", "name": "reviews"}],
            "validation": {"hostname": "reviews.example", "wellKnownCACertificates": "System"},
        },
    }
    mesh.apply([obj(policy), shows("gw", "shop", 81), shows("second", "other", 82), shows("third", "", 83)])
    spec: dict[str, Any] = {
        "parentRefs": [{"name": name} for name in ("gw", "second", "third")],
        "rules": [{"backendRefs": [{"name": name, "port": 9080} for name in ("reviews", "ratings")]}],
    }
    mesh.apply(
        [obj({"apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute", "metadata": {"name": "r"}, "spec": spec})]
    )

    def called() -> dict[int, list[str]]:
        there = {port: mesh.ingress(port=port).routes[0].destinations for port in (81, 82, 83)}
        return {port: [one.destination.cluster for one in found] for port, found in there.items()}

    shared, plain = (f"outbound|9080||{name}.default.svc.cluster.local" for name in ("reviews", "ratings"))
    assert called() == {81: [f"{shared}|default/gw", plain], 82: [f"{shared}|default/second", plain], 83: [shared, plain]}
    own = mesh.pipeline.table("workload/tulle-system/ingress", type_urls.CLUSTER)
    assert {name for name in own if "|" in name} == {f"{shared}|default/gw", f"{shared}|default/second"}
    assert {name for name in own if "|" in name} == set(mesh.pipeline.table("workload/tulle-system/ingress", type_urls.ENDPOINT))
    assert secrets(mesh, "tulle-system/ingress") == {"kubernetes://default/shop", "kubernetes://default/other"}
    assert secrets(mesh, "default/curl") == set()
    assert mesh.problems() == []
    mesh.apply([shows("second", "lost", 82)])
    assert called()[82] == [shared, plain], "without a certificate that can be shown, none is"
    assert [(one.reason, one.path) for one in mesh.problems()] == [
        ("InvalidCertificateRef", "spec.tls.backend.clientCertificateRef")
    ]


def test_the_model_and_what_is_printed_have_no_key(mesh: Mesh) -> None:
    """A dump of the model, an exception or a debug line would have private keys in it."""
    mesh.apply([gateway(https("any"))])
    model = mesh.pipeline.model("workload/tulle-system/ingress")
    (encoded,) = mesh.pipeline.table("workload/tulle-system/ingress", type_urls.SECRET).values()
    assert b"PRIVATE KEY" in encoded.value
    assert b"PRIVATE KEY" not in msgspec.json.encode(model)
    assert "PRIVATE KEY" not in f"{model} {encoded!r}"


def test_clients_that_must_show_a_certificate(mesh: Mesh) -> None:
    """A port that was to be for known clients would be open to all."""
    roots = obj({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "roots"}, "data": {"ca.crt": ROOTS.pem.decode()}})
    check = {"caCertificateRefs": [{"group": "", "kind": "ConfigMap", "name": "roots"}]}
    loose = {**check, "mode": "AllowInsecureFallback"}
    frontend = {"default": {"validation": check}, "perPort": [{"port": 444, "tls": {"validation": loose}}]}
    mesh.apply([gateway(https("a"), https("b", port=444), tls={"frontend": frontend})])
    assert chains(mesh) == (), "without what to check with, nothing is served"
    mesh.apply([roots])
    (strict,), (fallback,) = chains(mesh), chains(mesh, 444)
    assert strict.tls
    assert fallback.tls
    assert (strict.tls.require, strict.tls.fallback) == (True, False)
    assert (fallback.tls.require, fallback.tls.fallback) == (False, True)
    assert secrets(mesh, "tulle-system/ingress") == {"kubernetes://default/shop", "kubernetes://ConfigMap:default/roots-cacert"}


def listener_set(
    name: str, *listeners: dict[str, Any], created: str = "2024-01-01T00:00:00Z", namespace: str = "default"
) -> Object:
    spec = {"parentRef": {"name": "gw", "namespace": "default"}, "listeners": list(listeners)}
    metadata = {"name": name, "namespace": namespace, "creationTimestamp": created}
    return obj({"apiVersion": "gateway.networking.k8s.io/v1", "kind": "ListenerSet", "metadata": metadata, "spec": spec})


def test_listener_sets_add_where_the_gateway_lets_them(mesh: Mesh) -> None:
    """Anybody could put a hostname and a certificate on everybody's gateway; or nobody could."""
    http = {"name": "http", "port": 8443, "protocol": "HTTP"}
    added = listener_set("team", https("team", "team.example", cert="team"), namespace="shop")
    mesh.apply([secret("team", "shop"), added, gateway(http)])
    assert chains(mesh) == ()
    mesh.apply([gateway(http, allowedListeners={"namespaces": {"from": "All"}})])
    assert [(one.names, one.tls.certificates[0].resource) for one in chains(mesh) if one.tls] == [
        (("team.example",), "kubernetes://shop/team")
    ]
    spec = {
        "parentRefs": [{"kind": "ListenerSet", "name": "team"}],
        "rules": [{"backendRefs": [{"name": "reviews", "namespace": "default", "port": 9080}]}],
    }
    mesh.apply([obj({**_META, "metadata": {"name": "r", "namespace": "shop"}, "spec": spec})])
    where = table_key(INGRESS, 443, "team~team~shop~set")
    row = mesh.pipeline.flow.get(gateway_virtual_host, (where, "team.example"))
    assert row is not None
    assert len(row.routes) == 1


def test_a_listener_set_gives_way(mesh: Mesh) -> None:
    """A ListenerSet could take a hostname from the Gateway, or from an older set."""
    allowed = {"namespaces": {"from": "Same"}}
    mesh.apply([gateway(https("own", "own.example"), allowedListeners=allowed)])
    mesh.apply(
        [
            listener_set("old", https("x", "own.example"), https("y", "y.example", cert="other")),
            listener_set("young", https("y", "y.example"), https("z", "z.example"), created="2024-02-01T00:00:00Z"),
        ]
    )
    assert [(one.names, one.tls.certificates[0].resource) for one in chains(mesh) if one.tls] == [
        (("own.example",), "kubernetes://default/shop"),
        (("y.example",), "kubernetes://default/other"),
        (("z.example",), "kubernetes://default/shop"),
    ]
    assert [(str(one.ref), one.path, one.reason) for one in mesh.problems()] == [
        ("ListenerSet default/old", "spec.listeners[0].port", "HostnameConflict"),
        ("ListenerSet default/young", "spec.listeners[0].port", "HostnameConflict"),
    ]


def test_asked_for_by_name_a_secret_is_the_gateways_alone(mesh: Mesh) -> None:
    """A sidecar of the mesh could have any gateway's key for the asking."""
    mesh.apply([gateway(https("any"))])
    name = "kubernetes://default/shop"

    def answer(proxy: str, *names: str) -> tuple[list[str], list[str]]:
        stream = DeltaStream(mesh.pipeline, proxy)
        sent = [one for one in stream.feed(Request(type_urls.SECRET, subscribe=names)) if isinstance(one, Send)]
        return [it.name for one in sent for it in one.resources], [it for one in sent for it in one.absent]

    assert answer("tulle-system/ingress", name) == ([name], [])
    for proxy in ("default/curl", "default/reviews-v1"):
        assert answer(proxy, name) == ([], [name])
        assert answer(proxy, "*")[0] == []
    assert answer("default/nobody", name) == ([], []), "who is not known is told nothing"


def test_http3_is_for_those_who_ask_and_can(mesh: Mesh) -> None:
    """UDP would be open that nobody asked for, or a client's certificate would not be asked for by way of it."""
    one = gateway(https("shop", "shop.example"))
    mesh.apply([one])
    assert [chain.http3 for chain in chains(mesh)] == [0]
    asks = one.model_copy(update={"metadata": one.metadata.model_copy(update={"annotations": {"tulle.dev/http3": "true"}})})
    mesh.apply([asks])
    assert [chain.http3 for chain in chains(mesh)] == [443]
    layers = mesh.pipeline.layers("tulle-system/ingress")
    assert any("udp_0.0.0.0_443" in mesh.pipeline.table(layer, type_urls.LISTENER) for layer in layers)
    authorities = {"name": "clients", "namespace": "default"}
    mesh.apply([obj({"apiVersion": "v1", "kind": "ConfigMap", "metadata": authorities, "data": {"ca.crt": ROOTS.pem.decode()}})])
    validation = {"caCertificateRefs": [{"group": "", "kind": "ConfigMap", "name": "clients"}]}
    checked = gateway(https("shop", "shop.example"), tls={"frontend": {"default": {"validation": validation}}})
    mesh.apply([checked.model_copy(update={"metadata": asks.metadata})])
    assert [(chain.http3, chain.tls is not None) for chain in chains(mesh)] == [(0, True)]
    assert ("QuicNotServed", "spec.listeners[0].tls") in {(one.reason, one.path) for one in mesh.pipeline.problems()}


def with_option(name: str, value: str, cert: str = "shop") -> Object:
    tls = {"certificateRefs": [{"name": cert}], "options": {name: value}}
    return gateway({**https("shop", "shop.example"), "tls": tls})


def test_options_of_a_listener_are_acted_on(mesh: Mesh) -> None:
    """A version that is not to be spoken would be, or a client would get in that shows no certificate."""
    mesh.apply([secret("checked", ca_crt=ROOTS.pem)])
    for name, value, field, found in (
        ("tulle.dev/tls-min-protocol-version", "TLSV1_3", "minimum", "TLSv1_3"),
        ("tulle.dev/tls-max-protocol-version", "TLSV1_1", "minimum", "TLSv1_1"),
        ("tulle.dev/tls-ecdh-curves", "P-256, X25519", "curves", ("P-256", "X25519")),
        ("gateway.istio.io/tls-cipher-suites", "AES128-SHA", "ciphers", ("AES128-SHA",)),
        ("gateway.istio.io/tls-terminate-mode", "MUTUAL", "require", True),
        ("gateway.istio.io/tls-terminate-mode", "OPTIONAL_MUTUAL", "require", False),
        ("gateway.istio.io/tls-terminate-mode", "ISTIO_MUTUAL", "mesh", True),
    ):
        mesh.apply([with_option(name, value, "checked")])
        (chain,) = chains(mesh)
        assert chain.tls is not None
        assert getattr(chain.tls, field) == found
        assert (chain.tls.authorities is not None) is (value.endswith("MUTUAL") and not chain.tls.mesh)
        assert not [one for one in mesh.pipeline.problems() if "options" in one.path]


def test_an_option_that_cannot_be_honoured_is_said(mesh: Mesh) -> None:
    """A listener would let everybody in because its authorities are missing, or an unknown option would be believed in."""
    mesh.apply([with_option("gateway.istio.io/tls-terminate-mode", "MUTUAL")])
    assert not chains(mesh), "nobody can be checked, so nobody gets in"
    assert "InvalidCertificateRef" in {one.reason for one in mesh.pipeline.problems()}
    for name, value, reason in (
        ("tulle.dev/tls-min-protocol-version", "1.2", "BadEnum"),
        ("gateway.istio.io/tls-cipher-suites", "RC4-MD5", "BadEnum"),
        ("example.com/fast", "true", "NotYetSupported"),
    ):
        mesh.apply([with_option(name, value)])
        said = {(one.path, one.reason) for one in mesh.pipeline.problems()}
        assert (f'spec.listeners[0].tls.options["{name}"]', reason) in said
        assert chains(mesh), "it is served all the same"


def test_http3_gives_way_to_a_udp_route(mesh: Mesh) -> None:
    """Two listeners would want one port, and which of them got it would be chance."""
    wish = gateway(https("shop", "shop.example"), {"name": "udp", "port": 443, "protocol": "UDP"})
    mesh.apply(
        [wish.model_copy(update={"metadata": wish.metadata.model_copy(update={"annotations": {"tulle.dev/http3": "true"}})})]
    )
    assert [chain.http3 for chain in chains(mesh)] == [443]
    spec = {"parentRefs": [{"name": "gw", "sectionName": "udp"}], "rules": [{"backendRefs": [{"name": "details", "port": 53}]}]}
    metadata = {"name": "dns"}
    mesh.apply([obj({"apiVersion": "gateway.networking.k8s.io/v1", "kind": "UDPRoute", "metadata": metadata, "spec": spec})])
    assert [chain.http3 for chain in chains(mesh)] == [0]
    assert ("QuicNotServed", "spec.listeners[0].tls") in {(one.reason, one.path) for one in mesh.pipeline.problems()}
