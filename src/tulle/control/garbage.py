"""Garbage collection by `metadata.ownerReferences`, as Kubernetes does it, and the end of namespaces that wait.

    store ──watch──▶ graph of owners and dependents ──▶ examine what changed ──▶ Objects.delete, finalizers taken off

- An object all of whose owners are gone goes too. One that still has an owner only loses the references to those that are gone.
- An owner that was deleted in the foreground goes after the dependents that block it; one that was to leave orphans goes after
  its dependents have forgotten it.
- An owner in another namespace is none: the dependent goes, and an Event says why. An owner of a kind that is not served here,
  or a namespaced owner of a cluster-scoped object, cannot be looked up: the dependent stays.

Nothing survives in here: the graph is made from the store at every start.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import msgspec
import structlog

from tulle.api.kind import Kind
from tulle.api.registry import kind_for, kind_of_resource
from tulle.control.apiserver import lists
from tulle.control.apiserver.apply import Manager, after_update
from tulle.control.apiserver.deletion import FOREGROUND, ORPHAN, Deletion, Policy
from tulle.control.apiserver.errors import Denial
from tulle.control.apiserver.objects import Objects
from tulle.control.apiserver.removal import NAMESPACES, end_namespace, finalizers, is_going, removal
from tulle.control.apiserver.table import timestamp
from tulle.control.apiserver.target import Target, Writing
from tulle.control.events import Events
from tulle.kit.errors import TulleError
from tulle.ports import Cause, Compacted, Conflict, Event, Key, Put, Store, Stored

log = structlog.get_logger("tulle.garbage")

Raw = dict[str, Any]

_NAME = "system:controller:garbage-collector"
_AGAIN = 1.0  # seconds until something that failed is tried again


class Owner(msgspec.Struct, frozen=True):
    """An owner reference: whom it names, and whether the owner waits for this dependent."""

    api_version: str
    kind: str
    name: str
    uid: str
    blocks: bool


class Node(msgspec.Struct):
    """An object as the graph knows it."""

    key: Key
    uid: str
    owners: tuple[Owner, ...]
    waits: bool  # deleted in the foreground or leaving orphans: to be looked at whenever a dependent changes


class _Metadata(msgspec.Struct):
    """What the graph is made of: all objects pass here, and nothing else of them is read."""

    uid: Any = None
    ownerReferences: Any = None
    finalizers: Any = None
    deletionTimestamp: Any = None


class _Object(msgspec.Struct):
    metadata: _Metadata


_read = msgspec.json.Decoder(_Object).decode


class Graph:
    """Who owns whom, by uid."""

    def __init__(self) -> None:
        self.nodes: dict[str, Node] = {}
        self.by_key: dict[Key, str] = {}
        self.dependents: dict[str, set[str]] = {}

    def put(self, key: Key, body: Mapping[str, Any]) -> tuple[Node | None, Node]:
        """Take in an object as it now is; the node before and the node after."""
        before = self.drop(key)
        metadata = body["metadata"]
        uid = str(metadata.get("uid") or key)
        held = finalizers(dict(body)) if metadata.get("deletionTimestamp") else []
        node = Node(key, uid, owners(body), FOREGROUND in held or ORPHAN in held)
        self.nodes[uid], self.by_key[key] = node, uid
        for owner in node.owners:
            self.dependents.setdefault(owner.uid, set()).add(uid)
        return before, node

    def drop(self, key: Key) -> Node | None:
        """Forget the object at a key; the node that it was."""
        uid = self.by_key.pop(key, None)
        node = self.nodes.pop(uid, None) if uid is not None else None
        for owner in node.owners if node is not None else ():
            dependents = self.dependents.get(owner.uid, set())
            dependents.discard(node.uid if node else "")
            if not dependents:
                self.dependents.pop(owner.uid, None)
        return node

    def of(self, uid: str) -> list[Node]:
        """The dependents of an owner."""
        return [self.nodes[one] for one in self.dependents.get(uid, ()) if one in self.nodes]


def owners(body: Mapping[str, Any]) -> tuple[Owner, ...]:
    """The owner references of an object."""
    found = body["metadata"].get("ownerReferences") or ()
    return tuple(
        Owner(str(one.get("apiVersion")), str(one.get("kind")), str(one.get("name")), str(one.get("uid")), blocks(one))
        for one in found
        if isinstance(one, dict)
    )


def blocks(reference: Mapping[str, Any]) -> bool:
    """Whether the owner waits for this dependent."""
    return reference.get("blockOwnerDeletion") is True


class GarbageCollector:
    """The controller. `events` tells of owners that cannot be."""

    def __init__(self, store: Store, objects: Objects, events: Events) -> None:
        self.store, self.objects, self.events = store, objects, events
        self.graph = Graph()
        self.position = 0  # the graph is the store's at this revision
        self._moved = asyncio.Event()
        self._work: dict[str | Key, None] = {}  # uids to examine, and keys of namespaces to end, in order
        self._some = asyncio.Event()
        self.idle = asyncio.Event()  # set while there is nothing to do

    async def run(self) -> None:
        """Collect until cancelled."""
        while True:
            self.graph, self._work = Graph(), {}
            found, self.position = await self.store.list()
            for one in found:
                self._learn(one.key, one.json)
            try:
                async with asyncio.TaskGroup() as group:
                    group.create_task(self._follow(self.position))
                    group.create_task(self._examine_all())
            except* Compacted:
                log.warning("too many changes at once; beginning anew")

    async def _follow(self, since: int) -> None:
        async for event in self.store.watch(since):
            self._take(event)
            self.position = event.revision
            self._moved.set()
            self._moved.clear()

    def _take(self, event: Event) -> None:
        if (json := event.json) is not None:
            self._learn(event.key, json)
            return
        before = self.graph.drop(event.key)
        if before is not None:
            for dependent in self.graph.of(before.uid):
                self._enqueue(dependent.uid)
            self._enqueue_waiting(before.owners)
        space = self.graph.by_key.get(Key(NAMESPACES, "", event.key.namespace))
        if space is not None and _is_ours(event.key):
            self._enqueue(Key(NAMESPACES, "", event.key.namespace))

    def _learn(self, key: Key, json: bytes) -> None:
        if not _is_ours(key):
            return
        body = {"metadata": msgspec.structs.asdict(_read(json).metadata)}
        before, node = self.graph.put(key, body)
        if node.waits or (node.owners and (before is None or before.owners != node.owners)):
            self._enqueue(node.uid)
        if before is not None and before.owners != node.owners:
            self._enqueue_waiting(before.owners)
        if key.resource == NAMESPACES and body["metadata"].get("deletionTimestamp"):
            self._enqueue(key)

    def _enqueue_waiting(self, wanted: Iterable[Owner]) -> None:
        for owner in wanted:
            node = self.graph.nodes.get(owner.uid)
            if node is not None and node.waits:
                self._enqueue(node.uid)

    def _enqueue(self, what: str | Key) -> None:
        self._work[what] = None
        self.idle.clear()
        self._some.set()

    async def _examine_all(self) -> None:
        while True:
            if not self._work:
                self.idle.set()
                self._some.clear()
                await self._some.wait()
            what = next(iter(self._work))
            del self._work[what]
            try:
                if isinstance(what, Key):
                    await self._end(what)
                else:
                    await self._examine(what)
            except Conflict:
                asyncio.get_running_loop().call_later(_AGAIN, self._enqueue, what)
            except Denial as denial:
                if denial.http == 409:  # it has changed meanwhile
                    asyncio.get_running_loop().call_later(_AGAIN, self._enqueue, what)
                elif denial.http != 404:
                    log.warning("garbage stays", error=str(denial))
            except TulleError as error:
                log.warning("garbage is not collected", error=error.message)
                asyncio.get_running_loop().call_later(_AGAIN, self._enqueue, what)

    async def _end(self, space: Key) -> None:
        stored = await self.store.get(space)
        if stored is not None and is_going(stored.body):
            await end_namespace(self.store, space.name, self.objects.now(), self._cause("delete"))

    async def _examine(self, uid: str) -> None:
        """Look at an object as it is now, and do what its owners or its dependents ask for."""
        node = self.graph.nodes.get(uid)
        stored = await self.store.get(node.key) if node is not None else None
        if stored is None or stored.body["metadata"].get("uid") != uid:
            return  # gone; what happened meanwhile comes as an event
        if not is_going(stored.body):
            await self._owned(stored)
        elif FOREGROUND in finalizers(stored.body):
            await self._foreground(stored, uid)
        elif ORPHAN in finalizers(stored.body):
            await self._orphan(stored, uid)

    async def _owned(self, stored: Stored) -> None:
        solid: list[Owner] = []
        waiting = False
        for owner in owners(stored.body):
            state = await self._state(stored, owner)
            waiting |= state == "waiting"
            if state == "solid":
                solid.append(owner)
        if not owners(stored.body):
            return
        if solid:
            kept = {owner.uid for owner in solid}
            if len(solid) < len(owners(stored.body)):
                await self._forget(stored, lambda reference: reference.get("uid") in kept)
            return
        policy: Policy = "Background"
        if ORPHAN in finalizers(stored.body):
            policy = "Orphan"
        elif FOREGROUND in finalizers(stored.body) or (waiting and self.graph.of(str(stored.body["metadata"].get("uid")))):
            policy = "Foreground"
            await self._break_circle(stored)
        asked = Deletion(policy, stored.body["metadata"].get("uid"), str(stored.revision))
        target = _target(stored)
        if target is not None:
            await self.objects.delete(target, asked, Writing(_NAME, cause=self._cause("delete")))

    async def _state(self, dependent: Stored, owner: Owner) -> str:
        """`solid`: it is there, or nobody can say; `waiting`: it goes when its dependents are gone; `gone`."""
        kind = kind_for(owner.api_version.rpartition("/")[0], owner.kind)
        namespace = dependent.key.namespace
        if kind is None:
            return "solid"
        if kind.namespaced and not namespace:
            await self._tell(dependent, owner, "a cluster-scoped object cannot have an owner in a namespace")
            return "solid"
        found = await self.store.get(Key(kind.resource, namespace if kind.namespaced else "", owner.name))
        if found is None or found.body["metadata"].get("uid") != owner.uid:
            elsewhere = self.graph.nodes.get(owner.uid)
            if elsewhere is not None and elsewhere.key.namespace not in ("", namespace):
                await self._tell(dependent, owner, f"it does not exist in namespace {namespace}")
            return "gone"
        return "waiting" if is_going(found.body) and FOREGROUND in finalizers(found.body) else "solid"

    async def _tell(self, dependent: Stored, owner: Owner, why: str) -> None:
        message = f"ownerRef [{owner.api_version}/{owner.kind}, name: {owner.name}, uid: {owner.uid}]: {why}"
        await self.events.record(dependent.body, "Warning", "OwnerRefInvalidNamespace", message)

    async def _break_circle(self, stored: Stored) -> None:
        """Dependents that wait for this object while it waits for them would wait for ever."""
        uid = str(stored.body["metadata"].get("uid"))
        for node in self.graph.of(uid):
            dependent = await self.store.get(node.key)
            if dependent is not None and is_going(dependent.body) and FOREGROUND in finalizers(dependent.body):
                references = [
                    {**one, "blockOwnerDeletion": False} if one.get("uid") == uid else one
                    for one in dependent.body["metadata"].get("ownerReferences") or ()
                ]
                await self._amend(dependent, "ownerReferences", references)

    async def _foreground(self, stored: Stored, uid: str) -> None:
        await self._caught_up()
        dependents = self.graph.of(uid)
        if not any(owner.blocks for node in dependents for owner in node.owners if owner.uid == uid):
            await self._unhold(stored, FOREGROUND)
            return
        for node in dependents:
            if not node.waits:
                self._enqueue(node.uid)

    async def _orphan(self, stored: Stored, uid: str) -> None:
        await self._caught_up()
        for node in self.graph.of(uid):
            dependent = await self.store.get(node.key)
            if dependent is not None:
                await self._forget(dependent, lambda reference: reference.get("uid") != uid)
        await self._unhold(stored, ORPHAN)

    async def _caught_up(self) -> None:
        """Wait until the graph has everything that was in the store when this was called."""
        _, revision = await self.store.list("_none")
        while self.position < revision:
            await self._moved.wait()

    async def _forget(self, dependent: Stored, keep: Callable[[Raw], bool]) -> None:
        references = dependent.body["metadata"].get("ownerReferences") or []
        await self._amend(dependent, "ownerReferences", [one for one in references if keep(one)])

    async def _unhold(self, stored: Stored, finalizer: str) -> None:
        left = [one for one in finalizers(stored.body) if one != finalizer]
        if left or stored.key.resource == NAMESPACES:
            await self._amend(stored, "finalizers", left)
        else:
            await self.store.write(removal(stored), self._cause("delete"))

    async def _amend(self, stored: Stored, field: str, values: list[Any]) -> None:
        """Write another list into an object's metadata. Not checked: an object of an older version must be able to go."""
        before = stored.body
        metadata = {**before["metadata"], field: values}
        if not values:
            del metadata[field]
        if metadata == before["metadata"]:
            return
        body = {**before, "metadata": metadata}
        kind = _kind(stored)
        if kind is not None and "managedFields" in metadata:
            manager = Manager(_NAME, str(before.get("apiVersion")), "", timestamp(self.objects.now()))
            metadata["managedFields"] = after_update(before, body, manager, lists.applied(kind))
        await self.store.write([Put(stored.key, body, expect=stored.revision)], self._cause("update"))

    def _cause(self, verb: str) -> Cause:
        return Cause(_NAME, "", self.objects.now(), verb)


def _is_ours(key: Key) -> bool:
    """Whether garbage collection looks at these: not what the mesh notes for itself, nor Events, which go by themselves."""
    return not key.resource.startswith("_") and key.resource != "events"


def _kind(stored: Stored) -> Kind | None:
    return kind_of_resource(stored.key.resource)


def _target(stored: Stored) -> Target | None:
    kind = _kind(stored)
    return None if kind is None else Target(kind, kind.versions[0], stored.key.namespace, stored.key.name)
