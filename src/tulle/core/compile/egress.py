"""Egress listeners of a Sidecar that have an address of their own (`bind`, `captureMode: NONE`) → where calls to it go.

As with Istio a listener with a port has that port of the hosts, or their only one; one without a port stands for all that they
have. HTTP is told by Host, TLS by its server name, and anything else is the first host's.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from tulle.api.istio.sidecar import EgressListener as Written
from tulle.core.compile.callers import Source, caller_labels
from tulle.core.compile.destinations import carriage_of
from tulle.core.compile.hostname import Key, tells_tls
from tulle.core.compile.mesh_tcp import mesh_tcp_routes
from tulle.core.compile.objects import age, workload_entries
from tulle.core.compile.outbound import Pair
from tulle.core.compile.services import registry, service
from tulle.core.compile.sidecars import UNIX, apart, lets_through, sidecar_for
from tulle.core.compile.workload_notes import CAPTURE, NODE
from tulle.core.flow import Fetch, table
from tulle.core.model.destination import DestinationKey
from tulle.core.model.route import RouteTableKey
from tulle.core.model.service import PROTOCOLS, Protocol, Service, ServicePort
from tulle.core.model.workload import Capture, EgressListener, OutboundTcp, ProxyPorts

# Ports of every sidecar: its listeners, its health and metrics, and the DNS beside it.
RESERVED = frozenset((*msgspec.structs.astuple(ProxyPorts()), 15053))
_LOOPBACK = "127.0.0.1"
_FORWARD = "HTTP_PROXY"


class Egress(msgspec.Struct, frozen=True):
    """An egress listener, its services and those in its table, and how calls get to it (`mode`, Istio's word)."""

    listener: EgressListener
    services: tuple[Key, ...] = ()
    hosts: tuple[Pair, ...] = ()
    mode: str = "DEFAULT"
    index: int = 0


@table
def egress(fetch: Fetch, source: Source) -> tuple[Egress, ...]:
    """The egress listeners that callers have at addresses of their own: each address and port once, and none of the proxy's."""
    row = sidecar_for(fetch, source.namespace, source.labels)
    found: dict[tuple[str, int], Egress] = {}
    for index, one in enumerate(row.spec.egress if row else ()):
        if apart(one):
            for made in _made(fetch, one, index, source):
                if made.listener.port in RESERVED:
                    continue
                found.setdefault((made.listener.address, made.listener.port), made)
    return tuple(found[where] for where in sorted(found))


@table
def egress_tables(fetch: Fetch, source: Source) -> tuple[tuple[RouteTableKey, tuple[Pair, ...]], ...]:
    """The route tables of these."""
    return tuple((one.listener.table, one.hosts) for one in fetch(egress, source) or () if one.listener.table)


def own_egress(fetch: Fetch, key: Key, source: Source) -> tuple[EgressListener, ...]:
    """The listeners of one workload, as it is captured."""
    entry = fetch(workload_entries, key)
    notes = entry.metadata.annotations if entry else {}
    everything = fetch(egress, source) or ()
    if not everything:
        return ()
    capture = notes.get(CAPTURE, Capture.NETNS)
    found = []
    for one in everything:
        bound = one.mode == "NONE" or one.listener.address.startswith(UNIX)
        if not bound and capture == Capture.PROXY:
            if one.mode != "DEFAULT":
                continue  # nothing is captured there
            bound = True
        found.append(msgspec.structs.replace(one.listener, captured=not bound))
    node = notes.get(NODE, "")
    mine = capture == Capture.NETNS or fetch(first_on_node, (source, node, False)) in (None, key)
    files = fetch(first_on_node, (source, node, True)) in (None, key)
    return tuple(one for one in found if one.captured or (files if one.address.startswith(f"{UNIX}/") else mine))


@table
def first_on_node(fetch: Fetch, key: tuple[Source, str, bool]) -> Key | None:
    """Of the callers that share a node's own network (or, `files`, its files) the oldest: an address there is one's alone."""
    source, node, files = key
    rows = (fetch(workload_entries, one) for one in fetch.keys(workload_entries, "role", "sidecar") if one[0] == source.namespace)
    sharing = [
        row
        for row in rows
        if row
        and row.metadata.annotations.get(NODE, "") == node
        and (files or row.metadata.annotations.get(CAPTURE, Capture.NETNS) != Capture.NETNS)
        and (fetch(caller_labels, (row.metadata.namespace, row.metadata.name)) or ()) == source.labels
    ]
    first = min(sharing, key=age, default=None)
    return (first.metadata.namespace, first.metadata.name) if first else None


def _made(fetch: Fetch, said: Written, index: int, source: Source) -> Iterator[Egress]:
    """A listener of its own, or one for every port of the hosts."""
    pairs = list(_admitted(fetch, said, source))
    address = said.bind or _LOOPBACK
    if said.port is not None:
        protocol = said.port.protocol.upper()
        number = 0 if address.startswith(UNIX) else said.port.number
        forward = protocol == _FORWARD or (not number and PROTOCOLS.get(protocol, Protocol.TCP).is_http)
        chosen = pairs if forward else list(_at(pairs, said.port.number))
        spoken = Protocol.HTTP if forward else PROTOCOLS.get(protocol, Protocol.TCP)
        yield _listener(fetch, (address, number), chosen, spoken, said, index, source, forward=forward)
        return
    for number in sorted({port.number for _key, _row, port in pairs}):
        here = [one for one in pairs if one[2].number == number]
        protocols = [port.protocol for _key, _row, port in here]
        spoken = next((one for one in protocols if one.is_http), protocols[0])
        yield _listener(fetch, (address, number), here, spoken, said, index, source, forward=False)


_Admitted = tuple[Key, Service, ServicePort]


def _admitted(fetch: Fetch, said: Written, source: Source) -> Iterator[_Admitted]:
    for key in fetch(registry, None) or ():
        row = fetch(service, key)
        if row and row.seen_from(source.namespace) and lets_through(said, row, source.namespace):
            yield from ((key, row, port) for port in row.ports)


def _at(pairs: list[_Admitted], number: int) -> Iterator[_Admitted]:
    """Of each service the port with that number, or its only one."""
    for key, row, port in pairs:
        if port.number == number or (row.port(number) is None and len(row.ports) == 1):
            yield key, row, port


def _listener(
    fetch: Fetch,
    where: tuple[str, int],
    pairs: list[_Admitted],
    spoken: Protocol,
    said: Written,
    index: int,
    source: Source,
    *,
    forward: bool,
) -> Egress:
    address, number = where
    hosts = tuple((key, port.number) for key, _row, port in pairs if port.protocol.may_be_http) if spoken.may_be_http else ()
    tables = hosts or forward
    of_proxy = 0 if forward else number
    listener = EgressListener(
        address=address,
        port=number,
        table=RouteTableKey(of_proxy, source.namespace, labels=source.labels, bind=f"{address}:{number}" if forward else address)
        if tables
        else None,
        forward=forward,
        sniffed=spoken is Protocol.AUTO,
        tcp=() if spoken.is_http else tuple(_tcp(fetch, pairs, number, spoken, source)),
    )
    return Egress(listener, tuple(dict.fromkeys(key for key, _row, _port in pairs)), hosts, said.capture_mode, index)


def _tcp(fetch: Fetch, pairs: list[_Admitted], number: int, spoken: Protocol, source: Source) -> Iterator[OutboundTcp]:
    """Who has the bytes: by the server name of TLS, and of all else the first."""
    whole = False
    for key, row, port in pairs:
        tls = spoken is Protocol.TLS or port.protocol is Protocol.TLS
        names = (row.hostname,) if tls and tells_tls(row.hostname) else ()
        if names or not whole:
            yield OutboundTcp(
                "",
                number,
                DestinationKey(row.hostname, port.number),
                routes=mesh_tcp_routes(fetch, key, "", port.number, source),
                names=names,
                tls=tls,
                carriage=carriage_of(fetch, (key, port.number, ""), source),
                named_at=row.named_at(port.number),
            )
        whole = whole or not names
