"""What recording calls costs: the node agent's share of a core, and the proxies' CPU, with the usual budget and with none.

Nothing is traced: a demo traces everything, and four spans a request are another matter than calls.

Two meshes stand beside each other and are loaded in turn; what is compared is within a round.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

import msgspec

from tests.bench import handwritten
from tests.bench.scene import NO_TRACES, Scene, Taken, cpu, load, medians, ratios
from tests.support.mesh import Mesh
from tulle.client.node_api import NodeClient
from tulle.pb.binary import envoy_path

_APP = 8080
RATE = 2000


class Calls(msgspec.Struct):
    """Medians over the rounds. `agent` is the node agent's share of a core, in per cent, by budget; `ratios` on to off."""

    rounds: int
    rate: int
    rows: dict[str, Taken]
    agent: dict[str, float]
    ratios: dict[str, float]
    recorded: int


class _Side:
    """One mesh with two workloads and a load between them."""

    def __init__(self, stack: ExitStack, budget: str) -> None:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tulle-bench-")))
        settings = {"TULLE_RECORD_BUDGET": budget, "TULLE_REPORT_INTERVAL": "15s"}
        self.mesh = Mesh(capture="netns", settings=settings)
        self.scene = Scene(self.mesh, folder)
        stack.callback(self.mesh.remove)
        stack.callback(self.scene.stop)
        self.mesh.up()
        self.mesh.kubectl("apply", "-f", "-", stdin=json.dumps(NO_TRACES))
        app = folder / "app.json"
        app.write_text(json.dumps(handwritten.server("0.0.0.0", _APP, folder / "app.sock")))
        envoy = [str(envoy_path()), "-c", str(app), "--concurrency", "1", "--use-dynamic-base-id", "-l", "error"]
        server = self.scene.workload("bench-server", *envoy, port=f"{_APP}:http")
        self.client = self.scene.workload("bench-client", "sleep", "infinity")
        self.proxies = [server, self.client]
        virtual = self.mesh.kubectl("get", "service", "bench-server", "-o", "jsonpath={.spec.clusterIP}").out
        self.url = f"http://{virtual}:{_APP}/"
        self.agent = asyncio.run(self._agent())
        self.mesh.synced()

    async def _agent(self) -> int:
        async with NodeClient(self.mesh.home / "run" / "demo" / "node.sock") as node:
            return (await node.status()).pid

    def once(self, seconds: float) -> tuple[Taken, float]:
        """One load; and the agent's share of a core (per cent) meanwhile."""
        before, began = cpu([self.agent]), time.monotonic()
        host = f"bench-server:{_APP}"
        taken = load(self.url, host, self.proxies, inside=self.client, rate=RATE, connections=16, seconds=seconds)
        return taken, (cpu([self.agent]) - before) / (time.monotonic() - began) / 10

    def recorded(self) -> int:
        """How many calls the record has."""
        found = json.loads(self.mesh.tulle("calls", "--to", "bench-server", "-o", "json").out)
        return sum(row["count"]["calls"] for row in found["calls"])


def measure(rounds: int = 9, seconds: float = 5) -> Calls:
    """Start both, load them in turn so many times, stop everything. Needs root, for the namespaces."""
    with ExitStack() as stack:
        sides = {"on": _Side(stack, "50"), "off": _Side(stack, "0")}
        for side in sides.values():
            side.once(seconds)
        taken: dict[str, list[Taken]] = {name: [] for name in sides}
        agents: dict[str, list[float]] = {name: [] for name in sides}
        for _ in range(rounds):
            for name, side in sides.items():
                row, agent = side.once(seconds)
                taken[name].append(row)
                agents[name].append(agent)
        return Calls(
            rounds,
            RATE,
            {name: medians(rows) for name, rows in taken.items()},
            {name: statistics.median(shares) for name, shares in agents.items()},
            ratios(taken["on"], taken["off"]),
            sides["on"].recorded(),
        )
