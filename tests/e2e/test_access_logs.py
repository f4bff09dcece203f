"""Lines for requests where people read them: in files over rotations, through the control plane, at a collector; and live."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.mesh import TULLE, Mesh
from tests.support.waiting import until

URL = "http://ratings:9080/ratings/0"

CONFIG = """
apiVersion: tulle.dev/v1alpha1
kind: MeshConfig
metadata: {name: mesh}
spec:
  extensionProviders:
  - {name: json, envoyFileAccessLog: {logFormat: {labels: {}}}}
"""
COLLECTOR = """
  - name: collector
    envoyOtelAls:
      service: otel.default.svc.cluster.local
      port: 4317
      logFormat: {labels: {path: "%REQ_WITHOUT_QUERY(:PATH)%", code: "%RESPONSE_CODE%"}}
"""


def telemetry(provider: str, expression: str = "") -> str:
    """Logs of ratings, of what comes in."""
    wanted = f"filter: {{expression: {json.dumps(expression)}}}" if expression else ""
    return f"""
apiVersion: telemetry.istio.io/v1
kind: Telemetry
metadata: {{name: ratings-logs, namespace: default}}
spec:
  selector: {{matchLabels: {{app: ratings}}}}
  accessLogging:
  - match: {{mode: SERVER}}
    providers: [{{name: {provider}}}]
    {wanted}
"""


@pytest.fixture(scope="module")
def mesh() -> Iterator[Mesh]:
    """A demo that keeps little of each log."""
    running = Mesh(settings={"TULLE_ACCESS_LOG_MB": "1"})
    running.up()
    running.tulle("apply", "-f", "-", stdin=CONFIG)
    yield running
    running.remove()


def logged(mesh: Mesh, wanted: Callable[[str], bool], *arguments: str) -> list[str]:
    """The lines of `tulle logs` once there are such: Envoy writes once a second."""

    def lines() -> list[str]:
        return [line for line in mesh.tulle("logs", "ratings-v1", *arguments).out.splitlines() if wanted(line)]

    return until("there are such lines", lines, 20, lambda: mesh.tulle("logs", "ratings-v1").text)


def test_off_until_somebody_turns_it_on(mesh: Mesh) -> None:
    """Broken: logs would cost where nobody asked for them; or nobody would know why there are none."""
    ran = mesh.tulle("logs", "ratings-v1", check=False)
    assert ran.code == 1
    assert "none is on for it" in ran.err
    assert "no workload default/nobody" in mesh.tulle("logs", "nobody", check=False).err


def test_text_json_and_a_filter(mesh: Mesh) -> None:
    """Broken: lines would be missing, of another form than tools expect, or tell a secret."""
    mesh.tulle("apply", "-f", "-", stdin=telemetry("envoy"))
    mesh.synced()
    mesh.inside("curl", "-sS", "-H", "x-request-id: one", "-H", "authorization: Bearer secret", f"{URL}?token=secret")
    (line,) = logged(mesh, lambda line: '"one"' in line)
    assert re.match(
        r'\[\d{4}-\d\d-\d\dT[\d:.]+Z\] "GET /ratings/0 HTTP/[12.]+" 200 - via_upstream - "-" 0 \d+ \d+ \d+ "-" "curl/', line
    )
    assert line.split()[-6].startswith("inbound|9080|")
    assert "secret" not in line
    assert logged(mesh, lambda line: '"one"' in line, "--from", "curl") == [line]
    assert mesh.tulle("logs", "ratings-v1", "--from", "other").out == ""
    assert mesh.tulle("logs", "ratings-v1", "--status", "5xx").out == ""

    mesh.tulle("apply", "-f", "-", stdin=telemetry("json", "request.headers['x-wanted'] == 'yes'"))
    mesh.synced()
    mesh.inside("curl", "-sS", URL)  # a connection that stands ends with the next request, which is logged as before
    mesh.inside("curl", "-sS", "-H", "x-request-id: two", URL)
    mesh.inside("curl", "-sS", "-H", "x-request-id: three", "-H", "x-wanted: yes", f"{URL}?token=secret")
    (line,) = logged(mesh, lambda line: '"three"' in line, "--from", "curl", "--path", "/ratings")
    said = json.loads(line)
    assert (said["response_code"], said["method"], said["path"], said["request_id"]) == (200, "GET", "/ratings/0", "three")
    assert said["caller"] == "spiffe://cluster.local/ns/default/sa/curl"
    assert '"two"' not in mesh.tulle("logs", "ratings-v1").out


@contextmanager
def watched(mesh: Mesh, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A tulle command that goes on."""
    argv = [*mesh.command, *arguments]
    with subprocess.Popen(argv, env=mesh.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.terminate()
            process.wait(20)


def test_following_over_rotations_loses_nothing(mesh: Mesh) -> None:
    """Broken: lines would be lost, or cut, whenever a file is full: just when there is much to see."""
    mesh.tulle("apply", "-f", "-", stdin=telemetry("envoy"))
    mesh.synced()
    count = 4000
    with watched(mesh, "logs", "ratings-v1", "-f", "--tail", "0", "--path", "/ratings/") as following:
        assert following.stdout is not None
        # What it shows first was asked for once it looked.
        seen: set[int] = set()
        deadline = time.monotonic() + 30
        while not (lines := _ready(following)):
            assert time.monotonic() < deadline
            mesh.inside("curl", "-sS", "-o", "/dev/null", "http://ratings:9080/ratings/900000")
        padding = "x" * 200
        mesh.inside("curl", "-sS", "-o", "/dev/null", "-A", padding, f"http://ratings:9080/ratings/[1-{count}]")
        while len(seen) < count:
            for line in lines or [following.stdout.readline()]:
                assert line.startswith("["), line
                number = int(line.split('"')[1].split("/")[2].split()[0])
                assert number not in seen or number == 900000
                if number != 900000:
                    seen.add(number)
            lines = []
    folder = mesh.home / "state" / "demo" / "node" / "workloads" / "default.ratings-v1"
    files = sorted(folder.glob("access.log*"))
    assert len(files) > 1
    assert sum(file.stat().st_size for file in files) < 3 << 20
    assert all(file.stat().st_mode & 0o077 == 0 for file in files)


def _ready(process: subprocess.Popen[str]) -> list[str]:
    import select

    assert process.stdout is not None
    return [process.stdout.readline()] if select.select([process.stdout], [], [], 1.0)[0] else []


def switched(mesh: Mesh) -> bool:
    """Whether the Envoy of ratings tells its requests."""
    found = mesh.tulle("proxy", "config", "listener", "ratings-v1", "-o", "json")
    assert found.code == 0
    told = [admin(path, "/runtime?format=json") for path in (mesh.home / "run").rglob("admin.sock")]
    return any("tap.share" in one and json.loads(one)["entries"].get("tap.share", {}).get("final_value") for one in told)


def admin(socket: Path, path: str) -> str:
    return subprocess.run(
        ["curl", "-sS", "--unix-socket", str(socket), f"http://envoy{path}"], capture_output=True, text=True, check=True
    ).stdout


def test_a_tap_ends_with_who_looks(mesh: Mesh) -> None:
    """Broken: nobody could see what goes on; or a proxy would tell of every request for ever, once somebody has looked."""
    assert not switched(mesh)
    with watched(mesh, "tap", "ratings-v1", "--from", "curl", "--path", "/ratings/7", "-o", "json") as tap:
        deadline = time.monotonic() + 30
        while not (lines := _ready(tap)):
            assert time.monotonic() < deadline
            mesh.inside(
                "curl", "-sS", "-o", "/dev/null", "-H", "authorization: Bearer secret", "http://ratings:9080/ratings/7?a=b"
            )
            mesh.inside("curl", "-sS", "-o", "/dev/null", URL)
        assert switched(mesh)
        said = json.loads(lines[0])
        assert (said["method"], said["path"], said["status"]) == ("GET", "/ratings/7", 200)
        assert said["caller"] == "spiffe://cluster.local/ns/default/sa/curl"
        assert "secret" not in lines[0]
    deadline = time.monotonic() + 20
    while switched(mesh):
        assert time.monotonic() < deadline
    ran = mesh.tulle("tap", "ratings-v1", "--for", "1s")
    assert "the time of this tap is over" in ran.err


# Writes each record as a line; the messages are those of the standard's own package.
SINK = """
import grpc, json, sys, threading
from concurrent import futures
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2 as logs, logs_service_pb2_grpc as service
class Sink(service.LogsServiceServicer):
    def Export(self, request, context):
        with open(sys.argv[1], "a") as file:
            for of in request.resource_logs:
                for scope in of.scope_logs:
                    for record in scope.log_records:
                        file.write(json.dumps({one.key: one.value.string_value for one in record.attributes}) + chr(10))
        if "/stuck" in str(request): threading.Event().wait()
        return logs.ExportLogsServiceResponse()
server = grpc.server(futures.ThreadPoolExecutor(2))
service.add_LogsServiceServicer_to_server(Sink(), server)
server.add_insecure_port("0.0.0.0:4317")
server.start()
server.wait_for_termination()
"""


def test_a_collector_and_none(mesh: Mesh, tmp_path: Path) -> None:
    """Broken: records would not come to a collector that people run; or requests would wait for one that is away."""
    out, program = tmp_path / "records", tmp_path / "sink.py"
    program.write_text(textwrap.dedent(SINK))
    argv = [*TULLE, "run", "--service", "otel", "--port", "4317:grpc", "--", sys.executable, str(program), str(out)]
    with subprocess.Popen(argv, env=mesh.env, stderr=subprocess.PIPE, text=True) as child:
        try:
            mesh.kubectl("wait", "--for=create", "workloadentry/otel")
            mesh.kubectl("wait", "--for=jsonpath={.metadata.annotations.tulle\\.dev/ready}=true", "workloadentry/otel")
            mesh.tulle("apply", "-f", "-", stdin=CONFIG.rstrip() + COLLECTOR)
            mesh.tulle("apply", "-f", "-", stdin=telemetry("collector"))
            mesh.synced()
            deadline = time.monotonic() + 30
            while not out.exists() or '"/ratings/5"' not in out.read_text():
                assert time.monotonic() < deadline
                mesh.inside("curl", "-sS", "-o", "/dev/null", "http://ratings:9080/ratings/5?token=secret")
            record = json.loads(out.read_text().splitlines()[0])
            assert record["code"] == "200"
            assert "secret" not in out.read_text()
            # It takes what it is sent, and never answers: nor do requests wait for that.
            while '"/stuck"' not in out.read_text():
                assert time.monotonic() < deadline + 30
                mesh.inside("curl", "-sS", "-o", "/dev/null", "http://ratings:9080/stuck")
            fast(mesh)
        finally:
            child.terminate()
            child.wait(30)
    # Nobody is there now: requests go on as ever, and what is lost is counted.
    fast(mesh)
    mesh.tulle("delete", "telemetry", "ratings-logs")


def fast(mesh: Mesh) -> None:
    """Fifty requests, none of which waits for a collector."""
    took = mesh.inside("curl", "-sS", "-o", "/dev/null", "-w", "%{time_total} ", "http://ratings:9080/ratings/[1-50]").out
    assert len(took.split()) == 50
    assert max(map(float, took.split())) < 5
