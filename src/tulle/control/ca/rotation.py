"""When certificates and roots are renewed: pure questions about `now`, all times in seconds.

A root lives in one of two slots. `next` is trusted before it signs, `retiring` is trusted after it last signed; so at every
moment each certificate in use is of a root that everybody trusts:

    active A ──prepare──▶ A signs; A and B trusted ──activate──▶ B signs; A and B trusted ──retire──▶ active B
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum

import msgspec


class Slot(StrEnum):
    """What a root is for now."""

    ACTIVE = "active"
    NEXT = "next"
    RETIRING = "retiring"


class Root(msgspec.Struct, frozen=True):
    """A root as the rotation sees it: its slot, `since` when it is there, and when its certificate ends."""

    slot: Slot
    since: float
    not_after: float


class Step(StrEnum):
    """What is to be done with the roots."""

    PREPARE = "prepare"  # make a root and trust it
    ACTIVATE = "activate"  # sign with it
    RETIRE = "retire"  # trust the old one no longer


class Schedule(msgspec.Struct, frozen=True):
    """`root_lifetime` of the active root before a successor is prepared; `spread`: how long everybody may take to learn of a new
    bundle; `leaf_lifetime`: the longest that a certificate of the old root may live on.
    """

    root_lifetime: float
    spread: float
    leaf_lifetime: float


def renew_at(not_before: float, not_after: float, jitter: float) -> float:
    """When a leaf is renewed: at half its life, moved by up to a tenth of it either way; `jitter` is in 0 to 1."""
    return not_before + (not_after - not_before) * (0.4 + 0.2 * jitter)


def next_step(roots: Sequence[Root], schedule: Schedule, now: float) -> tuple[Step, float]:
    """The step that comes next and when it is due (in the past: now). There is always one active root."""
    by_slot = {root.slot: root for root in roots}
    if (retiring := by_slot.get(Slot.RETIRING)) is not None:
        # Leaves of the old root may live that long after it stopped signing; none outlives the root itself.
        return Step.RETIRE, min(retiring.since + schedule.leaf_lifetime + schedule.spread, retiring.not_after)
    if (waiting := by_slot.get(Slot.NEXT)) is not None:
        return Step.ACTIVATE, waiting.since + schedule.spread
    active = by_slot[Slot.ACTIVE]
    # Early enough that the successor is everywhere before the last leaves would be cut short by this root's own end.
    latest = active.not_after - 2 * (schedule.leaf_lifetime + schedule.spread)
    return Step.PREPARE, min(active.since + schedule.root_lifetime, max(latest, active.since))


def advance(roots: Sequence[Root], step: Step, now: float) -> list[Root | None]:
    """Each root after a step, in the given order (None: trusted no longer). `PREPARE` changes none: the new root is added."""
    changes: dict[Step, dict[Slot, Slot | None]] = {
        Step.PREPARE: {},
        Step.ACTIVATE: {Slot.ACTIVE: Slot.RETIRING, Slot.NEXT: Slot.ACTIVE},
        Step.RETIRE: {Slot.RETIRING: None},
    }
    change = changes[step]
    return [
        (Root(after, now, root.not_after) if (after := change[root.slot]) is not None else None) if root.slot in change else root
        for root in roots
    ]
