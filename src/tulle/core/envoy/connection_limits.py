"""Limits of connections and their bytes → network filters, each a resource (ECDS): a changed limit holds for what comes after it.

Envoy closes a connection over `local_ratelimit` or `connection_limit` at once, and `tcp_bandwidth_limit` holds bytes up. Their
buckets are one for all chains of a proxy (`share_key`), or one a chain.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

from google.protobuf.message import Message

from tulle.core import type_urls
from tulle.core.encoded import Encoded, encode
from tulle.core.envoy.source import ADS, seconds, uint32
from tulle.core.model.rate_limit import MOST, ConnectionCounter, ConnectionLimited, Counting, Limit, Unit
from tulle.pb import pack
from tulle.pb.envoy.config.core.v3 import config_source_pb2, extension_pb2
from tulle.pb.envoy.config.listener.v3 import listener_components_pb2
from tulle.pb.envoy.extensions.filters.network.connection_limit.v3 import connection_limit_pb2
from tulle.pb.envoy.extensions.filters.network.local_ratelimit.v3 import local_rate_limit_pb2
from tulle.pb.envoy.extensions.filters.network.tcp_bandwidth_limit.v3 import tcp_bandwidth_limit_pb2
from tulle.pb.envoy.type.v3 import token_bucket_pb2
from tulle.pb.google.protobuf import wrappers_pb2

_TYPES: dict[Unit, type[Message]] = {
    Unit.CONNECTIONS: local_rate_limit_pb2.LocalRateLimit,
    Unit.CONCURRENT: connection_limit_pb2.ConnectionLimit,
    Unit.BYTES: tcp_bandwidth_limit_pb2.TcpBandwidthLimit,
}
_LEAST_WINDOW = 0.05  # seconds, Envoy's
_KIB = 1024


def connection_filters(counters: Iterable[ConnectionCounter]) -> Iterator[listener_components_pb2.Filter]:
    """The filters that stand before connections."""
    for one in counters:
        type_url = f"type.googleapis.com/{_TYPES[one.unit].DESCRIPTOR.full_name}"
        found = config_source_pb2.ExtensionConfigSource(config_source=ADS, type_urls=[type_url])
        yield listener_components_pb2.Filter(name=one.resource, config_discovery=found)


def encode_connection_limited(row: ConnectionLimited) -> tuple[Encoded, ...]:
    """The rules of a workload's connections."""
    return tuple(_extension(one, _filter(one, row.members.get(one.id, 1))) for one in row.limits)


def _extension(limit: Limit, message: Message) -> Encoded:
    name = ConnectionCounter(limit.id, limit.unit).resource
    config = extension_pb2.TypedExtensionConfig(name=name, typed_config=pack(message))
    return encode(type_urls.EXTENSION, name, config.SerializeToString(deterministic=True))


def _filter(limit: Limit, members: int) -> Message:
    parts = members if limit.counting is Counting.SHARED else 1
    part = max(1, limit.limit // parts)
    if limit.unit is Unit.CONCURRENT:
        most = wrappers_pb2.UInt64Value(value=part)
        return connection_limit_pb2.ConnectionLimit(stat_prefix=limit.stat_prefix, max_connections=most)
    if limit.unit is Unit.BYTES:
        speed = wrappers_pb2.UInt64Value(value=max(1, math.floor(part / limit.window / _KIB)))
        return tcp_bandwidth_limit_pb2.TcpBandwidthLimit(
            stat_prefix=limit.stat_prefix, read_limit_kbps=speed, write_limit_kbps=speed
        )
    times = max(1, math.ceil(_LEAST_WINDOW / limit.window))
    bucket = token_bucket_pb2.TokenBucket(
        max_tokens=min(MOST, part + limit.burst // parts),
        tokens_per_fill=uint32(min(MOST, part * times)),
        fill_interval=seconds(limit.window * times),
    )
    return local_rate_limit_pb2.LocalRateLimit(stat_prefix=limit.stat_prefix, share_key=limit.id, token_bucket=bucket)
