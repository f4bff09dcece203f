"""Networks whose workloads do not reach each other → the gateways between them.

As with Istio an endpoint's network is its `network` or its label `topology.istio.io/network`, and a caller of another network
goes to a gateway workload of that one with a server of TLS mode AUTO_PASSTHROUGH. Mutual TLS goes through it whole: its server
name says the destination (`outbound_.9080_.v1_.HOST`), and the gateway knows nothing but that. An endpoint of another network
without a sidecar cannot be told by such a name, and is none there. A network without a gateway, or that nobody names, is reached
directly.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from tulle.core.compile.destinations import Place, destination, places
from tulle.core.compile.endpoints import endpoints, network_of
from tulle.core.compile.gateway_workloads import gateway_address, gateway_workloads
from tulle.core.compile.gateways import Served, served
from tulle.core.compile.hostname import Key, covers
from tulle.core.compile.objects import service_entries, workload_entries
from tulle.core.compile.services import registry
from tulle.core.flow import Fetch, table
from tulle.core.model.destination import Destination, Endpoint, EndpointSet, Transport
from tulle.core.model.route import WeightedDestination
from tulle.core.model.service import Resolution
from tulle.core.model.tcp_route import TcpMatch, TcpRoute
from tulle.core.model.traffic import ProxyProtocol

# (gateway workload, destination)
Passed = tuple[Key, Place]


@table
def networks_differ(fetch: Fetch, _key: None) -> bool:
    """Whether anything says a network."""
    return bool(fetch.keys(workload_entries, "networked", True) or fetch.keys(service_entries, "networked", True))


@table
def networked(fetch: Fetch, place: Place) -> bool:
    """Whether a destination has endpoints that say a network."""
    found = fetch(endpoints, place)
    return found is not None and any(one.network for one in found.endpoints)


@table
def gateways_of(fetch: Fetch, network: str) -> tuple[tuple[str, int, tuple[str, ...]], ...]:
    """The gateways of a network: address, port, and the hosts for which each passes TLS on."""
    found: list[tuple[str, int, tuple[str, ...]]] = []
    for key in fetch(gateway_workloads, None) or ():
        entry, address = fetch(workload_entries, key), fetch(gateway_address, key) or ""
        if entry is None or not address or network_of(entry.spec) != network:
            continue
        found += ((address, one.bound.port, one.names) for one in (fetch(served, key) or Served()).tcp if one.by_itself)
    return tuple(sorted(found))


def bridged(fetch: Fetch, found: EndpointSet, network: str) -> EndpointSet:
    """The endpoints as callers of a network reach them: those of another one by its gateways, in the same places."""
    if not network:
        return found
    direct: list[Endpoint] = []
    beyond: dict[tuple[str, int, str, object], list[Endpoint]] = {}
    for one in found.endpoints:
        there = one.network and one.network != network
        through = (
            [gate for gate in fetch(gateways_of, one.network) or () if _passes(gate[2], found.key.hostname)] if there else []
        )
        if not through:
            direct.append(one)
            continue
        for address, port, _hosts in through if one.mtls else ():
            beyond.setdefault((address, port, one.network, one.locality), []).append(one)
    gates = (
        Endpoint(
            address=address,
            port=port,
            mtls=True,
            weight=sum(max(one.weight, 1) for one in behind),
            locality=behind[0].locality,
            healthy=any(one.healthy for one in behind),
            network=there,
        )
        for (address, port, there, _locality), behind in beyond.items()
    )
    return msgspec.structs.replace(found, endpoints=tuple(sorted((*direct, *gates))))


def _passes(hosts: tuple[str, ...], hostname: str) -> bool:
    return any(covers(host, hostname) for host in hosts)


@table
def passed_places(fetch: Fetch, workload: Key) -> tuple[Passed, ...]:
    """The destinations to which a gateway workload passes TLS on by its server name."""
    hosts = tuple(host for one in (fetch(served, workload) or Served()).tcp if one.by_itself for host in one.names)
    found: list[Passed] = []
    for key in (fetch(registry, None) or ()) if hosts else ():
        for place in fetch(places, key) or ():
            row = fetch(destination, place)
            if row and row.resolution is Resolution.KNOWN and _passes(hosts, row.key.hostname):
                found.append((workload, place))
    return tuple(found)


def passed_on(fetch: Fetch, workload: Key) -> Iterator[TcpRoute]:
    """A route for each."""
    for key in fetch(passed_places, workload) or ():
        row = fetch(passing_destination, key)
        if row is not None:
            yield TcpRoute(
                name=row.key.server_name,
                match=TcpMatch(names=(row.key.server_name,)),
                destinations=(WeightedDestination(row.key),),
            )


@table
def passing_destination(fetch: Fetch, key: Passed) -> Destination | None:
    """A destination for TLS that is passed on: bytes, however others call it."""
    found = fetch(destination, key[1])
    if found is None:
        return None
    return Destination(
        key=msgspec.structs.replace(found.key, passing=True),
        transport=Transport.PLAINTEXT,
        load_balancer=found.load_balancer,
        connect_timeout=found.connect_timeout,
        connections=found.connections,
        proxy_protocol=ProxyProtocol.NONE,
    )


@table
def passing_endpoints(fetch: Fetch, key: Passed) -> EndpointSet | None:
    """Its endpoints: those with a sidecar, of the gateway's own network, so that nothing goes round in circles."""
    workload, place = key
    found, entry = fetch(endpoints, place), fetch(workload_entries, workload)
    if found is None or entry is None:
        return None
    mine = network_of(entry.spec)
    return EndpointSet(
        key=msgspec.structs.replace(found.key, passing=True),
        endpoints=tuple(
            msgspec.structs.replace(one, mtls=False) for one in found.endpoints if one.mtls and one.network in ("", mine)
        ),
    )
