"""`/tulle/v1/telemetry`: nodes report what their proxies counted; who may see the mesh asks for the calls of a while.

| path         | answers                                                                                                  |
|--------------|----------------------------------------------------------------------------------------------------------|
| `/report`    | (POST) nothing                                                                                           |
| `/figures`   | `core.figures.Table`: rate, success, latency `by` service, workload, edge or route; `points` of a curve  |
| `/graph`     | `core.graph.Graph` at a `level`: app, service, version or workload                                       |
| `/parts`     | `core.graph.Parts`: figures of equal `points` of the time, of a `node` of the graph or of one link       |
| `/inventory` | `core.inventory.Inventory`: what there is                                                                |
| `/proxies`   | what each proxy takes: CPU and memory; here and at the other control planes                              |
| `/security`  | `core.secured.Securities`: who still calls in plaintext                                                  |
| `/counted`   | `everywhere.Counted`: what this control plane was told, for the others                                   |

All take `seconds` (how far back; 600) and `namespace` ("": all); the first three also `until`, the end of that time (now).
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
from tulle.control.metrics import Metric
from tulle.control.telemetry.everywhere import PATH, Asked, Everywhere, Found, Source
from tulle.control.telemetry.others import Others, nobody
from tulle.control.telemetry.uses import PATH as USES
from tulle.control.telemetry.uses import Taken, Uses
from tulle.control.telemetry.window import STEP, Window
from tulle.core.figures import By, Table, short, table
from tulle.core.graph import About, Curves, Level, graph, parts
from tulle.core.inventory import Inventory
from tulle.core.model.calls import BOUNDS, Count, Edge, Report
from tulle.core.secured import Securities, Security

log = structlog.get_logger(__name__)

_MOST_ROWS = 20_000  # of a report: some 80 proxies with all that they may count
_MOST_PROXIES = 2_000
_MOST_POINTS = 120

Secure = Callable[[dict[Edge, Count], str], Iterable[Security]]
Word = TypeVar("Word", bound=StrEnum)


class _Uses(msgspec.Struct, frozen=True):
    proxies: tuple[Taken, ...] = ()


class Telemetry:
    """The handlers. `reporter` is the node that asks, or ""; `secure` says what calls mean for the services of a namespace.

    `counted` are told, too, of what was counted; `others` asks the other control planes. `source` makes what is asked for figures
    and the graph of what all control planes know (of itself: that).
    """

    def __init__(
        self,
        window: Window,
        reporter: Callable[[web.Request], str],
        secure: Secure,
        inventory: Callable[[str], Inventory],
        clock: Callable[[], float] = time.time,
        counted: Sequence[Callable[[float, Iterable[tuple[Edge, Count]], float], None]] = (),
        others: Others = nobody,
        source: Callable[[Everywhere], Source] = lambda everywhere: everywhere,
    ) -> None:
        self._counted, self._everywhere = counted, Everywhere(window, others)
        self._others, self._uses = others, Uses()
        self.left_out = 0  # rows of reports that made no sense, or were too many
        self._source = source(self._everywhere)
        self._window, self._reporter, self._secure, self._inventory, self._clock = window, reporter, secure, inventory, clock

    def add(self, app: web.Application) -> None:
        """Serve the paths."""
        app.router.add_post("/telemetry/report", self.report)
        for name in ("figures", "graph", "parts", "inventory", "proxies", "security"):
            app.router.add_get(f"/telemetry/{name}", getattr(self, name))
        app.router.add_get(PATH, self.here)

    async def calls(self, seconds: float) -> Mapping[Edge, Count]:
        """What was counted in the last seconds, by all control planes."""
        return (await self._everywhere.found(Asked(self._clock() - seconds))).calls

    def metrics(self) -> list[Metric]:
        """How much is kept of what was counted, and what could not be."""
        rows = (
            ("tulle_window_kinds", "gauge", "Kinds of call that are kept.", self._window.kinds),
            ("tulle_window_bytes", "gauge", "What the calls of the last hours take in memory.", self._window.size),
            ("tulle_window_dropped_total", "counter", "Calls of more kinds than there is room for.", self._window.dropped),
            ("tulle_report_left_out_total", "counter", "Rows of nodes' reports that made no sense.", self.left_out),
        )
        return [Metric(name, kind, what, [({}, float(number))]) for name, kind, what, number in rows]

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
        self.left_out += len(told.rows) - len(rows)
        now = self._clock()
        self._window.add(now, rows)
        self._uses.add(now, told.uses[:_MOST_PROXIES])
        for tell in self._counted:
            tell(now, rows, max(0.0, told.seconds))
        return web.json_response({})

    async def proxies(self, request: web.Request) -> web.Response:
        """What proxies take."""
        namespace = request.query.get("namespace", "")
        found = {one.proxy: one for one in self._uses.now(self._clock(), namespace)}
        if "here" not in request.query:
            for answer in await self._others(USES, {"here": "true", "namespace": namespace}):
                for one in msgspec.convert(answer, _Uses).proxies:
                    # A node that went over to another control plane is told of by both.
                    if one.proxy not in found or one.told > found[one.proxy].told:
                        found[one.proxy] = one
        return _answer(_Uses(tuple(found[name] for name in sorted(found))))

    async def figures(self, request: web.Request) -> web.Response:
        """Rows of figures, and curves of `points` equal parts of the time."""
        start, seconds, end = self._time(request)
        by, (times, step) = _word(request, "by", By.SERVICE), self._parts(request, seconds, end)
        found = await self._source.found(Asked(start, end, times), routes=by is By.ROUTE)
        known = min(seconds, max(1.0, start + seconds - found.begins))
        series, missing = _known(found, times)
        rows = table(found.calls.items(), by, known, request.query.get("namespace", ""), series, step, missing)
        return _answer(Table(found.begins, seconds, tuple(rows), found.dropped, found.notice))

    async def graph(self, request: web.Request) -> web.Response:
        """Who calls whom."""
        start, seconds, end = self._time(request)
        namespace, level = request.query.get("namespace", ""), _word(request, "level", Level.APP)
        times, step = self._parts(request, seconds, end)
        found = await self._source.found(Asked(start, end, times))
        series, missing = _known(found, times)
        rows = (row for row in found.calls.items() if not namespace or namespace in _namespaces(row[0]))
        known = min(seconds, max(1.0, start + seconds - found.begins))
        idle = request.query.get("idle", "true") != "false"
        made = graph(rows, level, self._inventory(""), found.begins, known, idle, namespace, Curves(series, step, missing))
        return _answer(msgspec.structs.replace(made, notice=found.notice))

    async def parts(self, request: web.Request) -> web.Response:
        """How the calls of a node or of a link went, part by part."""
        _start, seconds, end = self._time(request)
        query = {name: request.query.get(name, "") for name in ("node", "source", "target", "protocol")}
        about = About(_word(request, "level", Level.APP), **query)
        points = int(_number(request, "points", 30, 1, _MOST_POINTS))
        times, step = _parts(seconds, points, self._clock() if end is None else end)
        found = await self._source.found(Asked(times[0], times[-1], times, about))
        missing = sum(time < found.begins - STEP for time in times[1:])
        made = parts(found.parts, times[-1], step, len(times) - 1, missing)
        return _answer(msgspec.structs.replace(made, notice=found.notice))

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

    def _parts(self, request: web.Request, seconds: float, end: float | None) -> tuple[tuple[float, ...], float]:
        """The bounds of the parts of a curve of so many `points` as are asked for, and how long each part is."""
        points = int(_number(request, "points", 0, 0, _MOST_POINTS))
        return _parts(seconds, points, self._clock() if end is None else end) if points else ((), STEP)

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


def _known(found: Found, times: Sequence[float]) -> tuple[dict[Edge, tuple[int, ...]], int]:
    """The curves as far as they are known, and how many parts before that are not."""
    missing = sum(time < found.begins - STEP for time in times[1:])
    return {edge: values[missing:] for edge, values in found.series.items()}, missing


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
