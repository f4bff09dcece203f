"""Latency and CPU of a call: direct, a hand-written minimal pair, that pair with the mesh's features, and the mesh.

All four go from one network namespace to another over the same bridge, to the same kind of application, in turn within every
round. The mesh's two are its workloads; the others share two plain namespaces without any capture. The mesh is as it is for who
asks for nothing: the demo's traces of every call are off, and figures are reported as often as by default.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import msgspec

from tests.bench import handwritten
from tests.bench.scene import NO_TRACES, USUAL_REPORTS, Scene, Taken, load, medians, ratios
from tests.support.mesh import Mesh
from tulle.control.ca.authority import Authority
from tulle.pb.binary import envoy_path

VARIANTS = ("direct", "minimal", "features", "mesh")
_APP, _MINIMAL, _FEATURES = 8080, 7001, 7002
_CLIENT_ID = "spiffe://cluster.local/ns/default/sa/bench-client"
_SERVER_ID = "spiffe://cluster.local/ns/default/sa/bench-server"


_ANEW = """
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: bench-server, namespace: default}
spec:
  host: bench-server
  trafficPolicy: {connectionPool: {http: {maxRequestsPerConnection: 1}}}
"""


class Latency(msgspec.Struct):
    """The four rows (medians over the rounds), and medians of the ratios within each round."""

    rounds: int
    rate: int
    connections: int
    rows: dict[str, Taken]
    ratios: dict[str, dict[str, float]]


def _certificates(folder: Path) -> None:
    authority = Authority.open(folder / "ca")
    (folder / "root.pem").write_bytes(authority.bundle)
    for name, identity in (("client", _CLIENT_ID), ("server", _SERVER_ID)):
        pair = authority.issue_server(["localhost"], 3600, identity)
        (folder / f"{name}.key").write_bytes(pair.key)
        (folder / f"{name}.pem").write_bytes(pair.chain)


def measure(
    rounds: int = 9, seconds: float = 5, rate: int = 1000, connections: int = 16, variants: Sequence[str] = VARIANTS
) -> Latency:
    """Start the scene, measure the variants in turn so many times, stop everything. Needs root, for the namespaces."""
    return _staged(rounds, seconds, rate, connections, variants, anew=False)


def handshakes(rounds: int = 9, seconds: float = 5, rate: int = 200, connections: int = 16) -> Latency:
    """The hand-written pair with the mesh's features and the mesh, with a handshake for every request.

    No single calls are told to the node, as the pair tells none: of 200 a second they would be a quarter (`bench calls`).
    """
    return _staged(rounds, seconds, rate, connections, ("features", "mesh"), anew=True)


def _staged(rounds: int, seconds: float, rate: int, connections: int, variants: Sequence[str], *, anew: bool) -> Latency:
    mesh = Mesh(capture="netns", settings={**USUAL_REPORTS, **({"TULLE_RECORD_BUDGET": "0"} if anew else {})})
    with tempfile.TemporaryDirectory(prefix="tulle-bench-") as name:
        folder = Path(name)
        scene = Scene(mesh, folder)
        try:
            mesh.up()
            return _measure(scene, rounds, seconds, rate, connections, variants, anew=anew)
        finally:
            scene.stop()
            mesh.remove()


def _succeeds(argv: list[str]) -> bool:
    return subprocess.run(argv, check=False).returncode == 0


def _measure(
    scene: Scene, rounds: int, seconds: float, rate: int, connections: int, variants: Sequence[str], *, anew: bool
) -> Latency:
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
        inbound = handwritten.server_side(
            "0.0.0.0", port, _APP, folder, _CLIENT_ID, folder / f"{variant}-in", features=features, anew=anew
        )
        outbound = handwritten.client_side(
            port, (address, port), folder, _SERVER_ID, folder / f"{variant}-out", features=features, anew=anew
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

    def once(variant: str, seconds: float) -> Taken:
        inside = client if variant == "mesh" else here
        host = f"bench-server:{_APP}"
        return load(urls[variant], host, pids[variant], inside=inside, rate=rate, connections=connections, seconds=seconds)

    for one in (json.dumps(NO_TRACES), *((_ANEW,) if anew else ())):
        mesh.kubectl("apply", "-f", "-", stdin=one)
    mesh.synced()
    for variant in variants:  # warm: connections, caches, the first handshake
        inside = client if variant == "mesh" else here
        ask = [
            "nsenter",
            "-t",
            str(inside),
            "-n",
            "curl",
            "-s",
            "-o",
            "/dev/null",
            "-H",
            f"host: bench-server:{_APP}",
            urls[variant],
        ]
        scene.until(partial(_succeeds, ask), variant)
        once(variant, 1)
    taken: dict[str, list[Taken]] = {variant: [] for variant in variants}
    for turn in range(rounds):
        order = [*variants[turn % len(variants) :], *variants[: turn % len(variants)]]
        for variant in order:
            taken[variant].append(once(variant, seconds))
    return Latency(
        rounds=rounds,
        rate=rate,
        connections=connections,
        rows={variant: medians(taken[variant]) for variant in variants},
        ratios={base: ratios(taken["mesh"], taken[base]) for base in ("minimal", "features") if base in variants},
    )
