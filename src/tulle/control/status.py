"""The status writer: what `core.status` finds of each object, written where it is not there yet.

    pipeline, acknowledgements ──▶ wake ──▶ due objects ──▶ computed, decided, merged ──▶ written through the status subresource

A controller: it runs on one control plane at a time and keeps nothing that must survive. It is told that something moved and
never holds up who tells it; what moves within a moment is looked at once. What stands already is not written, so that a start of
the control plane writes nothing. A status is written only over the generation that it was computed of.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Any

import structlog

from tulle.api.registry import GATEWAY_API, kind_for, kind_of_resource
from tulle.control.apiserver.errors import Denial
from tulle.control.apiserver.objects import Objects
from tulle.control.apiserver.table import timestamp
from tulle.control.apiserver.target import Target, Writing
from tulle.control.events import Events
from tulle.core.analyze.inputs import Scope
from tulle.core.pipeline import Pipeline
from tulle.core.status.merge import merged
from tulle.core.status.progress import Asked, Progress, decided, pending, waits
from tulle.core.status.rows import Status
from tulle.core.status.statuses import Row
from tulle.core.status.transitions import turns
from tulle.kit.errors import TulleError
from tulle.ports import Key, Store, Stored

log = structlog.get_logger("tulle.status")

Raw = dict[str, Any]

MANAGER = "tulle-status"
_WRITING = Writing(MANAGER)
_COMPUTED = 100  # rows at a time; other work of the control plane goes on between
_WRITES = 20  # a burst of writes, and how long it takes at least: 200 a second leave the API server free for others
_BURST = 0.1
_PATIENCE = 1.0  # seconds before what could not be written is tried again


class StatusWriter:
    """`run` until cancelled. `progress` gives how far the connected proxies are, `now` seconds since the epoch; `events` is
    told of conditions that turned. What moves within a `moment` (seconds) is looked at once.
    """

    def __init__(
        self,
        store: Store,
        pipeline: Pipeline,
        progress: Callable[[], Iterable[Progress]],
        now: Callable[[], float],
        events: Events | None = None,
        moment: float = 0.05,
    ) -> None:
        # Writes of our own are not asked about: that would compile what is already compiled.
        self.objects = Objects(store, now)
        self.pipeline, self.progress, self.now, self.events = pipeline, progress, now, events
        self._moment = moment
        self.written = 0  # so many statuses since the start
        self._wake = asyncio.Event()
        self._due: dict[Row, None] = {}
        self._waiting: dict[Row, Status] = {}
        self._proxies_moved = False
        self._idle = asyncio.Event()
        self._clock: asyncio.TimerHandle | None = None

    # What others tell; each returns at once.

    def published(self) -> None:
        """The pipeline took something in."""
        self._idle.clear()
        self._wake.set()

    def proxies_moved(self) -> None:
        """A proxy came, went, acknowledged or refused something."""
        self._proxies_moved = True
        self.published()

    def overwritten(self, keys: Iterable[Key]) -> None:
        """Nothing but the status of these objects was written: what others overwrote is put right."""
        self._due.update({(key.resource, (key.namespace, key.name)): None for key in keys})
        if self._due:
            self.published()

    async def idle(self) -> None:
        """Wait until everything that was told so far is written: for tests."""
        await self._idle.wait()

    # The work

    async def run(self) -> None:
        """Look at every object once, then at what moves, until cancelled."""
        self._due.update(dict.fromkeys(self.pipeline.statuses.all()))
        self.proxies_moved()
        while True:
            await self._wake.wait()
            await asyncio.sleep(self._moment)
            self._wake.clear()
            failed = await self._round()
            self._wind()
            if failed:
                self._due.update(failed)
                asyncio.get_running_loop().call_later(_PATIENCE, self._wake.set)
            elif not self._wake.is_set():
                self._idle.set()

    def _wind(self) -> None:
        """Look again when time alone makes a status another: when a certificate begins or ends to be valid."""
        if self._clock is not None:
            self._clock.cancel()
        now = self.now()
        wait = self.pipeline.analysis.next_step(now) - now
        self._clock = asyncio.get_running_loop().call_later(wait, self.published)

    async def _round(self) -> dict[Row, None]:
        """Take what is due, and write what is not there; what could not be written."""
        failed: dict[Row, None] = {}
        moved, self._proxies_moved = self._proxies_moved, False
        due, self._due = self._due, {}
        self.pipeline.analysis.at(Scope(self.now(), live=True))
        while self.pipeline.statuses.waiting:
            due.update(dict.fromkeys(self.pipeline.statuses.take(_COMPUTED)))
            await asyncio.sleep(0)
        asked = self._asked()
        if moved:
            due.update({row: None for row in self._refused_or_waiting(asked) if row not in due})
        burst = 0
        for count, row in enumerate(due, start=1):
            if count % _COMPUTED == 0:
                await asyncio.sleep(0)
            try:
                burst += await self._look(row, asked)
            except (Denial, TulleError) as error:
                log.warning("a status could not be written; trying again", object=str(row), why=str(error))
                failed[row] = None
            if burst >= _WRITES:
                burst = 0
                await asyncio.sleep(_BURST)
        return failed

    def _asked(self) -> _Proxies:
        return _Proxies(self.pipeline, self.progress())

    def _refused_or_waiting(self, asked: _Proxies) -> list[Row]:
        """Of the objects that wait for proxies those for which something is another than before, and those that one refuses."""
        blamed = [row for row in asked.blame if row not in self._waiting]
        changed = []
        for row, before in self._waiting.items():
            status = self.pipeline.statuses.status(row)
            if status is None or asked.decide(row, status) != before:
                changed.append(row)
        return [*blamed, *changed]

    async def _look(self, row: Row, asked: _Proxies) -> bool:
        """Write the status of an object if it is another than the one that stands; whether it was written."""
        seen = self.pipeline.statuses.seen(row)
        if seen is None:
            self._waiting.pop(row, None)
            return False
        status = self.pipeline.statuses.status(row)
        if status is not None:
            waiting = waits(status)
            status = asked.decide(row, status)
            # What a proxy refuses is looked at again too: it may take the next answer.
            if waiting and (pending(status) or row in asked.blame):
                self._waiting[row] = status
            else:
                self._waiting.pop(row, None)
        key = Key(row[0], *row[1])
        now = timestamp(self.now())
        standing: list[Raw] = []

        def change(live: Raw) -> Raw:
            metadata = live["metadata"]
            if (metadata.get("uid", ""), int(metadata.get("generation") or 0)) != (seen.uid, seen.generation):
                return live  # another object than the one we know; its own event is on the way
            standing[:] = [live.get("status") or {}]
            wanted = merged(standing[0], status, seen.generation, now)
            return live if wanted == standing[0] else {**live, "status": wanted}

        stored = await self.objects.store.get(key)
        if stored is None or change(stored.body) is stored.body:
            return False
        return await self._write(stored, change, standing)

    async def _write(self, stored: Stored, change: Callable[[Raw], Raw], standing: list[Raw]) -> bool:
        key = stored.key
        kind = kind_of_resource(key.resource)
        assert kind is not None
        target = Target(kind, kind.versions[0], key.namespace, key.name, "status")
        try:
            written = await self.objects.patch(target, change, _WRITING)
        except Denial as denial:
            if denial.http == 404:
                return False  # deleted meanwhile
            if denial.http == 422:  # a former version stored it, and this one would not
                log.warning("an object cannot have its status written", object=str(key), why=str(denial))
                return False
            raise
        if written.body["metadata"]["resourceVersion"] == str(stored.revision):
            return False  # the API took out what was new
        self.written += 1
        if self.events is not None and standing:
            for turn in turns(standing[0], written.body.get("status") or {}):
                await self.events.record(written.body, "Warning" if turn.bad else "Normal", turn.reason, turn.message)
        return True


class _Proxies:
    """The connected proxies at one moment, and which objects they refuse."""

    def __init__(self, pipeline: Pipeline, progress: Iterable[Progress]) -> None:
        self._pipeline = pipeline
        self._proxies = {one.proxy: one for one in progress}
        self.blame: dict[Row, tuple[str, str]] = {}
        for proxy in self._proxies.values():
            for (type_url, resource), why in proxy.refused.items():
                for ref in pipeline.made_by(proxy.proxy, type_url, resource):
                    kind = kind_for(ref.group, ref.kind)
                    if kind is not None:
                        self.blame.setdefault((kind.resource, (ref.namespace, ref.name)), (proxy.proxy, why))

    def decide(self, row: Row, status: Status) -> Status:
        """The status with what waits for proxies decided."""
        seen = self._pipeline.statuses.seen(row)
        written = seen.revision if seen else 0

        def since(proxy: str) -> int:
            if row[0].endswith(GATEWAY_API):  # an older Gateway's port may be opened anew because of another's
                return max(written, self._pipeline.listened(proxy))
            return written

        return decided(status, Asked(self._proxies, since, self.blame.get(row)))
