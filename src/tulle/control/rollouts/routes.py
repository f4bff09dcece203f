"""The route that a rollout steers, as it is read: how it names both versions, and how calls to them are told apart. Pure."""

from __future__ import annotations

from typing import Any, NamedTuple

from tulle.api.own import Rollout
from tulle.control.apiserver.target import Target
from tulle.control.telemetry.tally import Versions
from tulle.core.compile.rollout_versions import Asked
from tulle.core.rollout.steering import Side, Sides, candidate_of
from tulle.ports import Stored

Raw = dict[str, Any]

NOBODY = Side(())
NEITHER = Sides(NOBODY, NOBODY)


class Route(NamedTuple):
    """The route that is steered, and how it names both versions, and the candidate; `asked`: what these are made of."""

    target: Target
    revision: int
    body: Raw
    asked: tuple[Asked, Asked]
    sides: Sides
    versions: Versions
    backend: str


def read_route(namespace: str, one: Rollout, target: Target, stored: Stored) -> Route:
    """As it is stored; which Services and subsets are the versions is not known yet (`sided`)."""
    names = None if target.kind.kind == "VirtualService" else _backends(stored.body, namespace)
    stable, candidate = (
        Asked(namespace, one.spec.target_ref.name, version.version or "", version.service or "", names)
        for version in (one.spec.stable, one.spec.candidate)
    )
    return Route(target, stored.revision, stored.body, (stable, candidate), NEITHER, _versions(namespace, one, NEITHER), "")


def sided(route: Route, namespace: str, one: Rollout, sides: Sides) -> Route:
    """The route, of which it is known now what the versions are."""
    backend = candidate_of(route.body, sides, one.spec.route_ref.section_name or "")
    return route._replace(sides=sides, versions=_versions(namespace, one, sides), backend=backend)


def _backends(route: Raw, namespace: str) -> tuple[str, ...]:
    """The Services of the namespace that a route of the Gateway API names."""
    refs = [ref for rule in (route.get("spec") or {}).get("rules") or () for ref in rule.get("backendRefs") or ()]
    return tuple(sorted({str(ref.get("name")) for ref in refs if (ref.get("namespace") or namespace) == namespace}))


def _versions(namespace: str, one: Rollout, sides: Sides) -> Versions:
    """How calls to both versions are told apart."""
    stable, candidate = one.spec.stable, one.spec.candidate
    first, second = (frozenset("/".join(key) for key in side.services) for side in (sides.stable, sides.candidate))
    if stable.version and candidate.version:
        target = f"{namespace}/{one.spec.target_ref.name}"
        return Versions(first | {target}, second | {target}, stable.version, candidate.version)
    return Versions(first, second)
