"""What it costs to see a mesh: metrics, access logs, and a tap, with nobody and with somebody who looks.

Pairs of workloads stand beside each other in one mesh, each pair with a Telemetry of its own, and are loaded in turn; what is
compared is within a round. A second mesh has no tap in its proxies at all: against it, a tap that nobody uses is measured.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import msgspec

from tests.bench import handwritten
from tests.bench.scene import Scene, Taken, load, medians, ratios
from tests.support.mesh import TULLE, Mesh
from tulle.pb.binary import envoy_path

RATE = 2000
_APP = 8080
_OFF = {"overrides": [{"match": {"metric": "ALL_METRICS"}, "disabled": True}]}
# What a Telemetry says for the workloads of each variant.
_SAID: dict[str, dict[str, Any]] = {
    "off": {"metrics": [_OFF]},
    "metrics": {},
    "logs": {"accessLogging": [{"providers": [{"name": "envoy"}]}]},
    "tap": {},
}
# For every Python of the second mesh.
_UNTAPPED = "from tulle.core.envoy import http\nhttp.LOOKED_AT = ()\n"
AGAINST = {"metrics / off": ("metrics", "off"), "logs / off": ("logs", "off"), "tap / metrics": ("tap", "metrics")}
AT_REST = ("metrics", "untapped")


class Watching(msgspec.Struct):
    """Medians over the rounds, and medians of the ratios within each round."""

    rounds: int
    rate: int
    rows: dict[str, Taken]
    ratios: dict[str, dict[str, float]]


class _Pair:
    """A server and its client in a mesh."""

    def __init__(self, scene: Scene, variant: str) -> None:
        self._mesh, server = scene.mesh, f"bench-{variant}"
        app = scene.folder / f"{variant}.json"
        app.write_text(json.dumps(handwritten.server("0.0.0.0", _APP, scene.folder / f"{variant}.sock")))
        envoy = [str(envoy_path()), "-c", str(app), "--concurrency", "1", "--use-dynamic-base-id", "-l", "error"]
        self._client = scene.workload(f"{server}-client", "sleep", "infinity")
        self._proxies = [scene.workload(server, *envoy, port=f"{_APP}:http"), self._client]
        virtual = self._mesh.kubectl("get", "service", server, "-o", "jsonpath={.spec.clusterIP}").out
        self._url, self._server = f"http://{virtual}:{_APP}/", server

    def once(self, seconds: float) -> Taken:
        """One load."""
        host = f"{self._server}:{_APP}"
        return load(self._url, host, self._proxies, inside=self._client, rate=RATE, connections=16, seconds=seconds)

    @contextmanager
    def tapped(self) -> Iterator[None]:
        """While somebody looks at every request of both."""
        names = (f"{self._server}-v1", f"{self._server}-client-v1")
        looking = [
            subprocess.Popen([*TULLE, "tap", name], env=self._mesh.env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            for name in names
        ]
        try:
            yield
        finally:
            for child in looking:
                child.terminate()
                child.wait(30)


def _scene(stack: ExitStack, **settings: str) -> Scene:
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tulle-bench-")))
    mesh = Mesh(capture="netns", settings={"TULLE_RECORD_BUDGET": "0", "TULLE_REPORT_INTERVAL": "15s", **settings})
    scene = Scene(mesh, folder)
    stack.callback(mesh.remove)
    stack.callback(scene.stop)
    mesh.up()
    return scene


def _pair(scene: Scene, variant: str) -> _Pair:
    pair = _Pair(scene, variant)
    # The demo traces everything, as nobody does who asks for nothing.
    spec = {"tracing": [{"disableSpanReporting": True}], **_SAID.get(variant, {})}
    for app in (f"bench-{variant}", f"bench-{variant}-client"):
        said = {
            "apiVersion": "telemetry.istio.io/v1",
            "kind": "Telemetry",
            "metadata": {"name": app, "namespace": "default"},
            "spec": {"selector": {"matchLabels": {"app": app}}, **spec},
        }
        scene.mesh.kubectl("apply", "-f", "-", stdin=json.dumps(said))
    scene.mesh.synced()
    return pair


def measure(rounds: int = 9, seconds: float = 5) -> Watching:
    """Start both meshes, load all pairs in turn so many times, stop everything. Needs root, for the namespaces."""
    with ExitStack() as stack:
        scene = _scene(stack)
        pairs = {variant: _pair(scene, variant) for variant in _SAID}
        patch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tulle-bench-")))
        (patch / "sitecustomize.py").write_text(_UNTAPPED)
        pairs["untapped"] = _pair(_scene(stack, PYTHONPATH=str(patch)), "untapped")
        for pair in pairs.values():  # warm: connections, caches, the first handshake
            pair.once(min(seconds, 1.0))
        taken: dict[str, list[Taken]] = {variant: [] for variant in pairs}
        for _ in range(rounds):
            for variant, pair in pairs.items():
                if variant == "tap":
                    with pair.tapped():
                        taken[variant].append(pair.once(seconds))
                else:
                    taken[variant].append(pair.once(seconds))
        compared = {**AGAINST, "a tap at rest / none": AT_REST}
        return Watching(
            rounds,
            RATE,
            {variant: medians(rows) for variant, rows in taken.items()},
            {name: ratios(taken[one], taken[other]) for name, (one, other) in compared.items()},
        )
