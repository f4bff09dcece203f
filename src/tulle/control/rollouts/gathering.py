"""What the nodes of the other control planes report, for roll-outs: nodes tell the one that they are connected to, one leads.

    nodes ──▶ Tail (of each control plane) ──POST /telemetry/rollouts──▶ Gathering (of the leader) ──▶ Tallies

A control plane keeps nothing until a leader has asked, and then only calls to the services that are rolled out, until the leader
has them. A leader that begins is told of what comes from then on.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, Protocol

import msgspec
import structlog
from aiohttp import web

from tulle.control.apiserver import errors
from tulle.control.telemetry.tally import Tallies, service_of
from tulle.core.model.calls import Count, Edge

log = structlog.get_logger("tulle.rollouts")

PATH = "/telemetry/rollouts"
_TICK = 0.5  # seconds between two questions to the others
_MOST = 20_000  # kinds of call that wait for the leader; of more the oldest are dropped
_KEPT = 60.0  # seconds without a question, after which nothing is kept any more

Row = tuple[Edge, Count]
Aged = tuple[Edge, Count, float]  # and how many seconds ago, at most, the first of these calls ended


class Asked(msgspec.Struct, frozen=True):
    """The calls to some services (`namespace/name`) after the one of a number, as a `Tail` counts them in its `life`."""

    services: tuple[str, ...]
    life: str = ""
    after: int = 0


class Told(msgspec.Struct, frozen=True):
    """The answer: up to which number, and how many seconds ago a node reported last (None: none has)."""

    life: str
    last: int
    ago: float | None = None
    rows: tuple[Aged, ...] = ()


class Tail:
    """What nodes have reported here, that the leader has not got yet. `clock`: seconds, never back."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._life = clock, uuid.uuid4().hex
        self._rows: deque[tuple[int, float, Row]] = deque(maxlen=_MOST)
        self._last, self._heard, self._asked = 0, -1.0, -_KEPT
        self._services: frozenset[str] = frozenset()

    def add(self, _now: float, rows: Iterable[Row], seconds: float = 0.0) -> None:
        """A node's report of the last seconds."""
        self._heard = self._clock()
        if self._heard - self._asked > _KEPT:
            self._rows.clear()
            return
        for row in rows:
            if service_of(row[0]) in self._services:
                self._last += 1
                self._rows.append((self._last, self._heard - seconds, row))

    def since(self, asked: Asked) -> Told:
        """What the leader has not got yet; it has what was before `asked.after`. Who asks first has all that was before."""
        now = self._clock()
        self._asked, self._services = now, frozenset(asked.services)
        after = asked.after if asked.life == self._life else self._last
        while self._rows and self._rows[0][0] <= after:
            self._rows.popleft()
        ago = None if self._heard < 0 else now - self._heard
        return Told(self._life, self._last, ago, tuple((*row, now - since) for _number, since, row in self._rows))

    async def answer(self, request: web.Request) -> web.Response:
        """`POST /tulle/v1/telemetry/rollouts`, of the leader."""
        try:
            asked = msgspec.json.decode(await request.read(), type=Asked)
        except msgspec.DecodeError as error:
            raise errors.bad_request(f"rollouts: {error}") from error
        return web.Response(body=msgspec.json.encode(self.since(asked)), content_type="application/json")


class Others(Protocol):
    """The other control planes (`app/peers.py`)."""

    @property
    def names(self) -> Collection[str]:
        """Those that there are."""
        ...

    async def each(self, path: str, question: Callable[[str], Any]) -> Mapping[str, Any]:
        """What each answers to the question that is made for its name; None where it does not."""
        ...


class Gathering:
    """Tells `tallies` what the nodes of `others` report. `now`: seconds since the epoch."""

    def __init__(self, tallies: Tallies, others: Others, now: Callable[[], float]) -> None:
        self._tallies, self._others, self._now = tallies, others, now
        self._told: dict[str, float] = {}
        self._known: dict[str, tuple[str, int]] = {}

    def told(self) -> Mapping[str, float]:
        """Until when it is known what the nodes of each of the others report; 0 where that is not known at all."""
        return {name: self._told.get(name, 0.0) for name in self._others.names}

    async def run(self) -> None:
        """Until cancelled."""
        self._known = {}
        while True:
            await self.once()
            await asyncio.sleep(_TICK)

    async def once(self) -> None:
        """Ask all of them, where there is anything to ask for."""
        services = tuple(sorted(self._tallies.services))
        if not services:
            self._known = {}
            return
        began = self._now()
        answers = await self._others.each(PATH, lambda name: Asked(services, *self._known.get(name, ("", 0))))
        for name, answer in answers.items():
            if answer is None:
                continue
            try:
                told = msgspec.convert(answer, Told)
            except msgspec.ValidationError as error:  # of another version
                log.debug("another control plane tells of calls what cannot be read", name=name, why=str(error))
                continue
            self._known[name], self._told[name] = (told.life, told.last), began
            rows = [(edge, count, began - age) for edge, count, age in told.rows]
            self._tallies.take(rows, 0.0 if told.ago is None else began - told.ago)
