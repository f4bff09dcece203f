"""When a match takes all that another would: exactly for texts, and never where an expression leaves it open."""

from __future__ import annotations

import pytest

from tulle.core.analyze.coverage import Callers, Match, Seen, covers, text_covers
from tulle.core.model.route import MatchKind, NamedMatch, RouteMatch, TextMatch

EXACT, PREFIX, SEGMENTS, REGEX, PRESENT = (
    MatchKind.EXACT,
    MatchKind.PREFIX,
    MatchKind.SEGMENTS,
    MatchKind.REGEX,
    MatchKind.PRESENT,
)


def text(kind: MatchKind, value: str = "", ignore_case: bool = False) -> TextMatch:
    return TextMatch(kind, value, ignore_case)


@pytest.mark.parametrize(
    ("wide", "narrow", "answer"),
    [
        (text(EXACT, "/a"), text(EXACT, "/a"), True),
        (text(EXACT, "/a"), text(EXACT, "/A"), False),
        (text(EXACT, "/a", True), text(EXACT, "/A"), True),
        (text(EXACT, "/a"), text(EXACT, "/a", True), False),
        (text(EXACT, "/1"), text(EXACT, "/1", True), True),
        (text(EXACT, "/a"), text(PREFIX, "/a"), False),
        (text(PREFIX, "/a"), text(EXACT, "/ab"), True),
        (text(PREFIX, "/a"), text(PREFIX, "/ab"), True),
        (text(PREFIX, "/ab"), text(PREFIX, "/a"), False),
        (text(PREFIX, "/a"), text(SEGMENTS, "/a"), True),
        (text(PREFIX, "/a/"), text(SEGMENTS, "/a"), False),
        (text(SEGMENTS, "/a"), text(EXACT, "/a"), True),
        (text(SEGMENTS, "/a"), text(EXACT, "/a/b"), True),
        (text(SEGMENTS, "/a"), text(EXACT, "/ab"), False),
        (text(SEGMENTS, "/a/"), text(SEGMENTS, "/a"), True),
        (text(SEGMENTS, "/a"), text(SEGMENTS, "/a/b"), True),
        (text(SEGMENTS, "/a"), text(PREFIX, "/a"), False),
        (text(SEGMENTS, "/a"), text(PREFIX, "/a/"), True),
        (text(REGEX, "/a.*"), text(REGEX, "/a.*"), True),
        (text(REGEX, "/a.*"), text(EXACT, "/ab"), False),
        (text(REGEX, ".*"), text(REGEX, "/a+"), True),
        (text(PREFIX, "/a"), text(REGEX, "/a.*"), False),
        (text(PRESENT), text(REGEX, "x"), True),
        (text(EXACT, "x"), text(PRESENT), False),
    ],
)
def test_texts(wide: TextMatch, narrow: TextMatch, answer: bool) -> None:
    """A reachable rule would be called dead, or a dead one not."""
    assert text_covers(wide, narrow) is answer


def request(path: TextMatch | None = None, *headers: NamedMatch, query: tuple[NamedMatch, ...] = ()) -> Match:
    return Match(request=RouteMatch(path, headers, query))


def header(name: str, value: TextMatch, invert: bool = False) -> NamedMatch:
    return NamedMatch(name, value, invert)


USER = header("user", text(EXACT, "jason"))


@pytest.mark.parametrize(
    ("wide", "narrow", "answer"),
    [
        (request(), request(text(EXACT, "/a"), USER), True),
        (request(text(PREFIX, "/")), request(), True),
        (request(text(PREFIX, "/")), request(text(REGEX, "/a+")), True),
        (request(text(EXACT, "/a")), request(), False),
        (request(None, USER), request(text(EXACT, "/a"), USER), True),
        (request(text(EXACT, "/a"), USER), request(text(EXACT, "/a")), False),
        (request(None, header("user", text(PRESENT))), request(None, USER), True),
        (request(None, header("user", text(PREFIX, "ja"))), request(None, USER), True),
        (request(None, header("user", text(EXACT, "x"), True)), request(None, USER), True),
        (request(None, header("user", text(EXACT, "jason"), True)), request(None, USER), False),
        (request(None, header("user", text(EXACT, "x"), True)), request(), False),
        (request(None, header("user", text(REGEX, "x+"), True)), request(None, USER), False),
        (request(None, header("user", text(PRESENT), True)), request(None, header("user", text(PRESENT), True)), True),
        (request(None, header("user", text(EXACT, "x"), True)), request(None, header("user", text(PRESENT), True)), True),
        (request(None, header("user", text(PRESENT), True)), request(None, header("user", text(EXACT, "x"), True)), False),
        (request(query=(header("q", text(EXACT, "1")),)), request(query=(header("q", text(EXACT, "1")), USER)), True),
        (request(query=(header("q", text(EXACT, "1")),)), request(query=(header("q", text(EXACT, "2")),)), False),
        (Match(callers=Callers(port=80)), Match(callers=Callers(port=80, source_namespace="a")), True),
        (Match(callers=Callers(port=80)), Match(), False),
        (
            Match(callers=Callers(source_labels=(("a", "b"),))),
            Match(callers=Callers(source_labels=(("a", "b"), ("c", "d")))),
            True,
        ),
        (Match(callers=Callers(source_labels=(("a", "b"),))), Match(callers=Callers(source_labels=(("a", "c"),))), False),
        (Match(callers=Callers(gateways=frozenset(["mesh", "a/b"]))), Match(callers=Callers(gateways=frozenset(["mesh"]))), True),
        (Match(callers=Callers(gateways=frozenset(["mesh"]))), Match(), False),
        (Match(names=("*.example.com",)), Match(names=("a.example.com", "b.example.com")), True),
        (Match(names=("*.example.com",)), Match(names=("a.example.com", "example.org")), False),
        (Match(subnets=("10.0.0.0/8", "fd00::/8")), Match(subnets=("10.1.0.0/16", "fd00::1")), True),
        (Match(subnets=("10.0.0.0/8",)), Match(), False),
        (Match(source_subnet="10.0.0.0/8"), Match(source_subnet="10.1.2.3"), True),
        (Match(source_subnet="10.0.0.0/8"), Match(), False),
    ],
)
def test_matches(wide: Match, narrow: Match, answer: bool) -> None:
    """A condition would be left out of the comparison."""
    assert covers(wide, narrow) is answer


def test_seen_finds_the_one_that_takes() -> None:
    """The quick way through a long list would miss what the slow one finds."""
    seen = Seen()
    for number in range(50):
        seen.add(request(text(PREFIX, f"/p{number}/")), f"p{number}")
    seen.add(request(text(SEGMENTS, "/S")), "segments")
    seen.add(request(text(EXACT, "/E", True)), "exact")
    seen.add(request(text(REGEX, "/r.*")), "regex")
    assert seen.taker(request(text(EXACT, "/p7/x"))) == "p7"
    assert seen.taker(request(text(EXACT, "/p7"))) is None
    assert seen.taker(request(text(SEGMENTS, "/S/t"))) == "segments"
    assert seen.taker(request(text(EXACT, "/e"))) == "exact"
    assert seen.taker(request(text(REGEX, "/r.*"))) == "regex"
    assert seen.taker(request()) is None
    seen.add(request(None, USER), "everywhere")
    assert seen.taker(request(text(EXACT, "/zzz"), USER)) == "everywhere"
