"""Mirror first, as stories: copies of requests before any weight, and nothing of them left behind."""

from __future__ import annotations

import random
from typing import Any

import msgspec
import pytest

from tests.playbook.test_rollout import BAD, GOOD, SPEC, Story, planned
from tulle.api.own.rollout import RolloutSpec
from tulle.core.rollout.decide import PROMOTE
from tulle.core.rollout.plan import Plan, unsupported

NAME = "shop/reviews-v3"


class Mirroring(Story):
    """A route with copies; a look writes what is to be written, unless `late`."""

    def __init__(self, wanted: Plan | None = None) -> None:
        super().__init__(wanted or planned(mirror=True))
        self.copied = False

    def look(self, after: float = 0.0, **changes: Any) -> Mirroring:
        super().look(after, backend=NAME, mirrored=self.copied, **changes)
        if not self.late:
            self.copied = self.state.mirroring == "Wanted" or (self.copied and self.state.mirroring != "Unwanted")
        return self

    @property
    def traffic(self) -> tuple[int, bool]:
        return self.route, self.copied


def test_copies_first() -> None:
    """Broken: users would try the candidate before its copies have."""
    story = Mirroring().look()
    assert story.traffic == (0, False)
    assert story.look().traffic == (0, True)
    assert "copies of requests" in story.state.message
    assert story.look(1).look(5).traffic == (0, True)  # its interval begins once the copies are there
    assert story.look(5).traffic == (10, False)
    assert story.look(10).look(10).look().phase == ("Succeeded", 100)
    assert (story.state.mirror, story.state.mirroring, story.copied) == ("", "", False)


def test_a_candidate_that_fails_its_copies() -> None:
    """Broken: a candidate that fails would go on getting copies, or get users."""
    story = Mirroring().look().look().look().look(10, candidate=BAD).look(10)
    assert story.phase == ("Failed", 0)
    assert not story.copied
    assert story.look().state.mirroring == ""


@pytest.mark.parametrize("how", ["deleted", "promoted", "suspended", "refused"])
def test_taken_away_again_however_it_ends(how: str) -> None:
    """Broken: the candidate would get a copy of everything for ever."""
    story = Mirroring().look().look()
    assert story.copied
    match how:
        case "deleted":
            assert not story.look(deleted=True).over
            assert not story.copied
            assert story.look().over
        case "promoted":
            story.look(command=f"{PROMOTE} 1")
        case "suspended":
            story.plan = planned(mirror=True, suspend=True)
            story.look()
        case "refused":
            story.look(refused="no")
    assert not story.copied


def test_copies_of_somebody_else_stay() -> None:
    """Broken: a mirror that a person wrote would vanish with the rollout."""
    story = Mirroring()
    story.copied = True
    story.look().look().look(100)
    assert (story.phase, story.copied) == (("Waiting", 0), True)
    assert f"somebody else's; needed none to {NAME}" in story.state.message
    assert story.look(deleted=True).over
    assert story.copied


def test_copies_that_somebody_takes_away() -> None:
    """Broken: the rollout would write against a person."""
    story = Mirroring().look().look().look(1)
    story.copied = False
    assert story.look(1).phase == ("Paused", 0)
    assert "somebody else took the mirror away" in story.state.message
    assert not story.look(100).copied


@pytest.mark.parametrize("seed", range(100))
def test_a_crash_anywhere_leaves_no_copies(seed: int) -> None:
    """Broken: a control plane that dies between a decision and the route would leave copies, or users without copies before."""
    chance = random.Random(seed)
    story, seen = Mirroring(), []
    for _ in range(200):
        story.late = chance.random() < 0.5
        story.look(chance.choice((0, 1, 4)), candidate=BAD if chance.random() < 0.05 else GOOD)
        seen.append(story.traffic)
    first = next(number for number, (weight, _copied) in enumerate(seen) if weight or story.state.phase == "Failed")
    assert story.state.phase == "Failed" or any(copied for _weight, copied in seen[:first])
    story.late = False
    story.look().look()
    assert not story.copied


def test_where_there_is_no_mirror() -> None:
    """Broken: an A/B test would promise copies that it does not make; blue and green would have a step more than checks."""
    spec = {**SPEC, "strategy": "ABTest", "analysis": {"iterations": 1, "mirror": True, "match": [{}]}}
    spec["routeRef"] = {"name": "reviews", "sectionName": "testers"}
    assert [said.split(":")[0] for said in unsupported(RolloutSpec.model_validate(spec))] == ["spec.analysis.mirror"]
    wanted = planned(strategy="BlueGreen", stepWeights=None, iterations=2, mirror=True)
    assert (wanted.weights, wanted.mirrored, wanted.promoted) == ((0,), 1, 1)
    assert msgspec.structs.replace(planned(mirror=True)).weights == (0, 10, 50)
