"""What an Envoy is started with: who it is, where its configuration comes from, and the few things that never change.

Written as JSON (a node id `n` would be a boolean in YAML). Everything else comes over one delta ADS stream from the node agent's
Unix socket. The two static listeners answer probes and scrapes; Envoy's administration is a Unix socket and never a port.
"""

from __future__ import annotations

from typing import Any

import msgspec

_ADMIN = "admin"
_XDS = "xds"
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
    "mesh",
    "sds.",
    "runtime.",
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
    ".fault.aborts_injected",
    ".fault.delays_injected",
)


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """What differs from proxy to proxy.

    `node_id` is the proxy's id (`namespace/name`), `cluster` its service in `app.namespace` form, `metadata` for whoever
    serves it. `xds_socket` and `admin_socket` are paths of Unix sockets. `health_port` and `metrics_port` are bound on
    `address`; 0 leaves the listener out. `mark` is the socket mark of the proxy's own connections, which exempts them from
    capture; 0: none (it takes CAP_NET_ADMIN). `dns_port` on the loopback is asked for names; 0: whom the host asks.
    `ipv6`: bind `::` beside 0.0.0.0. `heap_bytes` is where Envoy starts to refuse work instead of being killed.
    """

    node_id: str
    cluster: str
    xds_socket: str
    admin_socket: str
    metadata: dict[str, Any] = {}
    address: str = "0.0.0.0"  # noqa: S104 - probes and scrapes come from outside
    health_port: int = 15021
    metrics_port: int = 15090
    mark: int = 0
    dns_port: int = 0
    ipv6: bool = False
    heap_bytes: int = 1 << 30


def bootstrap(options: Options) -> dict[str, Any]:
    """The bootstrap as a JSON object."""
    listeners = []
    if options.health_port:
        listeners.append(_to_admin("health", options.address, options.health_port, "/healthz/ready", "/ready"))
    if options.metrics_port:
        listeners.append(_to_admin("metrics", options.address, options.metrics_port, "/stats/prometheus", "/stats/prometheus"))
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
            "clusters": [_unix(_XDS, options.xds_socket, http2=True), _unix(_ADMIN, options.admin_socket, http2=False)],
            "listeners": listeners,
        },
        "stats_config": {
            "stats_matcher": {
                "inclusion_list": {
                    "patterns": [
                        *({"prefix": prefix} for prefix in _STATS_PREFIXES),
                        *({"suffix": suffix} for suffix in _STATS_SUFFIXES),
                    ]
                }
            }
        },
        "deferred_stat_options": {"enable_deferred_creation_stats": True},
        "overload_manager": _overload(options.heap_bytes),
        "layered_runtime": {
            "layers": [
                # Envoy's own limit refuses quite ordinary expressions; Istio's number.
                {"name": "static", "static_layer": {"re2": {"max_program_size": {"error_level": 32768}}}},
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


def _to_admin(name: str, address: str, port: int, path: str, admin_path: str) -> dict[str, Any]:
    """A listener that passes one path on to Envoy's administration, and nothing else of it."""
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
                                            {
                                                "match": {"path": path},
                                                "route": {"cluster": _ADMIN, "prefix_rewrite": admin_path},
                                            }
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


def _overload(heap_bytes: int) -> dict[str, Any]:
    heap = "envoy.resource_monitors.fixed_heap"
    connections = "envoy.resource_monitors.global_downstream_max_connections"
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
                "name": connections,
                "typed_config": {
                    "@type": _TYPE + "envoy.extensions.resource_monitors.downstream_connections.v3.DownstreamConnectionsConfig",
                    "max_active_downstream_connections": 100_000,
                },
            },
        ],
        "actions": [
            {
                "name": "envoy.overload_actions.shrink_heap",
                "triggers": [{"name": heap, "threshold": {"value": 0.9}}],
            },
            {
                "name": "envoy.overload_actions.stop_accepting_requests",
                "triggers": [{"name": heap, "threshold": {"value": 0.97}}],
            },
        ],
    }
