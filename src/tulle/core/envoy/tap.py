"""What a proxy tells its node of requests while somebody looks (`tulle tap`): Envoy's gRPC access logger, behind a switch.

It stands in every connection manager, for adding it would change listeners, and with that end connections. While nobody looks a
request costs one random number and one comparison; the switch is the node's (`node/logs/runtime.py`), and falls back by itself.
"""

from __future__ import annotations

from tulle.core.envoy.source import seconds, uint32
from tulle.pb import pack
from tulle.pb.envoy.config.accesslog.v3 import accesslog_pb2
from tulle.pb.envoy.config.core.v3 import base_pb2, config_source_pb2, grpc_service_pb2
from tulle.pb.envoy.data.accesslog.v3 import accesslog_pb2 as data
from tulle.pb.envoy.extensions.access_loggers.grpc.v3 import als_pb2
from tulle.pb.envoy.type.v3 import percent_pb2

NAME = "tap"  # of the logger, of its log, and of the layer of the runtime that switches it
SHARE, LEAST = "tap.share", "tap.least"  # parts in a million of the requests; the lowest status
NODE = "xds"  # the bootstrap's cluster: the node's socket

# Of headers only these are told: none of them lets anybody in, or says who a person is.
REQUEST_HEADERS = ("accept", "content-type", "grpc-timeout", "traceparent", "upgrade", "x-forwarded-proto")
RESPONSE_HEADERS = ("content-type", "grpc-status", "retry-after", "server")

_Filter = accesslog_pb2.AccessLogFilter

_WHEN = _Filter(
    and_filter=accesslog_pb2.AndFilter(
        filters=[
            _Filter(
                runtime_filter=accesslog_pb2.RuntimeFilter(
                    runtime_key=SHARE,
                    percent_sampled=percent_pb2.FractionalPercent(denominator=percent_pb2.FractionalPercent.MILLION),
                    use_independent_randomness=True,
                )
            ),
            _Filter(log_type_filter=accesslog_pb2.LogTypeFilter(types=[data.DownstreamEnd])),
            _Filter(
                status_code_filter=accesslog_pb2.StatusCodeFilter(
                    comparison=accesslog_pb2.ComparisonFilter(
                        op=accesslog_pb2.ComparisonFilter.GE,
                        value=base_pb2.RuntimeUInt32(default_value=0, runtime_key=LEAST),
                    )
                )
            ),
        ]
    )
)

TAP = accesslog_pb2.AccessLog(
    name=NAME,
    filter=_WHEN,
    typed_config=pack(
        als_pb2.HttpGrpcAccessLogConfig(
            common_config=als_pb2.CommonGrpcAccessLogConfig(
                log_name=NAME,
                grpc_service=grpc_service_pb2.GrpcService(envoy_grpc=grpc_service_pb2.GrpcService.EnvoyGrpc(cluster_name=NODE)),
                transport_api_version=config_source_pb2.V3,
                buffer_flush_interval=seconds(0.2),
                buffer_size_bytes=uint32(64 << 10),
            ),
            additional_request_headers_to_log=REQUEST_HEADERS,
            additional_response_headers_to_log=RESPONSE_HEADERS,
        )
    ),
)
