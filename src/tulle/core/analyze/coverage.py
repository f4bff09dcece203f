"""Whether an earlier match takes every request for which a later one would hold.

Only what is certain counts: where an expression makes it undecidable, the answer is no.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterable, Mapping

import msgspec

from tulle.core.compile.hostname import covers as host_covers
from tulle.core.model.route import MatchKind, NamedMatch, RouteMatch, TextMatch

_TEXT = (MatchKind.EXACT, MatchKind.PREFIX, MatchKind.SEGMENTS)


class Callers(msgspec.Struct, frozen=True):
    """Who calls, and where: what Istio's matches say beside the request itself. Empty: anybody, anywhere."""

    port: int | None = None
    gateways: frozenset[str] = frozenset()
    source_labels: tuple[tuple[str, str], ...] = ()
    source_namespace: str = ""


class Match(msgspec.Struct, frozen=True):
    """One match of a rule. `subnets`, `source_subnet` and `names` (server names) are of connections; `request` of HTTP."""

    request: RouteMatch = RouteMatch()
    callers: Callers = Callers()
    names: tuple[str, ...] = ()
    subnets: tuple[str, ...] = ()
    source_subnet: str = ""


def covers(wide: Match, narrow: Match) -> bool:
    """Whether `wide` holds wherever `narrow` does, for certain."""
    return (
        _callers(wide.callers, narrow.callers)
        and request_covers(wide.request, narrow.request)
        and _all_in(narrow.names, wide.names, host_covers)
        and _all_in(narrow.subnets, wide.subnets, _contains)
        and (not wide.source_subnet or (bool(narrow.source_subnet) and _contains(wide.source_subnet, narrow.source_subnet)))
    )


def _callers(wide: Callers, narrow: Callers) -> bool:
    return (
        wide.port in (None, narrow.port)
        and (not wide.gateways or (bool(narrow.gateways) and narrow.gateways <= wide.gateways))
        and set(wide.source_labels) <= set(narrow.source_labels)
        and wide.source_namespace in ("", narrow.source_namespace)
    )


def _all_in(narrow: tuple[str, ...], wide: tuple[str, ...], contains: Callable[[str, str], bool]) -> bool:
    """Whether each of `narrow` (empty: all there are) is in one of `wide` (likewise)."""
    if not wide:
        return True
    return bool(narrow) and all(any(contains(one, other) for one in wide) for other in narrow)


def _contains(wide: str, narrow: str) -> bool:
    """Whether a network is inside another."""
    outer, inner = ipaddress.ip_network(wide, strict=False), ipaddress.ip_network(narrow, strict=False)
    if isinstance(outer, ipaddress.IPv4Network) and isinstance(inner, ipaddress.IPv4Network):
        return inner.subnet_of(outer)
    if isinstance(outer, ipaddress.IPv6Network) and isinstance(inner, ipaddress.IPv6Network):
        return inner.subnet_of(outer)
    return False


def request_covers(wide: RouteMatch, narrow: RouteMatch) -> bool:
    """Whether a match of requests holds wherever another does."""
    return (
        _path(wide.path, narrow.path) and _named(wide.headers, narrow.headers) and _named(wide.query, narrow.query, headers=False)
    )


def any_path(path: TextMatch | None) -> bool:
    """Whether a path match holds for every path: they all start with `/`."""
    if path is None or path.kind is MatchKind.PRESENT:
        return True
    if path.kind in (MatchKind.PREFIX, MatchKind.SEGMENTS):
        return path.value in ("", "/")
    return path.kind is MatchKind.REGEX and path.value in (".*", "/.*")


def _path(wide: TextMatch | None, narrow: TextMatch | None) -> bool:
    if any_path(wide):
        return True
    return wide is not None and narrow is not None and text_covers(wide, narrow)


def text_covers(wide: TextMatch, narrow: TextMatch) -> bool:
    """Whether each text that `narrow` takes is one that `wide` takes, for certain."""
    if wide == narrow or wide.kind is MatchKind.PRESENT or (wide.kind is MatchKind.REGEX and wide.value == ".*"):
        return True
    if wide.kind not in _TEXT or narrow.kind not in _TEXT:
        return False
    outer, inner = wide.value, narrow.value
    if wide.ignore_case:
        outer, inner = outer.lower(), inner.lower()
    elif narrow.ignore_case and inner.lower() != inner.upper():
        return False
    if wide.kind is MatchKind.EXACT:
        return narrow.kind is MatchKind.EXACT and outer == inner
    if wide.kind is MatchKind.PREFIX:
        return (inner.rstrip("/") if narrow.kind is MatchKind.SEGMENTS else inner).startswith(outer)
    outer = outer.rstrip("/")
    if narrow.kind is MatchKind.PREFIX:
        return inner.startswith(outer + "/")
    inner = inner.rstrip("/") if narrow.kind is MatchKind.SEGMENTS else inner
    return inner == outer or inner.startswith(outer + "/")


def _named(wide: Iterable[NamedMatch], narrow: Iterable[NamedMatch], *, headers: bool = True) -> bool:
    by_name: dict[str, list[NamedMatch]] = {}
    for one in narrow:
        by_name.setdefault(one.name, []).append(one)
    return all(any(_implies(other, one) for other in by_name.get(one.name, ())) for one in wide)


def _implies(narrow: NamedMatch, wide: NamedMatch) -> bool:
    """Whether a condition on a header or parameter holds wherever another on the same one does."""
    if not wide.invert:
        return not narrow.invert and text_covers(wide.match, narrow.match)
    if narrow.invert:
        return text_covers(narrow.match, wide.match)
    # The header is there with a text that the inverted match does not take.
    return narrow.match.kind is MatchKind.EXACT and _surely_not(wide.match, narrow.match.value)


def _surely_not(match: TextMatch, text: str) -> bool:
    """Whether a match does not take a text, for certain."""
    if match.kind not in _TEXT:
        return False
    value = match.value
    if match.ignore_case:
        value, text = value.lower(), text.lower()
    return text != value if match.kind is MatchKind.EXACT else not text.startswith(value)


class Seen:
    """Matches in the order in which they are tried; `taker` finds the first that leaves nothing for another.

    Kept by what their path can take, so that a long list costs little more than its length.
    """

    def __init__(self) -> None:
        self._anywhere: list[tuple[Match, str]] = []
        self._at: dict[tuple[MatchKind, str], list[tuple[Match, str]]] = {}

    def add(self, match: Match, name: str) -> None:
        """The next match; `name` is what `taker` says of it."""
        path = match.request.path
        if any_path(path):
            self._anywhere.append((match, name))
        else:
            assert path is not None
            key = (path.kind, path.value.lower().rstrip("/") if path.kind is MatchKind.SEGMENTS else path.value.lower())
            self._at.setdefault(key, []).append((match, name))

    def taker(self, match: Match) -> str | None:
        """The name of a match before that takes all that this one would; None where something is left."""
        for candidates in self._candidates(match.request.path):
            for one, name in candidates:
                if covers(one, match):
                    return name
        return None

    def _candidates(self, path: TextMatch | None) -> Iterable[list[tuple[Match, str]]]:
        yield self._anywhere
        if path is None or not self._at:
            return
        text = path.value.lower()
        found: Mapping[tuple[MatchKind, str], list[tuple[Match, str]]] = self._at
        for kind in (MatchKind.EXACT, MatchKind.REGEX):
            if (kind, text) in found:
                yield found[kind, text]
        if path.kind is MatchKind.REGEX:
            return
        for end in range(1, len(text) + 1):
            for kind in (MatchKind.PREFIX, MatchKind.SEGMENTS):
                if (kind, text[:end]) in found:
                    yield found[kind, text[:end]]
