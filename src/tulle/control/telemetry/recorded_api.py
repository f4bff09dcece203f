"""`/tulle/v1/telemetry/recorded` and `/tulle/v1/explain`: nodes tell of recorded calls; who may see the mesh asks for them."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import msgspec
import structlog
from aiohttp import web

from tulle.control.apiserver import errors
from tulle.control.telemetry.keeping import together
from tulle.control.telemetry.recorded import Failure, Kept
from tulle.core.explain import Explanation
from tulle.core.figures import short
from tulle.core.model.recorded import HEADERS, Example, Record, Recorded, RecordedReport, Shape, failing

log = structlog.get_logger(__name__)

_MOST_ROWS = 5_000  # of a report
_LONGEST = 512  # characters of any text in it
_SLACK = 300.0  # seconds that a node's clock may be ahead of what it says itself
_SKEW, _WRONG = 2.0, 10 * 365 * 86400.0  # seconds: of less it is not moved (a report takes time), more is no clock

Peers = Callable[[str, Mapping[str, str]], Awaitable[Sequence[Any]]]


class Asked(msgspec.Struct, frozen=True):
    """Which calls: workloads and services are `namespace/name`; `code` is `403` or `5xx`; empty asks nothing."""

    source: str = ""
    destination: str = ""
    namespace: str = ""
    method: str = ""
    path: str = ""
    code: str = ""
    failed: bool = False

    def wanted(self, shape: Shape, _record: Record) -> bool:
        """Whether a shape is one of them."""
        service = short(shape.service)
        there = {shape.source.partition("/")[0], shape.destination.partition("/")[0], service.partition("/")[0]}
        return (
            self.source in ("", shape.source)
            and self.destination in ("", shape.destination, service, shape.service)
            and (not self.namespace or self.namespace in there)
            and self.method.upper() in ("", shape.method)
            and shape.path.startswith(self.path)
            and (not self.code or shape.code.startswith(self.code.lower().rstrip("x")))
            and (not self.failed or failing(shape.code, shape.flags, shape.details, shape.grpc))
        )

    def meant(self, host: str) -> bool:
        """Whether all calls of a service are among those: nothing else of them is asked for than where they went."""
        service = short(host)
        return (
            not self.source
            and self.destination in ("", service, host)
            and (not self.namespace or service.partition("/")[0] == self.namespace)
        )


def add_recorded(
    app: web.Application,
    kept: Kept,
    reporter: Callable[[web.Request], str],
    explained: Callable[[Sequence[Failure]], Awaitable[Explanation]],
    others: Peers,
    clock: Callable[[], float] = time.time,
    notice: Callable[[], str] = str,
    named: Callable[[Shape], Shape] = lambda shape: shape,
) -> None:
    """Serve `POST` and `GET /telemetry/recorded`, `GET /telemetry/hops` (what is known of a request here) and `GET /explain`.

    `reporter` is the node that asks, or ""; `others` asks the other control planes for a path; `notice` is what people
    are to know; `named` puts the policy to a shape whose proxy does not tell it.
    """

    async def report(request: web.Request) -> web.Response:
        try:
            told = msgspec.json.decode(await request.read(), type=RecordedReport)
        except msgspec.DecodeError as error:
            raise errors.bad_request(f"report: {error}") from error
        node = reporter(request)
        if node and told.node != node:
            raise errors.Denial(403, "Forbidden", f"report.node: found {told.node!r}; node {node} reports for itself only")
        now = clock()
        wrong = now - told.sent if told.sent else 0.0
        wrong = wrong if _SKEW < abs(wrong) < _WRONG else 0.0
        rows = [
            (named(shape), _moved(record, wrong)) for shape, record in told.rows[:_MOST_ROWS] if _sane(shape, record, now - wrong)
        ]
        failures = [
            (named(shape), _moved_example(one, wrong))
            for shape, one in told.failures[:_MOST_ROWS]
            if _sane_example(one, now - wrong) and _short(shape)
        ]
        lost = len(told.rows) - len(rows) + len(told.failures) - len(failures)
        if lost:
            kept.left_out += lost
            log.warning("recorded calls that make no sense, or are too many, are left out", node=told.node, rows=lost)
        kept.add(now, rows, failures, max(0, told.dropped))
        return web.json_response({})

    async def calls(request: web.Request) -> web.Response:
        query = {name: value for name, value in request.query.items() if name != "here"}
        seconds = _seconds(query.pop("seconds", "604800"))
        try:
            asked = msgspec.convert(query, Asked, strict=False)
        except msgspec.ValidationError as error:
            raise errors.bad_request(str(error)) from error
        start = clock() - seconds
        parts = [kept.since(start, asked.wanted, asked.meant)]
        if "here" not in request.query:
            answers = await others("/telemetry/recorded", request.query)
            parts += [msgspec.convert(one, Recorded) for one in answers]
        found = together(parts)
        if notice():
            found = msgspec.structs.replace(found, notice=notice())
        return web.Response(body=msgspec.json.encode(found), content_type="application/json")

    def here(query: Mapping[str, str]) -> list[Failure]:
        workload = query.get("last-error", "")
        return kept.failures_of(workload) if workload else kept.calls_of(query.get("id", ""))

    async def hops(request: web.Request) -> web.Response:
        return web.Response(body=msgspec.json.encode(here(request.query)), content_type="application/json")

    async def everywhere(query: Mapping[str, str]) -> list[Failure]:
        answers = await others("/telemetry/hops", query)
        return [*here(query), *(msgspec.convert(one, Failure) for answer in answers for one in answer)]

    async def explain(request: web.Request) -> web.Response:
        workload, identity = request.query.get("last-error", ""), request.query.get("id", "")
        if bool(workload) == bool(identity):
            raise errors.bad_request("needed one of id and last-error in the query")
        found = await everywhere(dict(request.query))
        if not found:
            what = f"a failed or denied call of {workload}" if workload else f"the request {identity}"
            raise errors.Denial(404, "NotFound", f"nothing is recorded of {what}")
        if workload:
            last = max(found, key=lambda one: one[1].time)
            same = await everywhere({"id": last[1].id}) if last[1].id else []
            found = same or [last]
        return web.Response(body=_answer(await explained(found)), content_type="application/json")

    app.router.add_post("/telemetry/recorded", report)
    app.router.add_get("/telemetry/recorded", calls)
    app.router.add_get("/telemetry/hops", hops)
    app.router.add_get("/explain", explain)


def _moved(record: Record, wrong: float) -> Record:
    """What a clock told that is `wrong` by so many seconds, by the control plane's."""
    if not wrong:
        return record
    examples = tuple(_moved_example(one, wrong) for one in record.examples)
    return msgspec.structs.replace(record, first=record.first + wrong, last=record.last + wrong, examples=examples)


def _moved_example(one: Example, wrong: float) -> Example:
    return msgspec.structs.replace(one, time=one.time + wrong) if wrong else one


def _answer(found: Explanation) -> bytes:
    return msgspec.json.encode({**msgspec.structs.asdict(found), "text": found.text})


def _sane(shape: Shape, record: Record, now: float) -> bool:
    """Garbage of a broken node does not become anybody's figures."""
    count = record.count
    return (
        _short(shape)
        and 0 < count.calls < 1 << 40
        and 0 <= count.milliseconds < 1e15
        and 0 <= record.estimate < 1e15
        and len(count.buckets) <= 32
        and all(0 <= one <= two for one, two in zip(count.buckets, count.buckets[1:], strict=False))
        and 0 < record.first <= record.last <= now + _SLACK
        and len(record.examples) <= 3
        and all(_sane_example(one, now) for one in record.examples)
    )


def _sane_example(one: Example, now: float) -> bool:
    texts = (text for text in msgspec.structs.astuple(one) if isinstance(text, str))
    return (
        0 < one.time <= now + _SLACK
        and 0 <= one.milliseconds < 1e12
        and all(len(text) <= _LONGEST for text in texts)
        and all(name in HEADERS and len(value) <= _LONGEST for name, value in one.headers.items())
    )


def _short(shape: Shape) -> bool:
    return all(len(text) <= _LONGEST for text in msgspec.structs.astuple(shape) if isinstance(text, str))


def _seconds(text: str) -> float:
    try:
        found = float(text)
    except ValueError:
        found = -1.0
    if not 0 < found < 1e9:
        raise errors.bad_request(f"seconds: found {text!r}, needed a number above 0")
    return found
