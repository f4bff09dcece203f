"""`tulle gateway`: a gateway workload that lives as long as this process does."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from pathlib import Path

import msgspec

from tulle.app.private_node import node_agent
from tulle.client.node_api import NodeClient, Owner, WorkloadSpec
from tulle.node.process import this


async def run_gateway(
    spec: WorkloadSpec, *, socket: Path | None = None, ready: Callable[[str], None] = lambda address: None, timeout: float = 30.0
) -> int:
    """Start it through this host's node agent (where none runs, one is started for it), and take it away when a signal comes.

    The agent drains it first. It goes too where this process dies in another way, for it is the gateway's owner.
    """
    ending = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ending.set)
    owner = this()
    owned = msgspec.structs.replace(spec, owner=Owner(owner.pid, owner.started))
    async with node_agent(socket) as agent:
        async with NodeClient(agent) as node:
            status = await node.add(owned, timeout=timeout)
        ready(status.address)
        await ending.wait()
        async with NodeClient(agent) as node:
            await node.remove(spec.id, timeout=60 + spec.drain)
    return 0
