"""The last step of a write: the object goes into the store, with the address that a Service has or gets."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from tulle.control.apiserver import admission, errors
from tulle.control.apiserver.target import Target
from tulle.ports import Cause, Conflict, Key, Put, Store

Raw = dict[str, Any]


async def free(choices: AsyncIterator[str], family: str) -> str:
    """The next of the free addresses of a family; raises a `Denial` where there is none."""
    async for one in choices:
        return one
    raise errors.Denial(500, "InternalError", f"no virtual address is free in {admission.RANGES[family]}")


class Writes:
    """Puts over a store."""

    def __init__(self, store: Store) -> None:
        self.store = store

    async def put(self, target: Target, live: Raw | None, body: Raw, expect: int, cause: Cause | None, *, dry_run: bool) -> int:
        """The revision, 0 for a dry run. Raises `Conflict` where the key is not at revision `expect`.

        A Service that lacks an address gets one (in `body`, also where nothing is written); another's is denied.
        """
        key = target.key
        if key.resource != "services":
            return await self._write([Put(key, body, expect)], cause, dry_run)
        given, chosen = admission.addresses(body), dict[str, str]()
        choices = {family: admission.allot(self.store, key, family) for family in admission.lacking(body)}
        for family in choices:
            chosen[family] = await free(choices[family], family)
        while True:
            if chosen:
                admission.set_addresses(body, [*given, *chosen.values()])
            try:
                return await self._service(key, live, body, expect, cause, dry_run)
            except Conflict as conflict:
                if conflict.key.resource != admission.CLUSTER_IPS:
                    raise
                taken = conflict.key.name
                if taken in given:
                    wrong = f"found {taken}, which another Service has; needed a free address, or none"
                    raise errors.bad_field(target.kind, target.name, "spec.clusterIP", wrong) from conflict
                family = admission.family(taken)  # another Service took it meanwhile: the next one
                chosen[family] = await free(choices[family], family)

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
