"""The hops of a request, and what is known → one paragraph: why it got its status, which object decided, what to do."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from tulle.core.explain.causes import APPLICATION, DENIED, LEFT, RETRIES, By, Cause, cause
from tulle.core.explain.known import Known
from tulle.core.model.recorded import Example, Shape

Hop = tuple[Shape, Example]

_RULE = re.compile(r"(?P<policy>\S+) rule (?P<number>\d+)")
_STEP = re.compile(r"([^.\[\]]+)|\[(\d+)\]")


class Explanation(msgspec.Struct, frozen=True, omit_defaults=True):
    """`told` is what happened, `why` it did; `object` and `field` decided ("": no object did), and said `value`.

    `changed`: what has become of that object since. `do` is what to do. `hops` is what each proxy saw of the request.
    """

    id: str
    time: float
    code: str
    told: str
    why: str
    object: str = ""
    field: str = ""
    value: str = ""
    changed: str = ""
    do: str = ""
    hops: tuple[Hop, ...] = ()

    @property
    def text(self) -> str:
        """All of it."""
        said = f"{self.told}: {self.why}."
        if self.object:
            value = f" ({self.value})" if self.value else ""
            said += f" Decided by {self.object}, {self.field}{value}." if self.field else f" It lies with {self.object}."
        if self.changed:
            said += f" {self.changed}."
        return f"{said} To do: {self.do}." if self.do else said


def deciding(hops: Sequence[Hop]) -> Hop:
    """The hop at which it was decided: where a proxy answered itself, the nearest to the application.

    Who lost its caller did not decide: a proxy before it gave up.
    """

    def rank(hop: Hop) -> tuple[bool, bool, bool, float]:
        shape, example = hop
        found = cause(example.details or shape.details, shape.flags, shape.code, example.why)
        own = found is not None and found is not APPLICATION
        return own and found is not LEFT, own, shape.reporter == "destination", example.time

    return max(hops, key=rank)


def explain(hops: Sequence[Hop], known: Known) -> Explanation:
    """Of one request, as the proxies on its way saw it (at least one); `known` is of the deciding one."""
    shape, example = deciding(hops)
    found = cause(example.details or shape.details, shape.flags, shape.code, example.why)
    told = _told(shape, example)
    ordered = tuple(sorted(hops, key=lambda hop: (hop[1].time, hop[0].reporter == "destination")))
    if found is None:
        why = f"nothing went wrong; {_answered(shape, known)}"
        return Explanation(example.id, example.time, shape.code, told, why, hops=ordered)
    words = _words(shape, example, known)
    object_, field = _decided(found, shape, known)
    why = found.why.format_map(words)
    if found is RETRIES and (last := _last_try(hops)):
        why += f": {last}"
    return Explanation(
        example.id, example.time, shape.code, told, why, object_, field, do=found.do.format_map(words), hops=ordered
    )


def _answered(shape: Shape, known: Known) -> str:
    return f"the application of {known.goal or shape.destination} answered"


def _last_try(hops: Sequence[Hop]) -> str:
    """What the proxies of the called say of the tries."""
    for shape, example in sorted(hops, key=lambda hop: -hop[1].time):
        if shape.reporter == "destination" or shape.details == "via_upstream":
            where = shape.destination or example.endpoint
            return f"{where} answered {shape.code}" + ("" if shape.details == "via_upstream" else f" ({shape.details})")
    return ""


def _told(shape: Shape, example: Example) -> str:
    at = f"at {_clock(example.time)} UTC"
    source = shape.source or example.address or "somebody"
    if shape.protocol == "tcp":
        return f"A connection of {source} to {shape.service or 'port'}:{shape.port} ended {at}{_tags(shape)}"
    what = f"{shape.method} http://{example.authority}{example.path}"
    code = f"{shape.code}, gRPC status {shape.grpc}," if shape.grpc not in ("", "0") else shape.code
    got = f"got {code}" if shape.code not in ("", "0") else "got no answer"
    return f"{what} of {source} {got} {at}{_tags(shape)}"


def _tags(shape: Shape) -> str:
    said = [one for one in (shape.flags, shape.details) if one]
    return f" ({', '.join(said)})" if said else ""


def _clock(time: float) -> str:
    seconds = int(time) % 86400
    return f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}"


class _Words(dict[str, str]):
    def __missing__(self, key: str) -> str:
        return ""


def _words(shape: Shape, example: Example, known: Known) -> Mapping[str, str]:
    why = example.why or example.details.partition("|")[2].rstrip("}")
    return _Words(
        goal=known.goal,
        caller=shape.source or example.proxy,
        destination=shape.destination or known.goal,
        endpoint=f"{known.place.workload} ({example.endpoint})"
        if known.place and known.place.workload
        else example.endpoint or "an endpoint",
        endpoints=_endpoints(known),
        authority=example.authority,
        method=shape.method or "connect",
        path=example.path,
        id=example.id,
        attempts=str(example.attempts or 1),
        milliseconds=f"{example.milliseconds:.0f} ms",
        timeout=f", after {example.milliseconds:.0f} ms",
        principal=shape.principal or "callers without mutual TLS",
        why=f": {why.replace('_', ' ').strip()}" if why else "",
        details=f" ({example.details.replace('_', ' ')})" if example.details else "",
        allows=f" (there are {', '.join(known.allows)})" if known.allows else "",
        problems=f": {'; '.join(known.problems)}" if known.problems else "",
    )


def _endpoints(known: Known) -> str:
    if not known.endpoints:
        return "it has none"
    ready = sum(place.healthy for place in known.endpoints)
    if ready:
        return f"it has {len(known.endpoints)} now, {ready} of them ready; then none was, or all had been taken out for failing"
    names = ", ".join(place.workload or place.address for place in known.endpoints)
    return f"it has {len(known.endpoints)} ({names}), and none is ready"


def _decided(found: Cause, shape: Shape, known: Known) -> tuple[str, str]:
    """The object that decided, and its field."""
    match found.by:
        case By.ROUTE:
            return _of_route(found, shape)
        case By.POLICY:
            return _of_policy(found, shape, known)
        case By.TOKENS:
            name, bracket, index = known.tokens[0].partition("[") if known.tokens else ("", "", "")
            return (f"RequestAuthentication {name}", f"spec.jwtRules{bracket}{index}") if name else ("", "")
        case By.AUTHORIZER:
            names = ", ".join(known.asks)
            return (f"AuthorizationPolicy {names}", "spec.provider") if names else _of_route(found, shape)
        case By.ENDPOINTS:
            if found.field and known.rule:
                return known.rule, found.field
            if known.place is not None and known.place.workload:
                return f"WorkloadEntry {known.place.workload}", ""
            return known.service, "spec.selector" if known.service.startswith("Service ") else ""
        case By.RULE:
            return (known.rule, found.field) if known.rule else ("", "")
        case By.APPLICATION:
            return (f"the application of {shape.destination}", "") if shape.destination else ("", "")
        case By.CALLER:
            return (f"the caller {shape.source}", "") if shape.source else ("", "")
    return "", ""


def _of_route(found: Cause, shape: Shape) -> tuple[str, str]:
    kind = shape.origin.partition(" ")[0]
    if not shape.origin or kind in ("Service", "ServiceEntry"):
        return shape.origin, ""
    below = found.field if kind == "VirtualService" else found.gateway_field
    return shape.origin, ".".join(filter(None, (shape.field, below)))


def _of_policy(found: Cause, shape: Shape, known: Known) -> tuple[str, str]:
    if named := _RULE.fullmatch(shape.policy):
        return f"AuthorizationPolicy {named['policy']}", f"spec.rules[{named['number']}]"
    if found is DENIED and known.allows:
        return f"AuthorizationPolicy {', '.join(known.allows)}", "spec.rules"
    return "", ""


def value_at(body: Mapping[str, Any], field: str) -> str:
    """What an object says in a field (`spec.http[0].timeout`), if it is short; "" where it says nothing."""
    at: Any = body
    for name, index in _STEP.findall(field):
        if index and isinstance(at, list) and int(index) < len(at):
            at = at[int(index)]
        elif name and isinstance(at, Mapping) and name in at:
            at = at[name]
        else:
            return ""
    if isinstance(at, str | int | float):
        return str(at)
    text = msgspec.json.encode(at).decode()
    return text if len(text) <= 200 else f"{text[:200]}…"
