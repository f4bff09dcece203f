"""The Envoy of one workload, as it is before xDS reaches it; for a gateway in a user namespace, also the relay in front of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tulle.client.node_api import Kind, WorkloadSpec
from tulle.core.envoy import bootstrap
from tulle.core.model.workload import Capture
from tulle.node import launch, objects, relay
from tulle.node.budget import Budget
from tulle.node.envoy import Envoy
from tulle.node.metrics.endpoint import METRICS_SOCKET
from tulle.node.network import MERGED_METRICS, PROXY_DNS_PORT, PROXY_MARK, Sandbox
from tulle.node.process import Process
from tulle.node.supervision import State


class Sidecar:
    """`envoy` beside the application; `relay` on the host where `relayed`, else None. `changed` is called when either moves.

    `sockets` is the folder of its Unix sockets, `folder` of its files, `environment` what both processes carry.
    """

    def __init__(
        self,
        spec: WorkloadSpec,
        box: Sandbox,
        *,
        node: str,
        budget: Budget,
        relayed: bool,
        folder: Path,
        sockets: Path,
        environment: Mapping[str, str],
        level: str,
        changed: Callable[[], None],
    ) -> None:
        self.spec, self._box, self._node, self._budget, self._sockets = spec, box, node, budget, sockets
        admin = sockets / "admin.sock"
        self.envoy = Envoy(spec.id, folder, admin, lambda argv: box.command(argv, app=False), environment, changed)
        self.envoy.level, self.envoy.drain = level, spec.drain
        self.relay: Envoy | None = None
        passed = {port.bound: str(sockets / f"{port.bound}.sock") for port in spec.ports} if relayed else {}
        self.envoy.configure(self._bootstrap(passed))
        if relayed:
            admin = sockets / "relay.sock"
            self.relay = Envoy(f"{spec.id} (relay)", folder / "relay", admin, _on_the_host, environment, changed)
            everywhere = "0.0.0.0"  # noqa: S104 - on the addresses that a gateway binds where nothing lies between
            self.relay.configure(relay.relay_bootstrap(everywhere, passed, admin_socket=str(admin), budget=budget))

    @property
    def processes(self) -> tuple[Process | None, Process | None]:
        """What runs now: Envoy, relay."""
        return self.envoy.process, self.relay.process if self.relay else None

    def start(self, envoy: Process | None = None, former_relay: Process | None = None) -> None:
        """Run both; those that an earlier agent started, and that still run, are taken over."""
        for mine, running in ((self.envoy, envoy), (self.relay, former_relay)):
            if mine is None:
                continue
            if running is not None and running.alive:
                mine.adopt(running)
            else:
                mine.start()

    async def serves(self, timeout: float) -> bool:
        """Wait until requests can pass; False where they cannot within `timeout` seconds."""
        for one in (self.envoy, self.relay):
            if one is not None and not await one.until(State.READY, timeout=timeout):
                return False
        return True

    async def quiet(self, seconds: float) -> None:
        """Connections to it are told to end; return when nothing that came in is under way, or so many seconds are over."""
        await self.envoy.quiet(seconds)

    async def stop(self, drain: float) -> None:
        """Nothing new comes in, what is under way ends (within `drain` seconds), both go."""
        if self.relay is not None and drain <= 0:
            await self.relay.stop(0)
        await self.envoy.stop(drain)
        if self.relay is not None:
            await self.relay.stop(0)

    async def close(self) -> None:
        """Let go; both run on."""
        await self.envoy.close()
        if self.relay is not None:
            await self.relay.close()

    def _bootstrap(self, passed: Mapping[int, str]) -> dict[str, Any]:
        spec, box = self.spec, self._box
        own = objects.labels(spec)
        gateway = spec.kind is Kind.GATEWAY
        made = bootstrap.bootstrap(
            bootstrap.Options(
                node_id=spec.id,
                cluster=f"{own['app']}.{spec.namespace}",
                xds_socket=str(self._sockets / "xds.sock"),
                admin_socket=str(self.envoy.admin.path),
                metadata={"LABELS": own, "NAMESPACE": spec.namespace, "NODE": self._node},
                address=box.address if box.capture is Capture.PROXY else "0.0.0.0",  # noqa: S104 - inside its own namespace
                # A gateway shares the host's ports with whatever else is there.
                health_port=0 if gateway else box.proxy_ports.health,
                metrics_port=0 if gateway else box.proxy_ports.metrics,
                merged_port=MERGED_METRICS if box.capture is Capture.NETNS else 0,
                merged_socket="" if gateway else str(self._sockets / METRICS_SOCKET),
                ipv6=box.ipv6,
                mark=PROXY_MARK if box.capture is Capture.NETNS else 0,
                dns_port=PROXY_DNS_PORT if box.capture is Capture.NETNS else 0,
                heap_bytes=self._budget.heap_bytes,
                connections=self._budget.connections,
            )
        )
        for kind, rows in relay.inner_resources(passed).items() if passed else ():
            made["static_resources"][kind] += rows
        return made


def _on_the_host(argv: Sequence[str]) -> list[str]:
    return launch.command(argv, proxy=True)
