"""What a route changes of a request: its path, its authority, its headers; and where a redirect sends the caller."""

from __future__ import annotations

import re
from collections.abc import Iterable

import msgspec

from tulle.core.evaluate.expressions import compiled
from tulle.core.evaluate.request import Request
from tulle.core.model.route import HeaderEdit, MatchKind, PathEdit, PathKind, Redirect, TextMatch

Pairs = tuple[tuple[str, str], ...]

_COMMAND = re.compile(r"%%|%REQ\(([^)?]+)(?:\?([^)]+))?\)(?::(\d+))?%")
_DEFAULT_PORTS = {"http": "80", "https": "443"}


def new_path(edit: PathEdit, match: TextMatch | None, path: str) -> str:
    """A path (with its query, which stays) after the edit; `match` is the one by which the route holds."""
    bare, mark, query = path.partition("?")
    if edit.kind is PathKind.FULL:
        bare = edit.value or "/"
    elif edit.kind is PathKind.REGEX:
        bare = replaced(edit.pattern, edit.value, bare)
    else:
        bare = _new_prefix(edit.value, match, bare)
    return bare + mark + query


def _new_prefix(value: str, match: TextMatch | None, bare: str) -> str:
    if match is None or match.kind is MatchKind.PRESENT:
        return (value or "/") + bare[1:]
    if match.kind in (MatchKind.EXACT, MatchKind.REGEX):
        return value or "/"
    prefix = match.value
    if match.kind is MatchKind.SEGMENTS:
        prefix = prefix.rstrip("/")
        value = value.rstrip("/") or ("/" if prefix else "")
        if not prefix:
            return f"{value}/{bare[1:]}"
    value = value or "/"
    rest = bare[len(prefix or "/") :]
    if value == "/" and prefix and not prefix.endswith("/"):
        rest = rest.lstrip("/")
    return value + rest


def replaced(pattern: str, substitution: str, text: str) -> str:
    """The text with every match of a pattern replaced, as RE2 does it: no empty match right behind another."""
    expression = compiled(pattern)
    out: list[str] = []
    place, last = 0, -1
    while place <= len(text):
        found = expression.search(text, place)
        if found is None:
            break
        out.append(text[place : found.start()])
        if found.end() == found.start() == last:
            if found.start() < len(text):
                out.append(text[found.start()])
            place, last = found.start() + 1, -1
            continue
        groups = found

        def group(named: re.Match[str], groups: re.Match[str] = groups) -> str:
            return (groups[int(named[1])] or "") if named[1].isdigit() else named[1]

        out.append(re.sub(r"\\([0-9\\])", group, substitution))
        place = last = found.end()
    return "".join(out) + text[place:]


def location(said: Redirect, match: TextMatch | None, request: Request) -> str:
    """The URL to which a redirect sends the caller."""
    scheme = said.scheme or request.scheme
    host = said.host
    if not host:
        host, colon, port = request.authority.rpartition(":")
        usual = scheme != request.scheme and _DEFAULT_PORTS.get(request.scheme) == port
        if not colon or request.authority.endswith("]") or not (said.port or usual):
            host = request.authority
    path = request.path
    if said.path and said.path.kind is PathKind.FULL and "?" in said.path.value:
        path = said.path.value
    elif said.path:
        path = new_path(said.path, match, path)
    if not path.startswith("/"):
        path = f"/{path}"
    return f"{scheme}://{host}{f':{said.port}' if said.port else ''}{path}"


def edited_request(request: Request, edits: Iterable[HeaderEdit]) -> Request:
    """A request after edits of its headers, in their order; names in lower case."""
    for edit in edits:
        # All values of an edit are made of the headers as they are before any is set.
        kept = _without(request.headers, edit)
        request = msgspec.structs.replace(request, headers=kept)
        request = msgspec.structs.replace(request, headers=_with(kept, edit, request))
    return request


def edited_response(headers: Pairs, edits: Iterable[HeaderEdit], request: Request) -> Pairs:
    """The headers of a response after edits, whose templates are about the request as it was sent on."""
    for edit in edits:
        headers = _with(_without(headers, edit), edit, request)
    return headers


def _without(headers: Pairs, edit: HeaderEdit) -> Pairs:
    gone = {name.lower() for name in edit.remove}
    return tuple((name.lower(), value) for name, value in headers if name.lower() not in gone)


def _with(headers: Pairs, edit: HeaderEdit, request: Request) -> Pairs:
    for name, value in _rendered(edit.set, request):
        headers = (*(pair for pair in headers if pair[0] != name), (name, value))
    return *headers, *_rendered(edit.add, request)


def _rendered(pairs: Pairs, request: Request) -> list[tuple[str, str]]:
    """The pairs with their values; without those of which nothing is left."""
    made = [(name.lower(), value, rendered(value, request)) for name, value in pairs]
    return [(name, text) for name, template, text in made if text or not template]


def rendered(template: str, request: Request) -> str:
    """A template's text for a request. What is not known before there is a connection is left as it stands."""

    def command(found: re.Match[str]) -> str:
        if not found[1]:
            return "%"
        names = [name.lower() for name in found.groups()[:2] if name]
        values = next((values for name in names if (values := request.header(name))), ("",))
        return values[0][: int(found[3]) if found[3] else None]

    return _COMMAND.sub(command, template)
