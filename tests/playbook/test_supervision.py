"""Playbooks of one Envoy's life: events and times in, actions out."""

from __future__ import annotations

import pytest

from tulle.node.supervision import (
    Action,
    Adopt,
    BeginDrain,
    Crashed,
    Drain,
    Elapsed,
    Event,
    Exited,
    Gone,
    Idle,
    Kill,
    Live,
    Policy,
    Spawn,
    Start,
    State,
    Supervision,
    Terminate,
    Wake,
    Watch,
)

POLICY = Policy(base=0.2, longest=10.0, stable=60.0, terminate=2.0)


def play(*script: tuple[float, Event], life: Supervision | None = None) -> tuple[Supervision, list[list[Action]]]:
    """Feed events at their times; the life afterwards, and what each event led to."""
    life = life or Supervision(POLICY)
    return life, [life.feed(event, now) for now, event in script]


def test_a_plain_life() -> None:
    """An Envoy would not be started, or not be drained before it is stopped."""
    life, did = play((0, Start()), (0.2, Live()), (50, Drain(5)), (51, Idle()), (51.1, Exited(0)))
    assert did == [[Spawn(), Watch()], [], [BeginDrain(), Wake(55)], [Terminate(), Wake(53)], [Gone()]]
    assert life.state is State.STOPPED


def test_a_first_crash_is_repaired_at_once() -> None:
    """Callers would wait for a back-off although nothing speaks for one."""
    life, did = play((0, Start()), (0.2, Live()), (9, Exited(-11)))
    assert did[-1] == [Crashed(-11, 1, 0.0), Spawn(), Watch()]
    assert life.state is State.STARTING
    assert life.restarts == 1


def test_crashes_in_a_row_back_off() -> None:
    """A broken Envoy would be started in a tight loop, or never again."""
    life, _ = play((0, Start()))
    now, delays = 0.0, []
    for _ in range(9):
        actions = life.feed(Exited(1), now)
        crashed = actions[0]
        assert isinstance(crashed, Crashed)
        delays.append(crashed.delay)
        if crashed.delay:
            assert actions[1] == Wake(now + crashed.delay)
            assert life.state is State.WAITING
            now += crashed.delay
            assert life.feed(Elapsed(), now) == [Spawn(), Watch()]
    assert delays == pytest.approx([0, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 10, 10])


@pytest.mark.parametrize(("served", "delay"), [(60.0, 0.0), (59.0, 0.2)])
def test_crashes_are_forgotten_after_serving(served: float, delay: float) -> None:
    """An Envoy that crashes once a week would be punished for all the weeks before; one that crashes each minute would not."""
    life, _ = play((0, Start()), (1, Live()), (2, Exited(1)), (3, Live()))
    crashed = life.feed(Exited(1), 3 + served)[0]
    assert isinstance(crashed, Crashed)
    assert crashed.delay == delay


def test_a_drain_has_an_end() -> None:
    """A connection that never ends would keep a workload from going."""
    life, did = play((0, Start()), (1, Live()), (2, Drain(5)), (7, Elapsed()), (9, Elapsed()), (9.1, Exited(-9)))
    assert did[3:] == [[Terminate(), Wake(9)], [Kill(), Wake(11)], [Gone()]]
    assert life.state is State.STOPPED


def test_an_envoy_that_ends_while_draining_is_not_started_again() -> None:
    """A removed workload would come back."""
    life, did = play((0, Start()), (1, Live()), (2, Drain(5)), (3, Exited(0)), (8, Elapsed()), (9, Live()))
    assert did[3:] == [[Gone()], [], []]
    assert life.state is State.STOPPED


@pytest.mark.parametrize("seconds", [0.0, -1.0])
def test_no_time_to_drain(seconds: float) -> None:
    """Where nobody is left to drain for, stopping would wait all the same."""
    _, did = play((0, Start()), (1, Live()), (2, Drain(seconds)))
    assert did[-1] == [Terminate(), Wake(4)]


def test_removed_before_it_served() -> None:
    """A workload that was given up while its Envoy starts would leave that Envoy."""
    life, did = play((0, Start()), (0.1, Drain(5)), (0.2, Exited(-15)))
    assert did[1:] == [[Terminate(), Wake(2.1)], [Gone()]]
    assert life.state is State.STOPPED


def test_removed_while_it_waits() -> None:
    """A workload that is removed between two starts would be started once more."""
    life, did = play((0, Start()), (1, Exited(1)), (1, Exited(1)), (1.1, Drain(5)), (1.2, Elapsed()))
    assert did[3:] == [[Gone()], []]
    assert life.state is State.STOPPED


def test_adopted() -> None:
    """A new agent would start a second Envoy beside the one that runs, or not repair the one that it took over."""
    life, did = play((0, Adopt()), (0.1, Live()), (5, Exited(None)))
    assert did == [[Watch()], [], [Crashed(None, 1, 0.0), Spawn(), Watch()]]
    assert life.state is State.STARTING


@pytest.mark.parametrize("state", list(State))
def test_late_news_change_nothing(state: State) -> None:
    """A timer or an answer that was on its way when things changed would start or kill an Envoy."""
    scripts: dict[State, list[tuple[float, Event]]] = {
        State.NEW: [],
        State.STARTING: [(0, Start())],
        State.READY: [(0, Start()), (1, Live())],
        State.WAITING: [(0, Start()), (1, Exited(1)), (1, Exited(1))],
        State.DRAINING: [(0, Start()), (1, Live()), (2, Drain(5))],
        State.STOPPING: [(0, Start()), (1, Live()), (2, Drain(0))],
        State.STOPPED: [(0, Start()), (1, Live()), (2, Drain(0)), (3, Exited(0))],
    }
    meaningless: dict[State, list[Event]] = {
        State.NEW: [Live(), Exited(1), Idle(), Elapsed()],
        State.STARTING: [Start(), Adopt(), Idle(), Elapsed()],
        State.READY: [Start(), Adopt(), Live(), Idle(), Elapsed()],
        State.WAITING: [Start(), Live(), Idle(), Exited(1)],
        State.DRAINING: [Start(), Adopt(), Live()],
        State.STOPPING: [Start(), Live(), Idle(), Drain(5)],
        State.STOPPED: [Start(), Adopt(), Live(), Exited(1), Drain(5), Idle(), Elapsed()],
    }
    life, _ = play(*scripts[state])
    assert life.state is state
    for event in meaningless[state]:
        assert life.feed(event, 4.0) == []
        assert life.state is state


def test_a_second_drain_moves_the_end() -> None:
    """Somebody who asks again with less time would not be heard."""
    _, did = play((0, Start()), (1, Live()), (2, Drain(50)), (3, Drain(5)), (4, Drain(0)))
    assert did[2:] == [[BeginDrain(), Wake(52)], [Wake(8)], [Terminate(), Wake(6)]]
