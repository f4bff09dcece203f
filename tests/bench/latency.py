"""Latency and CPU of a call: direct, a hand-written minimal pair, that pair with the mesh's features, and the mesh.

All four go from one network namespace to another over the same bridge, to the same kind of application, in turn within every
round. The mesh's two are its workloads; the others share two plain namespaces without any capture.
"""

from __future__ import annotations

import ipaddress
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from tests.bench import handwritten
from tests.support.mesh import TULLE, Mesh
from tulle.control.ca.authority import Authority
from tulle.pb.descriptors import envoy_path

VARIANTS = ("direct", "minimal", "features", "mesh")
_APP, _MINIMAL, _FEATURES = 8080, 7001, 7002
_CLIENT_ID = "spiffe://cluster.local/ns/default/sa/bench-client"
_SERVER_ID = "spiffe://cluster.local/ns/default/sa/bench-server"
_TICKS = os.sysconf("SC_CLK_TCK")


class Row(msgspec.Struct):
    """Medians over the rounds: milliseconds, and CPU milliseconds of both proxies per 1,000 requests."""

    p50: float
    p90: float
    p99: float
    cpu: float
    failed: int


class Latency(msgspec.Struct):
    """The four rows, and the paired ratios (medians of per-round ratios) that the issue asks for."""

    rounds: int
    rate: int
    connections: int
    rows: dict[str, Row]
    ratios: dict[str, dict[str, float]]


def _cpu(pids: list[int]) -> float:
    """Milliseconds of CPU that these processes have used."""
    total = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        total += int(fields[11]) + int(fields[12])
    return total * 1000 / _TICKS


class _Scene:
    """The two workloads and everything that is started inside them; `stop` ends it all."""

    def __init__(self, mesh: Mesh, folder: Path) -> None:
        self.mesh, self.folder = mesh, folder
        self.children: list[subprocess.Popen[bytes]] = []

    def workload(self, name: str, *argv: str, port: str = "") -> int:
        """`tulle run`, until its proxy is ready; the pid of its Envoy."""
        declared = ["--port", port] if port else []
        self.spawn([*TULLE, "run", "--service", name, "--version", "v1", *declared, "--service-account", name, "--", *argv])
        pid: int = self.until(lambda: self._envoy(f"{name}-v1") or self._envoy(name), f"the proxy of {name}")
        return pid

    def spawn(self, argv: list[str]) -> subprocess.Popen[bytes]:
        with (self.folder / "spawned.log").open("ab") as log:
            child = subprocess.Popen(argv, env=self.mesh.env, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self.children.append(child)
        return child

    def _envoy(self, name: str) -> int:
        from tests.support.mesh import envoy_of

        return envoy_of(self.mesh, f"default/{name}")

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
        bridge = json.loads(_out("ip", "-j", "route", "get", near))[0]["dev"]
        info = json.loads(_out("ip", "-j", "addr", "show", "dev", bridge))[0]["addr_info"][0]
        network = ipaddress.ip_interface(f"{info['local']}/{info['prefixlen']}").network
        address = str(network.broadcast_address - last)
        holder = self.spawn(["unshare", "-n", "sleep", "infinity"]).pid
        self.until(lambda: os.readlink(f"/proc/{holder}/ns/net") != os.readlink("/proc/self/ns/net"), "a namespace")
        link = f"tlb{holder % 100000}"
        _out("ip", "link", "add", link, "master", bridge, "type", "veth", "peer", "name", "eth0", "netns", str(holder))
        _out("ip", "link", "set", link, "up")
        inside = ("nsenter", "-t", str(holder), "-n", "ip")
        _out(*inside, "link", "set", "lo", "up")
        _out(*inside, "addr", "add", f"{address}/{network.prefixlen}", "dev", "eth0")
        _out(*inside, "link", "set", "eth0", "up")
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


def _out(*argv: str) -> str:
    return subprocess.run(argv, capture_output=True, text=True, check=True).stdout


def _certificates(folder: Path) -> None:
    authority = Authority.open(folder / "ca")
    (folder / "root.pem").write_bytes(authority.bundle)
    for name, identity in (("client", _CLIENT_ID), ("server", _SERVER_ID)):
        pair = authority.issue_server(["localhost"], 3600, identity)
        (folder / f"{name}.key").write_bytes(pair.key)
        (folder / f"{name}.pem").write_bytes(pair.chain)


def measure(rounds: int = 9, seconds: float = 5, rate: int = 1000, connections: int = 16) -> Latency:
    """Start the scene, measure the four in turn so many times, stop everything. Needs root, for the namespaces."""
    mesh = Mesh(capture="netns")
    with tempfile.TemporaryDirectory(prefix="tulle-bench-") as name:
        folder = Path(name)
        scene = _Scene(mesh, folder)
        try:
            mesh.up()
            return _measure(scene, rounds, seconds, rate, connections)
        finally:
            scene.stop()
            mesh.remove()


def _measure(scene: _Scene, rounds: int, seconds: float, rate: int, connections: int) -> Latency:
    folder, mesh = scene.folder, scene.mesh
    _certificates(folder)
    app = folder / "app.json"
    app.write_text(json.dumps(handwritten.server("0.0.0.0", _APP, folder / "app.sock")))
    envoy = [str(envoy_path()), "-c", str(app), "--concurrency", "1", "--use-dynamic-base-id", "-l", "error"]
    server = scene.workload("bench-server", *envoy, port=f"{_APP}:http")
    client = scene.workload("bench-client", "sleep", "infinity")
    wanted = "jsonpath={.items[?(@.spec.serviceAccount=='bench-server')].spec.address}"
    near = mesh.kubectl("get", "workloadentry", "-o", wanted).out
    virtual = mesh.kubectl("get", "service", "bench-server", "-o", "jsonpath={.spec.clusterIP}").out
    there, address = scene.namespace(near, 1)
    here, _ = scene.namespace(near, 2)
    scene.envoy(there, "app-plain", handwritten.server("0.0.0.0", _APP, folder / "plain.sock"))
    pids: dict[str, list[int]] = {"direct": [], "mesh": [client, server]}
    for variant, port, features in (("minimal", _MINIMAL, False), ("features", _FEATURES, True)):
        inbound = handwritten.server_side("0.0.0.0", port, _APP, folder, _CLIENT_ID, folder / f"{variant}-in", features=features)
        outbound = handwritten.client_side(
            port, (address, port), folder, _SERVER_ID, folder / f"{variant}-out", features=features
        )
        pids[variant] = [
            scene.envoy(there, f"{variant}-in", inbound),
            scene.envoy(here, f"{variant}-out", outbound),
        ]
    urls = {
        "direct": f"http://{address}:{_APP}/",
        "minimal": f"http://127.0.0.1:{_MINIMAL}/",
        "features": f"http://127.0.0.1:{_FEATURES}/",
        "mesh": f"http://{virtual}:{_APP}/",
    }

    def load(variant: str, seconds: float) -> tuple[dict[str, Any], float]:
        before = _cpu(pids[variant])
        inside = client if variant == "mesh" else here
        argv = ["nsenter", "-t", str(inside), "-n", sys.executable, "-m", "tests.bench.load", urls[variant]]
        argv += [
            "--host",
            f"bench-server:{_APP}",
            "--rate",
            str(rate),
            "--connections",
            str(connections),
            "--seconds",
            str(seconds),
        ]
        ran = subprocess.run(argv, capture_output=True, text=True, check=False)
        if ran.returncode:
            words = (folder / "spawned.log").read_text(errors="replace")[-2000:]
            raise RuntimeError(f"{variant}: {ran.stderr[-500:]}\n{words}")
        result: dict[str, Any] = json.loads(ran.stdout)
        return result, (_cpu(pids[variant]) - before) / result["requests"] * 1000

    for variant in VARIANTS:  # warm: connections, caches, the first handshake
        load(variant, 1)
    taken: dict[str, list[tuple[dict[str, Any], float]]] = {variant: [] for variant in VARIANTS}
    for turn in range(rounds):
        order = VARIANTS[turn % len(VARIANTS) :] + VARIANTS[: turn % len(VARIANTS)]
        for variant in order:
            taken[variant].append(load(variant, seconds))
    return Latency(
        rounds=rounds,
        rate=rate,
        connections=connections,
        rows={variant: _row(taken[variant]) for variant in VARIANTS},
        ratios={base: _ratios(taken["mesh"], taken[base]) for base in ("minimal", "features")},
    )


def _row(taken: list[tuple[dict[str, Any], float]]) -> Row:
    middle = {key: statistics.median(result[key] for result, _ in taken) for key in ("p50", "p90", "p99")}
    failed = sum(result["failed"] for result, _ in taken)
    return Row(**middle, cpu=statistics.median(cpu for _, cpu in taken), failed=failed)


def _ratios(ours: list[tuple[dict[str, Any], float]], theirs: list[tuple[dict[str, Any], float]]) -> dict[str, float]:
    """Medians of the ratios within each round, which is what a shared machine can tell."""
    paired = list(zip(ours, theirs, strict=True))
    found = {key: statistics.median(a[key] / b[key] for (a, _), (b, _) in paired) for key in ("p50", "p90", "p99")}
    return {**found, "cpu": statistics.median(a / b for (_, a), (_, b) in paired if b)}
