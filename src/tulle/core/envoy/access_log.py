"""The access logs of a proxy: lines of a file in its node's folder for the workload, and records over OTLP.

A line is Istio's, field for field, but that paths are without their query, which may hold a token; what a format of one's own
says is written as it says. JSON has the same fields, and who called (`caller`, by mutual TLS). Nothing of this ever keeps a call
waiting: what cannot be written or sent is dropped, and counted (`filesystem.write_failed`, `access_logs.*.logs_dropped`).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from tulle.core.envoy.source import seconds, uint32
from tulle.core.model.destination import DestinationKey
from tulle.core.model.telemetry import AccessLog
from tulle.pb import pack
from tulle.pb.envoy.config.accesslog.v3 import accesslog_pb2
from tulle.pb.envoy.config.core.v3 import base_pb2, extension_pb2, grpc_service_pb2, substitution_format_string_pb2
from tulle.pb.envoy.data.accesslog.v3 import accesslog_pb2 as data
from tulle.pb.envoy.extensions.access_loggers.file.v3 import file_pb2
from tulle.pb.envoy.extensions.access_loggers.filters.cel.v3 import cel_pb2
from tulle.pb.envoy.extensions.access_loggers.open_telemetry.v3 import logs_service_pb2
from tulle.pb.envoy.extensions.formatter.req_without_query.v3 import req_without_query_pb2
from tulle.pb.google.protobuf import struct_pb2

FILE, OTEL = "envoy.access_loggers.file", "envoy.access_loggers.open_telemetry"
STDOUT, DEFAULT = "/dev/stdout", "access.log"  # what Istio calls it, and the file that it is here
_FLUSH, _BUFFER = 1.0, 64 << 10  # seconds and bytes of records that are sent together

_PATH = "%REQ_WITHOUT_QUERY(X-ENVOY-ORIGINAL-PATH?:PATH)%"
TEXT = (
    f'[%START_TIME%] "%REQ(:METHOD)% {_PATH} %PROTOCOL%" %RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS% '
    '%CONNECTION_TERMINATION_DETAILS% "%UPSTREAM_TRANSPORT_FAILURE_REASON%" %BYTES_RECEIVED% %BYTES_SENT% %DURATION% '
    '%RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% "%REQ(X-FORWARDED-FOR)%" "%REQ(USER-AGENT)%" "%REQ(X-REQUEST-ID)%" '
    '"%REQ(:AUTHORITY)%" "%UPSTREAM_HOST%" %UPSTREAM_CLUSTER_RAW% %UPSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_LOCAL_ADDRESS% '
    "%DOWNSTREAM_REMOTE_ADDRESS% %REQUESTED_SERVER_NAME% %ROUTE_NAME%\n"
)
JSON = (
    ("authority", "%REQ(:AUTHORITY)%"),
    ("bytes_received", "%BYTES_RECEIVED%"),
    ("bytes_sent", "%BYTES_SENT%"),
    ("caller", "%DOWNSTREAM_PEER_URI_SAN%"),
    ("connection_termination_details", "%CONNECTION_TERMINATION_DETAILS%"),
    ("downstream_local_address", "%DOWNSTREAM_LOCAL_ADDRESS%"),
    ("downstream_remote_address", "%DOWNSTREAM_REMOTE_ADDRESS%"),
    ("duration", "%DURATION%"),
    ("method", "%REQ(:METHOD)%"),
    ("path", _PATH),
    ("protocol", "%PROTOCOL%"),
    ("request_id", "%REQ(X-REQUEST-ID)%"),
    ("requested_server_name", "%REQUESTED_SERVER_NAME%"),
    ("response_code", "%RESPONSE_CODE%"),
    ("response_code_details", "%RESPONSE_CODE_DETAILS%"),
    ("response_flags", "%RESPONSE_FLAGS%"),
    ("route_name", "%ROUTE_NAME%"),
    ("start_time", "%START_TIME%"),
    ("upstream_cluster", "%UPSTREAM_CLUSTER_RAW%"),
    ("upstream_host", "%UPSTREAM_HOST%"),
    ("upstream_local_address", "%UPSTREAM_LOCAL_ADDRESS%"),
    ("upstream_service_time", "%RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)%"),
    ("upstream_transport_failure_reason", "%UPSTREAM_TRANSPORT_FAILURE_REASON%"),
    ("user_agent", "%REQ(USER-AGENT)%"),
    ("x_forwarded_for", "%REQ(X-FORWARDED-FOR)%"),
)

_Filter = accesslog_pb2.AccessLogFilter
_FORMATTERS = [
    extension_pb2.TypedExtensionConfig(
        name="envoy.formatter.req_without_query", typed_config=pack(req_without_query_pb2.ReqWithoutQuery())
    )
]


def of_requests(logs: Sequence[AccessLog]) -> tuple[accesslog_pb2.AccessLog, ...]:
    """The loggers of a proxy of requests."""
    return tuple(_logger(one, data.DownstreamEnd) for one in logs)


def of_connections(logs: Sequence[AccessLog]) -> tuple[accesslog_pb2.AccessLog, ...]:
    """Those of a proxy of connections."""
    return tuple(_logger(one, data.TcpConnectionEnd) for one in logs)


@lru_cache(maxsize=1024)
def _logger(log: AccessLog, when: data.AccessLogType) -> accesslog_pb2.AccessLog:
    only = [_Filter(log_type_filter=accesslog_pb2.LogTypeFilter(types=[when]))]
    if log.filter:
        cel = cel_pb2.ExpressionFilter(expression=log.filter)
        name = "envoy.access_loggers.extension_filters.cel"
        only.append(_Filter(extension_filter=accesslog_pb2.ExtensionFilter(name=name, typed_config=pack(cel))))
    filter_ = only[0] if len(only) == 1 else _Filter(and_filter=accesslog_pb2.AndFilter(filters=only))
    if log.collector is None:
        return accesslog_pb2.AccessLog(name=FILE, filter=filter_, typed_config=pack(_file(log)))
    return accesslog_pb2.AccessLog(name=OTEL, filter=filter_, typed_config=pack(_otel(log, log.collector)))


def _file(log: AccessLog) -> file_pb2.FileAccessLog:
    # Envoy's working folder is that of the workload.
    return file_pb2.FileAccessLog(path=DEFAULT if log.path == STDOUT else log.path, log_format=_format(log))


def _format(log: AccessLog) -> substitution_format_string_pb2.SubstitutionFormatString:
    made = substitution_format_string_pb2.SubstitutionFormatString(formatters=_FORMATTERS)
    if fields := log.fields or (JSON if log.json else ()):
        made.json_format.CopyFrom(
            struct_pb2.Struct(fields={name: struct_pb2.Value(string_value=value) for name, value in fields})
        )
    else:
        text = log.text or TEXT
        made.text_format_source.CopyFrom(base_pb2.DataSource(inline_string=text if text.endswith("\n") else f"{text}\n"))
    return made


def _otel(log: AccessLog, where: DestinationKey) -> logs_service_pb2.OpenTelemetryAccessLogConfig:
    """A record for each call: the line as its body, the fields as attributes."""
    fields = log.fields or (JSON if log.json else ())
    text = log.text or ("" if fields else TEXT)
    made = logs_service_pb2.OpenTelemetryAccessLogConfig(
        log_name=log.name,
        grpc_service=grpc_service_pb2.GrpcService(
            # The name of a cluster is no authority that a proxy in front of the collector would take.
            envoy_grpc=grpc_service_pb2.GrpcService.EnvoyGrpc(cluster_name=where.cluster, authority=where.hostname),
            timeout=seconds(5),
        ),
        buffer_flush_interval=seconds(_FLUSH),
        buffer_size_bytes=uint32(_BUFFER),
        formatters=_FORMATTERS,
    )
    if text:
        made.body.string_value = text.removesuffix("\n")
    for name, value in fields:
        made.attributes.values.add(key=name).value.string_value = value
    return made
