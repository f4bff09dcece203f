"""The bootstrap, started: probes and scrapes are answered, administration is nobody else's."""

from __future__ import annotations

import stat
from pathlib import Path

import aiohttp

from tests.support.ads import serving
from tests.support.envoy import running
from tests.support.mesh import free_port
from tulle.core.envoy.bootstrap import Options, bootstrap


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


def test_the_mark_is_on_every_connection_of_the_proxy() -> None:
    """Broken: the proxy's own connections would be captured, and go round for ever."""
    plain = Options(node_id="a", cluster="a", xds_socket="x", admin_socket="y")
    assert "cluster_manager" not in bootstrap(plain)
    marked = bootstrap(Options(node_id="a", cluster="a", xds_socket="x", admin_socket="y", mark=1337))
    (option,) = marked["cluster_manager"]["upstream_bind_config"]["socket_options"]
    assert (option["level"], option["name"], option["int_value"]) == (1, 36, 1337)
