"""What a node asks of a workload's application: whether it is ready, and its own metrics."""

from __future__ import annotations

from collections.abc import Callable

from tulle.client.node_api import Kind, WorkloadSpec
from tulle.node import health, probing
from tulle.node.health import Readiness
from tulle.node.metrics.application import exposition, scraped
from tulle.node.network import Sandbox


async def watch(spec: WorkloadSpec, box: Sandbox, readiness: Readiness, changed: Callable[[bool], None]) -> None:
    """Keep `readiness`, and tell each change of it: by a probe where one was asked for, else by the ports that were declared.

    A gateway's application is its Envoy, and what declared no ports is not called: both are ready.
    """
    if spec.probe is not None:

        def probed(ready: bool) -> None:
            readiness.ready = ready
            changed(ready)

        await probing.watch(spec.probe, box, probed, readiness.ready, box.app_environment())
    declared = () if spec.kind is Kind.GATEWAY else spec.ports
    if not declared:
        readiness.ready = True
        changed(True)
        return
    tcp, udp = ([box.app_ports[port.bound] for port in declared if port.is_udp is it] for it in (False, True))
    await health.watch(tcp, box.listening, changed, readiness, udp, box.receiving)


async def metrics(spec: WorkloadSpec, box: Sandbox | None) -> str:
    """What the application itself exposes, in Prometheus' format; "" where it says of nothing, or is not there."""
    where = exposition(spec.annotations, tuple(port.bound for port in spec.ports))
    return await scraped(box, where) if where is not None and box is not None else ""
