"""Pieces that every resource is built from: where Envoy asks for more (ADS), durations, numbers, addresses, metadata."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tulle.pb.envoy.config.core.v3 import address_pb2, base_pb2, config_source_pb2
from tulle.pb.envoy.type.v3 import percent_pb2
from tulle.pb.google.protobuf import duration_pb2, struct_pb2, wrappers_pb2

# Ask over the one aggregated stream, and wait for the answer however long it takes: a proxy is ready when it has all of its
# configuration, not when a timer ran out.
ADS = config_source_pb2.ConfigSource(
    ads=config_source_pb2.AggregatedConfigSource(),
    initial_fetch_timeout=duration_pb2.Duration(),
    resource_api_version=config_source_pb2.ApiVersion.V3,
)

# The metadata namespace that telemetry reads: `%METADATA(ROUTE:mesh:service)%`.
NAMESPACE = "mesh"

UNLIMITED = wrappers_pb2.UInt32Value(value=4294967295)
TRUE = wrappers_pb2.BoolValue(value=True)
FALSE = wrappers_pb2.BoolValue(value=False)


def seconds(value: float) -> duration_pb2.Duration:
    """A protobuf duration, to the microsecond."""
    micros = round(value * 1_000_000)
    return duration_pb2.Duration(seconds=micros // 1_000_000, nanos=micros % 1_000_000 * 1000)


def uint32(value: int) -> wrappers_pb2.UInt32Value:
    """A number that may also be absent."""
    return wrappers_pb2.UInt32Value(value=value)


def fitting(weights: Sequence[int]) -> list[int]:
    """Weights, in proportion where their sum is more than Envoy takes; who has one keeps some."""
    total, most = sum(weights), UNLIMITED.value - len(weights)
    return list(weights) if total <= most else [max(weight * most // total, min(weight, 1)) for weight in weights]


def percent(value: float) -> percent_pb2.FractionalPercent:
    """A share from 0 to 100, to the millionth."""
    return percent_pb2.FractionalPercent(numerator=round(value * 10_000), denominator=percent_pb2.FractionalPercent.MILLION)


def socket(address: str, port: int) -> address_pb2.Address:
    """A TCP address."""
    return address_pb2.Address(socket_address=address_pb2.SocketAddress(address=address, port_value=port))


def pipe(path: str, mode: int = 0) -> address_pb2.Address:
    """A Unix socket, by its path; `@` begins the name of one that is in no folder, and has no `mode`."""
    return address_pb2.Address(pipe=address_pb2.Pipe(path=path, mode=0 if path.startswith("@") else mode))


def datagrams(address: str, port: int) -> address_pb2.Address:
    """A UDP address."""
    udp = address_pb2.SocketAddress.UDP
    return address_pb2.Address(socket_address=address_pb2.SocketAddress(protocol=udp, address=address, port_value=port))


def struct(values: Mapping[str, str]) -> struct_pb2.Struct:
    """A JSON object of texts."""
    return struct_pb2.Struct(fields={key: struct_pb2.Value(string_value=value) for key, value in values.items()})


def metadata(values: Mapping[str, str]) -> base_pb2.Metadata:
    """Metadata under `mesh`, without the entries that are empty."""
    return base_pb2.Metadata(filter_metadata={NAMESPACE: struct({key: value for key, value in values.items() if value})})
