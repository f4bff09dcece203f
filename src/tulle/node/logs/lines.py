"""Lines of access logs, as far as they say what is asked for: JSON, and Istio's default line of text. Pure."""

from __future__ import annotations

import re
from typing import Any

import msgspec

from tulle.core.model.looks import Wanted

_QUOTED = r'"((?:[^"\\]|\\.)*)"'
# [time] "METHOD PATH PROTOCOL" STATUS FLAGS DETAILS TERMINATION "FAILURE" RECEIVED SENT DURATION UPSTREAM-TIME
# "FORWARDED-FOR" "AGENT" "ID" "AUTHORITY" "HOST" CLUSTER UPSTREAM-LOCAL DOWNSTREAM-LOCAL DOWNSTREAM-REMOTE SNI ROUTE
_TEXT = re.compile(
    rf"\[[^\]]*\] {_QUOTED} (\d+) (?:\S+) .*? {_QUOTED} \d+ \d+ (\d+|-) \S+ {_QUOTED} {_QUOTED} {_QUOTED} {_QUOTED} {_QUOTED}"
    r" \S+ \S+ \S+ (\S+) \S+ \S+$"
)


class Seen(msgspec.Struct, frozen=True):
    """What a line says of a request; "" and 0: nothing. `seconds` is how long it took, `address` the caller's."""

    status: int = 0
    method: str = ""
    path: str = ""
    authority: str = ""
    seconds: float = 0.0
    caller: str = ""
    address: str = ""


def seen(line: str) -> Seen | None:
    """What a line says; None where it is of another form."""
    return _of_json(line) if line.startswith("{") else _of_text(line)


def _of_text(line: str) -> Seen | None:
    match = _TEXT.match(line)
    if match is None:
        return None
    request, code, _failure, duration, _forwarded, _agent, _id, authority, _host, remote = match.groups()
    method, _space, rest = request.partition(" ")
    path = rest.rpartition(" ")[0]
    return Seen(int(code), method, path, authority, _number(duration) / 1000, "", host(remote))


def _of_json(line: str) -> Seen | None:
    try:
        found = msgspec.json.decode(line, type=dict[str, Any])
    except msgspec.DecodeError:
        return None

    def text(name: str) -> str:
        value = found.get(name)
        return value if isinstance(value, str) else ""

    return Seen(
        status=int(_number(found.get("response_code"))),
        method=text("method"),
        path=text("path"),
        authority=text("authority"),
        seconds=_number(found.get("duration")) / 1000,
        caller=text("caller"),
        address=host(text("downstream_remote_address")),
    )


def _number(value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        return 0.0


def host(address: str) -> str:
    """The address without its port: `10.1.2.3:4567`, `[fd00::1]:4567`."""
    return address.rpartition(":")[0].strip("[]")


def matches(wanted: Wanted, one: Seen) -> bool:
    """Whether a request is one of those that are wanted."""
    return (
        wanted.status(one.status)
        and (not wanted.method or one.method == wanted.method)
        and one.path.startswith(wanted.path)
        and (not wanted.authority or one.authority.partition(":")[0] == wanted.authority)
        and one.seconds >= wanted.slower
        and (not wanted.caller or called_by(wanted, one.caller, one.address))
    )


def called_by(wanted: Wanted, caller: str, address: str) -> bool:
    """Whether it came from the caller that is wanted: by the SPIFFE ID, or where there is none by the address."""
    namespace, _slash, account = wanted.caller.partition("/")
    if caller.startswith("spiffe://"):
        return caller.endswith(f"/ns/{namespace}/sa/{account}")
    return address in wanted.addresses
