"""The controllers of the mesh run on one control plane at a time: the leader, elected by a lease of the store.

    store: _leader/controllers ──watch──▶ Election (pure) ──▶ grant, claim, renew, revoke
                                              └──▶ controllers begin, end

The same over every store: a single control plane over SQLite is elected, too. Who leads is shown as a Lease of Kubernetes
(`kubectl get leases -n tulle-system`), which goes with the leader; what counts is the record, which nobody edits.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
import uuid
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import structlog

from tulle.control.apiserver.table import timestamp
from tulle.control.election import (
    Action,
    Ask,
    Claim,
    Claimed,
    Elapsed,
    Election,
    Event,
    Failed,
    Granted,
    Held,
    Lead,
    Look,
    Lost,
    Phase,
    Renew,
    Renewed,
    Revoke,
    StepDown,
    Stop,
    Terms,
    Vacant,
    Wake,
)
from tulle.kit.errors import TulleError
from tulle.ports import Clock, Compacted, Conflict, Key, LeaseLost, Put, Store, Stored

log = structlog.get_logger("tulle.leader")

RESOURCE = "_leader"
RECORD = Key(RESOURCE, "", "controllers")
SHOWN = Key("leases.coordination.k8s.io", "tulle-system", "tulle-controllers")
_PATIENCE = 2.0  # seconds that the end of the process waits for the store to take the lease back
_PAUSE = 1.0  # seconds before a store that failed, or a controller that fell over it, is tried again

Controllers = Mapping[str, Callable[[], Awaitable[None]]]


class UpClock:
    """`ports.Clock` that only goes forward and counts the time in which the machine slept: leases go on then, too."""

    def now(self) -> float:
        """Seconds since the machine was started."""
        return time.clock_gettime(time.CLOCK_BOOTTIME)

    async def sleep(self, seconds: float) -> None:
        """Return after that long."""
        await asyncio.sleep(seconds)


class Leader:
    """Runs `controllers` (name → what runs until cancelled) while this control plane, `name`, leads.

    A controller that fails because of the store is started again; what else it fails of ends `run`. `began` is awaited each time
    before they start. `wall` gives seconds since the epoch, only to show them.
    """

    def __init__(
        self,
        store: Store,
        name: str,
        controllers: Controllers,
        *,
        began: Callable[[], Awaitable[None]] | None = None,
        terms: Terms | None = None,
        clock: Clock | None = None,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.store, self.name, self.controllers = store, name, controllers
        self.holder = ""  # who leads, as far as is known
        self._began, self._wall = began, wall
        self._terms, self._clock = terms or Terms(), clock or UpClock()
        self._election = Election(self._terms)
        self._events: asyncio.Queue[Event | BaseException] = asyncio.Queue()  # an exception is a bug somewhere below
        self._requests: set[asyncio.Task[None]] = set()
        self._timer: asyncio.Task[None] | None = None
        self._work: list[asyncio.Task[None]] = []

    @property
    def leads(self) -> bool:
        """Whether the controllers run here."""
        return self._election.phase is Phase.LEADING

    async def run(self) -> None:
        """Stand for election until cancelled; then step down and let the next one in at once."""
        self._request(self._watch())
        try:
            while True:
                event = await self._events.get()
                if isinstance(event, BaseException):
                    raise event
                await self._do(self._election.feed(event, self._clock.now()))
        finally:
            for task in (*self._requests, *([self._timer] if self._timer else [])):
                task.cancel()
            for action in self._election.feed(Stop(), self._clock.now()):
                if isinstance(action, StepDown):
                    await self._step_down(action.why)
                elif isinstance(action, Revoke):
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(self._revoke(action.lease), _PATIENCE)

    async def _do(self, actions: list[Action]) -> None:
        for action in actions:
            match action:
                case Lead():
                    log.info("this control plane leads", name=self.name)
                    self._work = [asyncio.create_task(self._lead(), name="leader-begin")]
                case StepDown(why):
                    await self._step_down(why)
                case Wake(at):
                    if self._timer is not None:
                        self._timer.cancel()
                    self._timer = asyncio.create_task(self._wake(at), name="leader-wake")
                case Ask():
                    self._request(self._ask())
                case Claim(lease):
                    self._request(self._claim(lease))
                case Renew(lease):
                    self._request(self._renew(lease))
                case Revoke(lease):
                    self._request(self._revoke(lease))
                case Look():
                    self._request(self._look())

    # What only the leader does.

    async def _lead(self) -> None:
        if self._began is not None:
            await self._kept("begin", self._began, again=False)
        for name, run in self.controllers.items():
            self._work.append(asyncio.create_task(self._kept(name, run), name=name))

    async def _kept(self, name: str, run: Callable[[], Awaitable[None]], *, again: bool = True) -> None:
        """Run it, again where the store was why it ended; what else it ends of is a bug, and ends everything."""
        while True:
            try:
                await run()
                if not again:
                    return
                self._events.put_nowait(RuntimeError(f"the controller {name} has ended"))
                return
            except TulleError as error:
                log.warning("a controller waits for the store", controller=name, why=error.message)
            except BaseExceptionGroup as group:
                matched, rest = group.split(TulleError)
                if rest is not None:
                    self._events.put_nowait(rest)
                    return
                log.warning("a controller waits for the store", controller=name, why=str(matched))
            except Exception as error:
                self._events.put_nowait(error)
                return
            await asyncio.sleep(_PAUSE)

    async def _step_down(self, why: str) -> None:
        log.warning("this control plane does not lead any more", name=self.name, why=why)
        while self._work:
            work, self._work = self._work, []
            for task in work:
                task.cancel()
            await asyncio.gather(*work, return_exceptions=True)

    # What is asked of the store. Each answers with one event.

    def _request(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._requests.add(task)
        task.add_done_callback(self._requested)

    def _requested(self, task: asyncio.Task[None]) -> None:
        self._requests.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._events.put_nowait(error)

    async def _wake(self, at: float) -> None:
        await self._clock.sleep(max(0.0, at - self._clock.now()))
        self._events.put_nowait(Elapsed())

    async def _ask(self) -> None:
        asked = self._clock.now()
        try:
            lease = await self.store.grant(self._terms.ttl)
        except TulleError as error:
            log.debug("no lease", why=error.message)
            self._events.put_nowait(Failed())
        else:
            self._events.put_nowait(Granted(lease, asked))

    async def _claim(self, lease: int) -> None:
        now = self._wall()
        body = {"holder": self.name, "lease": lease}
        try:
            at = await self.store.write([Put(RECORD, body, expect=0, lease=lease), Put(SHOWN, self._shown(now), lease=lease)])
        except Conflict:
            self._events.put_nowait(Failed())
        except LeaseLost:
            self._events.put_nowait(Lost(lease))
        except TulleError as error:
            log.debug("not claimed", why=error.message)
            self._events.put_nowait(Failed())
        else:
            self._events.put_nowait(Claimed(lease, at))

    def _shown(self, now: float) -> dict[str, Any]:
        """For people. It says nothing of renewals: those are the store's, and no write."""
        moment = datetime.fromtimestamp(now, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        metadata = {"name": SHOWN.name, "namespace": SHOWN.namespace, "uid": str(uuid.uuid4())}
        return {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {**metadata, "creationTimestamp": timestamp(now)},
            "spec": {"holderIdentity": self.name, "leaseDurationSeconds": int(self._terms.ttl), "acquireTime": moment},
        }

    async def _renew(self, lease: int) -> None:
        asked = self._clock.now()
        try:
            await self.store.renew(lease)
        except LeaseLost:
            self._events.put_nowait(Lost(lease))
        except TulleError as error:
            log.debug("not renewed", why=error.message)
            self._events.put_nowait(Failed())
        else:
            self._events.put_nowait(Renewed(lease, asked))

    async def _revoke(self, lease: int) -> None:
        with contextlib.suppress(TulleError):
            await self.store.revoke(lease)

    async def _look(self) -> None:
        try:
            self._seen(*await self.store.list(RESOURCE))
        except TulleError as error:
            log.debug("who leads cannot be read", why=error.message)
            self._events.put_nowait(Failed())

    async def _watch(self) -> None:
        """Hear of the record's coming and going."""
        while True:
            try:
                stored, revision = await self.store.list(RESOURCE)
                self._seen(stored, revision)
                async for event in self.store.watch(revision, RESOURCE):
                    there = [] if event.body is None else [Stored(event.key, event.body, event.revision)]
                    self._seen(there, event.revision)
            except Compacted:
                continue
            except TulleError as error:
                log.debug("who leads cannot be read", why=error.message)
                await asyncio.sleep(_PAUSE)

    def _seen(self, records: Sequence[Stored], at: int) -> None:
        """The record, which is the only one of its resource, or its absence."""
        if records:
            self.holder = str(records[0].body["holder"])
            self._events.put_nowait(Held(int(records[0].body["lease"]), at))
        else:
            self.holder = ""
            self._events.put_nowait(Vacant(at))
