"""The requests for which two matches hold at once."""

from __future__ import annotations

from tulle.core.model.route import MatchKind, NamedMatch, RouteMatch, TextMatch


def both(one: RouteMatch, other: RouteMatch) -> RouteMatch | str | None:
    """The match that holds where both do; None where that is nowhere, or why it cannot be said as one match."""
    path = _path(one.path, other.path)
    if isinstance(path, str):
        return path
    if one.path and other.path and path is None:
        return None
    return RouteMatch(
        path=path, headers=_named(one.headers, other.headers), query=tuple(dict.fromkeys((*one.query, *other.query)))
    )


def _named(one: tuple[NamedMatch, ...], other: tuple[NamedMatch, ...]) -> tuple[NamedMatch, ...]:
    return tuple(sorted(dict.fromkeys((*one, *other)), key=lambda header: (header.name, header.invert)))


def _path(one: TextMatch | None, other: TextMatch | None) -> TextMatch | str | None:
    if one is None or other is None or one == other:
        return one or other
    if MatchKind.REGEX in (one.kind, other.kind):
        shown = " and ".join(f'{match.kind} "{match.value}"' for match in (one, other))
        return f"found the paths {shown}, one inside the other; needed no expression among the two"
    if one.ignore_case != other.ignore_case:
        narrow, wide = (other, one) if one.ignore_case else (one, other)
        if _within(narrow, wide):
            return narrow
        return (
            f'found the paths "{one.value}" and "{other.value}"; needed ignoreUriCase in both' if _within(wide, narrow) else None
        )
    if _within(one, other):
        return one
    return other if _within(other, one) else None


def _within(narrow: TextMatch, wide: TextMatch) -> bool:
    """Whether each path that `narrow` takes is one that `wide` takes; of texts and prefixes."""
    inner, outer = narrow.value, wide.value
    if wide.ignore_case or narrow.ignore_case:
        inner, outer = inner.lower(), outer.lower()
    if wide.kind is MatchKind.EXACT:
        return narrow.kind is MatchKind.EXACT and inner == outer
    return inner.startswith(outer)
