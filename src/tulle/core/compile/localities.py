"""Endpoints as callers see them from where they stand: near ones first, or shares by place.

Where a rule says so (or how endpoints fail, as in Istio), the endpoints of a destination are no longer one resource for all but
one for each *standpoint*: a locality, and those labels of callers that some `failoverPriority` asks about. Callers at one
standpoint share a layer. Nobody else has a copy of anything.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from urllib.parse import quote, unquote

import msgspec

from tulle.core.compile.destination_rules import policy
from tulle.core.compile.destinations import Place, places
from tulle.core.compile.endpoints import endpoints, instances, locality_of, network_of
from tulle.core.compile.hostname import Key
from tulle.core.compile.network_gateways import bridged, networked, networks_differ
from tulle.core.compile.objects import REGION, SUBZONE, ZONE, destination_rules, workload_entries
from tulle.core.compile.services import called, registry
from tulle.core.compile.workload_notes import labels_of
from tulle.core.compile.zones import by_zone
from tulle.core.flow import Fetch, table
from tulle.core.model.destination import Endpoint, EndpointSet, Locality
from tulle.core.model.traffic import Localities

# A share of 1% as a locality's weight: fine enough to be parted among the localities of one pattern.
_SHARE = 10_000


class Standpoint(msgspec.Struct, frozen=True, order=True):
    """Where callers stand: their locality and network, and their labels that a `failoverPriority` names (sorted)."""

    locality: Locality = Locality()
    labels: tuple[tuple[str, str], ...] = ()
    network: str = ""

    @property
    def name(self) -> str:
        """As a text: `eu/north/a@dmz?app=web`."""
        place = "/".join(quote(part, safe="") for part in (self.locality.region, self.locality.zone, self.locality.subzone))
        place += f"@{quote(self.network, safe='')}" if self.network else ""
        labels = "&".join(f"{quote(key, safe='')}={quote(value, safe='')}" for key, value in self.labels)
        return f"{place}?{labels}" if labels else place


def standpoint_named(name: str) -> Standpoint:
    """The standpoint with that name."""
    place, _mark, labels = name.partition("?")
    place, _mark, network = place.partition("@")
    region, zone, subzone = (unquote(part) for part in place.split("/"))
    pairs = (pair.partition("=") for pair in labels.split("&") if pair)
    return Standpoint(
        Locality(region, zone, subzone), tuple((unquote(key), unquote(value)) for key, _mark, value in pairs), unquote(network)
    )


@table
def localities(fetch: Fetch, key: Place) -> Localities | None:
    """What a destination's endpoints have to do with places; None: nothing."""
    said = fetch(policy, key)
    return said.localities if said else None


@table
def local_places(fetch: Fetch, _key: None) -> tuple[Place, ...]:
    """The destinations whose endpoints depend on where the caller stands."""
    found: set[Place] = set()
    for rule_key in fetch.keys(destination_rules, "local", True):
        rule = fetch(destination_rules, rule_key)
        target = called(fetch, rule.spec.host, rule_key[0]) if rule and not rule.spec.host.startswith("*") else None
        for one in (target,) if target else fetch(registry, None) or ():
            found.update(place for place in fetch(places, one) or () if fetch(localities, place) is not None)
    for one in (fetch(registry, None) or ()) if fetch(networks_differ, None) else ():
        found.update(place for place in fetch(places, one) or () if fetch(networked, place))
    return tuple(sorted(found))


def is_local(fetch: Fetch, place: Place) -> bool:
    """Whether a destination's endpoints depend on where the caller stands."""
    if fetch(localities, place) is not None:
        return True
    there: bool | None = fetch(networked, place) if fetch(networks_differ, None) else False
    return bool(there)


@table
def asked_labels(fetch: Fetch, _key: None) -> tuple[str, ...]:
    """The labels of callers that some `failoverPriority` compares; those of places are known anyway."""
    said = (fetch(localities, place) for place in fetch(local_places, None) or ())
    names = {label for one in said if one for label in one.priority if "=" not in label}
    return tuple(sorted(names - {REGION, ZONE, SUBZONE}))


@table
def standpoint(fetch: Fetch, key: Key) -> Standpoint | None:
    """Where a workload stands; None where no destination asks."""
    entry = fetch(workload_entries, key)
    if entry is None or not fetch(local_places, None):
        return None
    labels = labels_of(entry)
    asked = fetch(asked_labels, None) or ()
    told = tuple((name, labels[name]) for name in asked if name in labels)
    return Standpoint(locality_of(entry), told, network_of(entry.spec) if fetch(networks_differ, None) else "")


@table
def standpoints(fetch: Fetch, _key: None) -> tuple[Standpoint, ...]:
    """All places at which proxies stand; none where no destination asks."""
    if not fetch(local_places, None):
        return ()
    proxies = (*fetch.keys(workload_entries, "role", "sidecar"), *fetch.keys(workload_entries, "role", "gateway"))
    return tuple(sorted({one for key in proxies if (one := fetch(standpoint, key)) is not None}))


@table
def callers_by_zone(fetch: Fetch, region: str) -> dict[str, int]:
    """How many proxies stand in each zone of a region."""
    keys = (*fetch.keys(workload_entries, "role", "sidecar"), *fetch.keys(workload_entries, "role", "gateway"))
    places = (locality_of(entry) for key in keys if (entry := fetch(workload_entries, key)))
    zones = sorted(one.zone for one in places if one.region == region)
    return {zone: zones.count(zone) for zone in dict.fromkeys(zones)}


@table
def endpoints_from(fetch: Fetch, key: tuple[Place, Standpoint]) -> EndpointSet | None:
    """The endpoints of a destination as callers at a standpoint see them."""
    place, here = key
    found = fetch(endpoints, place)
    return from_there(fetch, place, found, here, fetch(localities, place)) if found else None


def from_there(fetch: Fetch, place: Place, found: EndpointSet, here: Standpoint, said: Localities | None) -> EndpointSet:
    """The same of some endpoints under what a rule says of places."""
    found = bridged(fetch, found, here.network)
    if said is None:
        return found
    for source, to in said.distribute:
        if matches(here.locality, source):
            return _shared(found, dict(to))
    labels = {one.workload: one.labels for one in fetch(instances, place[0]) or ()} if said.priority else {}
    ranks = [_rank(one, here, said, labels.get(one.workload, {})) for one in found.endpoints]
    shares: dict[Locality, int] = {}
    if said.zone_aware:
        callers = fetch(callers_by_zone, here.locality.region) or {}
        ranks, shares = by_zone(found.endpoints, ranks, here.locality, callers, said.minimum)
    # Envoy wants priorities without gaps, from 0.
    order = {rank: priority for priority, rank in enumerate(sorted(set(ranks)))}
    ranked = (
        msgspec.structs.replace(one, priority=order[rank]) if order[rank] else one
        for one, rank in zip(found.endpoints, ranks, strict=True)
    )
    return EndpointSet(key=found.key, endpoints=tuple(ranked), shares=tuple(sorted(shares.items())))


def matches(locality: Locality, pattern: str) -> bool:
    """Whether a locality is in one of Istio's patterns: `eu`, `eu/*`, `eu/north/a`, `*`."""
    parts = (*pattern.split("/"), "", "", "")
    region, zone, subzone = parts[:3]
    return region in ("*", locality.region) and zone in ("*", "", locality.zone) and subzone in ("*", "", locality.subzone)


def _shared(found: EndpointSet, to: Mapping[str, int]) -> EndpointSet:
    """Only the endpoints in a place that gets a share; a pattern's share is parted by what its places weigh."""
    weights: dict[Locality, int] = {}
    for one in found.endpoints:
        weights[one.locality] = weights.get(one.locality, 0) + one.weight
    shares: dict[Locality, int] = {}
    # The more precise pattern has a place first.
    for pattern in sorted(to, key=lambda text: (text.count("*"), -text.count("/"), text)):
        mine = [place for place in weights if place not in shares and matches(place, pattern)]
        total = sum(weights[place] for place in mine)
        for place in mine:
            shares[place] = max(1, round(to[pattern] * _SHARE * weights[place] / total))
    return EndpointSet(
        key=found.key,
        endpoints=tuple(one for one in found.endpoints if one.locality in shares),
        shares=tuple(sorted(shares.items())),
    )


def _rank(one: Endpoint, here: Standpoint, said: Localities, labels: Mapping[str, str]) -> int:
    """How far away an endpoint is; lower is nearer."""
    if said.priority:
        return len(said.priority) - _shared_labels(said.priority, _all_labels(here), _of_endpoint(one, labels))
    mine, theirs = here.locality, one.locality
    if said.zone_aware and mine.region == theirs.region:
        return 0
    if mine.region != theirs.region:
        to = next((to for source, to in said.failover if source == mine.region), theirs.region)
        return 3 if to == theirs.region else 4
    if mine.zone != theirs.zone:
        return 2
    return 0 if mine.subzone == theirs.subzone else 1


def _shared_labels(names: Iterable[str], mine: Mapping[str, str], theirs: Mapping[str, str]) -> int:
    """How many labels, from the first on, agree."""
    count = 0
    for name in names:
        key, equals, value = name.partition("=")
        wanted = value if equals else mine.get(key)
        if wanted is None or theirs.get(key) != wanted:
            break
        count += 1
    return count


def _all_labels(here: Standpoint) -> dict[str, str]:
    return {**dict(here.labels), **_topology(here.locality)}


def _of_endpoint(one: Endpoint, labels: Mapping[str, str]) -> dict[str, str]:
    return {**labels, **_topology(one.locality)}


def _topology(locality: Locality) -> dict[str, str]:
    said = {REGION: locality.region, ZONE: locality.zone, SUBZONE: locality.subzone}
    return {name: value for name, value in said.items() if value}
