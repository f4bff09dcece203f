"""Instances that fail, are too busy, or stand far away: what a caller's sidecar does about them, seen in real traffic."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import textwrap
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.mesh import TULLE, Mesh

# Answers its name; `slow` in the path takes a second; 500 while the file `fail` is there.
SERVER = """
import http.server, os, pathlib, sys, time
name, folder = sys.argv[1], pathlib.Path(sys.argv[2])
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        if "slow" in self.path: time.sleep(1)
        body = name.encode()
        self.send_response(500 if (folder / "fail").exists() else 200)
        self.send_header("content-length", str(len(body))); self.end_headers(); self.wfile.write(body)
    def log_message(self, *words): pass
class Server(http.server.ThreadingHTTPServer):
    request_queue_size = 128
Server(("127.0.0.1", 8000), Handler).serve_forever()
"""

# Asks so many times, so many at once; prints what came: `[status, body]` each.
CLIENT = """
import concurrent.futures, http.client, json, sys
path, count, parallel, headers = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), json.loads(sys.argv[4])
def ask(number):
    connection = http.client.HTTPConnection("web", 8000, timeout=20)
    connection.request("GET", path, headers=headers)
    reply = connection.getresponse()
    return [reply.status, reply.read().decode(), reply.getheader("set-cookie") or ""]
with concurrent.futures.ThreadPoolExecutor(parallel) as pool:
    print(json.dumps(list(pool.map(ask, range(count)))))
"""

INSTANCES = {"north-1": ("eu", "north"), "south-1": ("eu", "south"), "us-1": ("us", "east")}


class Web:
    """A service of three instances in three places, and a caller in eu/north."""

    def __init__(self, mesh: Mesh, folder: Path) -> None:
        self.mesh, self.folder = mesh, folder
        self.children: dict[str, subprocess.Popen[str]] = {}
        (folder / "server.py").write_text(SERVER)
        (folder / "client.py").write_text(CLIENT)
        for name in INSTANCES:
            self.start(name)
        argv = ["run", "--service", "caller", *self.place("eu", "north"), "--", "sleep", "1000"]
        self.children["caller"] = subprocess.Popen([*TULLE, *argv], env=mesh.env, stderr=subprocess.PIPE, text=True)
        self.until(lambda: {body for status, body, _ in self.ask(20) if status == 200} == set(INSTANCES), "all instances answer")

    @staticmethod
    def place(region: str, zone: str) -> list[str]:
        labels = {"topology.kubernetes.io/region": region, "topology.kubernetes.io/zone": zone}
        return [word for label, value in labels.items() for word in ("--label", f"{label}={value}")]

    def start(self, name: str) -> None:
        here = self.folder / name
        here.mkdir(exist_ok=True)
        argv = ["run", "--service", "web", "--version", name, "--port", "8000:http", *self.place(*INSTANCES[name])]
        program = [sys.executable, str(self.folder / "server.py"), name, str(here)]
        self.children[name] = subprocess.Popen(
            [*TULLE, *argv, "--", *program], env=self.mesh.env, stderr=subprocess.PIPE, text=True
        )

    def stop(self) -> None:
        for child in self.children.values():
            child.send_signal(signal.SIGTERM)
        for child in self.children.values():
            child.wait(60)

    def ask(self, count: int, path: str = "/", parallel: int = 4, headers: dict[str, str] | None = None) -> list[Any]:
        """(status, body, cookie) of requests by the caller; none while it is not there yet."""
        client = [sys.executable, str(self.folder / "client.py"), path, str(count), str(parallel), json.dumps(headers or {})]
        ran = self.mesh.inside(*client, workload="caller", check=False)
        return json.loads(ran.out) if ran.code == 0 else []

    def names(self, count: int = 20, headers: dict[str, str] | None = None) -> Counter[str]:
        """Who answered 200."""
        return Counter(body for status, body, _cookie in self.ask(count, headers=headers) if status == 200)

    def fail(self, name: str, fails: bool = True) -> None:
        """An instance answers 500 from now on, or no longer."""
        file = self.folder / name / "fail"
        file.touch() if fails else file.unlink(missing_ok=True)

    def apply(self, policy: str) -> None:
        """A DestinationRule with this policy, and every proxy has it."""
        head = "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: web}\nspec:\n  host: web\n"
        body = textwrap.indent(textwrap.dedent(policy), "    ")
        self.mesh.tulle("apply", "-f", "-", stdin=f"{head}  trafficPolicy:\n{body}")
        self.mesh.synced()

    def until(self, holds: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + 60
        while not holds():
            for child in self.children.values():
                assert child.poll() is None, child.communicate()[1]
            assert time.monotonic() < deadline, f"{what}: not within a minute\n{self.mesh.logs()}"


@pytest.fixture(scope="module")
def web(mesh: Mesh, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Web]:
    found = Web(mesh, tmp_path_factory.mktemp("web"))
    yield found
    found.stop()


@pytest.fixture(autouse=True)
def clean(web: Web) -> Iterator[None]:
    """Each test leaves neither a rule nor a failing instance."""
    yield
    for name in INSTANCES:
        web.fail(name, fails=False)
    web.mesh.tulle("delete", "destinationrule", "web", check=False)
    web.mesh.synced()
    assert "NACK" not in web.mesh.tulle("proxy", "status").out


def test_a_full_destination_sheds_load(web: Web) -> None:
    """Broken: a bound of requests would not be kept, and a slow service be drowned in them."""
    assert {status for status, *_ in web.ask(12, "/slow", parallel=12)} == {200}
    web.apply(
        "connectionPool: {tcp: {maxConnections: 1}, http: {http1MaxPendingRequests: 1, http2MaxRequests: 2, maxRetries: 1}}"
    )
    statuses = Counter(status for status, *_ in web.ask(12, "/slow", parallel=12))
    assert statuses[503] >= 6, statuses
    assert statuses[200] >= 2, statuses


def test_a_failing_instance_is_left_out(web: Web) -> None:
    """Broken: a third of all requests would fail for as long as one instance does."""
    web.fail("us-1")
    assert Counter(status for status, *_ in web.ask(60))[500] >= 5
    web.apply("""
        outlierDetection: {consecutive5xxErrors: 2, interval: 1s, baseEjectionTime: 60s, maxEjectionPercent: 100}
        loadBalancer: {simple: ROUND_ROBIN, localityLbSetting: {enabled: false}}
    """)
    web.ask(30)
    statuses = Counter(status for status, *_ in web.ask(60))
    assert statuses == {200: 60}, statuses


@pytest.mark.parametrize("algorithm", ["ringHash: {minimumRingSize: 1024}", "maglev: {}"])
def test_a_client_stays_with_an_instance(web: Web, algorithm: str) -> None:
    """Broken: a client's session would be spread over all instances, or all clients be sent to one."""
    web.apply(f"loadBalancer: {{consistentHash: {{httpHeaderName: x-user, {algorithm}}}}}")
    users = [web.names(10, {"x-user": f"user {number}"}) for number in range(8)]
    assert all(len(names) == 1 for names in users), users
    assert len({next(iter(names)) for names in users}) > 1, users


def test_a_client_is_given_its_cookie(web: Web) -> None:
    """Broken: a client without the cookie would get none, and land elsewhere each time."""
    web.apply("loadBalancer: {consistentHash: {httpCookie: {name: stay, path: /, ttl: 1h}}}")
    ((status, name, cookie),) = web.ask(1)
    assert (status, cookie.partition("=")[0]) == (200, "stay")
    assert web.names(20, {"cookie": cookie.partition(";")[0]}) == {name: 20}


def test_failover_between_zones_and_regions(web: Web) -> None:
    """Broken: callers would go far away while there is something near, or stay with what has failed."""
    web.apply("""
        outlierDetection: {consecutive5xxErrors: 1, interval: 1s, baseEjectionTime: 60s, maxEjectionPercent: 100}
    """)
    assert web.names(30) == {"north-1": 30}
    web.fail("north-1")
    web.ask(10)
    assert web.names(30) == {"south-1": 30}
    web.fail("south-1")
    web.ask(10)
    assert web.names(30) == {"us-1": 30}


def test_an_explicit_geographic_rule(web: Web) -> None:
    """Broken: callers of one region would not go where a rule sends them."""
    web.apply('loadBalancer: {localityLbSetting: {distribute: [{from: eu/north, to: {"us/*": 100}}]}}')
    assert web.names(30) == {"us-1": 30}
    web.apply('loadBalancer: {localityLbSetting: {distribute: [{from: eu/*, to: {"eu/north": 50, "eu/south": 50}}]}}')
    names = web.names(60)
    assert set(names) == {"north-1", "south-1"}, names
    assert min(names.values()) > 15, names
