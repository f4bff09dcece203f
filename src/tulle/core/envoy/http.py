"""The HTTP connection manager and its filters, for each place where one stands.

`outbound`: calls that a workload makes. `forward`: the same for an application that was given `http_proxy`. `inbound`: calls that
a workload gets. `gateway`: calls from outside the mesh. Filters stand in one order everywhere; one that no route configures does
nothing. Access logs and the metrics logger are added in `_manager` when telemetry comes.
"""

from __future__ import annotations

from tulle.core.envoy.route_actions import PREVIOUS_HOSTS, UNREACHED
from tulle.core.envoy.route_filters import CORS, FAULT, HEADERS, SESSION
from tulle.core.envoy.source import ADS, FALSE, TRUE, seconds, uint32
from tulle.core.envoy.speaking import HTTP2_OPTIONS
from tulle.pb import pack
from tulle.pb.envoy.config.accesslog.v3 import accesslog_pb2
from tulle.pb.envoy.config.core.v3 import base_pb2, protocol_pb2, substitution_format_string_pb2
from tulle.pb.envoy.config.listener.v3 import listener_components_pb2
from tulle.pb.envoy.config.route.v3 import route_components_pb2, route_pb2
from tulle.pb.envoy.extensions.filters.http.cors.v3 import cors_pb2
from tulle.pb.envoy.extensions.filters.http.fault.v3 import fault_pb2
from tulle.pb.envoy.extensions.filters.http.header_mutation.v3 import header_mutation_pb2
from tulle.pb.envoy.extensions.filters.http.router.v3 import router_pb2
from tulle.pb.envoy.extensions.filters.http.stateful_session.v3 import stateful_session_pb2
from tulle.pb.envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2

_Manager = http_connection_manager_pb2.HttpConnectionManager

# What routes may ask for, in the order in which it happens. CORS is before the others, so that the pages of other origins may
# read what they answer. All are off but for routes that configure them: no request pays for what it does not use.
_ROUTED = tuple(
    http_connection_manager_pb2.HttpFilter(name=name, typed_config=pack(message), disabled=True)
    for name, message in (
        (HEADERS, header_mutation_pb2.HeaderMutation()),
        (CORS, cors_pb2.Cors()),
        (FAULT, fault_pb2.HTTPFault()),
        (SESSION, stateful_session_pb2.StatefulSession()),
    )
)
_ROUTER = http_connection_manager_pb2.HttpFilter(name="envoy.filters.http.router", typed_config=pack(router_pb2.Router()))

_PEER = _Manager.SetCurrentClientCertDetails(subject=TRUE, uri=True)

# An application that closes an idle connection just as a request comes must not fail the request.
_ONCE_MORE = route_components_pb2.RetryPolicy(
    retry_on="reset-before-request,connect-failure,refused-stream",
    num_retries=uint32(2),
    retry_host_predicate=[PREVIOUS_HOSTS],
)

# What the application's sidecar says where it did not reach it: see `route_actions`.
_NOT_REACHED = http_connection_manager_pb2.LocalReplyConfig(
    mappers=[
        http_connection_manager_pb2.ResponseMapper(
            filter=accesslog_pb2.AccessLogFilter(response_flag_filter=accesslog_pb2.ResponseFlagFilter(flags=["UF"])),
            headers_to_add=[base_pb2.HeaderValueOption(header=base_pb2.HeaderValue(key=UNREACHED, value="true"))],
        )
    ]
)

# A forward proxy is told about every host; the ones it has no route for deserve a sentence.
_UNKNOWN_HOST = http_connection_manager_pb2.LocalReplyConfig(
    mappers=[
        http_connection_manager_pb2.ResponseMapper(
            filter=accesslog_pb2.AccessLogFilter(response_flag_filter=accesslog_pb2.ResponseFlagFilter(flags=["NR"])),
            status_code=uint32(502),
            body_format_override=substitution_format_string_pb2.SubstitutionFormatString(
                text_format_source=base_pb2.DataSource(
                    inline_string="%REQ(:AUTHORITY)% has no route in this mesh, and this proxy forwards to nothing else\n"
                )
            ),
        )
    ]
)


def outbound(stat_prefix: str, table: str) -> listener_components_pb2.Filter:
    """Routed by `table`, which comes by RDS; nothing that the caller said about itself is changed."""
    manager = _manager(stat_prefix)
    manager.rds.CopyFrom(_rds(table))
    manager.use_remote_address.CopyFrom(FALSE)
    manager.server_header_transformation = _Manager.PASS_THROUGH
    manager.http_filters.extend([*_ROUTED, _ROUTER])
    return _filter(manager)


def forward(stat_prefix: str, table: str) -> listener_components_pb2.Filter:
    """As `outbound`, for requests with absolute URIs."""
    manager = _manager(stat_prefix)
    manager.rds.CopyFrom(_rds(table))
    manager.use_remote_address.CopyFrom(FALSE)
    manager.server_header_transformation = _Manager.PASS_THROUGH
    manager.local_reply_config.CopyFrom(_UNKNOWN_HOST)
    manager.http_filters.extend([*_ROUTED, _ROUTER])
    return _filter(manager)


def inbound(stat_prefix: str, cluster: str) -> listener_components_pb2.Filter:
    """Everything goes to the application; it learns its caller's identity from `x-forwarded-client-cert`."""
    manager = _manager(stat_prefix)
    route = route_components_pb2.Route(name="default", match=route_components_pb2.RouteMatch(prefix="/"))
    route.route.cluster = cluster
    route.route.timeout.CopyFrom(seconds(0))
    route.route.retry_policy.CopyFrom(_ONCE_MORE)
    manager.route_config.CopyFrom(
        route_pb2.RouteConfiguration(
            name=cluster,
            virtual_hosts=[route_components_pb2.VirtualHost(name="inbound", domains=["*"], routes=[route])],
            validate_clusters=FALSE,
        )
    )
    manager.use_remote_address.CopyFrom(FALSE)
    manager.server_header_transformation = _Manager.PASS_THROUGH
    manager.forward_client_cert_details = _Manager.APPEND_FORWARD
    manager.set_current_client_cert_details.CopyFrom(_PEER)
    manager.local_reply_config.CopyFrom(_NOT_REACHED)
    manager.http_filters.append(_ROUTER)
    return _filter(manager)


def gateway(stat_prefix: str, table: str) -> listener_components_pb2.Filter:
    """As `outbound`, for callers whose word is not taken: not for their address, nor for `x-envoy-*`, nor for XFCC."""
    manager = _manager(stat_prefix)
    manager.rds.CopyFrom(_rds(table))
    manager.use_remote_address.CopyFrom(TRUE)
    manager.xff_num_trusted_hops = 0
    manager.forward_client_cert_details = _Manager.SANITIZE_SET
    manager.set_current_client_cert_details.CopyFrom(_PEER)
    manager.http_filters.extend([*_ROUTED, _ROUTER])
    return _filter(manager)


def _manager(stat_prefix: str) -> http_connection_manager_pb2.HttpConnectionManager:
    return _Manager(
        stat_prefix=stat_prefix,
        http_protocol_options=protocol_pb2.Http1ProtocolOptions(accept_http_10=True),
        http2_protocol_options=HTTP2_OPTIONS,
        # Long polls and quiet gRPC streams live as long as their ends want; routes have the timeouts.
        stream_idle_timeout=seconds(0),
        normalize_path=TRUE,
        upgrade_configs=[_Manager.UpgradeConfig(upgrade_type="websocket")],
    )


def _rds(table: str) -> http_connection_manager_pb2.Rds:
    return http_connection_manager_pb2.Rds(config_source=ADS, route_config_name=table)


def _filter(manager: http_connection_manager_pb2.HttpConnectionManager) -> listener_components_pb2.Filter:
    return listener_components_pb2.Filter(name="envoy.filters.network.http_connection_manager", typed_config=pack(manager))
