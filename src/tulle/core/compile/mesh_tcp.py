"""Routes of connections for the sidecars → the TCP routes of a Service's port, as some callers have them.

They count at ports that are not declared as HTTP, in the same order as with HTTP: first the TLSRoutes and TCPRoutes that have the
Service as parent, then VirtualServices with `tls` or `tcp`. Of several of these for a Service one is followed: that with the most
specific host, then the oldest; it need not be the one whose HTTP rules are followed.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from tulle.api.gateway import TCPRoute, TLSRoute
from tulle.api.istio import VirtualService
from tulle.core.compile.callers import ANYBODY, Source
from tulle.core.compile.gateway_tcp import api_route
from tulle.core.compile.hostname import Key, is_address, shown, specificity
from tulle.core.compile.hosts import attached_routes, best_host, seen_by
from tulle.core.compile.kinds import L4
from tulle.core.compile.mistakes import not_yet, warning
from tulle.core.compile.objects import MESH, ROUTES, age, in_mesh, parent_key, virtual_services
from tulle.core.compile.services import called as meant_by
from tulle.core.compile.services import service
from tulle.core.compile.tcp_routes import virtual_service_tcp_routes
from tulle.core.flow import Fetch, table
from tulle.core.model.tcp_route import ANY_TLS, TcpMatch, TcpRoute
from tulle.core.networks import inside
from tulle.kit.problem import Problem


def mesh_tcp_routes(fetch: Fetch, key: Key, address: str, port: int, source: Source) -> tuple[TcpRoute, ...]:
    """The routes of a service's port for some callers, up to the first that takes everything.

    `address` is the one by which connections to it are told; a network or "" leaves the question where they go to the proxy.
    """
    first = fetch(chosen_tcp_rules, (key, source.namespace)) if any(_candidates(fetch, key)) else None
    made = fetch(virtual_service_tcp_routes, (first, MESH, port, source)) if first else None
    attached, closes = _attached(fetch, key, port, source)
    found: list[TcpRoute] = []
    for route in (*attached, *(made.routes if made else ()), *closes):
        if is_address(address):
            networks = route.match.networks
            if networks and not any(inside(address, network) for network in networks):
                continue
            # Of where a connection was going nothing is left to ask.
            route = msgspec.structs.replace(route, match=msgspec.structs.replace(route.match, networks=()))
        found.append(route)
        if route.match == TcpMatch():
            break
    return tuple(found)


def _attached(fetch: Fetch, key: Key, port: int, source: Source) -> tuple[list[TcpRoute], list[TcpRoute]]:
    """The routes of TLSRoutes and TCPRoutes: by the most specific server name, then the oldest; and what ends their server names.

    As a request that no HTTPRoute takes is not answered, TLS is not passed on whose name no TLSRoute has and no other rule.
    """
    found: list[tuple[tuple[int, int], tuple[str, str, str], TcpRoute]] = []
    closes: list[TcpRoute] = []
    for kind, name in attached_routes(fetch, key, port, source.namespace, L4):
        row: TLSRoute | TCPRoute | None = fetch(ROUTES[kind], name)
        if row is None:
            continue
        hosts = (row.spec.hostnames or (ANY_TLS,)) if isinstance(row, TLSRoute) else ("",)
        found += ((specificity(host), age(row), api_route(fetch, row, host, source)) for host in hosts)
        if isinstance(row, TLSRoute) and not closes:
            closes.append(TcpRoute(f"{shown(key)} closes", TcpMatch(names=(ANY_TLS,))))
    # A route for all connections comes after those for some.
    found.sort(key=lambda one: (not one[2].match.names, *one[:2]))
    return [route for _specificity, _age, route in found], closes


def parent_problems(fetch: Fetch, row: TLSRoute | TCPRoute) -> Iterator[Problem]:
    """Services as parents of a route where it does not count, or another goes first."""
    key = (row.metadata.namespace, row.metadata.name)
    for index, parent in enumerate(row.spec.parent_refs):
        group, kind, *of = parent_key(parent, row.metadata.namespace)
        target = (of[0], of[1])
        called = fetch(service, target) if (group, kind) == ("", "Service") else None
        if called is None:
            continue
        path = f"spec.parentRefs[{index}]"
        if not (called.address or called.address6 or called.entry):
            yield not_yet(row.ref, path, "rules for connections to a Service without a virtual IP")
        for port in called.ports:
            if port.protocol.is_http or parent.port not in (None, port.number) or isinstance(row, TLSRoute):
                continue
            chosen = attached_routes(fetch, target, port.number, key[0], L4)
            others = [other for one, name in chosen if one == row.kind and (other := fetch(ROUTES[one], name))]
            first = min(others, key=age, default=row)
            if first.ref != row.ref and (row.kind, key) in chosen:
                message = f"{first.ref} has port {port.number} of {shown(target)} too, and is older; needed one of the two"
                yield warning(row.ref, path, "Conflict", f"{message}: this one has no effect there")


def _candidates(fetch: Fetch, key: Key) -> Iterator[Key]:
    yield from fetch.keys(virtual_services, "tcp_host", key)
    yield from fetch.keys(virtual_services, "tcp_host", "*")


@table
def chosen_tcp_rules(fetch: Fetch, key: tuple[Key, str]) -> Key | None:
    """The VirtualService whose rules for connections the sidecars of a namespace follow for a Service."""
    service_key, viewer = key
    rows = [row for one in _candidates(fetch, service_key) if (row := fetch(virtual_services, one))]
    seen = [(best, age(row), row) for row in rows if seen_by(fetch, row, viewer) and (best := best_host(row, service_key))]
    if not seen:
        return None
    row = min(seen, key=lambda one: one[:2])[2]
    return row.metadata.namespace, row.metadata.name


def mesh_tcp_problems(fetch: Fetch, key: Key, row: VirtualService) -> Iterator[Problem]:
    """What is wrong with a VirtualService's rules for connections, and where they do not count."""
    fields = [field for field in ("tls", "tcp") if getattr(row.spec, field)]
    if not fields or not in_mesh(row):
        return
    ports = {0}
    for index, host in enumerate(row.spec.hosts):
        target = meant_by(fetch, host, key[0])
        called = fetch(service, target) if target else None
        if target is None or called is None:
            continue
        path = f"spec.hosts[{index}]"
        bytes_at = {port.number for port in called.ports if not port.protocol.is_http}
        ports |= bytes_at
        if not bytes_at:
            message = f"every port of {shown(target)} is declared as HTTP; needed one that is not"
            yield from (warning(row.ref, f"spec.{field}", "NoTcpPort", message) for field in fields)
        elif not (called.address or called.address6 or called.entry):
            yield not_yet(row.ref, path, "rules for connections to a Service without a virtual IP")
        before = [one for port in sorted(bytes_at) for one in attached_routes(fetch, target, port, key[0], L4)]
        if before:
            kind, (space, name) = before[0]
            message = f"{kind} {space}/{name} has this Service as parent and goes first; this one has what that leaves over"
            yield warning(row.ref, path, "Conflict", message)
        winners = {fetch(chosen_tcp_rules, (target, viewer)) for viewer in (key[0], called.namespace, "")} - {None}
        if winners and key not in winners:
            first = min(winner for winner in winners if winner)
            message = f"VirtualService {first[0]}/{first[1]} has this host too and goes first; needed one of the two"
            yield warning(row.ref, path, "Conflict", f"{message}: the tls and tcp of this one have no effect")
    for port in sorted(ports)[1:] or [0]:
        made = fetch(virtual_service_tcp_routes, (key, MESH, port, ANYBODY))
        yield from made.problems if made else ()
