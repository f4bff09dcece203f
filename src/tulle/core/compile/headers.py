"""Changes to headers, as either API says them → the model's, without those that a proxy would refuse.

A value of the Gateway API is text. Istio's may hold Envoy's placeholders, such as `%DOWNSTREAM_REMOTE_ADDRESS%`: those that are
well formed count as such, every other percent sign is one. The authority is no header to Envoy: who sets it rewrites it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence

import msgspec

from tulle.core.compile.mistakes import error
from tulle.core.model.route import NO_EDIT, UNCHANGED, HeaderEdit, Headers
from tulle.kit.problem import Problem, Ref

_AUTHORITY = (":authority", "host")
# Placeholders without an argument, and those with the name of a header.
_PLAIN = (
    "CONNECTION_ID|DOWNSTREAM_DIRECT_REMOTE_ADDRESS(?:_WITHOUT_PORT)?|DOWNSTREAM_LOCAL_ADDRESS(?:_WITHOUT_PORT)?|"
    "DOWNSTREAM_LOCAL_PORT|DOWNSTREAM_LOCAL_SUBJECT|DOWNSTREAM_LOCAL_URI_SAN|DOWNSTREAM_PEER_CERT|DOWNSTREAM_PEER_FINGERPRINT_256|"
    "DOWNSTREAM_PEER_ISSUER|DOWNSTREAM_PEER_SERIAL|DOWNSTREAM_PEER_SUBJECT|DOWNSTREAM_PEER_URI_SAN|"
    "DOWNSTREAM_REMOTE_ADDRESS(?:_WITHOUT_PORT)?|DOWNSTREAM_REMOTE_PORT|DOWNSTREAM_TLS_CIPHER|DOWNSTREAM_TLS_VERSION|HOSTNAME|"
    "PROTOCOL|REQUESTED_SERVER_NAME|REQUEST_DURATION|RESPONSE_CODE|RESPONSE_CODE_DETAILS|RESPONSE_FLAGS|ROUTE_NAME|START_TIME|"
    "UPSTREAM_CLUSTER|UPSTREAM_HOST|UPSTREAM_LOCAL_ADDRESS|UPSTREAM_REMOTE_ADDRESS(?:_WITHOUT_PORT)?|VIRTUAL_CLUSTER_NAME"
)
_PLACEHOLDER = re.compile(
    rf"%(?:(?:{_PLAIN})|(?:REQ|RESP|TRAILER)\([A-Za-z0-9:_-]+(?:\?[A-Za-z0-9:_-]+)?\)(?::[1-9][0-9]{{0,4}})?)%"
)
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")


class Said(msgspec.Struct, frozen=True):
    """Operations on one side, as both APIs have them: names and values."""

    set: tuple[tuple[str, str], ...] = ()
    add: tuple[tuple[str, str], ...] = ()
    remove: tuple[str, ...] = ()
    at: str = ""  # the field


class Edited(msgspec.Struct, frozen=True):
    """What is changed, and what is wrong in it. `authority` is what the request's is rewritten to, or ""."""

    headers: Headers = UNCHANGED
    authority: str = ""
    problems: tuple[Problem, ...] = ()


_NOTHING = Edited()


def edited(ref: Ref, request: Said, response: Said, placeholders: bool) -> Edited:
    """The changes to a request and its response."""
    if not any((request.set, request.add, request.remove, response.set, response.add, response.remove)):
        return _NOTHING  # as most rules say: a thousand of them should not take long
    authority = [value for name, value in (*request.set, *request.add) if name.lower() in _AUTHORITY]
    problems = [*_refused(ref, request, _AUTHORITY), *_refused(ref, response, ())]
    headers = _same(_edit(request, placeholders), _edit(response, placeholders))
    return Edited(headers, authority[0] if authority and clean(authority[0]) else "", tuple(problems))


def clean(text: str) -> bool:
    """Whether a text can stand in a header."""
    return not _CONTROL.search(text)


def template(value: str, placeholders: bool) -> str:
    """A value as the model has it."""
    if not placeholders:
        return value.replace("%", "%%")
    parts: list[str] = []
    end = 0
    for found in _PLACEHOLDER.finditer(value):
        parts += (value[end : found.start()].replace("%", "%%"), found.group())
        end = found.end()
    return "".join((*parts, value[end:].replace("%", "%%")))


def _edit(said: Said, placeholders: bool) -> HeaderEdit:
    edit = HeaderEdit(
        set=tuple((name.lower(), template(value, placeholders)) for name, value in said.set if _may(name) and clean(value)),
        add=tuple((name.lower(), template(value, placeholders)) for name, value in said.add if _may(name) and clean(value)),
        remove=tuple(name.lower() for name in said.remove if _may(name)),
    )
    return NO_EDIT if edit == NO_EDIT else edit


def _same(request: HeaderEdit, response: HeaderEdit) -> Headers:
    """What changes nothing is one object, which is left out where the model is shown."""
    return UNCHANGED if request is response is NO_EDIT else Headers(request, response)


def _may(name: str) -> bool:
    return not name.startswith(":") and name.lower() != "host"


def _refused(ref: Ref, said: Said, written: Sequence[str]) -> Iterator[Problem]:
    """The operations that no proxy takes; `written` names pseudo-headers that may be set all the same."""
    for verb, pairs in (("set", said.set), ("add", said.add)):
        for name, value in pairs:
            if not _may(name) and name.lower() not in written:
                yield error(ref, f"{said.at}.{verb}", "BadName", f"found {name}, which cannot be changed; needed another header")
            elif not clean(value):
                yield error(
                    ref, f"{said.at}.{verb}", "BadFormat", f"found a control character in the value of {name}; needed none"
                )
    for name in said.remove:
        if not _may(name):
            yield error(ref, f"{said.at}.remove", "BadName", f"found {name}, which cannot be removed; needed another header")


def together(one: Headers, other: Headers) -> Headers:
    """Both changes; where both set a header, the second counts."""
    return _same(_both(one.request, other.request), _both(one.response, other.response))


def _both(one: HeaderEdit, other: HeaderEdit) -> HeaderEdit:
    if NO_EDIT in (one, other):
        return one if other == NO_EDIT else other
    return HeaderEdit(
        set=tuple({**dict(one.set), **dict(other.set)}.items()),
        add=(*one.add, *other.add),
        remove=tuple(dict.fromkeys((*one.remove, *other.remove))),
    )


def pairs(said: Mapping[str, str] | Iterable[tuple[str, str]]) -> tuple[tuple[str, str], ...]:
    """Names and values in a fixed order."""
    return tuple(sorted(said.items() if isinstance(said, Mapping) else said))
