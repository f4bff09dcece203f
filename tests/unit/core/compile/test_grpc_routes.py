"""GRPCRoutes: methods as paths, their precedence, filters; in the mesh, at a gateway, and beside HTTPRoutes."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.core.compile.mesh import Mesh, bookinfo, goes, obj, service, to
from tests.unit.core.compile.test_http_routes import backend, gateway, rule
from tests.unit.core.compile.test_http_routes import route as http_route
from tulle.api.object import Object
from tulle.core.compile.destinations import destination
from tulle.core.model.route import HeaderEdit, MatchKind, NamedMatch, TextMatch

REVIEWS = {"group": "", "kind": "Service", "name": "reviews", "port": 9080}
GRPC = NamedMatch("content-type", TextMatch(MatchKind.PREFIX, "application/grpc"))


@pytest.fixture
def mesh() -> Mesh:
    return Mesh(bookinfo())


def route(name: str = "r", namespace: str = "default", **spec: Any) -> Object:
    spec.setdefault("parentRefs", [REVIEWS])
    metadata = {"name": name, "namespace": namespace}
    return obj({"apiVersion": "gateway.networking.k8s.io/v1", "kind": "GRPCRoute", "metadata": metadata, "spec": spec})


def calls(name: str, *methods: dict[str, str], **more: Any) -> dict[str, Any]:
    return {"name": name, "matches": [{"method": one} for one in methods], "backendRefs": [backend("reviews-v1")], **more}


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ({"service": "a.B", "method": "C"}, TextMatch(MatchKind.EXACT, "/a.B/C")),
        ({"service": "a.B"}, TextMatch(MatchKind.PREFIX, "/a.B/")),
        ({"method": "C"}, TextMatch(MatchKind.REGEX, "/(?:[^/]+)/(?:C)")),
        ({"type": "RegularExpression", "service": "a|b"}, TextMatch(MatchKind.REGEX, "/(?:a|b)/(?:[^/]+)")),
    ],
)
def test_methods(mesh: Mesh, method: dict[str, str], path: TextMatch) -> None:
    """Calls of one method would go where those of another should."""
    mesh.apply([route(rules=[calls("r", method)])])
    (one,) = mesh.routes("reviews")
    assert (one.match.path, one.match.headers) == (path, (GRPC,))
    assert mesh.problems() == []


def test_precedence(mesh: Mesh) -> None:
    """A general rule would hide a special one that was written after it."""
    rules = [
        calls("all"),
        calls("expression", {"type": "RegularExpression", "service": "long[.]Service"}),
        calls("service", {"service": "long.Service"}),
        calls("method", {"service": "long.Service", "method": "Get"}),
        {**calls("header"), "matches": [{"method": {"service": "long.Service"}, "headers": [{"name": "X", "value": "1"}]}]},
    ]
    mesh.apply([route(rules=rules)])
    assert [one.name for one in mesh.routes("reviews")] == ["method", "header", "service", "all", "expression"]


def test_filters_and_shares(mesh: Mesh) -> None:
    """Calls would arrive unchanged, or all at one backend."""
    said = {"type": "RequestHeaderModifier", "requestHeaderModifier": {"set": [{"name": "x-a", "value": "1"}]}}
    shares = [backend("reviews-v1", 9), backend("reviews-v2")]
    mesh.apply([route(rules=[calls("r", filters=[said], backendRefs=shares)])])
    (one,) = mesh.routes("reviews")
    assert goes(one) == to(("reviews-v1", 9), ("reviews-v2", 1))
    assert one.headers.request == HeaderEdit(set=(("x-a", "1"),))


def test_beside_http_routes(mesh: Mesh) -> None:
    """A GRPCRoute for everything would take the requests of an HTTPRoute, or the other way round."""
    mesh.apply([route(rules=[calls("grpc")]), http_route("h", rules=[rule("http")])])
    assert [(one.name, GRPC in one.match.headers) for one in mesh.routes("reviews")] == [("grpc", True), ("http", False)]


def test_at_a_gateway(mesh: Mesh) -> None:
    """Calls from outside would find no route."""
    parent = {"name": "gw", "sectionName": "http"}
    mesh.apply([gateway(), route(parentRefs=[parent], hostnames=["a.example"], rules=[calls("grpc")])])
    assert [one.name for one in mesh.ingress("a.example").routes] == ["grpc"]
    assert mesh.problems() == []


def test_a_backend_that_is_not_there(mesh: Mesh) -> None:
    """Its share would go to the others, and nobody be told."""
    mesh.apply([route(rules=[calls("r", backendRefs=[backend("reviews-v9"), backend("reviews-v1")])])])
    (one,) = mesh.routes("reviews")
    assert one.abort is not None
    assert (one.abort.status, one.abort.percent) == (500, 50.0)
    assert [problem.reason for problem in mesh.problems()] == ["BackendNotFound"]


@pytest.mark.parametrize(("namespace", "spoken"), [("default", True), ("elsewhere", False)])
def test_an_undeclared_port_that_takes_calls(mesh: Mesh, namespace: str, spoken: bool) -> None:
    """Calls would be sent in HTTP/1.1 there; or whoever names a Service without a grant would change how all others call it."""
    undeclared = service("reviews", ports=({"port": 9080},))
    backend = {"name": "reviews", "namespace": "default", "port": 9080}
    mesh.apply([undeclared, route(namespace=namespace, rules=[{"backendRefs": [backend]}])])
    row = mesh.pipeline.flow.get(destination, (("default", "reviews"), 9080, ""))
    assert row is not None
    assert (row.http2, row.auto) == (spoken, not spoken)
    other = mesh.pipeline.flow.get(destination, (("default", "ratings"), 9080, ""))
    assert other is not None
    assert not other.http2
