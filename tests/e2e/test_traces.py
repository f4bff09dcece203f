"""Traces of a running mesh: Bookinfo's, those that callers begin, and spans at a collector that is not ours."""

from __future__ import annotations

import json
import secrets
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.mesh import TULLE, Mesh, fetch

# Answers with the headers of the request.
MIRROR = """
import http.server, json
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = json.dumps({name.lower(): value for name, value in self.headers.items()}).encode()
        self.send_response(200); self.send_header("content-length", str(len(body))); self.end_headers(); self.wfile.write(body)
    def log_message(self, *words): pass
http.server.ThreadingHTTPServer(("", 8125), Handler).serve_forever()
"""
COLLECTOR = """
apiVersion: tulle.dev/v1alpha1
kind: MeshConfig
metadata: {name: mesh}
spec:
  extensionProviders:
  - {name: otel, opentelemetry: {service: default/collector, port: 4317}}
"""


def telemetry(spec: dict[str, Any], name: str = "traces", namespace: str = "default") -> str:
    metadata = {"name": name, "namespace": namespace}
    return json.dumps({"apiVersion": "telemetry.istio.io/v1", "kind": "Telemetry", "metadata": metadata, "spec": spec})


@contextmanager
def applied(mesh: Mesh, *texts: str) -> Iterator[None]:
    """Objects, as long as this lasts."""
    try:
        for text in texts:
            mesh.tulle("apply", "-f", "-", stdin=text)
        mesh.synced()
        yield
    finally:
        for text in reversed(texts):
            mesh.tulle("delete", "-f", "-", stdin=text)
        mesh.synced()


@contextmanager
def workload(mesh: Mesh, name: str, port: str, *argv: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process in the mesh, until it is ready and as long as this lasts."""
    command = [*TULLE, "run", "--service", name, "--version", "v1", "--port", port, "--", *argv]
    with subprocess.Popen(command, env=mesh.env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as child:
        try:
            mesh.kubectl("wait", "--for=create", f"workloadentry/{name}-v1")
            ready = "--for=jsonpath={.metadata.annotations.tulle\\.dev/ready}=true"
            mesh.kubectl("wait", ready, f"workloadentry/{name}-v1")
            mesh.synced()
            yield child
        finally:
            child.terminate()
            child.wait(30)


@pytest.fixture(scope="module")
def mirror(mesh: Mesh, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The service `mirror`."""
    file = tmp_path_factory.mktemp("mirror") / "app.py"
    file.write_text(MIRROR)
    with workload(mesh, "mirror", "8125:http", "python3", str(file)):
        yield


def seen(mesh: Mesh, **headers: str) -> dict[str, str]:
    """The headers with which the application of `mirror` is called."""
    flags = [flag for name, value in headers.items() for flag in ("-H", f"{name.replace('_', '-')}: {value}")]
    found: dict[str, str] = json.loads(mesh.inside("curl", "-sS", *flags, "http://mirror:8125/hidden?token=hidden").out)
    return found


def trace(mesh: Mesh, number: str, spans: int) -> list[dict[str, Any]]:
    """The steps of a trace, once it has so many."""
    deadline = time.monotonic() + 60
    while True:
        ran = mesh.tulle("traces", number, "-o", "json", check=False)
        steps: list[dict[str, Any]] = json.loads(ran.out)["steps"] if ran.code == 0 else []
        if len(steps) >= spans:
            return steps
        assert time.monotonic() < deadline, f"needed {spans} spans, had {steps}\n{ran.text}"
        time.sleep(0.3)


def chains(steps: list[dict[str, Any]]) -> set[str]:
    """Who called whom who called whom, down to each step."""
    found: dict[str, str] = {}
    for step in steps:  # whoever called is above
        before = found.get(step["parent"], "")
        found[step["id"]] = f"{before}>{step['service'].rpartition('/')[2]}".removeprefix(">")
    return set(found.values())


def test_bookinfo(mesh: Mesh) -> None:
    """Broken: nobody would see which of the services behind a page makes it slow, or fail."""
    number, parent = secrets.token_hex(16), secrets.token_hex(8)
    headers = {"traceparent": f"00-{number}-{parent}-01", "authorization": "Bearer hidden", "end-user": "jason"}
    for _ in range(20):  # until a version of reviews answered that asks ratings
        (reply,) = fetch(f"{mesh.base}/productpage?u=hidden", 1, headers)
        assert reply.status == 200
    page = "ingressgateway>productpage>productpage"
    deadline = time.monotonic() + 60
    while not {f"{page}>details", f"{page}>reviews>reviews>ratings"} <= chains(steps := trace(mesh, number, spans=8)):
        assert time.monotonic() < deadline, chains(steps)
        time.sleep(0.3)
    assert "hidden" not in json.dumps(steps), "neither queries nor tokens"
    lines = mesh.tulle("traces", number).out.splitlines()
    assert any(line.lstrip().startswith("← default/ratings v1") and "█" in line and "200" in line for line in lines), lines
    listed = json.loads(mesh.tulle("traces", "--service", "ratings", "-o", "json").out)["traces"]
    assert number in [line["trace"] for line in listed]


def test_a_failure(mesh: Mesh, mirror: None) -> None:
    """Broken: the trace of a request that failed would not be found among those that did not."""
    number = secrets.token_hex(16)
    context = f"traceparent: 00-{number}-{secrets.token_hex(8)}-01"
    mesh.inside("curl", "-sS", "-o", "/dev/null", "-X", "DELETE", "-H", context, "http://mirror:8125/")  # 501: it knows GET only
    assert any(step.get("failed") for step in trace(mesh, number, spans=2))
    listed = json.loads(mesh.tulle("traces", "--errors", "-o", "json").out)["traces"]
    assert number in [line["trace"] for line in listed]


B3 = """
apiVersion: tulle.dev/v1alpha1
kind: MeshConfig
metadata: {name: mesh}
spec: {tracePropagators: [tracecontext, b3]}
"""


def test_b3(mesh: Mesh, mirror: None) -> None:
    """Broken: applications that speak B3 would each have traces of their own, which end at the first proxy."""
    with applied(mesh, B3):
        seen(mesh)  # a connection that stands ends with its next request
        for single in (True, False):
            number, parent = secrets.token_hex(16), secrets.token_hex(8)
            several = {"x_b3_traceid": number, "x_b3_spanid": parent, "x_b3_sampled": "1"}
            found = seen(mesh, **({"b3": f"{number}-{parent}-1"} if single else several))
            steps = trace(mesh, number, spans=2)
            assert [(step["kind"], step["service"]) for step in steps] == [
                ("client", "default/curl"),
                ("server", "default/mirror"),
            ]
            assert steps[0]["parent"] == parent
            server = steps[1]["id"]
            assert found["traceparent"] == f"00-{number}-{server}-01"
            assert (found["x-b3-traceid"], found["x-b3-spanid"], found["x-b3-sampled"]) == (number, server, "1")
            assert "b3" not in found


def test_sampling_and_tags(mesh: Mesh, mirror: None) -> None:
    """Broken: who asks for no traces would pay for all of them; or a trace that a caller began would have holes."""
    tags = {"tenant": {"header": {"name": "x-tenant", "defaultValue": "none"}}, "place": {"literal": {"value": "here"}}}
    with applied(mesh, telemetry({"tracing": [{"randomSamplingPercentage": 0, "customTags": tags}]})):
        seen(mesh)
        assert {seen(mesh)["traceparent"][-2:] for _ in range(5)} == {"00"}
        number = secrets.token_hex(16)
        assert seen(mesh, traceparent=f"00-{number}-{secrets.token_hex(8)}-01", x_tenant="blue")["traceparent"][3:35] == number
        for step in trace(mesh, number, spans=2):
            assert (step["tags"]["tenant"], step["tags"]["place"]) == ("blue", "here")
    with applied(mesh, telemetry({"tracing": [{"disableSpanReporting": True}]})):
        seen(mesh)
        assert "traceparent" not in seen(mesh)


def test_a_collector(mesh: Mesh, mirror: None, tmp_path: Path) -> None:
    """Broken: people who have a collector would not get a span there; or one that is down would cost requests."""
    spans = tmp_path / "spans.log"
    agent = Path(sysconfig.get_path("purelib")) / "rotel" / "rotel-agent"
    if sys.version_info >= (3, 14):
        pytest.skip("the collector has no wheel for this Python")
    flags = ["--otlp-grpc-endpoint", "0.0.0.0:4317", "--otlp-http-endpoint", "0.0.0.0:4318", "--exporter", "blackhole"]
    shell = (
        f"exec {agent} start {' '.join(flags)} --debug-log traces --debug-log-verbosity detailed --log-format json > {spans} 2>&1"
    )
    to_it = telemetry({"tracing": [{"providers": [{"name": "otel"}], "randomSamplingPercentage": 100}]})
    with workload(mesh, "collector", "4317:grpc", "sh", "-c", shell) as collector, applied(mesh, COLLECTOR, to_it):
        number = seen(mesh)["traceparent"][3:35]
        deadline = time.monotonic() + 60
        while number not in (text := spans.read_text()) or "mirror.default" not in text:
            assert time.monotonic() < deadline, text[-3000:]
            time.sleep(0.3)
        assert "hidden?" not in text
        assert mesh.tulle("traces", number, check=False).code != 0, "it went to the collector, and nowhere else"
        collector.terminate()
        collector.wait(30)
        began = time.monotonic()
        codes = mesh.inside("curl", "-sS", "-o", "/dev/null", "-w", "%{http_code} ", "http://mirror:8125/[1-200]").out.split()
        assert (set(codes), len(codes)) == ({"200"}, 200)
        assert time.monotonic() - began < 30
