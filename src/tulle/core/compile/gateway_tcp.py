"""Routes of connections at gateways (TLSRoute, TCPRoute, VirtualService `tls` and `tcp`) → which bytes go where.

TLS that passes through, and TCP, are routes that Envoy tries in their order; TLS that ends at the gateway has a chain of its own
for each server name. A server name that an HTTPS listener or server of the port has is not forwarded as bytes.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from tulle.api.gateway import TCPRoute, TLSRoute, UDPRoute
from tulle.api.gateway.shared import GROUP_NAME
from tulle.core.compile import backends
from tulle.core.compile.callers import ANYBODY, Source
from tulle.core.compile.client_certificates import shown_to
from tulle.core.compile.exports import counts_for
from tulle.core.compile.gateway_hosts import gateway_source, served_hosts
from tulle.core.compile.gateways import ANY_NAME, Bytes, Served, section_names, served
from tulle.core.compile.hostname import Key, meet, specificity, tells_tls
from tulle.core.compile.network_gateways import passed_on
from tulle.core.compile.objects import ROUTES, age, istio_gateways, virtual_services
from tulle.core.compile.parents import attachments_of, hostnames
from tulle.core.compile.places import places
from tulle.core.compile.tcp_routes import carried, virtual_service_tcp_routes
from tulle.core.flow import Fetch, table
from tulle.core.model.destination import DestinationKey
from tulle.core.model.gateway import GatewayChain
from tulle.core.model.route import Origin, WeightedDestination
from tulle.core.model.tcp_route import TcpMatch, TcpRoute
from tulle.kit.problem import Problem

# The destination of a backend that is not there, or may not be named: connections that fall to its share are closed.
_NOWHERE = DestinationKey("nowhere.invalid", 0)


class PortRoutes(msgspec.Struct, frozen=True):
    """What is forwarded at a port: `routes` in their order, and `chains` of TLS that ends here."""

    routes: tuple[TcpRoute, ...] = ()
    chains: tuple[GatewayChain, ...] = ()


@table
def port_routes(fetch: Fetch, key: tuple[Key, int]) -> PortRoutes:
    """The routes of connections of a (gateway workload, port)."""
    workload, port = key
    found = fetch(served, workload) or Served()
    names_taken = fetch(section_names, key) or {}
    taken = set(names_taken)
    chains: list[GatewayChain] = []
    routes: list[TcpRoute] = []
    for one in found.tcp:
        for route in _routes(fetch, one, workload) if one.bound.port == port else ():
            if not one.encrypted or one.tls is None:
                routes.append(route)
                continue
            names = [name for name in route.match.names if name not in taken]
            taken |= set(names)  # the first route has a name whose TLS ends here
            if named := tuple(sorted(name for name in names if name != ANY_NAME)):
                chains.append(GatewayChain(named, True, one.tls, destinations=route.destinations, carriage=route.carriage))
            if ANY_NAME in names:
                chains.append(GatewayChain(encrypted=True, tls=one.tls, destinations=route.destinations, carriage=route.carriage))
    return PortRoutes(tuple(_without(taken, routes)), tuple(chains))


def _without(taken: set[str], routes: list[TcpRoute]) -> Iterator[TcpRoute]:
    """Routes without the names whose TLS ends here."""
    for route in routes:
        names = tuple(name for name in route.match.names if name not in taken)
        if names or not route.match.names:
            yield _named(route, names)


def _named(route: TcpRoute, names: tuple[str, ...]) -> TcpRoute:
    return msgspec.structs.replace(route, match=msgspec.structs.replace(route.match, names=names))


def _routes(fetch: Fetch, one: Bytes, workload: Key) -> Iterator[TcpRoute]:
    if one.by_itself:
        return passed_on(fetch, workload)
    return _virtual_services(fetch, one, workload) if one.bound.istio else _api_routes(fetch, one, workload)


def _api_routes(fetch: Fetch, one: Bytes, workload: Key) -> Iterator[TcpRoute]:
    """The routes of a listener of the Gateway API: the most specific name first, then the oldest route.

    Connections for a name of the listener that no route has are closed, and not left to a listener with a wider name.
    """
    source = fetch(gateway_source, workload) or ANYBODY
    place = (fetch(places, one.bound.gateway) or ())[one.bound.index]
    kind = "TLSRoute" if one.encrypted else "TCPRoute"
    found: list[tuple[tuple[int, int], tuple[str, str, str], TcpRoute]] = []
    for key in fetch.keys(ROUTES[kind], "parent", (GROUP_NAME, place.kind, *place.owner)):
        row: TLSRoute | TCPRoute | None = fetch(ROUTES[kind], key)
        attached = fetch(attachments_of, (kind, key)) or ()
        if row is None or not any(it.gateway == one.bound.gateway and one.bound.index in it.listeners for it in attached):
            continue
        names = hostnames(place.listener, row) if one.encrypted else ("",)
        found += ((specificity(name), age(row), api_route(fetch, row, name, source, one.bound.gateway)) for name in names)
    yield from (route for _specificity, _age, route in sorted(found, key=lambda it: it[:2]))
    if place.listener.hostname:
        yield TcpRoute(f"{place.listener.name} closes", TcpMatch(names=(place.listener.hostname,)))


def api_route(fetch: Fetch, row: TLSRoute | TCPRoute, name: str, source: Source, gateway: Key | None = None) -> TcpRoute:
    """The first rule of a route for connections of some callers to a server name ("": for all), at a Gateway or in the mesh."""
    key = (row.metadata.namespace, row.metadata.name)
    destinations = fetch(route_destinations, (row.kind, key)) or ()
    if gateway is not None:
        destinations = shown_to(fetch, gateway, destinations)
    return TcpRoute(
        name=f"{key[0]}/{key[1]}.{row.spec.rules[0].name or 'rules[0]'}",
        match=TcpMatch(names=(name.lower(),) if name else ()),
        destinations=destinations,
        carriage=carried(fetch, destinations, source),
        origin=Origin(row.ref, "spec.rules[0]"),
    )


@table
def route_destinations(fetch: Fetch, key: tuple[str, Key]) -> tuple[WeightedDestination, ...]:
    """Where the first rule of a (TLSRoute, TCPRoute or UDPRoute) sends; what is wrong with a backend its status says."""
    kind, name = key
    row: TLSRoute | TCPRoute | UDPRoute | None = fetch(ROUTES[kind], name)
    if row is None:
        return ()
    return tuple(
        WeightedDestination(_NOWHERE if isinstance(target, Problem) else target, weight)
        for target, weight in _backends(fetch, row)
        if weight > 0
    )


def unresolved(fetch: Fetch, row: TLSRoute | TCPRoute | UDPRoute) -> Iterator[Problem]:
    """What is wrong with the backends of a route's first rule."""
    yield from (target for target, _weight in _backends(fetch, row) if isinstance(target, Problem))


def _backends(fetch: Fetch, row: TLSRoute | TCPRoute | UDPRoute) -> Iterator[tuple[backends.Found, int]]:
    for index, backend in enumerate(row.spec.rules[0].backend_refs):
        yield backends.tcp(fetch, row.ref, backend, f"spec.rules[0].backendRefs[{index}]"), backend.weight


def _virtual_services(fetch: Fetch, one: Bytes, workload: Key) -> Iterator[TcpRoute]:
    """The `tls` rules for TLS that passes through, the `tcp` rules for everything else, of the oldest VirtualService first."""
    gateway = fetch(istio_gateways, one.bound.gateway)
    if gateway is None:
        return
    server = gateway.spec.servers[one.bound.index]
    passing = one.encrypted and one.tls is None
    source = fetch(gateway_source, workload) or ANYBODY
    for row in sorted(fetch.rows(virtual_services, "gateway", one.bound.gateway), key=age):
        key = (row.metadata.namespace, row.metadata.name)
        hosts = tuple(served_hosts(server, one.bound.gateway[0], key[0], row.spec.hosts))
        if not hosts or not counts_for(fetch, row, workload[0]):
            continue
        made = fetch(virtual_service_tcp_routes, (key, one.bound.gateway, server.port.number, source))
        for route in made.routes if made else ():
            if passing is not bool(route.match.names):
                continue
            said = route.match.names if passing else hosts if one.encrypted else ()
            common = (meet(host, name) for name in said for host in one.names)
            names = tuple(dict.fromkeys(name for name in common if name and tells_tls(name)))
            if names or not one.encrypted:
                yield _named(route, names)
