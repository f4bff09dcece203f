"""Writes: create, update, patch, apply, delete, with Kubernetes' book-keeping. One write is one transaction of the store.

The order: the body is addressed (names agree with the path), defaulted, checked, its field managers are recorded, addresses
are allotted, and it is written with the revision that was read. A write that changes nothing is not written. Then the mesh is
asked what it has to say (`judge`): it has the object by then, and need not imagine it.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from tulle.api.object import Kind, Object
from tulle.control.apiserver import admission, errors, lists
from tulle.control.apiserver.apply import BadConfiguration, FieldConflict, Manager, after_update, apply, same
from tulle.control.apiserver.deletion import Deletion
from tulle.control.apiserver.discovery import has_status
from tulle.control.apiserver.document import addressed, check, shown
from tulle.control.apiserver.keeping import check_immutable, counts_generations, keeping, new_uid, stored_version, wish
from tulle.control.apiserver.removal import NAMESPACES, end_namespace, finalizers, is_going, marked, removal
from tulle.control.apiserver.table import timestamp
from tulle.control.apiserver.target import Target, Writing
from tulle.control.apiserver.writes import Writes
from tulle.ports import Conflict, Key, Put, Store, Stored

Raw = dict[str, Any]
Change = Callable[[Raw], Raw]

# They are there from the first start and cannot be deleted. `istio-system` is the other name of the root namespace.
PERMANENT = ("default", "istio-system", "kube-system", "tulle-system")
_RETRIES = 10
_LETTERS = "bcdfghjklmnpqrstvwxz2456789"
_LONGEST_BASE = 58  # characters of `generateName` that are used


class Judge(Protocol):
    """The mesh behind the objects: what it has to say of one is a warning for the person who wrote it."""

    def judge(self, kind: Kind, new: Object, revision: int) -> Awaitable[list[str]]:
        """Of `new` as it was written at `revision`; with 0, of what would be wrong if it were written."""
        ...

    def expect(self, key: Key, revision: int, body: Raw, new: Object) -> None:
        """`body`, of which `new` was decoded, was written at `revision`: reading it back, the mesh need not decode it again."""
        ...


@dataclass(slots=True)
class Written:
    """What a write answers: the object as it now is, warnings, and whether it was made just now."""

    body: Raw
    warnings: list[str] = field(default_factory=list)
    created: bool = False


@dataclass(frozen=True, slots=True)
class Deleted:
    """What a delete answers: the `Status` of success where the object is gone (of some kinds the object), else the object."""

    body: Raw
    gone: bool


class Objects:
    """The write side of the API server over a store. `now`: seconds since the epoch."""

    def __init__(self, store: Store, now: Callable[[], float], judge: Judge | None = None) -> None:
        self.store, self.now, self.judge = store, now, judge
        self._writes = Writes(store)

    async def prepare(self) -> None:
        """Make the namespaces that are always there."""
        for name in PERMANENT:
            key = Key(NAMESPACES, "", name)
            body: Raw = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
            body["metadata"] |= {"uid": new_uid(), "creationTimestamp": timestamp(self.now())}
            body["metadata"]["labels"] = {"kubernetes.io/metadata.name": name}
            body |= {"spec": {}, "status": {"phase": "Active"}}
            if await self.store.get(key) is None:
                await self.store.write([Put(key, body, expect=0)])

    async def create(self, target: Target, value: Any, options: Writing) -> Written:
        """POST."""
        body = addressed(target, value)
        if body["metadata"].get("resourceVersion"):
            raise errors.bad_request("resourceVersion should not be set on objects to be created")
        generate = "" if body["metadata"].get("name") else body["metadata"].get("generateName")
        for _ in range(_RETRIES):
            if isinstance(generate, str) and generate:
                body["metadata"]["name"] = generate[:_LONGEST_BASE] + _ending()
            try:
                return await self._create(target, body, options)
            except errors.Denial as denial:
                if not generate or denial.body["reason"] != "AlreadyExists":
                    raise
        raise errors.no_name_left(target.kind, str(body["metadata"]["name"]))

    async def update(self, target: Target, value: Any, options: Writing) -> Written:
        """PUT."""
        body = addressed(target, value)
        if not body["metadata"].get("resourceVersion") and not target.kind.built_in:
            message = "must be specified for an update: found nothing; needed the resourceVersion of the object that was read"
            raise errors.bad_field(target.kind, target.name, "metadata.resourceVersion", message)
        try:
            return await self._change(target, lambda _live: body, options)
        except errors.Denial as denial:
            if denial.http != 404 or target.subresource or target.kind.resource not in _CREATED_BY_UPDATE:
                raise
        return await self._create(target, body, options)

    async def patch(self, target: Target, change: Change, options: Writing) -> Written:
        """PATCH by a function from the object as shown to the object as wanted."""
        return await self._change(target, lambda live: addressed(target, change(live)), options)

    async def apply(self, target: Target, value: Any, options: Writing) -> Written:
        """Server-side apply: makes the object where it is absent."""
        config = addressed(target, value)
        if config["metadata"].get("managedFields"):
            raise errors.bad_request("metadata.managedFields must be nil")
        if target.subresource:
            names = ("name", "namespace", "uid", "resourceVersion")
            config["metadata"] = {key: config["metadata"][key] for key in names if key in config["metadata"]}
            config = {key: config[key] for key in ("apiVersion", "kind", "metadata", "status") if key in config}
        elif has_status(target.kind):
            config.pop("status", None)
        table = lists.applied(target.kind)
        manager = self._manager(target, options)

        def merged(live: Raw | None) -> Raw:
            try:
                return apply(live, config, manager, table, force=options.force)
            except FieldConflict as conflict:
                raise errors.apply_conflict(target.kind, target.name, conflict.causes) from conflict
            except BadConfiguration as error:
                raise errors.bad_request(
                    f"failed to create typed patch object ({target.name}; {target.api_version}): {error}"
                ) from error

        for _ in range(_RETRIES):
            try:
                return await self._change(target, merged, options, managed=True)
            except errors.Denial as denial:
                if denial.http != 404 or target.subresource or await self.store.get(target.key) is not None:
                    raise
            if config["metadata"].get("uid"):
                why = f"uid mismatch: the provided object specified uid {config['metadata']['uid']}, and no existing object was"
                why += " found"
                raise errors.conflict(target.kind, target.name, why)
            body = merged(None)
            body["metadata"].pop("resourceVersion", None)
            try:
                return await self._create(target, body, options, managed=True)
            except errors.Denial as denial:
                if denial.body["reason"] != "AlreadyExists":
                    raise
        raise errors.conflict(target.kind, target.name)

    async def delete(self, target: Target, asked: Deletion, options: Writing) -> Deleted:
        """DELETE: the object goes, or is marked where finalizers hold it back."""
        for _ in range(_RETRIES):
            stored = await self._stored(target)
            live = stored.body
            self._as_asked(target, asked, stored)
            if target.kind.resource == NAMESPACES and target.name in PERMANENT:
                raise errors.forbidden(
                    f'namespaces "{target.name}" is forbidden: this namespace may not be deleted', target.kind, target.name
                )
            if options.guard is not None:
                await options.guard.check("delete", target, None, live)
            held_by = asked.finalizers(finalizers(live))
            space = target.kind.resource == NAMESPACES
            if not held_by and not space:
                if not options.dry_run and not await self._tried(removal(stored), options):
                    continue
                shows = target.kind.resource in _SHOWN_WHEN_DELETED
                return Deleted(shown(target, live, stored.revision) if shows else _success(target, live), True)
            revision = stored.revision
            if not is_going(live) or held_by != finalizers(live):
                live = marked(live, held_by, self.now())
                if not options.dry_run:
                    written = await self._tried([Put(target.key, live, expect=stored.revision)], options)
                    if not written:
                        continue
                    revision = written
            if space and not options.dry_run and await end_namespace(self.store, target.name, self.now(), options.cause):
                return Deleted(_success(target, live), True)
            return Deleted(shown(target, live, revision), False)
        raise errors.conflict(target.kind, target.name)

    def _as_asked(self, target: Target, asked: Deletion, stored: Stored) -> None:
        """Raises a `Denial` where the object is not the one that was to be deleted."""
        uid, version = stored.body["metadata"].get("uid"), str(stored.revision)
        if asked.uid not in (None, uid):
            why = f"Precondition failed: UID in precondition: {asked.uid}, UID in object meta: {uid}"
            raise errors.conflict(target.kind, target.name, why)
        if asked.resource_version not in (None, version):
            why = "Precondition failed: ResourceVersion in precondition: "
            raise errors.conflict(
                target.kind, target.name, f"{why}{asked.resource_version}, ResourceVersion in object meta: {version}"
            )

    async def _tried(self, operations: Any, options: Writing) -> int:
        """The revision at which it was written; 0 where another was faster."""
        try:
            return await self.store.write(operations, options.cause)
        except Conflict:
            return 0

    async def _stored(self, target: Target) -> Stored:
        stored = await self.store.get(target.key)
        if stored is None:
            raise errors.not_found(target.kind, target.name)
        return stored

    def _manager(self, target: Target, options: Writing) -> Manager:
        return Manager(options.manager, target.api_version, target.subresource, timestamp(self.now()))

    async def _create(self, target: Target, body: Raw, options: Writing, *, managed: bool = False) -> Written:
        kind = target.kind
        metadata = body["metadata"]
        for unset in ("deletionTimestamp", "deletionGracePeriodSeconds", "selfLink", "generation"):
            metadata.pop(unset, None)
        if has_status(kind):
            body.pop("status", None)
        metadata |= {"uid": new_uid(), "creationTimestamp": timestamp(self.now())}
        if counts_generations(kind):
            metadata["generation"] = 1
        admission.default(kind, body)
        decoded, warnings = check(target, body, options.validation)
        target = Target(kind, target.version, target.namespace, metadata["name"])
        if not managed:
            wished = {key: value for key, value in body.items() if key != "status" or not has_status(kind)}
            metadata["managedFields"] = after_update(None, wished, self._manager(target, options), lists.applied(kind))
        await self.in_namespace(target)
        if options.guard is not None:
            await options.guard.check("create", target, body, None)
        body["apiVersion"] = stored_version(kind)
        allotted = admission.allots(kind, body)
        try:
            revision = await self._writes.put(target, None, body, 0, options.cause, dry_run=options.dry_run)
        except Conflict as conflict:
            standing = await self.store.get(target.key)
            raise errors.already_exists(kind, target.name, going=standing is not None and is_going(standing.body)) from conflict
        if revision:
            await self.still_there(target)
        warnings += await self._judged(target, body, decoded, revision, allotted)
        return Written(shown(target, body, revision), warnings, created=True)

    async def in_namespace(self, target: Target) -> None:
        """Raises a `Denial` where the target's namespace is not there, or is going."""
        if not target.kind.namespaced:
            return
        space = await self.store.get(Key(NAMESPACES, "", target.namespace))
        if space is None:
            raise errors.not_found(_namespace_kind(), target.namespace)
        if b"deletionTimestamp" in space.json and is_going(space.body):
            raise errors.terminating(target.kind, target.name, target.namespace)

    async def still_there(self, target: Target) -> None:
        """Take an object back that came into a namespace while that was deleted: nothing may be left in it."""
        try:
            await self.in_namespace(target)
        except errors.Denial:
            stored = await self.store.get(target.key)
            with contextlib.suppress(Conflict):
                if stored is not None:
                    await self.store.write(removal(stored))
            raise

    async def _change(self, target: Target, change: Callable[[Raw], Raw], options: Writing, *, managed: bool = False) -> Written:
        """Read, change, check, write if it is still as it was read; again where another was faster and nothing was promised."""
        for _ in range(_RETRIES):
            stored = await self._stored(target)
            live = shown(target, stored.body, stored.revision)
            new = change(live)
            asked = new["metadata"].get("resourceVersion")
            if asked not in (None, "", "0", str(stored.revision)):
                raise errors.conflict(target.kind, target.name)
            try:
                return await self._replace(target, stored, live, new, options, managed)
            except Conflict:
                continue  # where a resource version was asked for, it is not there any more, and the next turn says so
        raise errors.conflict(target.kind, target.name)

    async def _replace(self, target: Target, stored: Stored, live: Raw, new: Raw, options: Writing, managed: bool) -> Written:
        kind = target.kind
        new = keeping(target, live, new)
        metadata = new["metadata"]
        if kind.resource == "services" and not target.subresource:
            admission.keep_addresses(live, new)
        admission.default(kind, new)
        if target.subresource:  # who writes a status wishes nothing: a default that is newer than the object is not added by it
            new.update({field: live[field] for field in live if field not in ("apiVersion", "metadata", "status")})
        decoded, warnings = check(target, new, options.validation)
        check_immutable(kind, live, new)
        if not managed:
            metadata["managedFields"] = after_update(live, new, self._manager(target, options), lists.applied(kind))
        if same(live, new):
            return Written(live, warnings)
        if counts_generations(kind) and wish(live) != wish(new):
            metadata["generation"] = int(live["metadata"].get("generation") or 0) + 1
        if options.guard is not None:
            await options.guard.check("update", target, new, stored.body)
        new["apiVersion"] = stored_version(kind)
        metadata.pop("resourceVersion", None)
        if is_going(new) and not metadata.get("finalizers") and kind.resource != NAMESPACES:
            if not options.dry_run:
                await self.store.write(removal(stored), options.cause)
            return Written(shown(target, new, stored.revision), warnings)
        cause = None if target.subresource else options.cause  # what is observed is no history
        allotted = admission.allots(kind, new)
        revision = await self._writes.put(target, stored.body, new, stored.revision, cause, dry_run=options.dry_run)
        if revision and kind.resource == NAMESPACES and is_going(new):
            await end_namespace(self.store, target.name, self.now(), options.cause)
        if not target.subresource:  # the mesh does not act on it either
            warnings += await self._judged(target, new, decoded, revision, allotted)
        return Written(shown(target, new, revision or stored.revision), warnings)

    async def _judged(self, target: Target, body: Raw, new: Object | None, revision: int, allotted: bool) -> list[str]:
        """What the mesh has to say of `body` as it was written. `allotted`: with an address that is not in `new`."""
        if self.judge is None or new is None:
            return []
        if revision and not allotted:
            self.judge.expect(target.key, revision, body, new)
        return await self.judge.judge(target.kind, new, revision)


# Kinds whose delete answers with the object, as Kubernetes' typed clients expect it.
_SHOWN_WHEN_DELETED = frozenset({"services", "serviceaccounts"})

# Kinds that a PUT makes where they are not there, as in Kubernetes.
_CREATED_BY_UPDATE = frozenset(
    {
        "services",
        "events",
        "leases.coordination.k8s.io",
        *(f"{plural}.rbac.authorization.k8s.io" for plural in ("roles", "rolebindings", "clusterroles", "clusterrolebindings")),
    }
)


def _ending() -> str:
    """What a generated name ends with."""
    return "".join(random.choice(_LETTERS) for _ in range(5))  # noqa: S311 - a name is no secret


def _namespace_kind() -> Kind:
    from tulle.api.registry import kind_of_resource

    kind = kind_of_resource(NAMESPACES)
    assert kind is not None
    return kind


def _success(target: Target, body: Raw) -> Raw:
    details = {"name": target.name, "kind": target.kind.plural, "uid": body["metadata"].get("uid", "")}
    details |= {"group": target.kind.group} if target.kind.group else {}
    return {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details}
