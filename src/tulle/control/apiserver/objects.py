"""Writes: create, update, patch, apply, delete, with Kubernetes' book-keeping. One write is one transaction of the store.

The order: the body is addressed (names agree with the path), defaulted, checked, its field managers are recorded, addresses
are allotted, the mesh's own warnings are asked for (`admit`), and it is written with the revision that was read. A write that
changes nothing is not written.
"""

from __future__ import annotations

import contextlib
import secrets
import uuid
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from tulle.api.object import Kind
from tulle.control.apiserver import admission, errors, lists
from tulle.control.apiserver.apply import FieldConflict, Manager, after_update, apply, same
from tulle.control.apiserver.discovery import has_status
from tulle.control.apiserver.document import addressed, check, shown, without_nulls
from tulle.control.apiserver.table import timestamp
from tulle.control.apiserver.target import Target, Writing
from tulle.ports import Conflict, Delete, Key, Put, Store, Stored

Raw = dict[str, Any]
Change = Callable[[Raw], Raw]

NAMESPACES = "namespaces"
# They are there from the first start and cannot be deleted. `istio-system` is the other name of the root namespace.
PERMANENT = ("default", "istio-system", "kube-system", "tulle-system")
_RETRIES = 10
_LETTERS = "bcdfghjklmnpqrstvwxz2456789"


class Admit(Protocol):
    """What the mesh says of a write before it happens: warnings for the person. May raise a `Denial`."""

    def __call__(self, operation: str, kind: Kind, body: Raw | None, old: Raw | None) -> Awaitable[list[str]]:
        """`operation`: `create`, `update` or `delete`; `body` None for a delete, `old` None for a create."""
        ...


@dataclass(slots=True)
class Written:
    """What a write answers: the object as it now is, warnings, and whether it was made just now."""

    body: Raw
    warnings: list[str] = field(default_factory=list)
    created: bool = False


class Objects:
    """The write side of the API server over a store. `now`: seconds since the epoch."""

    def __init__(self, store: Store, now: Callable[[], float], admit: Admit | None = None) -> None:
        self.store, self.now, self.admit = store, now, admit

    async def prepare(self) -> None:
        """Make the namespaces that are always there."""
        for name in PERMANENT:
            key = Key(NAMESPACES, "", name)
            body: Raw = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
            body["metadata"] |= {"uid": str(uuid.uuid4()), "creationTimestamp": timestamp(self.now()), "generation": 1}
            body["metadata"]["labels"] = {"kubernetes.io/metadata.name": name}
            body |= {"spec": {}, "status": {"phase": "Active"}}
            if await self.store.get(key) is None:
                await self.store.write([Put(key, body, expect=0)])

    async def create(self, target: Target, value: Any, options: Writing) -> Written:
        """POST."""
        body = without_nulls(addressed(target, value))
        if body["metadata"].get("resourceVersion"):
            raise errors.bad_request("resourceVersion should not be set on objects to be created")
        generate = "" if body["metadata"].get("name") else body["metadata"].get("generateName")
        for _ in range(_RETRIES):
            if isinstance(generate, str) and generate:
                body["metadata"]["name"] = generate[:58] + "".join(secrets.choice(_LETTERS) for _ in range(5))
            try:
                return await self._create(target, body, options)
            except errors.Denial as denial:
                if not generate or denial.body["reason"] != "AlreadyExists":
                    raise
        raise errors.already_exists(target.kind, str(body["metadata"]["name"]))

    async def update(self, target: Target, value: Any, options: Writing) -> Written:
        """PUT."""
        body = without_nulls(addressed(target, value))
        return await self._change(target, lambda _live: body, options)

    async def patch(self, target: Target, change: Change, options: Writing) -> Written:
        """PATCH by a function from the object as shown to the object as wanted."""
        return await self._change(target, lambda live: without_nulls(addressed(target, change(live))), options)

    async def apply(self, target: Target, value: Any, options: Writing) -> Written:
        """Server-side apply: makes the object where it is absent."""
        config = without_nulls(addressed(target, value))
        if config["metadata"].get("managedFields"):
            raise errors.bad_request("metadata.managedFields must be nil")
        if has_status(target.kind) and not target.subresource:
            config.pop("status", None)
        table = lists.applied(target.kind)
        manager = self._manager(target, options)

        def merged(live: Raw | None) -> Raw:
            try:
                return apply(live, config, manager, table, force=options.force)
            except FieldConflict as conflict:
                raise errors.apply_conflict(target.kind, target.name, conflict.causes) from conflict

        for _ in range(_RETRIES):
            try:
                return await self._change(target, merged, options, managed=True)
            except errors.Denial as denial:
                if denial.http != 404 or target.subresource or await self.store.get(target.key) is not None:
                    raise
            body = merged(None)
            body["metadata"].pop("resourceVersion", None)
            try:
                return await self._create(target, body, options, managed=True)
            except errors.Denial as denial:
                if denial.body["reason"] != "AlreadyExists":
                    raise
        raise errors.conflict(target.kind, target.name)

    async def delete(self, target: Target, value: Any, options: Writing) -> Raw:
        """DELETE: the `Status` of success, or the object where finalizers hold it back."""
        wanted = value.get("preconditions") or {} if isinstance(value, dict) else {}
        for _ in range(_RETRIES):
            stored = await self._stored(target)
            live = stored.body
            if wanted.get("uid") not in (None, live["metadata"].get("uid")):
                why = f"the UID in the precondition ({wanted['uid']}) is not the object's ({live['metadata'].get('uid')})"
                raise errors.conflict(target.kind, target.name, why)
            if wanted.get("resourceVersion") not in (None, str(stored.revision)):
                raise errors.conflict(target.kind, target.name)
            if target.kind.resource == NAMESPACES and target.name in PERMANENT:
                raise errors.forbidden(
                    f'namespaces "{target.name}" is forbidden: this namespace may not be deleted', target.kind, target.name
                )
            if options.guard is not None:
                await options.guard.check("delete", target, None, live)
            if self.admit is not None:
                await self.admit("delete", target.kind, None, live)
            operations: list[Put | Delete]
            held = bool(live["metadata"].get("finalizers"))
            if held:
                waiting = "deletionTimestamp" in live["metadata"]
                live["metadata"].setdefault("deletionTimestamp", timestamp(self.now()))
                operations = [] if waiting else [Put(target.key, live, expect=stored.revision)]
            else:
                operations = await self._removal(stored)
            if options.dry_run or not operations:
                return shown(target, live, stored.revision) if held else _success(target, live)
            try:
                revision = await self.store.write(operations)
            except Conflict:
                continue
            if stored.key.resource == NAMESPACES and not held:
                await self._sweep(stored.key.name)
            return shown(target, live, revision) if held else _success(target, live)
        raise errors.conflict(target.kind, target.name)

    async def _removal(self, stored: Stored) -> list[Put | Delete]:
        """The operations that delete an object, and with a namespace all that is in it."""
        operations: list[Put | Delete] = [Delete(stored.key, expect=stored.revision)]
        gone = [stored]
        if stored.key.resource == NAMESPACES:
            within, _ = await self.store.list(None, stored.key.name)
            gone += [one for one in within if not one.key.resource.startswith("_")]
            operations += [Delete(one.key, expect=one.revision) for one in gone[1:]]
        for one in gone:
            if one.key.resource == "services":
                operations += admission.hold(one.body, None, one.key)
        return operations

    async def _sweep(self, namespace: str) -> None:
        """Delete what was written into a namespace while it went (see `_create` for what is written after)."""
        within, _ = await self.store.list(None, namespace)
        for one in within:
            if not one.key.resource.startswith("_"):
                with contextlib.suppress(Conflict):
                    await self.store.write(await self._removal(one))

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
        for unset in ("deletionTimestamp", "deletionGracePeriodSeconds", "selfLink"):
            metadata.pop(unset, None)
        if has_status(kind):
            body.pop("status", None)
        metadata |= {"uid": str(uuid.uuid4()), "creationTimestamp": timestamp(self.now()), "generation": 1}
        admission.default(kind, body)
        warnings = check(target, body, options.validation)
        target = Target(kind, target.version, target.namespace, metadata["name"])
        if not managed:
            metadata["managedFields"] = after_update(None, body, self._manager(target, options), lists.applied(kind))
        await self._in_namespace(target)
        if options.guard is not None:
            await options.guard.check("create", target, body, None)
        if self.admit is not None:
            warnings += await self.admit("create", kind, body, None)
        body["apiVersion"] = _stored_version(kind)
        try:
            revision = await self._write(target, None, body, 0, options.dry_run)
        except Conflict as conflict:
            raise errors.already_exists(kind, target.name) from conflict
        if revision and kind.namespaced and await self.store.get(Key(NAMESPACES, "", target.namespace)) is None:
            # The namespace was deleted meanwhile; nothing may be left in it.
            stored = await self.store.get(target.key)
            if stored is not None:
                await self.store.write(await self._removal(stored))
            raise errors.not_found(_namespace_kind(), target.namespace)
        return Written(shown(target, body, revision), warnings, created=True)

    async def _in_namespace(self, target: Target) -> None:
        if target.kind.namespaced and await self.store.get(Key(NAMESPACES, "", target.namespace)) is None:
            raise errors.not_found(_namespace_kind(), target.namespace)

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
        new = _keeping(target, live, new)
        metadata = new["metadata"]
        if kind.resource == "services" and not target.subresource:
            admission.keep_addresses(live, new)
        admission.default(kind, new)
        warnings = check(target, new, options.validation)
        _immutable(kind, live, new)
        if not managed:
            metadata["managedFields"] = after_update(live, new, self._manager(target, options), lists.applied(kind))
        if same(live, new):
            return Written(live, warnings)
        if _wish(live) != _wish(new):
            metadata["generation"] = int(live["metadata"].get("generation") or 0) + 1
        if options.guard is not None:
            await options.guard.check("update", target, new, stored.body)
        if self.admit is not None:
            warnings += await self.admit("update", kind, new, stored.body)
        new["apiVersion"] = _stored_version(kind)
        metadata.pop("resourceVersion", None)
        if metadata.get("deletionTimestamp") and not metadata.get("finalizers"):
            if not options.dry_run:
                await self.store.write(await self._removal(stored))
            return Written(shown(target, new, stored.revision), warnings)
        revision = await self._write(target, stored.body, new, stored.revision, options.dry_run)
        return Written(shown(target, new, revision or stored.revision), warnings)

    async def _write(self, target: Target, live: Raw | None, body: Raw, expect: int, dry_run: bool) -> int:
        """Write with the Service's address, if it is one; the revision, 0 for a dry run. Raises `Conflict`."""
        key = target.key
        if key.resource != "services":
            if dry_run:
                return await self._dry(key, expect)
            return await self.store.write([Put(key, body, expect)])
        if not admission.wants_address(body):
            try:
                return await self._write_service(key, live, body, expect, dry_run)
            except Conflict as conflict:
                if conflict.key.resource != admission.CLUSTER_IPS:
                    raise
                wrong = f"found {admission.address(body)}, which another Service has; needed a free address, or none"
                raise errors.bad_field(target.kind, target.name, "spec.clusterIP", wrong) from conflict
        async for choice in admission.allot(self.store, key):
            admission.set_address(body, choice)
            try:
                return await self._write_service(key, live, body, expect, dry_run)
            except Conflict as conflict:  # another Service took it meanwhile: the next one
                if conflict.key.resource != admission.CLUSTER_IPS:
                    raise
        raise errors.Denial(500, "InternalError", f"no virtual address is free in {admission.RANGE}")

    async def _write_service(self, key: Key, live: Raw | None, body: Raw, expect: int, dry_run: bool) -> int:
        if dry_run:
            return await self._dry(key, expect)
        return await self.store.write([Put(key, body, expect), *admission.hold(live, body, key)])

    async def _dry(self, key: Key, expect: int) -> int:
        found = await self.store.get(key)
        if expect != (found.revision if found else 0):
            raise Conflict(key, expect, found.revision if found else 0)
        return 0


def _keeping(target: Target, live: Raw, new: Raw) -> Raw:
    """The new object with what a write at this path cannot change."""
    before, after = live["metadata"], new["metadata"]
    if after.get("uid") not in (None, "", before.get("uid")):
        why = f"the UID in the data ({after['uid']}) is not the object's ({before.get('uid')})"
        raise errors.conflict(target.kind, target.name, why)
    if target.subresource:
        metadata = {**before}
        if "managedFields" in after:
            metadata["managedFields"] = after["managedFields"]
        return {**live, "metadata": metadata} | ({"status": new["status"]} if "status" in new else {})
    metadata = {**after}
    for kept in ("uid", "creationTimestamp", "generation", "deletionTimestamp", "resourceVersion", "selfLink", "generateName"):
        metadata.pop(kept, None)
        if kept in before:
            metadata[kept] = before[kept]
    if "managedFields" not in metadata and "managedFields" in before:
        metadata["managedFields"] = before["managedFields"]
    kept_body = {**new, "metadata": metadata}
    if has_status(target.kind):
        kept_body.pop("status", None)
        if "status" in live:
            kept_body["status"] = live["status"]
    return kept_body


def _immutable(kind: Kind, live: Raw, new: Raw) -> None:
    name = str(live["metadata"].get("name"))
    if kind.resource == "services":
        before, after = admission.address(live), admission.address(new)
        if before and after and before != after:
            wrong = f"found {after}; needed {before}: the address of a Service does not change"
            raise errors.bad_field(kind, name, "spec.clusterIP", wrong)
    if kind.resource in ("secrets", "configmaps") and live.get("immutable") and _wish(live) != _wish(new):
        raise errors.bad_field(kind, name, "data", "found a change; needed none, for the object is immutable")


def _wish(body: Mapping[str, Any]) -> Raw:
    """The part that a person wishes: its changes count as generations."""
    return {key: value for key, value in body.items() if key not in ("apiVersion", "kind", "metadata", "status")}


def _stored_version(kind: Kind) -> str:
    return f"{kind.group}/{kind.versions[0]}" if kind.group else kind.versions[0]


def _namespace_kind() -> Kind:
    from tulle.api.registry import kind_of_resource

    kind = kind_of_resource(NAMESPACES)
    assert kind is not None
    return kind


def _success(target: Target, body: Raw) -> Raw:
    details = {"name": target.name, "kind": target.kind.plural, "uid": body["metadata"].get("uid", "")}
    details |= {"group": target.kind.group} if target.kind.group else {}
    return {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details}
