"""A Prometheus that reads the mesh, asked instead of this control plane's own window (`--prometheus-url`).

api.py ──▶ prometheus.py ──▶ Prometheus' `/api/v1/query`, `/query_range`
                └──(it fails)──▶ everywhere.py

Where it is down, slow, or answers what makes no sense, people are answered from the window, and told so: `Found.notice`. Then it
is not asked again for a while, for whoever looks in an incident should not wait for it each time.
"""

from __future__ import annotations

import asyncio
import json
import math
import ssl
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

import aiohttp
import msgspec
import structlog

from tulle.control.metrics import Metric
from tulle.control.telemetry import promql
from tulle.control.telemetry.everywhere import Asked, Everywhere, Found
from tulle.core.graph import About
from tulle.core.model.calls import Count, Edge
from tulle.kit.errors import Refused, Unavailable

T = TypeVar("T")

log = structlog.get_logger("tulle.control-plane")

PATIENCE = 10.0  # seconds that all of an answer may take
AGAIN = 15.0  # seconds after a failure until it is asked again
_MOST = 64 << 20  # bytes of an answer
_MOST_OF_ERROR = 1 << 16
_SETTLED = 30.0  # seconds from the first sample of the mesh until all proxies were read once


class _Result(msgspec.Struct, frozen=True):
    """One series; numbers are text there."""

    metric: dict[str, str] = {}
    value: tuple[float, str] | None = None
    values: tuple[tuple[float, str], ...] = ()


class _OfAnyKind(msgspec.Struct, frozen=True, rename="camel"):
    result_type: str
    result: msgspec.Raw


class _Data(msgspec.Struct, frozen=True):
    result: tuple[_Result, ...]


class _Numbers(msgspec.Struct, frozen=True):
    """What a query of people may have: a vector, or one number."""

    data: _OfAnyKind


class _Answer(msgspec.Struct, frozen=True):
    data: _Data


class Access(msgspec.Struct, frozen=True):
    """Where it is and how to be let in. Raises `Refused` where the URL is none. The token is read for each request."""

    url: str
    token_file: Path | None = None
    ca_file: Path | None = None

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise Refused(f"--prometheus-url: found {self.shown!r}; needed http://HOST:PORT or https://HOST:PORT")

    @property
    def shown(self) -> str:
        """The URL without what may be secret in it."""
        parts = urlsplit(self.url)
        return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment="").geturl()


class Prometheus:
    """Its queries. Raises `Unavailable` with what went wrong."""

    def __init__(self, access: Access) -> None:
        self.access = access
        self._session: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        """End its connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def query(self, query: str, at: float | None = None) -> tuple[list[promql.Series], float]:
        """The series of now, or of a time of its clock; and the time."""
        asked = {"query": query} if at is None else {"query": query, "time": f"{at:.3f}"}
        results = await self._asked("query", asked)
        found = [promql.Series(one.metric, (_numbers(one.value),)) for one in results if one.value is not None]
        return found, max((one.values[-1][0] for one in found), default=0.0)

    async def curve(self, query: str, start: float, end: float, step: float) -> list[promql.Series]:
        """The series at each step."""
        asked = {"query": query, "start": f"{start:.3f}", "end": f"{end:.3f}", "step": f"{step:.3f}"}
        results = await self._asked("query_range", asked)
        return [promql.Series(one.metric, tuple(map(_numbers, one.values))) for one in results]

    async def numbers(self, query: str) -> list[float]:
        """What a query has now: a number a series, also such as are none (NaN, infinite); or the one of a scalar."""
        found = (await self._decoded("query", {"query": query}, _Numbers)).data
        try:
            if found.result_type == "scalar":
                return [float(msgspec.json.decode(found.result, type=tuple[float, str])[1])]
            if found.result_type == "vector":
                rows = msgspec.json.decode(found.result, type=tuple[_Result, ...])
                return [float(one.value[1]) for one in rows if one.value is not None]
        except (msgspec.DecodeError, ValueError) as error:
            raise Unavailable(f"its answer makes no sense: {error}") from error
        raise Unavailable(f"found a {found.result_type[:20]}; needed a query that has a vector or a scalar")

    async def _asked(self, path: str, form: Mapping[str, str]) -> tuple[_Result, ...]:
        return (await self._decoded(path, form, _Answer)).data.result

    async def _decoded(self, path: str, form: Mapping[str, str], kind: type[T]) -> T:
        try:
            body = await self._posted(f"{self.access.url.rstrip('/')}/api/v1/{path}", form)
            return await asyncio.to_thread(msgspec.json.decode, body, type=kind)
        except TimeoutError as error:
            raise Unavailable(f"it does not answer within {PATIENCE:g} seconds") from error
        except aiohttp.ClientError as error:
            raise Unavailable(str(error) or type(error).__name__) from error
        except OSError as error:
            raise Unavailable(error.strerror or str(error)) from error
        except (msgspec.DecodeError, UnicodeError, ValueError, RecursionError) as error:
            raise Unavailable(f"its answer makes no sense: {error}") from error

    async def _posted(self, url: str, form: Mapping[str, str]) -> bytes:
        if self._session is None:
            self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=PATIENCE))
        secure: ssl.SSLContext | bool = True
        if self.access.ca_file is not None:
            secure = ssl.create_default_context(cafile=str(self.access.ca_file))
        said = {}
        if self.access.token_file is not None:
            said["Authorization"] = f"Bearer {self.access.token_file.read_text().strip()}"
        async with self._session.post(url, data=form, headers=said, ssl=secure, allow_redirects=False) as answer:
            body, most = bytearray(), _MOST if answer.status == 200 else _MOST_OF_ERROR
            async for chunk in answer.content.iter_chunked(1 << 16):
                body += chunk
                if len(body) > most:
                    break
            if answer.status != 200:
                raise Unavailable(f"it answers {answer.status}{_why(bytes(body))}")
            if len(body) > _MOST:
                raise Unavailable(f"its answer is longer than {_MOST >> 20} MB")
            return bytes(body)


def _why(body: bytes) -> str:
    """What Prometheus says of an error: one short line of it."""
    try:
        said = json.loads(body)
    except (ValueError, RecursionError):
        return ""
    text = said.get("error") if isinstance(said, dict) else None
    return ": " + " ".join(text.split())[:200] if isinstance(text, str) and text else ""


def _numbers(pair: tuple[float, str]) -> tuple[float, float]:
    time_, value = pair[0], float(pair[1])
    return time_, value if math.isfinite(value) else 0.0


class FromPrometheus:
    """`Everywhere`'s answers, of a Prometheus as long as it gives any. `clock` is the control plane's; `patience` in seconds.

    `taken` says what objects take away of the metrics that are read: then answers lack it, and people are told.
    """

    def __init__(
        self,
        prometheus: Prometheus,
        instead: Everywhere,
        clock: Callable[[], float] = time.time,
        patience: float = PATIENCE,
        taken: Callable[[], str] = str,
    ) -> None:
        self._prometheus, self._instead, self._clock, self._patience = prometheus, instead, clock, patience
        self._taken = taken
        self._until = -math.inf  # (monotonic) when it is asked again after a failure
        self.why = ""  # what went wrong when it was asked last
        self.asked = 0
        self.failed = 0

    async def found(self, asked: Asked, routes: bool = False) -> Found:
        """The calls; of the window where they cannot be had, with a `notice`."""
        if time.monotonic() >= self._until:
            self.asked += 1
            try:
                async with asyncio.timeout(self._patience):
                    found = await self._found(asked, routes)
                self.why = ""
                found.notice = self.notice
                return found
            except TimeoutError:
                self._fails(f"it does not answer within {self._patience:g} seconds")
            except Unavailable as error:
                self._fails(error.message)
        found = await self._instead.found(asked)
        found.notice = self.notice
        return found

    async def numbers(self, query: str) -> list[float]:
        """What a query of people has now; raises `Unavailable`, for nothing else could be answered."""
        return await self._prometheus.numbers(query)

    async def close(self) -> None:
        """End its connections."""
        await self._prometheus.close()

    @property
    def shown(self) -> str:
        """Where it is."""
        return self._prometheus.access.shown

    @property
    def notice(self) -> str:
        """What people are to know of it: "" while all is well."""
        if not self.why:
            taken = self._taken()
            return f"the figures are of Prometheus and lack what is taken away there: {taken}" if taken else ""
        return f"Prometheus at {self.shown}: {self.why}; the figures are the control plane's own instead"

    def metrics(self) -> list[Metric]:
        """How often it was asked, and gave nothing."""
        return [
            Metric("tulle_prometheus_queries_total", "counter", "Times that Prometheus was asked.", [({}, float(self.asked))]),
            Metric("tulle_prometheus_failures_total", "counter", "Times that it failed.", [({}, float(self.failed))]),
        ]

    def _fails(self, why: str) -> None:
        self.failed += 1
        self._until = time.monotonic() + AGAIN
        if why != self.why:
            log.warning("Prometheus cannot be asked", url=self.shown, why=why)
        self.why = why

    async def _found(self, asked: Asked, routes: bool) -> Found:
        now = self._clock()
        first, there = await self._prometheus.query(promql.begins(now - asked.start))
        if not first:
            raise Unavailable("it has nothing of this mesh (`tulle observability prometheus` prints what it needs)")
        ahead = there - now  # of its clock
        began = first[0].values[-1][1] - ahead
        # Known is what came since it reads the mesh, and has read all of it once.
        start = asked.start if began <= asked.start else began + _SETTLED
        end = now if asked.until is None else asked.until
        if end - start < 1.0:
            return Found(max(start, asked.start), {}, {}, 0)
        metrics = (promql.ROUTES, promql.ROUTE_DURATION) if routes else (promql.REQUESTS, promql.DURATION, promql.CONNECTIONS)
        wanted = [self._prometheus.query(promql.counted(metric, end - start), end + ahead) for metric in metrics]
        tables = [rows for rows, _time in await asyncio.gather(*wanted)]
        calls = promql.counts(tables[0], tables[1])
        for rows in tables[2:]:
            calls |= promql.counts(rows, ())
        if asked.about is not None:
            services = {edge.service for edge in calls if asked.about.of(edge)}
            return Found(start, {}, {}, 0, parts=await self._parts(asked, asked.about, services, ahead) if services else {})
        return Found(start, calls, await self._series(asked.times, metrics, ahead), 0)

    async def _parts(self, asked: Asked, about: About, services: set[str], ahead: float) -> dict[Edge, tuple[Count, ...]]:
        times = asked.times
        step, bounds = times[1] - times[0], (times[1] + ahead, times[-1] + ahead)
        wanted = [promql.counted(one, step, services) for one in (promql.REQUESTS, promql.CONNECTIONS, promql.DURATION)]
        requests, connections, durations = await asyncio.gather(*(self._prometheus.curve(one, *bounds, step) for one in wanted))
        found = promql.parts(requests, durations, times, ahead) | promql.parts(connections, (), times, ahead)
        return {edge: counts for edge, counts in found.items() if about.of(edge)}

    async def _series(self, times: tuple[float, ...], metrics: tuple[str, ...], ahead: float) -> dict[Edge, tuple[int, ...]]:
        if len(times) < 2:
            return {}
        step, bounds = times[1] - times[0], (times[1] + ahead, times[-1] + ahead)
        wanted = [promql.counted(one, step) for one in metrics if not one.endswith("_bucket")]
        found: dict[Edge, tuple[int, ...]] = {}
        for rows in await asyncio.gather(*(self._prometheus.curve(one, *bounds, step) for one in wanted)):
            found |= promql.series(rows, times, ahead)
        return found
