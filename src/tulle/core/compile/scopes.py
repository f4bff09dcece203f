"""What a Sidecar leaves of the mesh for those who follow it: the destinations and names that they are sent.

Where its `egress` names hosts, its followers have a layer of their own in the place of everybody's (see `layers`). In it is what
they see, as with Istio, and what the rules for that send requests to, wherever it is.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from tulle.core.compile.callers import Source, caller_labels
from tulle.core.compile.destinations import Place, places
from tulle.core.compile.egress import egress, egress_tables
from tulle.core.compile.guards import authorization
from tulle.core.compile.hostname import Key
from tulle.core.compile.hosts import virtual_host
from tulle.core.compile.outbound import (
    Pair,
    by_table_port,
    hidden_from,
    others,
    outbound,
    outbound_apart,
    own_tables,
    tables,
    unseen,
)
from tulle.core.compile.services import called, registry, service
from tulle.core.compile.sidecars import admits, narrows, sidecar_for, sidecar_of
from tulle.core.compile.workloads import workload
from tulle.core.flow import Fetch, table
from tulle.core.model.destination import DestinationKey
from tulle.core.model.route import RouteTableKey

Named = frozenset[DestinationKey]
_NOTHING: Named = frozenset()


def is_narrow(fetch: Fetch, source: Source) -> bool:
    """Whether callers are sent less than everything."""
    return narrows(sidecar_for(fetch, source.namespace, source.labels))


@table
def scope(fetch: Fetch, key: Key) -> Source | None:
    """As which callers a workload with a sidecar is sent less than everything; None: it is sent everything."""
    if not narrows(sidecar_of(fetch, key)):
        return None
    return Source(key[0], fetch(caller_labels, key) or ())


@table
def names_seen(fetch: Fetch, source: Source) -> tuple[Key, ...]:
    """The services of which callers know the name."""
    sidecar = sidecar_for(fetch, source.namespace, source.labels)
    hidden = fetch(unseen, source) or frozenset()
    apart = {key for one in fetch(egress, source) or () for key in one.services}
    found = []
    for key in fetch(registry, None) or ():
        row = fetch(service, key)
        if row is None:
            continue
        at_port = any((key, port.number) not in hidden for port in (*row.ports, *row.udp))
        portless = not row.ports and not row.udp and row.seen_from(source.namespace) and admits(sidecar, row, source.namespace)
        if at_port or key in apart or portless:
            found.append(key)
    return tuple(found)


@table
def places_seen(fetch: Fetch, source: Source) -> tuple[Place, ...]:
    """The destinations that callers are sent: of what they see, and of what the routes to that name and is exported to them."""
    hidden = fetch(unseen, source) or frozenset()
    seen = (place for key in fetch(names_seen, source) or () for place in fetch(places, key) or ())
    found = dict.fromkeys(place for place in seen if place[:2] not in hidden)
    foreign = fetch(hidden_from, source.namespace) or frozenset()
    by_rules = _places_of(fetch, fetch(named_by_rules, source) or _NOTHING)
    found.update(dict.fromkeys(place for place in by_rules if place[0] not in foreign))
    return tuple(found)


@table
def places_of_own(fetch: Fetch, key: Key) -> tuple[Place, ...]:
    """The destinations that the listeners of a sidecar, and the policies of any proxy, name: what these ask is called, too."""
    row = fetch(workload, key)
    found = set() if row is None or row.is_gateway else set(named(row))
    for guard in row.guards if row else ():
        found.update(named(fetch(authorization, (key, guard))))
    return tuple(_places_of(fetch, frozenset(found)))


def _places_of(fetch: Fetch, keys: Named) -> Iterator[Place]:
    """Those of them that are there."""
    for one in sorted(keys):
        target = called(fetch, one.hostname, "")
        place = (target, one.port, one.subset) if target else None
        if place and target and place in (fetch(places, target) or ()):
            yield place


@table
def named_by_rules(fetch: Fetch, source: Source) -> Named:
    """The destinations that the listeners and routes of callers name."""
    listeners = fetch(outbound_apart, source) if source.labels else fetch(outbound, source.namespace)
    found = set(named(listeners))
    hosts = fetch(by_table_port, source) or {}
    for where in fetch(tables, source) or ():
        found.update(named(fetch(others, where)))
        for host in hosts.get(where.port, ()):
            found |= _by_host(fetch, where, host)
    for where, host in fetch(own_tables, source) or ():
        found |= _by_host(fetch, where, host)
    for where, pairs in fetch(egress_tables, source) or ():
        for host in pairs:
            found |= _by_host(fetch, where, host)
    return frozenset(found)


def _by_host(fetch: Fetch, where: RouteTableKey, host: Pair) -> Named:
    found: Named | None = fetch(named_by_host, (where, *host))
    return found or _NOTHING


@table
def named_by_host(fetch: Fetch, key: tuple[RouteTableKey, Key, int]) -> Named:
    """The destinations that a virtual host names."""
    return frozenset(named(fetch(virtual_host, key)))


def named(row: Any) -> Iterator[DestinationKey]:
    """The destinations that a row of the model names, wherever in it."""
    if isinstance(row, DestinationKey):
        yield row
    elif isinstance(row, msgspec.Struct):
        for field in row.__struct_fields__:
            yield from named(getattr(row, field))
    elif isinstance(row, tuple):
        for one in row:
            yield from named(one)
