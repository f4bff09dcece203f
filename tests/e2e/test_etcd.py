"""Several control planes over an etcd cluster, as processes, with a node, Envoys and traffic; and what happens when parts go."""

from __future__ import annotations

import json
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.mesh import TULLE
from tests.support.redis import needed
from tests.support.several import SERVE, Plane, Several
from tests.support.waiting import until
from tulle.core.model.calls import BOUNDS, Count, Edge

pytestmark = [pytest.mark.e2e, pytest.mark.netns]


@pytest.fixture(scope="module")
def running() -> Iterator[Several]:
    """All of it. Each test leaves it whole."""
    several = Several()
    try:
        several.start()
        several.start_node()
        for service in ("echo", "caller"):
            several.here.run(service, *SERVE)
        until("the first call", lambda: several.call() == "200")
        yield several
    finally:
        print(several.logs())
        several.close()


def test_two_control_planes_are_one(running: Several) -> None:
    """Whom one asks must not matter: not for what is written, nor for tokens, proxies, the leader or the root."""
    a, b = running.a, running.b
    assert set(a.proxies()) == {"default/caller", "default/echo"}, "the node joined at b, with a token of a, and listens to a"
    assert b.proxies() == {}
    assert running.turn(b, 1)
    written = int(b.kubectl("get", "vs", "echo", "-o", "jsonpath={.metadata.resourceVersion}").stdout)
    assert "SYNCED" in b.tulle("proxy", "status").stdout
    assert b.tulle("wait", "--for=synced", "--timeout", "20s").returncode == 0
    assert running.at(1), "wait at b waits for the proxies of a"
    assert int(a.kubectl("get", "vs", "echo", "-o", "jsonpath={.metadata.resourceVersion}").stdout) >= written
    statuses = [plane.ask("/tulle/v1/status") for plane in (a, b)]
    assert [status["name"] for status in statuses] == ["a", "b"]
    assert statuses[0]["leader"] == statuses[1]["leader"] != ""
    assert [one["name"] for one in statuses[0]["controlPlanes"]] == ["a", "b"]
    shown = b.kubectl("get", "lease", "-n", "tulle-system", "tulle-controllers", "-o", "jsonpath={.spec.holderIdentity}")
    assert shown.stdout == statuses[0]["leader"]
    assert f"one control plane leads: {shown.stdout}, of a, b" in b.tulle("check").stdout
    # Conditions that wait for proxies are written by the leader, whoever has the proxies.
    b.kubectl("wait", "vs/echo", "--for=condition=Reconciled", "--timeout=20s")
    config = yaml.safe_load(a.kubeconfig.read_text())
    assert {one["name"] for one in config["contexts"]} == {"tulle", "tulle-b"}
    assert a.kubectl("--context", "tulle-b", "get", "vs", "echo").returncode == 0


def test_what_is_seen_is_whole_wherever_one_asks(running: Several) -> None:
    """Broken: who asks the other control plane would see a mesh without calls, since nodes tell only one of them."""
    for _ in range(5):
        assert running.call("/tcp") == "200"
    planes = (running.a, running.b)

    def seen() -> list[tuple[object, ...]]:
        found: list[tuple[object, ...]] = []
        for plane in planes:
            figures = plane.ask("/tulle/v1/telemetry/figures?by=edge&seconds=600&namespace=default")["rows"]
            graph = plane.ask("/tulle/v1/telemetry/graph?level=workload&seconds=600&namespace=default")["links"]
            calls = plane.ask("/tulle/v1/telemetry/recorded?seconds=600")["rows"]
            traces = plane.ask("/tulle/v1/telemetry/traces?seconds=600")["traces"]
            uses = plane.ask("/tulle/v1/telemetry/proxies")["proxies"]
            found.append(
                (
                    [(row["key"], row["figures"]["calls"]) for row in figures],
                    [(one["source"], one["target"], one["figures"]["calls"]) for one in graph],
                    sorted((shape[0], shape[7], record[0][0]) for shape, record in calls),
                    sorted(one["trace"] for one in traces),
                    [one["proxy"] for one in uses],
                )
            )
        return found

    def whole() -> bool:
        one, other = seen()
        return one == other and all(one)

    until("both show the same calls, records, traces and proxies", whole)
    here = [plane.ask("/tulle/v1/telemetry/recorded?here=true&seconds=600")["rows"] for plane in planes]
    assert sorted(map(bool, here)) == [False, True], "only one of them was told"
    assert "default/echo" in running.a.tulle("stat").stdout
    # These calls' report may come after that of an earlier one, of which both are whole already.
    until("both tell of these calls", lambda: all("/tcp" in plane.tulle("calls", "--to", "echo").stdout for plane in planes))


# Two versions that nobody runs here; who calls them is told by reports alone.
ROLLED = """
apiVersion: v1
kind: Service
metadata: {name: rolled, namespace: default}
spec: {selector: {app: rolled}, ports: [{name: http, port: 80}]}
---
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {name: rolled-v1, namespace: default}
spec: {address: 10.99.0.1, labels: {app: rolled, version: v1}}
---
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {name: rolled-v2, namespace: default}
spec: {address: 10.99.0.2, labels: {app: rolled, version: v2}}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: rolled, namespace: default}
spec: {host: rolled, subsets: [{name: v1, labels: {version: v1}}, {name: v2, labels: {version: v2}}]}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: rolled, namespace: default}
spec:
  hosts: [rolled]
  http:
  - route:
    - {destination: {host: rolled, subset: v1}, weight: 100}
    - {destination: {host: rolled, subset: v2}, weight: 0}
---
apiVersion: tulle.dev/v1alpha1
kind: Rollout
metadata: {name: rolled, namespace: default}
spec:
  targetRef: {name: rolled}
  stable: {version: v1}
  candidate: {version: v2}
  routeRef: {group: networking.istio.io, kind: VirtualService, name: rolled}
  analysis:
    interval: 3s
    threshold: 2
    stepWeights: [10, 50, 60, 70, 80, 90]
    metrics: [{name: request-success-rate, thresholdRange: {min: 99}}]
"""


@contextmanager
def reported(plane: Plane, code: str) -> Iterator[None]:
    """A node tells a control plane of calls to the candidate all the time."""
    over = threading.Event()
    edge = Edge("source", destination_version="v2", service="rolled.default.svc.cluster.local", code=code)

    def tell() -> None:
        while not over.wait(0.5):
            plane.report((edge, Count(20, 20.0, (20,) * len(BOUNDS))))

    telling = threading.Thread(target=tell, daemon=True)
    telling.start()
    try:
        yield
    finally:
        over.set()
        telling.join(30)


def test_a_rollout_is_judged_by_what_all_nodes_report(running: Several) -> None:
    """Broken: the leader would know nothing of callers at other control planes' nodes; or the next leader would repeat a step."""
    until("somebody leads", lambda: running.a.leads or running.b.leads, 40)
    leader, other = (running.a, running.b) if running.a.leads else (running.b, running.a)

    def status(name: str) -> object:
        found = other.ask("/apis/tulle.dev/v1alpha1/namespaces/default/rollouts/rolled")
        return found and found.get("status", {}).get(name)

    assert leader.kubectl("apply", "-f", "-", stdin=ROLLED).returncode == 0
    uid = other.kubectl("get", "rollout", "rolled", "-o", "jsonpath={.metadata.uid}").stdout
    try:
        with reported(other, "200"):
            until("the second step, by what the other one was told", lambda: status("previousWeight") == 50, 30)
            assert leader.stop() == 0
            until("the other one leads", lambda: other.leads, 10)
            assert status("weight") in (50, 60, 70, 80)
        leader.start()
        assert other.leads
        with reported(leader, "503"):
            until("it goes back, by what the one was told that does not lead", lambda: status("phase") == "Failed", 30)
        until("every proxy has it", lambda: status("acknowledgedAt"), 10)
        found = json.loads(other.kubectl("get", "events", "-o", "json").stdout)["items"]
        said = {one["message"]: one["count"] for one in found if one["involvedObject"].get("uid") == uid}
        steps = [message for message in sorted(said) if message.startswith("step ")]
        assert [message[:11] for message in steps] == [f"step {number + 1} of 6" for number in range(len(steps))]
        assert len(steps) >= 2
        assert {said[step] for step in steps} == {1}
        route = json.loads(other.kubectl("get", "virtualservice", "rolled", "-o", "json").stdout)["spec"]["http"][0]["route"]
        assert [one["weight"] for one in route] == [100, 0]
    finally:
        other.kubectl("delete", "-f", "-", stdin=ROLLED)


def test_the_root_rotates(running: Several) -> None:
    """Broken: a control plane would sign on with a root that another has retired, or cut off whom it has not seen itself."""

    def step(plane: Plane, name: str) -> None:
        until(f"{name} is not refused", lambda: plane.tulle("ca", "rotate", name, check=False).returncode == 0, 60)

    def roots(plane: Plane) -> list[tuple[str, str]]:
        return [(one["slot"], one["fingerprint"]) for one in plane.ask("/tulle/v1/ca")["issuers"]]

    ((_slot, old),) = roots(running.a)
    with running.load() as seen:
        step(running.a, "prepare")
        until("both have it", lambda: roots(running.a) == roots(running.b))
        step(running.b, "activate")
        until("both sign with it", lambda: roots(running.a) == roots(running.b))
        step(running.a, "retire")
        until("both trust it alone", lambda: roots(running.a) == roots(running.b))
        ((slot, new),) = roots(running.a)
        assert (slot, new != old) == ("active", True)
        assert running.b.stop() == 0
        running.b.start()
        assert roots(running.b) == [("active", new)]
        assert running.turn(running.b, 6)
        until("a change reaches the proxies", lambda: running.at(6), 30)
    assert set(seen) == {"200"}, seen


def test_a_member_of_etcd_dies(running: Several) -> None:
    """The leader of etcd itself goes: changes go on after a moment, traffic does not notice."""
    with running.load() as seen:
        leader = running.etcd.leader()
        leader.kill()
        until("a change", lambda: running.turn(running.a, 2), 30)
        until("it reaches the proxies", lambda: running.at(2), 30)
        leader.start(running.etcd.members)
        running.etcd.wait()
        until("another change", lambda: running.turn(running.b, 3), 30)
        until("it reaches the proxies", lambda: running.at(3), 30)
    assert set(seen) == {"200"}, seen


def test_etcd_is_cut_off(running: Several) -> None:
    """No member answers, with all connections open: traffic goes on, people are told, and all of it mends itself."""
    with running.load() as seen:
        for member in running.etcd.members:
            member.pause()
        try:
            refused = running.a.kubectl("create", "configmap", "late")
            assert "etcd does not answer" in refused.stderr
            assert "does not answer" in running.a.ready()
            # The proxies keep their control plane, and an Envoy that starts anew gets its configuration.
            assert set(running.a.proxies() or running.b.proxies()) == {"default/caller", "default/echo"}
            late = running.b
            late.kill()
            late.start(wait=False)
            until("it waits, and says so", lambda: "waiting for the store" in late.log.read_text(), 30)
            assert late.ready() == ""
            assert late.stop() == 0, "it can be stopped while it waits"
            late.start(wait=False)
        finally:
            for member in running.etcd.members:
                member.resume()
        for plane in (running.a, running.b):
            until(f"{plane.name} is ready by itself", lambda it=plane: it.ready() == "ok", 30)  # type: ignore[misc]
        until("a change", lambda: running.turn(running.a, 4), 30)
        until("it reaches the proxies", lambda: running.at(4), 30)
        until("somebody leads", lambda: running.a.leads or running.b.leads, 40)
    assert set(seen) == {"200"}, seen


def test_a_control_plane_dies(running: Several) -> None:
    """The one that leads and has the proxies is killed: they move to the other one and are not sent anew what they have."""
    until("somebody leads", lambda: running.a.leads or running.b.leads, 40)
    first, second = (running.a, running.b) if running.a.proxies() else (running.b, running.a)
    if not first.leads:  # let the one that has the proxies lead
        assert second.stop() == 0
        until("the other one leads at once", lambda: first.leads, 10)
        second.start()
    proxies = set(first.proxies())
    assert len(proxies) == 2
    with running.load() as seen:
        began = time.monotonic()
        first.kill()
        until("the proxies have moved", lambda: set(second.proxies()) == proxies, 20)
        sent = {one["type_url"]: one["sent"] for proxy in second.proxies().values() for one in proxy["types"]}
        assert set(sent.values()) == {0}, "what they have they are not sent again"
        until("a change", lambda: running.turn(second, 5), 20)
        until("it reaches the proxies", lambda: running.at(5), 20)
        assert "no control plane answers" not in second.tulle("get", "vs").stderr
        with suppress(AssertionError):
            until(
                "the kubeconfig of the dead one leads to the other",
                lambda: first.tulle("get", "vs", check=False).returncode == 0,
                10,
            )
        assert first.tulle("get", "vs").returncode == 0
        until("the controllers have moved", lambda: second.leads, 30)
        assert time.monotonic() - began < 40
        first.start()
        assert not first.leads
    assert set(seen) == {"200"}, seen
    # Whoever is asked to stop hands over at once.
    assert second.stop() == 0
    until("the next one leads at once", lambda: first.leads, 5)
    second.start()


LIMIT, FEW = 60, 20
PASSED, REFUSED, FAILED = "404", "429", "503"  # the application has nothing under these paths
LIMITED = f"""
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: echo, namespace: default}}
spec:
  hosts: [echo]
  http:
  - match: [{{uri: {{prefix: /shares}}}}]
    route: [{{destination: {{host: echo, subset: v2}}}}]
  - route: [{{destination: {{host: echo}}}}]
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {{name: echo, namespace: default}}
spec: {{host: echo, subsets: [{{name: v2, labels: {{version: v2}}}}]}}
---
apiVersion: tulle.dev/v1alpha1
kind: RateLimit
metadata: {{name: echo, namespace: default}}
spec:
  targetRefs: [{{kind: Service, name: echo}}]
  rules:
  - {{name: shares, match: [{{path: {{value: /shares}}}}], limit: {LIMIT}, scope: global}}
  - {{name: exact, match: [{{path: {{value: /exact}}}}], limit: {FEW}, scope: global, precision: exact, onFailure: deny}}
"""


class Load:
    """Five times a limit from `caller`, for so many seconds; and what came of it."""

    def __init__(self, several: Several, path: str, limit: int, seconds: int) -> None:
        self.seconds, self.log = seconds, Path(several.home, f"load{path.replace('/', '-')}")
        argv = ["h2load", "--h1", "-c", "4", "--rps", str(5 * limit / 4), "-D", str(seconds), f"--log-file={self.log}"]
        argv = [*TULLE, "exec", "caller", "--", *argv, f"http://echo:8000{path}"]
        self.child = subprocess.Popen(argv, env=several.here.env, stdout=subprocess.DEVNULL)

    def answers(self, wanted: str) -> list[int]:
        """How many had that status in each second from its beginning on, once it is over."""
        assert self.child.wait(self.seconds + 60) == 0
        rows = [line.split() for line in self.log.read_text().splitlines()]
        began = min(int(row[0]) for row in rows)
        seconds = [0] * self.seconds
        for at, status, took in rows:
            second = (int(at) + int(took) - began) // 1_000_000
            if status == wanted and second < self.seconds:
                seconds[second] += 1
        return seconds


@needed
def test_limits_are_one_whoever_counts(running: Several) -> None:
    """Broken: two control planes would give shares, or count, each for itself; while one goes there would be no limit, or nothing
    but refusals.
    """
    until("somebody leads", lambda: running.a.leads or running.b.leads, 40)
    one, other = (running.a, running.b) if running.a.proxies() else (running.b, running.a)
    running.there.start(one.tulle("token", "create").stdout.strip(), other, one)
    running.there.run("echo", *SERVE, version="v2")
    until("a proxy is connected to each", lambda: set(other.proxies()) == {"default/echo-v2"}, 30)
    assert set(one.proxies()) == {"default/caller", "default/echo"}
    assert one.kubectl("apply", "-f", "-", stdin=LIMITED).returncode == 0
    one.tulle("wait", "--for=synced", "--timeout", "30s")

    def rules(plane: Plane) -> dict[str, Any]:
        found = json.loads(plane.tulle("ratelimit", "status", "echo", "-o", "json").stdout)["rules"]
        return {rule["rule"].rpartition("/")[2]: rule for rule in found}

    def shares(plane: Plane) -> dict[str, float]:
        return {proxy["proxy"]: proxy["share"] for proxy in rules(plane)["shares"]["proxies"]}

    loads = [Load(running, "/shares", LIMIT, 20), Load(running, "/exact", FEW, 20)]
    until("the share is where the load is", lambda: all(shares(plane)["default/echo-v2"] > 0.85 for plane in (one, other)), 15)
    until("both give the same", lambda: shares(one) == shares(other), 15)
    until("exact limits are refused for", lambda: rules(one)["exact"]["refused"] > 0, 15)
    leader, next_one = (one, other) if one.leads else (other, one)
    leader.kill()
    until("the proxies have moved", lambda: len(next_one.proxies()) == 3, 20)
    until("the shares are where the load is", lambda: shares(next_one)["default/echo-v2"] > 0.85, 15)
    shared, exact = (load.answers(PASSED) for load in loads)
    # Never more than a full bucket and what came into it by then, whoever weighs or counts; answers may come late, not early.
    for limit, passed in ((LIMIT, shared), (FEW, exact)):
        for second in range(len(passed)):
            assert sum(passed[: second + 1]) <= limit * (second + 2) * 1.01, (limit, passed)
    # And never nothing but refusals: half of the limit at least, of what was asked for in three seconds.
    refused = loads[0].answers(REFUSED)
    for at in range(3, len(shared) - 2):
        through, over = sum(shared[at : at + 3]), sum(refused[at : at + 3])
        assert through >= min(LIMIT * 3, through + over) * 0.5, (at, shared, refused)
    # An answer that comes too late counts, and is a 503.
    late = loads[1].answers(FAILED)
    assert sum(exact[-5:]) > 0, (exact, late)
    assert sum(exact[-5:]) + sum(late[-5:]) >= FEW * 5 * 0.9, (exact, late)
    leader.start()
