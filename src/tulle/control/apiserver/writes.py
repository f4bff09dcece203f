"""The last step of a write: the object goes into the store, with the address that a Service has or gets."""

from __future__ import annotations

from typing import Any

from tulle.control.apiserver import admission, errors
from tulle.control.apiserver.target import Target
from tulle.ports import Cause, Conflict, Key, Put, Store

Raw = dict[str, Any]


class Writes:
    """Puts over a store."""

    def __init__(self, store: Store) -> None:
        self.store = store

    async def put(self, target: Target, live: Raw | None, body: Raw, expect: int, cause: Cause | None, *, dry_run: bool) -> int:
        """The revision, 0 for a dry run. Raises `Conflict` where the key is not at revision `expect`.

        A Service without an address gets one (in `body`, also where nothing is written); one that asks for another's is denied.
        """
        key = target.key
        if key.resource != "services":
            return await self._write([Put(key, body, expect)], cause, dry_run)
        if not admission.wants_address(body):
            wanted = admission.address(body)
            try:
                return await self._service(key, live, body, expect, cause, dry_run)
            except Conflict as conflict:
                if conflict.key.resource != admission.CLUSTER_IPS:
                    raise
                wrong = f"found {wanted}, which another Service has; needed a free address, or none"
                raise errors.bad_field(target.kind, target.name, "spec.clusterIP", wrong) from conflict
        async for choice in admission.allot(self.store, key):
            admission.set_address(body, choice)
            try:
                return await self._service(key, live, body, expect, cause, dry_run)
            except Conflict as conflict:  # another Service took it meanwhile: the next one
                if conflict.key.resource != admission.CLUSTER_IPS:
                    raise
        raise errors.Denial(500, "InternalError", f"no virtual address is free in {admission.RANGE}")

    async def _service(self, key: Key, live: Raw | None, body: Raw, expect: int, cause: Cause | None, dry_run: bool) -> int:
        return await self._write([Put(key, body, expect), *admission.hold(live, body, key)], cause, dry_run)

    async def _write(self, operations: list[Any], cause: Cause | None, dry_run: bool) -> int:
        if not dry_run:
            return await self.store.write(operations, cause)
        for one in operations:
            if one.expect is not None:
                found = await self.store.get(one.key)
                revision = found.revision if found else 0
                if revision != one.expect:
                    raise Conflict(one.key, one.expect, revision)
        return 0
