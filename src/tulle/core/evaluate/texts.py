"""Comparisons of the model (`TextMatch`) with the texts of a request."""

from __future__ import annotations

from tulle.core.evaluate.expressions import full_match
from tulle.core.evaluate.request import Request
from tulle.core.model.route import MatchKind, NamedMatch, RouteMatch, TextMatch


def holds(match: TextMatch, text: str) -> bool:
    """Whether a text is as the match wants it."""
    if match.kind is MatchKind.PRESENT:
        return True
    if match.kind is MatchKind.REGEX:
        return full_match(match.value, text, match.ignore_case)
    value = match.value
    if match.ignore_case:
        value, text = _lower(value), _lower(text)
    if match.kind is MatchKind.EXACT:
        return text == value
    return text.startswith(value)


def path_holds(match: TextMatch | None, path: str) -> bool:
    """Whether a path (without query) is as the match wants it; without one, every path is."""
    if match is None or match.kind is MatchKind.PRESENT:
        return path.startswith("/")
    if match.kind is MatchKind.SEGMENTS:
        prefix = match.value.rstrip("/")
        if not holds(TextMatch(MatchKind.PREFIX, prefix or "/", match.ignore_case), path):
            return False
        return not prefix or len(path) == len(prefix) or path[len(prefix)] == "/"
    if match.kind is MatchKind.PREFIX and not match.value:
        return path.startswith("/")
    return holds(match, path)


def header_holds(named: NamedMatch, request: Request) -> bool:
    """Whether a header is as wanted: one of its values, where it is there more than once; with `invert`, none of them.

    Where it is absent only an inverted match can hold: of its text, as if that were empty.
    """
    values = request.header(named.name)
    if named.match.kind is MatchKind.PRESENT:
        return bool(values) is not named.invert
    if not values:
        return named.invert and not holds(named.match, "")
    return any(holds(named.match, value) for value in values) is not named.invert


def query_holds(named: NamedMatch, request: Request) -> bool:
    """Whether a query parameter is as wanted; an absent one never is."""
    value = request.query(named.name)
    return value is not None and holds(named.match, value)


def why_not(match: RouteMatch, request: Request) -> str:
    """The first thing that a request lacks for a match, in words; "" where it holds."""
    if request.method != "CONNECT" and not path_holds(match.path, request.bare_path):
        wanted = match.path or TextMatch(MatchKind.PREFIX, "/")
        return f"path {request.bare_path} is not {in_words(wanted)}"
    for named in match.headers:
        if not header_holds(named, request):
            return f"header {named.name} {_found(', '.join(request.header(named.name)) or None, named)}"
    for named in match.query:
        if not query_holds(named, request):
            return f"query parameter {named.name} {_found(request.query(named.name), named)}"
    return ""


def in_words(match: TextMatch) -> str:
    """`prefix /a`, `exact /a (any case)`."""
    if match.kind is MatchKind.PRESENT:
        return "present"
    kind = "prefix" if match.kind is MatchKind.SEGMENTS else match.kind.value
    return f"{kind} {match.value}" + (" (any case)" if match.ignore_case else "")


def _found(value: str | None, named: NamedMatch) -> str:
    if value is None:
        return "is absent"
    if named.match.kind is MatchKind.PRESENT:
        return "is present"
    return f"is {value}, {'which may not be' if named.invert else 'not'} {in_words(named.match)}"


def _lower(text: str) -> str:
    """As Envoy does it: ASCII alone."""
    return "".join(one.lower() if "A" <= one <= "Z" else one for one in text)
