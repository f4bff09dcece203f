"""A computed status over the one that stands → the status to write. Pure: time and generation are arguments.

What is not ours stays: conditions of other types, and the entries of other controllers among parents and ancestors. A condition
keeps its time while its status stays the same.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from tulle.core.compile.gateway_workloads import CONTROLLER
from tulle.core.status.rows import PENDING, Condition, Part, Status

Raw = dict[str, Any]

# Every type of condition that we write anywhere; one of another type is somebody else's.
OURS = frozenset(
    {
        "Accepted",
        "Programmed",
        "ResolvedRefs",
        "Conflicted",
        "PartiallyInvalid",
        "SupportedVersion",
        "Reconciled",
        "PassedAnalysis",
    }
)
# By what an item of a list is found again.
_NAMES = {"listeners": "name", "parents": "parentRef", "ancestors": "ancestorRef"}
_MOST = {"listeners": 64, "parents": 32, "ancestors": 16}
_MOST_CONDITIONS = 8
_LONGEST = 32_768  # characters of a message


def merged(old: Mapping[str, Any] | None, new: Status | None, generation: int, now: str) -> Raw:
    """The status to write; equal to `old` where nothing is to be written. `now` is RFC 3339.

    `new` None says that nothing of the status is ours: what we once wrote among others' entries goes. The parts of it that tell
    nobody's from ours apart (parents, ancestors) are cleaned; conditions of an object that became another's are left to it.
    """
    before: Raw = dict(old or {})
    if new is None:
        for name in ("parents", "ancestors"):
            if isinstance(before.get(name), list):
                before[name] = _others(before[name])
        return before
    after = {**before, **new.fields}
    if new.conditions:
        after["conditions"] = _conditions(_list(before.get("conditions")), new.conditions, generation, now)
    for name, parts in new.parts.items():
        items = _parts(name, _list(before.get(name)), parts, generation, now)
        if items or name in before:
            after[name] = items
    if new.numbered:
        after["observedGeneration"] = max(generation, _number(before.get("observedGeneration")))
    return {key: value for key, value in after.items() if value != [] or before.get(key) == [] or key in ("parents", "ancestors")}


def _parts(name: str, before: Sequence[Raw], parts: Sequence[Part], generation: int, now: str) -> list[Raw]:
    owned = name != "listeners"
    others = _others(before) if owned else []
    mine = {_name(name, one): one for one in before if one not in others}
    items = []
    for part in parts:
        old = mine.get(_name(name, part.fields), {})
        conditions = _conditions(_list(old.get("conditions")), part.conditions, generation, now)
        items.append({**part.fields, "conditions": conditions})
    return [*others, *items][: _MOST[name]]


def _others(items: Sequence[Any]) -> list[Raw]:
    return [one for one in items if not (isinstance(one, dict) and one.get("controllerName") == CONTROLLER)]


def _name(kind: str, item: Mapping[str, Any]) -> str:
    return json.dumps(item.get(_NAMES[kind]), sort_keys=True)


def _conditions(before: Sequence[Raw], new: Sequence[Condition], generation: int, now: str) -> list[Raw]:
    """Where a condition stood it stands again; new ones come after, and those of ours that are said no longer go."""
    made = {one.type: one for one in new}
    result: list[Raw] = []
    for old in before:
        if (condition := made.pop(str(old.get("type")), None)) is not None:
            result.append(_condition(old, condition, generation, now))
        elif old.get("type") not in OURS:
            result.append(old)
    result += (_condition({}, condition, generation, now) for condition in made.values())
    return result[: max(_MOST_CONDITIONS, len(before))]


def _condition(old: Mapping[str, Any], new: Condition, generation: int, now: str) -> Raw:
    seen = _number(old.get("observedGeneration"))
    if seen > generation:
        return dict(old)  # somebody knows a newer object than we do
    if seen == generation and old.get("status") == "True":
        if new.reason == PENDING:
            return dict(old)
        if new.kept and new.status == "True" and old.get("reason") == new.reason:
            return dict(old)
    return {
        "type": new.type,
        "status": new.status,
        "reason": new.reason,
        "message": new.message[:_LONGEST],
        "observedGeneration": generation,
        "lastTransitionTime": old["lastTransitionTime"]
        if old.get("status") == new.status and "lastTransitionTime" in old
        else now,
    }


def _list(value: Any) -> list[Raw]:
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []


def _number(value: Any) -> int:
    try:
        return int(value)
    except (TypeError, ValueError):
        return 0
