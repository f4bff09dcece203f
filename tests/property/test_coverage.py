"""`covers` against requests: a match that is said to take all that another would takes every request that the other takes."""

from __future__ import annotations

import re

from hypothesis import given, settings
from hypothesis import strategies as st

from tulle.core.analyze.coverage import Match, Seen, covers
from tulle.core.model.route import MatchKind, NamedMatch, RouteMatch, TextMatch

PATHS = ("/", "/a", "/a/", "/ab", "/a/b", "/A", "/b")
VALUES = ("", "x", "X", "xy", "y")
Request = tuple[str, dict[str, str]]

paths = st.builds(
    TextMatch,
    st.sampled_from([MatchKind.EXACT, MatchKind.PREFIX, MatchKind.SEGMENTS]),
    st.sampled_from(PATHS),
    st.booleans(),
) | st.builds(TextMatch, st.just(MatchKind.REGEX), st.sampled_from(["/a.*", ".*", "/[ab]"]))
values = st.builds(TextMatch, st.sampled_from([MatchKind.EXACT, MatchKind.PREFIX]), st.sampled_from(VALUES), st.booleans()) | (
    st.builds(TextMatch, st.just(MatchKind.PRESENT))
    | st.builds(TextMatch, st.just(MatchKind.REGEX), st.sampled_from(["x.*", "y"]))
)
headers = st.lists(st.builds(NamedMatch, st.sampled_from("hk"), values, st.booleans()), max_size=3).map(tuple)
matches = st.builds(RouteMatch, st.none() | paths, headers).map(lambda request: Match(request=request))
requests = st.tuples(st.sampled_from(PATHS), st.dictionaries(st.sampled_from("hk"), st.sampled_from(VALUES)))


def text_takes(match: TextMatch, text: str) -> bool:
    """What Envoy does with a text, written down without cleverness."""
    value = match.value
    if match.kind is MatchKind.PRESENT:
        return True
    if match.kind is MatchKind.REGEX:
        return re.fullmatch(value, text) is not None
    if match.ignore_case:
        value, text = value.lower(), text.lower()
    if match.kind is MatchKind.EXACT:
        return text == value
    if match.kind is MatchKind.PREFIX:
        return text.startswith(value)
    value = value.rstrip("/")
    return text == value or text.startswith(value + "/")


def takes(match: Match, request: Request) -> bool:
    path, there = request
    if match.request.path is not None and not text_takes(match.request.path, path):
        return False
    for one in match.request.headers:
        holds = one.name in there and text_takes(one.match, there[one.name])
        if holds is one.invert:
            return False
    return True


@settings(max_examples=400, deadline=None)
@given(matches, matches, st.lists(requests, min_size=20, max_size=20))
def test_what_is_covered_is_taken(wide: Match, narrow: Match, tried: list[Request]) -> None:
    """A rule that is reached would be called dead, and somebody would remove it."""
    if covers(wide, narrow):
        for request in tried:
            assert not takes(narrow, request) or takes(wide, request)


@settings(max_examples=200, deadline=None)
@given(st.lists(matches, max_size=12), matches)
def test_the_quick_search_is_the_slow_one(earlier: list[Match], last: Match) -> None:
    """A long list of rules would hide what a short one shows."""
    seen = Seen()
    for index, one in enumerate(earlier):
        seen.add(one, str(index))
    assert (seen.taker(last) is not None) is any(covers(one, last) for one in earlier)
