"""A Service as the sidecars of a namespace call it → a virtual host: all names it may be called by, and its routes.

Routes come from HTTPRoutes and GRPCRoutes that have the Service as parent (those of the caller's namespace before those of the
Service's), then from the oldest VirtualService for the host that the caller may see, and only where there is neither from the
Service itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from tulle.api.istio import VirtualService
from tulle.core.compile.callers import ANYBODY, Source
from tulle.core.compile.exports import counts_for, exports
from tulle.core.compile.hostname import Key, covers, full_name, is_address, meanings, short_names, specificity
from tulle.core.compile.http_routes import Ranked, at_listener, in_order
from tulle.core.compile.kinds import RULES
from tulle.core.compile.objects import MESH, ROUTES, age, in_mesh, parent_key, virtual_services
from tulle.core.compile.objects import Route as RouteObject
from tulle.core.compile.routes import reachable
from tulle.core.compile.services import service
from tulle.core.compile.virtual_services import matches_of, virtual_service_routes
from tulle.core.flow import Fetch, table
from tulle.core.model.destination import DestinationKey
from tulle.core.model.route import Origin, Route, RouteTableKey, VirtualHost, WeightedDestination
from tulle.core.model.service import Protocol, Service

# (Service, its port, the callers).
View = tuple[Key, int, Source]

ALLOW_ANY = VirtualHost(name="allow_any", domains=("*",), passthrough=True)
# The same virtual host with another meaning, for a table may not have two for all names, not even for a moment.
REGISTRY_ONLY = VirtualHost(name="allow_any", domains=("*",), routes=(Route(name="block_all", status=502),))
# A forward proxy is told a host without a port where it is HTTP's own.
_HTTP_PORT = 80


def routed(port: int, protocol: Protocol, table_port: int) -> bool:
    """Whether a service's port is in a table: of its own port, or of a forward proxy, which has all."""
    return protocol.may_be_http and table_port in (0, port)


@table
def virtual_host(fetch: Fetch, key: tuple[RouteTableKey, Key, int]) -> VirtualHost | None:
    """The virtual host of (table, Service, port)."""
    where, service_key, number = key
    row = fetch(service, service_key)
    port = row.port(number) if row else None
    if row is None or port is None or not (where.bind or routed(number, port.protocol, where.port)):
        return None
    source = _source(fetch, service_key, where)
    routes = fetch(mesh_routes, (service_key, number, source)) or ()
    if where.service:
        return VirtualHost(name=f"{row.hostname}:{number}", domains=("*",), routes=routes)
    addresses = (one for one in (row.address, row.address6, *row.networks) if is_address(one))
    names = (*short_names(service_key, where.namespace), *addresses)
    hosts = [_bracketed(name) for name in names]
    bare = hosts if where.port or number == _HTTP_PORT else []
    return VirtualHost(
        name=f"{row.hostname}:{number}",
        domains=(*bare, *(f"{host}:{number}" for host in hosts)),
        routes=routes,
    )


def _bracketed(name: str) -> str:
    """As the name stands in `:authority`."""
    return f"[{name}]" if ":" in name else name


def _source(fetch: Fetch, key: Key, where: RouteTableKey) -> Source:
    """The callers of a table, as far as routes of this Service depend on who asks: else all tables share them."""
    asked = fetch(labels_asked, key) if where.labels else None
    labels = tuple(pair for pair in where.labels if asked and pair in asked)
    if labels:
        return Source(where.namespace, labels)
    return Source(where.namespace) if fetch(differs, key) else ANYBODY


@table
def differs(fetch: Fetch, key: Key) -> bool:
    """Whether callers of different namespaces may get different routes to a Service."""
    if any(one[0] != key[0] for kind in RULES for one in fetch.keys(ROUTES[kind], "parent", ("", "Service", *key))):
        return True
    rows = [*_virtual_services(fetch, key)]
    if any(exports(fetch, row) not in ((), ("*",)) for row in rows):
        return True
    return any(one.source_namespace for row in rows for one in matches_of(fetch, row))


@table
def labels_asked(fetch: Fetch, key: Key) -> frozenset[tuple[str, str]]:
    """The labels of callers on which routes to a Service depend."""
    rows = _virtual_services(fetch, key)
    return frozenset(pair for row in rows for one in matches_of(fetch, row) for pair in one.source_labels.items())


@table
def mesh_routes(fetch: Fetch, key: View) -> tuple[Route, ...]:
    """The routes to (Service, port) for some callers."""
    service_key, number, source = key
    ranked = attached(fetch, service_key, number, source.namespace)
    first = fetch(chosen_virtual_service, (service_key, source.namespace))
    rules = fetch(virtual_service_routes, (first, MESH, number, source)) if first else None
    if ranked is None and rules is None:
        return (_plain(fetch(service, service_key), number),)
    return reachable((*(in_order(ranked) if ranked else ()), *(rules.routes if rules else ())))


def _plain(row: Service | None, number: int) -> Route:
    """What a Service gets without any rule: everything to all of its endpoints."""
    assert row is not None
    origin = Origin(ref=row.ref)
    destination = WeightedDestination(DestinationKey(row.hostname, number), named_at=row.named_at(number))
    return Route(name="default", destinations=(destination,), origin=origin)


def attached(fetch: Fetch, key: Key, number: int, viewer: str) -> list[Ranked] | None:
    """The rules of the routes that have a Service's port as parent, as a namespace sees them; None where there are none."""
    chosen = attached_routes(fetch, key, number, viewer)
    if not chosen:
        return None
    rows = (fetch(RULES[kind], one) for kind, one in chosen)
    return [at_listener(route, number, number, tls=False) for row in rows if row for route in row.routes]


def attached_routes(fetch: Fetch, key: Key, number: int, viewer: str, kinds: Iterable[str] = RULES) -> list[tuple[str, Key]]:
    """The routes of some kinds (of HTTP, where none is said) that have a Service's port as parent, each with its kind.

    They are the viewer's own (consumer routes), else those beside the Service.
    """
    objects = ((kind, one) for kind in kinds for one in fetch.keys(ROUTES[kind], "parent", ("", "Service", *key)))
    fitting = [one for one in objects if (row := fetch(ROUTES[one[0]], one[1])) and _names_port(row, key, number)]
    consumer = [one for one in fitting if one[1][0] == viewer != key[0]]
    return consumer or [one for one in fitting if one[1][0] == key[0]]


def _names_port(row: RouteObject, key: Key, number: int) -> bool:
    return any(
        parent.port in (None, number)
        for parent in row.spec.parent_refs
        if parent_key(parent, row.metadata.namespace) == ("", "Service", *key)
    )


@table
def chosen_virtual_service(fetch: Fetch, key: tuple[Key, str]) -> Key | None:
    """The VirtualService that a namespace's sidecars follow for a Service: by the most specific host, then the oldest."""
    service_key, viewer = key
    seen = [row for row in _virtual_services(fetch, service_key) if seen_by(fetch, row, viewer)]
    first = min(seen, key=lambda row: (best_host(row, service_key), age(row)), default=None)
    return (first.metadata.namespace, first.metadata.name) if first else None


def seen_by(fetch: Fetch, row: VirtualService, viewer: str) -> bool:
    """Whether a VirtualService counts for the callers of a namespace ("": of any)."""
    return not viewer or counts_for(fetch, row, viewer)


def _virtual_services(fetch: Fetch, key: Key) -> Iterator[VirtualService]:
    """Those for the sidecars with a host that means the Service and with HTTP routes."""
    for row in (*fetch.rows(virtual_services, "host", key), *fetch.rows(virtual_services, "host", "*")):
        if row.spec.http and in_mesh(row) and best_host(row, key) is not None:
            yield row


def best_host(row: VirtualService, key: Key) -> tuple[int, int] | None:
    """How specifically a VirtualService names a Service; None where it does not."""
    name = full_name(key)
    found = [host for host in _hosts(row) if covers(host, name)]
    return min(map(specificity, found), default=None)


def _hosts(row: VirtualService) -> Iterator[str]:
    for host in row.spec.hosts:
        found = () if host.startswith("*") else meanings(host, row.metadata.namespace)
        yield from map(full_name, found) if found else (host,)
