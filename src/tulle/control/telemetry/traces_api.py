"""`/tulle/v1/telemetry/spans` and `/traces`: nodes report what their proxies told; who may see the mesh asks for traces.

A control plane knows what its own nodes told it. What the others know it asks for, and puts it together: a trace may be here and
there.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

import msgspec
import structlog
from aiohttp import web

from tulle.control.apiserver import errors
from tulle.control.metrics import Metric
from tulle.control.telemetry.others import Others, nobody
from tulle.control.telemetry.traces import Traces
from tulle.core import waterfall
from tulle.core.model.spans import Span, SpanReport, Summaries, Summary

log = structlog.get_logger(__name__)

SPANS, TRACES = "/telemetry/spans", "/telemetry/traces"
_MOST_REPORTED = 10_000  # spans of a report
_MOST_LISTED = 1000
_SKEW = 1.0  # seconds that the clock of a node may be wrong before its spans are moved: a report takes time, too
_ID, _SPAN_ID = re.compile(r"[0-9a-f]{32}"), re.compile(r"[0-9a-f]{16}")
_MOST_TEXT, _MOST_TAGS = 1024, 64

T = TypeVar("T")


class _Own(msgspec.Struct, frozen=True):
    """The spans of one trace, as control planes tell each other."""

    spans: tuple[Span, ...]


def add_traces(
    app: web.Application,
    traces: Traces,
    reporter: Callable[[web.Request], str],
    others: Others = nobody,
    clock: Callable[[], float] = time.time,
) -> None:
    """Serve `POST /telemetry/spans`, `GET /telemetry/traces` and `GET /telemetry/traces/ID`.

    The list takes `service` (`namespace/app`, or an app alone), `min_duration` (ms), `errors` (true), `seconds` (how far back)
    and `limit`; what comes is a `Summaries`, of one trace a `Trace`. `reporter` is the node that asks, or "".
    """

    async def report(request: web.Request) -> web.Response:
        try:
            told = msgspec.json.decode(await request.read(), type=SpanReport)
        except msgspec.DecodeError as error:
            raise errors.bad_request(f"report: {error}") from error
        node = reporter(request)
        if node and told.node != node:
            raise errors.Denial(403, "Forbidden", f"report.node: found {told.node!r}; node {node} reports for itself only")
        now = clock()
        good = [span for span in told.spans[:_MOST_REPORTED] if _sane(span)]
        lost = len(told.spans) - len(good)
        if lost:
            log.warning("a report has spans that cannot be kept", node=told.node, spans=lost)
        traces.dropped += lost + max(0, min(told.dropped, 1 << 40))
        traces.add(now, _by_this_clock(good, now - told.sent))
        return web.json_response({})

    async def listed(request: web.Request) -> web.Response:
        asked = _Asked.read(request.query)
        now = clock()
        found = Summaries(traces.began, tuple(traces.lines(now, now - asked.seconds)), traces.dropped)
        if request.query.get("here") != "true":
            found = _together([found, *_read(await others(TRACES, {"seconds": str(asked.seconds)}), Summaries)])
            wanted = sorted((line for line in found.traces if asked.wants(line)), key=lambda line: line.start, reverse=True)
            found = Summaries(found.begins, tuple(wanted[: asked.limit]), found.dropped)
        return _json(found)

    async def one(request: web.Request) -> web.Response:
        trace = request.match_info["trace"].lower()
        if not _ID.fullmatch(trace):
            raise errors.bad_request(f"trace: found {trace!r}, needed an id of 32 hexadecimal digits")
        spans = traces.spans(trace)
        if request.query.get("here") == "true":
            return _json(_Own(tuple(spans)))
        for there in _read(await others(f"{TRACES}/{trace}", {}), _Own):
            spans += there.spans
        found = waterfall.trace(spans)
        if found is None:
            raise errors.Denial(404, "NotFound", f"trace {trace} is not here: it was not sampled, or it is gone by now")
        return _json(found)

    app.router.add_post(SPANS, report)
    app.router.add_get(TRACES, listed)
    app.router.add_get(TRACES + "/{trace}", one)


def metrics_of(traces: Traces) -> list[Metric]:
    """How many spans came, what there was no room for, and how much is kept."""
    return [
        Metric(name, kind, said, [({}, float(value))])
        for name, kind, said, value in (
            ("tulle_spans_received_total", "counter", "Spans of traces that nodes reported.", traces.received),
            ("tulle_spans_dropped_total", "counter", "Spans there was no room for, at nodes and here.", traces.dropped),
            ("tulle_traces_evicted_total", "counter", "Traces that went before their time.", traces.evicted),
            ("tulle_traces", "gauge", "Traces that are kept.", traces.count),
            ("tulle_traces_bytes", "gauge", "Bytes of the traces that are kept.", traces.bytes),
        )
    ]


class _Asked(msgspec.Struct, frozen=True):
    """Which traces."""

    service: str
    least: float
    errors: bool
    seconds: float
    limit: int

    @classmethod
    def read(cls, query: Mapping[str, str]) -> _Asked:
        """Raises a refusal where a number is none."""
        return cls(
            service=query.get("service", ""),
            least=_number(query, "min_duration", 0),
            errors=query.get("errors") == "true",
            seconds=_number(query, "seconds", 3600),
            limit=int(min(_number(query, "limit", 50), _MOST_LISTED)),
        )

    def wants(self, line: Summary) -> bool:
        """Whether it is one of them."""
        name = self.service
        mine = not name or any(one == name or ("/" not in name and one.endswith(f"/{name}")) for one in line.services)
        return mine and line.duration >= self.least and (not self.errors or line.errors > 0)


def _number(query: Mapping[str, str], name: str, default: float) -> float:
    text = query.get(name, "")
    try:
        found = float(text) if text else default
    except ValueError:
        found = -1.0
    if not 0 <= found < 1e9:
        raise errors.bad_request(f"{name}: found {text!r}, needed a number from 0")
    return found


def _sane(span: Span) -> bool:
    """Garbage of a broken node is not kept."""
    return bool(
        _ID.fullmatch(span.trace)
        and _SPAN_ID.fullmatch(span.id)
        and (not span.parent or _SPAN_ID.fullmatch(span.parent))
        and 0 <= span.start < 1 << 56
        and 0 <= span.duration < 1 << 48
        and all(len(text) <= _MOST_TEXT for text in (span.workload, span.service, span.version, span.kind, span.name))
        and len(span.tags) <= _MOST_TAGS
        and all(len(name) <= _MOST_TEXT and len(value) <= _MOST_TEXT for name, value in span.tags.items())
    )


def _by_this_clock(spans: Iterable[Span], wrong: float) -> Iterable[Span]:
    """What a clock told that is `wrong` by so many seconds, by the control plane's."""
    if abs(wrong) <= _SKEW:
        return spans
    moved = round(wrong * 1_000_000)
    return [msgspec.structs.replace(span, start=max(0, span.start + moved)) for span in spans]


def _together(found: Sequence[Summaries]) -> Summaries:
    """What several control planes have, each trace once."""
    lines: dict[str, Summary] = {}
    for line in (line for one in found for line in one.traces):
        there = lines.get(line.trace)
        lines[line.trace] = line if there is None else _joined(there, line)
    return Summaries(min(one.begins for one in found), tuple(lines.values()), sum(one.dropped for one in found))


def _joined(one: Summary, other: Summary) -> Summary:
    """Two parts of a trace: the one that has its beginning says how it begins."""
    first = other if other.known and not one.known else one
    end = max(line.start + line.duration / 1000 for line in (one, other))
    start = first.start if first.known else min(one.start, other.start)
    return msgspec.structs.replace(
        first,
        start=start,
        duration=max(first.duration, (end - start) * 1000),
        spans=one.spans + other.spans,
        errors=one.errors + other.errors,
        services=tuple(sorted({*one.services, *other.services})),
        kept=one.kept or other.kept,
    )


def _read(answers: Iterable[Any], kind: type[T]) -> list[T]:
    found = []
    for answer in answers:
        try:
            found.append(msgspec.convert(answer, kind))
        except msgspec.ValidationError as error:
            log.warning("another control plane answers what is not understood here", why=str(error))
    return found


def _json(body: Any) -> web.Response:
    return web.Response(body=msgspec.json.encode(body), content_type="application/json")
