"""Figures of a Prometheus: what it is asked, what its answers mean, and what people get where it gives none."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from tests.unit.node.metrics.test_standard import CALLER, HOST, OWN, counted
from tulle.control.metrics import text
from tulle.control.telemetry import promql
from tulle.control.telemetry.api import Telemetry
from tulle.control.telemetry.everywhere import Asked, Everywhere
from tulle.control.telemetry.prometheus import Access, FromPrometheus, Prometheus
from tulle.control.telemetry.window import Window
from tulle.core.figures import Table
from tulle.core.graph import Graph, Parts
from tulle.core.inventory import Inventory
from tulle.core.model.calls import BOUNDS, Count, Edge
from tulle.kit.errors import Refused
from tulle.node.metrics.families import Family, Histogram, Sample
from tulle.node.metrics.observed import observed
from tulle.node.metrics.standard import standard

NOW = 1_800_000_000.0
Answer = Callable[[str, Mapping[str, str]], web.Response]


def scraped(family: Family, time: float) -> list[promql.Series]:
    """A family as Prometheus has it, summed up from nothing."""
    found = []
    for one in family.samples:
        if isinstance(one.value, Histogram):
            bounds = [*one.value.buckets, (float("inf"), one.value.count)]
            found += [promql.Series(one.labels | {"le": f"{bound:g}"}, ((time, count),)) for bound, count in bounds]
        else:
            found.append(promql.Series(one.labels, ((time, one.value),)))
    return found


@pytest.mark.parametrize(
    "made",
    [
        counted(
            "destination_duration",
            Histogram(tuple((bound * 1000, 2.0 if bound >= 5 else 0.0) for bound in BOUNDS), 2, 8000.0),
            peer="UID=shop/cart-7/cart/v2", principal=CALLER, service=HOST, code="200",
        ),
        counted("destination_duration", Histogram((), 3, 9.0), service=HOST, code="503", flags="UH"),
        counted(
            "source_duration",
            Histogram(tuple((bound * 1000, 1.0) for bound in BOUNDS), 1, 1.0),
            peer="default/ratings-v1/ratings/v1", principal=CALLER, service=f"outbound|9080|v1|{HOST}", code="200", grpc="14",
        ),
        Family(
            "envoy_mesh_source_closed", "counter",
            [Sample({"who": "outbound|3306||db.default.svc.cluster.local - -", "how": "UF"}, 4.0)],
        ),
    ],
)  # fmt: skip
def test_the_same_kind_of_call(made: Family) -> None:
    """Broken: `tulle stat` would show other services, codes or latencies with Prometheus than without."""
    found = {family.name: scraped(family, 1.0) for family in standard([made], OWN)}
    requests = found.get("istio_requests_total", found.get("istio_tcp_connections_closed_total", []))
    calls = promql.counts(requests, found.get("istio_request_duration_milliseconds", []))
    wanted = {
        msgspec.structs.replace(edge, route=""): msgspec.structs.replace(count, milliseconds=0.0)
        for edge, count in observed([made], OWN).items()
    }
    assert {edge: count if any(count.buckets) else Count(count.calls) for edge, count in calls.items()} == {
        edge: count if any(count.buckets) else Count(count.calls) for edge, count in wanted.items()
    }


def test_routes_have_metrics_of_their_own() -> None:
    """Broken: `tulle routes` would be empty with Prometheus, since Istio's labels name no route."""
    said = {"peer": "default/ratings-v1/ratings/v1", "principal": CALLER, "service": f"outbound|9080||{HOST}", "code": "200"}
    times = Histogram(tuple((bound * 1000, 1.0) for bound in BOUNDS), 1, 1.0)
    found = {
        one.name: scraped(one, 1.0) for one in standard([counted("source_duration", times, **said, route="reviews a 0")], OWN)
    }
    ((edge, count),) = promql.counts(found[promql.ROUTES], found[promql.ROUTE_DURATION.removesuffix("_bucket")]).items()
    assert (edge.reporter, edge.source, edge.service, edge.route, edge.code) == (
        "source", "default/reviews-v1", HOST, "reviews a 0", "200",
    )  # fmt: skip
    assert (edge.mutual, count.calls, count.buckets) == (True, 1, tuple(1 for _ in BOUNDS))


@pytest.mark.skipif(not shutil.which("promtool"), reason="promtool is not installed (Debian package prometheus)")
def test_what_prometheus_makes_of_the_question(tmp_path: Path) -> None:
    """Broken: the first calls of a kind (those that fail in an incident) would not be counted, or others twice."""
    metric, window = "istio_requests_total", 60

    def series(code: str, values: str) -> dict[str, str]:
        return {"series": f'{metric}{{reporter="source",response_code="{code}",instance="a"}}', "values": values}

    wanted = {"200": 40, "503": 7, "404": 5, "429": 0}
    test = {
        "evaluation_interval": "15s",
        "tests": [
            {
                "interval": "15s",
                "input_series": [
                    series("200", "100+10x8"),  # all the time
                    series("503", "_ _ _ _ _ _ 3 7 7"),  # begins in the window
                    series("404", "2 2 2 2 2 5 7 stale _"),  # ends in it
                    series("429", "9 9 9 9 9 9 9 9 9"),
                    series("500", "50 50 50 50 50 50 0 4 4"),  # begins anew
                ],
                "promql_expr_test": [
                    {
                        "expr": f"sum by (response_code) ({promql.counted(metric, window)})",
                        "eval_time": "2m",
                        "exp_samples": [
                            *({"labels": f'{{response_code="{code}"}}', "value": value} for code, value in wanted.items()),
                            {"labels": '{response_code="500"}', "value": 4},
                        ],
                    }
                ],
            }
        ],
    }
    (tmp_path / "test.yml").write_text(yaml.safe_dump(test))
    done = subprocess.run(["promtool", "test", "rules", "test.yml"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@asynccontextmanager
async def asked(
    answer: Answer, patience: float = 5.0, taken: str = ""
) -> AsyncIterator[tuple[TestClient[Any, Any], FromPrometheus]]:
    """A control plane's API with a window of seven calls, and a Prometheus that answers so."""

    async def handle(request: web.Request) -> web.Response:
        said = answer(request.path, {name: str(value) for name, value in (await request.post()).items()})
        if said.headers.get("wait"):
            await asyncio.sleep(30)
        return said

    server = web.Application()
    server.router.add_post("/{path:.*}", handle)
    async with TestServer(server) as there:
        prometheus = Prometheus(Access(f"http://me:secret@{there.host}:{there.port}/prom"))
        window = Window(NOW - 3600)
        window.add(NOW - 60, [(Edge("destination", destination="default/b", service=HOST, code="200"), Count(7))])
        made: list[FromPrometheus] = []

        def source(everywhere: Everywhere) -> FromPrometheus:
            made.append(FromPrometheus(prometheus, everywhere, lambda: NOW, patience, lambda: taken))
            return made[0]

        app = web.Application()
        Telemetry(window, lambda _: "", lambda *_: (), lambda _: Inventory(), lambda: NOW, source=source).add(app)
        async with TestClient(TestServer(app)) as client:
            yield client, made[0]
        await prometheus.close()


def vector(*rows: tuple[Mapping[str, str], float], at: float = NOW) -> web.Response:
    """What Prometheus answers to a query."""
    found = [{"metric": dict(labels), "value": [at, str(value)]} for labels, value in rows]
    return web.json_response({"status": "success", "data": {"resultType": "vector", "result": found}})


SAID = {
    "reporter": "destination",
    "destination_workload": "b",
    "destination_workload_namespace": "default",
    "destination_service": HOST,
    "request_protocol": "http",
    "response_code": "200",
    "source_principal": CALLER,
}


async def test_its_figures_are_shown() -> None:
    """Broken: figures would be the window's although Prometheus has them; or asked by a clock that is not Prometheus' own."""
    ahead, times = 300.0, []

    def answer(path: str, form: Mapping[str, str]) -> web.Response:
        query = form["query"]
        if "istio_build" in query:
            return vector(({}, NOW - 86400 + ahead), at=NOW + ahead)
        if path.endswith("query_range"):
            values = [[float(form["start"]) + at * float(form["step"]), "3"] for at in range(2)]
            rows = [{"metric": SAID, "values": values}] if promql.REQUESTS in query else []
            return web.json_response({"status": "success", "data": {"resultType": "matrix", "result": rows}})
        times.append(float(form["time"]))
        if promql.DURATION in query:
            return vector(*((SAID | {"le": bound}, 10.0) for bound in ("5", "10", "+Inf")))
        return vector((SAID, 10.0)) if promql.REQUESTS in query else vector()

    async with asked(answer) as (client, prometheus):
        found = msgspec.json.decode(await (await client.get("/telemetry/figures?seconds=60&points=2")).read(), type=Table)
        drawn = msgspec.json.decode(await (await client.get("/telemetry/graph?level=workload")).read(), type=Graph)
    (row,) = found.rows
    assert (row.key, row.figures.calls, row.figures.secured) == ({"service": "default/reviews"}, 10, 1.0)
    assert row.figures.p50 is not None
    assert 1 < row.figures.p50 <= 5
    assert row.series == (0.1, 0.1)
    assert (found.notice, found.begins) == ("", NOW - 60)
    assert [node.id for node in drawn.nodes] == ["default/b", "unknown"]
    assert set(times) == {NOW + ahead}
    assert (prometheus.asked, prometheus.failed) == (2, 0)


async def test_its_curves() -> None:
    """Broken: curves of latency would be of all services, or of none, where figures are Prometheus'."""
    asked_for = []

    def answer(path: str, form: Mapping[str, str]) -> web.Response:
        query = form["query"]
        if "istio_build" in query:
            return vector(({}, NOW - 86400))
        if not path.endswith("query_range"):
            return vector((SAID, 10.0)) if promql.REQUESTS in query else vector()
        asked_for.append(query)
        start, step = float(form["start"]), float(form["step"])
        said = [(SAID | {"le": bound}, ["4", "2"]) for bound in ("5", "10", "+Inf")] if promql.DURATION in query else []
        rows = [
            {"metric": labels, "values": [[start + at * step, value] for at, value in enumerate(values)]}
            for labels, values in said
        ]
        return web.json_response({"status": "success", "data": {"resultType": "matrix", "result": rows}})

    async with asked(answer) as (client, _prometheus):
        said = await client.get("/telemetry/parts?level=service&node=default/reviews&seconds=30&points=2")
        found = msgspec.json.decode(await said.read(), type=Parts)
        nobody = await client.get("/telemetry/parts?level=service&node=default/nobody&seconds=30&points=2")
        assert [part.calls for part in msgspec.json.decode(await nobody.read(), type=Parts).parts if part] == [0, 0]
    assert [part.calls for part in found.parts if part] == [4, 2]
    assert all(part.p99 is not None and 1 < part.p99 <= 5 for part in found.parts if part)
    assert asked_for
    assert all('destination_service=~"reviews' in query for query in asked_for)


async def test_what_it_lacks_is_told() -> None:
    """Broken: what a Telemetry takes away of Prometheus' metrics would look like calls that never were."""

    def answer(_path: str, form: Mapping[str, str]) -> web.Response:
        return vector(({}, NOW - 86400)) if "istio_build" in form["query"] else vector()

    async with asked(answer, taken="Telemetry shop/all takes away REQUEST_COUNT") as (client, prometheus):
        found = msgspec.json.decode(await (await client.get("/telemetry/figures")).read(), type=Table)
    assert "Telemetry shop/all takes away REQUEST_COUNT" in found.notice
    assert prometheus.failed == 0


def refused(_path: str, _form: Mapping[str, str]) -> web.Response:
    return web.json_response({"status": "error", "errorType": "execution", "error": "too many\nsamples"}, status=422)


def slow(_path: str, _form: Mapping[str, str]) -> web.Response:
    return web.Response(headers={"wait": "yes"})


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (refused, "it answers 422: too many samples"),
        (lambda *_: web.Response(status=500, text="<html>" * 100_000), "it answers 500"),
        (lambda *_: web.Response(status=302, headers={"Location": "http://127.0.0.1:1/"}), "it answers 302"),
        (lambda *_: web.Response(text="hello"), "its answer makes no sense"),
        (lambda *_: web.Response(text="[" * 100_000), "its answer makes no sense"),
        (lambda *_: web.json_response({"data": {"result": [{"metric": {"a": 1}}]}}), "its answer makes no sense"),
        (lambda *_: vector(({}, float("nan"))), ""),
        (lambda *_: vector(), "it has nothing of this mesh"),
        (slow, "it does not answer within 0.5 seconds"),
    ],
)
async def test_it_gives_none(answer: Answer, why: str) -> None:
    """Broken: in an incident there would be no figures, or a traceback, or figures that say not where they come from."""
    async with asked(answer, 0.5) as (client, prometheus):
        for _ in range(3):
            said = await client.get("/telemetry/figures")
            assert said.status == 200
            found = msgspec.json.decode(await said.read(), type=Table)
        assert "secret" not in found.notice
        if why:
            assert [row.figures.calls for row in found.rows] == [7]
            assert why in found.notice
            assert (prometheus.asked, prometheus.failed) == (1, 1), "it is not asked again at once"
            assert "tulle_prometheus_failures_total 1" in text(prometheus.metrics())


async def test_it_is_down() -> None:
    """Broken: the same, where nobody listens."""
    window = Window(NOW - 3600)
    down = FromPrometheus(Prometheus(Access("http://127.0.0.1:1")), Everywhere(window), lambda: NOW)
    found = await down.found(Asked(NOW - 60))
    await down.close()
    assert "http://127.0.0.1:1" in found.notice
    assert down.failed == 1


@pytest.mark.parametrize("url", ["prometheus:9090", "ftp://prometheus", "http://"])
def test_what_is_no_address(url: str) -> None:
    """Broken: a mistake in the setting would be noticed when somebody looks, not when it is made."""
    with pytest.raises(Refused, match="--prometheus-url"):
        Access(url)
