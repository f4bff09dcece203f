"""VirtualService `tls` and `tcp` in the mesh: which connections of whom go where."""

from __future__ import annotations

from typing import Any

from tests.unit.core.compile.mesh import Mesh, entry, obj, service
from tulle.core.compile.outbound import outbound
from tulle.core.model.workload import OutboundTcp

DB = service("db", ports=({"port": 3306, "name": "mysql"}, {"port": 443, "name": "tls"}), address="240.240.0.7")
OTHER = service("other", ports=({"port": 3306, "name": "mysql"},), address="240.240.0.8")
CALLERS = [
    entry("curl", "10.0.0.1", {"app": "curl"}),
    entry("canary", "10.0.0.2", {"app": "curl", "track": "canary"}),
    entry("curl", "10.0.0.3", {"app": "curl"}, "elsewhere"),
]


def rules(name: str = "db", hosts: tuple[str, ...] = ("db",), created: str = "2026-01-01T00:00:00Z", **spec: Any) -> Any:
    metadata = {"name": name, "creationTimestamp": created}
    kind = {"apiVersion": "networking.istio.io/v1", "kind": "VirtualService"}
    return obj({**kind, "metadata": metadata, "spec": {"hosts": list(hosts), **spec}})


def to(host: str, weight: int = 0) -> dict[str, Any]:
    return {"destination": {"host": host, "port": {"number": 3306}}, "weight": weight}


def mesh(*objects: Any) -> Mesh:
    return Mesh([DB, OTHER, *CALLERS, *objects])


def port(one: Mesh, number: int, namespace: str = "default") -> OutboundTcp:
    row = one.pipeline.flow.get(outbound, namespace)
    assert row is not None
    return next(tcp for tcp in row.tcp if (tcp.address, tcp.port) == ("240.240.0.7", number))


def goes(one: Mesh, number: int, namespace: str = "default") -> list[tuple[tuple[str, ...], dict[str, int]]]:
    """Server names, and shares by the Service's name, of each route."""
    return [
        (route.match.names, {share.destination.hostname.partition(".")[0]: share.weight for share in route.destinations})
        for route in port(one, number, namespace).routes
    ]


def test_weights_are_shares() -> None:
    """Broken: a canary of a database would get another share than was written."""
    assert goes(mesh(rules(tcp=[{"route": [to("db", 80), to("other", 20)]}])), 3306) == [((), {"db": 80, "other": 20})]


def test_matches_by_port_network_and_caller() -> None:
    """Broken: a rule for one port, network or namespace would take the connections of another."""
    found = mesh(
        rules(
            tcp=[
                {"match": [{"port": 3306, "destinationSubnets": ["10.0.0.0/8"]}], "route": [to("other")]},
                {"match": [{"port": 3306, "sourceNamespace": "elsewhere"}], "route": [to("other")]},
                {"match": [{"port": 3306, "destinationSubnets": ["240.240.0.0/16"]}], "route": [to("db")]},
                {"match": [{"port": 3306}], "route": [to("other")]},  # nothing is left for it
            ]
        )
    )
    assert goes(found, 3306) == [((), {"db": 1})]
    assert goes(found, 3306, "elsewhere") == [((), {"other": 1})]
    assert goes(found, 443) == []


def test_labels_of_callers_tell_sidecars_apart() -> None:
    """Broken: a rule for canaries would be for everybody, or for nobody."""
    found = mesh(rules(tcp=[{"match": [{"sourceLabels": {"track": "canary"}}], "route": [to("other")]}]))
    assert goes(found, 3306) == []
    layers = found.pipeline.layers("default/canary")
    listeners = [found.pipeline.table(layer, "type.googleapis.com/envoy.config.listener.v3.Listener") for layer in layers]
    own = next(table["240.240.0.7_3306"] for table in listeners if "240.240.0.7_3306" in table)
    assert b"outbound|3306||other" in own.any


def test_server_names_come_before_bytes() -> None:
    """Broken: TLS connections would all go to one place, whatever their server name."""
    tls = [{"match": [{"sniHosts": ["A.example", "*.b.example"]}], "route": [to("other")]}]
    found = mesh(rules(tls=tls, tcp=[{"match": [{"port": 443}], "route": [to("db")]}]))
    assert goes(found, 443) == [(("a.example", "*.b.example"), {"other": 1}), ((), {"db": 1})]


def test_the_oldest_of_the_most_specific_is_followed() -> None:
    """Broken: two VirtualServices for one host would take turns, or the younger would win, without a word."""
    young = rules("young", created="2026-02-01T00:00:00Z", tcp=[{"route": [to("db")]}])
    http = rules("http", created="2025-01-01T00:00:00Z", http=[{"route": [{"destination": {"host": "other"}}]}])
    found = mesh(young, rules(tcp=[{"route": [to("other")]}]), http)
    assert goes(found, 3306) == [((), {"other": 1})]
    assert ("VirtualService default/young", "Conflict") in {(str(one.ref), one.reason) for one in found.pipeline.problems()}


def test_what_has_no_effect_says_so() -> None:
    """Broken: rules for connections to an HTTP port, or to nothing, would be swallowed."""
    web = service("web", address="240.240.0.9")
    found = mesh(web, rules("web", ("web",), tcp=[{"route": [to("nowhere")]}]), rules(tcp=[{"route": [to("nowhere")]}]))
    seen = {(str(one.ref), one.path, one.reason) for one in found.pipeline.problems()}
    assert ("VirtualService default/web", "spec.tcp", "NoTcpPort") in seen
    assert ("VirtualService default/db", "spec.tcp[0].route[0].destination.host", "HostNotFound") in seen
    assert goes(found, 3306) == [((), {"nowhere": 1})]  # its connections are closed, and go nowhere else


def test_only_sidecars_are_told_that_bytes_are_bytes() -> None:
    """Broken: bytes for an undeclared port would be parsed as HTTP, or a TLS server offered words of the mesh."""
    undeclared = service("db", ports=({"port": 7000},), address="240.240.0.7")
    assert port(mesh(undeclared), 7000).carriage.told
    assert not port(mesh(), 3306).carriage.told
    kind = {"apiVersion": "networking.istio.io/v1", "kind": "DestinationRule", "metadata": {"name": "db"}}
    policy = {"host": "db", "trafficPolicy": {"tls": {"mode": "SIMPLE", "sni": "db.example"}}}
    assert not port(mesh(undeclared, obj({**kind, "spec": policy})), 7000).carriage.told
