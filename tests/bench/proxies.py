"""Many simulated proxies in one process: real delta ADS over mutual TLS, acknowledged at once, nothing else done.

Each asks for what an Envoy asks for (clusters, their endpoints, listeners, their route tables, virtual hosts), or for some
extensions by name alone. Told a type on standard input, it prints when the last proxy has acknowledged a response of that type;
told `taken`, how many responses all of them have. Times are `time.monotonic`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from pathlib import Path
from typing import Any

import grpc
import uvloop

from tulle.core import type_urls
from tulle.pb.envoy.config.core.v3 import base_pb2
from tulle.pb.envoy.config.listener.v3 import listener_pb2
from tulle.pb.envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2
from tulle.pb.envoy.service.discovery.v3 import discovery_pb2

_METHOD = "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources"
_PROXIES_PER_NODE = 50


class _Crowd:
    """All proxies together: who has acknowledged the type that is watched, and when it was last quiet."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.watched = ""
        self.acked: set[str] = set()
        self.taken = 0
        self.last = time.monotonic()
        self.done = asyncio.Event()

    def took(self, proxy: str, type_url: str) -> None:
        self.last = time.monotonic()
        self.taken += 1
        if type_url == self.watched:
            self.acked.add(proxy)
            if len(self.acked) == self.count:
                self.done.set()


class _Proxy:
    def __init__(self, crowd: _Crowd, channel: grpc.aio.Channel, name: str, extensions: list[str]) -> None:
        self.crowd, self.name, self.extensions = crowd, name, extensions
        self.call = channel.stream_stream(_METHOD)()

    async def _send(self, type_url: str, *, subscribe: list[str] | None = None, nonce: str = "") -> None:
        request = discovery_pb2.DeltaDiscoveryRequest(type_url=type_url, response_nonce=nonce)
        request.node.CopyFrom(base_pb2.Node(id=self.name, cluster="bench"))
        request.resource_names_subscribe.extend(subscribe or [])
        await self.call.write(request.SerializeToString())

    async def run(self) -> None:
        if self.extensions:
            await self._send(type_urls.EXTENSION, subscribe=self.extensions)
        else:
            await self._send(type_urls.CLUSTER, subscribe=["*"])
            await self._send(type_urls.LISTENER, subscribe=["*"])
        known: set[tuple[str, str]] = set()
        while True:
            data = await self.call.read()
            if data is grpc.aio.EOF:
                raise RuntimeError(f"the stream of {self.name} ended: {await self.call.code()}")
            response = discovery_pb2.DeltaDiscoveryResponse.FromString(data)
            await self._send(response.type_url, nonce=response.nonce)
            self.crowd.took(self.name, response.type_url)
            fresh = [pair for pair in _references(response) if pair not in known]
            known.update(fresh)
            for type_url in {pair[0] for pair in fresh}:
                await self._send(type_url, subscribe=[name for kind, name in fresh if kind == type_url])


def _references(response: Any) -> list[tuple[str, str]]:
    if response.type_url == type_urls.CLUSTER:
        return [(type_urls.ENDPOINT, item.name) for item in response.resources if item.name.startswith("outbound|")]
    if response.type_url == type_urls.ROUTE:
        return [(type_urls.VIRTUAL_HOST, item.name) for item in response.resources]
    if response.type_url != type_urls.LISTENER:
        return []
    found = []
    for item in response.resources:
        listener = listener_pb2.Listener.FromString(item.resource.value)
        for chain in [*listener.filter_chains, listener.default_filter_chain]:
            for filter_ in chain.filters:
                if filter_.typed_config.type_url.endswith("HttpConnectionManager"):
                    manager = http_connection_manager_pb2.HttpConnectionManager.FromString(filter_.typed_config.value)
                    if manager.rds.route_config_name:
                        found.append((type_urls.ROUTE, manager.rds.route_config_name))
    return found


async def _run(arguments: argparse.Namespace) -> None:
    root, key, chain = (Path(arguments.certificates, name).read_bytes() for name in ("root.pem", "node.key", "node.pem"))
    credentials = grpc.ssl_channel_credentials(root, key, chain)
    crowd = _Crowd(arguments.count)
    proxies: list[_Proxy] = []
    for number in range(arguments.count):
        if number % _PROXIES_PER_NODE == 0:
            options = [("grpc.max_receive_message_length", -1), ("grpc.use_local_subchannel_pool", 1)]
            channel = grpc.aio.secure_channel(arguments.target, credentials, options=options)
        proxies.append(_Proxy(crowd, channel, f"default/w{number}", arguments.extensions))
    began = time.monotonic()
    running = [asyncio.ensure_future(proxy.run()) for proxy in proxies]
    crowd.last = time.monotonic() + 5
    while time.monotonic() - crowd.last < 1.5:
        await asyncio.sleep(0.1)
        for task in running:
            if task.done():
                task.result()
    print(json.dumps({"ready": crowd.last - began}), flush=True)
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        if line.strip() == "taken":
            print(json.dumps({"taken": crowd.taken}), flush=True)
            continue
        crowd.watched, crowd.acked = line.strip(), set()
        crowd.done.clear()
        print(json.dumps({"watching": crowd.watched}), flush=True)
        try:
            await asyncio.wait_for(crowd.done.wait(), 60)
        except TimeoutError:
            print(json.dumps({"missing": crowd.count - len(crowd.acked)}), flush=True)
            continue
        print(json.dumps({"last": crowd.last}), flush=True)
    for task in running:
        task.cancel()


def main() -> None:
    """Run until standard input ends."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("target")
    parser.add_argument("certificates")
    parser.add_argument("--count", type=int, default=500)
    parser.add_argument("--extensions", nargs="*", default=[])
    uvloop.run(_run(parser.parse_args()))


if __name__ == "__main__":
    main()
