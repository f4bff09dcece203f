"""The weights of both versions in a route: found, and written. Pure; nothing else of the route is touched.

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


def _splits(route: Body, sides: Sides, section: str) -> Iterator[tuple[list[Body], Body, Body]]:
    """The backends of each rule with both versions, and which of them these are."""
    of_istio = route["kind"] == "VirtualService"
    spec, namespace = route.get("spec") or {}, route["metadata"].get("namespace", "")
    matches = _destination if of_istio else _backend
    for rule in spec.get("http" if of_istio else "rules") or ():
        if section and rule.get("name") != section:
            continue
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
