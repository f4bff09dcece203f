"""What several control planes are told, and what the one that leads judges by, as stories: real tails, some answers lost."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from typing import Any

import msgspec
import pytest

from tulle.control.rollouts.gathering import PATH, Gathering, Tail
from tulle.control.telemetry.tally import Tallies, Versions
from tulle.core.model.calls import BOUNDS, Count, Edge

SHOP = frozenset({"default/shop"})
VERSIONS = Versions(SHOP, SHOP, "v1", "v2")


def calls(number: int, service: str = "shop", version: str = "v2") -> tuple[Edge, Count]:
    edge = Edge("source", destination_version=version, service=f"{service}.default.svc.cluster.local", code="200")
    return edge, Count(number, float(number), (number,) * len(BOUNDS))


class Planes:
    """Other control planes, by name, as the leader asks them; `silent` do not answer."""

    def __init__(self, *names: str) -> None:
        self.now = 1000.0
        self.tails = {name: Tail(lambda: self.now) for name in names}
        self.silent: set[str] = set()
        self.lost: set[str] = set()  # of these the answer does not arrive
        self.asked = 0
        self.tallies = Tallies()
        self.gathering = Gathering(self.tallies, self, lambda: self.now)

    @property
    def names(self) -> list[str]:
        return list(self.tails)

    async def each(self, path: str, question: Callable[[str], Any]) -> Mapping[str, Any]:
        assert path == PATH
        self.asked += 1
        found: dict[str, Any] = {}
        for name, tail in self.tails.items():
            asked = question(name)
            answer = None if name in self.silent else msgspec.to_builtins(tail.since(asked))
            found[name] = None if name in self.lost else answer
        return found

    def counted(self, begun: float = 0.0) -> int:
        return self.tallies.of("shop", VERSIONS, begun).traffic(candidate=True).requests


async def test_the_leader_counts_what_all_nodes_report() -> None:
    """Broken: a release that fails for the callers of another control plane's nodes would be promoted."""
    planes = Planes("b", "c")
    assert planes.counted() == 0
    await planes.gathering.once()
    planes.tails["b"].add(0, [calls(3), calls(100, "other"), calls(50, version="v1")])
    planes.tails["c"].add(0, [calls(4)])
    planes.tallies.add(planes.now, [calls(5)])
    planes.now += 1
    await planes.gathering.once()
    await planes.gathering.once()
    assert planes.counted() == 12
    assert planes.gathering.told() == {"b": 1001.0, "c": 1001.0}
    assert planes.tallies.heard == 1000.0


async def test_calls_of_before_it_began_are_not_counted() -> None:
    """Broken: a release would be judged by what the one before did, which nodes tell late, and other control planes later."""
    planes = Planes("b")
    assert planes.counted(begun=1003.0) == 0
    await planes.gathering.once()
    planes.now = 1004.0
    planes.tails["b"].add(0, [calls(100)], 2.0)
    planes.tallies.add(planes.now, [calls(200)], 1.5)
    planes.now = 1005.0
    planes.tails["b"].add(0, [calls(3)], 1.0)
    planes.tallies.add(planes.now, [calls(5)], 2.0)
    planes.now = 1006.0
    await planes.gathering.once()
    assert planes.counted() == 8
    planes.tallies.forget("shop", 1007.0)
    planes.tallies.add(1008.0, [calls(7)], 2.0)
    assert planes.counted() == 0


async def test_who_does_not_answer_is_known_not_to() -> None:
    """Broken: silence would be taken for a quiet service."""
    planes = Planes("b", "c")
    planes.counted()
    await planes.gathering.once()
    planes.silent.add("b")
    planes.tails["b"].add(0, [calls(3)])
    planes.now += 5
    await planes.gathering.once()
    assert planes.gathering.told() == {"b": 1000.0, "c": 1005.0}
    planes.silent.clear()
    await planes.gathering.once()
    assert planes.counted() == 3  # what was reported meanwhile was kept
    planes.tails["b"] = Tail(lambda: planes.now)  # it was started anew
    planes.tails["b"].add(0, [calls(7)])
    await planes.gathering.once()
    planes.tails["b"].add(0, [calls(2)])
    await planes.gathering.once()
    assert planes.counted() == 5
    planes.tails["d"] = Tail(lambda: planes.now)
    assert planes.gathering.told()["d"] == 0.0


async def test_nothing_is_asked_or_kept_for_nothing() -> None:
    """Broken: control planes would talk, and keep calls, while nothing is rolled out."""
    planes = Planes("b")
    await planes.gathering.once()
    assert planes.asked == 0
    planes.counted()
    await planes.gathering.once()
    planes.tails["b"].add(0, [calls(3)])
    assert len(planes.tails["b"]._rows) == 1
    planes.now += 61  # nobody has asked for long
    planes.tails["b"].add(0, [calls(3)])
    assert not planes.tails["b"]._rows


@pytest.mark.parametrize("seed", range(50))
async def test_nothing_is_lost_or_counted_twice(seed: int) -> None:
    """Broken: an answer that is lost on its way would hide failures, or count them twice."""
    chance = random.Random(seed)
    planes, told = Planes("b", "c"), 0
    planes.counted()
    await planes.gathering.once()
    for _ in range(100):
        planes.now += chance.random()
        name = chance.choice(("b", "c"))
        number = chance.randrange(1, 9)
        planes.tails[name].add(0, [calls(number)])
        told += number
        planes.silent = {one for one in planes.tails if chance.random() < 0.2}
        planes.lost = {one for one in planes.tails if chance.random() < 0.2}
        await planes.gathering.once()
    planes.silent, planes.lost = set(), set()
    await planes.gathering.once()
    assert planes.counted() == told
