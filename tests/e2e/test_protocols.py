"""What is not plain HTTP crosses two sidecars whole: server-first bytes, WebSockets, gRPC, large and slow bodies."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.test_mtls import address
from tests.support.mesh import TULLE, Mesh, assert_shares, run
from tulle.control.ca.authority import Authority

SPOKEN = str(Path(__file__).resolve().parents[1] / "support" / "spoken.py")
PYTHON = sys.executable

ROUTES = """
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: mail, namespace: default}
spec:
  hosts: [mail]
  http:
  - match: [{uri: {prefix: /gone}}]
    directResponse: {status: 410}
  - route: [{destination: {host: mail}}]
"""
PLAINTEXT = """
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: mail, namespace: default}
spec:
  selector: {matchLabels: {app: mail}}
  mtls: {mode: PERMISSIVE}
"""


SHARES = """
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: line, namespace: default}
spec:
  host: line
  subsets:
  - {name: v1, labels: {version: v1}}
  - {name: v2, labels: {version: v2}}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: line, namespace: default}
spec:
  hosts: [line]
  tls:
  - match: [{sniHosts: ["*.two.example"]}]
    route: [{destination: {host: line, subset: v2}}]
  - match: [{sniHosts: [one.example]}]
    route: [{destination: {host: line, subset: v1}}]
  tcp:
  - route:
    - {destination: {host: line, subset: v1}, weight: 80}
    - {destination: {host: line, subset: v2}, weight: 20}
"""


def call(mesh: Mesh, *words: str) -> Any:
    """What a caller inside a workload saw."""
    return json.loads(mesh.inside(PYTHON, SPOKEN, *words).out)


@contextmanager
def serving(
    mesh: Mesh, service: str, port: str, program: str, ready: list[str], *more: str, version: str = "v1"
) -> Iterator[None]:
    """A program of `spoken` as a service of the mesh, from when `ready` succeeds inside another workload until it is over."""
    number = port.partition(":")[0]
    argv = [*TULLE, "run", "--service", service, "--version", version, "--port", port]
    argv += ["--", PYTHON, SPOKEN, program, number, *more]
    child = subprocess.Popen(argv, env=mesh.env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    try:
        deadline = time.monotonic() + 30
        while (ran := mesh.inside(*ready, check=False)).code != 0:
            assert child.poll() is None, child.communicate()[1]
            assert time.monotonic() < deadline, ran.text
        yield
    finally:
        child.send_signal(signal.SIGTERM)
        child.wait(30)


@pytest.fixture(scope="module")
def web(mesh: Mesh) -> Iterator[str]:
    """An HTTP server by its base URL."""
    url = "http://web:8080"
    with serving(mesh, "web", "8080:http", "serve-web", ["curl", "-sS", "-m", "5", "--fail", f"{url}/"]):
        yield url


def test_a_server_that_speaks_first_on_an_undeclared_port(mesh: Mesh) -> None:
    """Its greeting comes within 100 ms more than the network takes, in mutual TLS and in plaintext; the connection then talks."""
    greet = [PYTHON, SPOKEN, "greet"]
    with serving(mesh, "mail", "7625", "serve-greeting", [*greet, "mail", "7625", "1"], "v1"):
        assert mesh.kubectl("get", "service", "mail", "-o", "jsonpath={.spec.ports[0].appProtocol}").out == ""
        seen = call(mesh, "greet", "mail", "7625", "15")
        assert seen["answer"] == "250 HELO 14\r\n"
        assert seen["waits"][7] < 0.1, seen
        mesh.kubectl("apply", "-f", "-", stdin=PLAINTEXT)
        try:
            mesh.synced()
            ran = run([*greet, address(mesh, "mail-v1"), "7625", "15"], mesh.env)
            assert ran.code == 0, ran.text
            assert json.loads(ran.out)["waits"][7] < 0.1, ran.out
        finally:
            mesh.kubectl("delete", "-f", "-", stdin=PLAINTEXT)
            mesh.synced()


def test_http_on_an_undeclared_port_has_routes(mesh: Mesh) -> None:
    """HTTP/1 is recognized: a VirtualService counts, and the application is told who calls; HTTP/2 arrives as it was sent."""
    ready = ["curl", "-sS", "-m", "5", "--fail", "http://mail:7625/"]
    with serving(mesh, "mail", "7625", "serve-web", ready):
        mesh.kubectl("apply", "-f", "-", stdin=ROUTES)
        try:
            mesh.synced()
            codes = mesh.inside(
                "curl",
                "-sS",
                "-o",
                "/dev/null",
                "-w",
                "%{http_code} ",
                "http://mail:7625/gone",
                "-o",
                "/dev/null",
                "http://mail:7625/",
            )
            assert codes.out == "410 200 "
            said = json.loads(mesh.inside("curl", "-sS", "-H", "Host: of.my.own", "http://mail:7625/").out)
            assert said["headers"]["Host"] == "of.my.own", "all that is called at the service's address is for the service"
            assert "spiffe://cluster.local/ns/default/sa/curl" in said["headers"]["x-forwarded-client-cert"]
        finally:
            mesh.kubectl("delete", "-f", "-", stdin=ROUTES)
            mesh.synced()


@pytest.mark.parametrize("port", ["50051:grpc", "50052"])
def test_grpc_whole(mesh: Mesh, port: str) -> None:
    """Unary calls and all streams, in turns; trailers, status codes and messages; on an undeclared port as well."""
    number = port.partition(":")[0]
    with serving(mesh, f"rpc{number}", port, "serve-grpc", [PYTHON, SPOKEN, "grpc", f"rpc{number}:{number}"]):
        seen = call(mesh, "grpc", f"rpc{number}:{number}")
    assert seen["unary"] == "unary a"
    assert seen["unary trailers"]["x-trailer"] == "unary"
    assert (seen["many"], seen["collect"], seen["chat"]) == ("999", "a,b,c", ["re x", "re y"])
    assert seen["chat trailers"]["x-trailer"] == "chat"
    assert seen["statuses"] == {str(code): [code, "as asked: 100%", "fail"] for code in (3, 5, 7, 16)}


def test_grpc_retries(mesh: Mesh) -> None:
    """A call that was answered UNAVAILABLE twice succeeds the third time, without the caller's doing: the default retries."""
    ready = ["curl", "-sS", "-m", "5", "--http2-prior-knowledge", "-o", "/dev/null", "http://flaky:50053/"]
    with serving(mesh, "flaky", "50053:grpc", "serve-grpc", ready):
        assert call(mesh, "grpc", "flaky:50053")["flaky"] == "3"


def test_websocket(mesh: Mesh, web: str) -> None:
    """A WebSocket crosses the HTTP/2 between sidecars: messages in turns, and the close with its code."""
    seen = call(mesh, "websocket", f"{web}/ws", "5")
    assert seen == {"seen": [f"echo {number}" for number in range(5)], "closed": 1000}


def test_large_and_slow_bodies(mesh: Mesh, web: str) -> None:
    """50 MB up and down, byte for byte; and bodies that take longer than a timeout that nobody asked for."""
    seen = call(mesh, "upload", f"{web}/sum", "50", "0")
    assert (seen["status"], seen["said"]["length"], seen["said"]["sha256"]) == (200, 50 << 20, seen["sent"])
    ran = mesh.inside("curl", "-sS", "-o", "/dev/null", "-w", "%{http_code} %{size_download}", f"{web}/bytes?megabytes=50")
    assert ran.out == f"200 {50 << 20}"
    slow = call(mesh, "upload", f"{web}/sum", "4", "0.5")
    assert (slow["status"], slow["said"]["sha256"]) == (200, slow["sent"])
    ran = mesh.inside("curl", "-sSN", f"{web}/slow?parts=5&pause=0.4")
    assert ran.out.split() == ["0", "1", "2", "3", "4"]


def test_expect_100_continue(mesh: Mesh, web: str) -> None:
    """A client that waits for the word to go on gets it at once, and its body arrives."""
    ran = mesh.inside(
        "sh", "-c", f"head -c 3000000 /dev/zero | curl -sSv --expect100-timeout 8 -H 'Expect: 100-continue' -T - {web}/sum"
    )
    assert "HTTP/1.1 100 Continue" in ran.err
    assert json.loads(ran.out)["length"] == 3_000_000


def test_headers_are_the_callers(mesh: Mesh, web: str) -> None:
    """What a caller says of itself arrives as it was said: only Istio's documented headers are added."""
    said = json.loads(
        mesh.inside(
            "curl", "-sS", "-A", "me/1", "-H", "X-Own: a b", "-H", "X-Forwarded-For: 1.2.3.4", f"{web}/a%2Fb?q=%20&q=1"
        ).out
    )
    headers = {name.lower(): value for name, value in said["headers"].items()}
    assert (headers["user-agent"], headers["x-own"], headers["x-forwarded-for"]) == ("me/1", "a b", "1.2.3.4")
    assert headers["host"] == "web:8080"
    assert said["path"] == "/a%2Fb?q=%20&q=1"
    added = set(headers) - {"host", "user-agent", "accept", "x-own", "x-forwarded-for"}
    assert added <= {
        "x-forwarded-proto",
        "x-request-id",
        "x-forwarded-client-cert",
        "x-envoy-attempt-count",
        "x-envoy-expected-rq-timeout-ms",
        "x-envoy-internal",
    }


def until_both(mesh: Mesh, *words: str) -> None:
    """Until connections to a service are answered by both of its versions: the first alone answers before the second is there."""
    deadline = time.monotonic() + 30
    while len(call(mesh, "greet", *words[:2], "20", *words[2:])["greeted"]) < 2:
        assert time.monotonic() < deadline, words


@contextmanager
def two_versions(mesh: Mesh, port: str, certificate: str = "") -> Iterator[None]:
    """`line` in two versions, and rules that share its connections."""
    number = port.partition(":")[0]
    secured = [certificate] if certificate else []
    ready = [PYTHON, SPOKEN, "greet", "line", number, "1", *(["x"] if certificate else [])]
    with (
        serving(mesh, "line", port, "serve-greeting", ready, "v1", *secured),
        serving(mesh, "line", port, "serve-greeting", ready, "v2", *secured, version="v2"),
    ):
        until_both(mesh, "line", number, *(["x"] if certificate else []))
        mesh.kubectl("apply", "-f", "-", stdin=SHARES)
        try:
            mesh.synced()
            yield
        finally:
            mesh.kubectl("delete", "-f", "-", stdin=SHARES)
            mesh.synced()


@pytest.mark.parametrize("port", ["7700:tcp", "7701"])
def test_shares_of_connections(mesh: Mesh, port: str) -> None:
    """VirtualService `tcp` with weights 80 and 20: so many of 1,000 connections; on an undeclared port as well."""
    with two_versions(mesh, port):
        assert_shares(lambda: Counter(call(mesh, "greet", "line", port[:4], "1000")["greeted"]), {"v1": 0.8, "v2": 0.2})


def test_connections_by_server_name(mesh: Mesh, tmp_path: Path) -> None:
    """VirtualService `tls`: an application's own TLS goes by its server name, and stays the application's own end to end."""
    made = Authority.open(tmp_path / "ca").issue_server(["one.example"], 3600)
    certificate = mesh.home / "line.pem"
    certificate.write_bytes(made.key + made.chain)
    certificate.chmod(0o644)
    with two_versions(mesh, "7702:tls", str(certificate)):
        seen = call(mesh, "greet", "line", "7702", "20", "a.two.example,one.example")
        assert seen["greeted"] == {"v1": 10, "v2": 10}
        rest = call(mesh, "greet", "line", "7702", "100", "three.example")["greeted"]
        assert set(rest) == {"v1", "v2"}, "what no server name takes is shared by the rule for bytes"
