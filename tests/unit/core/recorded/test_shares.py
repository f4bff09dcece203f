"""How much is recorded follows the load: never much more than the budget, and all of it where that is little."""

from __future__ import annotations

from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st

from tulle.core.recorded.shares import LEAST, Shares, decide, differs


def lived(load: Callable[[int], tuple[int, int]], seconds: int, budget: float = 50.0) -> list[tuple[int, Shares]]:
    """How many calls came in each second of a load of (failures, others), and the shares after it."""
    shares, found = Shares(), []
    for second in range(seconds):
        failing, others = load(second)
        came = round(failing * shares.failures), round(others * shares.sampled)
        shares = decide(shares, *came, 1.0, budget)
        found.append((sum(came), shares))
    return found


def test_little_traffic_is_recorded_whole() -> None:
    """Broken: in a small mesh most calls would be missing from the record, though there is room for all."""
    last = lived(lambda _second: (1, 20), 30)[-1]
    assert last[1].sampled == 1.0
    assert last[0] == 21


def test_much_traffic_is_a_sample() -> None:
    """Broken: the node would look at every call of a busy mesh, or at none."""
    for came, shares in lived(lambda _second: (0, 2000), 60)[20:]:
        assert came <= 60
        assert 0.01 < shares.sampled < 0.05


def test_failures_come_first() -> None:
    """Broken: the calls that people ask about would be lost in the others."""
    last = lived(lambda _second: (30, 5000), 60)[-1]
    assert last[1].failures == 1.0
    assert last[0] <= 70


def test_a_storm_of_failures_is_a_sample_too() -> None:
    """Broken: an outage would take the node's processor besides."""
    found = lived(lambda second: (3000, 100) if second > 20 else (0, 100), 80)
    assert all(came <= 80 for came, _shares in found[24:])
    assert found[-1][1].failures < 0.05


def test_the_end_of_a_storm() -> None:
    """Broken: after an outage single failures would be missed."""
    found = lived(lambda second: (3000, 0) if second < 20 else (2, 0), 120)
    assert found[-1][1].failures == 1.0


@given(st.lists(st.tuples(st.integers(0, 100_000), st.integers(0, 100_000)), max_size=50))
def test_shares_are_shares(load: list[tuple[int, int]]) -> None:
    """Broken: some load would make a share of nothing, of which nothing is ever seen again."""
    for _came, shares in lived(lambda second: load[second], len(load)):
        assert LEAST <= shares.failures <= 1
        assert LEAST <= shares.sampled <= 1


def test_who_is_told() -> None:
    """Broken: each second each Envoy would be told the same."""
    shares = Shares(1.0, 0.5)
    assert not differs(shares, shares)
    assert not differs(shares, Shares(1.0, 0.55))
    assert differs(shares, Shares(1.0, 1.0))
    assert differs(shares, Shares(0.5, 0.5))
    assert not differs(Shares(0.0, 0.0), Shares(0.0, 0.0))
