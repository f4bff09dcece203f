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
from tulle.ports import Compacted, Event, Key, Store, Stored

log = structlog.get_logger("tulle.control-plane")

_EXPECTED = 1000  # decoded objects that wait for their events, at most; each waits some milliseconds
_BATCH = 10_000  # events in one commit, at most: a bound for memory, never reached by hand
_PAUSE = 1.0  # seconds before a store that failed is read again
_NOTHING: tuple[int, dict[str, Any], Object | None] = (0, {}, None)


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
        self._wanted: list[tuple[int, asyncio.Future[bool]]] = []  # revisions that somebody waits for
        self._there: set[Key] = set()  # what the pipeline has
        self._expected: dict[Key, tuple[int, dict[str, Any], Object]] = {}  # at which revision; the oldest first

    @property
    def waiting(self) -> int:
        """Events of the store that are not compiled yet."""
        return self._waiting.qsize()

    async def reached(self, revision: int, within: float | None = None) -> bool:
        """Wait until the pipeline shows a revision of the store; whether that took at most `within` seconds."""
        if self.pipeline.revision >= revision:
            return True
        loop = asyncio.get_running_loop()
        done = loop.create_future()
        self._wanted.append((revision, done))
        timer = None if within is None else loop.call_later(within, _answer, done, False)
        try:
            shown: bool = await done
        finally:
            if timer is not None:
                timer.cancel()
        return shown

    def expect(self, key: Key, revision: int, body: dict[str, Any], one: Object) -> None:
        """A body that was written here, and what it was decoded to: no need to do that again when it comes back.

        Where it came back already, nothing is lost but the time.
        """
        if revision <= self.pipeline.revision:
            return
        self._expected.pop(key, None)
        self._expected[key] = (revision, body, one)
        if len(self._expected) > _EXPECTED:
            del self._expected[next(iter(self._expected))]

    async def load(self) -> int:
        """Everything that is stored, as one commit; the revision that it shows."""
        stored, revision = await self.store.list()
        found: dict[Key, Stored | None] = dict.fromkeys(self._there)  # those that are not there any more
        found.update((item.key, item) for item in stored)
        self._commit(found, revision)
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
            changed: dict[Key, Event | None] = {}
            statuses: list[Key] = []
            for one in events:
                if not self._wrote(one) and only_status(one):
                    statuses.append(one.key)
                else:
                    changed[one.key] = None if one.deleted else one
            self._commit(changed, events[-1].revision)
            self.overwritten(statuses)

    def _commit(self, found: Mapping[Key, Event | Stored | None], revision: int) -> None:
        """`found`: the objects as they are now, None for one that is gone."""
        changes = {}
        for key, one in found.items():
            if kind_of_resource(key.resource) is not None:
                (self._there.discard if one is None else self._there.add)(key)
                changes[key.resource, key.namespace, key.name] = self._typed(key, one)
        self.publish(self.pipeline.commit(changes, revision))
        now = self.pipeline.revision
        for wanted, done in self._wanted:
            if wanted <= now:
                _answer(done, True)
        self._wanted = [one for one in self._wanted if not one[1].done()]

    def _wrote(self, event: Event) -> bool:
        """Whether it is of a write that was told here, as those of a status are not; its bodies need not be compared."""
        return self._expected.get(event.key, _NOTHING)[0] == event.revision

    def _typed(self, key: Key, stored: Event | Stored | None) -> Object | None:
        """The stored object, decoded. One that a former version stored and this one cannot read is left out, and said."""
        revision, body, wrote = self._expected.pop(key, _NOTHING)
        if stored is None:
            return None
        if revision == stored.revision and wrote is not None and wrote.api_version == body["apiVersion"]:
            return as_read(wrote, body)
        body = stored.body or {}
        decoded, problems = decode({field: value for field, value in body.items() if field != "status"})
        if decoded is None:
            log.error("a stored object cannot be read; it is left out", object=str(key), problems=[str(it) for it in problems])
        return decoded


def _answer(waiting: asyncio.Future[bool], shown: bool) -> None:
    if not waiting.done():
        waiting.set_result(shown)


def as_read(one: Object, body: Mapping[str, Any]) -> Object:
    """What was decoded before it was written, as the mesh would read it from what was written.

    The server counts generations after decoding. There is no status in it: the mesh never acts on one, so that none can keep it
    from acting.
    """
    update: dict[str, Any] = {}
    generation = body["metadata"].get("generation", 0)
    if one.metadata.generation != generation:
        update["metadata"] = one.metadata.model_copy(update={"generation": generation})
    if "status" in body:
        update["status"] = type(one).model_fields["status"].get_default(call_default_factory=True)
    return one.model_copy(update=update) if update else one


def only_status(event: Event) -> bool:
    """Whether an event changed nothing of an object but its status (and who wrote which field)."""
    if event.created or event.deleted:
        return False
    assert event.body is not None
    assert event.previous is not None
    return _without_status(event.body) == _without_status(event.previous)


def _without_status(body: Mapping[str, Any]) -> dict[str, Any]:
    metadata = {key: value for key, value in body.get("metadata", {}).items() if key not in ("managedFields", "resourceVersion")}
    return {**body, "metadata": metadata, "status": None}
