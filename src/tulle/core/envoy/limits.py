"""How much may go to a cluster at once: circuit breakers, retry budget, and the keep-alive of its connections."""

from __future__ import annotations

from tulle.core.envoy.source import UNLIMITED, seconds, uint32
from tulle.core.model.traffic import ANY_CONNECTIONS, ANY_REQUESTS, Connections, Requests
from tulle.pb.envoy.config.cluster.v3 import circuit_breaker_pb2, cluster_pb2
from tulle.pb.envoy.config.core.v3 import address_pb2
from tulle.pb.envoy.type.v3 import percent_pb2
from tulle.pb.google.protobuf import wrappers_pb2

_Breakers = circuit_breaker_pb2.CircuitBreakers

# Envoy's own limits (1,024 connections, requests and retries) would shed load that nobody asked to shed: as Istio, no limit
# until one is configured.
NO_LIMITS = _Breakers(
    thresholds=[
        _Breakers.Thresholds(
            max_connections=UNLIMITED,
            max_pending_requests=UNLIMITED,
            max_requests=UNLIMITED,
            max_retries=UNLIMITED,
        )
    ]
)


def limit(cluster: cluster_pb2.Cluster, connections: Connections, requests: Requests) -> None:
    """Write the limits into a cluster."""
    if requests is ANY_REQUESTS and connections is ANY_CONNECTIONS:
        cluster.circuit_breakers.CopyFrom(NO_LIMITS)
        return
    thresholds = _Breakers.Thresholds(
        max_connections=_or_none(connections.maximum),
        max_pending_requests=_or_none(requests.max_pending),
        max_requests=_or_none(requests.maximum),
        max_retries=_or_none(requests.max_retries),
        retry_budget=_budget(requests),
    )
    cluster.circuit_breakers.CopyFrom(_Breakers(thresholds=[thresholds]))
    if connections.keepalive:
        alive = connections.keepalive
        cluster.upstream_connection_options.tcp_keepalive.CopyFrom(
            address_pb2.TcpKeepalive(  # what is 0 is the system's
                keepalive_probes=uint32(min(alive.probes, _MOST_PROBES)) if alive.probes else None,
                keepalive_time=uint32(min(alive.time, _LONGEST_ALIVE)) if alive.time else None,
                keepalive_interval=uint32(min(alive.interval, _LONGEST_ALIVE)) if alive.interval else None,
            )
        )


# What Linux takes for TCP's keep-alive (seconds, probes): with more, no connection is made.
_LONGEST_ALIVE = 32767
_MOST_PROBES = 127


def _or_none(limit: int) -> wrappers_pb2.UInt32Value:
    return uint32(limit) if limit else UNLIMITED


def _budget(requests: Requests) -> circuit_breaker_pb2.CircuitBreakers.Thresholds.RetryBudget | None:
    """Where there is a budget, Envoy counts retries by it instead of by `max_retries`."""
    if requests.budget is None:
        return None
    return _Breakers.Thresholds.RetryBudget(
        budget_percent=percent_pb2.Percent(value=requests.budget),
        min_retry_concurrency=uint32(requests.budget_minimum) if requests.budget_minimum else None,
        budget_interval=seconds(requests.budget_interval) if requests.budget_interval else None,
    )
