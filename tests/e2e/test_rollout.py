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
from datetime import datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from queue import Queue
from typing import Any, ClassVar, NamedTuple

import pytest
import yaml

from tests.e2e.test_outages import pid_of
from tests.support.mesh import TULLE, Mesh
from tests.support.waiting import until

# Answers its version. While a file is there, `fail-VERSION`: each fifth request is answered 500; `slow-VERSION`: all are half a
# second late.
SERVER = """
import http.server, itertools, pathlib, sys, time
version, folder, count = sys.argv[1], pathlib.Path(sys.argv[2]), itertools.count()
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version, wbufsize = "HTTP/1.1", -1
    def do_GET(self):
        body = version.encode()
        if (folder / f"slow-{version}").exists(): time.sleep(0.5)
        self.send_response(500 if (folder / f"fail-{version}").exists() and next(count) % 5 == 0 else 200)
        self.send_header("content-length", str(len(body))); self.end_headers(); self.wfile.write(body)
    def log_message(self, *words): pass
http.server.ThreadingHTTPServer(("", 8000), Handler).serve_forever()
"""

# Asks some 100 times a second until the file is gone, each second time as a tester; prints `[status, version, tester]` each.
CLIENT = """
import http.client, json, pathlib, sys, time
found, go_on = [], pathlib.Path(sys.argv[1])
connection = http.client.HTTPConnection("rolled", 8000, timeout=20)
while go_on.exists():
    tester = len(found) % 2 == 1
    connection.request("GET", "/", headers={"cookie": "theme=dark; candidate=yes" if tester else "theme=dark"})
    reply = connection.getresponse()
    found.append([reply.status, reply.read().decode(), tester])
    go_on.with_name("began").touch()
    time.sleep(0.01)
print(json.dumps(found))
"""

# The same by gRPC: who fails answers with an internal error.
GRPC_SERVER = """
import concurrent.futures, itertools, pathlib, sys
import grpc
version, folder, count = sys.argv[1], pathlib.Path(sys.argv[2]), itertools.count()
def answer(asked, context):
    if (folder / f"fail-{version}").exists() and next(count) % 5 == 0: context.abort(grpc.StatusCode.INTERNAL, version)
    return version.encode()
class Calls(grpc.GenericRpcHandler):
    def service(self, call): return grpc.unary_unary_rpc_method_handler(answer)
server = grpc.server(concurrent.futures.ThreadPoolExecutor(8), handlers=[Calls()])
server.add_insecure_port("127.0.0.1:8000")
server.start()
server.wait_for_termination()
"""
GRPC_CLIENT = """
import json, pathlib, sys, time
import grpc
found, go_on = [], pathlib.Path(sys.argv[1])
with grpc.insecure_channel("spoken:8000", [("grpc.enable_retries", 0)]) as channel:
    call = channel.unary_unary("/test.Spoken/Say")
    while go_on.exists():
        try: found.append([200, call(b"", timeout=20).decode(), False])
        except grpc.RpcError as error: found.append([500, error.details(), False])
        go_on.with_name("began").touch()
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


# Testers, by a cookie, have a rule of their own.
TESTED = """
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: rolled}
spec:
  hosts: [rolled]
  http:
  - name: testers
    match: [{headers: {cookie: {regex: "^(.*; )?candidate=yes(;.*)?$"}}}]
    route:
    - {destination: {host: rolled, subset: one}, weight: 100}
    - {destination: {host: rolled, subset: two}, weight: 0}
  - route:
    - {destination: {host: rolled, subset: one}, weight: 100}
    - {destination: {host: rolled, subset: two}, weight: 0}
"""

SPOKEN = """
apiVersion: v1
kind: Service
metadata: {name: spoken-one}
spec: {selector: {app: spoken, version: v1}, ports: [{name: grpc, port: 8000}]}
---
apiVersion: v1
kind: Service
metadata: {name: spoken-two}
spec: {selector: {app: spoken, version: v2}, ports: [{name: grpc, port: 8000}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: GRPCRoute
metadata: {name: spoken}
spec:
  parentRefs: [{group: "", kind: Service, name: spoken, port: 8000}]
  rules: [{backendRefs: [{name: spoken-one, port: 8000, weight: 100}, {name: spoken-two, port: 8000, weight: 0}]}]
"""
SERVICES = {"rolled": ("http", SERVER, CLIENT, ROUTES), "spoken": ("grpc", GRPC_SERVER, GRPC_CLIENT, SPOKEN)}
ROUTE_KINDS = {"rolled": "virtualservice", "spoken": "grpcroute"}


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


class Call(NamedTuple):
    """What a request came to, and whether it was a tester's."""

    status: int
    version: str
    tester: bool = False


class Rolled:
    """Both versions of a service, their route, and one who calls it all the time."""

    def __init__(self, mesh: Mesh, folder: Path, name: str = "rolled") -> None:
        self.mesh, self.folder, self.name = mesh, folder, name
        self.protocol, server, client, routes = SERVICES[name]
        self.children: dict[str, subprocess.Popen[bytes]] = {}
        (folder / "server.py").write_text(textwrap.dedent(server))
        (folder / "client.py").write_text(textwrap.dedent(client))
        self.start("v1")
        self.start("v2")
        mesh.tulle("apply", "-f", "-", stdin=routes)
        mesh.synced()

    def start(self, version: str) -> None:
        program = [sys.executable, str(self.folder / "server.py"), version, str(self.folder)]
        argv = [*TULLE, "run", "--service", self.name, "--version", version, "--port", f"8000:{self.protocol}", "--", *program]
        self.children[version] = subprocess.Popen(argv, env=self.mesh.env)
        name = f"workloadentry/{self.name}-{version}"
        self.mesh.kubectl("wait", "--for=create", name)
        self.mesh.kubectl("wait", "--for=jsonpath={.metadata.annotations.tulle\\.dev/ready}=true", name)

    def end(self, version: str) -> None:
        child = self.children.pop(version)
        child.terminate()
        child.wait(60)

    @contextmanager
    def broken(self, how: str) -> Iterator[None]:
        """The second version fails, or is slow."""
        file = self.folder / f"{how}-v2"
        file.touch()
        try:
            yield
        finally:
            file.unlink()

    @contextmanager
    def called(self) -> Iterator[list[Call]]:
        """Somebody calls while this runs; afterwards the list has what came."""
        go_on, began = self.folder / "go-on", self.folder / "began"
        began.unlink(missing_ok=True)
        found: list[Call] = []
        go_on.touch()
        argv = [*TULLE, "exec", "curl", "--", sys.executable, str(self.folder / "client.py"), str(go_on)]
        with subprocess.Popen(argv, env=self.mesh.env, stdout=subprocess.PIPE) as child:
            try:
                until("somebody calls", began.exists, 60)
                yield found
            finally:
                go_on.unlink()
                found += [Call(*one) for one in json.loads(child.communicate(timeout=60)[0])]

    def roll(self, *options: str) -> None:
        """A rollout that looks every two seconds."""
        names = (
            "--service",
            self.name,
            "--route",
            f"{ROUTE_KINDS[self.name]}/{self.name}",
            "--stable",
            "v1",
            "--candidate",
            "v2",
        )
        self.mesh.tulle("rollout", "create", self.name, *names, "--interval", "2s", "--threshold", "2", *options)

    def until(self, phase: str) -> str:
        """Wait for a phase; what the rollout says then."""
        self.wait(f"jsonpath={{.status.phase}}={phase}")
        return self.mesh.kubectl("get", "rollout", self.name, "-o", "jsonpath={.status.message}").out

    def wait(self, condition: str) -> None:
        """Wait until it is so."""
        ran = self.mesh.kubectl("wait", "--timeout=90s", f"--for={condition}", f"rollout/{self.name}", check=False)
        assert ran.code == 0, (ran.text, self.mesh.tulle("rollout", "history", self.name, check=False).text)

    def took(self, windows: float = 0.0, name: str = "") -> None:
        """The roll-back came to the last proxy within two seconds, and so many seconds of windows after the first bad one."""
        rollout = f"rollout/{name or self.name}"
        self.mesh.kubectl("wait", "--timeout=90s", "--for=jsonpath={.status.acknowledgedAt}", rollout)
        said = json.loads(self.mesh.kubectl("get", rollout, "-o", "json").out)["status"]
        bad, turned, acknowledged = (
            datetime.fromisoformat(said[name]).timestamp() for name in ("badSince", "rolledBackAt", "acknowledgedAt")
        )
        assert acknowledged - turned < 2, said
        assert acknowledged - bad < 2 + windows, said

    def weights(self, rule: int = 0) -> list[int]:
        spec = json.loads(self.mesh.kubectl("get", ROUTE_KINDS[self.name], self.name, "-o", "json").out)["spec"]
        return [
            one.get("weight", 0)
            for one in (spec["http"][rule]["route"] if "http" in spec else spec["rules"][rule]["backendRefs"])
        ]

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
        self.mesh.kubectl("delete", "rollout", self.name, "--ignore-not-found")
        self.mesh.tulle("apply", "--force-conflicts", "-f", "-", stdin=SERVICES[self.name][3])
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
        watched = rolled.mesh.tulle("rollout", "status", "rolled", "-w").out
        rolled.until("Succeeded")
        assert rolled.weights() == [0, 100]
        rolled.mesh.synced()
    assert {one.status for one in found} == {200}, Counter(found)
    assert found[-1].version == "v2"
    for said in (watched, rolled.mesh.tulle("rollout", "history", "rolled").out):
        assert "step 1 of 2: the candidate gets 30%" in said
        assert "step 2 of 2: the candidate gets 60%" in said
    assert rolled.mesh.tulle("rollout", "status", "rolled").code == 0


@pytest.mark.parametrize(
    ("how", "windows", "options", "said"),
    [
        ("fail", 2, (), "needed at least 99%"),
        ("slow", 1, ("--latency", "250"), "needed at most 250 ms"),
    ],
)
def test_a_bad_version_loses_its_traffic(rolled: Rolled, how: str, windows: int, options: tuple[str, ...], said: str) -> None:
    """Broken: users would see the errors of a bad release, or wait for it, until somebody wakes up."""
    with rolled.broken(how), rolled.called() as found:
        rolled.roll("--step", "50", "--max", "50", "--threshold", str(windows), *options)
        message = rolled.until("Failed")
        rolled.took(windows=2.0 * (windows - 1))
        assert rolled.weights() == [100, 0]
        rolled.mesh.synced()
    assert said in message
    assert {one.version for one in found} == {"v1", "v2"}
    candidates = [one for one in found if one.version == "v2"]
    failed = [one for one in found if one.status != 200]
    # Nobody has a failure that is not the candidate's own.
    assert 0 < len(failed) <= len(candidates) // 5 + 1 if how == "fail" else not failed
    assert {one.version for one in failed} <= {"v2"}
    assert rolled.mesh.tulle("rollout", "status", "rolled", check=False).code == 1


def test_a_version_that_crashes_loses_its_traffic_at_once(rolled: Rolled) -> None:
    """Broken: the traffic of a version that is gone would wait for so many failed checks."""
    with rolled.called() as found:
        rolled.roll("--step", "50", "--max", "50", "--interval", "60s")
        rolled.wait("jsonpath={.status.weight}=50")
        rolled.end("v2")
        assert "no healthy instance" in rolled.until("Failed")
        rolled.took()
        assert rolled.weights() == [100, 0]
        rolled.mesh.synced()
        rolled.start("v2")
    # Its share fails until a look later (half a second), and nothing else does.
    failed = [number for number, one in enumerate(found) if one.status != 200]
    assert len(failed) < len(found) / 4
    assert {(200, "v1")} == {one[:2] for one in found[max(failed, default=0) + 1 :][-20:]}


def test_a_control_plane_that_dies_after_the_first_bad_window(rolled: Rolled) -> None:
    """Broken: users would stay with a version that fails, or it would get as many bad windows again."""
    with rolled.broken("fail"), rolled.called() as found:
        rolled.roll("--step", "50", "--max", "50")
        argv = [*TULLE, "rollout", "status", "rolled", "-w"]
        watching = subprocess.Popen(argv, env=rolled.mesh.env, stdout=subprocess.PIPE, text=True)
        assert watching.stdout is not None
        assert watching.stdout.readline().startswith("ROLLOUT")  # it looks before there is nobody to ask
        rolled.wait("jsonpath={.status.failedChecks}=1")
        until("it is told", lambda: "CheckFailed" in rolled.happened("rolled"), 10)  # after it is decided
        os.kill(pid_of(rolled.mesh, "tulle control-plane"), signal.SIGKILL)
        until("it is back", lambda: rolled.mesh.kubectl("get", "rollouts", check=False).code == 0, 60)
        # Who looks on sees it to its end.
        *_before, last = watching.stdout
        assert "every proxy had it" in last
        assert watching.wait(60) == 1
        assert rolled.weights() == [100, 0]
        rolled.mesh.synced()
    assert rolled.happened("rolled") == ["Acknowledged", "CheckFailed", "Progressing", "RolledBack", "Started"]
    assert {one.version for one in found if one.status != 200} == {"v2"}


def test_testers_stay_with_the_candidate_and_nobody_else_has_it(rolled: Rolled) -> None:
    """Broken: an A/B test would be for everybody, or a tester would go to and fro between both versions."""
    rolled.mesh.tulle("apply", "--force-conflicts", "-f", "-", stdin=TESTED)
    rolled.mesh.synced()
    body = rolled.wish("--template", "ab-test", "--checks", "100", "--interval", "1s", "--route", "virtualservice/rolled/testers")
    rolled.mesh.tulle("apply", "-f", "-", stdin=json.dumps(body))
    rolled.wait("jsonpath={.status.previousWeight}=100")
    rolled.mesh.synced()
    with rolled.called() as found:
        rolled.wait("jsonpath={.status.iterations}=2")
    assert set(found) == {Call(200, "v1", tester=False), Call(200, "v2", tester=True)}, Counter(found)
    with rolled.called() as found:
        said = rolled.mesh.tulle("rollout", "promote", "rolled").out
        assert "Succeeded, the candidate has 100%" in said
        rolled.mesh.synced()
    assert {one.status for one in found} == {200}
    assert {one[1:] for one in found[-2:]} == {("v2", False), ("v2", True)}
    assert [rolled.weights(0), rolled.weights(1)] == [[0, 100], [0, 100]]


def test_answers_to_copies_reach_nobody(rolled: Rolled) -> None:
    """Broken: users would have the errors of a version that is only tried with copies of their requests."""
    with rolled.broken("fail"), rolled.called() as found:
        rolled.roll("--mirror", "--threshold", "1")
        message = rolled.until("Failed")
        rolled.mesh.synced()
    assert "request-success-rate: " in message
    assert {one[:2] for one in found} == {(200, "v1")}, Counter(found)
    assert rolled.weights() == [100, 0]


def test_a_grpc_service(mesh: Mesh, tmp_path: Path) -> None:
    """Broken: a bad release of a gRPC service would be promoted, for its errors are no statuses of HTTP; or a good one never."""
    spoken = Rolled(mesh, tmp_path, "spoken")
    try:
        with spoken.broken("fail"), spoken.called() as found:
            spoken.roll("--step", "50", "--max", "50", "--threshold", "1")
            assert "request-success-rate: " in spoken.until("Failed")
            spoken.took()
            mesh.synced()
        assert {one.version for one in found if one.status != 200} == {"v2"}
        with spoken.called() as found:
            assert "Waiting" in mesh.tulle("rollout", "resume", "spoken").out
            spoken.until("Succeeded")
            mesh.synced()
        assert {one.status for one in found} == {200}
        assert found[-1].version == "v2"
        assert spoken.weights() == [0, 100]
    finally:
        mesh.kubectl("delete", "rollout,grpcroute", "spoken", "--ignore-not-found")
        mesh.kubectl("delete", "service", "spoken-one", "spoken-two")
        for version in list(spoken.children):
            spoken.end(version)


def test_nobody_knows_how_it_does(rolled: Rolled) -> None:
    """Broken: a version would keep its traffic while nobody hears how it does."""
    mesh, other = rolled.mesh, yaml.safe_load(OTHER_ROLLOUT)
    metrics = [{"name": "request-success-rate", "thresholdRange": {"min": 99}}]
    other["spec"]["analysis"] = {"interval": "2s", "stepWeights": [40], "metrics": metrics}
    mesh.tulle("apply", "-f", "-", stdin=OTHER)
    role = json.loads(mesh.kubectl("get", "clusterrole", "system:node", "-o", "json").out)
    del role["metadata"]["resourceVersion"]
    paths = [rule for rule in role["rules"] if "/tulle/v1/telemetry/report" in rule.get("nonResourceURLs", ())]
    (rule,) = paths
    try:
        mesh.tulle("apply", "-f", "-", stdin=json.dumps(other))
        mesh.kubectl("wait", "--timeout=60s", "--for=jsonpath={.status.previousWeight}=40", "rollout/other")
        rule["nonResourceURLs"].remove("/tulle/v1/telemetry/report")
        mesh.kubectl("replace", "-f", "-", stdin=json.dumps(role))
        # Meanwhile people do what they do, as they could at night.
        people_have_the_last_word(rolled)
        mesh.kubectl("wait", "--timeout=60s", "--for=jsonpath={.status.phase}=Failed", "rollout/other")
        rolled.took(name="other")
        assert "telemetry has vanished" in mesh.kubectl("get", "rollout", "other", "-o", "jsonpath={.status.message}").out
        route = json.loads(mesh.kubectl("get", "httproute", "other", "-o", "json").out)["spec"]["rules"][0]
        assert [ref.get("weight") for ref in route["backendRefs"]] == [100, 0]
    finally:
        rule["nonResourceURLs"] = sorted({*rule["nonResourceURLs"], "/tulle/v1/telemetry/report"})
        mesh.kubectl("replace", "-f", "-", stdin=json.dumps(role))
        mesh.kubectl("delete", "rollout,httproute", "other", "--ignore-not-found")
        mesh.kubectl("delete", "service", "reviews-one", "reviews-two")


def people_have_the_last_word(rolled: Rolled) -> None:
    """Broken: nobody could stop a release at night, take it back, or go on with it; and deleting it would leave it half done."""
    rolled.roll("--step", "50", "--max", "50", "--interval", "60s")
    wait = ("wait", "--timeout=60s", "rollout/rolled")
    rolled.mesh.kubectl(*wait, "--for=jsonpath={.status.weight}=50")
    assert "every proxy had it" in rolled.mesh.tulle("rollout", "pause", "rolled").out
    rolled.until("Paused")
    rolled.took()
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
    uid = rolled.mesh.kubectl("get", "rollout", "rolled", "-o", "jsonpath={.metadata.uid}").out
    rolled.mesh.kubectl("delete", "rollout", "rolled")
    assert rolled.weights() == [100, 0]
    events = json.loads(rolled.mesh.kubectl("get", "events", "-o", "json").out)["items"]
    said = [one for one in events if one["involvedObject"].get("uid") == uid and one["reason"] == "Acknowledged"]
    assert sum(one["count"] for one in said) == 2, said  # paused, deleted
    assert max(float(one["message"].split()[5]) for one in said) < 2, said


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
        assert {one.status for one in found} == {200}, Counter(found)
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
