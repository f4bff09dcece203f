"""The smallest delta ADS that can serve an Envoy: answers what is asked, sends what is put, and writes down what it hears.

Not the product's server (`tulle.xds.server`): with this one, tests learn how Envoy itself behaves.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc

from tulle.core import type_urls
from tulle.core.encoded import Encoded
from tulle.core.envoy.authorization import encode_authorization
from tulle.core.envoy.tap import NAME as TAP
from tulle.core.model.authorization import OPEN, OPEN_TO_STRANGERS, Authorization
from tulle.node.logs.runtime import Runtime
from tulle.pb.envoy.service.discovery.v3 import discovery_pb2

# Asked for without names, these mean all there is.
_WILDCARD = (type_urls.CLUSTER, type_urls.LISTENER, type_urls.VIRTUAL_HOST)


class Ads:
    """Holds resources by type and name, at first the guards that ask nothing. `put` and `remove` send to whoever subscribed."""

    def __init__(self, socket: Path) -> None:
        self.resources: dict[str, dict[str, Encoded]] = defaultdict(dict)
        self.resources[type_urls.EXTENSION] |= {
            one.name: one for guard in (OPEN, OPEN_TO_STRANGERS) for one in encode_authorization(Authorization(guard))
        }
        self.subscribed: dict[str, set[str]] = defaultdict(set)
        self.requests: list[tuple[str, tuple[str, ...], tuple[str, ...]]] = []
        self.nacks: list[str] = []
        self.acks = 0
        self._socket = socket
        self._server: grpc.aio.Server | None = None
        self._out: asyncio.Queue[bytes] = asyncio.Queue()
        self._heard = asyncio.Condition()
        self._sent = 0

    def put(self, resources: Iterable[Encoded]) -> None:
        """Add or change, and send to a stream that wants it."""
        by_type: dict[str, list[Encoded]] = defaultdict(list)
        for resource in resources:
            self.resources[resource.type_url][resource.name] = resource
            if self._wants(resource.type_url, resource.name):
                by_type[resource.type_url].append(resource)
        for type_url, changed in by_type.items():
            self.send(type_url, changed)

    def remove(self, type_url: str, name: str) -> None:
        """Take away, and say so."""
        del self.resources[type_url][name]
        self.send(type_url, (), (name,))

    def send(self, type_url: str, resources: Iterable[Encoded], removed: Iterable[str] = ()) -> None:
        """One response, whatever is in it."""
        self._sent += 1
        response = discovery_pb2.DeltaDiscoveryResponse(
            type_url=type_url,
            resources=[discovery_pb2.Resource.FromString(resource.resource) for resource in resources],
            removed_resources=removed,
            nonce=str(self._sent),
        )
        self._out.put_nowait(response.SerializeToString())

    async def until(self, condition: Callable[[Ads], bool], deadline: float = 10.0) -> None:
        """Wait until what was heard fulfils the condition."""
        async with asyncio.timeout(deadline), self._heard:
            await self._heard.wait_for(lambda: condition(self))

    async def quiet(self) -> None:
        """Wait until every response is acknowledged or refused."""
        await self.until(lambda ads: ads.acks + len(ads.nacks) >= ads._sent)

    def _wants(self, type_url: str, name: str) -> bool:
        wanted = self.subscribed[type_url]
        return "*" in wanted or name in wanted

    async def _hear(self, requests: AsyncIterator[bytes]) -> None:
        async for raw in requests:
            request = discovery_pb2.DeltaDiscoveryRequest.FromString(raw)
            type_url = request.type_url
            subscribe = tuple(request.resource_names_subscribe)
            if type_url in _WILDCARD and not self.subscribed[type_url] and not subscribe:
                subscribe = ("*",)
            self.requests.append((type_urls.SHORT[type_url], subscribe, tuple(request.resource_names_unsubscribe)))
            self.subscribed[type_url] |= set(subscribe)
            self.subscribed[type_url] -= set(request.resource_names_unsubscribe)
            if request.response_nonce:
                if request.HasField("error_detail"):
                    self.nacks.append(request.error_detail.message)
                else:
                    self.acks += 1
            if subscribe:
                found = [resource for name, resource in self.resources[type_url].items() if "*" in subscribe or name in subscribe]
                self.send(type_url, found)
            async with self._heard:
                self._heard.notify_all()

    async def stream(self, requests: AsyncIterator[bytes], _context: Any) -> AsyncIterator[bytes]:
        """The gRPC method."""
        hearing = asyncio.create_task(self._hear(requests))
        try:
            while True:
                yield await self._out.get()
        finally:
            hearing.cancel()

    async def start(self) -> None:
        """Listen; what was heard of an earlier stream is forgotten."""
        self.requests.clear()
        self.subscribed.clear()
        self.acks = self._sent = 0
        self._out = asyncio.Queue()
        self._server = grpc.aio.server()
        handler = grpc.method_handlers_generic_handler(
            "envoy.service.discovery.v3.AggregatedDiscoveryService",
            {"DeltaAggregatedResources": grpc.stream_stream_rpc_method_handler(self.stream)},
        )
        self._server.add_generic_rpc_handlers((handler, Runtime(TAP).handler))
        self._server.add_insecure_port(f"unix:{self._socket}")
        await self._server.start()

    async def stop(self) -> None:
        """End every stream."""
        if self._server is not None:
            await self._server.stop(None)
            self._server = None


@asynccontextmanager
async def serving(socket: Path) -> AsyncIterator[Ads]:
    """Serve on a Unix socket until the end of the block."""
    ads = Ads(socket)
    await ads.start()
    try:
        yield ads
    finally:
        await ads.stop()
