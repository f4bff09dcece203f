"""The bootstrap, started: probes and scrapes are answered, administration is nobody else's."""

from __future__ import annotations

import asyncio
import stat
from pathlib import Path

import aiohttp
from msgspec import structs

from tests.support.ads import serving
from tests.support.envoy import running, validate
from tests.support.mesh import free_port
from tests.unit.api.test_parts import LARGEST
from tulle.core.envoy.bootstrap import Options, bootstrap
from tulle.core.envoy.listeners import encode_outbound
from tulle.core.envoy.routes import encode_host, encode_table
from tulle.core.model.route import MatchKind, Route, RouteMatch, RouteTableKey, TextMatch, VirtualHost
from tulle.core.model.workload import Outbound


async def test_probes_and_scrapes(tmp_path: Path) -> None:
    """Broken: the app would start before its proxy is ready, or anybody on the network could stop the proxy."""
    options = Options(
        node_id="n",  # a boolean, if this were YAML
        cluster="a.default",
        metadata={"LABELS": {"app": "a"}},
        xds_socket=str(tmp_path / "xds.sock"),
        admin_socket=str(tmp_path / "admin.sock"),
        address="127.0.0.1",
        health_port=free_port(),
        metrics_port=free_port(),
    )
    health, metrics = (f"http://127.0.0.1:{port}" for port in (options.health_port, options.metrics_port))
    async with aiohttp.ClientSession() as session, running(bootstrap(options), tmp_path) as proxy:

        async def get(url: str) -> tuple[int, str]:
            async with session.get(url) as reply:
                return reply.status, await reply.text()

        await proxy.until("/server_info", '"id": "n"')
        assert "INITIALIZING" in await proxy.admin("/ready")
        async with serving(tmp_path / "xds.sock") as ads:
            await ads.until(lambda heard: {"CDS", "LDS"} <= {kind for kind, _, _ in heard.requests})
            await proxy.until("/ready", "LIVE")
            assert await get(f"{health}/healthz/ready") == (200, "LIVE\n")
            status, text = await get(f"{metrics}/stats/prometheus")
            assert status == 200
            assert "envoy_server_live" in text
            for url in (f"{health}/quitquitquit", f"{metrics}/config_dump", f"{health}/healthz/ready/../../quitquitquit"):
                assert (await get(url))[0] == 404
        assert stat.S_IMODE((tmp_path / "admin.sock").stat().st_mode) == 0o600


def test_no_expression_that_is_let_in_is_too_large_for_a_proxy(tmp_path: Path) -> None:
    """Broken: one route's expression would keep every proxy from all that changes after it."""
    table = RouteTableKey(9080, "default")
    rules = tuple(Route(str(at), RouteMatch(TextMatch(MatchKind.REGEX, one))) for at, one in enumerate(LARGEST))
    host = encode_host(table, VirtualHost("a", ("a",), rules))
    listeners = encode_outbound(Outbound("default", http=(table,)))
    assert validate([[*listeners, encode_table(table), host]], tmp_path) == ""
    too_large = Route("large", RouteMatch(TextMatch(MatchKind.REGEX, f"({'a' * 40}){{1000}}")))
    refused = encode_host(table, VirtualHost("a", ("a",), (too_large,)))
    assert "program size" in validate([[*listeners, encode_table(table), refused]], tmp_path)


def test_the_mark_is_on_every_connection_of_the_proxy() -> None:
    """Broken: the proxy's own connections would be captured, and go round for ever."""
    plain = Options(node_id="a", cluster="a", xds_socket="x", admin_socket="y")
    assert "cluster_manager" not in bootstrap(plain)
    marked = bootstrap(Options(node_id="a", cluster="a", xds_socket="x", admin_socket="y", mark=1337))
    (option,) = marked["cluster_manager"]["upstream_bind_config"]["socket_options"]
    assert (option["level"], option["name"], option["int_value"]) == (1, 36, 1337)


async def test_without_memory_it_refuses_work_and_can_still_be_looked_at(tmp_path: Path) -> None:
    """Broken: a proxy out of memory would be killed with all that is under way, or nobody could see what is wrong with it."""
    port = free_port()
    options = Options(
        node_id="n",
        cluster="a.default",
        xds_socket=str(tmp_path / "xds.sock"),
        admin_socket=str(tmp_path / "admin.sock"),
        address="127.0.0.1",
        health_port=0,
        metrics_port=free_port(),
        heap_bytes=1 << 20,  # less than it has at its start
    )
    made = bootstrap(options)
    health = bootstrap(structs.replace(options, health_port=port, metrics_port=0))["static_resources"]["listeners"][0]
    made["static_resources"]["listeners"].append(
        {name: value for name, value in health.items() if name not in ("bypass_overload_manager", "ignore_global_conn_limit")}
    )

    async def status(session: aiohttp.ClientSession, url: str) -> int:
        try:
            async with session.get(url) as reply:
                return reply.status
        except (aiohttp.ClientError, TimeoutError):
            return 0

    async with serving(tmp_path / "xds.sock"), running(made, tmp_path) as proxy:
        await proxy.until("/ready", "LIVE")
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=2)) as session:
            async with asyncio.timeout(20):  # it looks at its memory a few times a second
                while await status(session, f"http://127.0.0.1:{port}/healthz/ready") == 200:  # noqa: ASYNC110
                    await asyncio.sleep(0.05)
            assert await status(session, f"http://127.0.0.1:{port}/healthz/ready") in (0, 503)
            assert await status(session, f"http://127.0.0.1:{options.metrics_port}/stats/prometheus") == 200
