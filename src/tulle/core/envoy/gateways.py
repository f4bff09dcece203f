"""Gateways → their listeners: one for each bound port, with a filter chain for each TLS that is told apart by its server name.

Where HTTP/3 is spoken the port has a second one, for UDP: QUIC with the same certificates and routes. Who comes by TCP is told
of it by `alt-svc`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from tulle.core import type_urls
from tulle.core.encoded import Encoded, encode
from tulle.core.envoy import authorization, http, tls
from tulle.core.envoy.connection_limits import connection_filters
from tulle.core.envoy.datagrams import encode_gateway_udp
from tulle.core.envoy.discovery import asked_for
from tulle.core.envoy.sniffing import INSPECT_TLS
from tulle.core.envoy.source import datagrams, seconds, socket
from tulle.core.envoy.tcp_routes import chains, leads_to, needs_names, tcp_filters
from tulle.core.model.gateway import GatewayChain, GatewayListener
from tulle.core.model.workload import Workload
from tulle.pb import pack
from tulle.pb.envoy.config.core.v3 import base_pb2
from tulle.pb.envoy.config.listener.v3 import listener_components_pb2, listener_pb2, quic_config_pb2, udp_listener_config_pb2
from tulle.pb.envoy.extensions.filters.listener.proxy_protocol.v3 import proxy_protocol_pb2

_Chain = listener_components_pb2.FilterChain
_Match = listener_components_pb2.FilterChainMatch

_PROXY_PROTOCOL = listener_components_pb2.ListenerFilter(
    name="envoy.filters.listener.proxy_protocol", typed_config=pack(proxy_protocol_pb2.ProxyProtocol())
)
# How long (seconds) a client may take to say that it speaks TLS before it is taken for one that does not.
_SILENCE = 5.0


def encode_gateway(workload: Workload) -> tuple[Encoded, ...]:
    """The listeners of a gateway workload."""
    found: list[Encoded] = []
    for listener in workload.listeners:
        found.append(_encode(_listener(workload, listener)))
        by_quic = [chain for chain in listener.chains if chain.http3]
        if by_quic:
            found.append(_encode(_quic(workload, listener, by_quic)))
    return (*found, *map(encode_gateway_udp, workload.udp))


def _quic(workload: Workload, listener: GatewayListener, by_quic: list[GatewayChain]) -> listener_pb2.Listener:
    name = f"udp_{listener.address}_{listener.port}"
    chains = []
    for chain in by_quic:
        assert chain.tls is not None, "QUIC is TLS"
        message = _Chain(name=",".join(chain.names) or "any", filters=_filters(workload, f"outbound_{name}", chain, by_quic=True))
        message.filter_chain_match.CopyFrom(_Match(transport_protocol="quic", server_names=chain.names))
        message.transport_socket.CopyFrom(tls.quic(chain.tls))
        chains.append(message)
    return listener_pb2.Listener(
        name=name,
        address=datagrams(listener.address, listener.port),
        traffic_direction=base_pb2.OUTBOUND,
        udp_listener_config=udp_listener_config_pb2.UdpListenerConfig(quic_options=quic_config_pb2.QuicProtocolOptions()),
        filter_chains=chains,
    )


def _listener(workload: Workload, listener: GatewayListener) -> listener_pb2.Listener:
    name = f"{listener.address}_{listener.port}"
    announced = workload.edge.announced
    inspected = needs_names(listener.routes) or any(chain.encrypted for chain in listener.chains)
    return listener_pb2.Listener(
        name=name,
        address=socket(listener.address, listener.port),
        traffic_direction=base_pb2.OUTBOUND,
        listener_filters=[*([_PROXY_PROTOCOL] if announced else ()), *([INSPECT_TLS] if inspected else ())],
        listener_filters_timeout=seconds(_SILENCE) if inspected or announced else None,
        # Whoever has to announce himself and says nothing does not get in.
        continue_on_listener_filters_timeout=inspected and not announced,
        filter_chains=[
            *(_chain(workload, f"outbound_{name}", chain, inspected) for chain in listener.chains),
            *_guarded(chains(listener.routes, telemetry=listener.telemetry), listener),
        ],
    )


def _chain(workload: Workload, prefix: str, chain: GatewayChain, inspected: bool) -> listener_components_pb2.FilterChain:
    message = _Chain(filters=_filters(workload, prefix, chain))
    if inspected:
        transport = "tls" if chain.encrypted else "raw_buffer"
        message.filter_chain_match.CopyFrom(_Match(transport_protocol=transport, server_names=chain.names))
        message.name = ",".join(chain.names) or ("any" if chain.encrypted else "plaintext")
    if chain.tls is not None:
        message.transport_socket.CopyFrom(tls.gateway(chain.tls, workload.accepts, workload.handshake))
        message.transport_socket_connect_timeout.CopyFrom(tls.HANDSHAKE_WITHIN)
        if chain.tls.mesh:
            tls.cut(message, workload.cut)
    return message


def _filters(
    workload: Workload, prefix: str, chain: GatewayChain, *, by_quic: bool = False
) -> list[listener_components_pb2.Filter]:
    if chain.table is None:
        only = "" if chain.guard.strangers else leads_to(chain.destinations, chain.carriage)
        carried = tcp_filters(chain.destinations, chain.carriage, chain.telemetry, mutual=bool(only))
        return [*connection_filters(chain.connections), *authorization.tcp_filters(chain.guard, only), *carried]
    edge, limits = workload.edge, workload.limits
    guard, told = chain.guard, chain.telemetry
    return [
        *connection_filters(() if by_quic else chain.connections),
        http.gateway(
            prefix, chain.table.name, edge, limits, guard, chain.http3, by_quic=by_quic, telemetry=told, counter=chain.counter
        ),
    ]


def _guarded(
    made: Iterable[listener_components_pb2.FilterChain], listener: GatewayListener
) -> Iterator[listener_components_pb2.FilterChain]:
    """Chains with what stands before them."""
    for chain in made:
        before = [*connection_filters(listener.connections), *authorization.tcp_filters(listener.guard)]
        filters = [*before, *chain.filters]
        del chain.filters[:]
        chain.filters.extend(filters)
        yield chain


def _encode(listener: listener_pb2.Listener) -> Encoded:
    return encode(type_urls.LISTENER, listener.name, listener.SerializeToString(deterministic=True), asked_for(listener))
