"""What a sidecar knows of its callers' connections → where one goes that its application opens, and by which rule.

A connection is told by where it was going, by the server name of TLS, and by where it comes from, before a byte of it is passed
on. Of the routes of those to whom it may belong the first that holds decides. That Envoy, which has no such order but picks the
most specific chain, comes to the same is what tests/property/test_connections.py is for.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from enum import StrEnum

import msgspec

from tulle.core.evaluate.decision import Share
from tulle.core.model.route import RouteTableKey, WeightedDestination
from tulle.core.model.tcp_route import ANY_TLS, TcpMatch, TcpRoute
from tulle.core.model.workload import Outbound, OutboundTcp
from tulle.core.networks import inside


class Connection(msgspec.Struct, frozen=True, omit_defaults=True):
    """`address` and `port` are where it was going, `source` is where it comes from.

    `sni` is the server name of TLS ("" for none), None where it is not TLS; `http`: it begins with HTTP in plaintext.
    """

    address: str
    port: int
    source: str = "127.0.0.1"
    sni: str | None = None
    http: bool = False


class Way(StrEnum):
    """FORWARD: to one of `shares`. HTTP: to where its requests' routes say. PASSTHROUGH: to where it was going."""

    FORWARD = "forward"
    HTTP = "http"
    PASSTHROUGH = "passthrough"
    CLOSED = "closed"


class Carried(msgspec.Struct, frozen=True, omit_defaults=True):
    """What becomes of a connection.

    `service` is the port that it belongs to, `route` the rule that decided (None: there is none for it), `table` where the routes
    of its requests are.
    """

    way: Way
    service: OutboundTcp | None = None
    route: TcpRoute | None = None
    shares: tuple[Share, ...] = ()
    table: RouteTableKey | None = None


def carry(row: Outbound, connection: Connection) -> Carried:
    """Where the sidecars of a namespace carry a connection of their applications."""
    here = [one for one in row.tcp if one.port == connection.port]
    own = next((one for one in here if one.address == connection.address), None)
    if own is not None:
        return _of_service(row, own, connection)
    others = [one for one in here if not one.address or "/" in one.address]
    table = next((one for one in (*row.http, *row.sniffed) if one.port == connection.port), None)
    if table is None and not others:
        return _rest(row)
    return _of_port(row, others, table, connection)


def _of_service(row: Outbound, own: OutboundTcp, connection: Connection) -> Carried:
    """At the address of one service."""
    if own.sniffed and connection.http:
        table = RouteTableKey(own.port, row.namespace, labels=row.labels, service=own.destination.hostname)
        return Carried(Way.HTTP, own, table=table)
    for route in own.routes:
        if holds(route.match, connection):
            return _forward(own, route, route.destinations)
    return _forward(own, None, (WeightedDestination(own.destination),))


def _of_port(row: Outbound, services: Sequence[OutboundTcp], table: RouteTableKey | None, connection: Connection) -> Carried:
    """At a port that several services share, and HTTP for whatever address."""
    declared = table is not None and table in row.http
    told = [(one, route) for one in services if one.address or one.names or not declared for route in _routes(one)]
    # Addresses go before anything else: HTTP to a network of somebody's is his bytes.
    narrow = any(_inside(connection.address, route.match.networks) for _one, route in told if route.match.networks)
    if table is not None and not declared and connection.http and not narrow:
        return Carried(Way.HTTP, table=table)
    for one, route in told:
        if holds(route.match, connection):
            return _forward(one, route, route.destinations)
    if table is not None and declared:
        names = [name for _one, route in told for name in route.match.names]
        # Where TLS is looked into, TLS for nobody is no HTTP.
        unknown = connection.sni is not None and bool(names) and ANY_TLS not in names and not narrow
        return _rest(row) if unknown else Carried(Way.HTTP, table=table)
    owner = next((one for one in services if not one.address and not one.names), None)
    return _forward(owner, None, (WeightedDestination(owner.destination),)) if owner else _rest(row)


def _routes(one: OutboundTcp) -> Iterator[TcpRoute]:
    """A service's routes among those of others, each for what is the service's alone; the last has all of that."""
    networks = (one.address,) if one.address else ()
    for route in one.routes:
        names = route.match.names
        if one.names:
            names = tuple(name for name in names if name != ANY_TLS) or one.names
        yield msgspec.structs.replace(
            route, match=msgspec.structs.replace(route.match, names=names, networks=route.match.networks or networks)
        )
    if networks or one.names:
        yield TcpRoute(match=TcpMatch(one.names, networks), destinations=(WeightedDestination(one.destination),))


def holds(match: TcpMatch, connection: Connection) -> bool:
    """Whether a rule is for a connection."""
    return (
        (not match.names or (connection.sni is not None and any(_named(connection.sni, name) for name in match.names)))
        and (not match.networks or _inside(connection.address, match.networks))
        and (not match.sources or _inside(connection.source, match.sources))
    )


def _named(sni: str, name: str) -> bool:
    return name == ANY_TLS or sni.lower() == name or (name.startswith("*.") and sni.lower().endswith(name[1:]))


def _inside(address: str, networks: Iterable[str]) -> bool:
    return any(inside(address, network) for network in networks)


def _forward(service: OutboundTcp | None, route: TcpRoute | None, destinations: Iterable[WeightedDestination]) -> Carried:
    some = [one for one in destinations if one.weight > 0]
    total = sum(one.weight for one in some)
    shares = tuple(Share(one.destination, one.weight / total) for one in some)
    return Carried(Way.FORWARD if shares else Way.CLOSED, service, route, shares)


def _rest(row: Outbound) -> Carried:
    """What the mesh does not know."""
    if row.registry_only:
        return Carried(Way.CLOSED)
    return Carried(Way.FORWARD, shares=(Share(row.unknown, 1.0),)) if row.unknown else Carried(Way.PASSTHROUGH)
