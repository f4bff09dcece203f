"""The HTTP connection manager and its filters, for each place where one stands.

`outbound`: calls that a workload makes. `forward`: the same for an application that was given `http_proxy`. `inbound`: calls that
a workload gets. `gateway`: calls from outside the mesh. Filters stand in one order everywhere; one that no route configures does
nothing. What they count is in `telemetry.py`.
"""

from __future__ import annotations

from typing import cast

from tulle.core.envoy import access_log, b3, calls
from tulle.core.envoy.authorization import http_filters
from tulle.core.envoy.ext_authz import OF_ROUTES
from tulle.core.envoy.finding import NAMED_HOST
from tulle.core.envoy.rate_limits import REFUSED, counting_filters, route_counting_filters
from tulle.core.envoy.refusals import REFUSALS
from tulle.core.envoy.route_actions import LOST, PREVIOUS_HOSTS, UNREACHED
from tulle.core.envoy.route_filters import CORS, FAULT, HEADERS, SESSION
from tulle.core.envoy.route_matches import for_connect
from tulle.core.envoy.source import ADS, FALSE, TRUE, seconds, uint32
from tulle.core.envoy.speaking import HTTP2_OPTIONS
from tulle.core.envoy.tap import TAP
from tulle.core.envoy.telemetry import GRPC_STATS, Called, counts_messages, of_requests
from tulle.core.envoy.tracing import gives_b3, trace
from tulle.core.model.authorization import OPEN, OPEN_TO_STRANGERS, Guard
from tulle.core.model.edge import Edge, Limits, Paths
from tulle.core.model.rate_limit import Counter
from tulle.core.model.telemetry import STANDARD, Telemetry
from tulle.pb import pack
from tulle.pb.envoy.config.accesslog.v3 import accesslog_pb2
from tulle.pb.envoy.config.common.mutation_rules.v3 import mutation_rules_pb2
from tulle.pb.envoy.config.core.v3 import base_pb2, extension_pb2, protocol_pb2, substitution_format_string_pb2
from tulle.pb.envoy.config.listener.v3 import listener_components_pb2
from tulle.pb.envoy.config.route.v3 import route_components_pb2, route_pb2
from tulle.pb.envoy.extensions.filters.http.buffer.v3 import buffer_pb2
from tulle.pb.envoy.extensions.filters.http.composite.v3 import composite_pb2
from tulle.pb.envoy.extensions.filters.http.cors.v3 import cors_pb2
from tulle.pb.envoy.extensions.filters.http.fault.v3 import fault_pb2
from tulle.pb.envoy.extensions.filters.http.grpc_stats.v3 import config_pb2
from tulle.pb.envoy.extensions.filters.http.header_mutation.v3 import header_mutation_pb2
from tulle.pb.envoy.extensions.filters.http.router.v3 import router_pb2
from tulle.pb.envoy.extensions.filters.http.set_filter_state.v3 import set_filter_state_pb2
from tulle.pb.envoy.extensions.filters.http.stateful_session.v3 import stateful_session_pb2
from tulle.pb.envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2
from tulle.pb.envoy.extensions.http.early_header_mutation.header_mutation.v3 import (
    header_mutation_pb2 as early_header_mutation_pb2,
)
from tulle.pb.envoy.type.matcher.v3 import string_pb2

_Manager = http_connection_manager_pb2.HttpConnectionManager

# What routes may ask for, in the order in which it happens. CORS is before the others, so that the pages of other origins may
# read what they answer, and a preflight (which carries no credentials) needs nobody's word. All are off but for routes that
# configure them: no request pays for what it does not use.
_ROUTED = tuple(
    http_connection_manager_pb2.HttpFilter(name=name, typed_config=pack(message), disabled=True)
    for name, message in (
        (HEADERS, header_mutation_pb2.HeaderMutation()),
        (CORS, cors_pb2.Cors()),
        (OF_ROUTES, composite_pb2.Composite()),
        (FAULT, fault_pb2.HTTPFault()),
        (SESSION, stateful_session_pb2.StatefulSession()),
        (NAMED_HOST, set_filter_state_pb2.Config()),
    )
)
_ROUTER = http_connection_manager_pb2.HttpFilter(name="envoy.filters.http.router", typed_config=pack(router_pb2.Router()))
# What nobody asked for and everybody may look at; tests/bench measures what it costs while nobody does.
LOOKED_AT = (TAP,)
# Counts the messages of gRPC; what is no gRPC it does not look at.
_MESSAGES = http_connection_manager_pb2.HttpFilter(
    name=GRPC_STATS, typed_config=pack(config_pb2.FilterConfig(stats_for_all_methods=FALSE))
)

# How long (seconds) the headers of a request may take from their first byte to their last. Nothing that is under way is bound.
_HEADERS_WITHIN = 15.0
# How long (seconds) a connection of a client outside may stay without a request.
_EDGE_IDLE = 600.0
# What one connection from outside may have at once: streams, and bytes that wait for whoever is slow behind.
_EDGE_STREAMS = 128
_EDGE_WINDOW = 1 << 20
_EDGE_CONNECTION_WINDOW = 4 << 20

_NOTHING = Called()
_OVERWRITE = base_pb2.HeaderValueOption.OVERWRITE_IF_EXISTS_OR_ADD
_DROP = protocol_pb2.HttpProtocolOptions.DROP_HEADER
# Nothing that proxies say to each other is a client's to say, also what this Envoy does not know.
_NOT_THEIRS = extension_pb2.TypedExtensionConfig(
    name="envoy.http.early_header_mutation.header_mutation",
    typed_config=pack(
        early_header_mutation_pb2.HeaderMutation(
            mutations=[
                mutation_rules_pb2.HeaderMutation(
                    remove_on_match=mutation_rules_pb2.HeaderMutation.RemoveOnMatch(
                        key_matcher=string_pb2.StringMatcher(prefix="x-envoy-")
                    )
                )
            ]
        )
    ),
)
_PEER = _Manager.SetCurrentClientCertDetails(subject=TRUE, uri=True)

# An application that closes an idle connection just as a request comes must not fail the request.
_ONCE_MORE = route_components_pb2.RetryPolicy(
    retry_on="reset-before-request,connect-failure,refused-stream",
    num_retries=uint32(2),
    retry_host_predicate=[PREVIOUS_HOSTS],
)

# What the application's sidecar says where it did not reach it, or lost it with the request: see `route_actions`.
_NOT_REACHED = http_connection_manager_pb2.LocalReplyConfig(
    mappers=[
        http_connection_manager_pb2.ResponseMapper(
            filter=accesslog_pb2.AccessLogFilter(response_flag_filter=accesslog_pb2.ResponseFlagFilter(flags=flags)),
            headers_to_add=[base_pb2.HeaderValueOption(header=base_pb2.HeaderValue(key=name, value="true"))],
        )
        for flags, name in ((("UF",), UNREACHED), (("UC", "UR"), LOST))
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


def outbound(stat_prefix: str, table: str, limits: Limits, telemetry: Telemetry = STANDARD) -> listener_components_pb2.Filter:
    """Routed by `table`, which comes by RDS; nothing that the caller said about itself is changed."""
    manager = _manager(stat_prefix, limits)
    manager.rds.CopyFrom(_rds(table))
    manager.use_remote_address.CopyFrom(FALSE)
    manager.server_header_transformation = _Manager.PASS_THROUGH
    _route(manager, limits, telemetry)
    return _filter(manager, telemetry)


def forward(stat_prefix: str, table: str, limits: Limits, telemetry: Telemetry = STANDARD) -> listener_components_pb2.Filter:
    """As `outbound`, for requests with absolute URIs."""
    manager = _manager(stat_prefix, limits)
    manager.rds.CopyFrom(_rds(table))
    manager.use_remote_address.CopyFrom(FALSE)
    manager.server_header_transformation = _Manager.PASS_THROUGH
    manager.local_reply_config.CopyFrom(_UNKNOWN_HOST)
    _route(manager, limits, telemetry)
    return _filter(manager, telemetry)


def inbound(
    stat_prefix: str,
    cluster: str,
    limits: Limits,
    guard: Guard = OPEN,
    called: Called = _NOTHING,
    telemetry: Telemetry = STANDARD,
    counter: Counter | None = None,
) -> listener_components_pb2.Filter:
    """What `guard` and `counter` let pass goes to the application that is `called`, with the caller's identity in XFCC."""
    manager = _manager(stat_prefix, limits)
    route = route_components_pb2.Route(name="default", match=route_components_pb2.RouteMatch(prefix="/"))
    route.route.cluster = cluster
    route.route.timeout.CopyFrom(seconds(0))
    route.route.retry_policy.CopyFrom(_ONCE_MORE)
    manager.route_config.CopyFrom(
        route_pb2.RouteConfiguration(
            name=cluster,
            virtual_hosts=[route_components_pb2.VirtualHost(name="inbound", domains=["*"], routes=[route, for_connect(route)])],
            validate_clusters=FALSE,
        )
    )
    manager.use_remote_address.CopyFrom(FALSE)
    manager.server_header_transformation = _Manager.PASS_THROUGH
    # What somebody outside says of those before him is nobody's word.
    manager.forward_client_cert_details = _Manager.SANITIZE_SET if guard.strangers else _Manager.APPEND_FORWARD
    manager.set_current_client_cert_details.CopyFrom(_PEER)
    manager.local_reply_config.CopyFrom(_NOT_REACHED)
    manager.access_log.append(REFUSALS)
    if guard.headers:
        manager.common_http_protocol_options.headers_with_underscores_action = _DROP
    if counter:
        manager.local_reply_config.mappers.append(REFUSED)
    manager.http_filters.extend([*http_filters(guard), *counting_filters(counter), *_last(telemetry, inbound=True)])
    return _filter(manager, telemetry, called)


def gateway(
    stat_prefix: str,
    table: str,
    edge: Edge,
    limits: Limits,
    guard: Guard = OPEN_TO_STRANGERS,
    http3: int = 0,
    *,
    by_quic: bool = False,
    telemetry: Telemetry = STANDARD,
    counter: Counter | None = None,
) -> listener_components_pb2.Filter:
    """As `outbound`, for callers whose word is not taken: not for their address, nor for `x-envoy-*`, nor for XFCC.

    Nor may they send these under names with `_`, which many an application takes for `-`. As far as `edge` says that there are
    proxies in front, whose word is. Answers tell of the port `http3`, where there is one.
    """
    manager = _manager(stat_prefix, limits)
    # A browser that is offered WebSockets over HTTP/2 (RFC 8441) sends no Sec-WebSocket-Key, without which servers of HTTP/1.1
    # refuse them, and Envoy adds none. Not offered, it opens a connection of HTTP/1.1 for them.
    manager.http2_protocol_options.CopyFrom(
        protocol_pb2.Http2ProtocolOptions(
            max_concurrent_streams=uint32(_EDGE_STREAMS),
            initial_stream_window_size=uint32(_EDGE_WINDOW),
            initial_connection_window_size=uint32(_EDGE_CONNECTION_WINDOW),
        )
    )
    manager.common_http_protocol_options.idle_timeout.CopyFrom(seconds(_EDGE_IDLE))
    if by_quic:
        manager.codec_type = _Manager.HTTP3
        manager.http3_protocol_options.quic_protocol_options.CopyFrom(
            protocol_pb2.QuicProtocolOptions(
                max_concurrent_streams=uint32(_EDGE_STREAMS),
                initial_stream_window_size=uint32(_EDGE_WINDOW),
                initial_connection_window_size=uint32(_EDGE_CONNECTION_WINDOW),
            )
        )
    if http3:
        manager.http_filters.append(_told_of(http3))
    manager.rds.CopyFrom(_rds(table))
    manager.use_remote_address.CopyFrom(TRUE)
    manager.xff_num_trusted_hops = edge.trusted
    said = _Manager.ForwardClientCertDetails.Value(edge.client_certificate)
    manager.forward_client_cert_details = cast("http_connection_manager_pb2.HttpConnectionManager.ForwardClientCertDetails", said)
    manager.set_current_client_cert_details.CopyFrom(_PEER)
    manager.common_http_protocol_options.headers_with_underscores_action = _DROP
    manager.access_log.append(REFUSALS)
    manager.early_header_mutation_extensions.append(_NOT_THEIRS)
    before = (*http_filters(guard), *counting_filters(counter))
    if counter and not limits.counted:
        manager.local_reply_config.mappers.append(REFUSED)
    if limits.body:
        # What was upgraded is no request that could ever be whole.
        manager.upgrade_configs[0].filters.extend([*before, *_routed(limits), *_last(telemetry)])
        before = (*before, _whole(limits.body))
    manager.http_filters.extend(before)
    _route(manager, limits, telemetry)
    return _filter(manager, telemetry)


def _routed(limits: Limits) -> tuple[http_connection_manager_pb2.HttpFilter, ...]:
    """What routes may ask for: their limits after those whom they ask about the caller."""
    if not limits.counted:
        return _ROUTED
    place = next(index for index, one in enumerate(_ROUTED) if one.name == FAULT)
    return (*_ROUTED[:place], *route_counting_filters(), *_ROUTED[place:])


def _route(manager: http_connection_manager_pb2.HttpConnectionManager, limits: Limits, telemetry: Telemetry) -> None:
    """The filters of what routes may ask for, and the last ones."""
    manager.http_filters.extend([*_routed(limits), *_last(telemetry)])
    if limits.counted:
        manager.local_reply_config.mappers.append(REFUSED)


def _told_of(port: int) -> http_connection_manager_pb2.HttpFilter:
    """Every answer, also the proxy's own, says for a day that HTTP/3 is spoken at the port too."""
    header = base_pb2.HeaderValue(key="alt-svc", value=f'h3=":{port}"; ma=86400')
    mutation = mutation_rules_pb2.HeaderMutation(append=base_pb2.HeaderValueOption(header=header, append_action=_OVERWRITE))
    config = header_mutation_pb2.HeaderMutation(mutations=header_mutation_pb2.Mutations(response_mutations=[mutation]))
    return http_connection_manager_pb2.HttpFilter(name="alt-svc", typed_config=pack(config))


def _whole(most: int) -> http_connection_manager_pb2.HttpFilter:
    """Waits for the whole of a request, and answers 413 where that is more."""
    config = buffer_pb2.Buffer(max_request_bytes=uint32(most))
    return http_connection_manager_pb2.HttpFilter(name="envoy.filters.http.buffer", typed_config=pack(config))


def _manager(stat_prefix: str, limits: Limits) -> http_connection_manager_pb2.HttpConnectionManager:
    return _Manager(
        stat_prefix=stat_prefix,
        max_request_headers_kb=uint32(limits.header_kb) if limits.header_kb else None,
        common_http_protocol_options=(
            protocol_pb2.HttpProtocolOptions(max_headers_count=uint32(limits.headers)) if limits.headers else None
        ),
        http_protocol_options=protocol_pb2.Http1ProtocolOptions(accept_http_10=True),
        http2_protocol_options=HTTP2_OPTIONS,
        # Long polls and quiet gRPC streams live as long as their ends want; routes have the timeouts.
        stream_idle_timeout=seconds(0),
        request_headers_timeout=seconds(_HEADERS_WITHIN),
        normalize_path=FALSE if limits.paths is Paths.NONE else TRUE,
        merge_slashes=limits.paths in (Paths.MERGE_SLASHES, Paths.DECODE_AND_MERGE_SLASHES),
        path_with_escaped_slashes_action=_Manager.UNESCAPE_AND_FORWARD
        if limits.paths is Paths.DECODE_AND_MERGE_SLASHES
        else None,
        # CONNECT only has the routes that are for it (`routes`).
        upgrade_configs=[_Manager.UpgradeConfig(upgrade_type=word) for word in ("websocket", "CONNECT")],
    )


def _rds(table: str) -> http_connection_manager_pb2.Rds:
    return http_connection_manager_pb2.Rds(config_source=ADS, route_config_name=table)


def _last(telemetry: Telemetry, *, inbound: bool = False) -> tuple[http_connection_manager_pb2.HttpFilter, ...]:
    """The filters behind all others."""
    router = b3.GIVEN if inbound and gives_b3(telemetry.tracing) else _ROUTER
    return (_MESSAGES, router) if counts_messages(telemetry.metrics) else (router,)


def _filter(
    manager: http_connection_manager_pb2.HttpConnectionManager, telemetry: Telemetry, called: Called | None = None
) -> listener_components_pb2.Filter:
    manager.access_log.extend((*of_requests(called, telemetry.metrics), calls.of_requests(called), *LOOKED_AT))
    manager.access_log.extend(access_log.of_requests(telemetry.logs))
    trace(manager, telemetry.tracing, inbound=called is not None)
    return listener_components_pb2.Filter(name="envoy.filters.network.http_connection_manager", typed_config=pack(manager))
