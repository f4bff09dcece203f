"""Where limits stand: for each workload, which of them at which of its ports or gateway sections; and who shares each."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import msgspec

from tulle.core.compile.endpoints import instance
from tulle.core.compile.gateways import Served, served
from tulle.core.compile.guards import place_name
from tulle.core.compile.hostname import Key
from tulle.core.compile.objects import rate_limits, selects, workload_entries
from tulle.core.compile.places import places
from tulle.core.compile.rate_limits import GATEWAY, SERVICE, any_limits, is_for, limits_of
from tulle.core.compile.route_limits import gateway_limited
from tulle.core.compile.services import service
from tulle.core.compile.workload_notes import labels_of
from tulle.core.compile.workload_services import services_of
from tulle.core.flow import Fetch, Input, table
from tulle.core.model.authorization import Attribute, Compare, Fact, Term
from tulle.core.model.gateway import GatewayChain, GatewayListener
from tulle.core.model.rate_limit import (
    NO_ROUTES,
    ROUTES,
    ConnectionCounter,
    ConnectionLimited,
    Costs,
    Counter,
    Counting,
    Limit,
    Limited,
    Price,
    RouteLimited,
    SharedLimit,
    Unit,
    price,
)

# What of a limit (by its id) a proxy (by its id) was given; above 0, and at most 1.
shares: Input[tuple[str, str], float] = Input("shares")

EVERYWHERE = ""

# Shared limits by id, how many proxies share each, and what a request costs there.
Prices = tuple[tuple[str, int, Price], ...]


@table
def limits_at(fetch: Fetch, key: Key) -> dict[str, tuple[Limit, ...]]:
    """The limits of a workload by the name of the place: a port, a section of a gateway there, or `EVERYWHERE`."""
    if not fetch(any_limits, None) or fetch(workload_entries, key) is None:
        return {}
    found: dict[str, dict[str, Limit]] = {}
    for name, limit in (*_selected(fetch, key), *_called(fetch, key), *_gateways(fetch, key)):
        before = found.setdefault(name, {}).get(limit.id)
        found[name][limit.id] = limit if before is None else _either(before, limit)
    return {name: tuple(limits.values()) for name, limits in found.items()}


def _selected(fetch: Fetch, key: Key) -> Iterator[tuple[str, Limit]]:
    """Of RateLimits that select the workload."""
    entry = fetch(workload_entries, key)
    labels = labels_of(entry) if entry else {}
    for index in ((key[0],), *((key[0], label, value) for label, value in sorted(labels.items()))):
        for one in fetch.keys(rate_limits, "target", index):
            row = fetch(rate_limits, one)
            if row and row.spec.selector and selects(row.spec.selector.match_labels, labels):
                yield from ((EVERYWHERE, limit) for limit in fetch(limits_of, one) or ())


def _called(fetch: Fetch, key: Key) -> Iterator[tuple[str, Limit]]:
    """Of those for the Services that call the workload, at the ports that these call."""
    here = fetch(instance, key)
    for one in fetch(services_of, key) or () if here else ():
        row = fetch(service, one)
        assert here is not None
        for index in fetch.keys(rate_limits, "target", (*SERVICE, *one)) if row and not row.entry else ():
            limited = fetch(rate_limits, index)
            refs = [ref for ref in (limited.spec.target_refs or () if limited else ()) if is_for(ref, SERVICE, one[1])]
            for port in row.ports if row else ():
                if any(ref.section_name in (None, port.name) for ref in refs):
                    yield from ((str(here.port(port)), limit) for limit in fetch(limits_of, index) or ())


def _gateways(fetch: Fetch, key: Key) -> Iterator[tuple[str, Limit]]:
    """Of those for the Gateways of the Gateway API that the workload serves, or for listeners of these."""
    found = fetch(served, key) or Served()
    for one in (*found.bound, *(it.bound for it in found.tcp)):
        if one.istio:
            continue
        place = place_name(one.port, one.section if one in found.bound else "")
        listener = (fetch(places, one.gateway) or ())[one.index]
        for index in fetch.keys(rate_limits, "target", (*GATEWAY, *one.gateway)):
            row = fetch(rate_limits, index)
            for ref in row.spec.target_refs or () if row else ():
                if not is_for(ref, GATEWAY, one.gateway[1]) or (ref.section_name and ref.section_name != listener.listener.name):
                    continue
                host = listener.listener.hostname if ref.section_name else None
                yield from ((place, _of_host(limit, host)) for limit in fetch(limits_of, index) or ())


def _of_host(limit: Limit, host: str | None) -> Limit:
    """A limit of what is for a host alone: other listeners may share the port."""
    if not host or limit.unit is not Unit.REQUESTS:
        return limit
    stem = host.removeprefix("*").replace(".", r"\.")
    pattern = f"{'.+' if host.startswith('*') else ''}{stem}(?::[0-9]+)?"
    term = Term((Fact(Attribute.HEADER, f"(?i){pattern}", Compare.REGEX, (":authority",)),))
    return msgspec.structs.replace(limit, matches=tuple((term, *one) for one in limit.matches or ((),)))


def _either(one: Limit, other: Limit) -> Limit:
    """A limit that came to a place twice: for what either is for."""
    if not one.matches or not other.matches:
        return msgspec.structs.replace(one, matches=())
    return msgspec.structs.replace(one, matches=tuple(dict.fromkeys((*one.matches, *other.matches))))


def requests_at(fetch: Fetch, key: Key, place: str) -> tuple[Limit, ...]:
    """The limits of requests at a place of a workload."""
    found = fetch(limits_at, key) or {}
    here = {limit.id: limit for limit in (*found.get(EVERYWHERE, ()), *found.get(place, ()))}
    return tuple(limit for limit in here.values() if limit.unit is Unit.REQUESTS)


def connections_at(fetch: Fetch, key: Key, place: str) -> tuple[ConnectionCounter, ...]:
    """What counts connections at a place of a workload."""
    found = fetch(limits_at, key) or {}
    here = {limit.id: limit for limit in (*found.get(EVERYWHERE, ()), *found.get(place, ()))}
    return tuple(ConnectionCounter(one.id, one.unit) for one in here.values() if one.unit is not Unit.REQUESTS)


@table
def connection_limited(fetch: Fetch, key: Key) -> ConnectionLimited | None:
    """The limits of a workload's connections."""
    here = {one.id: one for limits in (fetch(limits_at, key) or {}).values() for one in limits if one.unit is not Unit.REQUESTS}
    if not here:
        return None
    shared = (one for one in here.values() if one.counting is Counting.SHARED)
    return ConnectionLimited(tuple(here.values()), {one.id: len(_members(fetch, one)) for one in shared})


def counter(fetch: Fetch, key: Key, place: str) -> Counter | None:
    """What counts requests at a place of a workload; None where nothing does."""
    limits = requests_at(fetch, key, place)
    return Counter(place, any(one.counting is Counting.SHARED for one in limits)) if limits else None


@table
def limited(fetch: Fetch, key: tuple[Key, str]) -> Limited | None:
    """The limits of requests at a (workload, place)."""
    found = counter(fetch, *key)
    if found is None:
        return None
    limits = requests_at(fetch, *key)
    return Limited(found, limits, {one.id: len(_members(fetch, one)) for one in limits if one.counting is Counting.SHARED})


@table
def costs(fetch: Fetch, key: tuple[Key, str]) -> Costs | None:
    """What a request takes from each shared limit at a (workload, place)."""
    found = fetch(prices, key)
    return None if found is None else Costs(found[0], _costs(fetch, "/".join(key[0]), found[1]))


@table
def prices(fetch: Fetch, key: tuple[Key, str]) -> tuple[Counter, Prices] | None:
    """The shared limits at a (workload, place): what `costs` has not to find anew for every share that changes."""
    found = counter(fetch, *key)
    return (found, _prices(fetch, requests_at(fetch, *key))) if found is not None and found.shared else None


@table
def route_limited(fetch: Fetch, key: Key) -> RouteLimited | None:
    """The limits of the routes that a gateway workload has."""
    found = fetch(gateway_limited, key) or NO_ROUTES
    if found == NO_ROUTES:
        return None
    shared = [one for limits in found.all for one in limits if one.counting is Counting.SHARED]
    return msgspec.structs.replace(found, members={one.id: len(_members(fetch, one)) for one in shared})


@table
def route_costs(fetch: Fetch, key: Key) -> Costs | None:
    """What a request takes from each shared limit of the routes of a gateway workload."""
    found = fetch(route_prices, key)
    return None if found is None else Costs(ROUTES, _costs(fetch, "/".join(key), found))


@table
def route_prices(fetch: Fetch, key: Key) -> Prices | None:
    """The shared limits of the routes of a gateway workload."""
    found = fetch(gateway_limited, key) or NO_ROUTES
    return _prices(fetch, (one for limits in found.all for one in limits)) if found != NO_ROUTES else None


def _prices(fetch: Fetch, limits: Iterable[Limit]) -> Prices:
    shared = [(one, len(_members(fetch, one))) for one in limits if one.counting is Counting.SHARED]
    return tuple((one.id, members, price(one, members)) for one, members in shared)


def _costs(fetch: Fetch, proxy: str, found: Prices) -> dict[str, int]:
    return {rule: of.at(fetch(shares, (rule, proxy)) or 1 / members) for rule, members, of in found}


def _members(fetch: Fetch, limit: Limit) -> tuple[str, ...]:
    found: tuple[str, ...] | None = fetch(members_of, limit.id)
    return found or ("",)


@table
def members_of(fetch: Fetch, limit: str) -> tuple[str, ...]:
    """The proxies that share a limit."""
    return (fetch(sharing, None) or {}).get(limit, ())


@table
def sharing(fetch: Fetch, _key: None) -> dict[str, tuple[str, ...]]:
    """The proxies that share each limit."""
    found: dict[str, list[str]] = {}
    for role in ("sidecar", "gateway") if fetch(any_limits, None) else ():
        for key in fetch.keys(workload_entries, "role", role):
            for limit in fetch(shared_by, key) or ():
                found.setdefault(limit, []).append("/".join(key))
    return {limit: tuple(sorted(proxies)) for limit, proxies in found.items()}


@table
def shared_by(fetch: Fetch, key: Key) -> tuple[str, ...]:
    """The limits of which a workload's proxy has a share."""
    found = [*(fetch(limits_at, key) or {}).values(), *(fetch(gateway_limited, key) or NO_ROUTES).all]
    return tuple(sorted({one.id for limits in found for one in limits if one.counting is Counting.SHARED}))


@table
def shared_limits(fetch: Fetch, _key: None) -> tuple[SharedLimit, ...]:
    """All limits of requests that proxies share, with these."""
    found = [one for one in _all(fetch) if one.counting is Counting.SHARED and one.unit is Unit.REQUESTS]
    return tuple(SharedLimit(one, proxies) for one in found if (proxies := fetch(members_of, one.id)))


@table
def exact_limits(fetch: Fetch, _key: None) -> tuple[Limit, ...]:
    """All limits that the service counts."""
    return tuple(one for one in _all(fetch) if one.counting is Counting.EXACT)


def _all(fetch: Fetch) -> Iterator[Limit]:
    for key in fetch.keys(rate_limits):
        yield from fetch(limits_of, key) or ()


def counted_listeners(fetch: Fetch, key: Key, listeners: Iterable[GatewayListener]) -> Iterator[GatewayListener]:
    """The listeners of a gateway workload with what counts in each chain."""
    for listener in listeners:
        chains = tuple(_chain(fetch, key, listener.port, chain) for chain in listener.chains)
        rest = connections_at(fetch, key, place_name(listener.port)) if listener.routes else ()
        yield msgspec.structs.replace(listener, chains=chains, connections=rest)


def _chain(fetch: Fetch, key: Key, port: int, chain: GatewayChain) -> GatewayChain:
    place = place_name(port, chain.table.section if chain.table else "")
    requests = counter(fetch, key, place) if chain.table else None
    return msgspec.structs.replace(chain, counter=requests, connections=connections_at(fetch, key, place))
