"""500 proxies on a mesh of 500 services: how long until the last has acknowledged a changed route, a changed endpoint.

A real control-plane process, its store filled beforehand; the proxies in a process of their own (`proxies.py`).
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tests.support.mesh import free_port
from tulle.client.api import ApiClient
from tulle.control.ca.authority import Authority
from tulle.control.store.sqlite import SqliteStore
from tulle.core import type_urls
from tulle.ports import Key, Put

SERVICES = 500
PROXIES = 500
NODE = "bench"
_TICKS = os.sysconf("SC_CLK_TCK")


class Scale(msgspec.Struct):
    """Seconds and megabytes. `route` and `endpoint`: medians of `rounds`, from the write's start to the last acknowledgement."""

    services: int
    proxies: int
    rounds: int
    connect_seconds: float
    route_seconds: float
    route_worst: float
    endpoint_seconds: float
    endpoint_worst: float
    control_plane_cpu_seconds_per_route_change: float
    control_plane_cpu_seconds_per_endpoint_change: float
    control_plane_rss_mb: float


def _objects() -> list[tuple[str, dict[str, Any]]]:
    found: list[tuple[str, dict[str, Any]]] = []
    for number in range(SERVICES):
        name = f"s{number}"
        meta = {"name": name, "namespace": "default", "uid": name, "creationTimestamp": "2026-01-01T00:00:00Z"}
        address = f"240.240.{number // 250}.{number % 250 + 1}"
        spec = {"selector": {"app": name}, "clusterIP": address, "ports": [{"name": "http", "port": 9080}]}
        found.append(("services", {"apiVersion": "v1", "kind": "Service", "metadata": meta, "spec": spec}))
        route = {"hosts": [name], "http": [{"route": [{"destination": {"host": name}}], "timeout": "10s"}]}
        found.append(("virtualservices.networking.istio.io", _istio("VirtualService", meta, route)))
        entry = {
            "address": f"10.1.{number // 250}.{number % 250 + 1}",
            "labels": {"app": name, "version": "v1"},
            "serviceAccount": name,
        }
        notes = {"tulle.dev/node": NODE, "tulle.dev/capture": "netns", "tulle.dev/ready": "true"}
        placed = {**meta, "name": f"w{number}", "annotations": notes, "labels": entry["labels"]}
        found.append(("workloadentries.networking.istio.io", _istio("WorkloadEntry", placed, entry)))
    return found


def _istio(kind: str, meta: dict[str, Any], spec: dict[str, Any]) -> dict[str, Any]:
    return {"apiVersion": "networking.istio.io/v1", "kind": kind, "metadata": meta, "spec": spec}


async def fill(state: Path) -> None:
    """Write a mesh of so many services and workloads."""
    store = SqliteStore(state / "store.db")
    puts = [
        Put(Key("namespaces", "", name), {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "uid": name}})
        for name in ("default", "tulle-system")
    ]
    puts += [Put(Key(resource, "default", body["metadata"]["name"]), body) for resource, body in _objects()]
    await store.write(puts)
    await store.close()


def certificates(state: Path, folder: Path) -> None:
    """What the node `NODE` shows and trusts, in `folder`."""
    authority = Authority.open(state / "ca")
    key = ec.generate_private_key(ec.SECP256R1())
    request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(key, hashes.SHA256())
    chain = authority.sign(request.public_bytes(serialization.Encoding.PEM), f"spiffe://cluster.local/node/{NODE}", 3600)
    plain = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (folder / "node.key").write_bytes(plain)
    (folder / "node.pem").write_bytes(chain)
    (folder / "root.pem").write_bytes(authority.bundle)


def cpu(pid: int) -> float:
    """Seconds of CPU that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def rss(pid: int) -> float:
    """Memory (MB) that a process takes."""
    line = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) / 1024


async def measure(rounds: int = 9) -> Scale:
    """Start everything, change one route and one endpoint so many times, stop everything."""
    with tempfile.TemporaryDirectory(prefix="tulle-bench-") as folder:
        state = Path(folder, "state")
        state.mkdir(mode=0o700)
        await fill(state)
        certificates(state, Path(folder))
        api_port, xds_port = free_port(), free_port()
        argv = ["-m", "tulle", "control-plane", "--state-dir", str(state)]
        argv += ["--api-address", f"127.0.0.1:{api_port}", "--xds-address", f"127.0.0.1:{xds_port}"]
        plane = await asyncio.create_subprocess_exec(sys.executable, *argv, stderr=asyncio.subprocess.DEVNULL)
        crowd = None
        try:
            await ready(state / "kubeconfig")
            crowd = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "tests.bench.proxies", f"127.0.0.1:{xds_port}", folder, "--count", str(PROXIES)),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
            )
            return await _rounds(plane.pid, crowd, state / "kubeconfig", rounds)
        finally:
            for child in (crowd, plane):
                if child is not None and child.returncode is None:
                    child.send_signal(signal.SIGTERM)
                    await child.wait()


async def ready(kubeconfig: Path, seconds: float = 60) -> None:
    """Once the control plane answers, within so many seconds."""
    for _ in range(int(10 * seconds)):
        if kubeconfig.exists():
            try:
                async with ApiClient.from_kubeconfig(kubeconfig) as api:
                    await api.request("GET", "/tulle/v1/status")
                return
            except Exception:
                pass
        await asyncio.sleep(0.1)
    raise RuntimeError("the control plane did not come up")


async def _rounds(plane: int, crowd: asyncio.subprocess.Process, kubeconfig: Path, rounds: int) -> Scale:
    assert crowd.stdin
    assert crowd.stdout

    async def heard() -> dict[str, Any]:
        assert crowd.stdout
        said: dict[str, Any] = json.loads(await crowd.stdout.readline())
        return said

    connect = (await heard())["ready"]
    routes: list[float] = []
    endpoints: list[float] = []
    route_cpu: list[float] = []
    endpoint_cpu: list[float] = []
    async with ApiClient.from_kubeconfig(kubeconfig) as api:
        for turn in range(rounds):
            for type_url, times, costs in (
                (type_urls.VIRTUAL_HOST, routes, route_cpu),
                (type_urls.ENDPOINT, endpoints, endpoint_cpu),
            ):
                crowd.stdin.write(type_url.encode() + b"\n")
                assert (await heard())["watching"] == type_url
                spent, began = cpu(plane), time.monotonic()
                if type_url == type_urls.VIRTUAL_HOST:
                    patch: dict[str, Any] = {
                        "spec": {"http": [{"route": [{"destination": {"host": "s7"}}], "timeout": f"{turn + 11}s"}]}
                    }
                    path = "/apis/networking.istio.io/v1/namespaces/default/virtualservices/s7"
                else:
                    patch = {"spec": {"address": f"10.2.0.{turn + 1}"}}
                    path = "/apis/networking.istio.io/v1/namespaces/default/workloadentries/w7"
                await api.request("PATCH", path, body=patch, content_type="application/merge-patch+json")
                times.append((await heard())["last"] - began)
                await asyncio.sleep(0.5)
                costs.append(cpu(plane) - spent)
    return Scale(
        services=SERVICES,
        proxies=PROXIES,
        rounds=rounds,
        connect_seconds=connect,
        route_seconds=statistics.median(routes),
        route_worst=max(routes),
        endpoint_seconds=statistics.median(endpoints),
        endpoint_worst=max(endpoints),
        control_plane_cpu_seconds_per_route_change=statistics.median(route_cpu),
        control_plane_cpu_seconds_per_endpoint_change=statistics.median(endpoint_cpu),
        control_plane_rss_mb=rss(plane),
    )
