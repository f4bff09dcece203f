"""What is kept of calls, for how long, and how much of it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import msgspec
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from tulle.control.apiserver.errors import Denial
from tulle.control.telemetry.api import Telemetry
from tulle.control.telemetry.everywhere import Asked, Everywhere
from tulle.control.telemetry.window import STEP, Window
from tulle.core.figures import Table
from tulle.core.graph import About, Graph, Level, Parts
from tulle.core.inventory import Inventory, WorkloadItem
from tulle.core.model.calls import BOUNDS, Count, Edge, Report

START = 1_800_000_000.0 - 1_800_000_000.0 % 900
ONE = Edge("destination", source="default/a", destination="default/b", service="b.default.svc.cluster.local")
OTHER = msgspec.structs.replace(ONE, source="default/x")


def rows(calls: int = 1, edge: Edge = ONE) -> list[tuple[Edge, Count]]:
    return [(edge, Count(calls, 10.0 * calls, (0, calls)))]


def whole(calls: int) -> Count:
    """The same with all its buckets."""
    return Count(calls, 10.0 * calls, (0, *(calls for _ in BOUNDS[1:])))


def test_a_while() -> None:
    """Broken: figures of a minute would have calls of an hour, or lack some."""
    window = Window(START)
    for second in range(0, 120, 5):
        window.add(START + second, rows())
    now = START + 119
    assert window.since(now - 60)[ONE].calls == 15, "to the step: 75 seconds"
    assert window.since(START)[ONE] == whole(24)
    assert window.since(now - 60, lambda edge: edge.source == "default/x") == {}
    assert window.between(START + 30, START + 60)[ONE] == whole(6)


def test_silence_is_not_filled() -> None:
    """Broken: calls of ten minutes ago would be told as those of the last five, since nobody has called in between."""
    window = Window(START)
    window.add(START, rows(7))
    window.add(START + 600, rows(2))
    assert window.since(START + 300)[ONE].calls == 2
    assert window.since(START + 700) == {}
    assert window.since(START)[ONE].calls == 9


def test_curves() -> None:
    """Broken: the lines on the page would show calls when there were none, or hide a drop."""
    window = Window(START)
    for second, calls in ((0, 3), (15, 0), (30, 5), (45, 1)):
        window.add(START + second, rows(calls))
    window.add(START + 45, rows(4, OTHER))
    times = [START + STEP * at for at in range(5)]
    assert window.series(times) == {ONE: (3, 0, 5, 1), OTHER: (0, 0, 0, 4)}


def test_parts() -> None:
    """Broken: in an incident nobody could see when it became slow, or the curve of a service would be another's."""
    window = Window(START)
    for second, calls in ((0, 3), (15, 0), (30, 5)):
        window.add(START + second, rows(calls))
        window.add(START + second, [(OTHER, Count(1, 700.0, (*(0 for _ in BOUNDS[:9]), 1)))])
    times = [START + STEP * at for at in range(4)]
    whole_of = {at: whole(calls) for at, calls in enumerate((3, 0, 5))}
    assert window.parts(times, lambda edge: edge == ONE) == {ONE: tuple(whole_of.values())}
    assert window.parts(times, lambda edge: edge.source == "default/nobody") == {}
    for at in range(200):  # marks in full and of differences; kinds that came later than the marks
        window.add(
            START + 60 + STEP * at, [*rows(2), *(rows(1, msgspec.structs.replace(ONE, code=str(at))) if at % 7 == 0 else ())]
        )
    times = [START + STEP * at for at in (4, 100, 196, 204)]
    assert [count.calls for count in window.parts(times, lambda edge: edge == ONE)[ONE]] == [192, 192, 16]
    counted = {edge: tuple(one.calls for one in counts) for edge, counts in window.parts(times, lambda _: True).items()}
    assert counted == window.series(times)
    assert {edge: sum(values) for edge, values in counted.items()} == {
        edge: count.calls for edge, count in window.since(times[0]).items()
    }


def test_hours_are_kept_and_then_go() -> None:
    """Broken: a control plane would grow for as long as it runs, or forget before it should."""
    window = Window(START, keep=3600)
    for minute in range(3 * 60):
        window.add(START + 60 * minute, rows())
    now = START + 60 * (3 * 60 - 1)
    assert now - 3600 - 60 <= window.begins <= now - 3600
    assert window.since(0)[ONE].calls == 61
    assert window.since(now - 600)[ONE].calls == 11


def test_too_little_memory() -> None:
    """Broken: many proxies would take all memory; or the last minutes be lost where the oldest could be."""
    window = Window(START, memory=60_000)
    for step in range(1000):
        window.add(START + STEP * step, rows(step % 7 + 1))
    assert window.size <= 60_000
    now = START + STEP * 999
    assert window.since(now - 60)[ONE].calls == sum(step % 7 + 1 for step in range(995, 1000))
    begun = int((window.begins - START) / STEP)
    assert window.since(0)[ONE].calls == sum(step % 7 + 1 for step in range(begun, 1000))


def test_too_many_kinds() -> None:
    """Broken: a proxy with a million labels would take all memory; or what was dropped be taken for calls that never were."""
    window = Window(START, keep=300, most=100)
    for slot in range(10):
        window.add(START + STEP * slot, [(Edge("source", service=f"{slot}-{n}"), Count(1)) for n in range(30)])
    assert window.kinds == 100
    assert window.dropped == 200
    window.add(START + 1000, [(Edge("source", service="new"), Count(2))])
    assert window.since(START + 990) == {Edge("source", service="new"): Count(2, 0.0, (0,) * len(BOUNDS))}, "idle ones made room"


async def test_all_control_planes_are_asked() -> None:
    """Broken: with several control planes the page would show the calls of some nodes, as if they were all."""
    one, other = Window(START), Window(START + 60)
    one.add(START + 60, rows(3))
    other.add(START + 60, [*rows(4), *rows(2, OTHER)])

    async def others(path: str, query: Mapping[str, str]) -> Sequence[Any]:
        assert path == "/telemetry/counted"
        return [msgspec.to_builtins(Everywhere(other).here(msgspec.json.decode(query["asked"], type=Asked)))]

    times = (START + 60, START + 75)
    found = await Everywhere(one, others).found(Asked(START, times=times))
    assert found.calls == {ONE: whole(7), OTHER: whole(2)}
    assert found.series == {ONE: (7,), OTHER: (2,)}
    assert found.begins == START
    about = About(Level.WORKLOAD, node="default/b")
    found = await Everywhere(one, others).found(Asked(START, times=times, about=about))
    assert found.parts == {ONE: (whole(7),), OTHER: (whole(2),)}
    link = About(Level.APP, source="default/x", target="default/b", protocol="http")
    assert set((await Everywhere(one, others).found(Asked(START, times=times, about=link))).parts) == {OTHER}


@web.middleware
async def denials(request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]) -> web.StreamResponse:
    """What the API server answers instead."""
    try:
        return await handler(request)
    except Denial as denial:
        return web.Response(status=denial.http)


async def test_what_nodes_tell() -> None:
    """Broken: a node could tell tales of others, or garbage of one spoil everybody's figures."""

    app = web.Application(middlewares=[denials])
    idle = WorkloadItem("default/idle", "idle", "", "", "", "", True, True, False)
    there = Inventory(workloads=(idle,))
    Telemetry(
        Window(START),
        lambda request: request.headers.get("node", ""),
        lambda _calls, _space: (),
        lambda _space: there,
        lambda: START,
    ).add(app)
    bad = [(ONE, Count(-1)), (ONE, Count(1, 1.0, (3, 2))), (msgspec.structs.replace(ONE, service="x" * 600), Count(1))]
    async with TestClient(TestServer(app)) as client:
        for node, body, status in (
            ("here", msgspec.json.encode(Report("here", (*rows(3), *bad))), 200),
            ("there", msgspec.json.encode(Report("here", tuple(rows()))), 403),
            ("here", b"{", 400),
            ("here", b'{"node": "here", "rows": [[["x"], [1]], 7]}', 400),
        ):
            assert (await client.post("/telemetry/report", data=body, headers={"node": node})).status == status

        async def figures(query: str) -> Table:
            return msgspec.json.decode(await (await client.get(f"/telemetry/figures?{query}")).read(), type=Table)

        (row,) = (await figures("seconds=60&points=2")).rows
        assert (row.key, row.figures.calls, row.figures.success) == ({"service": "default/b"}, 3, 0.0)
        assert (await figures("namespace=shop")).rows == ()
        answer = await client.get("/telemetry/parts?level=service&node=default/b&seconds=60&points=4")
        curve = msgspec.json.decode(await answer.read(), type=Parts)
        assert curve.parts[:2] == (None, None), "before it began"
        assert [part.calls for part in curve.parts[2:] if part] == [0, 0], "what comes now is not over"
        drawn = msgspec.json.decode(await (await client.get("/telemetry/graph?level=workload")).read(), type=Graph)
        assert [node.id for node in drawn.nodes] == ["default/a", "default/b", "default/idle"]
        for query in ("seconds=never", "seconds=nan", "by=colour", "points=1000000"):
            assert (await client.get(f"/telemetry/figures?{query}")).status == 400
