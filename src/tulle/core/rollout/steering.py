"""The weights of both versions in a route, and its copies of requests to the candidate: found, and written. Pure; nothing else of
the route is touched.

Routes are bodies as the API shows them: HTTPRoute, GRPCRoute (`rules[].backendRefs`) and VirtualService (`http[].route`).
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any, NamedTuple

import msgspec

from tulle.core.compile.hostname import Key, meanings
from tulle.core.rollout.plan import WHOLE

Body = dict[str, Any]


class Side(msgspec.Struct, frozen=True):
    """A version as routes name it: Services (namespace, name), and of VirtualServices subsets ("": none)."""

    services: tuple[Key, ...]
    subsets: tuple[str, ...] = ("",)


class Sides(msgspec.Struct, frozen=True):
    """Both versions."""

    stable: Side
    candidate: Side


class Found(NamedTuple):
    """The candidate's share in percent, or why there is none."""

    weight: int | None
    trouble: str = ""


def found(route: Body, sides: Sides, section: str = "", everywhere: bool = False) -> Found:
    """The candidate's share in the rules that have both versions, or in the one named `section`.

    Where they differ it is the largest, or, with `everywhere`, the smallest.
    """
    shares = [_share(route, stable, candidate) for _all, stable, candidate in _splits(route, sides, section)]
    if not shares:
        where = f"no rule {section!r} of it" if section else "no rule of it"
        trouble = (
            f"{route['kind']} {route['metadata']['name']}: {where} has both versions; needed "
            f"{_named(sides.stable)} and {_named(sides.candidate)} side by side, the candidate with weight 0"
        )
        return Found(None, trouble)
    return Found(min(shares) if everywhere else max(shares))


def steered(route: Body, sides: Sides, weight: int, section: str = "") -> Body:
    """The route in which the candidate has `weight` percent of what both have."""
    route = copy.deepcopy(route)
    for backends, stable, candidate in _splits(route, sides, section):
        total = _weight(route, stable) + _weight(route, candidate)
        if all(one is stable or one is candidate or not _weight(route, one) for one in backends) or not total:
            total = WHOLE
        elif total % WHOLE:  # others take a part, too: all weights are made larger, so that percents are whole
            for one in backends:
                one["weight"] = _weight(route, one) * WHOLE
            total *= WHOLE
        candidate["weight"] = total * weight // WHOLE
        stable["weight"] = total - candidate["weight"]
    return route


def candidate_of(route: Body, sides: Sides, section: str = "") -> str:
    """How the route names the candidate ("": nowhere beside the stable version)."""
    return next((_name(route, candidate) for _all, _stable, candidate in _splits(route, sides, section)), "")


def unmirrorable(route: Body, sides: Sides, section: str = "") -> str:
    """Why no copies can be written ("": they can be)."""
    older = route["kind"] == "VirtualService" and any(
        rule.get("mirror") and (not section or rule.get("name") == section) and any(_split(route, rule, sides))
        for rule in _rules(route)
    )
    name = route["metadata"]["name"]
    return f"VirtualService {name}: found mirror in a rule; needed mirrors, which may be several" if older else ""


def mirrors(route: Body, backend: str) -> bool:
    """Whether any rule copies requests to a backend."""
    return any(_name(route, one) == backend for rule in _rules(route) for one in _copied(route, rule))


def mirrored(route: Body, sides: Sides, share: int, section: str = "") -> Body:
    """The route whose rules with both versions copy `share` percent of their requests to the candidate."""
    route = copy.deepcopy(route)
    for rule in _rules(route):
        if section and rule.get("name") != section:
            continue
        for _all, _stable, candidate in _split(route, rule, sides):
            if route["kind"] == "VirtualService":
                entry: Body = {"destination": copy.deepcopy(candidate["destination"]), "percentage": {"value": share}}
                rule.setdefault("mirrors", []).append(entry)
            else:
                backend = {key: candidate[key] for key in ("group", "kind", "name", "namespace", "port") if key in candidate}
                mirror = {"backendRef": backend, "percent": share}
                rule.setdefault("filters", []).append({"type": "RequestMirror", "requestMirror": mirror})
    return route


def unmirrored(route: Body, backend: str) -> Body:
    """The route that copies no requests to a backend any more; other copies stay."""
    route = copy.deepcopy(route)
    of_istio = route["kind"] == "VirtualService"
    for rule in _rules(route):
        field = "mirrors" if of_istio else "filters"
        kept = [one for one in rule.get(field) or () if not any(_name(route, to) == backend for to in _copy(route, one))]
        if kept:
            rule[field] = kept
        elif rule.get(field):
            del rule[field]
    return route


def _copied(route: Body, rule: Body) -> Iterator[Body]:
    for one in rule.get("mirrors" if route["kind"] == "VirtualService" else "filters") or ():
        yield from _copy(route, one)


def _copy(route: Body, one: Body) -> Iterator[Body]:
    """To whom an entry (of `mirrors`, of `filters`) copies requests, as a backend."""
    if route["kind"] == "VirtualService":
        yield one
    elif one.get("type") == "RequestMirror":
        yield (one.get("requestMirror") or {}).get("backendRef") or {}


def _name(route: Body, one: Body) -> str:
    """A backend in a word, the same however it is written."""
    namespace = route["metadata"].get("namespace", "")
    if route["kind"] != "VirtualService":
        return f"{one.get('namespace') or namespace}/{one.get('name')}"
    destination = one.get("destination") or {}
    host = "/".join(next(iter(meanings(str(destination.get("host", "")), namespace)), ("", "")))
    return host + (f"/{destination['subset']}" if destination.get("subset") else "")


def _rules(route: Body) -> list[Body]:
    return (route.get("spec") or {}).get("http" if route["kind"] == "VirtualService" else "rules") or []


def _splits(route: Body, sides: Sides, section: str) -> Iterator[tuple[list[Body], Body, Body]]:
    """The backends of each rule with both versions, and which of them these are."""
    for rule in _rules(route):
        if not section or rule.get("name") == section:
            yield from _split(route, rule, sides)


def _split(route: Body, rule: Body, sides: Sides) -> Iterator[tuple[list[Body], Body, Body]]:
    of_istio = route["kind"] == "VirtualService"
    namespace = route["metadata"].get("namespace", "")
    matches = _destination if of_istio else _backend
    backends = rule.get("route" if of_istio else "backendRefs") or []
    stable = [one for one in backends if matches(one, namespace, sides.stable)]
    candidate = [one for one in backends if matches(one, namespace, sides.candidate)]
    if len(stable) == len(candidate) == 1 and stable[0] is not candidate[0]:
        yield backends, stable[0], candidate[0]


def _backend(one: Body, namespace: str, side: Side) -> bool:
    return (one.get("kind", "Service"), one.get("group", "")) == ("Service", "") and (
        (one.get("namespace") or namespace, one.get("name")) in side.services
    )


def _destination(one: Body, namespace: str, side: Side) -> bool:
    destination = one.get("destination") or {}
    keys = meanings(str(destination.get("host", "")), namespace)
    return any(key in side.services for key in keys) and str(destination.get("subset") or "") in side.subsets


def _weight(route: Body, one: Body) -> int:
    # What is not said is 1 in the Gateway API, and nothing beside others in a VirtualService.
    return int(one.get("weight", 0 if route["kind"] == "VirtualService" else 1))


def _share(route: Body, stable: Body, candidate: Body) -> int:
    weights = _weight(route, stable), _weight(route, candidate)
    return round(WHOLE * weights[1] / sum(weights)) if sum(weights) else 0


def _named(side: Side) -> str:
    names = [f"{name}" + (f" subset {subset}" if subset else "") for _space, name in side.services for subset in side.subsets]
    return " or ".join(names) or "a Service with these labels"
