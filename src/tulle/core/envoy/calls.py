"""What each proxy tells its node of single calls: a sample, and of those that failed or were denied all, up to a budget.

Envoy's OTLP logger over the node's Unix socket: batches, dropped where nobody takes them. Of a request only what stands here
leaves Envoy: no query, and of its headers those of `recorded.HEADERS`. How much is told the node sets while it runs
(`FAILURES`, `SAMPLED`: millionths, in Envoy's runtime); before it does, nothing but failures is.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import cast

from tulle.core.envoy.refusals import BY_US, ERRORS
from tulle.core.envoy.source import NAMESPACE, seconds, uint32
from tulle.core.envoy.telemetry import PEER, Called
from tulle.core.model.recorded import FAILED, HEADERS, LONGEST
from tulle.pb import pack
from tulle.pb.envoy.config.accesslog.v3 import accesslog_pb2
from tulle.pb.envoy.config.core.v3 import base_pb2, extension_pb2, grpc_service_pb2
from tulle.pb.envoy.config.route.v3 import route_components_pb2
from tulle.pb.envoy.data.accesslog.v3 import accesslog_pb2 as data
from tulle.pb.envoy.extensions.access_loggers.filters.cel.v3 import cel_pb2
from tulle.pb.envoy.extensions.access_loggers.open_telemetry.v3 import logs_service_pb2
from tulle.pb.envoy.extensions.formatter.req_without_query.v3 import req_without_query_pb2
from tulle.pb.envoy.type.matcher.v3 import string_pb2
from tulle.pb.envoy.type.v3 import percent_pb2

LOGGER = "calls"
XDS = "xds"  # the cluster of the node's socket, in the bootstrap
FAILURES, SAMPLED = "calls.failures", "calls.sampled"
MILLION = 1_000_000
_FLUSH = 1.0  # seconds that a call waits, at most, to be told
_BUFFER = 64 << 10  # bytes of calls, some 50, that are told at once

_Filter = accesslog_pb2.AccessLogFilter
_Grpc = accesslog_pb2.GrpcStatusFilter

_PATH = f"%REQ_WITHOUT_QUERY(X-ENVOY-ORIGINAL-PATH?:PATH):{LONGEST}%"
# First what tells whether a call failed: see `node/calls/entry.py`, which reads this.
_OUTCOME = (
    ("code", "%RESPONSE_CODE%"),
    ("flags", "%RESPONSE_FLAGS%"),
    ("details", "%RESPONSE_CODE_DETAILS%"),
    ("grpc", "%GRPC_STATUS_NUMBER%"),
    ("us", "%COMMON_DURATION(DS_RX_BEG:DS_TX_END:us)%"),
)
_REQUEST = (
    ("id", "%REQ(X-REQUEST-ID):64%"),
    ("method", "%REQ(:METHOD):32%"),
    ("authority", f"%REQ(:AUTHORITY):{LONGEST}%"),
    ("path", _PATH),
    *((f"header.{name}", f"%REQ({name.upper()}):{LONGEST}%") for name in HEADERS),
)
_BOTH = (
    ("cluster", "%UPSTREAM_CLUSTER_RAW%"),
    ("endpoint", "%UPSTREAM_REMOTE_ADDRESS%"),
    ("why", "%UPSTREAM_TRANSPORT_FAILURE_REASON%"),
    ("attempts", "%UPSTREAM_REQUEST_ATTEMPT_COUNT%"),
    ("port", "%DOWNSTREAM_LOCAL_PORT%"),
    ("address", "%DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT%"),
)
_ROUTE = (
    ("service", f"%METADATA(ROUTE:{NAMESPACE}:service)%"),
    ("origin", f"%METADATA(ROUTE:{NAMESPACE}:origin)%"),
    ("field", f"%METADATA(ROUTE:{NAMESPACE}:path)%"),
)
_SOURCE = (("peer", f"%UPSTREAM_METADATA({NAMESPACE}:{PEER})%"), ("principal", "%UPSTREAM_PEER_URI_SAN%"))
_DESTINATION = (("peer", "%DOWNSTREAM_PEER_SUBJECT%"), ("principal", "%DOWNSTREAM_PEER_URI_SAN%"))
_POLICY = ("policy", "%DYNAMIC_METADATA(envoy.filters.http.rbac:enforced_effective_policy_id)%")
_TCP_POLICY = ("policy", "%DYNAMIC_METADATA(envoy.filters.network.rbac:enforced_effective_policy_id)%")
_TCP_OUTCOME = (
    ("code", "0"),
    ("flags", "%RESPONSE_FLAGS%"),
    ("details", "%CONNECTION_TERMINATION_DETAILS%"),
    ("grpc", "-"),
    ("ms", "%DURATION%"),
)

_WITHOUT_QUERY = extension_pb2.TypedExtensionConfig(
    name="envoy.formatter.req_without_query", typed_config=pack(req_without_query_pb2.ReqWithoutQuery())
)


def _any(*filters: accesslog_pb2.AccessLogFilter) -> accesslog_pb2.AccessLogFilter:
    return _Filter(or_filter=accesslog_pb2.OrFilter(filters=filters))


def _all(*filters: accesslog_pb2.AccessLogFilter) -> accesslog_pb2.AccessLogFilter:
    return _Filter(and_filter=accesslog_pb2.AndFilter(filters=filters))


def _share(key: str, usual: int) -> accesslog_pb2.AccessLogFilter:
    """A share that the node sets. By the request ID, so that both ends of a call choose the same ones."""
    share = percent_pb2.FractionalPercent(numerator=usual, denominator=percent_pb2.FractionalPercent.MILLION)
    return _Filter(runtime_filter=accesslog_pb2.RuntimeFilter(runtime_key=key, percent_sampled=share))


_FLAGGED = _Filter(response_flag_filter=accesslog_pb2.ResponseFlagFilter())
_SERVER_ERROR = _Filter(
    status_code_filter=accesslog_pb2.StatusCodeFilter(
        comparison=accesslog_pb2.ComparisonFilter(
            op=accesslog_pb2.ComparisonFilter.GE, value=base_pb2.RuntimeUInt32(default_value=500, runtime_key="calls.least")
        )
    )
)
_GRPC_FAILED = _all(
    _Filter(
        header_filter=accesslog_pb2.HeaderFilter(
            header=route_components_pb2.HeaderMatcher(
                name="content-type", string_match=string_pb2.StringMatcher(prefix="application/grpc")
            )
        )
    ),
    _Filter(
        grpc_status_filter=_Grpc(statuses=[cast("accesslog_pb2.GrpcStatusFilter.Status", int(one)) for one in sorted(FAILED)])
    ),
)
_DENIED = _all(_Filter(status_code_filter=ERRORS), _Filter(extension_filter=BY_US))
_OTHERS = _share(SAMPLED, 0)
_TOLD = _any(_all(_any(_SERVER_ERROR, _FLAGGED, _DENIED, _GRPC_FAILED), _share(FAILURES, MILLION)), _OTHERS)
_TCP_DENIED = _Filter(
    extension_filter=accesslog_pb2.ExtensionFilter(
        name="envoy.access_loggers.extension_filters.cel",
        typed_config=pack(cel_pb2.ExpressionFilter(expression="connection.termination_details.startsWith('rbac_')")),
    )
)
_TCP_TOLD = _any(_all(_any(_FLAGGED, _TCP_DENIED), _share(FAILURES, MILLION)), _OTHERS)


@lru_cache(maxsize=4096)
def of_requests(called: Called | None = None) -> accesslog_pb2.AccessLog:
    """The logger of a proxy of requests: of one that makes them (None), or of one that gets them."""
    ends = (*_SOURCE, *_ROUTE) if called is None else (*_DESTINATION, ("service", called.service or "-"), _POLICY)
    return _logger((*_OUTCOME, *_REQUEST, *_BOTH, *ends), called, data.DownstreamEnd, _TOLD)


@lru_cache(maxsize=4096)
def of_connections(called: Called | None = None) -> accesslog_pb2.AccessLog:
    """The same for a proxy of connections."""
    ends = _SOURCE if called is None else (*_DESTINATION, ("service", called.service or "-"), _TCP_POLICY)
    return _logger((*_TCP_OUTCOME, *_BOTH, *ends), called, data.TcpConnectionEnd, _TCP_TOLD)


def _logger(
    said: Iterable[tuple[str, str]],
    called: Called | None,
    when: data.AccessLogType,
    told: accesslog_pb2.AccessLogFilter,
) -> accesslog_pb2.AccessLog:
    pairs = (("side", "source" if called is None else "destination"), *said)
    config = logs_service_pb2.OpenTelemetryAccessLogConfig(
        grpc_service=grpc_service_pb2.GrpcService(
            envoy_grpc=grpc_service_pb2.GrpcService.EnvoyGrpc(cluster_name=XDS), timeout=seconds(1)
        ),
        log_name=LOGGER,
        buffer_flush_interval=seconds(_FLUSH),
        buffer_size_bytes=uint32(_BUFFER),
        disable_builtin_labels=True,
        formatters=[_WITHOUT_QUERY],
        stat_prefix="calls.",
    )
    for key, text in pairs:
        config.attributes.values.add(key=key).value.string_value = text
    only = _all(_Filter(log_type_filter=accesslog_pb2.LogTypeFilter(types=(when,))), told)
    return accesslog_pb2.AccessLog(name=LOGGER, filter=only, typed_config=pack(config))
