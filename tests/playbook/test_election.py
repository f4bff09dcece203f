"""Playbooks of an election: events and times in, actions out; and any number of candidates in a world that delays and loses."""

from __future__ import annotations

import heapq
import random

from hypothesis import given, settings
from hypothesis import strategies as st

from tulle.control.election import (
    Action,
    Ask,
    Claim,
    Claimed,
    Elapsed,
    Election,
    Event,
    Failed,
    Granted,
    Held,
    Lead,
    Look,
    Lost,
    Phase,
    Renew,
    Renewed,
    Revoke,
    StepDown,
    Stop,
    Terms,
    Vacant,
    Wake,
)

TERMS = Terms(ttl=15.0, deadline=10.0, every=2.0)
LEADS: tuple[tuple[float, Event], ...] = ((0, Vacant(1)), (0.1, Granted(7, 0.0)), (0.2, Claimed(7, 5)))


def play(*script: tuple[float, Event]) -> tuple[Election, list[list[Action]]]:
    """Feed events at their times; the candidate afterwards, and what each event led to."""
    election = Election(TERMS)
    return election, [election.feed(event, now) for now, event in script]


def test_a_candidate_becomes_leader_and_stays() -> None:
    """Nobody would lead, or the lease would not be renewed in time."""
    election, did = play(*LEADS, (2.0, Elapsed()), (2.1, Renewed(7, 2.0)), (4.0, Elapsed()), (4.3, Renewed(7, 4.0)))
    assert did == [
        [Ask()],
        [Claim(7)],
        [Lead(), Wake(2.0)],
        [Renew(7), Wake(10.0)],
        [Wake(4.0)],
        [Renew(7), Wake(12.0)],
        [Wake(6.0)],
    ]
    assert election.phase is Phase.LEADING


def test_who_finds_a_leader_waits() -> None:
    """A candidate would take the place of one that is well, or not take it when that one is gone."""
    election, did = play((0, Held(3, 1)), (50, Elapsed()), (50.1, Held(3, 1)), (60, Vacant(9)))
    assert did == [[], [Look()], [], [Ask()]]
    assert election.phase is Phase.ASKING


def test_of_two_one_is_first() -> None:
    """The second would lead as well, or never try again."""
    election, did = play((0, Vacant(1)), (0.1, Granted(7, 0.0)), (0.2, Failed()), (2.2, Elapsed()), (2.3, Held(8, 5)))
    assert did[2:] == [[Revoke(7), Wake(2.2)], [Look()], []]
    assert election.phase is Phase.WATCHING


def test_a_leader_that_cannot_renew_steps_down_before_its_lease_ends() -> None:
    """Two would lead: the lease, counted by the store from when the last renewal arrived, ends at 17 at the earliest."""
    failing: list[tuple[float, Event]] = [
        (2.0, Elapsed()),
        (2.1, Renewed(7, 2.0)),
        (4.0, Elapsed()),
        (10.0, Failed()),
        (12.0, Elapsed()),
    ]
    election, did = play(*LEADS, *failing)
    assert did[-3:] == [
        [Renew(7), Wake(12.0)],
        [Wake(12.0)],
        [StepDown("the lease was not renewed in time"), Revoke(7), Wake(14.0)],
    ]
    assert election.phase is Phase.WATCHING
    assert election.feed(Renewed(7, 4.0), 12.1) == []  # too late


def test_an_answer_that_came_late_does_not_help() -> None:
    """A renewal counts from when it was sent: the store may have taken it at once, and its answer was long on the way."""
    election, did = play(*LEADS, (2.0, Elapsed()), (9.9, Renewed(7, 2.0)))
    assert did[-1] == [Wake(4.0)]
    assert election.feed(Elapsed(), 9.9) == [Renew(7), Wake(12.0)]
    assert election.feed(Elapsed(), 12.0)[0] == StepDown("the lease was not renewed in time")


def test_a_process_that_slept_too_long_does_not_lead_when_it_wakes() -> None:
    """Whatever it hears first: the time alone decides."""
    for event in (Elapsed(), Renewed(7, 9.0), Held(7, 5), Failed()):
        _, did = play(*LEADS, (10.0, event))
        assert did[-1][0] == StepDown("the lease was not renewed in time")
    _, did = play(*LEADS[:2], (10.0, Claimed(7, 5)))
    assert did[-1] == [Revoke(7), Wake(12.0)]


def test_what_ends_a_reign() -> None:
    """A leader would go on without its lease or its record."""
    for event, why in ((Lost(7), "the lease has ended"), (Vacant(6), "the record is gone"), (Held(8, 6), "another one leads")):
        _, did = play(*LEADS, (1.0, event))
        assert did[-1] == [StepDown(why), Revoke(7), Wake(3.0)]
    # What was seen before the record was made, and what is said of another lease, is nothing.
    for old in (Vacant(4), Held(3, 4), Held(7, 5), Lost(6)):
        assert play(*LEADS, (1.0, old))[1][-1] == []


def test_stopping_hands_over_at_once() -> None:
    """The next one would have to wait for the lease to end; or would begin before this one has ended."""
    election, did = play(*LEADS, (1.0, Stop()), (2.0, Elapsed()))
    assert did[-2:] == [[StepDown("the control plane stops"), Revoke(7)], []]
    assert election.phase is Phase.ENDED
    assert play(*LEADS[:2], (0.2, Stop()))[1][-1] == [Revoke(7)]
    assert play((0, Stop()))[1] == [[]]


def test_a_lease_that_came_too_late_is_given_back() -> None:
    """It would keep nobody out, but the store would count it for nothing."""
    _, did = play((0, Vacant(1)), (1, Failed()), (1.5, Granted(7, 0.0)))
    assert did[1:] == [[Wake(3.0)], [Revoke(7)]]


CLOCK = -1  # in the place of a candidate: the store's own


class World:
    """Candidates and a store: requests and answers are late or lost, candidates freeze; each has its own clock."""

    def __init__(self, seed: int, candidates: int) -> None:
        self.random = random.Random(seed)
        self.now = 0.0
        self.queue: list[tuple[float, int, int, Event | Action]] = []
        self.count = 0
        self.candidates = [Election(TERMS) for _ in range(candidates)]
        self.offsets = [self.random.uniform(0, 1e6) for _ in range(candidates)]
        self.frozen = [0.0] * candidates  # until when
        self.ends: dict[int, float] = {}  # the leases
        self.record = 0  # the lease that holds it
        self.revision = 0
        self.reigns = 0
        for number in range(candidates):
            self.later(number, Vacant(0), 0)

    def later(self, number: int, what: Event | Action, delay: float) -> None:
        self.count += 1
        heapq.heappush(self.queue, (self.now + delay, self.count, number, what))

    def delay(self) -> float:
        return self.random.choice([0.001, 0.01, 0.5, 4.0, 12.0])

    def run(self, until: float) -> None:
        while self.queue and self.queue[0][0] < until:
            self.now, _, number, what = heapq.heappop(self.queue)
            self.expire()
            if number == CLOCK:
                continue
            if isinstance(what, (Ask, Claim, Renew, Revoke, Look, Lead, StepDown, Wake)):
                self.store(number, what)
            elif self.frozen[number] > self.now:
                self.later(number, what, self.frozen[number] - self.now)
            else:
                self.act(number, self.candidates[number].feed(what, self.now + self.offsets[number]))
                if self.random.random() < 0.02:
                    self.frozen[number] = self.now + self.random.uniform(0, 30)
            self.check()

    def act(self, number: int, actions: list[Action]) -> None:
        for action in actions:
            if isinstance(action, Wake):
                self.later(number, Elapsed(), max(0.0, action.at - self.offsets[number] - self.now))
            elif isinstance(action, Lead):
                self.reigns += 1
            elif not isinstance(action, StepDown) and self.random.random() < 0.9:
                self.later(number, action, self.delay())
            elif isinstance(action, (Ask, Claim, Renew, Look)):
                self.later(number, Failed(), self.delay())

    def hold(self, lease: int) -> None:
        """The lease ends in so many seconds, also where nothing else happens any more."""
        self.ends[lease] = self.now + TERMS.ttl
        self.later(CLOCK, Elapsed(), TERMS.ttl)

    def expire(self) -> None:
        for lease in [lease for lease, end in self.ends.items() if end <= self.now]:
            self.drop(lease)

    def drop(self, lease: int) -> None:
        self.ends.pop(lease, None)
        if self.record == lease:
            self.record, self.revision = 0, self.revision + 1
            for number in range(len(self.candidates)):
                self.later(number, Vacant(self.revision), self.delay())

    def store(self, number: int, action: Action) -> None:
        asked = self.now + self.offsets[number]  # the candidate notes an earlier time; this is the worst case
        answer: Event
        match action:
            case Ask():
                self.count += 1
                lease = self.count
                self.hold(lease)
                answer = Granted(lease, asked)
            case Claim(lease) if lease in self.ends and not self.record:
                self.record, self.revision = lease, self.revision + 1
                answer = Claimed(lease, self.revision)
                for other in range(len(self.candidates)):
                    self.later(other, Held(lease, self.revision), self.delay())
            case Claim(lease):
                answer = Failed() if lease in self.ends else Lost(lease)
            case Renew(lease) if lease in self.ends:
                self.hold(lease)
                answer = Renewed(lease, asked)
            case Renew(lease):
                answer = Lost(lease)
            case Look():
                answer = Held(self.record, self.revision) if self.record else Vacant(self.revision)
            case Revoke(lease):
                self.drop(lease)
                return
            case _:
                raise AssertionError(action)
        self.later(number, answer if self.random.random() < 0.9 else Failed(), self.delay())

    def check(self) -> None:
        """Nobody acts as leader while another one may; one that is frozen does not act, and sees the time when it wakes."""
        leading = []
        for number, candidate in enumerate(self.candidates):
            safe = candidate._safe - self.offsets[number]
            if candidate.phase is Phase.LEADING and self.frozen[number] <= self.now < safe:
                leading.append(number)
        assert len(leading) <= 1, leading


@given(seed=st.integers(0, 2**32), candidates=st.integers(1, 4))
@settings(max_examples=60, deadline=None)
def test_never_two_lead_at_once_and_somebody_does(seed: int, candidates: int) -> None:
    """Whatever is late, lost or frozen: two that write conditions, or collect garbage, undo each other's work."""
    world = World(seed, candidates)
    world.run(2000.0)
    assert world.reigns > 0
