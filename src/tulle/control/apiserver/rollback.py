"""Rollback: one object, or the whole mesh, as it was at an earlier revision, in one transaction.

    history (who changed what since) ──▶ plan: create, update, delete ──▶ checked as any write ──▶ one transaction

What the mesh observes is not rolled back: status stays, and what nodes register (the workloads that run) stays as it is. An
object keeps its identity where it still stands; one that is made again has a new uid, and those that it owned point to that. It
is a write like any other: validated, authorized object by object, and in the history itself.
"""

from __future__ import annotations

import copy
import hashlib
import uuid
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol

import msgspec

from tulle.api.object import Kind, Object
from tulle.api.registry import kind_for, kind_of_resource
from tulle.control.apiserver import admission, errors
from tulle.control.apiserver.document import check
from tulle.control.apiserver.keeping import check_immutable, counts_generations, keeping, stored_version, wish
from tulle.control.apiserver.objects import PERMANENT, Objects
from tulle.control.apiserver.removal import NAMESPACES, finalizers, is_going, marked
from tulle.control.apiserver.table import timestamp
from tulle.control.apiserver.target import Target
from tulle.control.apiserver.writes import free
from tulle.ports import Cause, Change, Compacted, Conflict, Delete, Key, Put, Stored

Raw = dict[str, Any]
Action = Literal["create", "update", "delete"]

_RETRIES = 5
_NODES = "system:node:"  # authors whose writes say what runs, not what is wished
_OWN = frozenset(  # what the server itself writes into metadata
    {
        *("uid", "resourceVersion", "generation", "creationTimestamp", "managedFields", "selfLink"),
        *("deletionTimestamp", "deletionGracePeriodSeconds"),
    }
)


class Permit(Protocol):
    """Who may what (`guard.Guard`)."""

    async def require(self, verb: str, target: Target) -> None:
        """Raises a `Denial` where the user may not."""
        ...

    async def check(self, verb: str, target: Target, body: Raw | None, old: Raw | None) -> None:
        """Asked with the object as it will be stored; raises a `Denial` where it may not be."""
        ...


@dataclass(frozen=True, slots=True)
class Step:
    """What happens to one object: `before` is what stands now, `after` what will stand; `expect` the revision of `before`."""

    action: Action
    target: Target
    before: Raw | None
    after: Raw | None
    expect: int


@dataclass(frozen=True, slots=True)
class Plan:
    """What going back `to` a revision means, seen from the store's `revision`; `left`: what only nodes decide."""

    to: int
    revision: int
    steps: Sequence[Step]
    left: Sequence[Key]
    operations: Sequence[Put | Delete]
    warnings: Sequence[str] = field(default_factory=list)

    @property
    def digest(self) -> str:
        """Equal where the same would happen to the same objects."""
        parts = [(one.action, msgspec.to_builtins(one.target.key), meant(one.before), meant(one.after)) for one in self.steps]
        return hashlib.sha256(msgspec.json.encode([self.to, parts], order="deterministic")).hexdigest()[:16]


class Rollback:
    """Rollbacks over the write side of the API server."""

    def __init__(self, objects: Objects) -> None:
        self.objects, self.store = objects, objects.store

    async def run(self, to: int, key: Key | None, permit: Permit, cause: Cause, *, dry_run: bool, shown: str = "") -> Plan:
        """Go back; what was (or would be) done. `key` None: the whole mesh. `shown`: the digest that the plan must have.

        Raises a `Denial`: the revision is not kept, the user may not, an object would not be valid, or the mesh has changed
        since the plan was shown.
        """
        for _ in range(_RETRIES):
            plan = await self.plan(to, key, permit)
            if shown and plan.digest != shown:
                raise errors.Denial(409, "Conflict", "the mesh has changed since the rollback was shown; look at it again")
            if dry_run or not plan.operations:
                return plan
            try:
                revision = await self.store.write(plan.operations, cause)
            except Conflict:
                continue
            for step in plan.steps:
                if step.action == "create":
                    await self.objects.still_there(step.target)
            return replace(plan, revision=revision)
        raise errors.Denial(409, "Conflict", "the mesh changes faster than it can be rolled back; try again")

    async def plan(self, to: int, key: Key | None, permit: Permit) -> Plan:
        """What would be done."""
        _, revision = await self.store.list("_none")
        if to > revision:
            raise errors.bad_request(f"revision: found {to}; needed one of the past: the newest is {revision}")
        if to < 1:
            raise errors.bad_request(f"revision: found {to}; needed 1 or more")
        resource, namespace, name = (key.resource, key.namespace, key.name) if key else (None, None, None)
        try:
            changes = await self.store.history(resource=resource, namespace=namespace, name=name, since=to)
        except Compacted as error:
            message = f"revision {to} is older than the history that is kept: the oldest to go back to is {error.oldest}"
            raise errors.Denial(410, "Expired", message) from error
        then: dict[Key, Raw | None] = {}
        left: set[Key] = set()
        for change in changes:  # the newest first: the last one seen of an object is the first since the revision
            then[change.key] = change.previous
            if key is None and _registered(change):
                left.add(change.key)
        wanted = {at: body for at, body in then.items() if at not in left and kind_of_resource(at.resource) is not None}
        return await _Planning(self.objects, permit, wanted).plan(to, revision, sorted(left))


class _Planning:
    """One plan on its way: first what each object becomes, then what that needs of others, then the operations."""

    def __init__(self, objects: Objects, permit: Permit, then: Mapping[Key, Raw | None]) -> None:
        self.objects, self.store, self.permit, self.then = objects, objects.store, permit, then
        self.now: dict[Key, Stored | None] = {}
        self.after: dict[Key, Raw | None] = {}
        self.warnings: list[str] = []

    async def plan(self, to: int, revision: int, left: Sequence[Key]) -> Plan:
        for key, body in self.then.items():
            now = self.now[key] = await self.store.get(key)
            self.after[key] = None if body is None else self._restored(key, body, now)
        await self._empty_namespaces()
        addresses = await self._addresses()
        for body in self.after.values():
            await self._owners(body)
        steps = [step for key in sorted(self.after, key=_order) if (step := await self._step(key))]
        waiting = {step.target.namespace for step in steps if step.after is None and finalizers(step.before or {"metadata": {}})}
        operations = [_operation(step, waiting, self.objects.now()) for step in steps]
        return Plan(to, revision, steps, left, [*operations, *addresses] if operations else [], self.warnings)

    def _restored(self, key: Key, body: Raw, now: Stored | None) -> Raw:
        """The object as it was, with what it has to be today."""
        kind = _kind(key)
        new = copy.deepcopy(body)
        new["apiVersion"] = stored_version(kind)
        if now is not None:
            same = now.body["metadata"].get("uid") == new["metadata"].get("uid")
            for name in ("uid", "resourceVersion"):
                new["metadata"].pop(name, None)
            kept = keeping(_target(key), now.body, new)
            kept.pop("status", None)
            if "status" in now.body:
                kept["status"] = now.body["status"]
            if admission.address(now.body) and admission.address(kept):
                _take_address(now.body, kept)  # the address of a Service that stands does not change
            try:
                check_immutable(kind, now.body, kept)
            except errors.Denial:
                if same:
                    raise
            else:
                return kept
        metadata = {name: value for name, value in new["metadata"].items() if name not in _OWN or name == "managedFields"}
        metadata |= {"uid": str(uuid.uuid4()), "creationTimestamp": timestamp(self.objects.now())}
        if counts_generations(kind):
            metadata["generation"] = 1
        new = {**new, "metadata": metadata}
        new.pop("status", None)
        admission.default(kind, new)
        return new

    async def _empty_namespaces(self) -> None:
        """With a namespace goes all that is in it."""
        for space in [key for key, body in self.after.items() if key.resource == NAMESPACES and body is None]:
            if self.now[space] is None:
                continue
            if space.name in PERMANENT:
                del self.after[space]
                continue
            content, _ = await self.store.list(None, space.name)
            for stored in content:
                if kind_of_resource(stored.key.resource) is not None:
                    self.now[stored.key], self.after[stored.key] = stored, None

    async def _addresses(self) -> list[Put | Delete]:
        """The records of Services' addresses: freed first, then taken; one that somebody else has now is replaced."""
        freed, wanting = set[str](), []
        for key, body in self.after.items():
            if key.resource != "services":
                continue
            stored = self.now[key]
            old, new = admission.addresses(stored.body if stored else None), admission.addresses(body)
            freed |= {one for one in old if one not in new}
            if body is not None and not old and (new or admission.wants_address(body)):
                wanting.append((key, body))
        taken: dict[str, Put] = {}
        for key, body in sorted(wanting, key=lambda item: item[0]):
            wishes = {admission.family(one): one for one in admission.addresses(body)}
            chosen = [
                await self._free(key, wishes.get(family, ""), family, freed, taken)
                for family in dict.fromkeys((*wishes, *admission.lacking(body)))
            ]
            admission.set_addresses(body, chosen)
            for address in chosen:
                found = await self.store.get(Key(admission.CLUSTER_IPS, "", address))
                holder = {"service": f"{key.namespace}/{key.name}"}
                taken[address] = Put(Key(admission.CLUSTER_IPS, "", address), holder, found.revision if found else 0)
        gone = [Delete(Key(admission.CLUSTER_IPS, "", address)) for address in sorted(freed - taken.keys())]
        return [*taken.values(), *gone]

    async def _free(self, key: Key, wish: str, family: str, freed: set[str], taken: Mapping[str, Put]) -> str:
        if wish and wish not in taken:
            if wish in freed or await self.store.get(Key(admission.CLUSTER_IPS, "", wish)) is None:
                return wish
            self.warnings.append(f"services/{key.namespace}/{key.name}: {wish} is another Service's now; it gets a new address")
        choices = admission.allot(self.store, key, family)
        while (choice := await free(choices, family)) in taken:
            pass
        return choice

    async def _owners(self, body: Raw | None) -> None:
        """Owners by what they are called now; an owner that is not there any more owns nothing."""
        references = (body or {}).get("metadata", {}).get("ownerReferences")
        if body is None or not isinstance(references, list):
            return
        kept = []
        for one in references:
            kind = kind_for(str(one.get("apiVersion", "")).rpartition("/")[0], str(one.get("kind", "")))
            if kind is None:
                continue
            key = Key(kind.resource, body["metadata"].get("namespace", "") if kind.namespaced else "", str(one.get("name", "")))
            stored = await self.store.get(key)
            owner = self.after.get(key, stored.body if stored else None)
            if owner is not None:
                kept.append({**one, "uid": owner["metadata"]["uid"]})
        body["metadata"]["ownerReferences"] = kept
        if not kept:
            del body["metadata"]["ownerReferences"]

    async def _step(self, key: Key) -> Step | None:
        """The step of one object, checked as any write; None where nothing happens to it."""
        stored, after, target = self.now[key], self.after[key], _target(key)
        before = stored.body if stored else None
        expect = stored.revision if stored else 0
        if meant(before) == meant(after) or (after is None and before is not None and is_going(before)):
            return None
        action: Action = "delete" if after is None else "create" if before is None else "update"
        decoded: Object | None = None
        if after is not None:
            admission.default(target.kind, after)
            decoded, warnings = check(target, after, "Warn")
            self.warnings += [f"{key.resource}/{key.name}: {warning}" for warning in warnings]
            if before is None:
                await self._has_namespace(target)
            elif counts_generations(target.kind) and wish(before) != wish(after):
                after["metadata"]["generation"] = int(before["metadata"].get("generation") or 0) + 1
        writes: list[tuple[Action, Raw | None, Raw | None]] = [(action, after, before)]
        if before is not None and after is not None and before["metadata"].get("uid") != after["metadata"].get("uid"):
            writes = [("delete", None, before), ("create", after, None)]  # another object of that name
        for verb, new, old in writes:
            await self.permit.require(verb, target)
            await self.permit.check(verb, target, new, old)
        if self.objects.judge is not None and decoded is not None and len(self.after) == 1:
            self.warnings += await self.objects.judge.judge(
                target.kind, decoded, 0
            )  # of several, each would be seen without the others
        return Step(action, target, before, after, expect)

    async def _has_namespace(self, target: Target) -> None:
        space = Key(NAMESPACES, "", target.namespace)
        if self.after.get(space) is None or (self.now[space] is not None):
            await self.objects.in_namespace(target)


def _operation(step: Step, waiting: Set[str], now: float) -> Put | Delete:
    """`waiting`: the namespaces with objects that go later, for finalizers hold them; such a namespace goes later, too."""
    key = step.target.key
    if step.after is not None:
        return Put(key, step.after, step.expect)
    assert step.before is not None
    if (held_by := finalizers(step.before)) or (key.resource == NAMESPACES and key.name in waiting):
        return Put(key, marked(step.before, held_by, now), step.expect)
    return Delete(key, step.expect)


def _registered(change: Change) -> bool:
    return change.cause.author.startswith(_NODES)


def _take_address(live: Raw, new: Raw) -> None:
    for name in ("clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"):
        new["spec"].pop(name, None)
        if name in live["spec"]:
            new["spec"][name] = live["spec"][name]


def meant(body: Raw | None) -> Raw | None:
    """What people mean of an object: not what the server keeps of it, nor what is observed."""
    if body is None:
        return None
    metadata = {name: value for name, value in body["metadata"].items() if name not in _OWN}
    if isinstance(owners := metadata.get("ownerReferences"), list):
        metadata["ownerReferences"] = [{name: value for name, value in one.items() if name != "uid"} for one in owners]
    return {**{name: value for name, value in body.items() if name != "status"}, "metadata": metadata}


def _order(key: Key) -> tuple[bool, Key]:
    """Namespaces first: for people, and so that what is in them is checked with them there."""
    return (key.resource != NAMESPACES, key)


def _kind(key: Key) -> Kind:
    kind = kind_of_resource(key.resource)
    assert kind is not None
    return kind


def _target(key: Key) -> Target:
    kind = _kind(key)
    return Target(kind, kind.stored, key.namespace, key.name)
