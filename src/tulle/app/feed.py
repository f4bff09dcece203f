"""From the store to the proxies: store ──watch──▶ decode ──▶ Pipeline.commit ──▶ AdsServer.publish.

A model revision is the store's revision: what `kubectl` shows as `resourceVersion` is what `tulle wait --revision` waits for.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import structlog

from tulle.api.decode import decode
from tulle.api.object import Object
from tulle.api.registry import kind_of_resource
from tulle.core.pipeline import Pipeline
from tulle.kit.errors import TulleError
from tulle.ports import Compacted, Event, Key, Store

log = structlog.get_logger("tulle.control-plane")

_BATCH = 10_000  # events in one commit, at most: a bound for memory, never reached by hand
_PAUSE = 1.0  # seconds before a store that failed is read again


class Feed:
    """Keeps the pipeline at the store's revision, and tells the xDS server of every step.

    Events that are there already go into one commit; a lone change is not delayed. What is only a status is compiled by nobody:
    `overwritten` hears of it.
    """

    def __init__(
        self,
        store: Store,
        pipeline: Pipeline,
        publish: Callable[[Any], None],
        overwritten: Callable[[Sequence[Key]], None] = lambda keys: None,
    ) -> None:
        self.store, self.pipeline, self.publish, self.overwritten = store, pipeline, publish, overwritten
        self._waiting: asyncio.Queue[Event] = asyncio.Queue()
        self._stepped = asyncio.Event()
        self._there: set[Key] = set()  # what the pipeline has

    async def reached(self, revision: int) -> None:
        """Wait until the pipeline shows a revision of the store."""
        while self.pipeline.revision < revision:
            await self._stepped.wait()

    async def load(self) -> int:
        """Everything that is stored, as one commit; the revision that it shows."""
        stored, revision = await self.store.list()
        bodies: dict[Key, dict[str, Any] | None] = dict.fromkeys(self._there)  # those that are not there any more
        bodies.update((item.key, item.body) for item in stored)
        self._commit(bodies, revision)
        return revision

    async def run(self, since: int) -> None:
        """Follow the store until cancelled."""
        while True:
            try:
                async with asyncio.TaskGroup() as group:
                    group.create_task(self._read(since))
                    group.create_task(self._work())
            except* Compacted:
                log.warning("too much has changed in the store meanwhile; reading everything anew")
            since = await self._load_again()

    async def _load_again(self) -> int:
        while not self._waiting.empty():
            self._waiting.get_nowait()
        while True:
            try:
                return await self.load()
            except TulleError as error:
                log.warning("the store cannot be read; the proxies go on with what they have", why=error.message)
                await asyncio.sleep(_PAUSE)

    async def _read(self, since: int) -> None:
        async for event in self.store.watch(since):
            self._waiting.put_nowait(event)

    async def _work(self) -> None:
        while True:
            event = await self._waiting.get()
            events = [event]
            while not self._waiting.empty() and len(events) < _BATCH:
                events.append(self._waiting.get_nowait())
            bodies: dict[Key, dict[str, Any] | None] = {}
            statuses: list[Key] = []
            for one in events:
                if only_status(one):
                    statuses.append(one.key)
                else:
                    bodies[one.key] = one.body
            self._commit(bodies, events[-1].revision)
            self.overwritten(statuses)

    def _commit(self, bodies: Mapping[Key, dict[str, Any] | None], revision: int) -> None:
        changes = {}
        for key, body in bodies.items():
            if kind_of_resource(key.resource) is not None:
                (self._there.discard if body is None else self._there.add)(key)
                changes[key.resource, key.namespace, key.name] = _typed(key, body)
        self.publish(self.pipeline.commit(changes, revision))
        self._stepped.set()
        self._stepped = asyncio.Event()


def only_status(event: Event) -> bool:
    """Whether an event changed nothing of an object but its status (and who wrote which field)."""
    if event.body is None or event.previous is None:
        return False
    return _without_status(event.body) == _without_status(event.previous)


def _without_status(body: Mapping[str, Any]) -> dict[str, Any]:
    metadata = {key: value for key, value in body.get("metadata", {}).items() if key not in ("managedFields", "resourceVersion")}
    return {**body, "metadata": metadata, "status": None}


def _typed(key: Key, body: dict[str, Any] | None) -> Object | None:
    """The stored object, decoded. One that a former version stored and this one cannot read is left out, and said."""
    if body is None:
        return None
    # The mesh never acts on a status, so that none can keep it from acting.
    decoded, problems = decode({field: value for field, value in body.items() if field != "status"})
    if decoded is None:
        log.error("a stored object cannot be read; it is left out", object=str(key), problems=[str(it) for it in problems])
    return decoded
