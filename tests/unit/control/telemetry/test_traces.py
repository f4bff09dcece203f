"""Which traces are kept, for how long, and how many; what nodes may tell and people are shown."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import msgspec
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from tulle.control.apiserver.errors import Denial
from tulle.control.telemetry.traces import KEEP, MOST_SPANS, QUIET, USUAL, Traces
from tulle.control.telemetry.traces_api import add_traces, metrics_of
from tulle.core.model.spans import SERVER, Span, SpanReport, Summaries, Summary, Trace

NOW = 1_800_000_000.0


def one(number: int, ms: float = 10, *, span: int = 1, parent: int = 0, failed: bool = False, at: float = NOW) -> Span:
    return Span(
        trace=f"{number:032x}",
        id=f"{span:016x}",
        parent=f"{parent:016x}" if parent else "",
        workload="default/shop-v1",
        service="default/shop",
        kind=SERVER,
        name="GET /",
        start=round(at * 1e6),
        duration=round(ms * 1000),
        failed=failed,
        tags={"http.status_code": "500" if failed else "200"},
    )


def ids(traces: Traces, now: float) -> set[int]:
    return {int(line.trace, 16) for line in traces.lines(now)}


def test_failed_and_slow_stay_longer() -> None:
    """Broken: the trace that somebody looks for after an incident would be gone with thousands that nobody looks for."""
    traces = Traces(NOW)
    for number in range(100):
        traces.add(NOW, [one(number)])
    traces.add(NOW, [one(200, failed=True), one(201, ms=3000), one(202)])
    traces.add(NOW + QUIET + 1, [one(203, ms=80)])
    assert len(ids(traces, NOW + 2 * QUIET + 2)) == 104
    later = NOW + USUAL + 60
    assert ids(traces, later) == {200, 201, 203}, "80 ms is slow where 10 are usual"
    assert {line.trace for line in traces.lines(later) if line.kept} == {f"{number:032x}" for number in (200, 201, 203)}
    assert ids(traces, NOW + KEEP + 60) == set()
    assert (traces.bytes, traces.count, traces.evicted) == (0, 0, 0)


def test_a_trace_that_comes_in_pieces() -> None:
    """Broken: what a slow node tells late would be a trace of its own, or change nothing any more."""
    traces = Traces(NOW)
    traces.add(NOW, [one(1)])
    assert [line.errors for line in traces.lines(NOW + 2 * QUIET)] == [0]
    traces.add(NOW + 3 * QUIET, [one(1, span=2, parent=1, failed=True), one(1)])
    assert [(line.spans, line.errors) for line in traces.lines(NOW + 3 * QUIET)] == [(2, 1)]
    assert ids(traces, NOW + USUAL + 60) == {1}, "it has failed, as is known by now"
    assert [span.id for span in traces.spans(f"{1:032x}")] == [f"{number:016x}" for number in (1, 2)]
    assert traces.spans(f"{2:032x}") == []


def test_bounds() -> None:
    """Broken: a flood of traces would take all memory; or a day of failures would hide what goes on now."""
    traces = Traces(NOW, most_bytes=100_000)
    for number in range(1000):
        traces.add(NOW + number, [one(number, failed=number < 900)])
    now = NOW + 1000
    assert traces.bytes <= 100_000
    assert traces.evicted > 800
    found = ids(traces, now)
    assert 999 in found
    assert any(number < 900 for number in found)
    assert len([number for number in found if number >= 900]) >= 15
    traces.add(now, [one(5000, span=span) for span in range(1, 2 * MOST_SPANS)])
    assert len(traces.spans(f"{5000:032x}")) <= MOST_SPANS
    assert traces.dropped == MOST_SPANS - 1
    assert traces.bytes <= 100_000


async def served(
    traces: Traces, others: Callable[[str, Mapping[str, str]], Awaitable[Sequence[Any]]] | None = None
) -> TestClient[web.Request, web.Application]:
    @web.middleware
    async def denials(
        request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        try:
            return await handler(request)
        except Denial as denial:
            return web.json_response(denial.body, status=denial.http)

    app = web.Application(middlewares=[denials])
    beside = {"others": others} if others else {}
    add_traces(app, traces, lambda request: request.headers.get("node", ""), clock=lambda: NOW, **beside)
    return TestClient(TestServer(app))


async def test_what_nodes_tell() -> None:
    """Broken: garbage of a broken node would be in traces, or a node tell of the proxies of another."""
    traces = Traces(NOW)
    good = one(1)
    bad = [
        msgspec.structs.replace(good, trace="4bf9"),
        msgspec.structs.replace(good, id="x" * 16),
        msgspec.structs.replace(good, parent="1"),
        msgspec.structs.replace(good, start=-1),
        msgspec.structs.replace(good, duration=1 << 60),
        msgspec.structs.replace(good, name="x" * 5000),
        msgspec.structs.replace(good, tags={"a": "x" * 5000}),
        msgspec.structs.replace(good, tags={str(number): "" for number in range(1000)}),
    ]
    async with await served(traces) as client:
        for node, body, status in (
            ("here", msgspec.json.encode(SpanReport("here", NOW, (good, *bad), dropped=2)), 200),
            ("there", msgspec.json.encode(SpanReport("here", NOW, (good,))), 403),
            ("here", b"{", 400),
            ("here", b'{"node": "here", "sent": 1, "spans": [["1"]]}', 400),
        ):
            assert (await client.post("/telemetry/spans", data=body, headers={"node": node})).status == status
        found = msgspec.json.decode(await (await client.get("/telemetry/traces")).read(), type=Summaries)
        assert [line.trace for line in found.traces] == [good.trace]
        assert found.dropped == 10
        whole = msgspec.json.decode(await (await client.get(f"/telemetry/traces/{good.trace}")).read(), type=Trace)
        assert [step.tags for step in whole.steps] == [{"http.status_code": "200"}]
        assert (await client.get(f"/telemetry/traces/{2:032x}")).status == 404
        assert (await client.get("/telemetry/traces/x")).status == 400
        assert (await client.get("/telemetry/traces?min_duration=long")).status == 400
        values = {metric.name: metric.samples[0][1] for metric in metrics_of(traces)}
        assert (values["tulle_spans_received_total"], values["tulle_spans_dropped_total"], values["tulle_traces"]) == (1, 10, 1)


async def test_a_node_whose_clock_is_wrong() -> None:
    """Broken: the traces of a node whose clock is minutes ahead would be in no list of the last minutes, or always first."""
    traces = Traces(NOW)
    async with await served(traces) as client:
        for number, wrong in ((1, 240.0), (2, -240.0), (3, 0.2)):
            body = msgspec.json.encode(SpanReport("here", NOW + wrong, (one(number, at=NOW - 5 + wrong),)))
            assert (await client.post("/telemetry/spans", data=body)).status == 200
        found = msgspec.json.decode(await (await client.get("/telemetry/traces?seconds=60")).read(), type=Summaries)
        assert {int(line.trace, 16): round(line.start - NOW, 1) for line in found.traces} == {1: -5.0, 2: -5.0, 3: -4.8}


async def test_which_traces() -> None:
    """Broken: whoever looks for what failed or was slow would have to look through everything."""
    traces = Traces(NOW)
    traces.add(NOW, [one(1), one(2, ms=700, at=NOW + 1), one(3, failed=True, at=NOW + 2)])
    traces.add(NOW, [msgspec.structs.replace(one(4, at=NOW + 3), service="shop/cart")])
    async with await served(traces) as client:
        for query, wanted in (
            ("", [4, 3, 2, 1]),
            ("?limit=2", [4, 3]),
            ("?errors=true", [3]),
            ("?min_duration=500", [2]),
            ("?service=shop/cart", [4]),
            ("?service=cart", [4]),
            ("?service=shop", [3, 2, 1]),
            ("?service=nobody", []),
        ):
            found = msgspec.json.decode(await (await client.get(f"/telemetry/traces{query}")).read(), type=Summaries)
            assert [int(line.trace, 16) for line in found.traces] == wanted, query


async def test_several_control_planes() -> None:
    """Broken: a trace whose proxies are connected to two control planes would be shown in halves, or twice."""
    here, there = Traces(NOW), Traces(NOW - 60)
    here.add(NOW, [one(1, span=2, parent=1, ms=5, at=NOW + 0.001)])
    there.add(NOW, [one(1, ms=20), one(7)])
    async with await served(there) as other:

        async def ask(path: str, query: Mapping[str, str]) -> Sequence[Any]:
            return [await (await other.get(path, params={**query, "here": "true"})).json(), {"what": "is this?"}]

        async with await served(here, ask) as client:
            found = msgspec.json.decode(await (await client.get("/telemetry/traces?seconds=60")).read(), type=Summaries)
            assert {int(line.trace, 16): (line.spans, line.duration, line.known) for line in found.traces} == {
                1: (2, 20.0, True),
                7: (1, 10.0, True),
            }
            assert found.begins == NOW - 60
            whole = msgspec.json.decode(await (await client.get(f"/telemetry/traces/{1:032x}")).read(), type=Trace)
            assert [(step.depth, step.duration) for step in whole.steps] == [(0, 20.0), (1, 5.0)]


def test_a_list_is_small() -> None:
    """Broken: a line of the list would carry whole spans."""
    traces = Traces(NOW)
    traces.add(NOW, [one(1)])
    (line,) = traces.lines(NOW)
    assert isinstance(line, Summary)
    assert len(msgspec.json.encode(line)) < 300
