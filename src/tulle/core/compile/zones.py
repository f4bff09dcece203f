"""Shares of the zones of a region: as much as possible stays in the caller's own, and no zone gets more than its part.

This is Envoy's zone-aware routing, computed here, where both the callers and the endpoints of each zone are known: a zone with
more callers than endpoints sends the rest to those where it is the other way round.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tulle.core.model.destination import Endpoint, Locality

# What all zones get together, to be parted finely among the places of each.
_WHOLE = 1_000_000
# With fewer endpoints, what one of them gets would depend too much on where it stands; Envoy's own number.
SMALLEST = 6


def by_zone(
    endpoints: Sequence[Endpoint], ranks: Sequence[int], here: Locality, callers: Mapping[str, int], minimum: int
) -> tuple[list[int], dict[Locality, int]]:
    """New ranks, in which what gets no share of the nearest comes right behind it; and the shares of all places.

    `ranks` are by region, or as labels say: zones are told apart among the nearest alone. `callers` are the proxies of the
    caller's region by zone, `minimum` the fewest endpoints for which it is done.
    """
    shares: dict[Locality, int] = {}
    for one in endpoints:
        shares[one.locality] = shares.get(one.locality, 0) + max(one.weight, 1)
    nearest = min(ranks, default=0)
    near = [one for one, rank in zip(endpoints, ranks, strict=True) if rank == nearest]
    parts = _parts(near, here.zone, callers) if here.zone and len(near) >= (minimum or SMALLEST) else {}
    if not parts:
        return list(ranks), shares
    weights: dict[Locality, int] = {}
    for one in near:
        weights[one.locality] = weights.get(one.locality, 0) + max(one.weight, 1)
    zones: dict[str, int] = {}
    for place, weight in weights.items():
        zones[place.zone] = zones.get(place.zone, 0) + weight
    shares |= {
        place: max(1, round(_WHOLE * parts[place.zone] * weight / zones[place.zone]))
        for place, weight in weights.items()
        if place.zone in parts
    }
    behind = [2 * rank + (rank == nearest and one.locality.zone not in parts) for one, rank in zip(endpoints, ranks, strict=True)]
    return behind, shares


def _parts(near: Sequence[Endpoint], mine: str, callers: Mapping[str, int]) -> dict[str, float]:
    """The part of each zone that gets one; none where the caller's zone has no endpoint."""
    total, asking = len(near), sum(callers.values())
    have = {zone: sum(one.locality.zone == zone for one in near) / total for zone in {one.locality.zone for one in near}}
    if mine not in have or not asking:
        return {}
    need = {zone: count / asking for zone, count in callers.items()}
    if have[mine] >= need.get(mine, 0):
        return {mine: 1.0}
    kept = have[mine] / need[mine]
    spare = {zone: part - need.get(zone, 0) for zone, part in have.items() if part > need.get(zone, 0)}
    rest = sum(spare.values())
    return {mine: kept, **{zone: (1 - kept) * part / rest for zone, part in sorted(spare.items())}}
