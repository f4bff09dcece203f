"""A rollout's state as its object's status says it, and back. Pure."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from tulle.api.own.status import RolloutStatus
from tulle.core.rollout.decide import State

Raw = dict[str, Any]


def state_of(status: RolloutStatus | None) -> State:
    """How far a rollout is, as its status says."""
    if status is None or status.phase is None:
        return State(message=status.message if status else "")
    return State(
        identity=status.change,
        phase=status.phase,
        weight=status.weight or 0,
        was=status.previous_weight or 0,
        step=status.step or 0,
        rounds=status.iterations or 0,
        failed=status.failed_checks or 0,
        started=_seconds(status.started_at),
        checked=_seconds(status.checked_at),
        answered=status.answered,
        message=status.message,
        confirmed=status.confirmed,
        owed=status.post_rollout_due,
        mirror=status.mirror,
        mirroring=status.mirroring,
        bad=_seconds(status.bad_since),
        turned=_seconds(status.rolled_back_at),
        acknowledged=_seconds(status.acknowledged_at),
    )


def status_of(state: State, generation: int, accepted: Raw) -> Raw:
    """The status that says so, with one condition."""
    found: Raw = {
        "observedGeneration": generation,
        "change": state.identity,
        "weight": state.weight,
        "previousWeight": state.was,
        "step": state.step,
        "iterations": state.rounds,
        "failedChecks": state.failed,
        "answered": state.answered,
        "message": state.message,
        "confirmed": state.confirmed,
        "postRolloutDue": state.owed,
        "mirror": state.mirror,
        "mirroring": state.mirroring,
        "conditions": [accepted],
    }
    if state.identity:
        found |= {"phase": state.phase, "startedAt": _time(state.started), "checkedAt": _time(state.checked)}
    times = {"badSince": state.bad, "rolledBackAt": state.turned, "acknowledgedAt": state.acknowledged}
    return found | {name: _time(at) for name, at in times.items() if at}


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _seconds(time: str | None) -> float:
    return datetime.fromisoformat(time.replace("Z", "+00:00")).timestamp() if time else 0.0
