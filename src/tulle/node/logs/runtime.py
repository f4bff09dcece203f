"""Envoy's runtime, as far as the node sets it while Envoy runs: a layer, over Envoy's own protocol (RTDS), on the node's socket.

What is set has a time to live, and is set again while it holds: when this agent ends, hangs or is killed, Envoy itself takes it
back `LIFE` seconds later. (The administration's `/runtime_modify` holds until somebody takes it back.)
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import Any

import grpc

from tulle.pb import message_class, pack

SERVICE = "envoy.service.runtime.v3.RuntimeDiscoveryService"
TYPE = "type.googleapis.com/envoy.service.runtime.v3.Runtime"
LIFE = 6.0  # seconds
_AGAIN = 2.0

Values = Mapping[str, Any]


class Runtime:
    """The layer `name`: what `set` says; nothing at first."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.listeners = 0  # streams of Envoy: without one nothing can be set
        self.values: Values = {}
        self._version = 0
        self._moved = asyncio.Event()

    def set(self, values: Values) -> None:
        """From now on; empty takes all back."""
        if values != self.values:
            self.values = dict(values)
            self._version += 1
            moved, self._moved = self._moved, asyncio.Event()
            moved.set()

    @property
    def handler(self) -> Any:
        """For the gRPC server that Envoy asks."""
        return grpc.method_handlers_generic_handler(
            SERVICE, {"StreamRuntime": grpc.stream_stream_rpc_method_handler(self._stream)}
        )

    async def _stream(self, requests: AsyncIterator[bytes], _context: Any) -> AsyncIterator[bytes]:
        ended = asyncio.ensure_future(_drain(requests))
        self.listeners += 1
        nonce = 0
        try:
            while not ended.done():
                nonce += 1
                moved, again = self._moved, bool(self.values)
                yield self._response(nonce)
                change = asyncio.ensure_future(moved.wait())
                try:
                    await asyncio.wait((ended, change), timeout=_AGAIN if again else None, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    change.cancel()
        finally:
            self.listeners -= 1
            ended.cancel()

    def _response(self, nonce: int) -> bytes:
        layer: Any = message_class("envoy.service.runtime.v3.Runtime")(name=self.name)
        layer.layer.update(self.values)
        resource: Any = message_class("envoy.service.discovery.v3.Resource")(name=self.name, resource=pack(layer))
        if self.values:
            resource.ttl.FromMilliseconds(int(LIFE * 1000))
        response = message_class("envoy.service.discovery.v3.DiscoveryResponse")(
            version_info=f"{self._version}.{nonce}", nonce=str(nonce), type_url=TYPE, resources=[pack(resource)]
        )
        return response.SerializeToString()


async def _drain(requests: AsyncIterator[bytes]) -> None:
    """Envoy's acknowledgements; ends with the stream."""
    async for _ in requests:
        pass
