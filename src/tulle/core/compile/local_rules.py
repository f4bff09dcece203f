"""What DestinationRules for some callers say of places → the endpoints as these see them, from where they stand.

Such callers have the endpoints of those destinations for themselves, in a layer for each standpoint (`near/...`).
"""

from __future__ import annotations

from tulle.core.compile.caller_rules import own_source, places_apart
from tulle.core.compile.callers import Source
from tulle.core.compile.destination_rules import policy_of
from tulle.core.compile.destinations import Place, is_private
from tulle.core.compile.endpoints import endpoints_of, is_meant_otherwise, locality_of, network_of
from tulle.core.compile.hostname import Key
from tulle.core.compile.localities import Standpoint, from_there, localities
from tulle.core.compile.network_gateways import networks_differ
from tulle.core.compile.objects import REGION, SUBZONE, ZONE, workload_entries
from tulle.core.compile.workload_notes import labels_of
from tulle.core.flow import Fetch, table
from tulle.core.model.destination import EndpointSet
from tulle.core.model.traffic import Localities


def _own(fetch: Fetch, place: Place, source: Source) -> Localities | None:
    said = fetch(policy_of, (place, source))
    return said.localities if said else None


@table
def local_places_of(fetch: Fetch, source: Source) -> tuple[Place, ...]:
    """The destinations whose endpoints callers see otherwise than everybody at their place."""
    apart = fetch(places_apart, source) or ()
    return tuple(place for place in apart if _differs(fetch, place, source))


def _differs(fetch: Fetch, place: Place, source: Source) -> bool:
    own = _own(fetch, place, source)
    if has_own_endpoints(fetch, place, source):
        return own is not None or _crosses(fetch, place, source)
    return own != fetch(localities, place)


def _crosses(fetch: Fetch, place: Place, source: Source) -> bool:
    """Whether callers' own endpoints say a network."""
    found = fetch(endpoints_of, (place, source)) if fetch(networks_differ, None) else None
    return found is not None and any(one.network for one in found.endpoints)


def has_own_endpoints(fetch: Fetch, place: Place, source: Source) -> bool:
    """Whether what everybody has there is not theirs: nobody else has the subset, or others mean other workloads by it."""
    return is_private(fetch, place) or is_meant_otherwise(fetch, place, source)


@table
def own_standpoint(fetch: Fetch, key: Key) -> tuple[Source, Standpoint] | None:
    """As whom, and from where, a workload sees endpoints of its own; None where it sees what all see."""
    source = fetch(own_source, key)
    there = (fetch(local_places_of, source) or ()) if source else ()
    entry = fetch(workload_entries, key) if there else None  # so that without such rules nothing depends on who it is
    if source is None or entry is None:
        return None
    asked = {name for place in there if (said := _own(fetch, place, source)) for name in said.priority if "=" not in name}
    labels = labels_of(entry)
    told = sorted(asked - {REGION, ZONE, SUBZONE})
    pairs = tuple((name, labels[name]) for name in told if name in labels)
    return source, Standpoint(locality_of(entry), pairs, network_of(entry.spec))


@table
def own_standpoints(fetch: Fetch, _key: None) -> tuple[tuple[Source, Standpoint], ...]:
    """All such."""
    proxies = (*fetch.keys(workload_entries, "role", "sidecar"), *fetch.keys(workload_entries, "role", "gateway"))
    return tuple(sorted({found for key in proxies if (found := fetch(own_standpoint, key))}))


@table
def endpoints_apart(fetch: Fetch, key: tuple[Place, Source, Standpoint]) -> EndpointSet | None:
    """The endpoints of a destination as some callers see them from where they stand."""
    place, source, here = key
    found = fetch(endpoints_of, (place, source))
    return from_there(fetch, place, found, here, _own(fetch, place, source)) if found else None
