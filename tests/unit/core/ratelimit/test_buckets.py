"""Exact counting: what holds whatever comes, and that memory is bounded."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tulle.core.ratelimit.buckets import OTHERS, Ask, Buckets, Rate, Rule, verdict

TEN = Rule("default/all/0", Rate(10, 1.0))


def passed(buckets: Buckets, rule: Rule, now: float, times: int, key: str = "") -> int:
    return sum(buckets.take([Ask(rule, key)], now)[0].within for _ in range(times))


@given(
    st.integers(1, 50),
    st.sampled_from([0.5, 1.0, 60.0]),
    st.integers(0, 20),
    st.lists(st.tuples(st.floats(0, 3), st.integers(1, 5)), max_size=60),
)
def test_never_more_than_the_limit_and_the_burst(
    limit: int, window: float, burst: int, requests: list[tuple[float, int]]
) -> None:
    """Otherwise exact would not be: in any while at most a bucket, and what comes in meanwhile."""
    rule, buckets, now = Rule("r", Rate(limit, window, burst)), Buckets(), 0.0
    taken: list[tuple[float, int]] = []
    for wait, hits in requests:
        now += wait
        if buckets.take([Ask(rule, "", hits)], now)[0].within:
            taken.append((now, hits))
    for first, (begin, _) in enumerate(taken):
        total = 0
        for at, hits in taken[first:]:
            total += hits
            assert total <= limit + burst + (at - begin) * limit / window + 1e-3


def test_what_is_offered_at_ten_times_the_limit_is_held_exactly() -> None:
    """The promise: 100 a second, 1,000 offered, 1% over 30 s."""
    rule, buckets = Rule("r", Rate(100)), Buckets()
    allowed = [tick / 1000 for tick in range(34_000) if buckets.take([Ask(rule)], tick / 1000)[0].within]
    assert sum(4 <= at < 34 for at in allowed) == pytest.approx(3000, rel=0.01)


def test_a_clock_that_goes_back_gives_nothing_and_locks_nobody_out() -> None:
    """Otherwise a virtual machine that is resumed would let through a whole limit, or refuse for an hour."""
    buckets = Buckets()
    assert passed(buckets, TEN, 5000.0, 20) == 10
    assert passed(buckets, TEN, 1000.0, 20) == 0
    assert passed(buckets, TEN, 1001.0, 20) == 10


def test_a_request_that_one_rule_refuses_costs_the_others_nothing() -> None:
    """Otherwise who is over one limit would use up another for those who are not."""
    one, other, buckets = Rule("one", Rate(1)), Rule("other", Rate(5)), Buckets()
    for _ in range(4):
        buckets.take([Ask(one), Ask(other)], 0.0)
    assert passed(buckets, other, 0.0, 9) == 4


def test_a_shadow_counts_and_refuses_nothing() -> None:
    """Otherwise trying a limit out would refuse, or keep others' counts from being right."""
    shadow, other, buckets = Rule("shadow", Rate(1), shadow=True), Rule("other", Rate(5)), Buckets()
    within = [buckets.take([Ask(shadow), Ask(other)], 0.0)[1].within for _ in range(7)]
    assert within == [True] * 5 + [False] * 2
    state = {one.rule: one for one in buckets.states(0.0)}
    assert (state["shadow"].refused, state["other"].allowed) == (6, 5)


def test_a_key_of_an_override_has_its_own_limit() -> None:
    """Otherwise one client could not be given more."""
    rule, buckets = Rule("r", Rate(2), {"gold": Rate(5)}), Buckets()
    assert (passed(buckets, rule, 0.0, 9, "tin"), passed(buckets, rule, 0.0, 9, "gold")) == (2, 5)


def test_a_new_limit_holds_at_once_and_keeps_what_was_used() -> None:
    """Otherwise each change of a limit would give everybody a full bucket."""
    buckets = Buckets()
    assert passed(buckets, TEN, 0.0, 8) == 8
    assert passed(buckets, Rule(TEN.id, Rate(12)), 0.0, 9) == 4
    assert passed(buckets, Rule(TEN.id, Rate(3)), 0.0, 9) == 0


def test_memory_is_bounded_and_who_finds_no_room_is_not_unlimited() -> None:
    """Otherwise whoever chooses a header's value could fill the control plane, or get round the limit with ever new ones."""
    buckets = Buckets(most=100)
    for number in range(5000):
        buckets.take([Ask(TEN, f"key-{number}")], 0.0)
    assert buckets.size <= 101
    assert buckets.folded == 4900
    assert {one.key: one for one in buckets.states(0.0)}[OTHERS].allowed == 10
    assert passed(buckets, TEN, 2.0, 3, "later") == 3, "what is full is forgotten for others"
    assert buckets.size < 10


def test_what_is_deleted_is_forgotten() -> None:
    """Otherwise a rule that comes back would begin with old counts, and memory would grow with all rules ever."""
    buckets = Buckets()
    passed(buckets, TEN, 0.0, 10)
    buckets.keep([])
    assert (buckets.size, passed(buckets, TEN, 0.0, 11)) == (0, 10)


def test_who_is_refused_is_told_when_to_come_back() -> None:
    """Otherwise Retry-After would send clients back too early, or never."""
    said = verdict(Rate(10, 1.0), 10.0, 1)
    assert (said.within, said.left) == (False, 0)
    assert said.retry == pytest.approx(0.1)
    assert verdict(Rate(10, 1.0), 0.0, 100).retry == 1.0, "more than a bucket holds never fits"
