"""Zone-aware shares: what stays in the caller's zone, and where the rest goes."""

from __future__ import annotations

from collections import Counter

import pytest

from tulle.core.compile.zones import by_zone
from tulle.core.model.destination import Endpoint, Locality


def endpoints(**zones: int) -> list[Endpoint]:
    return [
        Endpoint(f"10.0.{number}.{index}", 80, locality=Locality("eu", zone))
        for number, (zone, count) in enumerate(zones.items())
        for index in range(count)
    ]


def shared(have: dict[str, int], callers: dict[str, int], here: str = "a", minimum: int = 1) -> tuple[dict[str, float], set[str]]:
    """The part of each zone of the first rank, and the zones behind it."""
    all_ = endpoints(**have)
    ranks, shares = by_zone(all_, [0] * len(all_), Locality("eu", here), callers, minimum)
    first = {one.locality.zone for one, rank in zip(all_, ranks, strict=True) if rank == 0}
    total = sum(weight for place, weight in shares.items() if place.zone in first)
    parts = {place.zone: round(weight / total, 3) for place, weight in sorted(shares.items()) if place.zone in first}
    return parts, {one.locality.zone for one in all_} - first


@pytest.mark.parametrize(
    ("have", "callers", "parts", "behind"),
    [
        ({"a": 2, "b": 2}, {"a": 1, "b": 1}, {"a": 1.0}, {"b"}),
        ({"a": 1, "b": 3}, {"a": 1, "b": 1}, {"a": 0.5, "b": 0.5}, set()),
        ({"a": 1, "b": 4, "c": 5}, {"a": 4, "b": 4, "c": 2}, {"a": 0.25, "c": 0.75}, {"b"}),
        ({"b": 3, "c": 1}, {"a": 1}, {"b": 0.75, "c": 0.25}, set()),
        ({"a": 1, "b": 3}, {}, {"a": 0.25, "b": 0.75}, set()),
    ],
)
def test_parts(have: dict[str, int], callers: dict[str, int], parts: dict[str, float], behind: set[str]) -> None:
    """Broken: requests would leave their zone without need, or one zone's endpoints get more than their part."""
    assert shared(have, callers) == (parts, behind)


def test_no_zone_gets_more_than_its_part() -> None:
    """Broken: what several zones' callers send together would overload the endpoints of one."""
    have, callers = {"a": 2, "b": 5, "c": 3}, {"a": 5, "b": 3, "c": 2}
    got: Counter[str] = Counter()
    for zone, count in callers.items():
        for to, part in shared(have, callers, zone)[0].items():
            got[to] += count * part  # type: ignore[assignment]
    assert {zone: round(requests, 2) for zone, requests in got.items()} == {"a": 2.0, "b": 5.0, "c": 3.0}


def test_too_few_endpoints_are_shared_evenly() -> None:
    """Broken: one endpoint in the caller's zone would get all its requests, however few there are in all."""
    assert shared({"a": 1, "b": 1}, {"a": 1}, minimum=3) == ({"a": 0.5, "b": 0.5}, set())
