"""UDPRoutes at Gateways → the UDP ports that a gateway workload binds, and where their datagrams go.

A port belongs to the first Gateway that has a route there, the oldest first, and to the oldest of its routes (`datagrams`: how
these share out).
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from tulle.api.gateway.shared import GROUP_NAME
from tulle.core.compile.datagrams import weighed
from tulle.core.compile.gateway_tcp import route_destinations
from tulle.core.compile.gateway_workloads import bound_port, chosen_workloads
from tulle.core.compile.hostname import Key
from tulle.core.compile.listeners import gateway_fault, verdicts_of
from tulle.core.compile.objects import age, gateways, udp_routes
from tulle.core.compile.parents import attachments_of
from tulle.core.compile.places import Place, places
from tulle.core.flow import Fetch, table
from tulle.core.model.destination import Destination, DestinationKey, EndpointSet
from tulle.core.model.gateway import UdpListener
from tulle.core.model.traffic import LoadBalancer


class UdpBound(msgspec.Struct, frozen=True, order=True):
    """A bound UDP port, the Gateway whose it is, and the route of its datagrams."""

    port: int
    gateway: Key
    route: Key


@table
def udp_bound(fetch: Fetch, workload: Key) -> tuple[UdpBound, ...]:
    """The UDP ports of a gateway workload."""
    found: dict[int, UdpBound] = {}
    ours = {one: row for one in fetch.keys(gateways) if (row := fetch(gateways, one)) and _serves(fetch, one, workload)}
    for key in sorted(ours, key=lambda one: age(ours[one])):
        there, verdicts = fetch(places, key) or (), fetch(verdicts_of, key) or ()
        for index, (place, verdict) in enumerate(zip(there, verdicts, strict=True)):
            if place.listener.protocol != "UDP" or not verdict.bound:
                continue
            port = bound_port(fetch, workload, place.listener.port, udp=True)
            route = min(_routes(fetch, key, place, index), default=None)
            if route is not None and port not in found:
                found[port] = UdpBound(port, key, route[1])
    return tuple(found[port] for port in sorted(found))


def _serves(fetch: Fetch, gateway: Key, workload: Key) -> bool:
    return workload in (fetch(chosen_workloads, gateway) or ()) and fetch(gateway_fault, gateway) is None


def _routes(fetch: Fetch, gateway: Key, place: Place, index: int) -> Iterator[tuple[tuple[str, str, str], Key]]:
    for key in fetch.keys(udp_routes, "parent", (GROUP_NAME, place.kind, *place.owner)):
        attached = fetch(attachments_of, ("UDPRoute", key)) or ()
        if any(one.gateway == gateway and index in one.listeners for one in attached):
            row = fetch(udp_routes, key)
            assert row is not None
            yield age(row), key


@table
def udp_listeners(fetch: Fetch, workload: Key) -> tuple[UdpListener, ...]:
    """The same as its proxy listens; a route without backends takes nothing."""
    bound = fetch(udp_bound, workload) or ()
    return tuple(UdpListener(one.port, _key(fetch, one)) for one in bound if fetch(route_destinations, ("UDPRoute", one.route)))


def _key(fetch: Fetch, one: UdpBound) -> DestinationKey:
    row = fetch(udp_routes, one.route)
    return DestinationKey(f"{one.route[1]}.{one.route[0]}.udproute", one.port, row.spec.rules[0].name or "" if row else "")


@table
def udp_destination(fetch: Fetch, key: tuple[Key, int]) -> Destination | None:
    """Where the datagrams of (gateway workload, port) go."""
    one = next((one for one in fetch(udp_bound, key[0]) or () if one.port == key[1]), None)
    return Destination(key=_key(fetch, one), load_balancer=LoadBalancer.ROUND_ROBIN) if one else None


@table
def udp_endpoints(fetch: Fetch, key: tuple[Key, int]) -> EndpointSet | None:
    """The endpoints of all backends of the port's route, each with what it has of its backend's share."""
    one = next((one for one in fetch(udp_bound, key[0]) or () if one.port == key[1]), None)
    if one is None:
        return None
    backends = fetch(route_destinations, ("UDPRoute", one.route)) or ()
    return EndpointSet(_key(fetch, one), weighed(fetch, backends))
