"""A mesh seen by a real Prometheus: it finds everything by itself, and the queries that people bring along return data."""

from __future__ import annotations

import asyncio
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import msgspec
import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from tests.support.commands import run
from tests.support.mesh import Mesh, free_port
from tests.support.prometheus import Prometheus
from tests.unit.control.rollouts.test_controller import ROLLOUT, rolling
from tulle.client.api import ApiClient
from tulle.control.telemetry.api import Telemetry
from tulle.control.telemetry.everywhere import Everywhere
from tulle.control.telemetry.prometheus import Access, FromPrometheus
from tulle.control.telemetry.prometheus import Prometheus as Asker
from tulle.control.telemetry.window import Window
from tulle.core.inventory import Inventory

# A workload whose metrics a Telemetry changes, and a route that nobody takes but who asks for it.
OBJECTS = """
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: ratings, namespace: default}
spec:
  hosts: [ratings]
  http:
  - name: side
    match: [{headers: {x-side: {exact: "yes"}}}]
    route: [{destination: {host: ratings}}]
  - route: [{destination: {host: ratings}}]
---
apiVersion: telemetry.istio.io/v1
kind: Telemetry
metadata: {name: ratings, namespace: default}
spec:
  selector: {matchLabels: {app: ratings}}
  metrics:
  - overrides:
    - match: {metric: REQUEST_COUNT, mode: SERVER}
      tagOverrides:
        request_method: {value: request.method}
        source_app: {operation: REMOVE}
    - match: {metric: REQUEST_SIZE}
      disabled: true
"""
REVIEWS = 'destination_service="reviews.default.svc.cluster.local"'
IN = 'destination_workload_namespace=~"default",destination_workload=~"reviews-v1"'

TIMES = "istio_request_duration_milliseconds_bucket"

# As Istio's dashboards (Mesh, Service, Workload) and Flagger's observer of Istio ask.
QUERIES = {
    "mesh: requests": 'round(sum(irate(istio_requests_total{reporter="source"}[1m])), 0.001)',
    "mesh: success": 'sum(rate(istio_requests_total{reporter="source", response_code!~"5.*"}[1m]))'
    ' / sum(rate(istio_requests_total{reporter="source"}[1m]))',
    "mesh: by workload": 'label_join(sum(rate(istio_requests_total{reporter=~"source|waypoint", response_code="200"}[1m])) by '
    '(destination_workload, destination_workload_namespace, destination_service), "destination_workload_var", ".", '
    '"destination_workload", "destination_workload_namespace")',
    "mesh: p90": "label_join((histogram_quantile(0.90, sum(rate(" + TIMES + '{reporter="source"}[1m]))'
    ' by (le, destination_workload, destination_workload_namespace)) / 1000), "destination_workload_var", ".", '
    '"destination_workload", "destination_workload_namespace")',
    "mesh: versions": "sum(istio_build) by (component, tag)",
    "service: incoming": f'round(sum(irate(istio_requests_total{{reporter="destination",{REVIEWS}}}[5m])), 0.001)',
    "service: mutual TLS": f'round(sum(irate(istio_requests_total{{connection_security_policy="mutual_tls",{REVIEWS},'
    'reporter=~"destination",source_workload=~".+",source_workload_namespace=~".+"}[5m])) by (source_workload, '
    "source_workload_namespace, response_code), 0.001)",
    "service: duration": f'(histogram_quantile(0.50, sum(irate({TIMES}{{reporter=~"destination",'
    f'connection_security_policy="mutual_tls",{REVIEWS}}}[1m])) by (source_workload, source_workload_namespace, le)) / 1000)',
    "service: size": f'histogram_quantile(0.95, sum(irate(istio_response_bytes_bucket{{reporter=~"destination",{REVIEWS}}}[1m])) '
    "by (destination_workload, destination_workload_namespace, le))",
    "workload: incoming": f'round(sum(irate(istio_requests_total{{{IN},reporter=~"destination"}}[5m])), 0.001)',
    "workload: outgoing": 'round(sum(irate(istio_requests_total{source_workload=~"reviews-v[23]", '
    'source_workload_namespace=~"default", reporter="source"}[5m])) by (destination_service, response_code), 0.001)',
    "flagger: success": f'sum(rate(istio_requests_total{{reporter="destination",{IN},response_code!~"5.*"}}[1m])) / '
    f'sum(rate(istio_requests_total{{reporter="destination",{IN}}}[1m])) * 100',
    "flagger: duration": f'histogram_quantile(0.99, sum(rate({TIMES}{{reporter="destination",{IN}}}[1m])) by (le))',
    "ours: proxies": "sum by (workload) (tulle_proxy_resident_memory_bytes) > 0 and sum by (workload) (tulle_proxy_up) == 1",
    "ours: CPU": "sum(tulle_proxy_cpu_seconds_total)",
    "control plane: pushes": 'sum(pilot_xds_pushes{type="lds"})',
    "control plane: proxies": "sum(pilot_xds)",
    "control plane: convergence": "histogram_quantile(0.99, sum by (le) (pilot_proxy_convergence_time_bucket))",
    "control plane: certificates": "sum(citadel_server_success_cert_issuance_count)",
    "control plane: store": 'histogram_quantile(0.99, sum by (le) (tulle_store_seconds_bucket{operation="write"}))',
}


@pytest.fixture(scope="module")
def prometheus(mesh: Mesh, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """Prometheus, while somebody reads the sample application."""
    running = Prometheus(mesh, tmp_path_factory.mktemp("prometheus"))
    over = threading.Event()

    def read() -> None:
        while not over.wait(0.1):
            with urllib.request.urlopen(f"{mesh.base}/productpage", timeout=30) as answer:
                answer.read()

    mesh.tulle("apply", "-f", "-", stdin=OBJECTS)
    mesh.synced()
    mesh.tulle("run", "--service", "signed", "--", "true")  # a control plane that has started anew has signed nothing yet
    reading = threading.Thread(target=read, daemon=True)
    reading.start()
    yield running
    over.set()
    reading.join(60)
    running.close()
    mesh.tulle("delete", "-f", "-", stdin=OBJECTS)
    mesh.synced()


def test_everything_is_found_and_up(mesh: Mesh, prometheus: Prometheus) -> None:
    """Broken: people would have to list workloads, or a gateway, a node or the control plane would not be seen."""
    deadline = time.monotonic() + 60
    wanted = {"tulle-workloads default/reviews-v1", "tulle-workloads tulle-system/ingressgateway"}
    while True:
        found = prometheus.targets()
        up = {name for name, one in found.items() if one["health"] == "up"}
        jobs = {name.partition(" ")[0] for name in up}
        if wanted <= up and {"tulle-nodes", "tulle-control-planes"} <= jobs and up == set(found):
            break
        down = {name: one["lastError"] for name, one in found.items() if one["health"] != "up"}
        assert time.monotonic() < deadline, (wanted - up, down, prometheus.said[-2000:])
        time.sleep(0.5)
    assert len([name for name in found if name.startswith("tulle-workloads ")]) == len(
        mesh.kubectl("get", "workloadentries", "-A", "-o", "name").out.split()
    )


@pytest.mark.parametrize("name", QUERIES)
def test_queries_return_data(prometheus: Prometheus, name: str) -> None:
    """Broken: dashboards and progressive delivery that people bring along would show nothing."""
    prometheus.until(QUERIES[name])


def test_what_a_telemetry_changes(prometheus: Prometheus) -> None:
    """Broken: a dimension of one's own would be missing, or a label or a metric be there that was taken away."""
    own = 'destination_workload="ratings-v1"'
    ((labels, _value), *_more) = prometheus.until(f'istio_requests_total{{reporter="destination",{own},request_method="GET"}}')
    assert "source_app" not in labels
    assert "source_workload" in labels
    prometheus.until(f'istio_response_bytes_count{{reporter="destination",{own}}}')
    first = prometheus.rows(f'sum(istio_request_bytes_count{{reporter="destination",{own}}})')
    prometheus.until(f'sum(rate(istio_requests_total{{reporter="destination",{own},request_method="GET"}}[10s])) > 0')
    assert prometheus.rows(f'sum(istio_request_bytes_count{{reporter="destination",{own}}})') == first, "it counts no more"


SIDES: dict[str, Callable[[Any], bool]] = {
    "figures?by=edge&": lambda row: row["key"].get("source") == "default/curl",
    "figures?by=route&": lambda row: "side" in row["key"].get("route", ""),
    "graph?level=version&": lambda row: row.get("source") == "default/curl",
}


def test_the_same_answers(mesh: Mesh, prometheus: Prometheus) -> None:
    """Broken: `tulle stat`, `routes`, `edges`, `graph` and the page would show other figures with --prometheus-url than without.

    Calls that nobody else makes, told to the control plane and read by Prometheus; asked for until both have all of them.
    """
    prometheus.until("time() - min(min_over_time(timestamp(istio_build)[10m:15s])) > 31")  # it has read all of the mesh
    began = time.time()
    for path, calls in (("ratings/1", 40), ("nowhere", 7)):
        url = f"http://ratings:9080/{path}?[1-{calls}]"
        mesh.inside("curl", "-s", "-o", "/dev/null", "-H", "x-side: yes", url)
    asyncio.run(same(mesh, prometheus, began))


async def same(mesh: Mesh, prometheus: Prometheus, began: float) -> None:
    """Both are asked for the calls since `began` until they answer the same."""
    async with ApiClient.from_kubeconfig(mesh.kubeconfig) as api:
        there = msgspec.convert(await api.request("GET", "/tulle/v1/telemetry/inventory"), Inventory)
        source = FromPrometheus(Asker(Access(f"http://127.0.0.1:{prometheus.port}")), Everywhere(Window(time.time())))
        app = web.Application()
        Telemetry(Window(time.time()), lambda _: "", lambda *_: (), lambda _: there, source=lambda _: source).add(app)
        async with TestClient(TestServer(app)) as client:
            for what, wanted in SIDES.items():
                deadline = time.monotonic() + 60
                while True:
                    query = f"/telemetry/{what}seconds={time.time() - began:.3f}"
                    answers = [await (await client.get(query)).json(), await api.request("GET", f"/tulle/v1{query}")]
                    found = [[row for row in [*one.get("rows", ()), *one.get("links", ())] if wanted(row)] for one in answers]
                    # Whole figures: while only one end of the calls is known to one of them, the counts alone may be alike.
                    seen = [[{**row["figures"], "rate": 0} for row in rows] for rows in found]
                    if seen[0] == seen[1] and sum(one["calls"] for one in seen[0]) >= 47:
                        break
                    assert time.monotonic() < deadline, (found, source.notice)
                    await asyncio.sleep(0.5)
                assert answers[0]["notice"] == ""
        await source.close()
    assert source.failed == 0


# A query of a rollout, and what its status says of the answer; "" where it goes on.
ROLLED = {
    'min(up{job="tulle-nodes"})': "",
    "vector(0) / 0": "own: it is not a number (NaN)",
    "up": "own: it has ",
    "nothing_has_this_name": "own: Prometheus has nothing for it",
    "sum(": "own: Prometheus: ",
    "5 * vector(1)": "own: 5; needed at most 1 (1 of 2)",
}


async def test_a_rollout_asks_it(prometheus: Prometheus) -> None:
    """Broken: a release would be promoted, or condemned, by an answer that says nothing; or stay while there is no Prometheus."""
    there = Asker(Access(f"http://127.0.0.1:{prometheus.port}"))
    away = Asker(Access(f"http://127.0.0.1:{free_port()}"))
    asked = there
    prometheus.until('min(up{job="tulle-nodes"})')

    async def numbers(query: str) -> Sequence[float]:
        return await asked.numbers(query)

    try:
        for query, said in ROLLED.items():
            async with rolling(numbers) as one:
                body = await one.body()
                metric = {"name": "own", "query": query, "thresholdRange": {"min": 1, "max": 1}}
                body["spec"]["analysis"] |= {"metrics": [metric], "threshold": 2}
                await one.write(ROLLOUT, body)
                assert (await one.looks(3))[0] == [90, 10]
                await one.looks(1, 10)
                await one.answers()
                weights = (await one.looks(1, 0.5))[0]
                status = (await one.body())["status"]
                assert weights == ([50, 50] if not said else [90, 10]), (query, status)
                assert status["message"].startswith(said or "step 2 of 2"), (query, status)
                assert status["failedChecks"] == ("(1 of 2)" in said)
                if not said:
                    asked = away
                    for _ in range(4):
                        await one.looks(1, 10)
                        await one.answers()
                    assert (await one.looks(1, 1))[0] == [50, 50]
                    await one.looks(1, 10)
                    await one.answers()
                    assert (await one.looks(1, 0.5))[0] == [100, 0]
                    assert "telemetry has vanished: own: Prometheus: " in (await one.body())["status"]["message"]
                    asked = there
    finally:
        await there.close()
        await away.close()


def test_who_may_not_look(mesh: Mesh, prometheus: Prometheus) -> None:
    """Broken: anybody on the network would be told where everything runs, or Prometheus' token open more than metrics."""
    for what in ("workloads", "nodes", "control-planes"):
        asked = f"https://127.0.0.1:{mesh.api_port}/tulle/v1/prometheus/{what}"
        assert mesh_status(mesh, asked, "") in ("401", "403")
    token = (prometheus.folder / "token").read_text()
    assert mesh_status(mesh, f"https://127.0.0.1:{mesh.api_port}/metrics", token) == "200"
    assert mesh_status(mesh, f"https://127.0.0.1:{mesh.api_port}/api/v1/namespaces/default/services", token) == "403"
    assert (prometheus.folder / "token").stat().st_mode & 0o077 == 0


def mesh_status(mesh: Mesh, url: str, token: str) -> str:
    """The status of an answer."""
    header = ["-H", f"Authorization: Bearer {token}"] if token else []
    return run(["curl", "-sk", "-o", "/dev/null", "-w", "%{http_code}", *header, url], mesh.env).out
