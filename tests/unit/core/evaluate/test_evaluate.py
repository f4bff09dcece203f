"""What `evaluate` says, case by case; that Envoy does the same is asked in tests/property/test_evaluate.py."""

from __future__ import annotations

import pytest

from tulle.core.evaluate import Outcome, Passed, Request, choose_host, decide
from tulle.core.evaluate.expressions import full_match
from tulle.core.evaluate.request import normalized
from tulle.core.model.destination import DestinationKey
from tulle.core.model.route import (
    Abort,
    MatchKind,
    NamedMatch,
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
