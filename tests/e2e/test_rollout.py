"""Roll-outs in traffic: a version that is fine gets all of it, one that is not loses it, and callers hardly notice."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from queue import Queue
from typing import Any, ClassVar

import pytest
import yaml

from tests.e2e.test_outages import pid_of, until
from tests.support.mesh import TULLE, Mesh

# Answers its version; while the file `fail` is there every second request is answered 500.
SERVER = """
import http.server, itertools, pathlib, sys
version, folder, count = sys.argv[1], pathlib.Path(sys.argv[2]), itertools.count()
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version, wbufsize = "HTTP/1.1", -1
    def do_GET(self):
        body = version.encode()
        self.send_response(500 if (folder / "fail").exists() and next(count) % 2 else 200)
        self.send_header("content-length", str(len(body))); self.end_headers(); self.wfile.write(body)
    def log_message(self, *words): pass
http.server.ThreadingHTTPServer(("", 8000), Handler).serve_forever()
"""

# Asks some 100 times a second until the file is gone; prints `[status, version]` each.
CLIENT = """
import http.client, json, pathlib, sys, time
found, go_on = [], pathlib.Path(sys.argv[1])
connection = http.client.HTTPConnection("rolled", 8000, timeout=20)
while go_on.exists():
    connection.request("GET", "/")
    reply = connection.getresponse()
    found.append([reply.status, reply.read().decode()])
    time.sleep(0.01)
print(json.dumps(found))
"""

ROUTES = """
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: rolled}
spec:
  host: rolled
  subsets: [{name: one, labels: {version: v1}}, {name: two, labels: {version: v2}}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: rolled}
spec:
  hosts: [rolled]
  http:
  - route:
    - destination: {host: rolled, subset: one}
      weight: 100
    - destination: {host: rolled, subset: two}
      weight: 0
"""


# Another service of the demo, by a route of the Gateway API and a Service for each version; nothing of it is measured.
OTHER = """
apiVersion: v1
kind: Service
metadata: {name: reviews-one}
spec: {selector: {app: reviews, version: v1}, ports: [{name: http, port: 9080}]}
---
apiVersion: v1
kind: Service
metadata: {name: reviews-two}
spec: {selector: {app: reviews, version: v2}, ports: [{name: http, port: 9080}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: other}
spec:
  parentRefs: [{group: "", kind: Service, name: reviews, port: 9080}]
  rules: [{backendRefs: [{name: reviews-one, port: 9080}, {name: reviews-two, port: 9080, weight: 0}]}]
"""
NAMES = ("--service", "rolled", "--route", "virtualservice/rolled", "--stable", "v1", "--candidate", "v2")
OTHER_ROLLOUT = """
apiVersion: tulle.dev/v1alpha1
kind: Rollout
metadata: {name: other}
spec:
  targetRef: {name: reviews}
  stable: {service: reviews-one}
  candidate: {service: reviews-two}
  routeRef: {name: other}
  analysis: {interval: 2s, stepWeights: [40], mirror: true}
"""


class Told(BaseHTTPRequestHandler):
    """What webhooks are sent; a check is refused, an alert is taken, and there is a door."""

    door: ClassVar[threading.Event] = threading.Event()
    heard: ClassVar[Queue[tuple[str, Any]]] = Queue()

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        self.send_response(403 if self.path == "/check" or (self.path == "/door" and not self.door.is_set()) else 200)
        self.send_header("content-length", "0")
        self.end_headers()
        self.heard.put((self.path, json.loads(body)))

    def log_message(self, *_words: Any) -> None:
        """Nothing."""


class Rolled:
    """Both versions of a service, their route, and one who calls it all the time."""

    def __init__(self, mesh: Mesh, folder: Path) -> None:
        self.mesh, self.folder = mesh, folder
        self.children: dict[str, subprocess.Popen[bytes]] = {}
        (folder / "server.py").write_text(textwrap.dedent(SERVER))
        (folder / "client.py").write_text(textwrap.dedent(CLIENT))
        self.start("v1")
        self.start("v2")
        mesh.tulle("apply", "-f", "-", stdin=ROUTES)
        mesh.synced()

    def start(self, version: str) -> None:
        program = [sys.executable, str(self.folder / "server.py"), version, str(self.folder)]
        argv = [*TULLE, "run", "--service", "rolled", "--version", version, "--port", "8000:http", "--", *program]
        self.children[version] = subprocess.Popen(argv, env=self.mesh.env)
        name = f"workloadentry/rolled-{version}"
        self.mesh.kubectl("wait", "--for=create", name)
        self.mesh.kubectl("wait", "--for=jsonpath={.metadata.annotations.tulle\\.dev/ready}=true", name)

    def end(self, version: str) -> None:
        child = self.children.pop(version)
        child.terminate()
        child.wait(60)

    @contextmanager
    def called(self) -> Iterator[list[tuple[int, str]]]:
        """Somebody calls while this runs; afterwards the list has what came."""
        go_on = self.folder / "go-on"
        found: list[tuple[int, str]] = []
        go_on.touch()
        argv = [*TULLE, "exec", "curl", "--", sys.executable, str(self.folder / "client.py"), str(go_on)]
        with subprocess.Popen(argv, env=self.mesh.env, stdout=subprocess.PIPE) as child:
            try:
                yield found
            finally:
                go_on.unlink()
                found += [(status, version) for status, version in json.loads(child.communicate(timeout=60)[0])]

    def roll(self, *options: str) -> None:
        """A rollout that looks every two seconds."""
        self.mesh.tulle("rollout", "create", "rolled", *NAMES, "--interval", "2s", "--threshold", "2", *options)

    def until(self, phase: str) -> str:
        """Wait for a phase; what the rollout says then."""
        self.mesh.kubectl("wait", "--timeout=90s", f"--for=jsonpath={{.status.phase}}={phase}", "rollout/rolled")
        return self.mesh.kubectl("get", "rollout", "rolled", "-o", "jsonpath={.status.message}").out

    def weights(self) -> list[int]:
        found = json.loads(self.mesh.kubectl("get", "virtualservice", "rolled", "-o", "json").out)
        return [one.get("weight", 0) for one in found["spec"]["http"][0]["route"]]

    def wish(self, *options: str) -> Any:
        """A Rollout as `tulle rollout init` writes it."""
        return yaml.safe_load(self.mesh.tulle("rollout", "init", "rolled", *NAMES, *options).out)

    def happened(self, name: str) -> list[str]:
        """The reasons of the Events of the rollout that there is now, each as often as it happened."""
        uid = self.mesh.kubectl("get", "rollout", name, "-o", "jsonpath={.metadata.uid}").out
        found = json.loads(self.mesh.kubectl("get", "events", "-o", "json").out)["items"]
        return sorted(one["reason"] for one in found if one["involvedObject"].get("uid") == uid for _ in range(one["count"]))

    def forget(self) -> None:
        """No rollout any more, and all of the traffic is the first version's."""
        self.mesh.kubectl("delete", "rollout", "rolled", "--ignore-not-found")
        self.mesh.tulle("apply", "--force-conflicts", "-f", "-", stdin=ROUTES)
        self.mesh.synced()


@pytest.fixture(scope="module")
def everything(mesh: Mesh, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rolled]:
    found = Rolled(mesh, tmp_path_factory.mktemp("rolled"))
    yield found
    for kind in ("virtualservice", "destinationrule"):
        mesh.tulle("delete", kind, "rolled")
    for version in list(found.children):
        found.end(version)


@pytest.fixture
def rolled(everything: Rolled) -> Iterator[Rolled]:
    yield everything
    everything.forget()


def test_a_good_version_is_promoted(rolled: Rolled) -> None:
    """Broken: a release would need somebody who watches it, or cost its users requests."""
    with rolled.called() as found:
        rolled.roll("--step", "30", "--max", "60")
        rolled.until("Succeeded")
        assert rolled.weights() == [0, 100]
        rolled.mesh.synced()
    counts = Counter(found)
    assert {status for status, _version in counts} == {200}, counts
    assert found[-1] == (200, "v2")
    said = rolled.mesh.tulle("rollout", "history", "rolled").out
    assert "30%" in said
    assert "60%" in said
    assert rolled.mesh.tulle("rollout", "status", "rolled").code == 0


def test_a_version_that_fails_loses_its_traffic(rolled: Rolled) -> None:
    """Broken: users would see the errors of a bad release until somebody wakes up."""
    (rolled.folder / "fail").touch()
    try:
        with rolled.called() as found:
            rolled.roll("--step", "50", "--max", "50")
            # Both fail: the first version is not to blame for that, and nobody asks about it here.
            message = rolled.until("Failed")
            assert rolled.weights() == [100, 0]
            rolled.mesh.synced()
    finally:
        (rolled.folder / "fail").unlink()
    assert "request-success-rate" in message
    assert "needed at least 99%" in message
    assert {version for _status, version in found} == {"v1", "v2"}
    assert rolled.mesh.tulle("rollout", "status", "rolled", check=False).code == 1


def test_a_version_that_crashes_loses_its_traffic_at_once(rolled: Rolled) -> None:
    """Broken: the traffic of a version that is gone would wait for so many failed checks."""
    with rolled.called() as found:
        rolled.roll("--step", "50", "--max", "50", "--interval", "60s")
        rolled.mesh.kubectl("wait", "--timeout=60s", "--for=jsonpath={.status.weight}=50", "rollout/rolled")
        rolled.end("v2")
        assert "no healthy instance" in rolled.until("Failed")
        assert rolled.weights() == [100, 0]
        rolled.mesh.synced()
        rolled.start("v2")
    # Its share fails until a look later (half a second), and nothing else does.
    failed = [number for number, (status, _version) in enumerate(found) if status != 200]
    assert len(failed) < len(found) / 4
    assert {(200, "v1")} == set(found[max(failed, default=0) + 1 :][-20:])


def test_people_have_the_last_word(rolled: Rolled) -> None:
    """Broken: nobody could stop a release at night, take it back, or go on with it; and deleting it would leave it half done."""
    rolled.roll("--step", "50", "--max", "50", "--interval", "60s")
    wait = ("wait", "--timeout=60s", "rollout/rolled")
    rolled.mesh.kubectl(*wait, "--for=jsonpath={.status.weight}=50")
    rolled.mesh.tulle("rollout", "pause", "rolled")
    rolled.until("Paused")
    rolled.mesh.tulle("rollout", "resume", "rolled")
    rolled.until("Progressing")
    rolled.mesh.kubectl(*wait, "--for=jsonpath={.status.previousWeight}=50")
    assert rolled.weights() == [50, 50]
    by_hand = '[{"op": "replace", "path": "/spec/http/0/route/1/weight", "value": 7}]'
    rolled.mesh.kubectl("patch", "virtualservice", "rolled", "--type=json", "-p", by_hand)
    assert "somebody else changed the weights" in rolled.until("Paused")
    assert rolled.weights() == [50, 7]
    rolled.mesh.tulle("rollout", "resume", "rolled")
    rolled.until("Progressing")
    rolled.mesh.kubectl(*wait, "--for=jsonpath={.status.previousWeight}=50")
    rolled.mesh.kubectl("delete", "rollout", "rolled")
    assert rolled.weights() == [100, 0]


@pytest.fixture
def told() -> Iterator[str]:
    """The address of who is told, and asked."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Told)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_a_webhook_that_refuses_brings_it_back(rolled: Rolled, told: str) -> None:
    """Broken: acceptance tests that fail would not stop a release, or nobody would hear that it went back."""
    body = rolled.wish("--interval", "1s", "--threshold", "2")
    body["spec"]["analysis"] |= {"metrics": [], "webhooks": [{"name": "tests", "type": "rollout", "url": f"{told}/check"}]}
    body["spec"]["alerts"] = [{"name": "team", "severity": "error", "url": f"{told}/alert"}]
    rolled.mesh.tulle("apply", "-f", "-", stdin=json.dumps(body))
    assert "webhook tests (rollout): it answers 403" in rolled.until("Failed")
    heard = dict(Told.heard.get(timeout=30) for _ in range(3))
    assert heard["/check"]["weight"] == 10
    assert "RolledBack" in heard["/alert"]["text"]
    assert rolled.weights() == [100, 0]


def test_a_control_plane_that_dies_in_the_middle_of_two(rolled: Rolled, told: str) -> None:
    """Broken: a step would be skipped or done again, one rollout would do the other's, or copies of requests stay for ever."""
    mesh = rolled.mesh
    body, other = rolled.wish("--interval", "2s", "--step", "50"), yaml.safe_load(OTHER_ROLLOUT)
    # Both stay where they are until the door is open.
    body["spec"]["analysis"]["webhooks"] = [{"name": "door", "type": "confirm-promotion", "url": f"{told}/door"}]
    other["spec"]["analysis"]["webhooks"] = [{"name": "door", "type": "confirm-traffic-increase", "url": f"{told}/door"}]
    mesh.tulle("apply", "-f", "-", stdin=OTHER)
    try:
        with rolled.called() as found:
            for one in (body, other):
                mesh.tulle("apply", "-f", "-", stdin=json.dumps(one))
            mesh.kubectl("wait", "--timeout=60s", "--for=jsonpath={.status.mirroring}=There", "rollout/other")
            mesh.kubectl("wait", "--timeout=60s", "--for=jsonpath={.status.previousWeight}=50", "rollout/rolled")
            os.kill(pid_of(mesh, "tulle control-plane"), signal.SIGKILL)
            until("it is back", lambda: mesh.kubectl("get", "rollouts", check=False).code == 0, 60)
            route = json.loads(mesh.kubectl("get", "httproute", "other", "-o", "json").out)["spec"]["rules"][0]
            assert [one["type"] for one in route["filters"]] == ["RequestMirror"]
            assert rolled.weights() == [50, 50]
            Told.door.set()
            rolled.until("Succeeded")
            mesh.kubectl("wait", "--timeout=60s", "--for=jsonpath={.status.phase}=Succeeded", "rollout/other")
        assert {status for status, _version in found} == {200}, Counter(found)
        route = json.loads(mesh.kubectl("get", "httproute", "other", "-o", "json").out)["spec"]["rules"][0]
        assert [ref.get("weight") for ref in route["backendRefs"]] == [0, 100]
        assert "filters" not in route
        assert rolled.weights() == [0, 100]
        assert rolled.happened("rolled") == ["Progressing", "Promoted", "Started", "Succeeded"]
        assert rolled.happened("other") == ["Progressing", "Progressing", "Promoted", "Started", "Succeeded"]
    finally:
        Told.door.clear()
        mesh.kubectl("delete", "rollout,httproute", "other", "--ignore-not-found")
        mesh.kubectl("delete", "service", "reviews-one", "reviews-two")
