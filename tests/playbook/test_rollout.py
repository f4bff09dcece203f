"""Roll-outs as stories: what is seen, and what is decided."""

from __future__ import annotations

import random
from typing import Any

import msgspec
import pytest

from tulle.api.own.rollout import RolloutSpec
from tulle.core.model.calls import BOUNDS
from tulle.core.rollout.decide import ABORT, PROMOTE, RESUME, Note, Seen, State, decide
from tulle.core.rollout.judge import Traffic, judge
from tulle.core.rollout.plan import Check, Plan, plan, unsupported

SPEC: dict[str, Any] = {
    "targetRef": {"name": "reviews"},
    "stable": {"version": "v2"},
    "candidate": {"version": "v3"},
    "routeRef": {"name": "reviews"},
    "analysis": {
        "interval": "10s",
        "threshold": 2,
        "stepWeights": [10, 50],
        "metrics": [{"name": "request-success-rate", "thresholdRange": {"min": 99}}],
    },
}
GOOD, BAD, FEW = Traffic(100, 0), Traffic(100, 20), Traffic(3, 3)


def planned(**analysis: Any) -> Plan:
    own: dict[str, Any] = {key: analysis.pop(key) for key in ("strategy", "suspend", "progressDeadline") if key in analysis}
    spec = {**SPEC, **own}
    return plan(RolloutSpec.model_validate({**spec, "analysis": {**SPEC["analysis"], **analysis}}))


class Story:
    """A rollout whose weights are written at once, unless `late`, and whose clock goes on by hand."""

    def __init__(self, wanted: Plan | None = None) -> None:
        self.plan, self.state, self.now, self.route = wanted or planned(), State(), 1000.0, 0
        self.notes: list[Note] = []
        self.over = self.late = False
        self.asks: tuple[str, ...] = ()
        self.queries: tuple[str, ...] = ()
        self.seen = Seen(0, healthy=1, stable=GOOD, candidate=GOOD)

    def look(self, after: float = 0.0, **changes: Any) -> Story:
        self.now += after
        self.seen = msgspec.structs.replace(self.seen, heard=self.now, **changes)
        found = decide(self.plan, self.state, msgspec.structs.replace(self.seen, weight=self.route), self.now)
        self.asks, self.queries = found.asks, found.queries
        self.state, self.over = found.state, found.over
        self.notes += found.notes
        if not self.late and self.route == self.state.was:
            self.route = self.state.weight
        return self

    @property
    def phase(self) -> tuple[str, int]:
        return self.state.phase, self.route


def begun(wanted: Plan | None = None) -> Story:
    """In its first step."""
    return Story(wanted).look().look()


def test_a_good_candidate_gets_all_of_the_traffic() -> None:
    """Broken: a release that is fine would never be through, or skip the steps that protect it."""
    story = Story()
    assert story.look().phase == ("Waiting", 0)
    assert story.look().phase == ("Progressing", 10)
    assert story.look(5).phase == ("Progressing", 10)
    assert story.look(5).phase == ("Progressing", 50)
    assert story.look(10).phase == ("Finalising", 100)
    assert story.look().phase == ("Succeeded", 100)
    assert [note.reason for note in story.notes] == ["Started", "Progressing", "Progressing", "Promoted", "Succeeded"]
    assert story.look(1000).phase == ("Succeeded", 100)


def test_a_candidate_that_fails_loses_its_traffic() -> None:
    """Broken: users would keep getting errors from a release that everybody can see is bad."""
    story = begun().look(10, candidate=BAD)
    assert story.phase == ("Progressing", 10)
    assert story.state.failed == 1
    story.look(10)
    assert story.phase == ("Failed", 0)
    assert "80%; needed at least 99%" in story.state.message
    assert story.notes[-1].bad
    assert story.look(1000, candidate=GOOD).phase == ("Failed", 0)


def test_a_quiet_candidate_is_not_judged() -> None:
    """Broken: three requests in the night would promote a release, or condemn it."""
    story = begun().look(100, candidate=FEW)
    assert story.phase == ("Progressing", 10)
    assert "the candidate has 3 of 10 requests" in story.state.message
    assert story.look(1, candidate=GOOD).phase == ("Progressing", 50)


def test_a_candidate_without_instances() -> None:
    """Broken: traffic would go to a version that has crashed, until so many checks have failed."""
    assert Story().look().look(50, healthy=0).phase == ("Waiting", 0)
    assert begun().look(0.5, healthy=0).phase == ("Failed", 0)


def test_telemetry_that_vanishes_is_no_good_sign() -> None:
    """Broken: a release would go on, or stay half done, with nobody knowing how it does."""
    story = begun()
    story.seen = msgspec.structs.replace(story.seen, candidate=Traffic(), stable=Traffic())
    silent = msgspec.structs.replace(story.seen, weight=10, heard=story.now)
    assert decide(story.plan, story.state, silent, story.now + 29).state.phase == "Progressing"
    assert decide(story.plan, story.state, silent, story.now + 31).state.phase == "Failed"


def test_who_begins_to_look_has_heard_nothing_yet() -> None:
    """Broken: each start of a control plane, or change of the leader, would take quiet releases back."""
    story = begun().look(100, candidate=FEW)
    for others in ({}, {"b": 0.0}):
        anew = msgspec.structs.replace(story.seen, weight=10, heard=0.0, since=story.now, others=others)
        assert decide(story.plan, story.state, anew, story.now + 29).state.phase == "Progressing"
        assert decide(story.plan, story.state, anew, story.now + 31).state.phase == "Failed"


def test_paused_by_hand_and_resumed() -> None:
    """Broken: a release that somebody has stopped in doubt would keep its users."""
    story = begun().look(10)
    story.plan = planned(suspend=True)
    assert story.look().phase == ("Paused", 0)
    assert story.look(1000).phase == ("Paused", 0)
    story.plan = planned()
    assert story.look().phase == ("Waiting", 0)
    assert story.look().phase == ("Progressing", 10)


def test_deleted_half_way() -> None:
    """Broken: who deletes the object would leave the candidate's share standing for ever, or the object could not go."""
    story = begun().look(0, deleted=True)
    assert story.phase == ("Terminating", 0)
    assert story.state.message == "deleted: all of the traffic goes to the stable version"
    assert not story.look(1).over  # a proxy has not said yet that it has it
    assert story.look(1, acknowledged=True).over
    assert begun().look(0, deleted=True).look(10).over  # one that never answers holds nothing
    done = begun().look(10).look(10).look().look(0, deleted=True)
    assert (done.phase, done.over) == (("Succeeded", 100), True)


def test_weights_of_another_hand_are_respected() -> None:
    """Broken: a person at an incident and the rollout would write against each other."""
    story = begun()
    story.route = 33
    assert story.look(1).phase == ("Paused", 33)
    assert "33% where 10% was written" in story.state.message
    assert story.look(1000).phase == ("Paused", 33)
    assert story.look(0, command=f"{RESUME} 1").phase == ("Waiting", 0)
    assert story.look(0).phase == ("Progressing", 10)


def test_what_people_ask_for() -> None:
    """Broken: `tulle rollout promote` and `abort` would do nothing, or be done again at each look."""
    assert begun().look(0, command=f"{PROMOTE} 1").look().phase == ("Succeeded", 100)
    story = begun().look(0, command=f"{ABORT} 1")
    assert story.phase == ("Failed", 0)
    assert story.look().phase == ("Failed", 0)
    assert story.look(0, command=f"{RESUME} 2").look().phase == ("Progressing", 10)
    assert story.look(1).state.answered == f"{RESUME} 2"


def test_a_deadline() -> None:
    """Broken: a release that never gets enough requests would stay half done."""
    story = begun(planned(progressDeadline="60s"))
    assert story.look(59, candidate=FEW).phase == ("Progressing", 10)
    assert story.look(2).phase == ("Failed", 0)


def test_blue_green_and_promotion_in_steps() -> None:
    """Broken: a strategy would not be what it is called."""
    wanted = planned(strategy="BlueGreen", stepWeights=None, iterations=2, metrics=[])
    story = begun(wanted)
    assert story.phase == ("Progressing", 0)
    assert story.look(10).phase == ("Progressing", 0)
    assert story.look(10).look().phase == ("Succeeded", 100)
    assert planned(stepWeights=None, stepWeight=20, maxWeight=50, stepWeightPromotion=30).weights == (20, 40, 50, 80)


def test_another_change_begins_anew() -> None:
    """Broken: the next release would be taken for the last one, which has succeeded."""
    story = begun().look(10).look(10).look()
    other = RolloutSpec.model_validate({**SPEC, "stable": {"version": "v3"}, "candidate": {"version": "v4"}})
    story.plan, story.route = plan(other), 0
    assert story.look().phase == ("Waiting", 0)


def test_a_clock_that_goes_back() -> None:
    """Broken: after a correction of the clock a step would last for hours, or not at all."""
    story = begun().look(-500)
    assert story.look(9).phase == ("Progressing", 10)
    assert story.look(2).phase == ("Progressing", 50)


def test_how_long_a_roll_back_took_is_told() -> None:
    """Broken: nobody would know for how long users had the errors of a release, or whether some still have them."""
    story = begun().look(10, candidate=BAD).look(10).look(0.25)
    assert story.phase == ("Failed", 0)
    assert (story.state.bad, story.state.turned, story.state.acknowledged) == (1010.0, 1020.0, 0.0)
    story.look(0.25, acknowledged=True)
    assert story.notes[-1].reason == "Acknowledged"
    assert story.state.message.endswith("; every proxy had it 0.50 s later, 10.50 s after the first bad window")
    assert story.look(5).state.acknowledged == 1020.5
    assert [note.reason for note in story.notes].count("Acknowledged") == 1
    at_once = begun().look(1, healthy=0).look(0.1, acknowledged=True)
    assert at_once.state.message.endswith("; every proxy had it 0.10 s later")
    story.look(1, command=f"{RESUME} 1", acknowledged=False)
    assert (story.state.bad, story.state.turned, story.state.acknowledged) == (0.0, 0.0, 0.0)


def test_a_roll_back_that_takes_nothing_away_has_no_time() -> None:
    """Broken: people would read of a roll-back where the candidate never had any traffic."""
    story = Story(planned(suspend=True)).look().look(1, acknowledged=True)
    assert (story.phase, story.state.turned) == (("Paused", 0), 0.0)
    assert [note.reason for note in story.notes] == ["Paused"]


def test_what_others_have_not_told_is_waited_for() -> None:
    """Broken: a release would be promoted by what half of the nodes report, or stay half done unseen."""
    story = begun().look(10, others={"b": 1009.9})
    assert story.phase == ("Progressing", 10)
    assert story.state.message == "waits for what the nodes of control plane b report"
    assert story.look(0.5, others={"b": 1010.0}).phase == ("Progressing", 50)
    # What is known to be bad is bad.
    assert begun().look(10, others={"b": 0.0}, candidate=BAD).look(10).phase == ("Failed", 0)
    story = begun().look(29, others={"b": 0.0})
    assert story.phase == ("Progressing", 10)
    assert story.look(2).phase == ("Failed", 0)
    assert "telemetry has vanished: control plane b does not tell what its nodes report" in story.state.message
    assert begun().look(10, others={}).phase == ("Progressing", 50)


def test_a_suspended_rollout_is_not_promoted() -> None:
    """Broken: all of the traffic would go to the candidate for a moment, and back."""
    story = begun().look(1)
    story.plan = planned(suspend=True)
    story.look().look(0, command=f"{PROMOTE} 1")
    assert story.phase == ("Paused", 0)
    assert "it is suspended, so it is not promoted" in story.state.message
    assert story.look(1).phase == ("Paused", 0)


@pytest.mark.parametrize("seed", range(200))
def test_a_crash_anywhere_neither_skips_nor_repeats(seed: int) -> None:
    """Broken: a control plane that dies between a decision and its weight would leave traffic where nobody wanted it."""
    chance = random.Random(seed)
    story, weights = Story(), [0]
    for _ in range(200):
        story.late = chance.random() < 0.5  # decided and written down; the weight is not written yet
        story.look(chance.choice((0, 1, 4)), candidate=BAD if chance.random() < 0.05 else GOOD)
        weights.append(story.state.weight)
        assert story.route in (story.state.was, story.state.weight)
    steps = [weight for weight, before in zip(weights[1:], weights, strict=False) if weight != before]
    assert steps in ([10], [10, 50], [10, 50, 100], [10, 0], [10, 50, 0])
    story.late = False
    story.look().look()
    assert story.route == story.state.weight


def test_comparison_is_a_test_of_chance() -> None:
    """Broken: a candidate would be condemned for one failure more than the stable version's."""
    check = Check("request-success-rate", confidence=95, requests=50)
    assert judge(check, Traffic(1000, 10), Traffic(100, 2)).good
    assert judge(check, Traffic(1000, 10), Traffic(100, 10)).good is False
    assert judge(check, Traffic(1000, 10), Traffic(49, 49)).good is None
    assert judge(msgspec.structs.replace(check, tolerance=20), Traffic(1000, 10), Traffic(100, 10)).good
    assert judge(check, Traffic(1000, 0), Traffic(1000, 0)).good


def test_slowness_is_seen() -> None:
    """Broken: a candidate that is slower by half a second would be promoted, for it never fails."""
    fast = tuple(1000 if bound >= 25 else 0 for bound in BOUNDS)
    slow = tuple(100 if bound >= 1000 else 0 for bound in BOUNDS)
    stable, candidate = Traffic(1000, 0, fast), Traffic(100, 0, slow)
    check = Check("request-duration", most=500)
    assert judge(check, stable, candidate).good is False
    assert judge(check, stable, Traffic(100, 0, tuple(100 if bound >= 25 else 0 for bound in BOUNDS))).good
    assert judge(Check("request-duration", confidence=95, requests=50), stable, candidate).good is False


def test_what_is_not_done_yet_is_refused() -> None:
    """Broken: a rollout would go on without the confirmation that its owner asked for."""
    spec = {
        **SPEC,
        "analysis": {**SPEC["analysis"], "sessionAffinity": {"cookieName": "x"}},
    }
    (said,) = unsupported(RolloutSpec.model_validate(spec))
    assert said.startswith("spec.analysis.sessionAffinity: found it; needed the strategy ABTest")
    assert Story().look(0, refused="no").phase == ("Waiting", 0)
    assert begun().look(0, refused="no").phase == ("Failed", 0)
