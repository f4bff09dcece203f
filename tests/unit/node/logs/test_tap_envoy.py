"""A tap at a real Envoy: what it tells, and that it stops by itself when nobody says any more that it should go on."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from tests.support.envoy import Proxy, running
from tests.support.logged import Asked, logged
from tulle.core.envoy.tap import LEAST, SHARE, TAP
from tulle.core.model.looks import Look, Wanted
from tulle.node.logs.tap import Tap, Viewer


class Tapped(Asked):
    """A tap, the gRPC server that has it, and the Envoy that tells."""

    def __init__(self, tap: Tap, server: Any, proxy: Proxy, port: int) -> None:
        super().__init__(proxy, port)
        self.tap, self.server = tap, server

    async def switches(self) -> dict[str, str]:
        """What Envoy's runtime has now."""
        entries = json.loads(await self.proxy.admin("/runtime?format=json")).get("entries", {})
        return {name: entries[name]["final_value"] for name in (SHARE, LEAST) if entries.get(name, {}).get("final_value")}

    async def until(self, on: bool) -> None:
        async with asyncio.timeout(20):
            while bool(await self.switches()) is not on:  # noqa: ASYNC110 - Envoy tells nobody
                await asyncio.sleep(0.05)

    async def seen(self, viewer: Viewer) -> list[tuple[str, int]]:
        async with asyncio.timeout(20):
            await viewer.moved.wait()
        return [(one.path, one.status) for one in viewer.take()]


@pytest.fixture
async def tapped(tmp_path: Path) -> AsyncIterator[Tapped]:
    tap = Tap()
    server = grpc.aio.server()
    server.add_generic_rpc_handlers(tap.handlers)
    server.add_insecure_port(f"unix:{tmp_path}/xds.sock")
    await server.start()
    made, port = logged(tmp_path, [TAP])
    async with running(made, tmp_path) as proxy:
        await proxy.until("/ready", "LIVE")
        yield Tapped(tap, server, proxy, port)
    await server.stop(None)


async def test_what_is_told_while_somebody_looks(tapped: Tapped) -> None:
    """Broken: `tulle tap` would show nothing, or others than the requests that are looked for; or Envoy would tell for nobody."""
    tap = tapped.tap
    assert tap.able
    assert await tapped.ask("/before") == [200]
    everything = tap.begin(Look("a", "d/w", "tap"))
    await tapped.until(on=True)
    assert await tapped.ask("/good?token=secret") == [200]
    assert await tapped.seen(everything) == [("/good", 200)]
    tap.end(everything)
    await tapped.until(on=False)
    errors = tap.begin(Look("b", "d/w", "tap", Wanted(statuses=((500, 599),))))
    await tapped.until(on=True)
    assert await tapped.ask("/good", "/bad") == [200, 503]
    assert await tapped.seen(errors) == [("/bad", 503)]
    assert await tapped.stat("access_logs.grpc_access_log.logs_written") == 2  # what is not looked for never left Envoy
    tap.end(errors)
    await tapped.until(on=False)


async def test_it_stops_when_the_agent_dies(tapped: Tapped) -> None:
    """Broken: a node agent that is killed while somebody looks would leave proxies telling of every request, to nobody."""
    tapped.tap.begin(Look("a", "d/w", "tap"))
    await tapped.until(on=True)
    await tapped.server.stop(None)
    await tapped.until(on=False)
    assert await tapped.ask("/after") == [200]
