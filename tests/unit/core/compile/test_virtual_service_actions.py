"""What a VirtualService's rule does with a request: each field, and what a proxy would refuse in it."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.core.compile.mesh import Mesh, bookinfo
from tests.unit.core.compile.test_virtual_services import vs
from tulle.core.compile.headers import template
from tulle.core.compile.regexes import substitution_fault
from tulle.core.model.destination import DestinationKey
from tulle.core.model.route import (
    DEFAULT_RETRY,
    MOST_BODY,
    Abort,
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
    TextMatch,
)

RATINGS = DestinationKey("ratings.default.svc.cluster.local", 9080)


@pytest.fixture
def mesh() -> Mesh:
    return Mesh(bookinfo())


def made(mesh: Mesh, **rule: Any) -> Route:
    """The route of a VirtualService's only rule."""
    if not {"route", "redirect", "directResponse"} & set(rule):
        rule["route"] = [{"destination": {"host": "reviews"}}]
    mesh.apply([vs(http=[rule])])
    (route,) = mesh.routes("reviews")
    return route


@pytest.mark.parametrize(
    ("said", "redirect"),
    [
        ({"uri": "/b"}, Redirect(path=PathEdit(PathKind.FULL, "/b"))),
        ({"authority": "b.example", "scheme": "https", "redirectCode": 308}, Redirect("https", "b.example", status=308)),
        ({"prefixRewrite": "/b", "port": 8443}, Redirect(port=8443, path=PathEdit(PathKind.PREFIX, "/b"))),
        ({"derivePort": "FROM_REQUEST_PORT", "uri": "/"}, Redirect(port=9080, path=PathEdit(PathKind.FULL, "/"))),
        ({"derivePort": "FROM_PROTOCOL_DEFAULT", "uri": "/"}, Redirect(path=PathEdit(PathKind.FULL, "/"))),
        ({"authority": "a\nb", "uri": "/"}, Redirect(path=PathEdit(PathKind.FULL, "/"))),
    ],
)
def test_redirects(mesh: Mesh, said: dict[str, Any], redirect: Redirect) -> None:
    """Callers would be sent to another place than the rule says."""
    route = made(mesh, redirect=said)
    assert (route.redirect, route.destinations) == (redirect, ())


@pytest.mark.parametrize(
    ("said", "rewrite"),
    [
        ({"uri": "/b"}, Rewrite(path=PathEdit(PathKind.PREFIX, "/b"))),
        ({"authority": "b.example"}, Rewrite("b.example")),
        ({"uriRegexRewrite": {"match": "/(a+)", "rewrite": r"/\1"}}, Rewrite(path=PathEdit(PathKind.REGEX, r"/\1", "/(a+)"))),
        ({"uriRegexRewrite": {"match": "/(a+)", "rewrite": r"/\2"}}, None),
        ({"uri": "/a\r\nb"}, None),
    ],
)
def test_rewrites(mesh: Mesh, said: dict[str, Any], rewrite: Rewrite | None) -> None:
    """The application would be asked for another path or host; or the proxy would refuse the whole host."""
    assert made(mesh, rewrite=said).rewrite == rewrite
    assert bool(mesh.problems()) == (rewrite is None)


def test_an_answer_of_its_own(mesh: Mesh) -> None:
    """A maintenance page would be empty, or too large for the proxy to take."""
    assert made(mesh, directResponse={"status": 503, "body": {"string": "busy\n"}}).body == b"busy\n"
    assert made(mesh, directResponse={"status": 503, "body": {"bytes": "AAE="}}).body == b"\0\1"
    assert made(mesh, directResponse={"status": 503, "body": {"string": "a" * (MOST_BODY + 1)}}).body == b""
    (problem,) = mesh.problems()
    assert (problem.path, problem.reason) == ("spec.http[0].directResponse.body", "TooLong")


def test_mirrors(mesh: Mesh) -> None:
    """Copies would go nowhere, or to many or too few."""
    ratings = {"host": "ratings"}
    assert made(mesh, mirror=ratings).mirrors == (Mirror(RATINGS),)
    assert made(mesh, mirror=ratings, mirrorPercent=5).mirrors == (Mirror(RATINGS, 5.0),)
    assert made(mesh, mirror=ratings, mirrorPercentage={"value": 0.5}).mirrors == (Mirror(RATINGS, 0.5),)
    assert made(mesh, mirror=ratings, mirrorPercentage={"value": 0}).mirrors == ()
    assert made(mesh, mirrors=[{"destination": ratings, "percentage": {"value": 1.5}}]).mirrors == (Mirror(RATINGS, 1.5),)
    assert mesh.problems() == []
    assert made(mesh, mirror={"host": "ratingz"}).mirrors == ()
    assert [problem.reason for problem in mesh.problems()] == ["HostNotFound"]


def test_cors(mesh: Mesh) -> None:
    """Pages of other origins could not call, or too many could."""
    said = {
        "allowOrigins": [{"exact": "https://a.example"}, {"regex": "https://.*"}],
        "allowMethods": ["GET", "POST"],
        "allowHeaders": ["x-a"],
        "exposeHeaders": ["x-b"],
        "maxAge": "1m",
        "allowCredentials": True,
        "unmatchedPreflights": "IGNORE",
    }
    origins = (TextMatch(MatchKind.EXACT, "https://a.example"), TextMatch(MatchKind.REGEX, "https://.*"))
    assert made(mesh, corsPolicy=said).cors == Cors(origins, ("GET", "POST"), ("x-a",), ("x-b",), 60.0, True, False)
    assert made(mesh, corsPolicy={"allowOrigin": ["*"]}).cors == Cors((TextMatch(MatchKind.EXACT, "*"),))


def test_headers(mesh: Mesh) -> None:
    """Headers would not be changed, or on the wrong side."""
    operations = {"set": {"X-A": "1"}, "add": {"x-b": "%REQ(x-c)%"}, "remove": ["X-D"]}
    edit = HeaderEdit((("x-a", "1"),), (("x-b", "%REQ(x-c)%"),), ("x-d",))
    assert made(mesh, headers={"request": operations, "response": operations}).headers == Headers(edit, edit)
    share = {"destination": {"host": "reviews"}, "headers": {"request": {**operations, "set": {"Host": "b", "X-A": "1"}}}}
    (one,) = made(mesh, route=[share]).destinations
    assert (one.headers, one.authority) == (Headers(request=edit), "b")
    assert made(mesh, headers={"request": {"set": {":authority": "b"}}}).rewrite == Rewrite("b")
    assert mesh.problems() == []


def test_headers_that_no_proxy_takes(mesh: Mesh) -> None:
    """One header would make Envoy refuse the whole virtual host."""
    said = {
        "request": {"set": {":path": "/", "x-a": "a\nb"}, "remove": ["host"]},
        "response": {"set": {":status": "200"}, "add": {"host": "a"}},
    }
    assert made(mesh, headers=said).headers == Headers()
    assert len(mesh.problems()) == 5


@pytest.mark.parametrize(
    ("text", "made_of_it"),
    [
        ("100%", "100%%"),
        ("%REQ(x-a?:path):10% %%", "%REQ(x-a?:path):10% %%%%"),
        ("%DOWNSTREAM_REMOTE_ADDRESS%", "%DOWNSTREAM_REMOTE_ADDRESS%"),
        ("%NO_SUCH%", "%%NO_SUCH%%"),
        ("%REQ%", "%%REQ%%"),
    ],
)
def test_placeholders(text: str, made_of_it: str) -> None:
    """A percent sign would be read as a placeholder that Envoy refuses, or a placeholder as text."""
    assert template(text, placeholders=True) == made_of_it
    assert template(text, placeholders=False) == text.replace("%", "%%")


def test_substitutions() -> None:
    """A reference to a group that is not there would be refused by Envoy."""
    assert substitution_fault(r"(a)(?:b)[(](?P<c>d)\(", r"\2\\\0") == ""
    assert substitution_fault("(a)", r"\2") != ""
    assert substitution_fault("(a)", r"\x") != ""
    assert substitution_fault("(a)", "\\") != ""


def test_grpc_aborts_and_retries(mesh: Mesh) -> None:
    """A gRPC caller would get an HTTP status; retries would come at once, or to who has failed already."""
    assert made(mesh, fault={"abort": {"grpcStatus": "UNAVAILABLE"}}).abort == Abort(0, grpc=14)
    retries = {"attempts": 3, "backoff": "2s", "retryIgnorePreviousHosts": False, "retryRemoteLocalities": True}
    retry = made(mesh, retries=retries).retry
    assert retry is not None
    assert (retry.backoff, retry.elsewhere, retry.other_localities, retry.on) == (2.0, False, True, DEFAULT_RETRY.on)
