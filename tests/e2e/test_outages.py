"""What wakes people at night: the control plane dies, the node agent dies, an Envoy dies, configuration changes under load."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml

from tests.support.corpora import corpora
from tests.support.mesh import TULLE, Mesh, envoy_of, fetch
from tests.support.waiting import until
from tulle.client.api import ApiClient
from tulle.client.node_api import NodeClient
from tulle.node.cgroup import CgroupNetwork
from tulle.node.netns import NetnsNetwork


class Load:
    """Requests through the ingress in the background until the end of the block; `failures` are what was not a 200.

    `seen` counts statuses, `words` say what each failure was.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.seen: Counter[int] = Counter()
        self.words: list[str] = []
        self.over = threading.Event()
        self.thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        while not self.over.is_set():
            replies = fetch(self.url, 20, parallel=5)
            self.seen.update(reply.status for reply in replies)
            wrong = (reply for reply in replies if reply.status != 200)
            self.words += [f"{time.strftime('%X')} {one.status} after {one.seconds:.3f} s: {one.body[:200]}" for one in wrong]

    @property
    def failures(self) -> int:
        """Everything but 200."""
        return sum(count for status, count in self.seen.items() if status != 200)


@contextmanager
def load(mesh: Mesh) -> Iterator[Load]:
    """Keep calling reviews through gateway and productpage."""
    running = Load(f"{mesh.base}/api/v1/products/0/reviews")
    running.thread.start()
    try:
        yield running
    finally:
        running.over.set()
        running.thread.join()


def pid_of(mesh: Mesh, words: str) -> int:
    """The pid of the demo's program whose command line has these words."""
    found = []
    for entry in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{entry}/cmdline", "rb") as file:
                line = file.read().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if words in line and str(mesh.home) in line:
            found.append(int(entry))
    assert found, f"no process has {words!r}"
    return min(found)


@contextmanager
def supervisor_stopped(mesh: Mesh) -> Iterator[None]:
    """The demo's supervisor restarts what dies; while it is stopped, the dead stay dead."""
    pid = mesh.state()["supervisor"]["pid"]
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


@pytest.fixture(scope="module")
def spare() -> Iterator[Callable[..., Mesh]]:
    """A mesh to break, for one test after the other: as it runs, or where it does not (or not with those options) a new one."""
    mesh = Mesh()
    given: tuple[str, ...] = ()

    def up(*options: str) -> Mesh:
        nonlocal given
        assert mesh.refused() == []
        runs = (mesh.home / "run" / "demo").exists()
        if runs and options in ((), given):
            return mesh
        if runs:
            mesh.down()
        mesh.up(*options)
        given = options
        return mesh

    yield up
    mesh.remove()


def reviews_are_red() -> tuple[Path, Path]:
    """Istio's files that send everything to version 3 of reviews, in the order in which they are applied."""
    names = "destination-rule-all.yaml", "virtual-service-reviews-v3.yaml"
    first, second = (corpora(f"istio/samples/bookinfo/networking/{name}") for name in names)
    return first, second


def connected(mesh: Mesh) -> set[str]:
    """Whose proxies have a stream to the control plane; nobody's while it does not answer."""
    ran = mesh.tulle("proxy", "status", "-o", "json", check=False)
    return {one["proxy"] for one in json.loads(ran.out)} if ran.code == 0 else set()


def test_control_plane_killed(spare: Callable[..., Mesh]) -> None:
    """Traffic goes on without it, a workload restarted meanwhile comes up from the cache, and it catches up later."""
    mesh = spare()
    assert "reviews-v1" in mesh.tulle("proxy", "status").out
    echo = run_echo(mesh)
    before = connected(mesh)
    with load(mesh) as running:
        with supervisor_stopped(mesh):
            os.kill(pid_of(mesh, "tulle control-plane"), signal.SIGKILL)
            until("some traffic without a control plane", lambda: sum(running.seen.values()) > 200)
            assert running.failures == 0, running.words
            envoy = envoy_of(mesh, "default/details-v1")
            os.kill(envoy, signal.SIGKILL)
            until("a new Envoy from the cache", lambda: envoy_of(mesh, "default/details-v1") not in (0, envoy))
            url = f"{mesh.base}/api/v1/products/0"
            until("details answers through the new Envoy", lambda: fetch(url)[0].status == 200)
            echo.terminate()
            echo.wait(30)
            echo = run_echo(mesh)  # the whole workload: namespace, sidecar and application, from the cache
        assert running.failures == 0, "details is not on this path"
        until("the control plane is back, and every proxy at it", lambda: connected(mesh) == before, 60)
        mesh.synced()
        for rules in reviews_are_red():
            mesh.apply("tulle", rules)
        bodies = {str("red" in reply.body) for reply in fetch(f"{mesh.base}/api/v1/products/0/reviews", 50)}
        assert bodies == {"True"}, "a change after the outage arrives"
    assert running.failures == 0, running.words
    echo.terminate()
    assert echo.wait(30) == 128 + signal.SIGTERM
    mesh.delete("tulle", *reversed(reviews_are_red()))


def run_echo(mesh: Mesh) -> subprocess.Popen[bytes]:
    """`tulle run` of a little service, until a call from another workload is answered."""
    code = "import http.server as h; h.HTTPServer(('', 8000), h.SimpleHTTPRequestHandler).serve_forever()"
    argv = [*TULLE, "run", "--service", "echo", "--port", "8000:http", "--", sys.executable, "-c", code]
    child = subprocess.Popen(argv, env=mesh.env, cwd="/", stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    call = ("curl", "-sS", "-m", "2", "--fail", "-o", "/dev/null", "http://echo:8000/")
    until("echo answers", lambda: mesh.inside(*call, check=False).code == 0)
    assert child.poll() is None
    return child


def test_node_agent_killed(spare: Callable[..., Mesh]) -> None:
    """The Envoys of a killed agent go on; the next agent takes them over, without a failed request, and changes arrive again."""
    mesh = spare()
    envoy = envoy_of(mesh, "default/reviews-v1")
    assert envoy
    with load(mesh) as running:
        with supervisor_stopped(mesh):
            os.kill(pid_of(mesh, "tulle node"), signal.SIGKILL)
            until("some traffic without an agent", lambda: sum(running.seen.values()) > 200)
        until("an agent again", lambda: envoy_of(mesh, "default/reviews-v1") == envoy, 60)
        mesh.synced()
        for rules in reviews_are_red():
            mesh.apply("tulle", rules)
        until("the change", lambda: "red" in fetch(f"{mesh.base}/api/v1/products/0/reviews")[0].body)
    assert running.failures == 0, running.words


def test_200_changes_of_the_split_under_load(mesh: Mesh) -> None:
    """No request fails while configuration changes, however often."""
    rules = corpora("istio/samples/bookinfo/networking/destination-rule-all.yaml")
    split = yaml.safe_load(corpora("istio/samples/bookinfo/networking/virtual-service-reviews-80-20.yaml").read_text())
    mesh.apply("tulle", rules)
    try:
        with load(mesh) as running:

            async def change() -> None:
                async with ApiClient.from_kubeconfig(mesh.kubeconfig) as api:
                    for turn in range(200):
                        first, second = split["spec"]["http"][0]["route"]
                        first["weight"], second["weight"] = turn % 101, 100 - turn % 101
                        second["destination"]["subset"] = ("v2", "v3")[turn % 2]
                        await api.apply(split, field_manager="test")
                        await asyncio.sleep(0.02)
                    await api.request("GET", "/tulle/v1/synced?timeout=20")

            asyncio.run(change())
        assert sum(running.seen.values()) > 200, running.seen
        assert running.failures == 0, running.words
    finally:
        mesh.tulle("delete", "virtualservice", "reviews")
        mesh.delete("tulle", rules)


def test_a_workload_that_is_rolled_loses_no_request(mesh: Mesh) -> None:
    """An application that is stopped in good order takes nobody's request with it, and comes back."""
    with load(mesh) as running:
        until("load", lambda: sum(running.seen.values()) > 50)
        for _ in range(2):
            before = mesh.state()["pids"]["reviews-v2"]
            os.kill(before, signal.SIGTERM)

            def replaced(old: int = before) -> bool:
                return bool(mesh.state()["pids"]["reviews-v2"] != old)

            until("a new reviews-v2", replaced)
            until("all versions again", lambda: "black" in fetch(f"{mesh.base}/api/v1/products/0/reviews")[0].body)
    assert running.failures == 0, running.words


def test_load_is_what_was_asked_for(spare: Callable[..., Mesh]) -> None:
    """`demo up --load 20`: page views come, about as many as that, with nobody at the keyboard."""
    mesh = spare("--load", "20")

    async def views() -> int:
        async with NodeClient(mesh.home / "run" / "demo" / "node.sock") as node:
            found = (await node.stats("tulle-system/ingressgateway")).splitlines()
        totals = [line for line in found if "_upstream_rq_total{" in line and "productpage" in line]
        return sum(int(line.rpartition(" ")[2]) for line in totals)

    def now() -> int:
        return asyncio.run(views())

    first, began = now(), time.monotonic()
    until("a hundred page views", lambda: now() - first >= 100, 60)
    assert 3.5 < time.monotonic() - began < 12, "100 views at 20 a second are 5 s"


@pytest.mark.parametrize("victim", ["tulle control-plane", "tulle node", "demo_supervisor", "everything"])
def test_down_leaves_nothing(spare: Callable[..., Mesh], victim: str) -> None:
    """Also after a kill -9 of anything: no process, namespace, link, nftables rule, socket or folder stays."""
    mesh = spare()
    instance = instance_of(mesh)
    assert traces(instance)
    if victim == "everything":  # Envoys, applications, what holds the namespaces, all at once
        for entry in sorted(processes_of(mesh)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(entry, signal.SIGKILL)
    else:
        supervisor = mesh.state()["supervisor"]["pid"]
        os.kill(supervisor if victim == "demo_supervisor" else pid_of(mesh, victim), signal.SIGKILL)
    mesh.down()
    assert not (mesh.home / "run" / "demo").exists()
    assert not (mesh.home / "state" / "demo").exists()
    until("no trace is left", lambda: not traces(instance), 30, lambda: sorted(traces(instance)))


def instance_of(mesh: Mesh) -> str:
    """What everything that this demo started carries."""
    with open(f"/proc/{mesh.state()['supervisor']['pid']}/environ", "rb") as file:
        (own,) = (line for line in file.read().split(b"\0") if line.startswith(b"TULLE_INSTANCE="))
    return own.partition(b"=")[2].decode()


def carrying(instance: str) -> set[int]:
    """The processes of an instance."""
    found = set()
    for entry in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError), open(f"/proc/{entry}/environ", "rb") as file:
            if f"TULLE_INSTANCE={instance}".encode() in file.read().split(b"\0"):
                found.add(int(entry))
    return found


def processes_of(mesh: Mesh) -> set[int]:
    """Everything that was started for this demo."""
    found = carrying(instance_of(mesh))
    assert len(found) > 20, "supervisor, two programs, eight Envoys, applications, pause processes"
    return found


def traces(instance: str) -> set[str]:
    """Links, nftables rules and processes of an instance on this machine, on which others may come and go."""
    return {f"process {entry}" for entry in carrying(instance)} | network(instance)


def network(instance: str) -> set[str]:
    """Links of an instance, and what of nftables is its own or was added for it to somebody else's tables."""
    names = (NetnsNetwork(instance, Path(), rootless=False)._bridge, CgroupNetwork(instance, Path()).table)
    found: set[str] = set()
    for argv in (["ip", "-br", "link"], ["nft", "list", "ruleset"]):
        listed = subprocess.run(argv, capture_output=True, text=True, check=False).stdout
        found |= {line for line in listed.splitlines() if any(name in line for name in names)}
    return found


def test_a_second_demo_is_told_what_runs(mesh: Mesh) -> None:
    """Two demos cannot trample each other."""
    second = mesh.tulle("demo", "up", "--detach", check=False)
    assert second.code == 1
    assert str(mesh.ingress_port) in second.err
    assert "tulle demo down" in second.err
    assert fetch(f"{mesh.base}/productpage")[0].status == 200
