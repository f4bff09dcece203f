"""The control planes of a mesh, known to each other through the store that they share: each keeps a record under a lease."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import msgspec
import structlog

from tulle.kit.errors import TulleError
from tulle.ports import Compacted, Key, LeaseLost, Put, Store

log = structlog.get_logger("tulle.members")

RESOURCE = "_controlplanes"
_LEASE = 15.0  # seconds after which one that died is not there any more
_RENEW = 5.0
_PATIENCE = 1.0  # seconds before a store that failed is asked again


class Member(msgspec.Struct, frozen=True):
    """A control plane: its `name`, `host:port` of its API server and xDS server, its version, since when (s since the epoch)."""

    name: str
    api: str
    xds: str
    version: str
    started: float


class Members:
    """`others` are the other control planes, by name. `changed` is called when one comes or goes."""

    def __init__(self, store: Store, own: Member, changed: Callable[[], None] = lambda: None) -> None:
        self.store, self.own, self.changed = store, own, changed
        self.others: dict[str, Member] = {}

    async def run(self) -> None:
        """Be known and know, until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._tell())
            group.create_task(self._hear())

    async def _tell(self) -> None:
        lease = 0
        key = Key(RESOURCE, "", self.own.name)
        try:
            while True:
                try:
                    if not lease:
                        lease = await self.store.grant(_LEASE)
                        await self._check_name(key)
                        await self.store.write([Put(key, msgspec.to_builtins(self.own), lease=lease)])
                    await asyncio.sleep(_RENEW)
                    await self.store.renew(lease)
                except LeaseLost:
                    lease = 0
                except TulleError as error:
                    log.warning("the other control planes cannot be told of this one", why=error.message)
                    await asyncio.sleep(_PATIENCE)
        finally:
            if lease:
                await _bounded(self.store.revoke(lease))

    async def _check_name(self, key: Key) -> None:
        found = await self.store.get(key)
        if found is not None and found.body.get("started") != self.own.started:
            log.warning("there was a control plane of this name a moment ago; two at once must not have the same", name=key.name)

    async def _hear(self) -> None:
        while True:
            try:
                stored, revision = await self.store.list(RESOURCE)
                self.others = {}
                for one in stored:
                    self._heard(one.key.name, one.body)
                self.changed()
                async for event in self.store.watch(revision, RESOURCE):
                    self._heard(event.key.name, event.body)
                    self.changed()
            except Compacted:
                continue
            except TulleError as error:
                log.warning("the other control planes cannot be heard of", why=error.message)
                await asyncio.sleep(_PATIENCE)

    def _heard(self, name: str, body: dict[str, Any] | None) -> None:
        if name == self.own.name:
            return
        if body is None:
            self.others.pop(name, None)
        else:
            self.others[name] = msgspec.convert(body, Member)


async def _bounded(work: Any) -> None:
    """The end of the process does not wait for a store that is away."""
    try:
        await asyncio.wait_for(work, 2.0)
    except (TimeoutError, TulleError) as error:
        log.debug("left without a word", why=str(error))
