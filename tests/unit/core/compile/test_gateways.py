"""Gateway workloads: which ports they bind, whose servers share one, and who gets which host."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.core.compile.mesh import Mesh, bookinfo, entry, obj, service
from tulle.api.object import Object
from tulle.core import type_urls
from tulle.core.compile.hostname import covers, meet
from tulle.core.model.gateway import GatewayListener
from tulle.core.model.workload import Workload


@pytest.fixture
def mesh() -> Mesh:
    return Mesh(bookinfo())


def server(port: int = 80, *hosts: str, protocol: str = "HTTP", **more: Any) -> dict[str, Any]:
    return {"port": {"number": port, "name": f"p{port}", "protocol": protocol}, "hosts": list(hosts) or ["*"], **more}


def gateway(name: str = "gw", *servers: dict[str, Any], selector: dict[str, str] | None = None) -> Object:
    spec = {"selector": {"istio": "ingressgateway"} if selector is None else selector, "servers": list(servers) or [server()]}
    return obj({"apiVersion": "networking.istio.io/v1", "kind": "Gateway", "metadata": {"name": name}, "spec": spec})


def vs(name: str, hosts: list[str], namespace: str = "default", created: str = "2024-01-01T00:00:00Z", **more: Any) -> Object:
    spec = {
        "hosts": hosts,
        "gateways": ["default/gw"],
        "http": [
            {"name": name, "match": [{"uri": {"exact": f"/{name}"}}], "route": [{"destination": {"host": "reviews.default"}}]}
        ],
        **more,
    }
    metadata = {"name": name, "namespace": namespace, "creationTimestamp": created}
    return obj({"apiVersion": "networking.istio.io/v1", "kind": "VirtualService", "metadata": metadata, "spec": spec})


def ingress(mesh: Mesh) -> Workload:
    found = mesh.pipeline.workload("tulle-system/ingress")
    assert found
    return found


def names(mesh: Mesh, host: str = "*") -> list[str]:
    return [route.name for route in mesh.ingress(host).routes]


def test_without_gateways_nothing_is_bound(mesh: Mesh) -> None:
    """An ingress would listen where nobody asked it to."""
    assert ingress(mesh).listeners == ()
    assert mesh.pipeline.layers("tulle-system/ingress") == ("unguarded", "mesh", "gateways", "workload/tulle-system/ingress")


def test_ports_go_through_the_service(mesh: Mesh) -> None:
    """The gateway would bind the port that clients name, and not the one behind it that they reach."""
    mesh.apply([gateway("gw", server(80), server(8080), server(9999))])
    assert [listener.port for listener in ingress(mesh).listeners] == [9999, 18080]


def test_the_port_of_the_workload_entry_counts(mesh: Mesh) -> None:
    """A gateway whose port was allotted at its start would bind another."""
    mesh.apply(
        [
            gateway(),
            entry("ingress", "10.0.0.2", {"istio": "ingressgateway"}, "tulle-system", capture="none", ports={"http": 31000}),
        ]
    )
    assert ingress(mesh).listeners[0].port == 31000


def test_a_gateway_without_routes_has_an_empty_table(mesh: Mesh) -> None:
    """A listener whose table never comes would not open."""
    mesh.apply([gateway()])
    assert mesh.ingress().routes == ()
    assert list(mesh.pipeline.table("workload/tulle-system/ingress", type_urls.VIRTUAL_HOST)) == [
        "http.18080.tulle-system.ingress/*:18080"
    ]


def test_a_selector_selects(mesh: Mesh) -> None:
    """A Gateway meant for another ingress would be served here."""
    mesh.apply([gateway(selector={"istio": "other"})])
    assert ingress(mesh).listeners == ()
    assert mesh.said() == [
        "Gateway default/gw: spec.selector: no gateway workload has the labels istio: other; nothing is served until one has"
    ]
    mesh.apply([gateway(selector={})])
    assert len(ingress(mesh).listeners) == 1


def test_virtual_services_of_one_host_merge_the_oldest_first(mesh: Mesh) -> None:
    """Two teams behind one host name would hide each other."""
    mesh.apply([gateway(), vs("young", ["*"], created="2024-02-01T00:00:00Z"), vs("old", ["*"], "shop")])
    assert names(mesh) == ["old", "young"]
    assert mesh.problems() == []


def test_the_most_specific_host_wins(mesh: Mesh) -> None:
    """A catch-all would take the requests of a named host."""
    mesh.apply([gateway(), vs("all", ["*"]), vs("wild", ["*.example.com"]), vs("one", ["a.example.com"])])
    assert (names(mesh), names(mesh, "*.example.com"), names(mesh, "a.example.com")) == (["all"], ["wild"], ["one"])


def test_servers_hosts_limit_what_is_served(mesh: Mesh) -> None:
    """A Gateway for one host would serve others, or for other namespaces than it names."""
    mesh.apply([gateway("gw", server(80, "shop/*.example.com", "./plain.org"))])
    mesh.apply([vs("shop", ["a.example.com", "b.org"], "shop"), vs("own", ["plain.org", "c.example.com"])])
    table = mesh.pipeline.table("workload/tulle-system/ingress", type_urls.VIRTUAL_HOST)
    assert {name.partition("/")[2] for name in table} == {"a.example.com:18080", "plain.org:18080", "*:18080"}
    mesh.apply([vs("none", ["d.org"])])
    assert [(problem.path, problem.reason) for problem in mesh.problems()] == [("spec.gateways[0]", "NoMatchingHost")]


def test_ports_of_servers_tell_routes_apart(mesh: Mesh) -> None:
    """`match.port` at a gateway would be taken for the bound port."""
    mesh.apply([gateway("gw", server(80), server(9999))])
    http = [
        {"name": "80", "match": [{"port": 80}], "route": [{"destination": {"host": "reviews"}}]},
        {"name": "9999", "match": [{"port": 9999}], "route": [{"destination": {"host": "ratings"}}]},
    ]
    mesh.apply([vs("x", ["*"], http=http)])
    assert (names(mesh), [route.name for route in mesh.ingress(port=9999).routes]) == (["80"], ["9999"])


def test_private_virtual_services_stay_out_of_gateways_elsewhere(mesh: Mesh) -> None:
    """A rule that was not exported would be served to the world."""
    mesh.apply([gateway(), vs("private", ["*"], exportTo=["."])])
    assert names(mesh) == []


def test_without_its_certificate_nothing_is_bound(mesh: Mesh) -> None:
    """An HTTPS server would be opened without TLS."""
    tls = {"tls": {"mode": "SIMPLE", "credentialName": "c"}}
    mesh.apply([gateway("gw", server(443, protocol="HTTPS", **tls), server(80))])
    assert [listener.port for listener in ingress(mesh).listeners] == [18080]
    assert [(problem.path, problem.reason) for problem in mesh.problems()] == [
        ("spec.servers[0].tls.credentialName", "SecretNotFound")
    ]


def test_bind_addresses(mesh: Mesh) -> None:
    """A server for the loopback only would be open to all."""
    mesh.apply([gateway("gw", server(80, bind="127.0.0.1"))])
    assert ingress(mesh).listeners == (GatewayListener(18080, ingress(mesh).listeners[0].chains, "127.0.0.1"),)


def test_tls_is_not_told_within_a_label(mesh: Mesh) -> None:
    """Envoy would refuse the listener, and every other host of the port with it."""
    tls = {"mode": "ISTIO_MUTUAL"}
    both = server(443, "*-eu.shop.example", "*.shop.example", protocol="HTTPS", tls=tls)
    mesh.apply([gateway("gw", both, server(444, "*-us.shop.example", protocol="HTTPS", tls=tls))])
    (listener,) = ingress(mesh).listeners
    assert [chain.names for chain in listener.chains] == [("*.shop.example",)]
    assert [problem.path for problem in mesh.problems()] == ["spec.servers[0].hosts[0]", "spec.servers[1].hosts[0]"]


def test_two_gateway_workloads(mesh: Mesh) -> None:
    """The second ingress would get the first one's ports."""
    mesh.apply([entry("second", "10.0.0.3", {"istio": "ingressgateway"}, "edge", capture="none")])
    mesh.apply(
        [service("edge", "edge", ({"port": 80, "name": "http", "targetPort": 28080},), {"istio": "ingressgateway"}), gateway()]
    )
    second = mesh.pipeline.workload("edge/second")
    assert second
    assert [table.name for listener in (*ingress(mesh).listeners, *second.listeners) for table in listener.tables] == [
        "http.18080.tulle-system.ingress",
        "http.28080.edge.second",
    ]


@pytest.mark.parametrize(
    ("one", "other", "common"),
    [
        ("*", "a.b", "a.b"),
        ("*.b", "a.b", "a.b"),
        ("*.b", "b", None),
        ("*.b", "*.a.b", "*.a.b"),
        ("a.b", "a.b", "a.b"),
        ("*.a", "*.b", None),
        ("xb", "*.b", None),
    ],
)
def test_hosts_meet(one: str, other: str, common: str | None) -> None:
    """Hosts would be served that only one side is for."""
    assert meet(one, other) == meet(other, one) == common
    assert common is None or (covers(one, common) and covers(other, common))
