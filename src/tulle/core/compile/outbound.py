"""Which services the sidecars of a namespace can call, by port → their shared listeners and route tables."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from tulle.core.compile.callers import ANYBODY, Source
from tulle.core.compile.destinations import carriage_of
from tulle.core.compile.hostname import Key, tells_tls
from tulle.core.compile.hosts import ALLOW_ANY, REGISTRY_ONLY, routed
from tulle.core.compile.mesh_tcp import mesh_tcp_routes
from tulle.core.compile.objects import workload_entries
from tulle.core.compile.proxy_settings import mesh_limits
from tulle.core.compile.route_limits import counted, counted_in_mesh
from tulle.core.compile.services import registry, service
from tulle.core.compile.sidecars import left_out, registry_only, sidecar_for
from tulle.core.compile.telemetry import telemetry_of
from tulle.core.compile.unknown import egress_proxy
from tulle.core.flow import Fetch, table
from tulle.core.model.destination import DestinationKey
from tulle.core.model.edge import ENVOYS_LIMITS
from tulle.core.model.route import Route, RouteTableKey, VirtualHost, WeightedDestination
from tulle.core.model.service import Protocol, Service
from tulle.core.model.workload import Outbound, OutboundTcp

# A service and its port.
Pair = tuple[Key, int]


class Ways(msgspec.Struct, frozen=True):
    """How calls are told on their way out, each with the services that are called so.

    `any_address`: the ports that are HTTP (False), or may be (True), whatever address is called. `tcp`: all that is not HTTP.
    """

    any_address: dict[int, tuple[tuple[Pair, bool], ...]] = {}
    tcp: tuple[tuple[Pair, OutboundTcp], ...] = ()


@table
def sidecar_namespaces(fetch: Fetch, _key: None) -> tuple[str, ...]:
    """The namespaces in which sidecars run."""
    return tuple(sorted({key[0] for key in fetch.keys(workload_entries, "role", "sidecar")}))


@table
def forward_proxy_namespaces(fetch: Fetch, _key: None) -> tuple[str, ...]:
    """The namespaces in which some application is given its sidecar as `http_proxy`."""
    return tuple(sorted({key[0] for key in fetch.keys(workload_entries, "role", "forward proxy")}))


@table
def exported_to_some(fetch: Fetch, _key: None) -> tuple[Key, ...]:
    """The services that not everybody sees."""
    return tuple(key for key in fetch(registry, None) or () if (row := fetch(service, key)) and not row.seen_from("*"))


@table
def exported_to(fetch: Fetch, namespace: str) -> tuple[Key, ...]:
    """Those of them that a namespace sees."""
    some = fetch(exported_to_some, None) or ()
    return tuple(key for key in some if (row := fetch(service, key)) and row.seen_from(namespace))


@table
def hidden_from(fetch: Fetch, namespace: str) -> frozenset[Key]:
    """Those of them that it does not see."""
    some: tuple[Key, ...] = fetch(exported_to_some, None) or ()
    seen: tuple[Key, ...] = fetch(exported_to, namespace) or ()
    return frozenset(some).difference(seen)


@table
def unseen(fetch: Fetch, source: Source) -> frozenset[Pair]:
    """The services' ports that callers do not see: not exported to them, or left out by their Sidecar."""
    rows = ((key, row) for key in fetch(hidden_from, source.namespace) or () if (row := fetch(service, key)))
    hidden = {(key, port.number) for key, row in rows for port in (*row.ports, *row.udp)}
    sidecar = sidecar_for(fetch, source.namespace, source.labels)
    return frozenset(hidden.union(left_out(fetch, sidecar, source.namespace)) if sidecar else hidden)


@table
def others(fetch: Fetch, key: RouteTableKey) -> VirtualHost:
    """The virtual host of a sidecar's table for everything that the mesh does not know."""
    if key.bind:
        return ALLOW_ANY  # nothing else is there
    sidecar = sidecar_for(fetch, key.namespace, key.labels)
    if key.port and registry_only(fetch, sidecar):
        return REGISTRY_ONLY
    proxy = egress_proxy(fetch, sidecar) if key.port else None
    if proxy is None:
        return ALLOW_ANY
    route = Route(name="egress_proxy", destinations=(WeightedDestination(proxy),))
    return VirtualHost(name=ALLOW_ANY.name, domains=ALLOW_ANY.domains, routes=(route,))


@table
def all_by_table_port(fetch: Fetch, _key: None) -> dict[int, tuple[Pair, ...]]:
    """The (service, port) pairs in each table, by the table's port."""
    found: dict[int, list[Pair]] = {0: []}
    for key in fetch(registry, None) or ():
        row = fetch(service, key)
        for port in row.ports if row else ():
            for number in (0, port.number):
                if number and port.protocol is Protocol.AUTO and row and by_address(row):
                    continue  # it has a table of its own
                if routed(port.number, port.protocol, number):
                    found.setdefault(number, []).append((key, port.number))
    return {number: tuple(found[number]) for number in sorted(found)}


@table
def by_table_port(fetch: Fetch, source: Source) -> dict[int, tuple[Pair, ...]]:
    """The same as callers see it; without the tables that are then empty."""
    everything = fetch(all_by_table_port, None) or {}
    hidden = fetch(unseen, source)
    if not hidden:
        return everything
    seen = {number: tuple(one for one in pairs if one not in hidden) for number, pairs in everything.items()}
    return {number: pairs for number, pairs in seen.items() if pairs or not number}


@table
def ways(fetch: Fetch, _key: None) -> Ways:
    """The ways to all services."""
    any_address: dict[int, list[tuple[Pair, bool]]] = {}
    tcp: list[tuple[Pair, OutboundTcp]] = []
    for key in fetch(registry, None) or ():
        row = fetch(service, key)
        for port in row.ports if row else ():
            assert row is not None
            pair = (key, port.number)
            if port.protocol.is_http:
                any_address.setdefault(port.number, []).append((pair, False))
                continue
            if port.protocol is Protocol.AUTO and not by_address(row):
                any_address.setdefault(port.number, []).append((pair, True))
            how = carriage_of(fetch, (key, port.number, ""), ANYBODY)
            tcp += ((pair, msgspec.structs.replace(one, carriage=how)) for one in _told(row, port.number, port.protocol))
    numbers = sorted(any_address)
    in_order = sorted(tcp, key=lambda one: (one[1].address, one[1].port, one[1].names, one[0]))
    return Ways({number: tuple(any_address[number]) for number in numbers}, tuple(in_order))


def by_address(row: Service) -> bool:
    """Whether connections to a service are told by where they are going."""
    return bool(row.address or row.address6) or any("/" not in network for network in row.networks)


def _told(row: Service, number: int, protocol: Protocol) -> Iterator[OutboundTcp]:
    """How connections to a port of a service are told: by its addresses, else by the server name of TLS, else by nothing."""
    destination = DestinationKey(row.hostname, number)
    sniffed = protocol is Protocol.AUTO
    for address in filter(None, (row.address, row.address6)):
        yield OutboundTcp(address, number, destination, sniffed=sniffed, tls=protocol is Protocol.TLS)
    for network in row.networks:
        yield OutboundTcp(network, number, destination, sniffed=sniffed and "/" not in network)
    if row.entry and not row.address and not row.networks and (tells_tls(row.hostname) or protocol is not Protocol.TLS):
        names = (row.hostname,) if protocol is Protocol.TLS else ()
        yield OutboundTcp("", number, destination, names=names, named_at=row.named_at(number))


@table
def own_tables(fetch: Fetch, source: Source) -> tuple[tuple[RouteTableKey, Pair], ...]:
    """The tables of undeclared ports that callers know by their address, each with the one service's port in it."""
    everything, hidden = fetch(ways, None) or Ways(), fetch(unseen, source) or frozenset()
    pairs = dict.fromkeys((pair, one.destination.hostname) for pair, one in everything.tcp if one.sniffed and pair not in hidden)
    return tuple(
        (RouteTableKey(pair[1], source.namespace, labels=source.labels, service=hostname), pair) for pair, hostname in pairs
    )


@table
def tables(fetch: Fetch, source: Source) -> tuple[RouteTableKey, ...]:
    """The route tables of callers; that of port 0 only where something asks for it."""
    ports = fetch(by_table_port, source) or {}
    forward = source.namespace in (fetch(forward_proxy_namespaces, None) or ())
    return tuple(RouteTableKey(port, source.namespace, labels=source.labels) for port in ports if port or forward)


@table
def outbound(fetch: Fetch, namespace: str) -> Outbound:
    """What a namespace's sidecars listen for. The forward proxy is a listener of its workload."""
    return _outbound(fetch, Source(namespace))


@table
def outbound_apart(fetch: Fetch, source: Source) -> Outbound:
    """What those of them listen for that have labels by which rules tell them apart: tables of their own."""
    return _outbound(fetch, source)


@table
def outbound_six(fetch: Fetch, source: Source) -> Outbound:
    """The same for those of them that have IPv6: a layer of its own, for elsewhere Envoy would refuse it."""
    return _outbound(fetch, source)


@table
def outbound_told(fetch: Fetch, key: tuple[Source, Key]) -> Outbound:
    """The same for those of them that a Telemetry is for in particular: listeners in the place of the others'."""
    source, particular = key
    return msgspec.structs.replace(_outbound(fetch, source), telemetry=telemetry_of(fetch, source.namespace, particular).client)


@table
def outbound_six_told(fetch: Fetch, key: tuple[Source, Key]) -> Outbound:
    """And that for those of these that have IPv6."""
    found: Outbound | None = fetch(outbound_told, key)
    return found or Outbound(key[0].namespace)


def _outbound(fetch: Fetch, source: Source) -> Outbound:
    everything, hidden = fetch(ways, None) or Ways(), fetch(unseen, source) or frozenset()
    sidecar = sidecar_for(fetch, source.namespace, source.labels)
    http: list[RouteTableKey] = []
    sniffed: list[RouteTableKey] = []
    for number, pairs in everything.any_address.items():
        seen = [may_be for pair, may_be in pairs if pair not in hidden]
        if seen:
            (sniffed if all(seen) else http).append(RouteTableKey(number, source.namespace, labels=source.labels))
    return Outbound(
        namespace=source.namespace,
        labels=source.labels,
        http=tuple(http),
        sniffed=tuple(sniffed),
        tcp=tuple(_one_each(_routed(fetch, pair, one, source) for pair, one in everything.tcp if pair not in hidden)),
        registry_only=registry_only(fetch, sidecar),
        unknown=egress_proxy(fetch, sidecar),
        limits=counted(fetch(mesh_limits, None) or ENVOYS_LIMITS, fetch(counted_in_mesh, None)),
        telemetry=telemetry_of(fetch, source.namespace).client,
    )


def _routed(fetch: Fetch, pair: Pair, one: OutboundTcp, source: Source) -> OutboundTcp:
    routes = mesh_tcp_routes(fetch, pair[0], one.address, pair[1], source)
    how = carriage_of(fetch, (*pair, ""), source)
    return msgspec.structs.replace(one, routes=routes, carriage=how) if routes or how != one.carriage else one


def _one_each(seen: Iterator[OutboundTcp]) -> Iterator[OutboundTcp]:
    """Of several services to which all connections of one port would belong, the first; the analyzer says so of the others."""
    whole: set[int] = set()
    for one in seen:
        if one.address or one.names or one.port not in whole:
            yield one
        if not one.address and not one.names:
            whole.add(one.port)
