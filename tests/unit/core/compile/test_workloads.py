"""Services and workloads: endpoints, destinations, names, inbound ports, mutual TLS, and the sidecars' view of it all."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from tests.unit.core.compile.mesh import Mesh, bookinfo, entry, obj, service
from tulle.api.object import Object
from tulle.core import type_urls
from tulle.core.compile.destinations import destination
from tulle.core.compile.endpoints import endpoints
from tulle.core.compile.outbound import outbound
from tulle.core.model.destination import Destination, DestinationKey, Endpoint, Locality, Transport
from tulle.core.model.name import Name
from tulle.core.model.route import RouteTableKey
from tulle.core.model.service import Protocol
from tulle.core.model.traffic import LoadBalancer
from tulle.core.model.workload import Capture, InboundPort, MtlsMode, OutboundTcp, ProxyPorts


@pytest.fixture
def mesh() -> Mesh:
    return Mesh(bookinfo())


def rule(host: str = "reviews", name: str = "", namespace: str = "default", **spec: Any) -> Object:
    metadata = {"name": name or host.strip("*."), "namespace": namespace}
    return obj(
        {"apiVersion": "networking.istio.io/v1", "kind": "DestinationRule", "metadata": metadata, "spec": {"host": host, **spec}}
    )


def peer(name: str, namespace: str, mode: str | None, created: str = "", **spec: Any) -> Object:
    metadata = {"name": name, "namespace": namespace, **({"creationTimestamp": created} if created else {})}
    if mode:
        spec["mtls"] = {"mode": mode}
    return obj({"apiVersion": "security.istio.io/v1", "kind": "PeerAuthentication", "metadata": metadata, "spec": spec})


def reached(mesh: Mesh, name: str, port: int = 9080, subset: str = "", namespace: str = "default") -> tuple[Endpoint, ...]:
    row = mesh.pipeline.flow.get(endpoints, ((namespace, name), port, subset))
    assert row
    return row.endpoints


def how(mesh: Mesh, name: str = "reviews", port: int = 9080, subset: str = "") -> Destination:
    row = mesh.pipeline.flow.get(destination, (("default", name), port, subset))
    assert row
    return row


def dns(mesh: Mesh, hostname: str) -> Name:
    return msgspec.json.decode(mesh.pipeline.table("mesh", type_urls.NAME)[hostname].value, type=Name)


def test_endpoints_and_identities(mesh: Mesh) -> None:
    """Callers would miss an instance, or accept a stranger for it."""
    assert [(one.address, one.port, one.workload, one.mtls) for one in reached(mesh, "reviews")] == [
        ("10.0.0.13", 9080, "default/reviews-v1", True),
        ("10.0.0.14", 9080, "default/reviews-v2", True),
        ("10.0.0.15", 9080, "default/reviews-v3", True),
    ]
    row = how(mesh)
    assert row.identities == ("spiffe://cluster.local/ns/default/sa/bookinfo-reviews",)
    assert (row.transport, row.http, row.http2, row.load_balancer) == (Transport.MTLS, True, False, LoadBalancer.LEAST_REQUEST)


def test_subsets(mesh: Mesh) -> None:
    """A subset would have other versions in it, or a policy of its own be lost."""
    subsets = [
        {"name": "v1", "labels": {"version": "v1"}},
        {"name": "v2", "labels": {"version": "v2"}, "trafficPolicy": {"loadBalancer": {"simple": "ROUND_ROBIN"}}},
    ]
    mesh.apply([rule(trafficPolicy={"loadBalancer": {"simple": "RANDOM"}}, subsets=subsets)])
    assert [one.workload for one in reached(mesh, "reviews", subset="v2")] == ["default/reviews-v2"]
    found = [how(mesh, subset=subset).load_balancer for subset in ("", "v1", "v2")]
    assert found == [LoadBalancer.RANDOM, LoadBalancer.RANDOM, LoadBalancer.ROUND_ROBIN]
    names = list(mesh.pipeline.table("mesh", type_urls.CLUSTER))
    assert "outbound|9080|v2|reviews.default.svc.cluster.local" in names
    mesh.delete([rule()])
    assert "outbound|9080|v2|reviews.default.svc.cluster.local" not in mesh.pipeline.table("mesh", type_urls.CLUSTER)


def test_port_level_settings_replace_the_rest(mesh: Mesh) -> None:
    """A port would inherit what its own settings leave out, against Istio's rule."""
    policy = {
        "loadBalancer": {"simple": "RANDOM"},
        "connectionPool": {"tcp": {"connectTimeout": "3s"}},
        "portLevelSettings": [{"port": {"number": 9080}, "loadBalancer": {"simple": "ROUND_ROBIN"}}],
    }
    mesh.apply([rule(trafficPolicy=policy)])
    assert (how(mesh).load_balancer, how(mesh).connect_timeout) == (LoadBalancer.ROUND_ROBIN, 10.0)


@pytest.mark.parametrize(("mode", "transport"), [("DISABLE", Transport.PLAINTEXT), ("ISTIO_MUTUAL", Transport.MTLS)])
def test_tls_mode(mesh: Mesh, mode: str, transport: Transport) -> None:
    """What a person ordered about TLS would be overruled."""
    mesh.apply([rule(trafficPolicy={"tls": {"mode": mode}})])
    assert how(mesh).transport is transport
    assert mesh.problems() == []


def test_rule_fields_that_are_not_supported_yet(mesh: Mesh) -> None:
    """Somebody would rely on a certificate that is not shown."""
    mesh.apply([rule(trafficPolicy={"tls": {"mode": "SIMPLE", "credentialName": "a"}})])
    assert [(problem.path, problem.reason) for problem in mesh.problems()] == [
        ("spec.trafficPolicy.tls.credentialName", "NotYetSupported")
    ]


def test_rules_for_one_host_add_up(mesh: Mesh) -> None:
    """The second team's subsets would be lost, and nobody told."""
    mesh.apply([rule(name="a", subsets=[{"name": "v1", "labels": {"version": "v1"}}])])
    again = [{"name": "v1", "labels": {"version": "v3"}}, {"name": "v2", "labels": {"version": "v2"}}]
    mesh.apply([rule(name="b", subsets=again)])
    assert [one.workload for one in reached(mesh, "reviews", subset="v1")] == ["default/reviews-v1"]
    assert [one.workload for one in reached(mesh, "reviews", subset="v2")] == ["default/reviews-v2"]
    assert [(problem.path, problem.reason) for problem in mesh.problems()] == [("spec.subsets[0].name", "Conflict")]


def test_a_rule_of_a_strange_namespace_is_not_everybodys(mesh: Mesh) -> None:
    """One namespace could change how all others reach a service that is not its own."""
    mesh.apply([rule("reviews.default", "theirs", "shop", trafficPolicy={"loadBalancer": {"simple": "RANDOM"}})])
    assert how(mesh).load_balancer is LoadBalancer.LEAST_REQUEST
    assert mesh.problems() == []  # it is for its own callers: see test_caller_rules
    mesh.apply([rule("*.local", "mesh", "istio-system", trafficPolicy={"loadBalancer": {"simple": "RANDOM"}})])
    assert how(mesh).load_balancer is LoadBalancer.RANDOM


def test_a_rule_for_no_service(mesh: Mesh) -> None:
    """A typing error in `host` would be found by nobody."""
    mesh.apply([rule("reviewz")])
    assert mesh.said() == [
        "DestinationRule default/reviewz: spec.host: no Service reviewz in namespace default; did you mean reviews?"
    ]


def test_a_workload_that_is_not_ready_gets_no_traffic(mesh: Mesh) -> None:
    """Requests would go to an application that is starting."""
    before = mesh.pipeline.table("mesh", type_urls.CLUSTER)
    changed = mesh.apply(
        [entry("reviews-v1", "10.0.0.13", {"app": "reviews", "version": "v1"}, account="bookinfo-reviews", ready="false")]
    )
    assert [one.healthy for one in reached(mesh, "reviews")] == [False, True, True]
    assert [list(types) for types in changed.values()] == [[type_urls.ENDPOINT]]
    assert mesh.pipeline.table("mesh", type_urls.CLUSTER) is before


def test_workloads_without_a_sidecar(mesh: Mesh) -> None:
    """A hand-written entry would be called with mutual TLS that nobody answers."""
    mesh.apply([entry("vm", "10.0.0.99", {"app": "reviews", "version": "v4"}, node="", capture="")])
    assert [(one.workload, one.mtls) for one in reached(mesh, "reviews")][-1] == ("default/vm", False)
    assert how(mesh).transport is Transport.MIXED
    assert mesh.pipeline.layers("default/vm") == ()
    mesh.apply([entry("vm", "10.0.0.99", {"app": "reviews", "version": "v4"}, node="", capture="", mtls="true")])
    assert how(mesh).transport is Transport.MTLS


def test_a_service_without_a_selector_has_no_endpoints(mesh: Mesh) -> None:
    """It would have all workloads of its namespace."""
    mesh.apply([service("hand", selector={})])
    assert reached(mesh, "hand") == ()
    assert how(mesh, "hand").transport is Transport.MTLS


@pytest.mark.parametrize(
    ("port", "entry_ports", "expected"),
    [
        ({"port": 80, "name": "http"}, {}, 80),
        ({"port": 80, "name": "http", "targetPort": 8000}, {}, 8000),
        ({"port": 80, "name": "http", "targetPort": 8000}, {"http": 31000}, 31000),
        ({"port": 80, "name": "http", "targetPort": "web"}, {"web": 8001}, 8001),
        ({"port": 80, "name": "http", "targetPort": "web"}, {}, 80),
    ],
)
def test_where_a_port_is_reached(mesh: Mesh, port: dict[str, Any], entry_ports: dict[str, int], expected: int) -> None:
    """A port would be looked for where nothing listens."""
    mesh.apply([service("web", ports=(port,)), entry("web-1", "10.0.1.1", {"app": "web"}, ports=entry_ports)])
    assert [one.port for one in reached(mesh, "web", 80)] == [expected]
    workload = mesh.pipeline.workload("default/web-1")
    assert workload
    assert workload.inbound == (InboundPort(expected, expected, Protocol.HTTP, service="web.default.svc.cluster.local"),)


def test_weight_and_locality(mesh: Mesh) -> None:
    """Traffic would not follow weights, and zones not be known."""
    one = entry("web-1", "10.0.1.1", {"app": "web"})
    raw = one.model_dump(by_alias=True, exclude_none=True)
    raw["spec"] |= {"weight": 7, "locality": "eu/north/a"}
    mesh.apply([service("web"), obj(raw)])
    assert [(found.weight, found.locality) for found in reached(mesh, "web")] == [(7, Locality("eu", "north", "a"))]


@pytest.mark.parametrize(
    ("port", "protocol"),
    [
        ({"name": "http"}, Protocol.HTTP),
        ({"name": "http-web"}, Protocol.HTTP),
        ({"name": "http2"}, Protocol.HTTP2),
        ({"name": "grpc-api"}, Protocol.GRPC),
        ({"name": "grpc-web"}, Protocol.HTTP),
        ({"name": "https"}, Protocol.TLS),
        ({"name": "tcp-db"}, Protocol.TCP),
        ({"name": "mysql"}, Protocol.TCP),
        ({"name": "web"}, Protocol.AUTO),
        ({"name": "web", "appProtocol": "kubernetes.io/h2c"}, Protocol.HTTP2),
        ({"name": "http", "appProtocol": "tcp"}, Protocol.TCP),
    ],
)
def test_protocols(mesh: Mesh, port: dict[str, Any], protocol: Protocol) -> None:
    """HTTP would be passed as bytes, or bytes taken for HTTP."""
    mesh.apply([service("web", ports=({"port": 9999, **port},)), entry("web-1", "10.0.1.1", {"app": "web"})])
    workload = mesh.pipeline.workload("default/web-1")
    assert workload
    assert [found.protocol for found in workload.inbound] == [protocol]


def test_names(mesh: Mesh) -> None:
    """A mesh name would not resolve, or to nothing."""
    assert dns(mesh, "reviews.default.svc.cluster.local") == Name(
        "reviews.default.svc.cluster.local", "reviews", "default", ("240.240.0.3",)
    )
    mesh.apply([service("headless", selector={"app": "reviews"}, address="None")])
    assert dns(mesh, "headless.default.svc.cluster.local").addresses == ("10.0.0.13", "10.0.0.14", "10.0.0.15")


def test_domains(mesh: Mesh) -> None:
    """A name that resolves would not be routed."""
    names = ("reviews", "reviews.default", "reviews.default.svc", "reviews.default.svc.cluster.local", "240.240.0.3")
    assert mesh.host("reviews").domains == (*names, *(f"{name}:9080" for name in names))
    mesh.apply([entry("stranger", "10.1.0.1", {"app": "stranger"}, "shop")])
    assert mesh.host("reviews", viewer="shop").domains == (*names[1:], *(f"{name}:9080" for name in names[1:]))


def test_a_virtual_ip_belongs_to_one_service(mesh: Mesh) -> None:
    """Two virtual hosts with one domain: Envoy refuses the table, and no route changes any more."""
    thief = service("thief", address="240.240.0.3", created="2030-01-01T00:00:00Z")
    owner = service("reviews", address="240.240.0.3", created="2020-01-01T00:00:00Z")
    mesh.apply([owner, thief])
    assert "240.240.0.3" not in mesh.host("thief").domains
    assert "240.240.0.3" in mesh.host("reviews").domains
    assert [(problem.path, problem.reason) for problem in mesh.problems()] == [("spec.clusterIP", "DuplicateAddress")]


def test_outbound(mesh: Mesh) -> None:
    """A sidecar would not listen for a port that its application calls."""
    mesh.apply([service("db", ports=({"port": 3306, "name": "mysql"},), address="240.240.0.9")])
    row = mesh.pipeline.flow.get(outbound, "default")
    assert row
    assert [key.name for key in row.http] == ["80.default", "8080.default", "9080.default"]
    assert row.tcp == (OutboundTcp("240.240.0.9", 3306, DestinationKey("db.default.svc.cluster.local", 3306)),)


def test_layers(mesh: Mesh) -> None:
    """A proxy would see less than it needs, or what is another's."""
    assert mesh.pipeline.layers("default/reviews-v1") == ("unguarded", "mesh", "namespace/default", "workload/default/reviews-v1")
    assert mesh.pipeline.layers("default/nobody") == ()
    table = mesh.pipeline.table("namespace/default", type_urls.VIRTUAL_HOST)
    assert {"9080.default/allow_any", "80.default/allow_any"} < set(table)
    assert list(mesh.pipeline.table("namespace/default", type_urls.ROUTE)) == ["80.default", "8080.default", "9080.default"]


def test_a_namespaces_layer_goes_with_its_last_sidecar(mesh: Mesh) -> None:
    """Resources of namespaces that nobody is in would be kept for ever."""
    stranger = entry("stranger", "10.1.0.1", {"app": "stranger"}, "shop")
    mesh.apply([stranger])
    size = mesh.pipeline.flow.size
    assert mesh.pipeline.table("namespace/shop", type_urls.ROUTE)
    changed = mesh.delete([stranger])
    assert set(changed["namespace/shop"][type_urls.ROUTE].values()) == {None}
    assert mesh.pipeline.table("namespace/shop", type_urls.ROUTE) == {}
    assert mesh.pipeline.layers("shop/stranger") == ()
    mesh.apply([])
    assert mesh.pipeline.flow.size < size


def test_proxy_capture(mesh: Mesh) -> None:
    """Without privileges, the sidecar's ports and the application's would be mixed up."""
    notes = {"capture": "proxy", "proxy_ports": '{"outbound": 21001, "inbound": 21006}', "app_ports": '{"31000": 9080}'}
    mesh.apply([service("web", ports=({"port": 80, "name": "http"},), address="240.240.0.9")])
    mesh.apply([entry("web-1", "127.0.0.1", {"app": "web"}, ports={"http": 31000}, **notes)])
    workload = mesh.pipeline.workload("default/web-1")
    assert workload
    assert (workload.capture, workload.ports) == (Capture.PROXY, ProxyPorts(outbound=21001, inbound=21006))
    assert workload.inbound == (InboundPort(31000, 9080, Protocol.HTTP, service="web.default.svc.cluster.local"),)
    hosts = mesh.pipeline.table("namespace/default", type_urls.VIRTUAL_HOST)
    assert {
        "0.default/allow_any",
        "0.default/web.default.svc.cluster.local:80",
        "0.default/reviews.default.svc.cluster.local:9080",
    } <= set(hosts)
    parts = mesh.pipeline.model("namespace/default")
    table = RouteTableKey(0, "default")
    assert "web" in parts[f"virtual_host {(table, ('default', 'web'), 80)}"].domains
    assert "reviews" not in parts[f"virtual_host {(table, ('default', 'reviews'), 9080)}"].domains


@pytest.mark.parametrize(
    ("note", "value"), [("app_ports", "{"), ("app_ports", '{"a": 1}'), ("proxy_ports", "[]"), ("capture", "magic")]
)
def test_annotations_that_cannot_be_read(mesh: Mesh, note: str, value: str) -> None:
    """A broken annotation would crash the control plane, or be passed over in silence."""
    notes: dict[str, Any] = {note: value}
    mesh.apply([entry("web-1", "10.0.1.1", {"app": "web"}, **notes)])
    (problem,) = mesh.problems()
    assert (problem.path, problem.reason) == (f"metadata.annotations[tulle.dev/{note.replace('_', '-')}]", "BadAnnotation")
    assert mesh.pipeline.workload("default/web-1")


def modes(mesh: Mesh, name: str = "reviews-v1") -> tuple[MtlsMode, MtlsMode]:
    workload = mesh.pipeline.workload(f"default/{name}")
    assert workload
    return workload.mtls, workload.inbound[0].mtls


def test_mtls_is_inherited_from_mesh_to_namespace_to_workload_to_port(mesh: Mesh) -> None:
    """STRICT would not be strict somewhere, or an exception not be one."""
    strict, permissive, disable = MtlsMode.STRICT, MtlsMode.PERMISSIVE, MtlsMode.DISABLE
    assert modes(mesh) == (permissive, permissive)
    mesh.apply([peer("mesh", "istio-system", "STRICT")])
    assert modes(mesh) == (strict, strict)
    mesh.apply([peer("mesh", "tulle-system", "DISABLE")])
    assert modes(mesh) == (disable, disable)
    mesh.apply([peer("mesh", "tulle-system", "STRICT"), peer("all", "default", "PERMISSIVE")])
    assert modes(mesh) == (permissive, permissive)
    mesh.apply([peer("all", "default", "UNSET")])
    assert modes(mesh) == (strict, strict)
    selector = {"matchLabels": {"app": "reviews"}}
    mesh.apply([peer("reviews", "default", "PERMISSIVE", selector=selector, portLevelMtls={"9080": {"mode": "DISABLE"}})])
    assert modes(mesh) == (permissive, disable)
    assert modes(mesh, "ratings-v1") == (strict, strict)
    mesh.apply([peer("reviews", "default", None, selector=selector, portLevelMtls={"9080": {"mode": "UNSET"}})])
    assert modes(mesh) == (strict, strict)


def test_callers_follow_disable(mesh: Mesh) -> None:
    """A workload without mutual TLS would still be called with it."""
    mesh.apply([peer("off", "default", "DISABLE", selector={"matchLabels": {"app": "reviews", "version": "v1"}})])
    assert [one.mtls for one in reached(mesh, "reviews")] == [False, True, True]
    assert how(mesh).transport is Transport.MIXED


def test_the_oldest_peer_authentication_counts(mesh: Mesh) -> None:
    """Which of two counts would depend on the order of arrival."""
    mesh.apply(
        [
            peer("a-young", "default", "DISABLE", "2024-02-01T00:00:00Z"),
            peer("z-old", "default", "STRICT", "2024-01-01T00:00:00Z"),
        ]
    )
    assert modes(mesh) == (MtlsMode.STRICT, MtlsMode.STRICT)
    assert mesh.said() == [
        "PeerAuthentication default/a-young: spec: PeerAuthentication default/z-old is older and for the whole namespace; "
        "needed one of the two: this one has no effect"
    ]


def test_a_port_that_the_sidecar_does_not_see_is_called_in_plaintext() -> None:
    """Callers would send mutual TLS to an application that was excluded from capture, and every call would fail."""
    name = "traffic.sidecar.istio.io/excludeInboundPorts"
    plain = Mesh([service("reviews"), _noted(name, "9080")])
    assert [one.mtls for one in reached(plain, "reviews")] == [False]
    other = Mesh([service("reviews"), _noted(name, "9090")])
    assert [one.mtls for one in reached(other, "reviews")] == [True]


def _noted(annotation: str, value: str) -> Object:
    plain = entry("reviews-v1", "10.0.0.1", {"app": "reviews"})
    notes = {**plain.metadata.annotations, annotation: value}
    return plain.model_copy(update={"metadata": plain.metadata.model_copy(update={"annotations": notes})})


def test_what_is_wrong_in_an_annotation_of_istios_is_told() -> None:
    """A mistyped range would silently capture what was to be left alone."""
    wrong = Mesh([service("reviews"), _noted("traffic.sidecar.istio.io/excludeOutboundIPRanges", "10.0.0/8")])
    found = [one for one in wrong.problems() if one.reason == "BadAnnotation"]
    assert len(found) == 1
    assert "needed networks with commas between them" in found[0].message


def test_both_families_of_a_service() -> None:
    """Its second address would be nobody's: answered by DNS and refused by every sidecar, or a claim on another's."""
    spec = {"clusterIP": "2001:db8::7", "clusterIPs": ["2001:db8::7", "240.240.0.7"], "selector": {"app": "cart"}}
    ports = [{"port": 6379, "name": "redis"}, {"port": 8080, "name": "http"}]
    raw: dict[str, Any] = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "cart", "namespace": "default"},
        "spec": {**spec, "ports": ports},
    }
    both = Mesh([obj(raw), entry("cart-1", "10.0.0.1", {"app": "cart"}), _noted("tulle.dev/ipv6", "true")])
    assert dns(both, "cart.default.svc.cluster.local").addresses == ("240.240.0.7", "2001:db8::7")
    assert not both.problems()
    shared = both.pipeline.table("namespace/default", type_urls.LISTENER)
    assert "240.240.0.7_6379" in shared
    assert not [name for name in shared if ":" in name], "a host without IPv6 would refuse these"
    six = both.pipeline.table("ipv6/default", type_urls.LISTENER)
    assert set(six) == {"2001:db8::7_6379", "[::]_8080"}
    assert [layer for layer in both.pipeline.layers("default/reviews-v1") if "ipv6" in layer] == ["ipv6/default"]
    assert not [layer for layer in both.pipeline.layers("default/cart-1") if "ipv6" in layer]
    younger = service("web", address="2001:db8::7", created="2026-01-01T00:00:00Z")
    older = obj({**raw, "metadata": {"name": "cart", "namespace": "default", "creationTimestamp": "2025-01-01T00:00:00Z"}})
    (problem,) = Mesh([older, younger]).problems()
    assert problem.reason == "DuplicateAddress"
    assert "default/cart" in problem.message
