"""Routes attached to a gateway → the virtual hosts of its route tables.

Of the hosts on a bound port the most specific wins, whichever API brought it. Within one host the HTTPRoutes' rules stand first,
by the Gateway API's precedence, then the VirtualServices', the oldest first. A request for a host of the Gateway API that no rule
of its own takes falls to the rules of less specific hostnames of the same listener, as that API says.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from tulle.api.gateway import Gateway, HTTPRoute
from tulle.api.gateway.gateway import Listener
from tulle.api.gateway.shared import LabelSelector, ParentRef
from tulle.api.istio.gateway import Server
from tulle.core.compile.gateways import Bound, bound
from tulle.core.compile.hostname import Key, covers, full_name, meet, service_key, specificity
from tulle.core.compile.http_routes import Ranked, http_route_rules, in_order
from tulle.core.compile.objects import (
    age,
    gateways,
    http_routes,
    istio_gateways,
    namespaces,
    parent_key,
    virtual_services,
    visible,
)
from tulle.core.compile.virtual_services import virtual_service_routes
from tulle.core.flow import Fetch, table
from tulle.core.model.route import Route, RouteTableKey, VirtualHost

GATEWAY_API = "gateway.networking.k8s.io"


class Attached(msgspec.Struct, frozen=True, order=True):
    """A host of a table and the object with its routes: an HTTPRoute on a listener, or a VirtualService on a server.

    `route` ("", "") is a listener without a route for the host, which still keeps others from it.
    """

    host: str
    bound: Bound
    route: Key
    served_port: int  # the port as the Gateway says it


def workload_key(where: RouteTableKey) -> Key:
    """The gateway workload that a table belongs to."""
    namespace, _slash, name = where.gateway.partition("/")
    return namespace, name


@table
def attachments(fetch: Fetch, where: RouteTableKey) -> tuple[Attached, ...]:
    """Every (host, object) pair of a table."""
    key = workload_key(where)
    found: set[Attached] = set()
    for one in fetch(bound, key) or ():
        if one.port == where.port:
            found.update(_virtual_services(fetch, one, key[0]) if one.istio else _http_routes(fetch, one))
    return tuple(sorted(found))


def _virtual_services(fetch: Fetch, one: Bound, viewer: str) -> Iterator[Attached]:
    gateway = fetch(istio_gateways, one.gateway)
    if gateway is None:
        return
    server = gateway.spec.servers[one.index]
    for key in fetch.keys(virtual_services, "gateway", one.gateway):
        row = fetch(virtual_services, key)
        if row and row.spec.http and visible(row.spec.export_to, key[0], viewer):
            for host in served_hosts(server, one.gateway[0], key[0], row.spec.hosts):
                yield Attached(host, one, key, server.port.number)


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
    gateway = fetch(gateways, one.gateway)
    if gateway is None:
        return
    listener = gateway.spec.listeners[one.index]
    if listener.hostname:
        yield Attached(listener.hostname, one, ("", ""), listener.port)
    for key in fetch.keys(http_routes, "parent", (GATEWAY_API, "Gateway", *one.gateway)):
        row = fetch(http_routes, key)
        if row is None or not any(refers(row, parent, one.gateway, listener) for parent in row.spec.parent_refs):
            continue
        if not allowed(fetch, listener, gateway, key[0]):
            continue
        for host in hostnames(listener, row):
            yield Attached(host, one, key, listener.port)


def refers(row: HTTPRoute, parent: ParentRef, gateway: Key, listener: Listener) -> bool:
    """Whether a parentRef names this listener of the Gateway."""
    if parent_key(parent, row.metadata.namespace) != (GATEWAY_API, "Gateway", *gateway):
        return False
    return parent.section_name in (None, listener.name) and parent.port in (None, listener.port)


def allowed(fetch: Fetch, listener: Listener, gateway: Gateway, namespace: str) -> bool:
    """Whether a listener takes HTTPRoutes of a namespace."""
    takes = listener.allowed_routes
    if takes.kinds and not any((kind.group, kind.kind) == (GATEWAY_API, "HTTPRoute") for kind in takes.kinds):
        return False
    if takes.namespaces.from_ == "Same":
        return namespace == gateway.metadata.namespace
    if takes.namespaces.from_ == "Selector":
        row = fetch(namespaces, ("", namespace))
        labels = {"kubernetes.io/metadata.name": namespace, **(row.metadata.labels if row else {})}
        return takes.namespaces.selector is not None and _selects(takes.namespaces.selector, labels)
    return True


def _selects(selector: LabelSelector, labels: dict[str, str]) -> bool:
    for key, value in selector.match_labels.items():
        if labels.get(key) != value:
            return False
    for one in selector.match_expressions:
        there = one.key in labels
        if one.operator in ("In", "NotIn"):
            there = there and labels[one.key] in one.values
        if there is (one.operator in ("NotIn", "DoesNotExist")):
            return False
    return True


def hostnames(listener: Listener, row: HTTPRoute) -> tuple[str, ...]:
    """The names for which a route counts on a listener: where both have some, what they have in common."""
    if not row.spec.hostnames:
        return (listener.hostname or "*",)
    if not listener.hostname:
        return row.spec.hostnames
    return tuple(common for name in row.spec.hostnames if (common := meet(listener.hostname, name)) is not None)


@table
def gateway_hosts(fetch: Fetch, where: RouteTableKey) -> tuple[str, ...]:
    """The hosts of a table, the most specific first; always with `*`, so that no table is empty."""
    found = {one.host for one in fetch(attachments, where) or ()}
    return tuple(sorted(found | {"*"}, key=lambda host: (specificity(host), host)))


@table
def gateway_virtual_host(fetch: Fetch, key: tuple[RouteTableKey, str]) -> VirtualHost | None:
    """The virtual host of (table, host)."""
    where, host = key
    everything = fetch(attachments, where) or ()
    return VirtualHost(
        name=f"{host}:{where.port}",
        domains=(host,),
        routes=(*_ranked(fetch, host, everything), *_written(fetch, host, everything)),
    )


def _ranked(fetch: Fetch, host: str, everything: tuple[Attached, ...]) -> Iterator[Route]:
    """The HTTPRoutes' rules: of each Gateway only those on its most specific listener for the host, the host's own first."""
    routes = [one for one in everything if not one.bound.istio]
    if not any(one.host == host for one in routes):
        return
    here = [one for one in routes if covers(one.host, host)]
    best: dict[Key, tuple[int, int]] = {}
    for one in here:
        if (reach := specificity(_listener_name(fetch, one.bound))) < best.get(one.bound.gateway, (2, 0)):
            best[one.bound.gateway] = reach
    for name in sorted({one.host for one in here}, key=specificity):
        keys = {
            one.route
            for one in here
            if one.host == name and one.route[1] and specificity(_listener_name(fetch, one.bound)) == best[one.bound.gateway]
        }
        ranked: list[Ranked] = []
        for key in sorted(keys):
            row = fetch(http_route_rules, key)
            ranked += row.routes if row else ()
        yield from in_order(ranked)


def _listener_name(fetch: Fetch, one: Bound) -> str:
    gateway = fetch(gateways, one.gateway)
    return (gateway.spec.listeners[one.index].hostname if gateway else None) or "*"


def _written(fetch: Fetch, host: str, everything: tuple[Attached, ...]) -> Iterator[Route]:
    """The VirtualServices' rules, each object once for every Gateway and port by which it is there."""
    callers: dict[tuple[Key, Key, int], None] = {}
    for one in everything:
        if one.bound.istio and one.host == host:
            callers[one.route, one.bound.gateway, one.served_port] = None
    ages = {key: age(row) for key, _gateway, _port in callers if (row := fetch(virtual_services, key))}
    seen: set[Route] = set()
    for caller in sorted((one for one in callers if one[0] in ages), key=lambda one: (ages[one[0]], one)):
        rules = fetch(virtual_service_routes, caller)
        for route in rules.routes if rules else ():
            if route not in seen:
                seen.add(route)
                yield route
