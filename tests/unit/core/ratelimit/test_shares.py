"""Shares of a limit: what holds of all of them, and the figures that the mesh promises, simulated."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.replicas import Replicas
from tulle.core.ratelimit.shares import FLOOR, Demand, even, expected, reweighted, split

NAMES = ["default/a", "default/b", "default/c"]
CLIENTS = [f"client-{number}" for number in range(8)]

_members = st.lists(st.sampled_from([f"default/{letter}" for letter in "abcdefghij"]), min_size=1, unique=True)
_rate = st.floats(0, 1e9, allow_nan=False)


@given(_members, st.dictionaries(st.sampled_from([f"default/{letter}" for letter in "abcdefghij"]), st.floats(0, 1)))
def test_a_split_is_whole_whoever_came_and_went(members: list[str], given_: dict[str, float]) -> None:
    """Otherwise a proxy that joins or leaves would raise the limit, or have no part of it."""
    found = split(members, given_)
    assert found.keys() == set(members)
    assert all(share > 0 for share in found.values())
    assert sum(found.values()) == pytest.approx(1.0)


@given(_members, st.data(), _rate, st.booleans())
@settings(max_examples=300)
def test_shares_are_never_more_than_the_limit_and_nobody_is_without(
    members: list[str], data: st.DataObject, rate: float, keyed: bool
) -> None:
    """Otherwise a limit of 100 would let through more, or a proxy could never show that something comes to it."""
    before: Mapping[str, float] = even(members)
    demands = {
        one: Demand(data.draw(_rate), data.draw(st.sampled_from([0.0, 100.0]))) for one in members if data.draw(st.booleans())
    }
    for _ in range(3):
        after = reweighted(before, demands, rate, 101.0, keyed=keyed)
        assert sum(after.values()) <= 1.0 + 1e-9
        assert min(after.values()) >= FLOOR / len(members) * 0.99 / len(members)
        silent = [one for one in members if one not in demands or demands[one].at == 0.0]
        assert all(after[one] == before[one] for one in silent), "who is not heard may be there, with the share that it had"
        before = after


def test_who_has_nothing_to_do_leaves_its_part_to_others() -> None:
    """Otherwise a limit that one proxy alone is asked for would be a third of what was written."""
    found = reweighted(even(NAMES), {NAMES[0]: Demand(1000, 5), NAMES[1]: Demand(0, 5), NAMES[2]: Demand(0, 5)}, 100, 5)
    assert found[NAMES[0]] == pytest.approx(0.967, abs=0.01)


def test_what_nobody_uses_is_spread_evenly() -> None:
    """Otherwise the first requests that come to an idle proxy would be refused, far below the limit."""
    found = reweighted(even(NAMES), {NAMES[0]: Demand(10, 5), NAMES[1]: Demand(0, 5), NAMES[2]: Demand(0, 5)}, 100, 5)
    assert found[NAMES[1]] > 0.25


def test_demand_follows_what_is_seen() -> None:
    """Otherwise old load would count for ever, or a proxy that was away would begin with what it had."""
    first = expected(None, 100, 1.0, 10.0)
    assert first.rate == 100
    assert expected(first, 0, 1.0, 11.0).rate == pytest.approx(30)
    assert expected(first, 50, 1.0, 60.0).rate == 50
    assert expected(first, -5, 0.0, 11.0).rate >= 0


def _even_load(_now: float) -> dict[tuple[str, str], float]:
    return {(replica, client): 1000 / 24 for replica in NAMES for client in CLIENTS}


def test_even_load_is_held_within_five_percent() -> None:
    """The promise: 3 replicas, 8 clients, 100 a second, 1,000 offered, over 30 s."""
    mesh = Replicas(NAMES, 100, _even_load)
    mesh.run(34)
    assert mesh.passed(4, 34) == pytest.approx(100, rel=0.05)
    assert mesh.told < 25, "what is noise is told nobody"


@pytest.mark.parametrize("moment", [5.05, 5.5, 5.95])
def test_moved_load_is_held_within_fifteen_percent_after_three_seconds(moment: float) -> None:
    """The promise: all load moves from one replica to another, whenever between two looks that is."""

    def load(now: float) -> dict[tuple[str, str], float]:
        return {(NAMES[0] if now < moment else NAMES[1], client): 125 for client in CLIENTS}

    mesh = Replicas(NAMES, 100, load)
    mesh.run(moment + 13)
    assert mesh.passed(moment - 2, moment) == pytest.approx(100, rel=0.15)
    assert mesh.passed(moment + 3, moment + 13) == pytest.approx(100, rel=0.15)
    # While it moves: never more than what both shares and a full bucket allow.
    assert mesh.passed(moment, moment + 3) <= 100 * (1 + 1 / 3) * 1.15
    assert mesh.most_in_force < 2


def test_a_share_that_changes_gives_nobody_a_full_bucket() -> None:
    """With a window of a minute it would be a whole limit for each change, and shares change about every second."""

    def load(now: float) -> dict[tuple[str, str], float]:
        one, other = (140, 60) if int(now / 2) % 2 else (60, 140)
        return {(NAMES[0], "one"): one, (NAMES[1], "one"): other}

    mesh = Replicas(NAMES[:2], 600, load, window=60)
    mesh.run(30)
    assert mesh.told >= 10
    # A minute's limit at once, and ten a second after that.
    assert mesh.passed(0, 30) * 30 <= (600 + 10 * 30) * 1.05


def test_a_small_client_is_not_starved_by_a_large_one() -> None:
    """With a bucket for each client the small one gets all that it asks for, also where it comes by another replica."""

    def load(_now: float) -> dict[tuple[str, str], float]:
        return {(NAMES[0], "large"): 900, (NAMES[1], "small"): 5}

    mesh = Replicas(NAMES, 100, load, keyed=True)
    mesh.run(20)
    offered = 5
    assert mesh.passed(2, 20, "small") >= offered * 0.75
    assert mesh.passed(4, 20, "large") == pytest.approx(100, rel=0.15)


def test_clients_with_buckets_of_their_own_are_each_held() -> None:
    """Eight clients over three replicas, each with a limit of 100 and 125 offered: each gets its 100."""
    mesh = Replicas(NAMES, 100, _even_load, keyed=True)
    mesh.run(14)
    for client in CLIENTS:
        assert mesh.passed(4, 14, client) == pytest.approx(100, rel=0.08)


def test_what_has_all_but_faded_is_no_demand() -> None:
    """Broken: after a night without calls a share would be infinite, and that proxy without a limit."""
    before = even(["default/a", "default/b"])
    assert reweighted(before, {"default/b": Demand(2.2250738585e-313, 100.0)}, 0.0, 101.0) == before
