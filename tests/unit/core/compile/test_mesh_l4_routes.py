"""TLSRoutes and TCPRoutes with a Service as parent: whose connections go where, and what is said where one does not count."""

from __future__ import annotations

from typing import Any

from tests.unit.core.compile.mesh import obj, service
from tests.unit.core.compile.test_tcp_routes import goes, mesh, rules, to


def route(kind: str, name: str, *backends: str, parent: str = "db", namespace: str = "default", **more: Any) -> Any:
    """A route to backends at port 3306 of `default`; `more` has the parent's port and the route's names."""
    port = {"port": more.pop("port")} if "port" in more else {}
    refs = [{"name": backend, "namespace": "default", "port": 3306} for backend in backends]
    raw = {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": kind,
        "metadata": {"name": name, "creationTimestamp": more.pop("created", "2026-01-01T00:00:00Z")},
        "spec": {
            "parentRefs": [{"group": "", "kind": "Service", "name": parent, "namespace": "default", **port}],
            "rules": [{"backendRefs": refs}],
            **more,
        },
    }
    return obj(raw, namespace)


def grant(kind: str) -> Any:
    """Leave for routes of `elsewhere` to name Services of `default`."""
    spec = {
        "from": [{"group": "gateway.networking.k8s.io", "kind": kind, "namespace": "elsewhere"}],
        "to": [{"group": "", "kind": "Service"}],
    }
    return obj(
        {"apiVersion": "gateway.networking.k8s.io/v1beta1", "kind": "ReferenceGrant", "metadata": {"name": "g"}, "spec": spec}
    )


def test_a_consumers_route_is_for_its_own_namespace() -> None:
    """Broken: a route that a caller writes for itself would turn the connections of everybody, or its own would not be turned."""
    producer, consumer = route("TCPRoute", "p", "db"), route("TCPRoute", "c", "other", namespace="elsewhere")
    found = mesh(producer, consumer, grant("TCPRoute"))
    assert goes(found, 3306) == [((), {"db": 1})]
    assert goes(found, 3306, "elsewhere") == [((), {"other": 1})]


def test_a_backend_that_may_not_be_named_gets_nothing() -> None:
    """Broken: a namespace could send its connections to a Service of another that does not grant it."""
    found = mesh(route("TCPRoute", "c", "other", namespace="elsewhere"))
    assert goes(found, 3306, "elsewhere") == [((), {"nowhere": 1})]


def test_only_the_parents_port_is_routed() -> None:
    """Broken: a route for one port of a Service would take the connections of its others."""
    found = mesh(route("TCPRoute", "p", "other", port=443))
    assert (goes(found, 3306), goes(found, 443)) == ([], [((), {"other": 1})])


def test_server_names_by_their_precedence() -> None:
    """Broken: a wildcard would win over a whole name, or TLS for a name that no route has would arrive all the same."""
    found = mesh(
        route("TLSRoute", "wide", "other", port=443, hostnames=["*.example"]),
        route("TLSRoute", "whole", "db", port=443, hostnames=["a.example"], created="2026-02-01T00:00:00Z"),
    )
    assert goes(found, 443) == [(("a.example",), {"db": 1}), (("*.example",), {"other": 1}), (("*",), {})]


def test_a_virtual_service_has_what_is_left_over() -> None:
    """Broken: where both APIs speak of a host, the order of connections would be another than that of requests."""
    found = mesh(
        route("TLSRoute", "p", "other", port=443, hostnames=["a.example"]),
        rules(tcp=[{"match": [{"port": 443}], "route": [to("db")]}]),
    )
    assert goes(found, 443) == [(("a.example",), {"other": 1}), ((), {"db": 1})]
    assert ("VirtualService default/db", "spec.hosts[0]", "Conflict") in said(found)


def said(found: Any) -> set[tuple[str, str, str]]:
    return {(str(one.ref), one.path, one.reason) for one in found.problems()}


def test_what_has_no_effect_says_so() -> None:
    """Broken: a route for an HTTP port, beside an older one, or for a Service without an address would be swallowed."""
    web, headless = service("web", address="240.240.0.9"), service("headless", ports=({"port": 3306, "name": "mysql"},))
    found = mesh(
        web,
        headless,
        route("TCPRoute", "http", "db", parent="web"),
        route("TCPRoute", "headless", "db", parent="headless"),
        route("TCPRoute", "old", "db", port=3306),
        route("TCPRoute", "young", "other", port=3306, created="2026-02-01T00:00:00Z"),
    )
    assert said(found) == {
        ("TCPRoute default/http", "spec.parentRefs[0]", "NoTcpPort"),
        ("TCPRoute default/headless", "spec.parentRefs[0]", "NotYetSupported"),
        ("TCPRoute default/young", "spec.parentRefs[0]", "Conflict"),
    }
    assert goes(found, 3306) == [((), {"db": 1})]
