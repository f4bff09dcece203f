"""The upstream side in a node: one delta ADS stream for each of its proxies, all over one channel to the control plane.

Signatures first; the body follows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import msgspec

from tulle.core.encoded import Encoded


class Response(msgspec.Struct, frozen=True):
    """What came for one type: new or changed `resources`, names that are gone (or never were) in `removed`. Answer its
    `nonce` with `AdsClient.ack` or `.nack`. `revision` is the control plane's.
    """

    type_url: str
    nonce: str
    revision: int
    resources: tuple[Encoded, ...]
    removed: tuple[str, ...]


class Upstream:
    """The channel that the clients of a node share. `target` is `host:port` or `unix:/path`."""

    def __init__(self, target: str) -> None: ...

    def use(self, root_pem: bytes, key_pem: bytes, chain_pem: bytes) -> None:
        """TLS with these credentials (`root_pem` the bundle to trust) from now on; running streams move over one by one. Without
        a call the channel has no TLS (Unix sockets).
        """

    async def close(self) -> None:
        """Close the channel; stop the clients first."""


class AdsClient:
    """One proxy's stream to the control plane.

    `deliver(response)` is called in the event loop for each response. `versions(type_url)` is asked at every connect for what
    the node holds (name → version) of a type, so that only what differs is sent. `changed(connected)` tells of the stream's ups
    and downs. `run()` keeps a stream open, with back-off, until cancelled.
    """

    def __init__(
        self,
        upstream: Upstream,
        proxy: str,
        deliver: Callable[[Response], None],
        versions: Callable[[str], Mapping[str, str]],
        changed: Callable[[bool], None] = lambda connected: None,
    ) -> None: ...

    @property
    def connected(self) -> bool:
        """Whether a stream is open that the control plane has answered on."""
        raise NotImplementedError

    def want(self, type_url: str, subscribe: Sequence[str] = (), unsubscribe: Sequence[str] = ()) -> None:
        """Change what this proxy is subscribed to (`*`: all of the type), now and after every reconnect. Before `run` too."""

    def ack(self, nonce: str) -> None:
        """Tell the control plane that the proxy took the response; a nonce of an earlier stream is ignored."""

    def nack(self, nonce: str, message: str) -> None:
        """Tell the control plane that the proxy refused the response, with its words."""

    async def run(self) -> None:
        """Connect, exchange, reconnect (jittered back-off of 0.2 to 1 s), until cancelled."""
