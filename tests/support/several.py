"""Several real control planes over a real etcd cluster of three, nodes that know them all, and a Redis that all count in."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import shutil
import ssl
import subprocess
import sys
import tempfile
import threading
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from tests.support import commands
from tests.support.etcd import EtcdCluster
from tests.support.mesh import TULLE, free_port, kubectl_binary, refusals
from tests.support.redis import RedisServer
from tests.support.waiting import until
from tulle.client.api import ApiClient
from tulle.core.model.calls import Count, Edge, Report
from tulle.kit.errors import TulleError
from tulle.node import process
from tulle.node.network import teardown_instance

# Some 40 requests a second, each on a connection of its own, until nobody reads their statuses.
_ASK = """
import http.client, time
while True:
    one = http.client.HTTPConnection("echo", 8000, timeout=5)
    try:
        one.request("GET", "/")
        answer = one.getresponse()
        answer.read()
        status = str(answer.status)
    except (OSError, http.client.HTTPException):
        status = "000"
    one.close()
    print(status, flush=True)
    time.sleep(0.02)
"""


class Plane:
    """One control plane: a process with folders and ports of its own."""

    def __init__(self, mesh: Several, name: str) -> None:
        self.mesh, self.name = mesh, name
        self.home = mesh.home / name
        self.api, self.xds = f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}"
        self.kubeconfig = self.home / "kubeconfig"
        self.log = mesh.home / f"{name}.log"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, *, wait: bool = True, **more: str) -> None:
        """Start it; with `wait` return when it answers."""
        env = {**self.mesh.env, "TULLE_STATE_DIR": str(self.home), **more}
        argv = ["control-plane", "--name", self.name, "--api-address", self.api, "--xds-address", self.xds]
        argv += ["--store", self.mesh.etcd.url(), "--encryption-key-file", str(self.mesh.key)]
        with self.log.open("ab") as file:
            self.process = subprocess.Popen([*TULLE, *argv], env=env, stdout=file, stderr=file)
        if wait:
            until(f"control plane {self.name} is ready", lambda: self.ready() == "ok")

    def kill(self) -> None:
        """kill -9."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def stop(self) -> int:
        """SIGTERM; its exit status."""
        assert self.process is not None
        self.process.terminate()
        return self.process.wait(30)

    def ready(self) -> str:
        """What `/readyz` says; "" where nobody answers."""
        unverified = ssl.create_default_context()
        unverified.check_hostname, unverified.verify_mode = False, ssl.CERT_NONE
        try:
            with urllib.request.urlopen(f"https://{self.api}/readyz", timeout=5, context=unverified) as answer:
                return str(answer.read().decode())
        except urllib.error.HTTPError as error:
            return error.read().decode()
        except OSError:
            return ""

    def tulle(self, *argv: str, check: bool = True, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
        """A command as this control plane's administrator."""
        env = {**self.mesh.env, "TULLE_KUBECONFIG": str(self.kubeconfig)}
        done = commands.tulle(argv, env, stdin=stdin, timeout=60).completed
        assert not check or done.returncode == 0, f"{argv}: {done.stdout}{done.stderr}"
        return done

    def kubectl(self, *argv: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
        """The real kubectl on this control plane."""
        env = {**self.mesh.env, "KUBECONFIG": str(self.kubeconfig), "KUBECACHEDIR": str(self.home / "kube")}
        argv = (kubectl_binary(), "--cache-dir", str(self.home / "kube"), *argv)
        return subprocess.run(argv, env=env, capture_output=True, text=True, check=False, timeout=60, input=stdin)

    def ask(self, path: str) -> Any:
        """An answer of this control plane, and of no other; None where it gives none."""

        async def asking() -> Any:
            async with ApiClient.from_kubeconfig(self.kubeconfig) as api:
                api.servers = api.servers[:1]
                return await api.request("GET", path, timeout=20)

        try:
            return asyncio.run(asking())
        except TulleError:
            return None

    def report(self, *rows: tuple[Edge, Count]) -> None:
        """What a node tells this control plane, and no other: what its proxies have counted."""
        body = json.loads(msgspec.json.encode(Report("elsewhere", rows)))

        async def telling() -> None:
            async with ApiClient.from_kubeconfig(self.kubeconfig) as api:
                api.servers = api.servers[:1]
                await api.request("POST", "/tulle/v1/telemetry/report", body=body, timeout=20)

        asyncio.run(telling())

    @property
    def leads(self) -> bool:
        """Whether it says so itself."""
        status = self.ask("/tulle/v1/status")
        return status is not None and status["leader"] == self.name

    def proxies(self) -> Mapping[str, Any]:
        """The proxies that are connected to it."""
        answer = self.ask("/tulle/v1/proxies?here=true")
        return {one["proxy"]: one for one in answer["proxies"]} if answer else {}


class Node:
    """A node agent: a process with folders and a network of its own."""

    def __init__(self, mesh: Several, name: str) -> None:
        self.mesh, self.name = mesh, name
        self.instance = f"test-{mesh.home.name}-{name}"
        self.runtime = mesh.home / f"run-{name}"
        self.env = {**mesh.env, "TULLE_RUNTIME_DIR": str(self.runtime), "TULLE_NODE_SOCKET": str(self.runtime / "node.sock")}
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, token: str, first: Plane, second: Plane) -> None:
        """It joins at `second` with a token, and is sent its configuration by `first`."""
        argv = ["node", f"--name={self.name}", f"--instance={self.instance}", f"--token={token}"]
        argv += [f"--api-address={second.api},{first.api}", f"--xds-address={first.xds},{second.xds}"]
        env = {**self.env, "TULLE_STATE_DIR": str(self.mesh.home / f"node-{self.name}")}
        with (self.mesh.home / f"node-{self.name}.log").open("ab") as file:
            self.process = subprocess.Popen([*TULLE, *argv], env=env, stdout=file, stderr=file)
        until("the agent answers", lambda: (self.runtime / "node.sock").exists())

    def run(self, service: str, *argv: str, version: str = "") -> None:
        """`tulle run` of a service on port 8000, in the background."""
        name = f"{service}-{version}" if version else service
        words = ["run", "--service", service, "--service-account", service, "--port", "8000:http"]
        words += [*(["--version", version] if version else []), "--", *argv]
        env = {**self.env, "TULLE_KUBECONFIG": str(self.mesh.a.kubeconfig)}
        with (self.mesh.home / f"{name}.log").open("ab") as file:
            self.mesh.applications.append(subprocess.Popen([*TULLE, *words], env=env, stdout=file, stderr=file))

    def stop(self) -> None:
        """SIGTERM."""
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            self.process.wait(60)

    def remove(self) -> None:
        """Whatever is left of it."""
        asyncio.run(process.end(process.carrying(self.instance), grace=2))
        asyncio.run(teardown_instance(self.instance, self.runtime / "node"))


class Several:
    """The cluster, the control planes `a` and `b`, and the node agents `here`, with its workloads, and (when started) `there`."""

    def __init__(self) -> None:
        self.home = Path(tempfile.mkdtemp(prefix="ts-"))
        self.key = self.home / "encryption.key"
        self.key.touch(0o600)
        self.key.write_text(base64.b64encode(os.urandom(32)).decode())
        self.redis = RedisServer(self.home) if shutil.which("redis-server") else None
        self.env = {
            **{name: value for name, value in os.environ.items() if not name.startswith("TULLE_")},
            "NO_COLOR": "1",
            "TULLE_REPORT_INTERVAL": "2s",
            "TULLE_TRACE_SAMPLING": "100",
            # Short enough that a rotation need not be waited for, and longer than any outage of a test.
            "TULLE_CERTIFICATE_LIFETIME": "120s",
            **({"TULLE_RATELIMIT_REDIS": self.redis.url} if self.redis else {}),
        }
        self.etcd = EtcdCluster(self.home / "etcd", 3)
        self.a, self.b = Plane(self, "a"), Plane(self, "b")
        self.here, self.there = Node(self, "here"), Node(self, "there")
        self.applications: list[subprocess.Popen[bytes]] = []

    def start(self) -> None:
        """Everything; two control planes at the same moment, on an empty cluster."""
        self.etcd.start()
        if self.redis:
            self.redis.start()
        self.a.start(wait=False)
        self.b.start(wait=False)
        for plane in (self.a, self.b):
            until(f"control plane {plane.name} is ready", lambda it=plane: it.ready() == "ok")  # type: ignore[misc]

    def start_node(self) -> None:
        """A node that joins at `b` with a token of `a`, and is sent its configuration by `a`."""
        self.here.start(self.a.tulle("token", "create").stdout.strip(), self.a, self.b)

    def call(self, path: str = "/") -> str:
        """The status of one request from `caller` to `echo`."""
        words = ["exec", "caller", "--", "curl", "-s", "-m", "5", "-o", "/dev/null", "-w", "%{http_code}"]
        return commands.tulle([*words, f"http://echo:8000{path}"], self.here.env).out

    def at(self, number: int) -> bool:
        """Whether the proxy of `caller` has that turn."""
        return self.call("/turn") == str(200 + number)

    def turn(self, plane: Plane, number: int) -> bool:
        """Write a change by a control plane, the turn of that number; whether it was taken."""
        route = {
            "apiVersion": "networking.istio.io/v1",
            "kind": "VirtualService",
            "metadata": {"name": "echo", "namespace": "default"},
            "spec": {
                "hosts": ["echo"],
                "http": [
                    {"match": [{"uri": {"exact": "/turn"}}], "directResponse": {"status": 200 + number}},
                    {"route": [{"destination": {"host": "echo", "port": {"number": 8000}}}]},
                ],
            },
        }
        return plane.kubectl("apply", "-f", "-", stdin=json.dumps(route)).returncode == 0

    @contextmanager
    def load(self) -> Iterator[Counter[str]]:
        """Requests from `caller` to `echo` until the end of the block, by status."""
        seen: Counter[str] = Counter()
        child = subprocess.Popen(
            [*TULLE, "exec", "caller", "--", sys.executable, "-c", _ASK],
            env=self.here.env,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert child.stdout is not None
        lines = child.stdout
        reader = threading.Thread(target=lambda: seen.update(line.strip() for line in lines))
        reader.start()
        try:
            until("some requests", lambda: sum(seen.values()) > 10)
            yield seen
            before = sum(seen.values())
            until("some more requests", lambda: sum(seen.values()) > before + 10)
        finally:
            child.kill()
            child.wait()
            reader.join(10)

    def logs(self) -> str:
        """The ends of all logs, for a test that failed."""
        return "\n".join(f"--- {file.name}\n{file.read_text(errors='replace')[-3000:]}" for file in self.home.glob("*.log"))

    def close(self) -> None:
        """End and remove everything."""
        for member in self.etcd.members:
            if member.process is not None and member.process.poll() is None:
                member.resume()
        for child in self.applications:
            child.terminate()
        for node in (self.here, self.there):
            node.stop()
        for plane in (self.a, self.b):
            if plane.process is not None and plane.process.poll() is None:
                plane.kill()
        for node in (self.here, self.there):
            node.remove()
        for child in self.applications:
            child.kill()
            child.wait()
        self.etcd.stop()
        if self.redis:
            self.redis.stop()
        refused = refusals(self.home)
        shutil.rmtree(self.home, ignore_errors=True)
        assert refused == []


SERVE = (sys.executable, "-m", "http.server", "8000", "--directory", "/proc/self/net")
