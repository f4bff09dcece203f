"""Workloads → listeners.

A captured connection arrives at `virtualOutbound` (15001) or `virtualInbound` (15006) and is told by where it was going. The
listeners for outbound ports (`0.0.0.0_9080`, `240.240.0.7_3306`) bind nothing: `virtualOutbound` hands connections to them, and
all sidecars of a namespace share them. In `proxy` capture nothing is redirected: the application calls a forward proxy, and each
of its ports has a listener of its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import msgspec

from tulle.core import type_urls
from tulle.core.encoded import Encoded, encode
from tulle.core.envoy import http
from tulle.core.envoy.clusters import BLACK_HOLE, PASSTHROUGH
from tulle.core.envoy.discovery import asked_for
from tulle.core.envoy.gateways import encode_gateway
from tulle.core.envoy.inbound import port_listener, virtual_inbound
from tulle.core.envoy.sniffing import HTTP1, HTTP2, end_wait_outbound, look_for_http, look_for_tls
from tulle.core.envoy.source import FALSE, TRUE, pipe, socket, uint32
from tulle.core.envoy.tcp_routes import chains, needs_names, tcp, tcp_filters
from tulle.core.model.edge import Limits
from tulle.core.model.route import RouteTableKey, WeightedDestination
from tulle.core.model.tcp_route import ANY_TLS, TcpMatch, TcpRoute
from tulle.core.model.telemetry import Telemetry
from tulle.core.model.workload import Capture, EgressListener, InboundPort, Outbound, OutboundTcp, Workload
from tulle.pb.envoy.config.core.v3 import base_pb2
from tulle.pb.envoy.config.listener.v3 import listener_components_pb2, listener_pb2

ANY = "0.0.0.0"  # noqa: S104 - inside a workload's network, where capture decides what arrives
LOOPBACK = "127.0.0.1"
ANY6 = "::"
_UNIX = "unix://"
_SIX = {ANY: ANY6, LOOPBACK: "::1"}

_Chain = listener_components_pb2.FilterChain
_Match = listener_components_pb2.FilterChainMatch


class _As(NamedTuple):
    """What its own proxy does with the calls of an application, wherever they go."""

    limits: Limits
    telemetry: Telemetry

    @classmethod
    def of(cls, workload: Workload) -> _As:
        """Those of one workload."""
        return cls(workload.limits, workload.telemetry.client)


def encode_outbound(outbound: Outbound) -> tuple[Encoded, ...]:
    """The listeners that the sidecars of a namespace share: one for every HTTP port, one for every TCP service."""
    return _shared(outbound, tuple(service for service in outbound.tcp if ":" not in service.address))


def encode_outbound_six(outbound: Outbound) -> tuple[Encoded, ...]:
    """The same for calls by IPv6."""
    found = _shared(outbound, tuple(service for service in outbound.tcp if not service.address or ":" in service.address))
    return tuple(_at_six(one) for one in found)


def _at_six(encoded: Encoded) -> Encoded:
    """A listener for a port at all addresses, moved to those of IPv6."""
    listener = listener_pb2.Listener.FromString(encoded.value)
    if listener.address.socket_address.address != ANY:
        return encoded
    listener.address.socket_address.address = ANY6
    listener.name = f"[{ANY6}]_{listener.address.socket_address.port_value}"
    return encode(encoded.type_url, listener.name, listener.SerializeToString(deterministic=True), encoded.refs)


def _shared(outbound: Outbound, services: tuple[OutboundTcp, ...]) -> tuple[Encoded, ...]:
    told: dict[int, tuple[RouteTableKey | None, bool]] = {table.port: (table, False) for table in outbound.http}
    told |= {table.port: (table, True) for table in outbound.sniffed}
    others: dict[int, list[OutboundTcp]] = {}
    for service in services:
        if not service.address or "/" in service.address:
            others.setdefault(service.port, []).append(service)
    rest = _rest(outbound)
    return (
        *(
            _any_address(port, told.get(port, (None, False)), others.get(port, []), rest, outbound)
            for port in sorted({*told, *others})
        ),
        *(_tcp_service(service, outbound) for service in services if service.address and "/" not in service.address),
    )


def encode_workload(workload: Workload) -> tuple[Encoded, ...]:
    """The listeners of one workload alone."""
    if workload.is_gateway:
        return encode_gateway(workload)
    if workload.capture is Capture.PROXY:
        table = RouteTableKey(port=0, namespace=workload.namespace, labels=workload.callers)
        return (
            _encode(_forward_proxy(workload, table), table.name),
            *(_inbound(workload, port) for port in workload.inbound),
            *(_own(one, _As.of(workload)) for one in workload.egress),
        )
    captured = [_virtual_outbound(workload), virtual_inbound(workload)]
    for listener in captured if workload.ipv6 else ():
        bound = listener.address.socket_address
        listener.additional_addresses.add(address=socket(_SIX[bound.address], bound.port_value))
    return (
        _encode(captured[0]),
        _encode(captured[1], guarded=True),
        *(_inbound(workload, port) for port in workload.inbound if port.bind),
        *(_own(one, _As.of(workload)) for one in workload.egress),
    )


def _inbound(workload: Workload, port: InboundPort) -> Encoded:
    return _encode(port_listener(workload, port), guarded=True)


def _own(one: EgressListener, caller: _As) -> Encoded:
    """An egress listener at an address of its own. What is for nobody there goes nowhere."""
    path = one.address.startswith(_UNIX)
    name = one.address.replace("/", "_") if path else f"{one.address}_{one.port}"
    listener = listener_pb2.Listener(
        name=name,
        # Whoever may enter the folder may call: the application is another user.
        address=pipe(one.address.removeprefix(_UNIX), mode=0o666) if path else socket(one.address, one.port),
        bind_to_port=FALSE if one.captured else None,
        freebind=TRUE if not one.captured and not path else None,
        # Two proxies of one host would else share its calls, each as somebody else.
        enable_reuse_port=None if one.captured else FALSE,
        traffic_direction=base_pb2.OUTBOUND,
    )
    if one.forward and one.table is not None:
        listener.filter_chains.add(filters=[http.forward(f"outbound_{name}", one.table.name, caller.limits, caller.telemetry)])
        return _encode(listener, one.table.name)
    _tell_apart(listener, (one.table, one.sniffed), one.tcp, BLACK_HOLE, caller)
    return _encode(listener, one.table.name if one.table else "")


def _any_address(
    port: int, told: tuple[RouteTableKey | None, bool], services: list[OutboundTcp], rest: str, outbound: Outbound
) -> Encoded:
    """A port at all addresses that have no listener of their own: networks, server names of TLS, then HTTP and the rest.

    `told` is the table of HTTP and whether other things may come there, `rest` the cluster for what belongs to nobody.
    """
    listener = listener_pb2.Listener(
        name=f"{ANY}_{port}",
        address=socket(ANY, port),
        bind_to_port=FALSE,
        traffic_direction=base_pb2.OUTBOUND,
    )
    _tell_apart(listener, told, services, rest, _As(outbound.limits, outbound.telemetry))
    return _encode(listener, told[0].name if told[0] else "")


def _tell_apart(
    listener: listener_pb2.Listener,
    told: tuple[RouteTableKey | None, bool],
    services: Sequence[OutboundTcp],
    rest: str,
    caller: _As,
) -> None:
    """The chains of a listener at which several services are called."""
    table, sniffed = told
    name, telemetry = listener.name, caller.telemetry
    whole_port = table is None or sniffed
    routes = [route for service in services if service.address or service.names or whole_port for route in _routes(service)]
    listener.filter_chains.extend(chains(routes, beside_plaintext=sniffed, telemetry=telemetry))
    named = needs_names(routes)
    if named:
        look_for_tls(listener)
    if table is not None and sniffed:
        look_for_http(listener)
        listener.filter_chains.append(_http_among_others(name, table, caller))
    if named or sniffed:
        end_wait_outbound(listener)
    if table is not None and not sniffed:
        whole = _Chain(filters=[http.outbound(f"outbound_{name}", table.name, caller.limits, telemetry)])
        if named and not any(ANY_TLS in route.match.names for route in routes):  # TLS for another name is no HTTP
            listener.filter_chains.add(
                filter_chain_match=_Match(transport_protocol="tls"), filters=[tcp(rest, telemetry=telemetry)]
            )
    else:
        owner = next((service.destination.cluster for service in services if not service.address and not service.names), rest)
        whole = _Chain(filters=[tcp(owner, telemetry=telemetry)])
    if listener.filter_chains:
        listener.default_filter_chain.CopyFrom(whole)
    else:
        listener.filter_chains.append(whole)


def _rest(caller: Outbound | Workload) -> str:
    """The cluster for what the mesh does not know."""
    if caller.registry_only:
        return BLACK_HOLE
    return caller.unknown.cluster if caller.unknown else PASSTHROUGH


def _routes(service: OutboundTcp) -> Iterator[TcpRoute]:
    """A service's routes where other services are called at the same port: each only for what is the service's."""
    networks = (service.address,) if service.address else ()
    for route in service.routes:
        names = route.match.names
        if service.names:  # any TLS for the service is TLS for its names
            names = tuple(name for name in names if name != ANY_TLS) or service.names
        match = msgspec.structs.replace(route.match, names=names, networks=route.match.networks or networks)
        yield msgspec.structs.replace(route, match=match)
    if networks or service.names:
        yield TcpRoute(
            match=TcpMatch(service.names, networks),
            destinations=(WeightedDestination(service.destination, named_at=service.named_at),),
            carriage=service.carriage,
        )


def _tcp_service(service: OutboundTcp, outbound: Outbound) -> Encoded:
    name = f"{service.address}_{service.port}"
    listener = listener_pb2.Listener(
        name=name,
        address=socket(service.address, service.port),
        bind_to_port=FALSE,
        traffic_direction=base_pb2.OUTBOUND,
    )
    if needs_names(service.routes):
        look_for_tls(listener)
        if not service.tls:
            end_wait_outbound(listener)
    telemetry = outbound.telemetry
    rest = _Chain(filters=tcp_filters((WeightedDestination(service.destination),), service.carriage, telemetry))
    if not service.sniffed:
        listener.filter_chains.extend(chains(service.routes, telemetry=telemetry))
        if not listener.filter_chains:
            listener.filter_chains.append(rest)
        elif all(route.match != TcpMatch() for route in service.routes):
            listener.default_filter_chain.CopyFrom(rest)
        return _encode(listener)
    table = RouteTableKey(service.port, outbound.namespace, labels=outbound.labels, service=service.destination.hostname)
    look_for_http(listener)
    end_wait_outbound(listener)
    listener.filter_chains.append(_http_among_others(name, table, _As(outbound.limits, telemetry)))
    listener.filter_chains.extend(chains(service.routes, beside_plaintext=True, telemetry=telemetry))
    listener.default_filter_chain.CopyFrom(rest)
    return _encode(listener, table.name)


def _http_among_others(name: str, table: RouteTableKey, caller: _As) -> listener_components_pb2.FilterChain:
    """The chain for HTTP where anything may come. The destinations there are called in the version of their caller."""
    return _Chain(
        name="http",
        filter_chain_match=_Match(transport_protocol="raw_buffer", application_protocols=(*HTTP1, *HTTP2)),
        filters=[http.outbound(f"outbound_{name}", table.name, caller.limits, caller.telemetry)],
    )


def _virtual_outbound(workload: Workload) -> listener_pb2.Listener:
    port, telemetry = workload.ports.outbound, workload.telemetry.client
    return listener_pb2.Listener(
        name="virtualOutbound",
        # In the host's own network only what its loopback redirects may come in.
        address=socket(LOOPBACK if workload.capture is Capture.CGROUP else ANY, port),
        use_original_dst=TRUE,
        traffic_direction=base_pb2.OUTBOUND,
        filter_chains=[
            # Called by its own number instead of by redirection, it would call itself for ever.
            _Chain(
                name="virtualOutbound-blackhole",
                filter_chain_match=_Match(destination_port=uint32(port)),
                filters=[tcp(BLACK_HOLE, telemetry=telemetry)],
            ),
            _Chain(name="virtualOutbound-catchall-tcp", filters=[tcp(_rest(workload), telemetry=telemetry)]),
        ],
    )


def _forward_proxy(workload: Workload, table: RouteTableKey) -> listener_pb2.Listener:
    port = workload.ports.outbound
    name, telemetry = f"{LOOPBACK}_{port}", workload.telemetry.client
    return listener_pb2.Listener(
        name=name,
        address=socket(LOOPBACK, port),
        traffic_direction=base_pb2.OUTBOUND,
        filter_chains=[_Chain(filters=[http.forward(f"outbound_{name}", table.name, workload.limits, telemetry)])],
    )


def _encode(listener: listener_pb2.Listener, table: str = "", *, guarded: bool = False) -> Encoded:
    refs = asked_for(listener) if guarded else ((type_urls.ROUTE, table),) if table else ()
    return encode(type_urls.LISTENER, listener.name, listener.SerializeToString(deterministic=True), refs)
