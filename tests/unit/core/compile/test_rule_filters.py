"""Filters of routes of the Gateway API, of rules and of backends; timeouts, retries and sessions."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.core.compile.mesh import Mesh, bookinfo, service
from tests.unit.core.compile.test_http_routes import backend, gateway, route, rule
from tulle.core.compile.routes import placed
from tulle.core.model.destination import DestinationKey
from tulle.core.model.external_auth import ExternalAuth
from tulle.core.model.route import (
    Cors,
    HeaderEdit,
    Headers,
    MatchKind,
    Mirror,
    PathEdit,
    PathKind,
    Redirect,
    Rewrite,
    Route,
    Session,
    TextMatch,
    WeightedDestination,
)

V1 = DestinationKey("reviews-v1.default.svc.cluster.local", 9080)
V2 = DestinationKey("reviews-v2.default.svc.cluster.local", 9080)


@pytest.fixture
def mesh() -> Mesh:
    return Mesh(bookinfo())


def of(kind: str, **said: Any) -> dict[str, Any]:
    field = "urlRewrite" if kind == "URLRewrite" else "cors" if kind == "CORS" else kind[0].lower() + kind[1:]
    return {"type": kind, field: said}


def made(mesh: Mesh, *filters: dict[str, Any], **more: Any) -> Route:
    """The route of an HTTPRoute's only rule."""
    (one,) = all_made(mesh, filters=list(filters), **more)
    return one


def all_made(mesh: Mesh, **more: Any) -> tuple[Route, ...]:
    match = {"path": {"type": "PathPrefix", "value": "/a"}}
    mesh.apply([route(rules=[rule("r", match, **more)])])
    return mesh.routes("reviews")


def test_headers(mesh: Mesh) -> None:
    """Headers would not be changed, or a percent sign be read as a placeholder."""
    said = {"set": [{"name": "X-A", "value": "100%"}], "add": [{"name": "x-b", "value": "1"}], "remove": ["X-C"]}
    edit = HeaderEdit((("x-a", "100%%"),), (("x-b", "1"),), ("x-c",))
    found = made(mesh, of("RequestHeaderModifier", **said), of("ResponseHeaderModifier", **said))
    assert found.headers == Headers(edit, edit)
    host = of("RequestHeaderModifier", set=[{"name": "Host", "value": "b.example"}])
    assert made(mesh, host).rewrite == Rewrite("b.example")


def test_rewrites(mesh: Mesh) -> None:
    """The application would be asked for another path or host."""
    full = of("URLRewrite", hostname="b.example", path={"type": "ReplaceFullPath", "replaceFullPath": "/b"})
    assert made(mesh, full).rewrite == Rewrite("b.example", PathEdit(PathKind.FULL, "/b"))
    prefix = of("URLRewrite", path={"type": "ReplacePrefixMatch", "replacePrefixMatch": "/"})
    assert made(mesh, prefix).rewrite == Rewrite("", PathEdit(PathKind.PREFIX, "/"))


def test_mirrors(mesh: Mesh) -> None:
    """Copies would go nowhere, or to many or too few."""
    v2 = backend("reviews-v2")
    del v2["weight"]
    found = made(
        mesh,
        of("RequestMirror", backendRef=v2),
        of("RequestMirror", backendRef=v2, percent=5),
        of("RequestMirror", backendRef=v2, fraction={"numerator": 1, "denominator": 8}),
        of("RequestMirror", backendRef=v2, percent=0),
    )
    assert found.mirrors == (Mirror(V2), Mirror(V2, 5.0), Mirror(V2, 12.5))
    assert made(mesh, of("RequestMirror", backendRef={"name": "reviews-v9", "port": 9080})).mirrors == ()
    assert [(problem.path, problem.reason) for problem in mesh.problems()] == [
        ("spec.rules[0].filters[0].requestMirror.backendRef.name", "BackendNotFound")
    ]


def test_cors(mesh: Mesh) -> None:
    """Pages of other origins could not call, or too many could."""
    origins = ["https://a.example", "https://*.b.example"]
    found = made(mesh, of("CORS", allowOrigins=origins, allowMethods=["GET"], allowHeaders=["x-a"], allowCredentials=True))
    texts = (TextMatch(MatchKind.EXACT, origins[0]), TextMatch(MatchKind.REGEX, r"https://.*\.b\.example"))
    assert found.cors == Cors(texts, ("GET",), ("x-a",), (), 5.0, True, False)
    wide = made(mesh, of("CORS", allowOrigins=["*"], allowMethods=["*"])).cors
    assert wide is not None
    assert not wide.echo
    credentials = made(mesh, of("CORS", allowOrigins=["*"], allowHeaders=["*"], allowCredentials=True)).cors
    assert credentials is not None
    assert credentials.echo
    assert (wide.origins, len(wide.methods)) == ((TextMatch(MatchKind.EXACT, "*"),), 9)


def reasons(mesh: Mesh) -> list[str]:
    return [problem.reason for problem in mesh.problems()]


def asks(protocol: str, name: str = "reviews-v2", port: int = 9080, **more: Any) -> dict[str, Any]:
    ref = {"name": name, "port": port}
    return of("ExternalAuth", protocol=protocol, backendRef=ref, **{protocol.lower(): {}, **more})


@pytest.mark.parametrize(("written", "path"), [("", ""), ("/", ""), ("auth", "/auth"), ("/a//./%2e%2E/../b/", "/a/b")])
def test_who_is_asked_over_http(mesh: Mesh, written: str, path: str) -> None:
    """An authorizer would not be told what it is there to judge; or a path would be sent that Envoy refuses as a whole."""
    http = {"allowedHeaders": ["X-B", "x-a"], "allowedResponseHeaders": ["X-User"], **({"path": written} if written else {})}
    route = made(mesh, asks("HTTP", http=http, forwardBody={"maxSize": 9}))
    assert reasons(mesh) == []
    assert route.auth == ExternalAuth(V2, path=path, shown=("x-a", "x-b"), copied=("x-user",), most_body=9)


def test_who_is_asked_over_grpc(mesh: Mesh) -> None:
    """gRPC would be spoken to a port that is called in HTTP/1, and every request be refused without a word why."""
    mesh.apply([service("gate", ports=({"port": 9000, "name": "grpc"},))])
    gate = DestinationKey("gate.default.svc.cluster.local", 9000)
    assert made(mesh, asks("GRPC", "gate", 9000)).auth == ExternalAuth(gate, grpc=True)
    closed = made(mesh, asks("GRPC"))
    assert (closed.auth, closed.status, closed.destinations) == (None, 500, ())
    assert reasons(mesh) == ["UnsupportedProtocol"]


@pytest.mark.parametrize(
    ("filters", "reason"),
    [
        ([asks("HTTP", "nobody")], "BackendNotFound"),
        ([asks("HTTP", port=1)], "PortNotFound"),
        ([asks("HTTP"), asks("HTTP", "reviews-v3")], "NotYetSupported"),
    ],
)
def test_nothing_passes_without_the_word_of_an_authorizer(mesh: Mesh, filters: list[dict[str, Any]], reason: str) -> None:
    """Requests would pass for which nobody was asked, for a mistake in who is to be: of the rule, of one backend, or of both."""
    whole = made(mesh, *filters)
    assert (whole.status, whole.destinations, reasons(mesh)) == (500, (), [reason])
    apart = all_made(mesh, filters=filters[:-1], backendRefs=[backend("reviews-v1", filters=filters[-1:])])
    assert [(one.status, one.destinations, one.auth) for one in apart] == [(500, (), None)]


def test_redirects(mesh: Mesh) -> None:
    """Callers would be sent to another place than the rule says."""
    path = {"type": "ReplacePrefixMatch", "replacePrefixMatch": "/b"}
    found = made(mesh, of("RequestRedirect", scheme="https", hostname="b.example", statusCode=301, path=path), backendRefs=[])
    assert found.redirect == Redirect("https", "b.example", path=PathEdit(PathKind.PREFIX, "/b"), status=301)
    assert made(mesh, of("RequestRedirect"), backendRefs=[]).redirect == Redirect(port=9080, status=302)


def test_a_port_that_is_said_and_goes_without_saying() -> None:
    """Clients would show `:443` behind every host."""
    said = Route(redirect=Redirect("https", "b", 443))
    assert placed(said, 80, 80, False).redirect == Redirect("https", "b")
    assert placed(Route(redirect=Redirect("https", "b", 8443)), 80, 80, False).redirect == Redirect("https", "b", 8443)


@pytest.mark.parametrize(
    ("said", "place", "port"),
    [
        (Redirect(host="b"), (80, 80, False), 0),
        (Redirect(host="b"), (8080, 8080, False), 8080),
        (Redirect(), (80, 18080, False), 0),
        (Redirect(), (443, 443, True), 0),
        (Redirect(host="b"), (443, 443, True), 0),
        (Redirect("https", "b"), (8080, 8080, False), 0),
        (Redirect("https"), (80, 80, False), 0),
        (Redirect("https"), (8080, 8080, False), 443),
        (Redirect("http"), (8443, 8443, True), 80),
    ],
)
def test_the_port_of_a_redirect(said: Redirect, place: tuple[int, int, bool], port: int) -> None:
    """Callers of a gateway at port 8080 would be sent to port 80, or be shown a port that goes without saying."""
    own = Redirect(said.scheme, said.host, own_port=True)
    assert placed(Route(redirect=own), *place).redirect == Redirect(said.scheme, said.host, port)


def test_a_redirect_knows_its_gateways_port(mesh: Mesh) -> None:
    """The port that a workload is bound to would show instead of the listener's."""
    redirect = of("RequestRedirect", hostname="b.example")
    parent = {"name": "gw", "sectionName": "http"}
    gw = gateway("gw", "default", {"name": "http", "port": 8080, "protocol": "HTTP"})
    mesh.apply([gw, route(parentRefs=[parent], rules=[rule("r", filters=[redirect], backendRefs=[])])])
    (found,) = mesh.ingress().routes
    assert found.redirect == Redirect(host="b.example", port=8080, status=302)


def test_filters_of_backends(mesh: Mesh) -> None:
    """What is meant for the requests to one backend would happen to those of all."""
    headers = of("RequestHeaderModifier", set=[{"name": "x-a", "value": "1"}])
    (found,) = all_made(mesh, backendRefs=[backend("reviews-v1", filters=[headers]), backend("reviews-v2", 3)])
    edit = Headers(request=HeaderEdit(set=(("x-a", "1"),)))
    assert found.destinations == (WeightedDestination(V1, 1, edit), WeightedDestination(V2, 3))


def test_filters_of_backends_that_only_a_route_has(mesh: Mesh) -> None:
    """A rewrite for one backend would be left out, or its requests be answered 500."""
    rewrite = of("URLRewrite", path={"type": "ReplaceFullPath", "replaceFullPath": "/b"})
    backends = [backend("reviews-v1", filters=[rewrite]), backend("reviews-v2", 2), backend("reviews-v9", 1)]
    first, second, third = all_made(mesh, backendRefs=backends)
    assert (first.match.percent, first.rewrite) == (25.0, Rewrite(path=PathEdit(PathKind.FULL, "/b")))
    assert (second.match.percent, second.rewrite, second.destinations) == (75.0, None, (WeightedDestination(V2),))
    assert (third.match.percent, third.status) == (100.0, 500)
    redirect = of("RequestRedirect", hostname="b.example")
    (alone,) = all_made(mesh, backendRefs=[backend("reviews-v1", filters=[redirect])])
    assert alone.redirect == Redirect(host="b.example", port=9080, status=302)


def test_retries_that_are_asked_for(mesh: Mesh) -> None:
    """A try that took too long would not be repeated although somebody asked for it; or statuses that nobody named."""
    found = made(mesh, retry={"attempts": 3, "codes": [500], "backoff": "100ms"}, timeouts={"backendRequest": "200ms"}).retry
    assert found is not None
    assert (found.attempts, found.statuses, found.backoff, found.per_try_timeout) == (3, (500,), 0.1, 0.2)
    assert "reset" in found.on
    none = made(mesh, retry={"attempts": 1}).retry
    assert none is not None
    assert (none.statuses, "retriable-status-codes" in none.on) == ((), False)


def test_sessions(mesh: Mesh) -> None:
    """Requests of one session would reach endpoints that do not know it."""
    assert made(mesh, sessionPersistence={"type": "Header", "header": {"name": "x-s"}}).session == Session(header="x-s")
    cookie = {"name": "s", "path": "/a", "lifetimeType": "Permanent"}
    permanent = {"cookie": cookie, "absoluteTimeout": "1h"}
    assert made(mesh, sessionPersistence=permanent).session == Session(cookie="s", path="/a", lifetime=3600.0)
    assert mesh.problems() == []
    said = {"cookie": {"lifetimeType": "Session"}, "absoluteTimeout": "1h"}
    found = made(mesh, sessionPersistence=said).session
    assert found == Session(cookie="tulle-session")
    assert [problem.path for problem in mesh.problems()] == ["spec.rules[0].sessionPersistence.absoluteTimeout"]
