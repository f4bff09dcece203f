"""UDP ports of Services as sidecars know them → the virtual addresses at which these listen, and where the datagrams go.

That is for sidecars whose node captures datagrams (`netns`). A port follows the oldest UDPRoute that has it as parent: of the
caller's namespace (consumer routes), else of the Service's. Without one it leads to the Service's own workloads.
"""

from __future__ import annotations

from collections.abc import Iterator

from tulle.api.gateway import UDPRoute
from tulle.api.kubernetes import Service as ServiceObject
from tulle.core.compile.callers import Source
from tulle.core.compile.datagrams import weighed
from tulle.core.compile.gateway_tcp import route_destinations
from tulle.core.compile.hostname import Key, full_name, shown
from tulle.core.compile.hosts import attached_routes
from tulle.core.compile.mistakes import not_yet, warning
from tulle.core.compile.objects import age, parent_key, selects, services, udp_routes, workload_entries
from tulle.core.compile.outbound import unseen
from tulle.core.compile.services import registry, service
from tulle.core.compile.workload_notes import labels_of
from tulle.core.flow import Fetch, table
from tulle.core.model.destination import Destination, DestinationKey, EndpointSet
from tulle.core.model.gateway import UdpListener
from tulle.core.model.route import WeightedDestination
from tulle.core.model.service import Service
from tulle.core.model.traffic import LoadBalancer
from tulle.core.networks import DATAGRAM_PORTS, VIRTUAL, inside
from tulle.kit.problem import Problem

# A Service, its UDP port, and the namespace of the callers ("": of whichever).
Called = tuple[Key, int, str]

_KINDS = ("UDPRoute",)


def bound_addresses(row: Service) -> tuple[str, ...]:
    """The virtual addresses of a Service whose datagrams sidecars take: those that the mesh gave it."""
    given = (one for one in (row.address, row.address6) if one)
    return tuple(one for one in given if any(inside(one, network) for network in VIRTUAL))


@table
def udp_ports(fetch: Fetch, _key: None) -> tuple[tuple[Key, int], ...]:
    """The UDP ports at which sidecars listen."""
    rows = ((key, fetch(service, key)) for key in fetch(registry, None) or ())
    return tuple((key, number) for key, row in rows if row and bound_addresses(row) for number in _apart(row))


def _apart(row: Service) -> tuple[int, ...]:
    """A Service's UDP ports, without those that sidecars cannot tell from another one."""
    found: dict[int, int] = {}
    for port in row.udp:
        found.setdefault(port.number | DATAGRAM_PORTS, port.number)
    return tuple(found.values())


@table
def udp_called(fetch: Fetch, source: Source) -> tuple[Called, ...]:
    """Those that callers see."""
    hidden = fetch(unseen, source) or frozenset()
    ports = fetch(udp_ports, None) or ()
    return tuple((*one, source.namespace if fetch(_differs, one[0]) else "") for one in ports if one not in hidden)


@table
def _differs(fetch: Fetch, key: Key) -> bool:
    """Whether callers of different namespaces may follow different routes to a Service."""
    return any(one[0] != key[0] for one in fetch.keys(udp_routes, "parent", ("", "Service", *key)))


@table
def outbound_udp(fetch: Fetch, source: Source) -> tuple[UdpListener, ...]:
    """What the sidecars of callers listen for, by IPv4."""
    return tuple(one for one in _listeners(fetch, source) if ":" not in one.address)


@table
def outbound_udp_six(fetch: Fetch, source: Source) -> tuple[UdpListener, ...]:
    """The same by IPv6: elsewhere Envoy could not listen there."""
    return tuple(one for one in _listeners(fetch, source) if ":" in one.address)


def _listeners(fetch: Fetch, source: Source) -> Iterator[UdpListener]:
    for called in fetch(udp_called, source) or ():
        row = fetch(service, called[0])
        for address in bound_addresses(row) if row else ():
            yield UdpListener(called[1], destination_key(called), address)


def destination_key(called: Called) -> DestinationKey:
    """Its name: no host has it, for a TCP port may have the same number."""
    (namespace, name), number, _viewer = called
    return DestinationKey(f"{name}.{namespace}.udp", number)


@table
def mesh_udp_destination(fetch: Fetch, key: Called) -> Destination | None:
    """Where the datagrams to a port go."""
    return Destination(key=destination_key(key), load_balancer=LoadBalancer.ROUND_ROBIN) if fetch(service, key[0]) else None


@table
def mesh_udp_endpoints(fetch: Fetch, key: Called) -> EndpointSet | None:
    """The endpoints there: of its route's backends, or of the Service itself. A route without backends takes them nowhere."""
    route = fetch(followed, key)
    shares = (WeightedDestination(DestinationKey(full_name(key[0]), key[1])),)
    backends = (fetch(route_destinations, ("UDPRoute", route)) or ()) if route else shares
    return EndpointSet(destination_key(key), weighed(fetch, backends))


@table
def followed(fetch: Fetch, key: Called) -> Key | None:
    """The UDPRoute that a port follows for callers."""
    chosen = attached_routes(fetch, *key, _KINDS)
    rows = [row for _kind, one in chosen if (row := fetch(udp_routes, one))]
    first = min(rows, key=age, default=None)
    return (first.metadata.namespace, first.metadata.name) if first else None


def past(fetch: Fetch) -> str:
    """The sidecars that no datagrams go through, by how their traffic is captured; "" where there are none."""
    captured: tuple[Key, ...] = fetch.keys(workload_entries, "role", "datagrams")
    sidecars: tuple[Key, ...] = fetch.keys(workload_entries, "role", "sidecar")
    keys = sorted(set(sidecars).difference(captured))
    more = f" and {len(keys) - 1} more" if len(keys) > 1 else ""
    return f"workload {keys[0][0]}/{keys[0][1]}{more}" if keys else ""


@table
def service_udp_problems(fetch: Fetch, key: Key) -> tuple[Problem, ...]:
    """UDP ports of a Service that nobody answers at its virtual IP, which its TCP ports have too: for all callers or some."""
    row, said = fetch(services, key), fetch(service, key)
    if row is None or said is None:
        return ()
    apart = _apart(said)
    same = tuple(
        not_yet(row.ref, f"spec.ports[{index}].port", "a UDP port that differs from another by a multiple of 4096")
        for index, port in enumerate(row.spec.ports)
        if port.protocol == "UDP" and port.port not in apart
    )
    if not said.address or not said.ports or _is_of_gateways(fetch, key, row):
        return same
    names = past(fetch) if bound_addresses(said) else "every workload"
    message = f"datagrams of {names} go past the sidecar, and nobody answers them at the virtual IP; needed capture netns there, "
    needed = "or a Service of its own for UDP, whose name is of its workloads"
    return same + tuple(
        warning(row.ref, f"spec.ports[{index}].protocol", "NotYetSupported", message + needed)
        for index, port in enumerate(row.spec.ports)
        if port.protocol == "UDP" and names
    )


def _is_of_gateways(fetch: Fetch, key: Key, row: ServiceObject) -> bool:
    """Whether gateways act on the UDP ports of a Service: a UDPRoute sends there, or it stands in front of a gateway."""
    if fetch.keys(udp_routes, "backend", key):
        return True
    gateways = (fetch(workload_entries, one) for one in fetch.keys(workload_entries, "role", "gateway") if one[0] == key[0])
    return bool(row.spec.selector) and any(one and selects(row.spec.selector, labels_of(one)) for one in gateways)


def parent_problems(fetch: Fetch, row: UDPRoute) -> Iterator[Problem]:
    """Services as parents of a route where it does not count, for all or for some, or another goes first."""
    key = (row.metadata.namespace, row.metadata.name)
    for index, parent in enumerate(row.spec.parent_refs):
        group, kind, *of = parent_key(parent, row.metadata.namespace)
        target = (of[0], of[1])
        called = fetch(service, target) if (group, kind) == ("", "Service") else None
        written = fetch(services, target)
        if called is None or written is None or not called.udp:
            continue
        path = f"spec.parentRefs[{index}]"
        if not bound_addresses(called):
            if written.spec.cluster_ip:  # else it is still to be given one
                yield not_yet(row.ref, path, "a route of datagrams to a Service without a virtual IP of the mesh's own")
        elif names := past(fetch):
            message = f"datagrams of {names} go past the sidecar; needed capture netns there: for those the route has no effect"
            yield warning(row.ref, path, "NotYetSupported", message)
        for port in called.udp:
            if parent.port not in (None, port.number):
                continue
            first = fetch(followed, (target, port.number, key[0]))
            attached = attached_routes(fetch, target, port.number, key[0], _KINDS)
            if first is not None and first != key and ("UDPRoute", key) in attached:
                other = f"UDPRoute {first[0]}/{first[1]} has port {port.number} of {shown(target)} too, and is older"
                yield warning(row.ref, path, "Conflict", f"{other}; needed one of the two: this one has no effect there")
