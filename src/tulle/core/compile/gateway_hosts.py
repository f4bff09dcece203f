"""Routes attached to a gateway → the virtual hosts of its route tables.

Of the hosts on a bound port the most specific wins, whichever API brought it. Within one host the HTTPRoutes' rules stand first,
by the Gateway API's precedence, then the VirtualServices', the oldest first. A request for a host of the Gateway API that no rule
of its own takes falls to the rules of less specific hostnames of the same listener, as that API says.

Where TLS ends, a table is of one section. A client that has a connection for one server name and asks for a host of another
section over it (HTTP/2 allows that where one certificate has both names) is answered 421: it comes again with the right name.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import msgspec

from tulle.api.gateway.shared import GROUP_NAME
from tulle.api.istio.gateway import Server
from tulle.core.compile.callers import ANYBODY, Source
from tulle.core.compile.client_certificates import shown
from tulle.core.compile.exports import counts_for
from tulle.core.compile.gateways import Bound, bound, section_names, section_of
from tulle.core.compile.hostname import Key, full_name, meet, service_key, specificity
from tulle.core.compile.http_routes import Ranked, at_listener, in_order, rerouted
from tulle.core.compile.kinds import RULES
from tulle.core.compile.objects import ROUTES, age, istio_gateways, virtual_services, workload_entries
from tulle.core.compile.parents import attachments_of, hostnames
from tulle.core.compile.places import places
from tulle.core.compile.routes import reachable
from tulle.core.compile.virtual_services import virtual_service_routes
from tulle.core.compile.workload_notes import labels_of
from tulle.core.flow import Fetch, table
from tulle.core.model.route import Route, RouteTableKey, VirtualHost

_MISDIRECTED = Route(name="misdirected", status=421, retry=None)


class Attached(msgspec.Struct, frozen=True, order=True):
    """A host of a table and the object with its routes: an HTTPRoute on a listener, or a VirtualService on a server.

    `route` ("", "") is a listener without a route for the host, which still keeps others from it.
    """

    host: str
    bound: Bound
    route: Key
    served_port: int  # the port as the Gateway says it
    kind: str = "HTTPRoute"  # of a route of the Gateway API


def workload_key(where: RouteTableKey) -> Key:
    """The gateway workload that a table belongs to."""
    namespace, _slash, name = where.gateway.partition("/")
    return namespace, name


@table
def gateway_source(fetch: Fetch, key: Key) -> Source:
    """A gateway workload as the matches by source see it."""
    entry = fetch(workload_entries, key)
    return Source(key[0], tuple(sorted(labels_of(entry).items())) if entry else ())


@table
def attachments(fetch: Fetch, where: RouteTableKey) -> dict[str, tuple[Attached, ...]]:
    """Every object of a table by the host for which it counts."""
    key = workload_key(where)
    found: dict[str, set[Attached]] = {}
    for one in fetch(bound, key) or ():
        if (one.port, one.section) == (where.port, where.section):
            for attached in _virtual_services(fetch, one, key[0]) if one.istio else _http_routes(fetch, one):
                found.setdefault(attached.host, set()).add(attached)
    return {host: tuple(sorted(found[host])) for host in sorted(found)}


@table
def attached_to(fetch: Fetch, key: tuple[RouteTableKey, str]) -> tuple[Attached, ...]:
    """The objects of one host of a table."""
    return (fetch(attachments, key[0]) or {}).get(key[1], ())


def _virtual_services(fetch: Fetch, one: Bound, viewer: str) -> Iterator[Attached]:
    gateway = fetch(istio_gateways, one.gateway)
    if gateway is None:
        return
    if one.redirect:
        for host in gateway.spec.servers[one.index].hosts:
            yield Attached(host.rpartition("/")[2], one, ("", ""), gateway.spec.servers[one.index].port.number)
    for key in fetch.keys(virtual_services, "gateway", one.gateway):
        for host in fetch(virtual_service_hosts, (key, one.gateway, one.index, viewer)) or ():
            yield Attached(host, one, key, gateway.spec.servers[one.index].port.number)


@table
def virtual_service_hosts(fetch: Fetch, key: tuple[Key, Key, int, str]) -> tuple[str, ...]:
    """The hosts of a VirtualService on a Gateway's server (by its index), for a gateway workload in the namespace `viewer`."""
    name, gateway_name, index, viewer = key
    row, gateway = fetch(virtual_services, name), fetch(istio_gateways, gateway_name)
    if row is None or gateway is None or not row.spec.http or not counts_for(fetch, row, viewer):
        return ()
    return tuple(served_hosts(gateway.spec.servers[index], gateway_name[0], name[0], row.spec.hosts))


def served_hosts(server: Server, gateway_namespace: str, namespace: str, hosts: tuple[str, ...]) -> Iterator[str]:
    """Those hosts of a VirtualService of `namespace` that a server serves, as far as it does."""
    for said in server.hosts:
        space, slash, pattern = said.rpartition("/")
        space = gateway_namespace if space == "." else space
        if slash and space not in ("*", namespace):
            continue
        for host in hosts:
            means = service_key(host, namespace)
            common = meet(pattern, host) or (meet(pattern, full_name(means)) if means else None)
            if common:
                yield common


def _http_routes(fetch: Fetch, one: Bound) -> Iterator[Attached]:
    place = (fetch(places, one.gateway) or ())[one.index]
    if place.listener.hostname:
        yield Attached(place.listener.hostname, one, ("", ""), place.listener.port)
    for kind in RULES:
        for key in fetch.keys(ROUTES[kind], "parent", (GROUP_NAME, place.kind, *place.owner)):
            for host in fetch(api_route_hosts, (kind, key, one.gateway, one.index)) or ():
                yield Attached(host, one, key, place.listener.port, kind)


@table
def api_route_hosts(fetch: Fetch, key: tuple[str, Key, Key, int]) -> tuple[str, ...]:
    """The hosts of (kind, route) on a Gateway's listener (by its place): none where it is not attached there."""
    kind, name, gateway_name, index = key
    row, there = fetch(ROUTES[kind], name), fetch(places, gateway_name) or ()
    if row is None or index >= len(there):
        return ()
    attached = fetch(attachments_of, (kind, name)) or ()
    if not any(one.gateway == gateway_name and index in one.listeners for one in attached):
        return ()
    return hostnames(there[index].listener, row)


@table
def gateway_hosts(fetch: Fetch, where: RouteTableKey) -> tuple[str, ...]:
    """The hosts of a table, the most specific first; always with `*`, so that no table is empty.

    A section's table has the server names of the port's other sections too, for what is misdirected.
    """
    others = fetch(section_names, (workload_key(where), where.port)) or {} if where.section else {}
    found = {*(fetch(attachments, where) or ()), *others, "*"}
    return tuple(sorted(found, key=lambda host: (specificity(host), host)))


@table
def gateway_virtual_host(fetch: Fetch, key: tuple[RouteTableKey, str]) -> VirtualHost | None:
    """The virtual host of (table, host)."""
    where, host = key
    name = f"{host}:{where.port}"
    if where.section:
        owner = section_of(fetch(section_names, (workload_key(where), where.port)) or {}, host)
        if owner not in ("", where.section):
            return VirtualHost(name=name, domains=(host,), routes=(_MISDIRECTED,))
    attached = fetch(attached_to, key) or ()
    return VirtualHost(
        name=name,
        domains=(host,),
        routes=reachable((*_ranked(fetch, where, host), *_written(fetch, where, attached))),
        require_tls=any(one.bound.redirect for one in attached),
    )


def _ranked(fetch: Fetch, where: RouteTableKey, host: str) -> Iterator[Route]:
    """The rules of routes: of each Gateway only those on its most specific listener for the host, the host's own first."""
    by_host = [[one for one in fetch(attached_to, (where, name)) or () if not one.bound.istio] for name in (host, *_wider(host))]
    if not by_host[0]:
        return
    best: dict[Key, tuple[int, int]] = {}
    for one in (one for found in by_host for one in found):
        if (reach := specificity(_listener_name(fetch, one.bound))) < best.get(one.bound.gateway, (2, 0)):
            best[one.bound.gateway] = reach
    for found in by_host:
        ranked: list[Ranked] = []
        here = {(one.kind, one.route): one for one in found if one.route[1] and _is_best(fetch, one.bound, best)}
        for (kind, key), one in sorted(here.items()):
            row, tls = fetch(RULES[kind], key), _tls(fetch, one.bound)
            here_ = (at_listener(rule, one.served_port, where.port, tls) for rule in (row.routes if row else ()))
            ranked += (rerouted(rule, shown(fetch, one.bound.gateway, rule.route)) for rule in here_)
        yield from in_order(ranked)


def _tls(fetch: Fetch, one: Bound) -> bool:
    return (fetch(places, one.gateway) or ())[one.index].listener.protocol == "HTTPS"


def _wider(host: str) -> Iterator[str]:
    """The wildcards that cover a host, the longest first: for `a.b.c` those are `*.b.c`, `*.c` and `*`."""
    if host == "*":
        return
    parts = host.removeprefix("*.").split(".")
    yield from ("*." + ".".join(parts[start:]) for start in range(1, len(parts)))
    yield "*"


def _is_best(fetch: Fetch, one: Bound, best: Mapping[Key, tuple[int, int]]) -> bool:
    return specificity(_listener_name(fetch, one)) == best[one.gateway]


def _listener_name(fetch: Fetch, one: Bound) -> str:
    return (fetch(places, one.gateway) or ())[one.index].listener.hostname or "*"


def _written(fetch: Fetch, where: RouteTableKey, attached: tuple[Attached, ...]) -> Iterator[Route]:
    """The VirtualServices' rules, each object once for every Gateway and port by which it is there."""
    source = fetch(gateway_source, workload_key(where)) or ANYBODY
    callers: dict[tuple[Key, Key, int], None] = {}
    for one in attached:
        if one.bound.istio and one.route[1]:
            callers[one.route, one.bound.gateway, one.served_port] = None
    ages = {key: age(row) for key, _gateway, _port in callers if (row := fetch(virtual_services, key))}
    seen: set[Route] = set()
    for caller in sorted((one for one in callers if one[0] in ages), key=lambda one: (ages[one[0]], one)):
        rules = fetch(virtual_service_routes, (*caller, source))
        for route in rules.routes if rules else ():
            if route not in seen:
                seen.add(route)
                yield route
