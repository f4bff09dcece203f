"""Folds what Envoys tell of calls into shapes, tells the control plane, and sets how much the Envoys tell.

Every second, and at once where more came than is wanted: how many came → how much is to come (`core/recorded/shares.py`) → each
Envoy's runtime. The control plane hears of shapes with every report, and of a call that failed within seconds: somebody may be
asking why.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from typing import TYPE_CHECKING

import grpc
import msgspec
import structlog

from tulle.client.api import ApiClient
from tulle.core.envoy.calls import FAILURES, MILLION, SAMPLED
from tulle.core.model.recorded import Example, RecordedReport, Shape
from tulle.core.recorded.folding import Fold, one
from tulle.core.recorded.paths import Templates
from tulle.core.recorded.shares import LEAST, Shares, decide, differs
from tulle.kit.errors import TulleError, Unavailable
from tulle.node.calls import intake
from tulle.node.calls.entry import entry, failed
from tulle.node.calls.intake import Bucket
from tulle.node.metrics.standard import Who

if TYPE_CHECKING:
    from tulle.node.workload import Workload

log = structlog.get_logger("tulle.node")

PATH = "/tulle/v1/telemetry/recorded"
BUDGET = 50.0  # calls a second
_TICK = 1.0  # seconds
_FLOOD = 2  # times the budget: when so much came since the last look, the next is not waited for
_SHAPES = 500  # between two reports: what fits into one, with its examples
_FAILURES = 50  # that wait to be told one by one; of more the last ones
_PAUSE = 3.0  # seconds between two reports of failures: in a storm of these nobody asks about each
_AGAIN = 15.0  # seconds before a control plane that did not answer is told again


class Recorder:
    """`budget`: calls a second that are looked at, of all proxies of the node; 0: none. Shapes are told every `interval` s."""

    def __init__(self, node: str, budget: float = BUDGET, interval: float = 15.0) -> None:
        self._node, self._budget, self._interval = node, budget, interval
        self._fold = Fold(_SHAPES)
        self._templates = Templates()
        self._bucket = Bucket(budget)
        self._failures: deque[tuple[Shape, Example]] = deque(maxlen=_FAILURES)
        self._dropped = 0
        self._shares = Shares() if budget > 0 else Shares(failures=0.0, sampled=0.0)
        self._since, self._before = 0.0, self._shares  # when the shares were told (seconds since the epoch), and those until then
        self._came = [0, 0]  # since the last tick: failures, others
        self._flooded = asyncio.Event()
        self._told: dict[int, tuple[float, float]] = {}  # the shares, by pid of Envoy

    def handler(self, own: Callable[[], Who]) -> grpc.GenericRpcHandler:
        """What takes the calls of one workload's Envoy, for the server that it talks to."""
        return intake.handler(lambda data: self.take(data, own()))

    def take(self, data: bytes, own: Who) -> None:
        """A batch of calls that the proxy of `own` tells of."""
        found = [(failed(said[0]), said) for said in map(intake.said, intake.read(data))]
        # Calls that began before Envoys were told of other shares say nothing of how many there are now.
        since = [is_failure for is_failure, (_said, began) in found if began >= self._since]
        self._came[0] += sum(since)
        self._came[1] += len(since) - sum(since)
        if sum(self._came) > _FLOOD * self._budget:
            self._flooded.set()
        room = self._bucket.take(len(found))
        self._dropped += len(found) - room
        failures = sum(one[0] for one in found)
        first = min(failures, room)
        looked_at = {True: first / max(failures, 1), False: (room - first) / max(len(found) - failures, 1)}
        for is_failure, (said, began) in intake.chosen(found, room):
            then = self._shares if began >= self._since else self._before
            share = (then.failures if is_failure else then.sampled) * looked_at[is_failure]
            call = entry(said, began, own, self._templates, max(share, LEAST))
            under = self._fold.add(call.shape, one(call.example))
            if call.failed and under is not None:
                self._failures.append((call.shape, call.example))

    async def run(self, workloads: Callable[[], Iterable[Workload]], api: Callable[[], Awaitable[ApiClient]]) -> None:
        """Until cancelled. `workloads` gives those of now, `api` the client."""
        last = due = told = time.monotonic()
        while True:
            # Quiet traffic is recorded whole, so load that begins would be, for a second, if only the clock were asked.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_TICK):
                    await self._flooded.wait()
            now = time.monotonic()
            shares = self._next(now - last)
            await self._tell(workloads(), shares)
            last = time.monotonic()
            if now >= due and (self._failures or now >= told + self._interval):
                told = now
                due = now + (_PAUSE if await self.once(api) else _AGAIN)

    def _next(self, seconds: float) -> Shares:
        """The shares after what came in so many seconds."""
        if self._budget <= 0:
            return self._shares
        new = decide(self._shares, self._came[0], self._came[1], max(seconds, 0.1), self._budget)
        if differs(self._shares, new):
            return new
        # Envoys go on with what they were told.
        return msgspec.structs.replace(new, failures=self._shares.failures, sampled=self._shares.sampled)

    async def _tell(self, workloads: Iterable[Workload], shares: Shares) -> None:
        """Tell each Envoy how much it is to tell, where it has not been told; begin to count anew."""
        there: dict[int, tuple[float, float]] = {}
        now = (shares.failures, shares.sampled)
        query = "&".join(f"{key}={round(share * MILLION)}" for key, share in zip((FAILURES, SAMPLED), now, strict=True))
        for workload in tuple(workloads):
            envoy = workload.envoy
            if envoy is None or not envoy.answers or envoy.process is None:
                continue
            before = self._told.get(envoy.process.pid)
            if before != now:
                with contextlib.suppress(Unavailable, TimeoutError):  # it starts, or ends: the next look is in a second
                    async with asyncio.timeout(_TICK):
                        await envoy.admin.post(f"/runtime_modify?{query}")
                    before = now
            if before is not None:
                there[envoy.process.pid] = before
        self._told = there
        if now != (self._shares.failures, self._shares.sampled):
            self._since, self._before = time.time(), self._shares
        self._shares = shares
        self._came = [0, 0]
        self._flooded.clear()

    def told(self) -> RecordedReport:
        """What is to be told now; it is forgotten here."""
        dropped = self._dropped + self._fold.dropped
        report = RecordedReport(self._node, self._fold.take(), tuple(self._failures), dropped, time.time())
        self._failures.clear()
        self._dropped = self._fold.dropped = 0
        return report

    async def once(self, api: Callable[[], Awaitable[ApiClient]]) -> bool:
        """One report, where there is something to tell; whether it was told."""
        report = self.told()
        if not report.rows and not report.failures and not report.dropped:
            return True
        try:
            await (await api()).request("POST", PATH, body=msgspec.to_builtins(report))
        except Unavailable as error:
            log.debug("recorded calls were not told; they will be", error=error.message)
            since = tuple(self._failures)
            self._fold.put_back(report.rows)
            self._failures.clear()
            self._failures.extend((*report.failures, *since))
            self._dropped += report.dropped
            return False
        except TulleError as error:
            log.warning("the control plane does not take recorded calls; they are lost", error=error.message)
            self._dropped = report.dropped + sum(record.count.calls for _shape, record in report.rows)
        return True
