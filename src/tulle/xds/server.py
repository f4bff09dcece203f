"""The ADS server: between the control plane and its nodes over mutual TLS, between a node and its Envoys over Unix sockets.

Signatures first; the body follows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import grpc

from tulle.core.encoded import Published, Source
from tulle.xds.status import Nack, ProxyStatus


class Observer:
    """What a server tells whoever wants to know; every method does nothing unless overridden. Called in the event loop,
    from inside the stream: return quickly, do not raise.

    `stream` numbers the streams of a server: a proxy that reconnects has a new one, and the old may end after the new began.
    """

    def connected(self, proxy: str, stream: int) -> None:
        """The proxy's first request came and was authorized."""

    def disconnected(self, proxy: str, stream: int) -> None:
        """The stream ended."""

    def subscribed(self, proxy: str, stream: int, type_url: str, subscribe: Sequence[str], unsubscribe: Sequence[str]) -> None:
        """The proxy changed what it wants of a type. `*` is all of it (also where the proxy used the older form)."""

    def acked(self, proxy: str, stream: int, type_url: str, revision: int) -> None:
        """The proxy acknowledged the response of a type that was made at `revision`."""

    def nacked(self, proxy: str, stream: int, nack: Nack) -> None:
        """The proxy refused a response."""

    def synced(self, proxy: str, stream: int, revision: int) -> None:
        """All that the source had for this proxy at `revision` is answered."""


class AdsServer:
    """Serves a `Source` to any number of proxies by delta ADS.

    `authorize(peer, proxy)` is asked once a stream, with the peer's SPIFFE ID (None over a Unix socket) and the `node.id` that
    it claims; it raises `kit.errors.Refused` to close the stream. `known(proxy, type_url, name)` tells whether the absence of
    a name (or of everything: `*`) from the source is a fact; where it returns False the proxy is not told anything until a
    `publish` names the resource (as None where it does not exist). Default: absence is a fact.
    """

    def __init__(
        self,
        source: Source,
        authorize: Callable[[str | None, str], None] = lambda peer, proxy: None,
        observer: Observer | None = None,
        known: Callable[[str, str, str], bool] = lambda proxy, type_url, name: True,
        clock: Callable[[], float] | None = None,
    ) -> None: ...

    @property
    def handlers(self) -> tuple[grpc.GenericRpcHandler, ...]:
        """For `grpc.aio.Server.add_generic_rpc_handlers`. Make that server with `options=xds.server.OPTIONS`."""
        raise NotImplementedError

    def publish(self, published: Published) -> None:
        """The source moved: call directly after the commit that moved it, without an `await` between. Per stream only the
        changed names of its layers are looked at. Synchronous; the responses go out when the loop runs on.
        """
        raise NotImplementedError

    def proxies(self) -> list[ProxyStatus]:
        """Every connected stream, sorted by proxy."""
        raise NotImplementedError

    async def wait_synced(self, revision: int, timeout: float) -> list[str]:
        """Wait until every connected proxy that the source knows has answered all of `revision`; the ids of those that
        have not after `timeout` seconds (empty: all have). Waits for the source to get to `revision` first.
        """
        raise NotImplementedError

    async def close(self) -> None:
        """End every stream."""
        raise NotImplementedError
