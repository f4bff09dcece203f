"""Whatever the order and batches in which rows came, derived rows are those of a flow given the last state at once."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from tulle.core.flow import Fetch, Flow, Input, table

items: Input[str, tuple[str, int]] = Input("items", group=lambda _key, row: [row[0]])
weights: Input[str, int] = Input("weights")


@table
def group_sum(fetch: Fetch, group: str) -> int:
    return sum(row[1] for row in fetch.rows(items, "group", group))


@table
def group_names(fetch: Fetch, group: str) -> tuple[str, ...]:
    return fetch.keys(items, "group", group)


@table
def capped(fetch: Fetch, group: str) -> int:
    """Stops most changes: an equal row is what makes shortcuts dangerous."""
    return min(fetch(group_sum, group) or 0, 3)


@table
def weighed(fetch: Fetch, group: str) -> tuple[int, tuple[str, ...]] | None:
    """Reads different rows depending on what it read before."""
    weight = fetch(weights, group)
    if weight is None:
        return None
    if (fetch(capped, group) or 0) > weight:
        return (weight, fetch(group_names, group) or ())
    return (weight, min(fetch(group_names, other) or () for other in "xyz"))


@table
def everything(fetch: Fetch, _key: None) -> tuple[tuple[int, tuple[str, ...]] | None, ...]:
    return tuple(fetch(weighed, group) for group in "xyz")


_ITEM = st.tuples(st.just(items), st.sampled_from("abcdef"), st.none() | st.tuples(st.sampled_from("xyz"), st.integers(0, 3)))
_WEIGHT = st.tuples(st.just(weights), st.sampled_from("xyz"), st.none() | st.integers(0, 4))
_CHANGE = st.one_of(_ITEM, _WEIGHT)


@settings(deadline=None, max_examples=200)
@given(batches=st.lists(st.tuples(st.lists(_CHANGE, max_size=5), st.booleans()), max_size=12))
def test_incremental_is_from_scratch(batches: list[tuple[list[tuple[Input, str, object]], bool]]) -> None:  # type: ignore[type-arg]
    """A proxy would get another configuration than a control plane started just now would send it."""
    flow = Flow()
    watch = flow.watch()
    watch.add(everything, None)
    shown: object = None
    final: dict[Input, dict[str, object]] = {items: {}, weights: {}}  # type: ignore[type-arg]
    for changes, look in batches:
        batch: dict[Input, dict[str, object]] = {}  # type: ignore[type-arg]
        for source, key, row in changes:
            batch.setdefault(source, {})[key] = row
            final[source][key] = row
        before = flow.computed.total()
        flow.commit(batch)
        if look:
            for _table, _key, row in watch.take():
                assert row != shown, "a row that is equal was reported as changed"
                shown = row
            # Each of the 13 derived rows at most once, however many changes the batch has.
            assert flow.computed.total() - before <= 13
    for _table, _key, row in watch.take():
        shown = row
    scratch = Flow()
    scratch.commit(final)
    assert shown == scratch.get(everything, None)
    assert flow.size <= 13
