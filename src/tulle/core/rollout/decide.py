"""A rollout as it stands, and what is seen of it now → as it stands then. Pure: the playbook of `control/rollouts.py`.

    Waiting ─▶ Progressing ─▶ (Promoting ─▶) Finalising ─▶ Succeeded
                    └─▶ Failed, Paused: all of the traffic is the stable version's

What it decides is written down (in the object's status) before it is done, so that whoever goes on after a crash does the same:
`weight` is what the candidate is to have, `was` what it had before. A weight that is neither is somebody else's doing: it is
left as it is. Webhooks are asked before a decision that waits for them, and again after a crash (`hooks`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import msgspec

from tulle.core.rollout.hooks import Answer, agreed, heard
from tulle.core.rollout.judge import Traffic, judge
from tulle.core.rollout.plan import WHOLE, Plan
from tulle.core.rollout.queries import Measured, Reading, measured

Phase = Literal["Waiting", "Progressing", "Promoting", "Finalising", "Succeeded", "Failed", "Paused", "Terminating"]
ACTIVE = ("Progressing", "Promoting")
PROMOTE, ABORT, RESUME = "promote", "abort", "resume"
_SILENT = 3.0  # times the interval, and
_LAST = 10.0  # seconds that a deleted one waits for proxies
_PATIENCE = 30.0  # seconds at least, without a word of any proxy: that is a loss of telemetry


class State(msgspec.Struct, frozen=True):
    """How far a rollout is. Times are seconds since the epoch; `checked` is when the last check was, or the last change.

    `confirmed`: it may begin, as far as confirm-rollout webhooks are asked. `owed`: post-rollout webhooks are still to be called.
    `mirror` is the backend that the route copies requests to because of it, `mirroring` whether that is to be written, is there,
    or is to be taken away.
    """

    identity: str = ""
    phase: Phase = "Waiting"
    weight: int = 0
    was: int = 0
    step: int = 0
    rounds: int = 0
    failed: int = 0
    started: float = 0.0
    checked: float = 0.0
    answered: str = ""
    message: str = ""
    confirmed: bool = False
    owed: bool = False
    mirror: str = ""
    mirroring: Literal["", "Wanted", "There", "Unwanted"] = ""
    bad: float = 0.0
    turned: float = 0.0
    acknowledged: float = 0.0

    @property
    def turning(self) -> bool:
        """Whether a roll-back has not come to every proxy yet, as far as is known."""
        return bool(self.turned) and not self.acknowledged


def point(state: State) -> str:
    """The moment of its life at which it is: what webhooks answer is about this one."""
    return f"{state.identity}/{state.phase}/{state.step}/{state.confirmed}/{state.checked:.3f}"


class Seen(msgspec.Struct, frozen=True):
    """What is seen now. `weight`: what the route gives the candidate (None: `trouble` says why that is not known).

    `refused` says why it cannot be done at all. `healthy`: instances of the candidate that take traffic (None: not known).
    Traffic is that since `State.checked`; `heard` is when a proxy last told of any. `command` is what a person asked for, with
    the time that makes it another than the last one. `answers`: those of webhooks at this point of it, by name,
    `readings` those of Prometheus. `backend`: how the route names the candidate; `mirrored`: whether it copies requests to that,
    or to `State.mirror`. `acknowledged`: every proxy has the route as it is. `others`: until when it is known what the nodes of
    each of the other control planes have reported. `since`: when whoever looks began to; it has heard nothing before.
    """

    weight: int | None
    trouble: str = ""
    healthy: int | None = None
    stable: Traffic = Traffic()
    candidate: Traffic = Traffic()
    heard: float = 0.0
    deleted: bool = False
    refused: str = ""
    command: str = ""
    answers: Mapping[str, Answer] = {}
    readings: Mapping[str, Reading] = {}
    backend: str = ""
    mirrored: bool = False
    acknowledged: bool = False
    others: Mapping[str, float] = {}
    since: float = 0.0


class Note(msgspec.Struct, frozen=True):
    """What is worth an Event."""

    reason: str
    message: str
    bad: bool = False


class Decision(msgspec.Struct, frozen=True):
    """How it stands now. `over`: a deleted rollout may go. `asks`: webhooks that are to be asked, once the state is written,
    `queries` metrics that Prometheus is.
    """

    state: State
    notes: tuple[Note, ...] = ()
    over: bool = False
    asks: tuple[str, ...] = ()
    queries: tuple[str, ...] = ()


def decide(plan: Plan, state: State, seen: Seen, now: float) -> Decision:
    """What follows from what is seen."""
    if state.mirroring == "Wanted" and seen.mirrored:
        state = msgspec.structs.replace(state, mirroring="There", checked=now)
    if state.mirroring == "Unwanted" and not seen.mirrored:
        state = msgspec.structs.replace(state, mirror="", mirroring="")
    state, told = _acknowledged(state, seen, now)
    found = _decided(plan, state, seen, now)
    if told:
        found = msgspec.structs.replace(found, notes=(*told, *found.notes))
    done = found.state
    if done.mirroring in ("Wanted", "There") and not (done.phase in ACTIVE and done.step < plan.mirrored):
        found = msgspec.structs.replace(found, state=msgspec.structs.replace(done, mirroring="Unwanted"))
    if found.state.phase == state.phase:
        return found
    owed = found.state.phase in ("Succeeded", "Failed") and any(hook.type == "post-rollout" for hook in plan.hooks)
    return msgspec.structs.replace(found, state=msgspec.structs.replace(found.state, owed=owed))


def _acknowledged(state: State, seen: Seen, now: float) -> tuple[State, tuple[Note, ...]]:
    """Every proxy has the roll-back: how long that took is told."""
    if not (state.turning and seen.acknowledged and seen.weight == state.weight):
        return state, ()
    took = f"{max(0.0, now - state.turned):.2f} s"
    since = f", {now - state.bad:.2f} s after the first bad window" if state.bad < state.turned else ""
    message = f"{state.message}; every proxy had it {took} later{since}"
    note = Note("Acknowledged", f"every proxy has the roll-back, {took} after it was decided{since}")
    return msgspec.structs.replace(state, acknowledged=now, message=message), (note,)


def _decided(plan: Plan, state: State, seen: Seen, now: float) -> Decision:
    if now < state.checked:  # the clock went back: nothing is hurried by it
        state = msgspec.structs.replace(state, checked=now, started=min(state.started, now))
    if seen.weight == state.weight != state.was:
        state = msgspec.structs.replace(state, was=state.weight)
    if seen.deleted:
        return _deleted(state, seen, now)
    if seen.refused:
        return _back(state, "Failed", seen.refused, now) if state.phase in ACTIVE else Decision(state)
    if seen.weight is None:
        return Decision(_said(state, seen.trouble))
    if state.identity != plan.identity:
        return _anew(plan, state, seen, now)
    if seen.command not in ("", state.answered):
        return _told(plan, state, seen, now)
    if plan.suspend and state.phase not in ("Paused", "Succeeded", "Failed"):
        return _back(state, "Paused", "it is suspended", now)
    if state.phase == "Paused":
        return (
            Decision(state)
            if plan.suspend or state.message.startswith((_FOREIGN, _UNMIRRORED))
            else _anew(plan, state, seen, now)
        )
    if state.phase == "Finalising" and seen.weight == state.weight:
        message = f"{plan.identity.partition(' by ')[0]}: all of the traffic is the candidate's"
        return _moved(state, now, Note("Succeeded", message), phase="Succeeded", message=message)
    if state.phase in ("Succeeded", "Failed", "Finalising"):
        return _told_of_its_end(plan, state, seen, now) if state.owed else Decision(state)
    if seen.weight not in (state.weight, state.was):
        message = (
            f"{_FOREIGN}: the candidate has {seen.weight}% where {state.weight}% was written; `tulle rollout resume` goes on"
        )
        return _moved(state, now, Note("Paused", message, bad=True), phase="Paused", message=message)
    if state.mirroring == "There" and not seen.mirrored:
        message = f"{_UNMIRRORED}: no requests are copied to {state.mirror}; `tulle rollout resume` goes on"
        return _moved(state, now, Note("Paused", message, bad=True), phase="Paused", message=message, mirror="", mirroring="")
    return _going(plan, state, seen, now)


_FOREIGN = "somebody else changed the weights"
_UNMIRRORED = "somebody else took the mirror away"


def _told_of_its_end(plan: Plan, state: State, seen: Seen, now: float) -> Decision:
    """Whatever post-rollout webhooks answer, it is over."""
    said = heard(plan.hooks, seen.answers, now, plan.interval, "post-rollout")
    return Decision(state, asks=said.asks) if said.pending else Decision(msgspec.structs.replace(state, owed=False))


def _going(plan: Plan, state: State, seen: Seen, now: float) -> Decision:
    for name in agreed(plan.hooks, seen.answers, "rollback"):
        return _back(state, "Failed", f"webhook {name} (rollback) asks for it", now)
    if state.phase == "Waiting":
        return _beginning(plan, state, seen, now)
    if seen.healthy == 0:
        return _back(state, "Failed", "the candidate has no healthy instance", now)
    if plan.deadline is not None and now - state.started > plan.deadline:
        return _back(state, "Failed", f"it is not through after {plan.deadline:g} s", now)
    patience = max(_PATIENCE, _SILENT * plan.interval)
    begun = max(seen.since, state.checked)
    if plan.checks and now - max(seen.heard, begun) > patience:
        return _back(state, "Failed", "telemetry has vanished: no proxy has told of any request", now)
    silent = [name for name, at in sorted(seen.others.items()) if now - max(at, begun) > patience]
    if plan.checks and silent:
        why = f"control plane {' and '.join(silent)} does not tell what its nodes report"
        return _back(state, "Failed", f"telemetry has vanished: {why}", now)
    always = heard(plan.hooks, seen.answers, now, plan.interval, "rollback", "load-test").asks
    if now - state.checked < plan.interval or seen.weight != state.weight or state.mirroring == "Wanted":
        return Decision(state, asks=always)  # a step that is not in the route yet is none
    numbers = measured(plan.queries, seen.readings, now, plan.interval, patience)
    if numbers.vanished:
        return _back(state, "Failed", f"telemetry has vanished: {'; '.join(numbers.vanished)}", now)
    return _checked(plan, state, seen, numbers, now, always)


def _checked(plan: Plan, state: State, seen: Seen, numbers: Measured, now: float, always: tuple[str, ...]) -> Decision:
    """An interval is over."""
    verdicts = [judge(check, seen.stable, seen.candidate) for check in plan.checks]
    said = heard(plan.hooks, seen.answers, now, plan.interval, "rollout")
    bad = [*(one.sentence for one in verdicts if one.good is False), *numbers.bad, *said.refused]
    if bad:
        return _failed(plan, state, "; ".join(bad), now)
    late = [name for name, at in sorted(seen.others.items()) if plan.checks and at < state.checked + plan.interval]
    untold = [f"waits for what the nodes of control plane {name} report" for name in late]
    unknown = [*(one.sentence for one in verdicts if one.good is None), *numbers.unknown, *said.pending, *untold]
    if unknown:
        return Decision(_said(state, "; ".join(unknown)), asks=(*always, *said.asks), queries=numbers.asks)
    if state.rounds + 1 < plan.rounds:
        message = f"check {state.rounds + 1} of {plan.rounds} passed"
        return _moved(state, now, None, rounds=state.rounds + 1, message=message)
    gate = heard(plan.hooks, seen.answers, now, plan.interval, *_gates(plan, state, state.step + 1))
    if gate.refused:  # measured anew, for it may stay so for long
        return _moved(state, now, None, message=gate.sentence)
    if gate.pending:
        return Decision(_said(state, gate.sentence), asks=(*always, *gate.asks))
    return _step(plan, state, state.step + 1, now)


def _failed(plan: Plan, state: State, why: str, now: float) -> Decision:
    """A check that has failed: one of so many."""
    failed, bad = state.failed + 1, state.bad or now
    if failed >= plan.threshold:
        return _back(msgspec.structs.replace(state, failed=failed, bad=bad), "Failed", why, now)
    note = Note("CheckFailed", f"{why} ({failed} of {plan.threshold})", bad=True)
    return _moved(state, now, note, failed=failed, bad=bad, message=note.message)


def _beginning(plan: Plan, state: State, seen: Seen, now: float) -> Decision:
    """Nothing has any traffic yet: an instance is needed, and the word of those who are asked before."""
    always = heard(plan.hooks, seen.answers, now, plan.interval, "rollback").asks
    if plan.mirrored and seen.mirrored:
        whose = "this rollout's, which goes first" if state.mirroring else f"somebody else's; needed none to {seen.backend}"
        return Decision(_said(state, f"the route copies requests already: the mirror is {whose}"), asks=always)
    if seen.healthy == 0:
        return Decision(_said(state, "waits for an instance of the candidate"), asks=always)
    if not state.confirmed:
        gate = heard(plan.hooks, seen.answers, now, plan.interval, "confirm-rollout")
        if gate.sentence:
            return Decision(_said(state, gate.sentence), asks=(*always, *gate.asks))
        if plan.hooks:  # written down, so that it is not asked again
            return Decision(msgspec.structs.replace(state, confirmed=True))
    if state.failed and now - state.checked < plan.interval:
        return Decision(state, asks=always)
    before = heard(plan.hooks, seen.answers, now, plan.interval, "pre-rollout")
    if before.refused:
        return _failed(plan, state, "; ".join(before.refused), now)
    if before.pending:
        return Decision(_said(state, before.sentence), asks=(*always, *before.asks))
    gate = heard(plan.hooks, seen.answers, now, plan.interval, *_gates(plan, state, 0))
    if gate.sentence:
        return Decision(_said(state, gate.sentence), asks=(*always, *gate.asks))
    if plan.mirrored:
        state = msgspec.structs.replace(state, mirror=seen.backend, mirroring="Wanted")
    return _step(plan, state, 0, now)


def _gates(plan: Plan, state: State, step: int) -> tuple[str, ...]:
    """Which webhooks have to agree to a step."""
    weight = plan.weights[step] if step < len(plan.weights) else WHOLE
    return tuple(
        kind
        for kind, needed in (
            ("confirm-traffic-increase", weight > state.weight),
            ("confirm-promotion", step == plan.promoted),
        )
        if needed
    )


def _step(plan: Plan, state: State, step: int, now: float) -> Decision:
    """The weight of a step, or all of the traffic after the last."""
    if step >= len(plan.weights):
        message = "all of the traffic goes to the candidate"
        return _moved(state, now, Note("Promoted", message), phase="Finalising", weight=WHOLE, step=step, message=message)
    phase: Phase = "Progressing" if step < plan.promoted else "Promoting"
    gets = "copies of requests" if step < plan.mirrored else f"{plan.weights[step]}%"
    message = f"step {step + 1} of {len(plan.weights)}: the candidate gets {gets}"
    return _moved(state, now, Note(phase, message), phase=phase, weight=plan.weights[step], step=step, rounds=0, message=message)


def _anew(plan: Plan, state: State, seen: Seen, now: float) -> Decision:
    """From the start: the stable version has all of the traffic until an instance of the candidate is there."""
    phase: Phase = "Paused" if plan.suspend else "Waiting"
    began = State(
        identity=plan.identity,
        phase=phase,
        was=seen.weight or 0,
        started=now,
        checked=now,
        answered=seen.command,
        mirror=state.mirror,  # of what was before: it is taken away yet
        mirroring=state.mirroring,
    )
    if plan.suspend:
        return Decision(_said(began, "it is suspended"), (Note("Paused", "it is suspended"),))
    return Decision(_said(began, "begins"), (Note("Started", f"{plan.identity}: begins"),))


def _told(plan: Plan, state: State, seen: Seen, now: float) -> Decision:
    """What a person asked for."""
    state = msgspec.structs.replace(state, answered=seen.command)
    word = seen.command.partition(" ")[0]
    if word == RESUME and state.phase in ("Paused", "Failed"):
        return _anew(plan, state, seen, now)
    if word == PROMOTE and plan.suspend:
        return Decision(_said(state, "it is suspended, so it is not promoted; needed spec.suspend false"))
    if word == PROMOTE and state.phase not in ("Succeeded", "Finalising"):
        state = msgspec.structs.replace(state, was=seen.weight or 0)
        return _step(plan, state, len(plan.weights), now)
    if word == ABORT and state.phase != "Failed":
        state = msgspec.structs.replace(state, was=seen.weight or 0)
        return _back(state, "Failed", "somebody asked for it", now)
    return Decision(state)


def _back(state: State, phase: Phase, why: str, now: float) -> Decision:
    """All of the traffic is the stable version's again, at once."""
    message = f"{why}: all of the traffic goes to the stable version"
    reason = {"Paused": "Paused", "Terminating": "Deleted"}.get(phase, "RolledBack")
    turned = {"bad": state.bad or now, "turned": now, "acknowledged": 0.0} if state.weight or state.was else {}
    note = Note(reason, message, bad=phase == "Failed")
    return _moved(state, now, note, phase=phase, weight=0, message=message, **turned)


def _deleted(state: State, seen: Seen, now: float) -> Decision:
    """What has not succeeded leaves nothing on the candidate, and goes once every proxy knows of that, or does not answer."""
    kept = not state.identity or state.phase in ("Succeeded", "Finalising") or seen.weight not in (state.weight, state.was)
    if (kept or seen.weight == 0) and not state.mirroring:
        return Decision(state, over=not (state.phase == "Terminating" and state.turning and 0 <= now - state.turned < _LAST))
    if kept:
        return Decision(msgspec.structs.replace(state, mirroring="Unwanted"))
    if state.phase == "Terminating":
        return Decision(state)
    return _back(state, "Terminating", "deleted", now)


def _moved(state: State, now: float, note: Note | None, **changes: object) -> Decision:
    """The state with something else, checked now. `was` stays: it is what the route has until the new weight is there."""
    return Decision(msgspec.structs.replace(state, checked=now, **changes), () if note is None else (note,))


def _said(state: State, message: str) -> State:
    return msgspec.structs.replace(state, message=message)
