"""The objects of etcd in memory, kept current by a watch: what reads and watches are served from.

    etcd ──list, then watch──▶ Cache ──▶ State ──▶ get, list, watch
                                 ▲ mark (by quorum): up to where must it be, to be as true as etcd itself

A lost stream goes on where it ended, on another member if need be: no event is missed and none comes twice. Only where etcd has
forgotten the revisions in between is everything listed anew, and watchers are told to list again.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Iterator, Sequence
from typing import Any

import grpc
import structlog
from aetcd import rpc

from tulle.control.store.etcd_cluster import DEADLINE, Answer, Cluster, Method, pause
from tulle.control.store.etcd_layout import Layout
from tulle.control.store.state import Record, Row, State, recorded
from tulle.kit.errors import TulleError, Unavailable
from tulle.ports import Compacted, Event, Key

RANGE = Method("KV/Range", rpc.RangeResponse)
_COMPACT = Method("KV/Compact", rpc.CompactionResponse)
_WATCH = Method("Watch/Watch", rpc.WatchResponse)
_PAGE = 1000  # objects in one answer of a list
_CHECK = 2.0  # seconds between two looks whether the watch keeps up
_LATE = 2.0  # seconds that it may be behind before it is believed to be stuck

log = structlog.get_logger("tulle.store")


class Cache:
    """Follows one prefix of a cluster. It begins at its first use, and ends with `close`.

    `log_size`: how many changes watches find here; older ones they read from etcd. `compact` (s): etcd forgets what is older.
    """

    def __init__(self, cluster: Cluster, layout: Layout, log_size: int, compact: float) -> None:
        self.cluster, self.layout = cluster, layout
        self.state = State(log_size)
        self._compact = compact
        self._loaded = asyncio.Event()
        self._seen = 0  # etcd's revision up to which memory is complete
        self._following: grpc.aio.Channel | None = None
        self._next: asyncio.Task[int] | None = None  # the read of the mark that has not been sent yet
        self._reading = asyncio.Lock()
        self._tasks: list[asyncio.Task[None]] = []
        self._failures = 0  # of the watch, one after the other
        self._replaced = ""
        self._closed = False

    # Reading.

    async def fresh(self, before: float = 0.0) -> int:
        """Return once memory has all that was written before this call; the revision of the last transaction of then.

        Raises `Unavailable` where that cannot be known, or is not so, by `before` (the loop's time; 0: `DEADLINE` from now).
        """
        if self._closed:
            raise Unavailable("the store is closed")
        self.begin()
        before = before or asyncio.get_running_loop().time() + DEADLINE
        mark = -1
        try:
            async with asyncio.timeout_at(before):
                await self._loaded.wait()
                mark = await self._mark()
                if self.state.revision < mark:
                    await self.state.reach(mark)
                return mark
        except TimeoutError:
            if mark >= 0 and self._following is not None:
                self.cluster.drop(self._following, "its watch does not keep up")
            raise self.cluster.unavailable() from None

    async def _mark(self) -> int:
        """The mark's revision by quorum. All that ask while one read is on its way share the next one."""
        if self._next is None:
            self._next = asyncio.create_task(self._read_mark(), name="etcd-mark")
            self._next.add_done_callback(lambda task: task.cancelled() or task.exception())  # also where nobody waits any more
        return await asyncio.shield(self._next)

    async def _read_mark(self) -> int:
        async with self._reading:
            self._next = None
            seen = self._seen
            answer, _ = await self.ask(RANGE, rpc.RangeRequest(key=self.layout.mark))
        if answer.header.revision < seen:
            self._replaced = f"etcd is at revision {answer.header.revision}, where revision {seen} was seen before"
        if self._replaced:
            hint = "it was restored from a backup, or is another cluster: restart every control plane"
            raise Unavailable(self._replaced, hint=hint)
        return answer.kvs[0].mod_revision if answer.kvs else 0

    async def ask(self, method: Method, request: Any, before: float = 0.0) -> tuple[Any, bool]:
        """As `Cluster.call`, where the store is open."""
        if self._closed:
            raise Unavailable("the store is closed")
        return await self.cluster.call(method, request, before=before)

    async def watch(self, since: int, resource: str | None) -> AsyncGenerator[Event, None]:
        """As `Store.watch`: what is older than memory comes from etcd, until memory has what follows."""
        self.begin()
        if not self._loaded.is_set():
            await self.fresh()
        if since < self.state.compacted:
            async with contextlib.aclosing(self._past_events(since, resource)) as past:
                async for event in past:
                    if event.revision - 1 >= self.state.compacted:
                        since = event.revision - 1
                        break
                    yield event
        async with contextlib.aclosing(self.state.watch(since, resource)) as events:
            async for event in events:
                yield event

    async def _past_events(self, since: int, resource: str | None) -> AsyncGenerator[Event, None]:
        """Events straight from etcd, one revision after the other, without end."""
        start, end = self.layout.objects(resource, None)
        failures = 0
        while True:
            request = _watch(start, end, since, prev_kv=True)
            try:
                async with contextlib.aclosing(self.cluster.stream(_WATCH, request)) as stream:
                    async for response in stream:
                        _check_watch(response)
                        failures = 0
                        events = [
                            self._past_event(event)
                            for event in response.events
                            if event.kv.key != self.layout.mark and event.kv.mod_revision > since
                        ]
                        for event in events:
                            yield event
                        if events:
                            since = events[-1].revision
            except Answer as answer:
                if answer.compacted:
                    raise Compacted(since, self.state.compacted) from answer
                raise self.cluster.unavailable() from answer
            except Unavailable:
                if self._closed:
                    raise Unavailable("the store is closed") from None
                failures += 1
                await asyncio.sleep(pause(failures))

    def _past_event(self, event: Any) -> Event:
        kv = event.kv
        deleted = event.type == rpc.Event.DELETE
        if not event.HasField("prev_kv") and (deleted or kv.version > 1):
            raise Compacted(kv.mod_revision, self.state.compacted)  # the body before is forgotten already
        previous = event.prev_kv.value if event.HasField("prev_kv") else None
        return Event(self.layout.place(kv.key), kv.mod_revision, None if deleted else kv.value, previous)

    # Following.

    def begin(self) -> None:
        """Follow etcd from now on. Idempotent."""
        if not self._tasks and not self._closed:
            work = {"follow": self._follow(), "check": self._check(), "compact": self._forget()}
            self._tasks = [asyncio.create_task(one, name=f"etcd-{name}") for name, one in work.items()]

    async def _follow(self) -> None:
        listed = False
        while True:
            try:
                if not listed:
                    await self._list()
                    listed = True
                await self._stream()
            except Answer as answer:
                if answer.compacted:
                    listed = False
                    log.warning("etcd has forgotten what happened meanwhile; listing everything anew")
                else:
                    self.cluster.trouble = answer.message
                    log.error("etcd refuses its watch", why=answer.message)
                    await asyncio.sleep(_CHECK)
            except Unavailable:
                self._failures += 1
                await asyncio.sleep(pause(self._failures))

    async def _list(self) -> None:
        """Everything, at one revision."""
        rows: dict[Key, Row] = {}
        mark = at = 0
        start = self.layout.mark
        while True:
            request = rpc.RangeRequest(key=start, range_end=self.layout.end, limit=_PAGE, revision=at)
            answer, _ = await self.cluster.call(RANGE, request)
            at = at or answer.header.revision
            for kv in answer.kvs:
                if kv.key == self.layout.mark:
                    mark = kv.mod_revision
                else:
                    rows[self.layout.place(kv.key)] = Row(kv.value, kv.mod_revision, kv.lease)
            if not answer.more:
                break
            start = answer.kvs[-1].key + b"\0"
        revision = max((mark, *(row.revision for row in rows.values())))
        if self._loaded.is_set() and revision == self.state.revision and rows.keys() != self.state.keys():
            revision = at  # what went without a transaction went with its lease
        self.state.replace(rows.items(), revision)
        self._seen = at
        self._loaded.set()
        log.info("loaded from etcd", objects=len(rows), revision=revision)

    async def _stream(self) -> None:
        request = _watch(self.layout.mark, self.layout.end, self._seen)

        def opened(channel: grpc.aio.Channel) -> None:
            self._following = channel

        async with contextlib.aclosing(self.cluster.stream(_WATCH, request, opened)) as stream:
            async for response in stream:
                _check_watch(response)
                self.cluster.well()
                self._failures = 0
                for revision, events in _by_revision(response.events):
                    if revision > self._seen:
                        self._take(revision, events)

    def _take(self, revision: int, events: Sequence[Any]) -> None:
        """One revision, which etcd never splits over two answers unless asked to."""
        records: list[Record] = []
        for event in events:
            kv = event.kv
            if kv.key == self.layout.mark:
                continue
            key = self.layout.place(kv.key)
            body = None if event.type == rpc.Event.DELETE else kv.value
            row = self.state.row(key)
            if body is not None or row is not None:
                records.append(recorded(key, revision, body, row, kv.lease))
        if records:
            self.state.apply(records)
        else:
            self.state.advance(revision)
        self._seen = revision

    async def _check(self) -> None:
        """A member that hangs keeps its stream open and silent: find out, also when nobody reads."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(_CHECK)
            if self._loaded.is_set():
                with contextlib.suppress(TulleError):
                    await self.fresh(loop.time() + _LATE)

    async def _forget(self) -> None:
        """As kube-apiserver does, so that an etcd that nobody configured does not fill up. Every control plane asks for it."""
        while True:
            now = self._seen
            await asyncio.sleep(self._compact)
            if now:
                with contextlib.suppress(Answer, Unavailable):  # compacted already, or away: the next time
                    await self.cluster.call(_COMPACT, rpc.CompactionRequest(revision=now))

    async def close(self) -> None:
        """Stop following, end the watches, hang up."""
        self._closed = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self.state.close()
        await self.cluster.close()


def _watch(start: bytes, end: bytes, since: int, *, prev_kv: bool = False) -> Any:
    """A watch of what came after a revision, asked for from that revision on: the reader leaves that one itself out.

    Asked for from the next one, etcd would not refuse where just that is what it compacted to; and deletions of it are lost then.
    """
    create = rpc.WatchCreateRequest(key=start, range_end=end, start_revision=max(1, since), prev_kv=prev_kv)
    return rpc.WatchRequest(create_request=create)


def _check_watch(response: Any) -> None:
    if response.compact_revision:
        raise Answer(grpc.StatusCode.OUT_OF_RANGE, "the revision was compacted")
    if response.canceled:
        raise Answer(grpc.StatusCode.FAILED_PRECONDITION, response.cancel_reason or "the watch was cancelled")


def _by_revision(events: Sequence[Any]) -> Iterator[tuple[int, Sequence[Any]]]:
    start = 0
    for position in range(1, len(events) + 1):
        if position == len(events) or events[position].kv.mod_revision != events[start].kv.mod_revision:
            yield events[start].kv.mod_revision, events[start:position]
            start = position
