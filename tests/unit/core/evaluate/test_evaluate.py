"""What `evaluate` says, case by case; that Envoy does the same is asked in tests/property/test_evaluate.py."""

from __future__ import annotations

import pytest

from tulle.core.evaluate import Outcome, Passed, Request, choose_host, decide
from tulle.core.evaluate.expressions import full_match
from tulle.core.evaluate.request import normalized
from tulle.core.model.destination import DestinationKey
from tulle.core.model.external_auth import ExternalAuth
from tulle.core.model.route import (
    Abort,
    Cors,
    HeaderEdit,
    Headers,
    MatchKind,
    NamedMatch,
    Redirect,
    Route,
    RouteMatch,
    RouteTableKey,
    TextMatch,
    VirtualHost,
    WeightedDestination,
)

SIDECAR = RouteTableKey(9080, "default")
FORWARD = RouteTableKey(0, "default")
V1, V2 = DestinationKey("reviews", 9080, "v1"), DestinationKey("reviews", 9080, "v2")


def test_the_most_specific_domain_has_the_request() -> None:
    """Broken: a request would be said to go to the virtual host of another name than in Envoy."""
    domains = ("*", "*.example", "*.b.example", "a.b.example", "a.*", "a.b.*", "[::1]")
    hosts = [VirtualHost(domain, (domain,)) for domain in domains]
    for authority, wanted in (
        ("A.B.example", "a.b.example"),
        ("c.b.example:80", "*.b.example"),
        (".b.example", "*.example"),
        ("a.b.c", "a.b.*"),
        ("a.", "*"),
        ("[::1]:9080", "[::1]"),
        ("::1", "*"),
    ):
        found = choose_host(SIDECAR, hosts, authority)
        assert found is not None
        assert found[1] == wanted, authority
    assert choose_host(FORWARD, [VirtualHost("a", ("a:80",))], "a") is None, "in the table of all ports the port counts"


@pytest.mark.parametrize(
    ("expression", "text", "wanted"),
    [
        (r"a(?i)b|c", "aB", True),
        (r"a(?i)b|c", "C", True),
        (r"a(?i)b|c", "A", False),
        (r"((?i)a)b", "aB", False),
        (r"(?i:a)b", "Ab", True),
        (r"(?s).*", "a\nb", True),
        (r"(?m)a$\nb", "a\nb", True),
        (r"a$", "a\n", False),
        (r"a\z", "a", True),
        (r"[[:^alpha:]_]+", "1_", True),
        (r"[]a]+", "]a", True),
        (r"\Qa.b\E.", "a.bc", True),
        (r"\Qa.b", "a.b", True),
        (r"\p{Greek}+", "αβ", True),
        (r"\P{L}[\PL\d]", "12", True),
        (r"\x{61}(?<name>b)", "ab", True),
        (r"a{,2}", "a{,2}", True),
        (r"a{,2}", "aa", False),
        (r"\s\S", "\vx", False),
        (r"[a&&b]+", "a&b", True),
    ],
)
def test_expressions_are_read_as_re2_reads_them(expression: str, text: str, wanted: bool) -> None:
    """Broken: where Python reads an expression in another way, a match would be told that is none in the proxy."""
    assert full_match(expression, text) is wanted


def test_paths_are_matched_and_sent_in_normal_form() -> None:
    """Broken: `/a/../admin` would be told to take the route of `/a`."""
    for path, wanted in (
        ("/a/../b?c=/../d", "/b?c=/../d"),
        ("/a/%2E./b", "/b"),
        ("/../..", "/"),
        ("/a/.", "/a/"),
        ("/a/..", "/"),
        ("/.a/b.", "/.a/b."),
        ("/%61%2f%zz", "/a%2f%zz"),
        ("/a\\b", "/a/b"),
        ("/é {", "/%C3%A9%20%7B"),
    ):
        assert normalized(Request("a", path=path)).path == wanted


def test_routes_are_told_with_those_that_were_passed_over() -> None:
    """Broken: nobody would learn why a request does not take the route that was written for it."""
    jason = NamedMatch("end-user", TextMatch(MatchKind.EXACT, "jason"))
    rules = (
        Route("exact", RouteMatch(TextMatch(MatchKind.EXACT, "/b"))),
        Route("jason", RouteMatch(headers=(jason,))),
        Route("nobody", RouteMatch(headers=(NamedMatch("x", TextMatch(MatchKind.PRESENT), invert=True),))),
        Route("query", RouteMatch(query=(NamedMatch("q", TextMatch(MatchKind.EXACT, "1")),))),
        Route("rest", destinations=(WeightedDestination(V1, 3), WeightedDestination(V2, 1))),
    )
    request = Request("reviews", path="/a?q=2&q=1", headers=(("End-User", "tom"), ("x", "y")))
    decision = decide(SIDECAR, [VirtualHost("reviews", ("reviews",), rules)], request, 0.5)
    assert decision.passed == (
        Passed("exact", "path /a is not exact /b"),
        Passed("jason", "header end-user is tom, not exact jason"),
        Passed("nobody", "header x is present"),
        Passed("query", "query parameter q is 2, not exact 1"),
    )
    assert (decision.outcome, decision.destination) == (Outcome.FORWARD, V1)
    assert [(share.destination, share.part) for share in decision.shares] == [(V1, 0.75), (V2, 0.25)]
    assert decide(SIDECAR, [VirtualHost("reviews", ("reviews",), rules)], request, 0.75).destination == V2


def test_who_would_be_asked_is_told() -> None:
    """Broken: a request would be said to go where it goes only with an authorizer's word; or a preflight to need that word."""
    cors = Cors(origins=(TextMatch(MatchKind.EXACT, "http://a"),))
    rule = Route("guarded", destinations=(WeightedDestination(V1),), cors=cors, auth=ExternalAuth(V2))
    hosts = [VirtualHost("reviews", ("reviews",), (rule,))]
    asked = decide(SIDECAR, hosts, Request("reviews"))
    assert (asked.asks, asked.outcome, asked.destination) == (V2, Outcome.FORWARD, V1)
    preflight = (("origin", "http://a"), ("access-control-request-method", "PUT"))
    answered = decide(SIDECAR, hosts, Request("reviews", "OPTIONS", headers=preflight))
    assert (answered.asks, answered.outcome, answered.status) == (None, Outcome.RESPOND, 200)


def test_what_nobody_else_answers() -> None:
    """Broken: the status that the proxy itself gives would be told wrongly."""
    broken = VirtualHost("broken", ("broken",), (Route("broken", status=500, abort=Abort(418)),))
    empty = VirtualHost("empty", ("empty",))
    rest = VirtualHost("rest", ("*",), passthrough=True)
    for key, hosts, host, wanted in (
        (SIDECAR, [broken], "broken", (Outcome.RESPOND, 418)),
        (SIDECAR, [empty], "empty", (Outcome.NO_ROUTE, 404)),
        (SIDECAR, [], "a", (Outcome.NO_ROUTE, 404)),
        (FORWARD, [], "a", (Outcome.NO_ROUTE, 502)),
        (FORWARD, [rest], "a", (Outcome.RESPOND, 502)),
        (SIDECAR, [rest], "a", (Outcome.PASSTHROUGH, 0)),
    ):
        decision = decide(key, hosts, Request(host))
        assert (decision.outcome, decision.status) == wanted


@pytest.mark.parametrize(("route", "status", "grpc"), [(Route(status=503), 503, 14), (Route(status=418), 418, 2)])
def test_calls_of_grpc_are_answered_in_grpc(route: Route, status: int, grpc: int) -> None:
    """Broken: a status would be told that no caller ever sees, for a call of gRPC gets 200 with a status of gRPC."""
    hosts = [VirtualHost("a", ("a",), (route,))]
    for kind, wanted in (("application/grpc+proto", (200, grpc)), ("application/grpc-web", (status, None))):
        decision = decide(SIDECAR, hosts, Request("a", "POST", headers=(("content-type", kind),)))
        assert (decision.status, decision.grpc) == wanted
    nothing = decide(SIDECAR, [], Request("a", "POST", headers=(("content-type", "application/grpc"),)))
    assert (nothing.outcome, nothing.status, nothing.grpc) == (Outcome.NO_ROUTE, 200, 12)
    aborted = [VirtualHost("a", ("a",), (Route(abort=Abort(200, grpc=5)),))]
    assert decide(SIDECAR, aborted, Request("a")).grpc is None


def test_a_route_that_answers_itself_answers_preflights_too() -> None:
    """Broken: a redirect would be said to let other origins ask, which it does not; or an answer to have headers it lacks."""
    cors = Cors(origins=(TextMatch(MatchKind.EXACT, "http://a"),))
    added = Headers(response=HeaderEdit(set=(("x", "y"),)))
    preflight = Request("a", "OPTIONS", headers=(("origin", "http://a"), ("access-control-request-method", "PUT")))
    away = decide(SIDECAR, [VirtualHost("a", ("a",), (Route(redirect=Redirect(host="b"), cors=cors),))], preflight)
    assert (away.outcome, away.status) == (Outcome.REDIRECT, 301)
    to = Route(destinations=(WeightedDestination(V1),), cors=cors, headers=added)
    answered = decide(SIDECAR, [VirtualHost("a", ("a",), (to,))], preflight)
    assert (answered.outcome, answered.status, answered.response) == (Outcome.RESPOND, 200, ())
