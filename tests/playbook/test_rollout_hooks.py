"""Webhooks in roll-outs as stories: who is asked when, and what the answers do."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import msgspec
import pytest

from tests.playbook.test_rollout import BAD, FEW, GOOD, Story, planned
from tulle.core.rollout.decide import PROMOTE, Seen, State, decide, point
from tulle.core.rollout.hooks import Answer
from tulle.core.rollout.plan import Plan

YES, NO = Answer(True), Answer(False, "it answers 403")


def hooked(*types: str, **analysis: Any) -> Plan:
    """A webhook of each type, named as the type is."""
    return planned(webhooks=[{"name": kind, "type": kind, "url": "http://hook.test/"} for kind in types], **analysis)


class Asking(Story):
    """Whoever is asked answers at the next look, as `says` has it; without an entry not at all."""

    def __init__(self, wanted: Plan, **says: Answer) -> None:
        super().__init__(wanted)
        self.says = {name.replace("_", "-"): answer for name, answer in says.items()}
        self.asked: list[str] = []
        self._answers: dict[str, Answer] = {}
        self._point = ""

    def look(self, after: float = 0.0, **changes: Any) -> Asking:
        if self._point != point(self.state):
            self._answers, self._point = {}, point(self.state)
        super().look(after, answers=dict(self._answers), **changes)
        if self._point == point(self.state):
            for name in self.asks:
                self.asked.append(name)
                if name in self.says:
                    self._answers[name] = msgspec.structs.replace(self.says[name], at=self.now)
        return self

    def looks(self, times: int, after: float = 0.0, **changes: Any) -> Asking:
        for _ in range(times):
            self.look(after, **changes)
        return self


def test_nothing_begins_unconfirmed() -> None:
    """Broken: a release that needs somebody's word would begin at night without it."""
    story = Asking(hooked("confirm-rollout", "pre-rollout"), confirm_rollout=NO, pre_rollout=YES)
    assert story.looks(20, 1).phase == ("Waiting", 0)
    assert "webhook confirm-rollout (confirm-rollout): it answers 403" in story.state.message
    assert story.asked == ["confirm-rollout"] * 2  # again after an interval
    story.says["confirm-rollout"] = YES
    assert story.looks(12, 1).phase == ("Progressing", 10)
    assert Counter(story.asked)["pre-rollout"] == 1


def test_a_webhook_that_never_answers_holds_nothing_but_its_rollout() -> None:
    """Broken: silence would be taken for consent."""
    story = Asking(hooked("confirm-rollout")).looks(100, 1)
    assert story.phase == ("Waiting", 0)
    assert "waits for webhook confirm-rollout" in story.state.message


def test_tests_before_the_traffic() -> None:
    """Broken: a candidate that fails its own tests would get users."""
    story = Asking(hooked("confirm-rollout", "pre-rollout"), confirm_rollout=YES, pre_rollout=NO)
    assert story.looks(5, 1).phase == ("Waiting", 0)
    assert story.state.failed == 1
    assert story.looks(15, 1).phase == ("Failed", 0)
    assert Counter(story.asked) == {"confirm-rollout": 1, "pre-rollout": 2}


def test_a_webhook_that_checks_counts_as_a_measurement() -> None:
    """Broken: an acceptance test that fails at a step would not stop the release."""
    story = Asking(hooked("rollout", "load-test"), rollout=YES, load_test=NO)
    story.looks(4).looks(2, 10).look()
    assert story.phase == ("Progressing", 50)  # what makes load has no say
    assert Counter(story.asked)["load-test"] == 3  # at each step, and again after an interval
    story.says["rollout"] = NO
    story.looks(6, 10)
    assert story.phase == ("Failed", 0)
    assert "webhook rollout (rollout): it answers 403" in story.state.message


def test_bad_measurements_do_not_wait_for_webhooks() -> None:
    """Broken: a webhook that hangs would keep a bad release where it is."""
    story = Asking(hooked("rollout", "confirm-promotion"))
    story.looks(3)
    assert story.looks(4, 10, candidate=BAD).phase == ("Failed", 0)


def test_promotion_is_confirmed_and_measured_meanwhile() -> None:
    """Broken: all of the traffic would go to a release that nobody has approved, or that has broken while somebody thought."""
    story = Asking(hooked("confirm-promotion"), confirm_promotion=NO).looks(3).looks(40, 2)
    assert story.phase == ("Progressing", 50)
    assert story.state.failed == 0
    assert story.looks(20, 2, candidate=BAD).phase == ("Failed", 0)
    story = Asking(hooked("confirm-promotion"), confirm_promotion=NO).looks(3).looks(40, 2)
    story.says["confirm-promotion"] = YES
    assert story.looks(20, 2).phase == ("Succeeded", 100)
    story = Asking(hooked("confirm-promotion")).looks(3)
    assert story.look(command=f"{PROMOTE} 1").looks(3).phase == ("Succeeded", 100)


def test_each_increase_is_confirmed() -> None:
    """Broken: more users than somebody has agreed to would get the candidate."""
    story = Asking(hooked("confirm-traffic-increase")).looks(5)
    assert story.phase == ("Waiting", 0)
    story.says["confirm-traffic-increase"] = YES
    story = Asking(hooked("confirm-traffic-increase"), confirm_traffic_increase=YES).looks(4).looks(10, 5)
    assert story.phase == ("Succeeded", 100)
    assert story.asked == ["confirm-traffic-increase"] * 3


def test_somebody_outside_calls_it_back() -> None:
    """Broken: an alarm elsewhere could not stop a release whose own measurements are fine."""
    story = Asking(hooked("rollback"), rollback=NO).looks(3).looks(3, 10, candidate=FEW)
    assert story.phase == ("Progressing", 10)
    story.says["rollback"] = YES
    assert story.looks(3, 10).phase == ("Failed", 0)
    assert "webhook rollback (rollback) asks for it" in story.state.message


@pytest.mark.parametrize("answer", [YES, NO])
def test_the_end_is_told_once_and_changes_nothing(answer: Answer) -> None:
    """Broken: whatever cleans up after a release would run at each look, or undo it by failing."""
    story = Asking(hooked("post-rollout"), post_rollout=answer).looks(3).looks(20, 5)
    assert story.phase == ("Succeeded", 100)
    assert (story.asked, story.state.owed) == (["post-rollout"], False)
    story = Asking(hooked("post-rollout"), post_rollout=answer).looks(3).looks(20, 5, healthy=0)
    assert (story.phase, story.asked) == (("Failed", 0), ["post-rollout"])


@pytest.mark.parametrize("seed", range(100))
def test_a_crash_anywhere_asks_again_and_skips_nobody(seed: int) -> None:
    """Broken: a control plane that dies would go on without the confirmation that it was waiting for."""
    chance = random.Random(seed)
    kinds = "confirm-rollout", "pre-rollout", "rollout", "confirm-promotion", "post-rollout"
    story = Asking(hooked(*kinds), **{kind.replace("-", "_"): YES for kind in kinds})
    weights, orders = [0], []
    for _ in range(300):
        if chance.random() < 0.3:
            story._answers = {}  # forgotten: they were in memory
        story.late = chance.random() < 0.5
        asked = len(story.asked)
        story.look(chance.choice((0, 1, 4)))
        orders += story.asked[asked:]
        weights.append(story.state.weight)
    assert [weight for weight, before in zip(weights[1:], weights, strict=False) if weight != before] == [10, 50, 100]
    assert story.phase[0] == "Succeeded"
    assert not story.state.owed
    first = [orders.index(kind) for kind in kinds]
    assert first == sorted(first)


def test_nothing_is_asked_where_nothing_is_to_be_asked() -> None:
    """Broken: a rollout that is over, refused or suspended would go on calling people."""
    plan = hooked("confirm-rollout", "rollout", "load-test", "rollback")
    for state in (State(plan.identity, "Succeeded"), State(plan.identity, "Failed"), State(plan.identity, "Paused")):
        assert not decide(plan, state, Seen(0, healthy=1, stable=GOOD, candidate=GOOD), 1000.0).asks
    assert not decide(plan, State(), Seen(0, refused="no"), 1000.0).asks
