"""What an Envoy is started with: who it is, where its configuration comes from, and the few things that never change.

Written as JSON (a node id `n` would be a boolean in YAML). Everything else comes over one delta ADS stream from the node agent's
Unix socket. The two static listeners answer probes and scrapes; Envoy's administration is a Unix socket and never a port.
"""

from __future__ import annotations

from typing import Any

import msgspec

from tulle.core.envoy.tap import NAME as TAP
from tulle.core.envoy.telemetry import DURATIONS, PREFIX, SIDES, SIZES, TO
from tulle.core.model.rate_limit import LIMITER

_ADMIN = "admin"
_XDS = "xds"
_MERGED = "merged"
_MERGED_PATH = "/stats/prometheus"
_TYPE = "type.googleapis.com/"
_UPSTREAM_HTTP = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"

_SOL_SOCKET = 1
_SO_MARK = 36

# Statistics that people, dashboards and tests read. The rest are never made: they are half of a cluster's memory.
_STATS_PREFIXES = (
    "cluster_manager.",
    "listener_manager.",
    "server.",
    "control_plane.",
    "cluster.xds.",
    f"{PREFIX}.",
    "access_logs.",
    "filesystem.",
    "sds.",
    "runtime.",
    "tracing.",
    "ratelimit.",
    f"cluster.{LIMITER}.",
)
_STATS_SUFFIXES = (
    ".upstream_cx_active",
    ".upstream_cx_total",
    ".upstream_cx_connect_fail",
    ".upstream_cx_connect_timeout",
    ".upstream_rq_active",
    ".upstream_rq_total",
    ".upstream_rq_completed",
    ".upstream_rq_retry",
    ".upstream_rq_retry_success",
    ".upstream_rq_timeout",
    ".upstream_rq_pending_failure_eject",
    ".upstream_rq_2xx",
    ".upstream_rq_4xx",
    ".upstream_rq_5xx",
    ".request_message_count",
    ".response_message_count",
    ".membership_total",
    ".membership_healthy",
    ".downstream_cx_active",
    ".downstream_cx_total",
    ".downstream_rq_active",
    ".downstream_rq_total",
    ".downstream_rq_2xx",
    ".downstream_rq_4xx",
    ".downstream_rq_5xx",
    ".no_filter_chain_match",
    ".downstream_listener_filter_error",
    ".ssl.handshake",
    ".ssl.connection_error",
    ".ssl.fail_verify_error",
    ".ssl.fail_verify_no_cert",
    ".ssl.fail_verify_san",
    "rbac.allowed",
    "rbac.denied",
    "shadow_allowed",
    "shadow_denied",
    "jwt_authn.allowed",
    "jwt_authn.denied",
    "ext_authz.ok",
    "ext_authz.denied",
    "ext_authz.error",
    "ext_authz.failure_mode_allowed",
    ".fault.aborts_injected",
    ".fault.delays_injected",
)

# What the node sets while it runs. An Envoy whose node does not answer does not wait for it.
_RTDS = {
    "resource_api_version": "V3",
    "initial_fetch_timeout": "1s",
    "api_config_source": {
        "api_type": "GRPC",
        "transport_api_version": "V3",
        "grpc_services": [
            {
                "envoy_grpc": {"cluster_name": _XDS},
                "retry_policy": {"retry_back_off": {"base_interval": "0.2s", "max_interval": "1s"}},
            }
        ],
    },
}
_RUNTIME = {
    # Envoy's own limit refuses quite ordinary expressions; Istio's number.
    "re2": {"max_program_size": {"error_level": 32768}},
    # HTTP/2 that opens requests and takes them back ("rapid reset"): of one connection so many are begun before others have their
    # turn, and a connection most of whose first 500 requests were taken back within a second is closed.
    "http": {"max_requests_per_io_cycle": 16},
    # Spans are told together: each call costs the node as much as many spans.
    "tracing": {"opentelemetry": {"min_flush_spans": 200, "flush_interval_ms": 1000}},
    "overload": {"premature_reset_total_stream_count": 500, "premature_reset_min_stream_lifetime_seconds": 1},
}


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """What differs from proxy to proxy.

    `node_id` is the proxy's id (`namespace/name`), `cluster` its service in `app.namespace` form, `metadata` for whoever
    serves it. `xds_socket` and `admin_socket` are paths of Unix sockets. `health_port` and `metrics_port` are bound on
    `address`; 0 leaves the listener out. `merged_port` passes on what `merged_socket` answers ("": nobody is there): the node
    has Istio's metrics; the metrics port has them, too, at `/metrics`. `mark` is the socket mark of the proxy's own
    connections, which exempts them from capture; 0: none (it takes CAP_NET_ADMIN). `dns_port` on the loopback is asked for
    names; 0: whom the host asks. `ipv6`: bind `::` beside 0.0.0.0. `heap_bytes` is the memory that Envoy keeps within by
    refusing work, instead of being killed; `connections` is how many of clients there may be at once.
    """

    node_id: str
    cluster: str
    xds_socket: str
    admin_socket: str
    metadata: dict[str, Any] = {}
    address: str = "0.0.0.0"  # noqa: S104 - probes and scrapes come from outside
    health_port: int = 15021
    metrics_port: int = 15090
    merged_port: int = 0
    merged_socket: str = ""
    mark: int = 0
    dns_port: int = 0
    ipv6: bool = False
    heap_bytes: int = 1 << 30
    connections: int = 100_000


def bootstrap(options: Options) -> dict[str, Any]:
    """The bootstrap as a JSON object."""
    listeners = []
    merged = [(path, _MERGED, _MERGED_PATH) for path in ("/metrics", _MERGED_PATH)] if options.merged_socket else []
    if options.health_port:
        listeners.append(_listener("health", options.address, options.health_port, [("/healthz/ready", _ADMIN, "/ready")]))
    if options.metrics_port:
        own = ("/stats/prometheus", _ADMIN, "/stats/prometheus")
        listeners.append(_listener("metrics", options.address, options.metrics_port, [own, *merged[:1]]))
    if options.merged_port:
        listeners.append(_listener("merged", options.address, options.merged_port, merged))
    for listener in listeners if options.ipv6 else ():
        port = listener["address"]["socket_address"]["port_value"]
        listener["additional_addresses"] = [{"address": {"socket_address": {"address": "::", "port_value": port}}}]
    message: dict[str, Any] = {
        "node": {"id": options.node_id, "cluster": options.cluster, "metadata": options.metadata},
        "admin": {"address": {"pipe": {"path": options.admin_socket, "mode": 0o600}}, "ignore_global_conn_limit": True},
        "dynamic_resources": {
            "ads_config": {
                "api_type": "DELTA_GRPC",
                "transport_api_version": "V3",
                "set_node_on_first_message_only": True,
                # By default a lost stream comes back after up to 14 seconds.
                "grpc_services": [
                    {
                        "envoy_grpc": {"cluster_name": _XDS},
                        "retry_policy": {"retry_back_off": {"base_interval": "0.2s", "max_interval": "1s"}},
                    }
                ],
            },
            "cds_config": _ads(),
            "lds_config": _ads(),
        },
        "static_resources": {
            "clusters": [
                _unix(_XDS, options.xds_socket, http2=True),
                _unix(LIMITER, options.xds_socket, http2=True),
                _unix(_ADMIN, options.admin_socket, http2=False),
                *([_unix(_MERGED, options.merged_socket, http2=False)] if options.merged_socket else []),
            ],
            "listeners": listeners,
        },
        # What was measured is to be read a second later: how many requests there were is told by their durations.
        "stats_flush_interval": "1s",
        "stats_config": {
            "stats_tags": [TO],
            "stats_matcher": {
                "inclusion_list": {
                    "patterns": [
                        *({"prefix": prefix} for prefix in _STATS_PREFIXES),
                        *({"suffix": suffix} for suffix in _STATS_SUFFIXES),
                    ]
                }
            },
            "histogram_bucket_settings": [
                *({"match": {"prefix": f"{PREFIX}.{side}.duration"}, "buckets": DURATIONS} for side in SIDES),
                {"match": {"prefix": f"{PREFIX}."}, "buckets": SIZES},
            ],
        },
        "deferred_stat_options": {"enable_deferred_creation_stats": True},
        "overload_manager": overload(options.heap_bytes, options.connections),
        "layered_runtime": {
            "layers": [
                {"name": "static", "static_layer": _RUNTIME},
                {"name": TAP, "rtds_layer": {"name": TAP, "rtds_config": _RTDS}},
                {"name": "admin", "admin_layer": {}},
            ]
        },
    }
    if options.dns_port:
        message["typed_dns_resolver_config"] = _resolver(options.dns_port)
    if options.mark:
        message["cluster_manager"] = {"upstream_bind_config": {"socket_options": [_mark(options.mark)]}}
    return message


def _resolver(port: int) -> dict[str, Any]:
    return {
        "name": "envoy.network.dns_resolver.cares",
        "typed_config": {
            "@type": f"{_TYPE}envoy.extensions.network.dns_resolver.cares.v3.CaresDnsResolverConfig",
            "resolvers": [{"socket_address": {"address": "127.0.0.1", "port_value": port}}],
            "dns_resolver_options": {"no_default_search_domain": True},
        },
    }


def _ads() -> dict[str, Any]:
    return {"ads": {}, "resource_api_version": "V3", "initial_fetch_timeout": "0s"}


def _mark(mark: int) -> dict[str, Any]:
    return {
        "description": "exempt from capture",
        "level": _SOL_SOCKET,
        "name": _SO_MARK,
        "int_value": mark,
        "state": "STATE_PREBIND",
    }


def _unix(name: str, path: str, *, http2: bool) -> dict[str, Any]:
    cluster: dict[str, Any] = {
        "name": name,
        "type": "STATIC",
        "connect_timeout": "1s",
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": {"pipe": {"path": path}}}}]}],
        },
    }
    if http2:
        cluster["typed_extension_protocol_options"] = {
            _UPSTREAM_HTTP: {
                "@type": _TYPE + _UPSTREAM_HTTP,
                "explicit_http_config": {
                    "http2_protocol_options": {"connection_keepalive": {"interval": "30s", "timeout": "5s"}}
                },
            }
        }
    return cluster


def _listener(name: str, address: str, port: int, paths: list[tuple[str, str, str]]) -> dict[str, Any]:
    """A listener that passes on paths, and nothing else: each to a cluster, under another path."""
    return {
        "name": name,
        "address": {"socket_address": {"address": address, "port_value": port}},
        "bypass_overload_manager": True,
        "ignore_global_conn_limit": True,
        "filter_chains": [
            {
                "filters": [
                    {
                        "name": "envoy.filters.network.http_connection_manager",
                        "typed_config": {
                            "@type": _TYPE + "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
                            "stat_prefix": name,
                            "route_config": {
                                "virtual_hosts": [
                                    {
                                        "name": name,
                                        "domains": ["*"],
                                        "routes": [
                                            {"match": {"path": path}, "route": {"cluster": cluster, "prefix_rewrite": there}}
                                            for path, cluster, there in paths
                                        ],
                                    }
                                ]
                            },
                            "http_filters": [
                                {
                                    "name": "envoy.filters.http.router",
                                    "typed_config": {"@type": _TYPE + "envoy.extensions.filters.http.router.v3.Router"},
                                }
                            ],
                        },
                    }
                ]
            }
        ],
    }


def overload(heap_bytes: int, connections: int) -> dict[str, Any]:
    """An overload manager: the nearer the heap comes to `heap_bytes`, the less patience there is and the less is let in.

    First quiet connections are let go sooner, then requests that hold the most memory are reset, and last nothing new comes in.
    What lets an operator look (the static listeners) stands outside of it.
    """
    heap = "envoy.resource_monitors.fixed_heap"
    counted = "envoy.resource_monitors.global_downstream_max_connections"
    return {
        "refresh_interval": "0.25s",
        "resource_monitors": [
            {
                "name": heap,
                "typed_config": {
                    "@type": _TYPE + "envoy.extensions.resource_monitors.fixed_heap.v3.FixedHeapConfig",
                    "max_heap_size_bytes": heap_bytes,
                },
            },
            {
                "name": counted,
                "typed_config": {
                    "@type": _TYPE + "envoy.extensions.resource_monitors.downstream_connections.v3.DownstreamConnectionsConfig",
                    "max_active_downstream_connections": connections,
                },
            },
        ],
        # Streams that hold 1 MB and more can be told apart.
        "buffer_factory_config": {"minimum_account_to_track_power_of_two": 20},
        "actions": [
            {
                "name": "envoy.overload_actions.reduce_timeouts",
                "triggers": [{"name": heap, "scaled": {"scaling_threshold": 0.75, "saturation_threshold": 0.9}}],
                "typed_config": {
                    "@type": _TYPE + "envoy.config.overload.v3.ScaleTimersOverloadActionConfig",
                    "timer_scale_factors": [
                        {"timer": "HTTP_DOWNSTREAM_CONNECTION_IDLE", "min_timeout": "2s"},
                        {"timer": "TRANSPORT_SOCKET_CONNECT", "min_timeout": "2s"},
                    ],
                },
            },
            {
                "name": "envoy.overload_actions.reset_high_memory_stream",
                "triggers": [{"name": heap, "scaled": {"scaling_threshold": 0.85, "saturation_threshold": 0.95}}],
            },
            _at("envoy.overload_actions.shrink_heap", heap, 0.9),
            _at("envoy.overload_actions.stop_accepting_connections", heap, 0.95),
            _at("envoy.overload_actions.stop_accepting_requests", heap, 0.97),
        ],
    }


def _at(action: str, resource: str, threshold: float) -> dict[str, Any]:
    return {"name": action, "triggers": [{"name": resource, "threshold": {"value": threshold}}]}
