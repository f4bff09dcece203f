"""When things are renewed, as pure questions about now."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tulle.control.ca.rotation import Root, Schedule, Slot, Step, advance, next_step, renew_at


@given(st.floats(0, 1e9), st.floats(1, 1e8), st.floats(0, 1))
def test_leaves_renew_around_half_life(start: float, life: float, jitter: float) -> None:
    """Would fail if a leaf were renewed too late to try again, or all of them at the same moment."""
    at = renew_at(start, start + life, jitter)
    assert start + 0.39 * life <= at <= start + 0.61 * life


def test_a_root_near_its_end_is_replaced_in_time() -> None:
    """Would fail if a root that was left alone ended before its successor was trusted and every leaf renewed."""
    schedule = Schedule(root_lifetime=1e9, spread=10, leaf_lifetime=100)
    now, end = 0.0, 1000.0
    roots = [Root(Slot.ACTIVE, 0.0, end)]
    for expected in (Step.PREPARE, Step.ACTIVATE, Step.RETIRE):
        step, due = next_step(roots, schedule, now)
        assert step is expected
        now = max(now, due)
        assert now < end
        roots = [root for root in advance(roots, step, now) if root is not None]
        if step is Step.PREPARE:
            roots.append(Root(Slot.NEXT, now, now + 5000))
    assert [root.slot for root in roots] == [Slot.ACTIVE]
    assert roots[0].not_after > end
