"""Istio's standard metrics of a running mesh, read where Prometheus reads them: port 15020 of each workload."""

from __future__ import annotations

import re
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.commands import run
from tests.support.mesh import TULLE, Mesh
from tests.support.waiting import until

# An application that says something of itself.
APPLICATION = """
import http.server
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = b"# TYPE orders_total counter\\norders_total 7\\n" if self.path == "/own" else b"hello"
        self.send_response(200); self.send_header("content-length", str(len(body))); self.end_headers(); self.wfile.write(body)
    def log_message(self, *words): pass
http.server.ThreadingHTTPServer(("", 8123), Handler).serve_forever()
"""

Row = tuple[dict[str, str], float]


def scraped(mesh: Mesh, workload: str) -> str:
    """What Prometheus would read."""
    address = mesh.kubectl("get", "workloadentry", workload, "-o", "jsonpath={.spec.address}").out
    return mesh.inside("curl", "-sS", f"http://{address}:15020/stats/prometheus").out


def rows(text: str, name: str, **labels: str) -> list[Row]:
    """The rows of a metric that have the labels."""
    found: list[Row] = []
    for said, value in re.findall(rf"^{name}\{{(.*)\}} (\S+)$", text, re.MULTILINE):
        row = dict(re.findall(r'(\w+)="((?:[^"\\]|\\.)*)"', said))
        if labels.items() <= row.items():
            found.append((row, float(value)))
    return found


def soon(mesh: Mesh, workload: str, name: str, **labels: str) -> list[Row]:
    """Rows that a workload has soon: histograms come with Envoy's next flush, and a request counts once it has ended."""
    return until(
        f"rows with {labels}",
        lambda: rows(scraped(mesh, workload), name, **labels),
        60,
        lambda: rows(scraped(mesh, workload), name),
    )


@pytest.fixture(scope="module")
def shop(mesh: Mesh, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The workload `shop`, whose application has metrics of its own; its port for TCP is the same one."""
    file = tmp_path_factory.mktemp("shop") / "app.py"
    file.write_text(textwrap.dedent(APPLICATION))
    notes = ("--annotation", "prometheus.io/scrape=true", "--annotation", "prometheus.io/path=/own")
    argv = [*TULLE, "run", "--service", "shop", "--version", "v9", "--port", "8123:http", *notes, "--", "python3", str(file)]
    with subprocess.Popen(argv, env=mesh.env, stderr=subprocess.PIPE, text=True) as child:
        try:
            mesh.kubectl("wait", "--for=create", "workloadentry/shop-v9")
            mesh.kubectl("wait", "--for=jsonpath={.metadata.annotations.tulle\\.dev/ready}=true", "workloadentry/shop-v9")
            mesh.synced()
            yield
        finally:
            child.terminate()
            child.wait(30)


def test_both_ends_of_a_call(mesh: Mesh, shop: None) -> None:
    """Broken: dashboards and roll-outs that people bring along would find nothing, or the wrong callers, versions or codes."""
    assert mesh.inside("curl", "-sS", "http://shop:8123/").out == "hello"
    curl = {"source_workload": "curl", "source_workload_namespace": "default", "source_app": "curl"}
    ends = {
        "destination_workload": "shop-v9",
        "destination_app": "shop",
        "destination_version": "v9",
        "destination_service": "shop.default.svc.cluster.local",
        "destination_service_name": "shop",
        "destination_service_namespace": "default",
        "request_protocol": "http",
        "response_code": "200",
        "source_principal": "spiffe://cluster.local/ns/default/sa/curl",
        "destination_principal": "spiffe://cluster.local/ns/default/sa/default",
    }
    for workload, reporter, security in (("shop-v9", "destination", "mutual_tls"), ("curl", "source", "unknown")):
        wanted = {**curl, **ends, "reporter": reporter, "connection_security_policy": security}
        ((_row, count),) = soon(mesh, workload, "istio_requests_total", **wanted)
        assert count >= 1
        soon(mesh, workload, "istio_request_duration_milliseconds_count", **wanted)
        text = scraped(mesh, workload)
        assert rows(text, "istio_request_duration_milliseconds_bucket", **wanted, le="0.5")
        assert sum(value for _row, value in rows(text, "istio_response_bytes_sum", **wanted)) >= len("hello")


# A gRPC server that answers each message of a stream with two, and a client that sends three.
STREAMS = """
import sys, time
from concurrent import futures
import grpc
def twice(messages, _context):
    for one in messages:
        yield one
        yield one
if sys.argv[1] == "serve":
    rpc = {"Twice": grpc.stream_stream_rpc_method_handler(twice)}
    server = grpc.server(futures.ThreadPoolExecutor(4))
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Streams", rpc),))
    server.add_insecure_port("0.0.0.0:9100")
    server.start()
    server.wait_for_termination()
else:
    call = grpc.insecure_channel("streams:9100").stream_stream("/test.Streams/Twice")
    print(len(list(call(iter((b"a", b"b", b"c")), wait_for_ready=True, timeout=60))))
"""


def test_messages_of_a_stream(mesh: Mesh, tmp_path: Path) -> None:
    """Broken: a stream that carries a million messages would count as one request, and nobody would see them."""
    file = tmp_path / "streams.py"
    file.write_text(textwrap.dedent(STREAMS))
    file.chmod(0o644)
    argv = [*TULLE, "run", "--service", "streams", "--port", "9100:grpc", "--", sys.executable, str(file), "serve"]
    with subprocess.Popen(argv, env=mesh.env, stderr=subprocess.PIPE, text=True) as child:
        try:
            mesh.kubectl("wait", "--for=create", "workloadentry/streams")
            mesh.kubectl("wait", "--for=jsonpath={.metadata.annotations.tulle\\.dev/ready}=true", "workloadentry/streams")
            mesh.synced()
            assert mesh.inside(sys.executable, str(file), "call").out.strip() == "6"
            wanted = {"reporter": "destination", "destination_workload": "streams", "request_protocol": "grpc"}
            for name, count in (("istio_request_messages_total", 3), ("istio_response_messages_total", 6)):
                ((_row, value),) = soon(mesh, "streams", name, **wanted)
                assert value == count
                went = {"reporter": "source", "destination_service": "streams.default.svc.cluster.local"}
                ((row, value),) = soon(mesh, "curl", name, **went)
                assert (value, row["source_workload"]) == (count, "curl")
            ((row, _value),) = soon(mesh, "streams", "istio_requests_total", **wanted)
            assert row["grpc_response_status"] == "0"
        finally:
            child.terminate()
            child.wait(30)


def test_an_application_is_asked_too(mesh: Mesh, shop: None) -> None:
    """Broken: people would need a second port, and an exception to strict mutual TLS, for their own metrics."""
    assert "orders_total 7" in scraped(mesh, "shop-v9")


def test_a_failed_call_has_its_flags(mesh: Mesh) -> None:
    """Broken: nobody could tell an application's 503 from one that no application gave."""
    mesh.tulle("apply", "-f", "-", stdin=ABORT)
    try:
        mesh.synced()
        assert mesh.inside("curl", "-sS", "-o", "/dev/null", "-w", "%{http_code}", "http://ratings:9080/").out == "418"
    finally:
        mesh.tulle("delete", "-f", "-", stdin=ABORT)
    soon(mesh, "curl", "istio_requests_total", response_code="418", response_flags="FI")


ABORT = """
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: ratings-abort, namespace: default}
spec:
  hosts: [ratings]
  http: [{fault: {abort: {httpStatus: 418, percentage: {value: 100}}}, route: [{destination: {host: ratings}}]}]
"""


def test_what_callers_write_is_no_label(mesh: Mesh) -> None:
    """Broken: what a caller writes into a header or a path would become a label, and memory grow with every request."""
    before = scraped(mesh, "productpage-v1")
    for number in range(5):
        mesh.inside("curl", "-sS", "-o", "/dev/null", "-A", f"agent-{number}", f"http://productpage:9080/nothing/{number}")
    after = scraped(mesh, "productpage-v1")
    assert len(rows(after, "istio_requests_total")) <= len(rows(before, "istio_requests_total")) + 1
    assert "agent-" not in after
    assert "/nothing/" not in after


TENANTS = """
apiVersion: telemetry.istio.io/v1
kind: Telemetry
metadata: {name: tenants, namespace: default}
spec:
  selector: {matchLabels: {app: shop}}
  metrics:
  - overrides:
    - match: {metric: REQUEST_COUNT, mode: SERVER}
      tagOverrides: {tenant: {value: 'request.headers["x-tenant"]'}}
"""
ASK = """
import http.client
for _ in range(20):  # connections that stand end with their next request, which is counted as before
    first = http.client.HTTPConnection("shop", 8123)
    first.request("GET", "/", headers={"x-tenant": "tenant-0"})
    first.getresponse().read()
to = http.client.HTTPConnection("shop", 8123)
for number in range(600):
    to.request("GET", "/", headers={"x-tenant": f"tenant-{number}" + "x" * (number % 2 * 5000)})
    to.getresponse().read()
"""


def test_values_without_end(mesh: Mesh, shop: None) -> None:
    """Broken: a caller that names another tenant each time would fill the proxy's memory, or make its calls vanish."""
    mesh.tulle("apply", "-f", "-", stdin=TENANTS)
    try:
        mesh.synced()
        mesh.inside("python3", "-c", ASK)
        found: list[Row] = []
        folded: list[Row] = []

        def counted() -> bool:
            text = scraped(mesh, "shop-v9")
            found[:] = [one for one in rows(text, "istio_requests_total", reporter="destination") if "tenant" in one[0]]
            folded[:] = rows(text, "tulle_metrics_folded_total", metric="istio_requests_total")
            return sum(value for labels, value in found if labels["tenant"] != "tenant-0") == 599 and bool(folded)

        until("all calls are counted", counted, 60, lambda: (len(found), folded))
        assert len(found) == 501
        assert [value for labels, value in found if labels["tenant"] == "other"] == [100] == [value for _labels, value in folded]
        assert max(len(labels["tenant"]) for labels, _value in found) == 128
        soon(mesh, "shop-v9", "istio_request_duration_milliseconds_count", reporter="destination")
    finally:
        mesh.tulle("delete", "-f", "-", stdin=TENANTS)
        mesh.synced()


PERMISSIVE = """
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: shop, namespace: default}
spec: {selector: {matchLabels: {app: shop}}, mtls: {mode: PERMISSIVE}}
"""


def told(mesh: Mesh, *arguments: str, wanted: str) -> str:
    """What a command prints once it says something: nodes report every few seconds."""
    said = ""

    def says() -> bool:
        nonlocal said
        said = mesh.tulle(*arguments, check=False).text
        return wanted in said

    until(f"it says {wanted!r}", says, 60, lambda: said)
    return said


def test_who_calls_whom(mesh: Mesh, shop: None) -> None:
    """Broken: without Prometheus nobody would see how a service does, or who its callers are."""
    for _ in range(5):
        mesh.inside("curl", "-sS", "http://shop:8123/")
    line = next(line for line in told(mesh, "stat", "shop", wanted="default/shop").splitlines() if "default/shop" in line)
    assert line.split()[1] == "100.00%"
    assert line.split()[-1] == "100%"
    line = next(line for line in told(mesh, "edges", wanted="default/shop-v9").splitlines() if "default/shop-v9" in line)
    assert line.split()[:4] == ["default/curl", "default/shop-v9", "default/shop", "http"]


def test_from_permissive_to_strict(mesh: Mesh, shop: None) -> None:
    """Broken: somebody would be shut out by the switch who could have been seen, or STRICT not come, or not go again."""
    mesh.tulle("apply", "-f", "-", stdin=PERMISSIVE)
    try:
        mesh.synced()
        address = mesh.kubectl("get", "workloadentry", "shop-v9", "-o", "jsonpath={.spec.address}").out
        plain = ["curl", "-sS", "-m", "10", f"http://{address}:8123/"]
        assert run(plain, mesh.env).out == "hello", "plaintext, from the host"
        row = next(
            line for line in told(mesh, "mtls", "status", "shop", wanted="somebody").splitlines() if "default/shop" in line
        )
        assert "PERMISSIVE" in row
        refused = mesh.tulle("mtls", "strict", "shop", check=False)
        assert refused.code == 1
        assert "calls in plaintext" in refused.text
        assert "changed from PERMISSIVE" in mesh.tulle("mtls", "strict", "shop", "--force").out
        mesh.synced()
        assert run(plain, mesh.env).code != 0
        assert mesh.inside("curl", "-sS", "http://shop:8123/").out == "hello"
        assert "changed back to PERMISSIVE" in mesh.tulle("mtls", "strict", "shop", "--undo").out
        mesh.synced()
        assert run(plain, mesh.env).out == "hello"
        assert "nothing to undo" in mesh.tulle("mtls", "strict", "shop", "--undo").out
    finally:
        mesh.tulle("delete", "-f", "-", stdin=PERMISSIVE)
