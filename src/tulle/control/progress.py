"""What the proxies of every control plane over one store have acknowledged, told among them through the store.

Conditions are written by one control plane (the leader), and a proxy is connected to any of them. Each keeps one record of its
proxies, bound to a lease: how far all of them are, and each gateway for itself. A record is written only when something was asked
for that it does not say yet (an object changed, a listener was opened, a leader began), never because the revision moved on:
otherwise every record would be a revision, and every revision a record.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable
from typing import Any

import structlog

from tulle.core.pipeline import Pipeline
from tulle.core.status.progress import Progress
from tulle.kit.errors import TulleError
from tulle.ports import Compacted, Key, LeaseLost, Put, Store
from tulle.xds.status import Progress as Told

log = structlog.get_logger("tulle.progress")

Raw = dict[str, Any]

RESOURCE = "_progress"
_WANTED = Key(RESOURCE, "", "wanted")
_LEASE = 15.0  # seconds after which the record of a control plane that died is gone
_RENEW = 5.0
_PATIENCE = 1.0  # seconds before a store that failed is asked again


class SharedProgress:
    """Called, it gives the progress of all proxies. `own` gives that of this control plane, `name` tells it from the others,
    `moved` is called when another's changed. What moves within a `moment` (seconds) is told at once.
    """

    def __init__(
        self,
        store: Store,
        pipeline: Pipeline,
        own: Callable[[], Iterable[Progress]],
        name: str,
        moved: Callable[[], None],
        moment: float = 0.2,
    ) -> None:
        self.store, self.pipeline, self.own, self.name, self.moved = store, pipeline, own, name, moved
        self._moment = moment
        self._others: dict[str, Raw] = {}
        self._wanted = 0
        self._wake = asyncio.Event()
        self.lease = 0  # to which the record here is bound

    def __call__(self) -> list[Progress]:
        """Every proxy; of another control plane those that have nothing of their own to say as one."""
        own = list(self.own())
        mine = {one.proxy for one in own}
        return [*own, *(one for name, body in sorted(self._others.items()) for one in _read(name, body) if one.proxy not in mine)]

    def told(self) -> None:
        """Something was published, or a proxy of this control plane moved."""
        self._wake.set()

    async def want(self) -> None:
        """Ask all to tell how far they are at the revision of now: whoever begins to write conditions needs it."""
        await self.store.write([Put(_WANTED, {"revision": self.pipeline.revision})])

    async def run(self) -> None:
        """Tell and hear, until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._tell())
            group.create_task(self._hear())

    async def _tell(self) -> None:
        written: Raw | None = None
        while True:
            try:
                if not self.lease:
                    self.lease, written = await self.store.grant(_LEASE), None
                record = self._record()
                if record != written:
                    await self.store.write([Put(Key(RESOURCE, "", self.name), record, lease=self.lease)])
                    written = record
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._wake.wait(), _RENEW)
                    await asyncio.sleep(self._moment)
                self._wake.clear()
                await self.store.renew(self.lease)
            except LeaseLost:
                self.lease = 0
            except TulleError as error:
                log.warning("the progress of the proxies here cannot be told", why=error.message)
                await asyncio.sleep(_PATIENCE)

    def _record(self) -> Raw:
        """How far the proxies here are, up to what was asked for."""
        asked = max(self.pipeline.wished, self._wanted)
        own = list(self.own())
        alone = {one.proxy: one for one in own if self.pipeline.is_gateway(one.proxy) or one.refused}
        rest = [one for one in own if one.proxy not in alone]
        return {
            "proxies": len(rest),
            "reached": min((min(one.synced, asked) for one in rest), default=asked),
            "alone": {
                name: {
                    "reached": min(one.synced, asked),
                    "refused": [[*what, why] for what, why in sorted(one.refused.items())],
                }
                for name, one in sorted(alone.items())
            },
        }

    async def _hear(self) -> None:
        while True:
            try:
                stored, revision = await self.store.list(RESOURCE)
                self._others.clear()
                for one in stored:
                    self._heard(one.key, one.body)
                self.moved()
                async for event in self.store.watch(revision, RESOURCE):
                    self._heard(event.key, event.body)
            except Compacted:
                continue
            except TulleError as error:
                log.warning("the progress of other control planes cannot be heard", why=error.message)
                await asyncio.sleep(_PATIENCE)

    def _heard(self, key: Key, body: Raw | None) -> None:
        if key == _WANTED:
            self._wanted = max(self._wanted, int((body or {}).get("revision", 0)))
            self.told()
        elif key.name != self.name:
            if body is None:
                self._others.pop(key.name, None)
            else:
                self._others[key.name] = body
            self.moved()


def _read(name: str, body: Raw) -> Iterable[Progress]:
    for proxy, one in body["alone"].items():
        yield Told(proxy, one["reached"], {(url, resource): why for url, resource, why in one["refused"]})
    if body["proxies"]:
        yield Told(f"one of the proxies at {name}", body["reached"], count=body["proxies"])
