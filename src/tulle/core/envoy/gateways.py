"""Gateways → their listeners: one for each bound port, with a filter chain for each TLS that is told apart by its server name."""

from __future__ import annotations

from collections.abc import Iterable

from tulle.core import type_urls
from tulle.core.encoded import Encoded, encode
from tulle.core.envoy import http, tls
from tulle.core.envoy.source import seconds, socket
from tulle.core.envoy.tcp_routes import chains, needs_names, tcp_filters
from tulle.core.model.gateway import GatewayChain, GatewayListener
from tulle.core.model.workload import Workload
from tulle.pb import pack
from tulle.pb.envoy.config.core.v3 import base_pb2
from tulle.pb.envoy.config.listener.v3 import listener_components_pb2, listener_pb2
from tulle.pb.envoy.extensions.filters.listener.tls_inspector.v3 import tls_inspector_pb2

_Chain = listener_components_pb2.FilterChain
_Match = listener_components_pb2.FilterChainMatch

_TLS_INSPECTOR = listener_components_pb2.ListenerFilter(
    name="envoy.filters.listener.tls_inspector", typed_config=pack(tls_inspector_pb2.TlsInspector())
)
# How long (seconds) a client may take to say that it speaks TLS before it is taken for one that does not.
_SILENCE = 5.0


def encode_gateway(workload: Workload) -> tuple[Encoded, ...]:
    """The listeners of a gateway workload."""
    trust_domain = workload.identity.removeprefix("spiffe://").partition("/")[0]
    return tuple(_encode(_listener(listener, trust_domain), listener) for listener in workload.listeners)


def _listener(listener: GatewayListener, trust_domain: str) -> listener_pb2.Listener:
    name = f"{listener.address}_{listener.port}"
    inspected = needs_names(listener.routes) or any(chain.encrypted for chain in listener.chains)
    return listener_pb2.Listener(
        name=name,
        address=socket(listener.address, listener.port),
        traffic_direction=base_pb2.OUTBOUND,
        listener_filters=[_TLS_INSPECTOR] if inspected else [],
        listener_filters_timeout=seconds(_SILENCE) if inspected else None,
        continue_on_listener_filters_timeout=inspected,
        filter_chains=[
            *(_chain(f"outbound_{name}", chain, inspected, trust_domain) for chain in listener.chains),
            *chains(listener.routes),
        ],
    )


def _chain(prefix: str, chain: GatewayChain, inspected: bool, trust_domain: str) -> listener_components_pb2.FilterChain:
    message = _Chain(filters=_filters(prefix, chain))
    if inspected:
        transport = "tls" if chain.encrypted else "raw_buffer"
        message.filter_chain_match.CopyFrom(_Match(transport_protocol=transport, server_names=chain.names))
        message.name = ",".join(chain.names) or ("any" if chain.encrypted else "plaintext")
    if chain.tls is not None:
        message.transport_socket.CopyFrom(tls.gateway(chain.tls, trust_domain))
    return message


def _filters(prefix: str, chain: GatewayChain) -> list[listener_components_pb2.Filter]:
    return [http.gateway(prefix, chain.table.name)] if chain.table is not None else tcp_filters(chain.destinations, chain.told)


def _encode(listener: listener_pb2.Listener, row: GatewayListener) -> Encoded:
    refs: Iterable[tuple[str, str]] = ((type_urls.ROUTE, table.name) for table in dict.fromkeys(row.tables))
    return encode(type_urls.LISTENER, listener.name, listener.SerializeToString(deterministic=True), tuple(refs))
