"""What is measured stands in a scene: a mesh, workloads of it, plain namespaces beside it, and loads between them."""

from __future__ import annotations

import ipaddress
import json
import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from tests.support.mesh import Mesh, envoy_of
from tulle.pb.binary import envoy_path

# The demo traces everything, and tests have figures reported often, as nobody does who asks for nothing.
NO_TRACES = {
    "apiVersion": "telemetry.istio.io/v1",
    "kind": "Telemetry",
    "metadata": {"name": "none", "namespace": "tulle-system"},
    "spec": {"tracing": [{"disableSpanReporting": True}]},
}
USUAL_REPORTS = {"TULLE_REPORT_INTERVAL": "15s"}


class Taken(msgspec.Struct):
    """One load: latencies in milliseconds, and CPU milliseconds of the proxies per 1,000 requests."""

    p50: float
    p90: float
    p99: float
    cpu: float
    failed: int


def cpu(pids: Sequence[int]) -> float:
    """Milliseconds of CPU that all threads of these processes have used; the kernel counts them in nanoseconds."""
    threads = (thread for pid in pids for thread in Path(f"/proc/{pid}/task").iterdir())
    return sum(int((thread / "schedstat").read_text().split()[0]) for thread in threads) / 1e6


class Scene:
    """Workloads of a mesh, and whatever else is started for the measurement; `stop` ends it all."""

    def __init__(self, mesh: Mesh, folder: Path) -> None:
        self.mesh, self.folder = mesh, folder
        self.children: list[subprocess.Popen[bytes]] = []

    def workload(self, name: str, *argv: str, port: str = "") -> int:
        """`tulle run`, until its proxy is ready; the pid of its Envoy."""
        declared = ["--port", port] if port else []
        flags = ["--service", name, "--version", "v1", *declared, "--service-account", name]
        self.spawn([*self.mesh.command, "run", *flags, "--", *argv])
        return self.proxy(f"default/{name}-v1", f"default/{name}")

    def proxy(self, *names: str) -> int:
        """The pid of a workload's Envoy, by `namespace/name` (or another name), once it is ready."""
        pid: int = self.until(
            lambda: next(filter(None, (envoy_of(self.mesh, name) for name in names)), 0), f"the proxy of {names[0]}"
        )
        return pid

    def spawn(self, argv: list[str]) -> subprocess.Popen[bytes]:
        with (self.folder / "spawned.log").open("ab") as log:
            child = subprocess.Popen(argv, env=self.mesh.env, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self.children.append(child)
        return child

    def until(self, ask: Callable[[], Any], what: str) -> Any:
        deadline = time.monotonic() + 30
        while not (found := ask()):
            if time.monotonic() > deadline:
                raise RuntimeError(f"{what} did not come up")
            time.sleep(0.1)
        return found

    def envoy(self, inside: int, name: str, bootstrap: dict[str, Any]) -> int:
        """A hand-written Envoy in the network namespace of process `inside`."""
        file = self.folder / f"{name}.json"
        file.write_text(json.dumps(bootstrap))
        argv = [str(envoy_path()), "-c", str(file), "--concurrency", "1", "--use-dynamic-base-id", "-l", "error"]
        return self.spawn(["nsenter", "-t", str(inside), "-n", *argv]).pid

    def namespace(self, near: str, last: int) -> tuple[int, str]:
        """A plain namespace on the bridge that leads to the workload at `near`; a process inside, and its address."""
        bridge = json.loads(out("ip", "-j", "route", "get", near))[0]["dev"]
        info = json.loads(out("ip", "-j", "addr", "show", "dev", bridge))[0]["addr_info"][0]
        network = ipaddress.ip_interface(f"{info['local']}/{info['prefixlen']}").network
        address = str(network.broadcast_address - last)
        holder = self.spawn(["unshare", "-n", "sleep", "infinity"]).pid
        self.until(lambda: os.readlink(f"/proc/{holder}/ns/net") != os.readlink("/proc/self/ns/net"), "a namespace")
        link = f"tlb{holder % 100000}"
        out("ip", "link", "add", link, "master", bridge, "type", "veth", "peer", "name", "eth0", "netns", str(holder))
        out("ip", "link", "set", link, "up")
        inside = ("nsenter", "-t", str(holder), "-n", "ip")
        out(*inside, "link", "set", "lo", "up")
        out(*inside, "addr", "add", f"{address}/{network.prefixlen}", "dev", "eth0")
        out(*inside, "link", "set", "eth0", "up")
        return holder, address

    def stop(self) -> None:
        for child in self.children:
            child.send_signal(signal.SIGTERM)
        for child in self.children:
            try:
                child.wait(30)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()


def out(*argv: str) -> str:
    return subprocess.run(argv, capture_output=True, text=True, check=True).stdout


def load(url: str, host: str, proxies: Sequence[int], *, inside: int = 0, rate: float, connections: int, seconds: float) -> Taken:
    """Ask `url` for so long, in the network namespace of the process `inside` (0: here), while `proxies` carry it."""
    enter = ["nsenter", "-t", str(inside), "-n"] if inside else []
    said = {"host": host, "rate": rate, "connections": connections, "seconds": seconds}
    flags = [word for name, value in said.items() for word in (f"--{name}", str(value))]
    before = cpu(proxies)
    ran = subprocess.run(
        [*enter, sys.executable, "-m", "tests.bench.load", url, *flags], capture_output=True, text=True, check=False
    )
    if ran.returncode:
        raise RuntimeError(f"{url}: {ran.stderr[-500:]}")
    told = json.loads(ran.stdout)
    spent = (cpu(proxies) - before) / told["requests"] * 1000
    return Taken(told["p50"], told["p90"], told["p99"], spent, told["failed"])


def medians(taken: Sequence[Taken]) -> Taken:
    """The middle of every figure; failures are summed."""
    middle = {name: statistics.median(getattr(one, name) for one in taken) for name in ("p50", "p90", "p99", "cpu")}
    return Taken(**middle, failed=sum(one.failed for one in taken))


def ratios(ours: Sequence[Taken], theirs: Sequence[Taken]) -> dict[str, float]:
    """Medians of the ratios within each round, which is what a shared machine can tell."""
    paired = list(zip(ours, theirs, strict=True))
    return {
        name: statistics.median(getattr(a, name) / getattr(b, name) for a, b in paired if getattr(b, name))
        for name in ("p50", "p90", "p99", "cpu")
    }
