"""The rules of derived tables: what is computed, when, and what is dropped."""

from __future__ import annotations

import pytest

from tulle.core.flow import CycleError, Fetch, Flow, Input, Table, table

numbers: Input[str, int] = Input("numbers", parity=lambda _key, row: [row % 2])


@table
def double(fetch: Fetch, key: str) -> int | None:
    row = fetch(numbers, key)
    return None if row is None else row * 2


@table
def sign(fetch: Fetch, key: str) -> str | None:
    row = fetch(double, key)
    return None if row is None else "+" if row >= 0 else "-"


@table
def signs(fetch: Fetch, parity: int) -> tuple[str | None, ...]:
    return tuple(fetch(sign, key) for key in fetch.keys(numbers, "parity", parity))


@table
def total(fetch: Fetch, parity: int) -> int:
    return sum(fetch.rows(numbers, "parity", parity))


def flow(**rows: int) -> Flow:
    made = Flow()
    made.commit({numbers: rows})
    return made


def test_nothing_is_computed_until_asked_for() -> None:
    """A mesh with a thousand objects that no proxy uses would cost as much as one where all are used."""
    made = flow(a=1, b=2)
    assert made.computed == {}
    assert made.get(double, "a") == 2
    assert made.computed == {"double": 1}


def test_a_row_is_computed_once_a_change() -> None:
    """Every proxy that reads a shared row would pay for it again."""
    made = flow(a=1)
    watch = made.watch()
    watch.add(sign, "a")
    assert [row for _table, _key, row in watch.take()] == ["+"]
    watch.take()
    made.get(sign, "a")
    assert made.computed == {"double": 1, "sign": 1}


def test_equality_stops_a_change() -> None:
    """A change that makes no difference would be sent to every proxy."""
    made = flow(a=1, b=3)
    watch = made.watch()
    watch.add(signs, 1)
    watch.take()
    made.computed.clear()
    made.commit({numbers: {"a": 5}})
    assert watch.take() == []
    assert made.computed == {"double": 1, "sign": 1}


def test_an_equal_row_changes_nothing() -> None:
    """A resync of the store would recompute the mesh."""
    made = flow(a=1)
    watch = made.watch()
    watch.add(double, "a")
    watch.take()
    made.commit({numbers: {"a": 1}})
    assert watch.take() == []
    assert made.computed == {"double": 1}


def test_only_the_touched_bucket_is_computed_again() -> None:
    """A VirtualService of one namespace would recompute all the others."""
    made = flow(a=1, b=2)
    watch = made.watch()
    watch.add(total, 0)
    watch.add(total, 1)
    watch.take()
    made.computed.clear()
    made.commit({numbers: {"c": 7}})
    assert watch.take() == [(total, 1, 8)]
    assert made.computed == {"total": 1}


def test_keys_do_not_depend_on_the_rows() -> None:
    """A list of names would be made again whenever one of the named objects changes."""
    names: Table[None, tuple[str, ...]] = Table(lambda fetch, _key: fetch.keys(numbers), "names")
    made = flow(a=1, b=2)
    watch = made.watch()
    watch.add(names, None)
    watch.take()
    made.commit({numbers: {"a": 9}})
    assert watch.take() == []
    made.commit({numbers: {"a": None}})
    assert watch.take() == [(names, None, ("b",))]
    assert made.computed == {"names": 2}


def test_a_moved_row_leaves_its_old_bucket() -> None:
    """An endpoint whose labels changed would stay in its old subset."""
    made = flow(a=1, b=2)
    assert (made.get(total, 0), made.get(total, 1)) == (2, 1)
    made.commit({numbers: {"a": 4}})
    assert (made.get(total, 0), made.get(total, 1)) == (6, 0)


def test_unused_rows_are_dropped() -> None:
    """Memory would grow with every object that was ever there."""
    made = flow(a=1, b=3)
    watch = made.watch()
    watch.add(signs, 1)
    watch.take()
    assert made.size == 5
    made.commit({numbers: {"a": None}})
    watch.take()
    assert made.size == 3
    watch.remove(signs, 1)
    made.commit({})
    assert made.size == 0


def test_a_row_that_was_only_looked_at_is_dropped_at_the_next_commit() -> None:
    """Every question of a person (`tulle explain`) would leave rows behind for good."""
    made = flow(a=1)
    made.get(sign, "a")
    assert made.size == 2
    made.commit({})
    assert made.size == 0


def test_what_an_earlier_row_makes_unneeded_is_not_computed() -> None:
    """A route table of a service that is gone would be computed once more, from objects that are gone."""
    switch: Input[str, bool] = Input("switch")
    dear: Table[str, int] = Table(lambda fetch, key: fetch(numbers, key), "dear")
    either: Table[str, int] = Table(lambda fetch, key: fetch(dear, key) if fetch(switch, "on") else -1, "either")
    made = flow(a=1)
    made.commit({switch: {"on": True}})
    watch = made.watch()
    watch.add(either, "a")
    watch.take()
    made.commit({switch: {"on": False}, numbers: {"a": 2}})
    assert watch.take() == [(either, "a", -1)]
    assert made.computed == {"dear": 1, "either": 2}
    made.commit({})
    assert made.size == 1


def test_a_cycle_is_a_loud_mistake() -> None:
    """A table that reads itself would recurse until the stack ends."""
    round_and_round: Table[str, int] = Table(lambda fetch, key: fetch(round_and_round, key), "round")
    with pytest.raises(CycleError, match="round"):
        Flow().get(round_and_round, "a")


def test_a_function_that_fails_leaves_the_flow_usable() -> None:
    """One crash in a compile function would leave rows that look right and are not."""

    def strict(fetch: Fetch, key: str) -> int | None:
        row = fetch(numbers, key)
        if row == 13:
            raise ValueError(row)
        return row

    picky = Table(strict)
    made = flow(a=1)
    watch = made.watch()
    watch.add(picky, "a")
    watch.take()
    made.commit({numbers: {"a": 13}})
    for _again in range(2):
        with pytest.raises(ValueError, match="13"):
            made.get(picky, "a")
    made.commit({numbers: {"a": 2}})
    assert watch.take() == [(picky, "a", 2)]


def test_an_unknown_index_is_a_loud_mistake() -> None:
    """A misspelt index would give an empty bucket for ever."""
    with pytest.raises(KeyError, match="nonsense"):
        Flow().get(Table(lambda fetch, _key: fetch.keys(numbers, "nonsense", 1), "wrong"), None)


def test_a_watch_may_settle_some_rows_at_a_time() -> None:
    """Whoever shares a thread with others would hold it for all rows of a large mesh."""
    made = flow(**{f"n{index}": index for index in range(10)})
    watch = made.watch()
    for index in range(10):
        watch.add(double, f"n{index}")
    taken: list[int] = []
    while watch.waiting:
        some = watch.take(4)
        assert made.computed["double"] == min(len(taken) + 4, 10)
        taken += [row for _table, _key, row in some]
    assert sorted(taken) == [index * 2 for index in range(10)]
    assert watch.take(4) == []
