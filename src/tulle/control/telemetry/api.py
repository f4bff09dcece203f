"""`/tulle/v1/telemetry`: nodes report what their proxies counted; who may see the mesh asks for the calls of a while.

| path         | answers                                                                                                  |
|--------------|----------------------------------------------------------------------------------------------------------|
| `/report`    | (POST) nothing                                                                                           |
| `/figures`   | `core.figures.Table`: rate, success, latency `by` service, workload, edge or route; `points` of a curve  |
| `/graph`     | `core.graph.Graph` at a `level`: app, service, version or workload                                       |
| `/inventory` | `core.inventory.Inventory`: what there is                                                                |
| `/security`  | `core.secured.Securities`: who still calls in plaintext                                                  |
| `/counted`   | `everywhere.Counted`: what this control plane was told, for the others                                   |

All take `seconds` (how far back; 600) and `namespace` ("": all); the first two also `until`, the end of that time (now).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import StrEnum
from typing import Any, TypeVar

import msgspec
import structlog
from aiohttp import web

from tulle.control.apiserver import errors
from tulle.control.telemetry.everywhere import PATH, Asked, Everywhere
from tulle.control.telemetry.others import Others, nobody
from tulle.control.telemetry.window import STEP, Window
from tulle.core.figures import By, Table, short, table
from tulle.core.graph import Level, graph
from tulle.core.inventory import Inventory
from tulle.core.model.calls import BOUNDS, Count, Edge, Report
from tulle.core.secured import Securities, Security

log = structlog.get_logger(__name__)

_MOST_ROWS = 20_000  # of a report: some 80 proxies with all that they may count
_MOST_POINTS = 120

Secure = Callable[[dict[Edge, Count], str], Iterable[Security]]
Word = TypeVar("Word", bound=StrEnum)


class Telemetry:
    """The handlers. `reporter` is the node that asks, or ""; `secure` says what calls mean for the services of a namespace.

    `counted` are told, too, of what was counted; `others` asks the other control planes.
    """

    def __init__(
        self,
        window: Window,
        reporter: Callable[[web.Request], str],
        secure: Secure,
        inventory: Callable[[str], Inventory],
        clock: Callable[[], float] = time.time,
        counted: Sequence[Callable[[float, Iterable[tuple[Edge, Count]]], None]] = (),
        others: Others = nobody,
    ) -> None:
        self._counted, self._everywhere = counted, Everywhere(window, others)
        self._window, self._reporter, self._secure, self._inventory, self._clock = window, reporter, secure, inventory, clock

    def add(self, app: web.Application) -> None:
        """Serve the paths."""
        app.router.add_post("/telemetry/report", self.report)
        for name in ("figures", "graph", "inventory", "security"):
            app.router.add_get(f"/telemetry/{name}", getattr(self, name))
        app.router.add_get(PATH, self.here)

    async def calls(self, seconds: float) -> Mapping[Edge, Count]:
        """What was counted in the last seconds, by all control planes."""
        return (await self._everywhere.found(Asked(self._clock() - seconds))).calls

    async def report(self, request: web.Request) -> web.Response:
        """What a node's proxies have counted since its last report."""
        try:
            told = msgspec.json.decode(await request.read(), type=Report)
        except msgspec.DecodeError as error:
            raise errors.bad_request(f"report: {error}") from error
        node = self._reporter(request)
        if node and told.node != node:
            raise errors.Denial(403, "Forbidden", f"report.node: found {told.node!r}; node {node} reports for itself only")
        if len(told.rows) > _MOST_ROWS:
            log.warning("a report is too long; the rest of it is dropped", node=told.node, rows=len(told.rows), most=_MOST_ROWS)
        rows = [row for row in told.rows[:_MOST_ROWS] if _sane(*row)]
        now = self._clock()
        self._window.add(now, rows)
        for tell in self._counted:
            tell(now, rows)
        return web.json_response({})

    async def figures(self, request: web.Request) -> web.Response:
        """Rows of figures, and curves of `points` equal parts of the time."""
        start, seconds, end = self._time(request)
        points, by = int(_number(request, "points", 0, 0, _MOST_POINTS)), _word(request, "by", By.SERVICE)
        times, step = _parts(seconds, points, self._clock() if end is None else end) if points else ((), STEP)
        found = await self._everywhere.found(Asked(start, end, times))
        missing = sum(time < found.begins - STEP for time in times[1:])
        known = min(seconds, max(1.0, start + seconds - found.begins))
        series = {edge: values[missing:] for edge, values in found.series.items()}
        rows = table(found.calls.items(), by, known, request.query.get("namespace", ""), series, step, missing)
        return _answer(Table(found.begins, seconds, tuple(rows), found.dropped))

    async def graph(self, request: web.Request) -> web.Response:
        """Who calls whom."""
        start, seconds, end = self._time(request)
        namespace, level = request.query.get("namespace", ""), _word(request, "level", Level.APP)
        found = await self._everywhere.found(Asked(start, end))
        rows = (row for row in found.calls.items() if not namespace or namespace in _namespaces(row[0]))
        known = min(seconds, max(1.0, start + seconds - found.begins))
        idle = request.query.get("idle", "true") != "false"
        return _answer(graph(rows, level, self._inventory(""), found.begins, known, idle, namespace))

    async def inventory(self, request: web.Request) -> web.Response:
        """Services and workloads."""
        return _answer(self._inventory(request.query.get("namespace", "")))

    async def security(self, request: web.Request) -> web.Response:
        """What the calls say of mutual TLS."""
        start, _seconds, _end = self._time(request)
        found = await self._everywhere.found(Asked(start))
        return _answer(Securities(found.begins, tuple(self._secure(found.calls, request.query.get("namespace", "")))))

    async def here(self, request: web.Request) -> web.Response:
        """What this control plane was told."""
        try:
            asked = msgspec.json.decode(request.query.get("asked", ""), type=Asked)
        except msgspec.DecodeError as error:
            raise errors.bad_request(f"asked: {error}") from error
        if len(asked.times) > _MOST_POINTS + 1:
            raise errors.bad_request(f"asked.times: found {len(asked.times)}; needed at most {_MOST_POINTS + 1}")
        return _answer(self._everywhere.here(asked))

    def _time(self, request: web.Request) -> tuple[float, float, float | None]:
        """Since when, how many seconds, and until when (None: now)."""
        seconds = _number(request, "seconds", 600, 1e-9, 1e9)
        if "until" not in request.query:
            return self._clock() - seconds, seconds, None
        until = _number(request, "until", 0, 0, 1e12)
        return until - seconds, seconds, until


def _parts(seconds: float, points: int, end: float) -> tuple[tuple[float, ...], float]:
    """The bounds of the parts, and how long each is.

    That is a step at least, and parts begin and end with one: then nothing is counted twice.
    """
    step = max(STEP, round(seconds / points / STEP) * STEP)
    last = end // STEP * STEP
    return tuple(last - step * part for part in range(max(1, round(seconds / step)), -1, -1)), step


def _sane(edge: Edge, count: Count) -> bool:
    """Garbage of a broken node does not become anybody's figures."""
    return (
        0 <= count.calls < 1 << 32
        and 0 <= count.milliseconds < 1e12
        and all(0 <= one <= two < 1 << 32 for one, two in zip((0, *count.buckets), count.buckets, strict=False))
        and len(count.buckets) <= len(BOUNDS)
        and all(len(text) <= 512 for text in msgspec.structs.astuple(edge) if isinstance(text, str))
    )


def _namespaces(edge: Edge) -> set[str]:
    return {one.partition("/")[0] for one in (edge.source, edge.destination, short(edge.service))}


def _number(request: web.Request, name: str, default: float, least: float, most: float) -> float:
    text = request.query.get(name, str(default))
    try:
        found = float(text)
    except ValueError:
        found = float("nan")
    if not least <= found < most:
        raise errors.bad_request(f"{name}: found {text!r}, needed a number from {least:g} to {most:g}")
    return found


def _word(request: web.Request, name: str, default: Word) -> Word:
    text = request.query.get(name, default.value)
    try:
        return type(default)(text)
    except ValueError:
        words = ", ".join(type(default))
        raise errors.bad_request(f"{name}: found {text!r}, needed one of {words}") from None


def _answer(found: Any) -> web.Response:
    return web.Response(body=msgspec.json.encode(found), content_type="application/json")
