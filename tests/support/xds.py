"""An ADS server on a Unix socket or on mutual TLS, for tests; everything is stopped at the end of the block."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import grpc

from tulle.core.envoy.tap import NAME as TAP
from tulle.node.logs.runtime import Runtime
from tulle.xds.client import AdsClient
from tulle.xds.server import OPTIONS, AdsServer


@asynccontextmanager
async def listening(server: AdsServer, socket: str = "", credentials: grpc.ServerCredentials | None = None) -> AsyncIterator[str]:
    """Serve on a Unix socket's path, or on a free port with TLS; gives the target to dial."""
    transport = grpc.aio.server(options=OPTIONS)
    transport.add_generic_rpc_handlers((*server.handlers, Runtime(TAP).handler))
    if credentials is None:
        target = f"unix:{socket}"
        transport.add_insecure_port(target)
    else:
        target = f"127.0.0.1:{transport.add_secure_port('127.0.0.1:0', credentials)}"
    await transport.start()
    try:
        yield target
    finally:
        await server.close()
        await transport.stop(None)


@asynccontextmanager
async def connected(client: AdsClient) -> AsyncIterator[AdsClient]:
    """Run a client in the background."""
    task = asyncio.create_task(client.run())
    try:
        yield client
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


class Watch:
    """Wait for a condition that events make true: call `changed` after each of them."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def changed(self, *_: object) -> None:
        """Something happened."""
        self._event.set()

    async def until(self, condition: Callable[[], bool], deadline: float = 10.0) -> None:
        """Return when the condition holds; fails after `deadline` seconds."""
        async with asyncio.timeout(deadline):
            while not condition():
                await self._event.wait()
                self._event.clear()
