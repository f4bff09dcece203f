"""Python's collector of cycles, told what a control plane is."""

from __future__ import annotations

import gc
import weakref

from tulle.app import collector


class _Link:
    """A part of a cycle."""

    def __init__(self) -> None:
        self.to: object = None


def _cycle() -> weakref.ref[_Link]:
    one, other = _Link(), _Link()
    one.to, other.to = other, one
    return weakref.ref(one)


def test_a_control_plane_that_is_written_to_all_the_time_does_not_grow_by_what_nobody_holds() -> None:
    """If settling did not look through what is new, every cycle that a commit leaves would stay until the next full look."""
    gc.collect()
    ages = gc.get_threshold()
    gc.set_threshold(1_000_000, 4, 100)  # as where a server runs: what is due is due to `settle`
    try:
        gone = _cycle()
        kept = [_Link() for _ in range(100)]
        collector.settle()
        assert gone() is not None, "a hundred objects are not worth a look"
        kept += [_Link() for _ in range(30_000)]
        collector.settle()
        assert gone() is None
        assert gc.get_count()[:2] < (1000, 2), "what stays is old at once: it is not walked again"
    finally:
        gc.set_threshold(*ages)
