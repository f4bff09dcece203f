"""What a proxy writes down of requests that it refuses itself: a line of JSON each, on its standard output.

Who (`caller`: the identity that mutual TLS has shown, and the address) and why (`why`: the reason of the token's check, or the
rule). Paths are without the query, which may hold a token. Other requests cost one comparison of their status.
"""

from __future__ import annotations

from tulle.pb import pack
from tulle.pb.envoy.config.accesslog.v3 import accesslog_pb2
from tulle.pb.envoy.config.core.v3 import base_pb2, extension_pb2, substitution_format_string_pb2
from tulle.pb.envoy.extensions.access_loggers.filters.cel.v3 import cel_pb2
from tulle.pb.envoy.extensions.access_loggers.stream.v3 import stream_pb2
from tulle.pb.envoy.extensions.formatter.req_without_query.v3 import req_without_query_pb2
from tulle.pb.google.protobuf import struct_pb2

_WHOSE = ("jwt_authn_", "rbac_", "ext_authz_")
_OURS = " || ".join(f"response.code_details.startsWith('{prefix}')" for prefix in _WHOSE)
_LINE = {
    "refused": "%RESPONSE_CODE%",
    "why": "%RESPONSE_CODE_DETAILS%",
    "caller": "%DOWNSTREAM_PEER_URI_SAN%",
    "from": "%DOWNSTREAM_REMOTE_ADDRESS%",
    "time": "%START_TIME%",
    "method": "%REQ(:METHOD)%",
    "authority": "%REQ(:AUTHORITY)%",
    "path": "%REQ_WITHOUT_QUERY(:PATH)%",
    "request_id": "%REQ(X-REQUEST-ID)%",
}
_FORMAT = substitution_format_string_pb2.SubstitutionFormatString(
    json_format=struct_pb2.Struct(fields={name: struct_pb2.Value(string_value=text) for name, text in _LINE.items()}),
    formatters=[
        extension_pb2.TypedExtensionConfig(
            name="envoy.formatter.req_without_query", typed_config=pack(req_without_query_pb2.ReqWithoutQuery())
        )
    ],
)
ERRORS = accesslog_pb2.StatusCodeFilter(
    comparison=accesslog_pb2.ComparisonFilter(
        op=accesslog_pb2.ComparisonFilter.GE, value=base_pb2.RuntimeUInt32(default_value=400, runtime_key="refusals.least")
    )
)
BY_US = accesslog_pb2.ExtensionFilter(
    name="envoy.access_loggers.extension_filters.cel", typed_config=pack(cel_pb2.ExpressionFilter(expression=_OURS))
)

REFUSALS = accesslog_pb2.AccessLog(
    name="refusals",
    filter=accesslog_pb2.AccessLogFilter(
        and_filter=accesslog_pb2.AndFilter(
            filters=[
                accesslog_pb2.AccessLogFilter(status_code_filter=ERRORS),
                accesslog_pb2.AccessLogFilter(extension_filter=BY_US),
            ]
        )
    ),
    typed_config=pack(stream_pb2.StdoutAccessLog(log_format=_FORMAT)),
)
