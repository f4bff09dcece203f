"""Traffic that uses no feature, with this build and with an older one: latency and CPU, in turns within one run.

The older build is a revision of this repository, checked out for the measurement with an environment of its own. Each build runs
its own demo, and the same application and callers in it: a call through two sidecars, and one through the ingress gateway. The
load generator is always this build's.

The rate keeps the machine busy: at 1,000 requests a second most of the CPU goes into waking up, and a build against itself was
x0.92 to x1.05; at 4,000 it is x0.99 to x1.00.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

import msgspec

from tests.bench import handwritten
from tests.bench.scene import NO_TRACES, USUAL_REPORTS, Scene, Taken, load, medians, ratios
from tests.support.mesh import ROOT, TULLE, Mesh
from tulle.pb.binary import envoy_path

WAYS = ("sidecars", "gateway")
_PORT = 8080
_HOST = "bench-server"
_ROUTE = {
    "apiVersion": "gateway.networking.k8s.io/v1",
    "kind": "HTTPRoute",
    "metadata": {"name": _HOST, "namespace": "default"},
    "spec": {
        "parentRefs": [{"name": "demo"}],
        "hostnames": [_HOST],
        "rules": [{"backendRefs": [{"name": _HOST, "port": _PORT}]}],
    },
}


class Compared(msgspec.Struct):
    """By way: medians over the rounds of `new` and `old`, and medians of the ratios new / old within each round."""

    revision: str
    rounds: int
    rows: dict[str, dict[str, Taken]]
    ratios: dict[str, dict[str, float]]


@contextmanager
def _built(revision: str) -> Iterator[list[str]]:
    """The command `tulle` of a revision."""
    with tempfile.TemporaryDirectory(prefix="tulle-against-") as name:
        tree = Path(name) / "tree"
        subprocess.run(["git", "-C", ROOT, "worktree", "add", "--quiet", "--detach", str(tree), revision], check=True)
        try:
            argv = ["sh", str(tree / "packaging" / "venv.sh"), ".venv", "requirements.lock", sys.executable]
            subprocess.run(argv, check=True)
            yield [str(tree / ".venv" / "bin" / "python"), "-m", "tulle"]
        finally:
            subprocess.run(["git", "-C", ROOT, "worktree", "remove", "--force", str(tree)], check=True)


@contextmanager
def _scene(command: list[str]) -> Iterator[dict[str, Callable[..., Taken]]]:
    """The demo of a build with the application and its caller; what asks it, by the way that the requests go."""
    mesh = Mesh(capture="netns", settings=USUAL_REPORTS)
    mesh.command = command
    with tempfile.TemporaryDirectory(prefix="tulle-bench-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        scene = Scene(mesh, folder)
        try:
            mesh.up()
            app = folder / "app.json"
            app.write_text(json.dumps(handwritten.server("0.0.0.0", _PORT, folder / "app.sock")))
            envoy = [str(envoy_path()), "-c", str(app), "--concurrency", "1", "--use-dynamic-base-id", "-l", "error"]
            server = scene.workload(_HOST, *envoy, port=f"{_PORT}:http")
            client = scene.workload("bench-client", "sleep", "infinity")
            for one in (_ROUTE, NO_TRACES):
                mesh.kubectl("apply", "-f", "-", stdin=json.dumps(one))
            mesh.synced()
            virtual = mesh.kubectl("get", "service", _HOST, "-o", "jsonpath={.spec.clusterIP}").out
            gateway = scene.proxy("tulle-system/ingressgateway")
            yield {
                "sidecars": partial(load, f"http://{virtual}:{_PORT}/", f"{_HOST}:{_PORT}", [client, server], inside=client),
                "gateway": partial(load, f"{mesh.base}/", _HOST, [gateway, server]),
            }
        finally:
            scene.stop()
            mesh.remove()


def measure(revision: str, rounds: int = 9, seconds: float = 5, rate: float = 4000, connections: int = 16) -> Compared:
    """Start both builds, measure them in turn so many times, stop everything. Needs root, for the namespaces."""
    with ExitStack() as stack:
        old = stack.enter_context(_built(revision))
        builds = {name: stack.enter_context(_scene(command)) for name, command in (("new", TULLE), ("old", old))}
        taken: dict[str, dict[str, list[Taken]]] = {way: {"new": [], "old": []} for way in WAYS}
        for way in WAYS:
            for ask in builds.values():  # warm: connections, caches, the first handshake
                ask[way](rate=rate, connections=connections, seconds=1)
        for turn in range(rounds):
            order = ("new", "old") if turn % 2 else ("old", "new")
            for way in WAYS:
                for name in order:
                    taken[way][name].append(builds[name][way](rate=rate, connections=connections, seconds=seconds))
    return Compared(
        revision=revision,
        rounds=rounds,
        rows={way: {name: medians(found) for name, found in both.items()} for way, both in taken.items()},
        ratios={way: ratios(both["new"], both["old"]) for way, both in taken.items()},
    )
