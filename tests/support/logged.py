"""An Envoy that answers by itself, with loggers: `/bad` with 503, everything else with 200."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import aiohttp
from google.protobuf import json_format

from tests.support.envoy import Proxy
from tests.support.mesh import free_port
from tulle.core.envoy.bootstrap import Options, bootstrap
from tulle.pb import pool
from tulle.pb.envoy.config.accesslog.v3 import accesslog_pb2

_TYPE = "type.googleapis.com/envoy.extensions.filters"


def logged(folder: Path, loggers: Iterable[accesslog_pb2.AccessLog]) -> tuple[dict[str, Any], int]:
    """Its bootstrap, with sockets in a folder, and its port."""
    sockets = {"xds_socket": f"{folder}/xds.sock", "admin_socket": f"{folder}/admin.sock"}
    made = bootstrap(Options(node_id="d/w", cluster="w.d", health_port=0, metrics_port=0, **sockets))  # type: ignore[arg-type]
    del made["dynamic_resources"]
    routes = [
        {"match": {"prefix": prefix}, "direct_response": {"status": status}} for prefix, status in (("/bad", 503), ("/", 200))
    ]
    manager = {
        "@type": f"{_TYPE}.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "in",
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": routes}]},
        "http_filters": [{"name": "envoy.filters.http.router", "typed_config": {"@type": f"{_TYPE}.http.router.v3.Router"}}],
        "access_log": [
            json_format.MessageToDict(one, preserving_proto_field_name=True, descriptor_pool=pool()) for one in loggers
        ],
    }
    filters = [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]
    port = free_port()
    address = {"socket_address": {"address": "127.0.0.1", "port_value": port}}
    made["static_resources"]["listeners"].append({"name": "in", "address": address, "filter_chains": [{"filters": filters}]})
    return made, port


class Asked:
    """The running one."""

    def __init__(self, proxy: Proxy, port: int) -> None:
        self.proxy, self._port = proxy, port

    async def ask(self, *paths: str) -> list[int]:
        """The statuses of requests, one after the other."""
        async with aiohttp.ClientSession() as session:
            found = []
            for path in paths:
                async with session.get(f"http://127.0.0.1:{self._port}{path}") as reply:
                    found.append(reply.status)
            return found

    async def stat(self, name: str) -> int:
        """A counter."""
        found = json.loads(await self.proxy.admin(f"/stats?format=json&filter=^{name}$"))["stats"]
        return int(next((one["value"] for one in found if one.get("name") == name), 0))
