"""What a person would write by hand: an Envoy pair with mTLS, bare or with the features that the mesh has on, and a server.

Static bootstraps as plain dictionaries. They are the measure for the mesh's own configuration, so they must stay what an
expert would write: HTTP/2 between the two, a verified identity, generous circuit breakers, no filter that is not named.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

Json = dict[str, Any]
_ANY = "type.googleapis.com/envoy."
_MAX = 4_294_967_295


def _address(host: str, port: int) -> Json:
    return {"socket_address": {"address": host, "port_value": port}}


def _manager(prefix: str, routes: list[Json], http_filters: list[Json], **more: Any) -> Json:
    host: Json = {"name": "all", "domains": ["*"], "routes": [{"match": {"prefix": "/"}, **route} for route in routes]}
    table: Json = {"virtual_hosts": [host]}
    if http_filters:
        host["include_request_attempt_count"] = True
        table["response_headers_to_remove"] = [_UNREACHED, _LOST]
    router = {"name": "envoy.filters.http.router", "typed_config": {"@type": _ANY + "extensions.filters.http.router.v3.Router"}}
    return {
        "name": "envoy.filters.network.http_connection_manager",
        "typed_config": {
            "@type": _ANY + "extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
            "stat_prefix": prefix,
            "route_config": table,
            "http_filters": [*http_filters, router],
            **more,
        },
    }


def _listener(
    name: str, host: str, port: int, filter_: Json, tls: Json | None = None, inspectors: list[Json] | None = None
) -> Json:
    chain: Json = {"filters": [filter_]}
    if tls:
        chain["transport_socket"] = tls
    return {
        "name": name,
        "address": _address(host, port),
        "listener_filters": inspectors or [],
        "filter_chains": [chain],
    }


def _cluster(name: str, host: str, port: int, **more: Any) -> Json:
    return {
        "name": name,
        "type": "STATIC",
        "connect_timeout": "5s",
        "circuit_breakers": {
            "thresholds": [{"max_connections": _MAX, "max_pending_requests": _MAX, "max_requests": _MAX, "max_retries": _MAX}]
        },
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [
                {
                    "lb_endpoints": [
                        {
                            "endpoint": {"address": _address(host, port)},
                            "metadata": {"filter_metadata": {"bench": {"peer": f"{name} of the bench"}}},
                        }
                    ]
                }
            ],
        },
        **more,
    }


_HTTP2 = {
    "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
        "@type": _ANY + "extensions.upstreams.http.v3.HttpProtocolOptions",
        "explicit_http_config": {"http2_protocol_options": {}},
    }
}


def _tls(kind: str, certificates: Path, name: str, peer: str, **more: Any) -> Json:
    common = {
        "tls_params": {"tls_minimum_protocol_version": "TLSv1_3", "tls_maximum_protocol_version": "TLSv1_3"},
        "alpn_protocols": ["h2"],
        "tls_certificates": [
            {
                "certificate_chain": {"filename": str(certificates / f"{name}.pem")},
                "private_key": {"filename": str(certificates / f"{name}.key")},
            }
        ],
        "validation_context": {
            "trusted_ca": {"filename": str(certificates / "root.pem")},
            "match_typed_subject_alt_names": [{"san_type": "URI", "matcher": {"exact": peer}}],
        },
    }
    return {
        "name": "envoy.transport_sockets.tls",
        "typed_config": {
            "@type": _ANY + f"extensions.transport_sockets.tls.v3.{kind}",
            "common_tls_context": common,
            **more,
        },
    }


# What the mesh has on for a plain HTTP call today; the featured pair has the same, and no more. Filters that only some routes
# use stand there disabled.
def _disabled(name: str, kind: str) -> Json:
    typed = {"@type": _ANY + f"extensions.filters.http.{name}.v3.{kind}"}
    return {"name": f"envoy.filters.http.{name}", "disabled": True, "typed_config": typed}


_ROUTED = [
    _disabled("header_mutation", "HeaderMutation"),
    _disabled("cors", "Cors"),
    _disabled("composite", "Composite"),
    _disabled("fault", "HTTPFault"),
    _disabled("stateful_session", "StatefulSession"),
    _disabled("set_filter_state", "Config"),
]
_UNREACHED, _LOST = "x-unreached", "x-lost"
_ELSEWHERE = [
    {
        "name": "envoy.retry_host_predicates.previous_hosts",
        "typed_config": {"@type": _ANY + "extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate"},
    }
]


# Only what nobody can have acted on is repeated, and what only reads also where its instance was lost with it: an application's
# 503 is an answer; a proxy that did not reach it, or lost it, says so.
def _retries(also: str, *told: str) -> Json:
    return {
        "retry_on": f"connect-failure,refused-stream,reset-before-request,unavailable,cancelled,{also}retriable-headers",
        "num_retries": 2,
        "retriable_headers": [{"name": name, "present_match": True} for name in told],
        "host_selection_retry_max_attempts": 256,
        "retry_host_predicate": _ELSEWHERE,
    }


_READS = {"prefix": "/", "headers": [{"name": ":method", "string_match": {"safe_regex": {"regex": "GET|HEAD|OPTIONS"}}}]}
_ONCE_MORE = {
    "retry_on": "reset-before-request,connect-failure,refused-stream",
    "num_retries": 2,
    "retry_host_predicate": _ELSEWHERE,
}
_NOT_REACHED = {
    "mappers": [
        {
            "filter": {"response_flag_filter": {"flags": flags}},
            "headers_to_add": [{"header": {"key": name, "value": "true"}}],
        }
        for flags, name in ((["UF"], _UNREACHED), (["UC", "UR"], _LOST))
    ]
}
_FEATURES: Json = {
    "normalize_path": True,
    "upgrade_configs": [{"upgrade_type": "websocket"}],
    "http_protocol_options": {"accept_http_10": True},
    "stream_idle_timeout": "0s",
    "server_header_transformation": "PASS_THROUGH",
}
_TLS_INSPECTOR = {
    "name": "envoy.filters.listener.tls_inspector",
    "typed_config": {"@type": _ANY + "extensions.filters.listener.tls_inspector.v3.TlsInspector"},
}


_HISTOGRAMS = (
    ("duration", "Microseconds", "%COMMON_DURATION(DS_RX_BEG:DS_TX_END:us)%"),
    ("request_bytes", "Bytes", "%BYTES_RECEIVED%"),
    ("response_bytes", "Bytes", "%BYTES_SENT%"),
)


# Who is at the other end and how it went, each as one label: as cheap as an expert can have it, and as the mesh has it.
_WHO = {
    "out": "%UPSTREAM_CLUSTER_RAW% %UPSTREAM_PEER_URI_SAN% %UPSTREAM_METADATA(bench:peer)%",
    "in": "server %DOWNSTREAM_PEER_URI_SAN% %DOWNSTREAM_PEER_SUBJECT%",
}
_HOW = "%RESPONSE_FLAGS% %RESPONSE_CODE% %GRPC_STATUS_NUMBER%"


def _metrics(side: str) -> Json:
    """Every request counted, with its duration and sizes, under who is at the other end: what anybody wants to know of a mesh."""
    how = f"{_HOW} %ROUTE_NAME%" if side == "out" else _HOW
    tags = [{"name": "who", "value_format": _WHO[side]}, {"name": "how", "value_format": how}]
    logger = {
        "name": "envoy.access_loggers.stats",
        "filter": {"log_type_filter": {"types": ["DownstreamEnd"]}},
        "typed_config": {
            "@type": _ANY + "extensions.access_loggers.stats.v3.Config",
            "stats_scope": {"prefix": f"bench.{side}", "max_counters": 2000, "max_histograms": 2000},
            "histograms": [
                {"stat": {"name": name, "tags": tags}, "unit": unit, "value_format": value} for name, unit, value in _HISTOGRAMS
            ],
        },
    }
    return {"access_log": [logger]}


def _bootstrap(name: str, listener: Json, clusters: list[Json], admin: Path) -> Json:
    return {
        "node": {"id": name, "cluster": "bench"},
        "admin": {"address": {"pipe": {"path": str(admin)}}},
        "static_resources": {"listeners": [listener], "clusters": clusters},
    }


def server(host: str, port: int, admin: Path) -> Json:
    """An application that answers 1 KB at once, fast enough not to be the subject."""
    reply = {"direct_response": {"status": 200, "body": {"inline_string": "x" * 1024}}}
    return _bootstrap("server", _listener("server", host, port, _manager("server", [reply], [])), [], admin)


def client_side(
    listen: int,
    peer: tuple[str, int],
    certificates: Path,
    identity: str,
    admin: Path,
    *,
    features: bool,
    anew: bool = False,
) -> Json:
    """The caller's proxy: plaintext in on loopback, HTTP/2 over mTLS out to `peer`, whose SPIFFE ID is `identity`.

    `anew`: every request has a connection, and so a handshake, of its own. What is compared then is the handshake, so that
    requests are counted as the mesh's proxies count them.
    """
    (kind, options), *_ = _HTTP2.items()
    spoken = {kind: options | ({"common_http_protocol_options": {"max_requests_per_connection": 1}} if anew else {})}
    action: Json = {"cluster": "peer", "timeout": "0s"}
    more: Json = {"generate_request_id": features}
    routes: list[Json] = [{"route": action}]
    if features:
        reading = {"match": _READS, "route": {**action, "retry_policy": _retries("reset,", _UNREACHED, _LOST)}}
        routes = [reading, {"route": {**action, "retry_policy": _retries("", _UNREACHED)}}]
        more |= _FEATURES | (_metrics("out") if anew else {})
    manager = _manager("out", routes, _ROUTED if features else [], **more)
    cluster = _cluster(
        "peer",
        *peer,
        typed_extension_protocol_options=spoken,
        transport_socket=_tls("UpstreamTlsContext", certificates, "client", identity, sni="server"),
    )
    return _bootstrap("client", _listener("out", "127.0.0.1", listen, manager), [cluster], admin)


def server_side(
    host: str,
    listen: int,
    app: int,
    certificates: Path,
    identity: str,
    admin: Path,
    *,
    features: bool,
    anew: bool = False,
) -> Json:
    """The server's proxy: mTLS in from `identity`, plaintext HTTP/1.1 to the application on loopback. `anew` as above."""
    more: Json = {"generate_request_id": features}
    if features:
        more |= {
            **_FEATURES,
            "forward_client_cert_details": "APPEND_FORWARD",
            "set_current_client_cert_details": {"subject": True, "uri": True},
            "local_reply_config": _NOT_REACHED,
            **(_metrics("in") if anew else {}),
        }
    route: Json = {"route": {"cluster": "app", "timeout": "0s"}}
    if features:
        route["route"]["retry_policy"] = _ONCE_MORE
    manager = _manager("in", [route], [], **more)
    tls = _tls("DownstreamTlsContext", certificates, "server", identity, require_client_certificate=True)
    listener = _listener("in", host, listen, manager, tls, [_TLS_INSPECTOR] if features else None)
    return _bootstrap("server-side", listener, [_cluster("app", "127.0.0.1", app)], admin)
