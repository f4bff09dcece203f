"""The node agent through everything that happens to it: a real control plane, real Envoys, real namespaces, `tulle run`."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest

from tests.support import commands
from tests.support.mesh import TULLE, free_port, refusals
from tests.support.waiting import until
from tulle.client.node_api import NodeClient, Port, WorkloadSpec, WorkloadStatus
from tulle.kit.errors import TulleError
from tulle.node import process

pytestmark = [pytest.mark.e2e, pytest.mark.netns]

T = TypeVar("T")
ECHO = WorkloadSpec(name="echo-v1", service="echo", version="v1", service_account="echo", ports=(Port(8000, "http"),))
SERVE = [sys.executable, "-m", "http.server", "8000", "--directory", "/proc/self/net"]


class Host:
    """A control plane and a node agent in folders of their own. Both may be killed and started again."""

    def __init__(self, lifetime: str = "24h") -> None:
        self.home = Path(tempfile.mkdtemp(prefix="tn-"))
        self.instance = f"test-{self.home.name}"
        self.api, self.xds = f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}"
        self.lifetime = lifetime
        self.socket = self.home / "run" / "node.sock"
        self.env = {
            **{name: value for name, value in os.environ.items() if not name.startswith("TULLE_")},
            "TULLE_STATE_DIR": str(self.home / "state"),
            "TULLE_RUNTIME_DIR": str(self.home / "run"),
            "TULLE_NODE_SOCKET": str(self.socket),
            "TULLE_KUBECONFIG": str(self.home / "state" / "kubeconfig"),
        }
        self.control_plane: subprocess.Popen[bytes] | None = None
        self.agent: subprocess.Popen[bytes] | None = None

    def start_control_plane(self) -> None:
        argv = ["control-plane", "--api-address", self.api, "--xds-address", self.xds]
        self.control_plane = self._spawn([*argv, "--certificate-lifetime", self.lifetime], "control-plane.log")
        until("the control plane answers", lambda: self.run("get", "namespaces").returncode == 0)

    def start_agent(self) -> None:
        token = self.home / "token"
        if not token.exists():
            token.write_text(self.run("token", "create").stdout)
        argv = ["node", "--name=here", f"--api-address={self.api}", f"--xds-address={self.xds}"]
        self.agent = self._spawn([*argv, f"--token-file={token}", f"--instance={self.instance}"], "node.log")
        until("the agent answers", lambda: self.ask(lambda node: node.status()) is not None)

    def _spawn(self, argv: list[str], log: str) -> subprocess.Popen[bytes]:
        with (self.home / log).open("ab") as file:
            return subprocess.Popen([*TULLE, *argv], env=self.env, stdout=file, stderr=file)

    def kill(self, what: subprocess.Popen[bytes] | None) -> None:
        assert what is not None
        what.kill()
        what.wait()

    def run(self, *argv: str) -> subprocess.CompletedProcess[str]:
        return commands.tulle(argv, self.env, timeout=60).completed

    def start(self, spec: WorkloadSpec, *argv: str) -> subprocess.Popen[str]:
        """`tulle run`, in the background."""
        words = ["run", "--service", spec.service, "--version", spec.version, "--service-account", spec.service_account]
        for port in spec.ports:
            words += ["--port", f"{port.number}:{port.protocol}"]
        return subprocess.Popen(
            [*TULLE, *words, "--", *argv], env=self.env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )

    def ask(self, question: Callable[[NodeClient], Coroutine[Any, Any, T]]) -> T | None:
        """Ask the agent; None where it does not answer."""

        async def asking() -> T:
            async with NodeClient(self.socket) as node:
                return await question(node)

        try:
            return asyncio.run(asking())
        except TulleError:
            return None

    def workload(self, id_: str = ECHO.id) -> WorkloadStatus | None:
        return self.ask(lambda node: node.workload(id_))

    def ready(self, id_: str = ECHO.id) -> WorkloadStatus:
        """The workload, once its application listens and its entry says so: its callers know as soon as they are synced."""

        def look() -> bool:
            status = self.workload(id_)
            return status is not None and status.ready and status.state == "ready"

        until(f"{id_} is ready", look)
        status = self.workload(id_)
        assert status is not None
        return status

    def call(self, workload: str = ECHO.id, url: str = "http://echo:8000/dev") -> str:
        """The status of a request from inside a workload."""
        return self.run("exec", workload, "--", "curl", "-s", "-m", "10", "-o", "/dev/null", "-w", "%{http_code}", url).stdout

    def processes(self) -> list[int]:
        return [it.pid for it in process.carrying(self.instance)]

    def logs(self) -> str:
        return "\n".join(f"--- {file.name}\n{file.read_text()[-3000:]}" for file in sorted(self.home.glob("*.log")))

    def close(self) -> None:
        if self.agent is not None and self.agent.poll() is None:
            self.ask(lambda node: node.shutdown(teardown=True))
            self.agent.terminate()
            self.agent.wait(30)
        if self.control_plane is not None and self.control_plane.poll() is None:
            self.control_plane.terminate()
            self.control_plane.wait(30)
        asyncio.run(process.end(process.carrying(self.instance), grace=2))
        from tulle.node.network import teardown_instance

        asyncio.run(teardown_instance(self.instance, self.home / "run" / "node"))
        refused = refusals(self.home)
        shutil.rmtree(self.home, ignore_errors=True)
        assert refused == []


@pytest.fixture
def host(request: pytest.FixtureRequest) -> Iterator[Host]:
    """One for each test, for they break things; the parameter is the lifetime of certificates."""
    made = Host(lifetime=getattr(request, "param", "24h"))
    try:
        made.start_control_plane()
        made.start_agent()
        yield made
        print(made.logs())
    finally:
        made.close()


def test_comes_up_from_the_cache_without_a_control_plane(host: Host) -> None:
    """A process could not be restarted while the control plane is down; or one that never ran would hang silently."""
    first = host.start(ECHO, *SERVE)
    host.ready()
    assert host.call() == "200"
    host.kill(host.control_plane)
    first.send_signal(signal.SIGKILL)
    first.wait()
    until("the workload is gone with its owner", lambda: host.workload() is None)
    second = host.start(ECHO, *SERVE)
    until("it comes up from the cache", lambda: (it := host.workload()) is not None and it.state == "ready")
    status = host.workload()
    assert status is not None
    assert not status.registered
    assert "no control plane answers" in status.error
    inside = ("curl", "-s", "-m", "5", "-o", "/dev/null", "-w", "%{http_code}", "http://127.0.0.1:8000/")
    until("the application runs", lambda: host.run("exec", ECHO.id, "--", *inside).stdout == "200", 30)
    status = host.workload()
    assert status is not None
    assert not status.ready, "nobody has been told of it"

    other = host.run("run", "--service", "never-seen", "--", "true")
    assert other.returncode == 1
    assert "no control plane answers" in other.stderr
    assert "has not run on this node before" in other.stderr

    host.start_control_plane()
    assert host.ready().registered, "the registration catches up"
    until("and is called", lambda: host.call() == "200")
    second.terminate()
    assert second.wait(30) == 128 + signal.SIGTERM
    assert "echo" not in host.run("get", "workloadentries").stdout


def test_a_removal_is_told_when_the_control_plane_returns(host: Host) -> None:
    """A workload that ended during an outage would be called for ever after it."""
    app = host.start(ECHO, *SERVE)
    host.ready()
    host.kill(host.control_plane)
    app.terminate()
    assert app.wait(60) == 128 + signal.SIGTERM
    assert host.workload() is None
    host.start_control_plane()
    until("its entry is deleted", lambda: "echo" not in host.run("get", "workloadentries").stdout)


def test_the_agent_is_killed_and_returns(host: Host) -> None:
    """An agent that dies would take applications with it, or forget them; its successor would start second sidecars."""
    app = host.start(ECHO, *SERVE)
    before = host.ready()
    host.kill(host.agent)
    assert app.poll() is None
    host.start_agent()
    after = host.ready()
    assert (after.envoy_pid, after.address, after.restarts) == (before.envoy_pid, before.address, 0)
    os.kill(after.envoy_pid, signal.SIGKILL)
    until("a new Envoy", lambda: (it := host.workload()) is not None and it.state == "ready" and it.envoy_pid != before.envoy_pid)
    assert host.call() == "200"
    host.kill(host.agent)
    app.terminate()
    assert app.wait(60) == 128 + signal.SIGTERM
    host.start_agent()
    until("what ended meanwhile is cleared away", lambda: host.workload() is None)
    until("also in the mesh", lambda: "echo" not in host.run("get", "workloadentries").stdout)


def test_no_request_fails_while_the_agent_is_away(host: Host) -> None:
    """Upgrading the agent would cost requests: names would not resolve, or a returned agent would disturb its Envoys."""
    app = host.start(ECHO, *SERVE)
    host.ready()
    load = (
        "import urllib.request\n"
        "n = 0\n"
        "while True:\n"
        "    urllib.request.urlopen('http://echo:8000/dev', timeout=10).read(); n += 1\n"
        "    if n % 20 == 0: print(n, flush=True)\n"
    )
    argv = [*TULLE, "exec", ECHO.id, "--", sys.executable, "-c", load]
    caller = subprocess.Popen(argv, env=host.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert caller.stdout is not None

    def progress(lines: int) -> None:
        assert caller.stdout is not None
        for _ in range(lines):
            line = caller.stdout.readline()
            assert line, caller.communicate()[1]

    try:
        progress(3)
        host.kill(host.agent)
        progress(5)
        host.start_agent()
        host.ready()
        progress(5)
        assert caller.poll() is None
    finally:
        caller.kill()
        caller.communicate()
        app.terminate()
        app.wait(30)


@pytest.mark.parametrize("host", ["12s"], indirect=True)
def test_certificates_rotate_without_a_failed_request(host: Host) -> None:
    """Connections would fail when certificates expire, or when they are replaced."""
    app = host.start(ECHO, *SERVE)
    before = host.ready()
    deadline, seen, count = time.monotonic() + 30, {before.expires}, 0
    while time.monotonic() < deadline:
        assert host.call() == "200", host.logs()
        count += 1
        status = host.workload()
        assert status is not None
        assert status.expires > time.time(), "it is renewed before it expires"
        seen.add(status.expires)
    assert len(seen) >= 3, "it was renewed"
    app.terminate()
    app.wait(30)


def test_an_owner_that_is_killed_leaves_nothing(host: Host) -> None:
    """A `tulle run` that is killed would leave its application, its sidecar and its entry in the mesh."""
    idle = set(host.processes())
    app = host.start(ECHO, *SERVE)
    host.ready()
    assert len(set(host.processes()) - idle) >= 2
    app.kill()
    app.wait()
    until("the workload is gone", lambda: host.workload() is None)
    until("the entry is gone", lambda: "echo" not in host.run("get", "workloadentries,services").stdout)
    spare = {it.pid for it in process.carrying(host.instance) if b"tulle.node.resolver" in cmdline(it.pid)}
    until("no process is left", lambda: set(host.processes()) <= idle | spare)


def cmdline(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def test_what_the_local_api_shows(host: Host) -> None:
    """A private key would leave the node, other users could run commands in workloads, or a sidecar be a black box."""
    app = host.start(ECHO, *SERVE)
    status = host.ready()
    assert host.socket.stat().st_mode & 0o777 == 0o600
    assert host.socket.parent.stat().st_mode & 0o777 == 0o711, (
        "passed through on the way to the Workload API, and not looked into"
    )
    dump = host.ask(lambda node: node.config_dump(ECHO.id))
    assert dump is not None
    assert "BEGIN CERTIFICATE" in str(dump) or "certificate_chain" in str(dump)
    assert "PRIVATE KEY" not in str(dump)
    assert status.identity == "spiffe://cluster.local/ns/default/sa/echo"
    certs = host.ask(lambda node: node.certs(ECHO.id))
    assert status.identity in str(certs)
    names = [it["name"] for it in (host.ask(lambda node: node.clusters(ECHO.id)) or {})["cluster_statuses"]]
    assert "outbound|8000||echo.default.svc.cluster.local" in names
    taken = host.run("run", "--service", "echo", "--version", "v1", "--port", "8000:http", "--", "true")
    assert taken.returncode == 1
    assert "default/echo-v1 runs here already" in taken.stderr
    bad = host.run("run", "--service", "echo", "--version", "V_1", "--", "true")
    assert bad.returncode == 65
    assert "name: found 'echo-V_1', needed" in bad.stderr
    for file in (host.home / "state" / "node").rglob("*"):
        assert file.stat().st_mode & 0o077 == 0, f"{file} can be read by others"
    app.terminate()
    app.wait(30)


def test_a_stopped_agent_leaves_its_workloads_and_a_torn_down_one_does_not(host: Host) -> None:
    """An upgrade of the agent would stop all applications' sidecars, or taking a node out of service would leave them."""
    app = host.start(ECHO, *SERVE)
    before = host.ready()
    assert host.agent is not None
    host.agent.terminate()
    assert host.agent.wait(30) == 0
    assert process.process(before.envoy_pid) is not None
    host.start_agent()
    assert host.ready().envoy_pid == before.envoy_pid
    host.ask(lambda node: node.shutdown(teardown=True))
    assert host.agent.wait(30) == 0
    assert app.wait(30) == 128 + signal.SIGTERM
    until("nothing is left", lambda: not host.processes())
