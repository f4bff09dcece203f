"""How a real Envoy does virtual hosts by delta ADS: what `core/envoy/routes.py` says of it, and `xds/` is built on."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest

from tests.support.ads import Ads, serving
from tests.support.envoy import Proxy, running
from tests.support.mesh import free_port
from tulle.core import type_urls
from tulle.core.encoded import Encoded
from tulle.core.envoy.bootstrap import Options, bootstrap
from tulle.core.envoy.listeners import encode_workload
from tulle.core.envoy.routes import encode_host, encode_table
from tulle.core.model.gateway import GatewayChain, GatewayListener
from tulle.core.model.route import Route, RouteTableKey, VirtualHost
from tulle.core.model.workload import Capture, Workload


def table() -> RouteTableKey:
    return RouteTableKey(free_port(), "tulle-system", "tulle-system/gateway")


def listening(*tables: RouteTableKey) -> tuple[Encoded, ...]:
    """A gateway with a listener on this machine for every table."""
    return encode_workload(
        Workload(
            id="tulle-system/gateway",
            namespace="tulle-system",
            name="gateway",
            identity="spiffe://cluster.local/ns/tulle-system/sa/gateway",
            address="127.0.0.1",
            capture=Capture.NONE,
            listeners=tuple(GatewayListener(key.port, (GatewayChain(table=key),), "127.0.0.1") for key in tables),
        )
    )


def answering(key: RouteTableKey, name: str, status: int) -> Encoded:
    return encode_host(key, VirtualHost(name, (name,), (Route(status=status),)))


async def ask(key: RouteTableKey, host: str) -> int:
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"http://127.0.0.1:{key.port}/", headers={"Host": host}) as reply,
    ):
        return reply.status


@asynccontextmanager
async def started(ads: Ads, scratch: Path) -> AsyncIterator[Proxy]:
    options = Options(
        node_id="tulle-system/gateway",
        cluster="gateway.tulle-system",
        xds_socket=str(scratch / "xds.sock"),
        admin_socket=str(scratch / "admin.sock"),
        health_port=0,
        metrics_port=0,
    )
    async with running(bootstrap(options), scratch) as proxy:
        yield proxy
    assert ads.nacks == []


async def test_hosts_come_change_and_go(tmp_path: Path) -> None:
    """Broken: a route would not take effect, or a deleted one would not go, without touching listener or table."""
    key = table()
    async with serving(tmp_path / "xds.sock") as ads:
        ads.put([*listening(key), encode_table(key), answering(key, "a", 201)])
        async with started(ads, tmp_path) as proxy:
            await proxy.until("/ready", "LIVE")
            assert await ask(key, "a") == 201
            assert await ask(key, f"a:{key.port}") == 201
            ads.put([answering(key, "b", 202), answering(key, "a", 203)])
            await ads.quiet()
            assert (await ask(key, "a"), await ask(key, "b")) == (203, 202)
            ads.remove(type_urls.VIRTUAL_HOST, key.host_resource("b"))
            await ads.quiet()
            assert (await ask(key, "a"), await ask(key, "b")) == (203, 404)
        asked = [request for request in ads.requests if request[0] == "VHDS"]
        assert asked[0][1] == ("*",), "the first request names nothing, which this ADS takes as all"
        assert [names for _, names, _ in asked[1:] if names] == []


async def test_hosts_must_follow_their_table(tmp_path: Path) -> None:
    """Broken (if Envoy changes): the server's order, hosts after the ACK of their table, would be needless or not enough."""
    first, second = table(), table()
    async with serving(tmp_path / "xds.sock") as ads:
        ads.put([*listening(first), encode_table(first), answering(first, "a", 201)])
        async with started(ads, tmp_path) as proxy:
            await proxy.until("/ready", "LIVE")
            ads.put([answering(second, "a", 202)])
            await ads.quiet()  # taken, and dropped
            asked = len(ads.requests)
            ads.put([encode_table(second), *listening(first, second)])
            await ads.until(lambda heard: ("RDS", (), ()) in heard.requests[asked:])
            assert [request for request in ads.requests[asked:] if request[0] == "VHDS"] == []
            with pytest.raises(aiohttp.ClientConnectorError):
                await ask(second, "a")
            ads.put([answering(second, "a", 202)])
            await ads.quiet()
            await proxy.until("/listeners", str(second.port))
            assert await ask(second, "a") == 202


async def test_an_empty_table_is_told_by_a_removal(tmp_path: Path) -> None:
    """Broken (if Envoy changes): a gateway without routes would keep its port closed, or its proxy never be ready."""
    key = table()
    async with serving(tmp_path / "xds.sock") as ads:
        ads.put([*listening(key), encode_table(key)])
        async with started(ads, tmp_path) as proxy:
            await ads.until(lambda heard: sum(kind == "VHDS" for kind, _, _ in heard.requests) == 2)
            assert "LIVE" not in await proxy.admin("/ready")
            ads.send(type_urls.VIRTUAL_HOST, (), (key.host_resource("none"),))
            await proxy.until("/ready", "LIVE", deadline=2)
            assert await ask(key, "a") == 404


async def test_a_new_stream_catches_up(tmp_path: Path) -> None:
    """Broken: after the node agent came back, changed routes would not reach its Envoys."""
    key = table()
    async with serving(tmp_path / "xds.sock") as ads:
        ads.put([*listening(key), encode_table(key), answering(key, "a", 201)])
        async with started(ads, tmp_path) as proxy:
            await proxy.until("/ready", "LIVE")
            await ads.stop()
            assert await ask(key, "a") == 201
            ads.put([answering(key, "a", 202)])
            await ads.start()
            await ads.until(lambda heard: any(kind == "VHDS" for kind, _, _ in heard.requests))
            await ads.quiet()
            assert await ask(key, "a") == 202


def test_no_name_of_a_port_is_taken_for_the_name_of_a_host() -> None:
    """Broken: a port named `a/b` would make a table whose hosts no proxy finds, for Envoy splits their names at the first "/"."""
    keys = [RouteTableKey(443, "default", "default/gw", section=f"{name}~shop~default") for name in ("a/b", "a%2Fb", "a.b")]
    assert all("/" not in key.name for key in keys)
    assert len({key.name for key in keys}) == len(keys)
