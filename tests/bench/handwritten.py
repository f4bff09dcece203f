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


def _manager(prefix: str, route: Json, http_filters: list[Json], **more: Any) -> Json:
    host = {"name": "all", "domains": ["*"], "routes": [{"match": {"prefix": "/"}, **route}]}
    router = {"name": "envoy.filters.http.router", "typed_config": {"@type": _ANY + "extensions.filters.http.router.v3.Router"}}
    return {
        "name": "envoy.filters.network.http_connection_manager",
        "typed_config": {
            "@type": _ANY + "extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
            "stat_prefix": prefix,
            "route_config": {"virtual_hosts": [host]},
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
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": _address(host, port)}}]}],
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


# What the mesh has on for a plain HTTP call today; the featured pair has the same, and no more.
_FAULT = {"name": "envoy.filters.http.fault", "typed_config": {"@type": _ANY + "extensions.filters.http.fault.v3.HTTPFault"}}
_RETRY = {
    "retry_on": "connect-failure,refused-stream,unavailable,cancelled,retriable-status-codes",
    "num_retries": 2,
    "retriable_status_codes": [503],
    "host_selection_retry_max_attempts": 5,
    "retry_host_predicate": [
        {
            "name": "envoy.retry_host_predicates.previous_hosts",
            "typed_config": {"@type": _ANY + "extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate"},
        }
    ],
}
# On the server's side the mesh repeats only what the application never saw, and injects no faults.
_ONCE_MORE = {
    "retry_on": "reset-before-request,connect-failure,refused-stream",
    "num_retries": 2,
    "retry_host_predicate": _RETRY["retry_host_predicate"],
}
_TLS_INSPECTOR = {
    "name": "envoy.filters.listener.tls_inspector",
    "typed_config": {"@type": _ANY + "extensions.filters.listener.tls_inspector.v3.TlsInspector"},
}


def _bootstrap(name: str, listener: Json, clusters: list[Json], admin: Path) -> Json:
    return {
        "node": {"id": name, "cluster": "bench"},
        "admin": {"address": {"pipe": {"path": str(admin)}}},
        "static_resources": {"listeners": [listener], "clusters": clusters},
    }


def server(host: str, port: int, admin: Path) -> Json:
    """An application that answers 1 KB at once, fast enough not to be the subject."""
    reply = {"direct_response": {"status": 200, "body": {"inline_string": "x" * 1024}}}
    return _bootstrap("server", _listener("server", host, port, _manager("server", reply, [])), [], admin)


def client_side(listen: int, peer: tuple[str, int], certificates: Path, identity: str, admin: Path, *, features: bool) -> Json:
    """The caller's proxy: plaintext in on loopback, HTTP/2 over mTLS out to `peer`, whose SPIFFE ID is `identity`."""
    route: Json = {"route": {"cluster": "peer", "timeout": "0s"}}
    more: Json = {"generate_request_id": features}
    if features:
        route["route"]["retry_policy"] = _RETRY
        more |= {"normalize_path": True, "upgrade_configs": [{"upgrade_type": "websocket"}]}
    manager = _manager("out", route, [_FAULT] if features else [], **more)
    cluster = _cluster(
        "peer",
        *peer,
        typed_extension_protocol_options=_HTTP2,
        transport_socket=_tls("UpstreamTlsContext", certificates, "client", identity, sni="server"),
    )
    return _bootstrap("client", _listener("out", "127.0.0.1", listen, manager), [cluster], admin)


def server_side(host: str, listen: int, app: int, certificates: Path, identity: str, admin: Path, *, features: bool) -> Json:
    """The server's proxy: mTLS in from `identity`, plaintext HTTP/1.1 to the application on loopback."""
    more: Json = {"generate_request_id": features}
    if features:
        more |= {
            "forward_client_cert_details": "APPEND_FORWARD",
            "set_current_client_cert_details": {"subject": True, "uri": True, "dns": True},
            "normalize_path": True,
            "upgrade_configs": [{"upgrade_type": "websocket"}],
        }
    route: Json = {"route": {"cluster": "app", "timeout": "0s"}}
    if features:
        route["route"]["retry_policy"] = _ONCE_MORE
    manager = _manager("in", route, [], **more)
    tls = _tls("DownstreamTlsContext", certificates, "server", identity, require_client_certificate=True)
    listener = _listener("in", host, listen, manager, tls, [_TLS_INSPECTOR] if features else None)
    return _bootstrap("server-side", listener, [_cluster("app", "127.0.0.1", app)], admin)
