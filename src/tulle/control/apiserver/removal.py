"""How objects go: at once, or after their finalizers; and with a namespace all that is in it.

An object with finalizers is marked with the time at which it was asked to go, and goes when the last of them is taken off. A
namespace is marked first, so that nothing new comes into it, then emptied, and goes when it is empty.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tulle.control.apiserver import admission
from tulle.control.apiserver.table import timestamp
from tulle.ports import Cause, Conflict, Delete, Key, Put, Store, Stored

Raw = dict[str, Any]

NAMESPACES = "namespaces"
_BATCH = 500  # objects in one transaction


def is_going(body: Raw) -> bool:
    """Whether the object was asked to go."""
    return bool(body["metadata"].get("deletionTimestamp"))


def finalizers(body: Raw) -> list[str]:
    """What holds an object back."""
    found = body["metadata"].get("finalizers")
    return list(found) if isinstance(found, list) else []


def removal(stored: Stored) -> list[Put | Delete]:
    """The operations that delete an object."""
    operations: list[Put | Delete] = [Delete(stored.key, expect=stored.revision)]
    if stored.key.resource == "services":
        operations += admission.hold(stored.body, None, stored.key)
    return operations


def marked(body: Raw, held_by: Sequence[str], now: float) -> Raw:
    """The object with the mark that it is to go, and the finalizers that hold it."""
    metadata = {**body["metadata"], "finalizers": list(held_by)}
    if not held_by:
        del metadata["finalizers"]
    if not metadata.get("deletionTimestamp"):
        metadata["deletionTimestamp"] = timestamp(now)
        metadata["deletionGracePeriodSeconds"] = 0
        if metadata.get("generation"):
            metadata["generation"] += 1
    result = {**body, "metadata": metadata}
    if body.get("kind") == "Namespace":
        result["status"] = {**(body.get("status") or {}), "phase": "Terminating"}
    return result


async def end_namespace(store: Store, name: str, now: float, cause: Cause | None) -> bool:
    """Empty a namespace that is marked, and remove it where that leaves nothing in it; whether it is gone."""
    content, _ = await store.list(None, name)
    await _empty(store, [one for one in content if not one.key.resource.startswith("_")], now, cause)
    left, _ = await store.list(None, name)
    held = [one for one in left if not one.key.resource.startswith("_")]
    space = await store.get(Key(NAMESPACES, "", name))
    if space is None or not is_going(space.body):
        return space is None
    if not held and not finalizers(space.body):
        try:
            await store.write(removal(space), cause)
        except Conflict:
            return await store.get(space.key) is None
        return True
    await _tell(store, space, held, now)
    return False


async def _empty(store: Store, content: Sequence[Stored], now: float, cause: Cause | None) -> None:
    """Delete the objects, or mark them where finalizers hold them. What changes meanwhile is left for the next turn."""
    steps = []
    for one in content:
        if not finalizers(one.body):
            steps.append(removal(one))
        elif not is_going(one.body):
            steps.append([Put(one.key, marked(one.body, finalizers(one.body), now), expect=one.revision)])
    for first in range(0, len(steps), _BATCH):
        batch = steps[first : first + _BATCH]
        try:
            await store.write([operation for step in batch for operation in step], cause)
        except Conflict:
            for step in batch:
                try:
                    await store.write(step, cause)
                except Conflict:
                    continue


async def _tell(store: Store, space: Stored, held: Sequence[Stored], now: float) -> None:
    """Say in the namespace's status what it waits for."""
    names = sorted({finalizer for one in held for finalizer in finalizers(one.body)})
    message = (
        f"{len(held)} object{'' if len(held) == 1 else 's'} in the namespace remain; finalizers: {', '.join(names) or 'none'}"
    )
    status = space.body.get("status") or {}
    conditions = [one for one in status.get("conditions") or () if one.get("type") != "NamespaceContentRemaining"]
    before: Raw = next((one for one in status.get("conditions") or () if one.get("type") == "NamespaceContentRemaining"), {})
    if before.get("message") == message:
        return
    conditions.append(
        {
            "type": "NamespaceContentRemaining",
            "status": "True",
            "reason": "SomeResourcesRemain",
            "message": message,
            "lastTransitionTime": before.get("lastTransitionTime") or timestamp(now),
        }
    )
    body = {**space.body, "status": {**status, "conditions": conditions}}
    try:
        await store.write([Put(space.key, body, expect=space.revision)])
    except Conflict:
        return
