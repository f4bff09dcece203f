"""Limits of routes of the Gateway API: which rules have some, and which a proxy has to count.

At a gateway they stand where the route is attached. In the mesh (a Service as parent) they are counted by the sidecars of the
callers, who follow the route: each by itself, for nobody knows who will call.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from tulle.api.gateway.shared import GROUP_NAME
from tulle.api.own import RateLimit
from tulle.api.own.rate_limit import TargetRef
from tulle.core.compile.gateways import Served, served
from tulle.core.compile.hostname import Key
from tulle.core.compile.objects import ROUTES, listener_sets, parent_key, rate_limits
from tulle.core.compile.rate_limits import any_limits, asks_who_calls, limits_of
from tulle.core.flow import Fetch, table
from tulle.core.model.edge import Limits
from tulle.core.model.rate_limit import NO_ROUTES, Counting, Limit, RouteLimited, Unit
from tulle.core.model.route import UNCOUNTED, RouteCounters

KINDS = ("HTTPRoute", "GRPCRoute")

Target = tuple[str, Key, str]  # kind, route, rule ("": all)


def route_counters(fetch: Fetch, kind: str, key: Key, rule: str | None) -> RouteCounters:
    """Under which names the requests of a rule of a route are counted."""
    if not fetch(any_limits, None):
        return UNCOUNTED
    sections = {
        ref.section_name for one in fetch.rows(rate_limits, "target", (GROUP_NAME, kind, *key)) for ref in _refs(one, kind, key)
    }
    whole = _name((kind, key, "")) if None in sections else ""
    return RouteCounters(whole, _name((kind, key, rule)) if rule and rule in sections else "")


def _refs(row: RateLimit, kind: str, key: Key) -> Iterator[TargetRef]:
    return (ref for ref in row.spec.target_refs or () if (ref.group, ref.kind, ref.name) == (GROUP_NAME, kind, key[1]))


def _name(target: Target) -> str:
    kind, (namespace, name), rule = target
    return "/".join((kind, namespace, name, *((rule,) if rule else ())))


@table
def limited_routes(fetch: Fetch, _key: None) -> dict[Target, tuple[Key, ...]]:
    """The routes, and rules of routes, that RateLimits are for, with these."""
    found: dict[Target, list[Key]] = {}
    for key in fetch.keys(rate_limits):
        row = fetch(rate_limits, key)
        for ref in row.spec.target_refs or () if row else ():
            if ref.group == GROUP_NAME and ref.kind in KINDS:
                found.setdefault((ref.kind, (key[0], ref.name), ref.section_name or ""), []).append(key)
    return {target: tuple(keys) for target, keys in sorted(found.items())}


@table
def parents_of(fetch: Fetch, key: tuple[str, Key]) -> tuple[Key | None, ...]:
    """The Gateways to which a (kind, route) is attached; None among them: a Service is its parent."""
    kind, name = key
    row = fetch(ROUTES[kind], name)
    found: dict[Key | None, None] = {}
    for parent in row.spec.parent_refs if row else ():
        _group, called, *where = parent_key(parent, name[0])
        target = (where[0], where[1])
        if called == "ListenerSet":
            added = fetch(listener_sets, target)
            if added is not None:
                found[added.spec.parent_ref.namespace or target[0], added.spec.parent_ref.name] = None
        else:
            found[target if called == "Gateway" else None] = None
    return tuple(found)


def in_mesh(fetch: Fetch, kind: str, key: Key) -> bool:
    """Whether a route has a Service as parent."""
    found: tuple[Key | None, ...] | None = fetch(parents_of, (kind, key))
    return None in (found or ())


@table
def counted_in_mesh(fetch: Fetch, _key: None) -> bool:
    """Whether a limit is for a route of the mesh."""
    return any(in_mesh(fetch, *target[:2]) for target in fetch(limited_routes, None) or {})


@table
def mesh_limited(fetch: Fetch, _key: None) -> RouteLimited:
    """The limits of the routes of the mesh, as its sidecars count them."""
    return _limited(fetch, None)


@table
def gateway_limited(fetch: Fetch, key: Key) -> RouteLimited:
    """The limits of the routes that are attached to the Gateways of a gateway workload; the members are not yet known."""
    found = fetch(served, key) or Served()
    here = dict.fromkeys(one.gateway for one in (*found.bound, *(it.bound for it in found.tcp)) if not one.istio)
    return _limited(fetch, *here)


def _limited(fetch: Fetch, *parents: Key | None) -> RouteLimited:
    whole: dict[str, tuple[Limit, ...]] = {}
    rules: dict[str, tuple[Limit, ...]] = {}
    for target, keys in (fetch(limited_routes, None) or {}).items() if parents else ():
        its: tuple[Key | None, ...] = fetch(parents_of, target[:2]) or ()
        if not set(parents).intersection(its):
            continue
        limits = tuple(one for key in keys for one in fetch(limits_of, key) or () if one.unit is Unit.REQUESTS)
        if None in parents:
            limits = tuple(_by_itself(one) for one in limits if not asks_who_calls(one))
        if limits:
            (rules if target[2] else whole)[_name(target)] = limits
    return RouteLimited(whole, rules) if whole or rules else NO_ROUTES


def counted(limits: Limits, whether: bool | None) -> Limits:
    """The limits of a proxy whose routes have counters, or have none."""
    return msgspec.structs.replace(limits, counted=True) if whether else limits


def _by_itself(limit: Limit) -> Limit:
    shared = limit.counting is Counting.SHARED
    return msgspec.structs.replace(limit, counting=Counting.LOCAL) if shared else limit
