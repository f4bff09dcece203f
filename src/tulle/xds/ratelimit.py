"""How a node asks the control plane whether requests are within an exact limit: one stream a proxy, beside its ADS stream.

    Envoy ──envoy.service.ratelimit.v3 over its Unix socket──▶ node ──a stream of batches, mutual TLS──▶ control plane

A message of the stream is what came since the last one: a list of `RateLimitRequest`s as Envoy wrote them. It is answered by one
list of `RateLimitResponse`s in the same order; an empty one says that nothing could be counted.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

SERVICE = "tulle.ratelimit.v1.RateLimits"
METHOD = "Count"
PROXY = "tulle-proxy"  # metadata of the call: which proxy asks

_decoder = msgspec.msgpack.Decoder(list[bytes])


def packed(messages: Iterable[bytes]) -> bytes:
    """A batch."""
    return msgspec.msgpack.encode(list(messages))


def unpacked(data: bytes) -> list[bytes]:
    """What is in a batch; raises `ValueError`."""
    return _decoder.decode(data)
