"""Which Services the sidecars of a namespace can call, by port → their shared listeners and route tables."""

from __future__ import annotations

import msgspec

from tulle.core.compile.callers import Source
from tulle.core.compile.hostname import Key
from tulle.core.compile.hosts import routed
from tulle.core.compile.objects import services, workload_entries
from tulle.core.compile.services import service
from tulle.core.flow import Fetch, table
from tulle.core.model.destination import DestinationKey
from tulle.core.model.route import RouteTableKey
from tulle.core.model.service import Protocol
from tulle.core.model.workload import Outbound, OutboundTcp


@table
def sidecar_namespaces(fetch: Fetch, _key: None) -> tuple[str, ...]:
    """The namespaces in which sidecars run."""
    return tuple(sorted({key[0] for key in fetch.keys(workload_entries, "role", "sidecar")}))


@table
def forward_proxy_namespaces(fetch: Fetch, _key: None) -> tuple[str, ...]:
    """The namespaces in which some application is given its sidecar as `http_proxy`."""
    return tuple(sorted({key[0] for key in fetch.keys(workload_entries, "role", "forward proxy")}))


@table
def by_table_port(fetch: Fetch, _key: None) -> dict[int, tuple[tuple[Key, int], ...]]:
    """The (Service, port) pairs in each table, by the table's port."""
    found: dict[int, list[tuple[Key, int]]] = {0: []}
    for key in fetch.keys(services):
        row = fetch(service, key)
        for port in row.ports if row else ():
            for number in (0, port.number):
                if routed(port.number, port.protocol, number):
                    found.setdefault(number, []).append((key, port.number))
    return {number: tuple(found[number]) for number in sorted(found)}


@table
def tcp_services(fetch: Fetch, _key: None) -> tuple[OutboundTcp, ...]:
    """Ports that are not declared as HTTP, of Services with a virtual IP."""
    found: list[OutboundTcp] = []
    for key in fetch.keys(services):
        row = fetch(service, key)
        if row and row.address:
            found += (
                OutboundTcp(
                    row.address,
                    port.number,
                    DestinationKey(row.hostname, port.number),
                    sniffed=port.protocol is Protocol.AUTO,
                )
                for port in row.ports
                if not port.protocol.is_http
            )
    return tuple(sorted(found, key=lambda one: (one.address, one.port)))


@table
def any_address(fetch: Fetch, _key: None) -> dict[int, bool]:
    """The ports that are HTTP (False), or may be (True), whatever address is called: where no virtual IP tells services apart."""
    found: dict[int, bool] = {}
    for key in fetch.keys(services):
        row = fetch(service, key)
        for port in row.ports if row else ():
            if port.protocol.is_http:
                found[port.number] = False
            elif row and port.protocol is Protocol.AUTO and not row.address:
                found.setdefault(port.number, True)
    return {number: found[number] for number in sorted(found)}


@table
def tables(fetch: Fetch, namespace: str) -> tuple[RouteTableKey, ...]:
    """The route tables of a namespace's sidecars; that of port 0 only where something asks for it."""
    ports = fetch(by_table_port, None) or {}
    forward = namespace in (fetch(forward_proxy_namespaces, None) or ())
    return tuple(RouteTableKey(port=port, namespace=namespace) for port in ports if port or forward)


@table
def outbound(fetch: Fetch, namespace: str) -> Outbound:
    """What a namespace's sidecars listen for. The forward proxy is a listener of its workload."""
    ports = fetch(any_address, None) or {}
    return Outbound(
        namespace=namespace,
        http=tuple(RouteTableKey(port, namespace) for port, sniffed in ports.items() if not sniffed),
        sniffed=tuple(RouteTableKey(port, namespace) for port, sniffed in ports.items() if sniffed),
        tcp=fetch(tcp_services, None) or (),
    )


@table
def tables_apart(fetch: Fetch, source: Source) -> tuple[RouteTableKey, ...]:
    """The route tables of those sidecars of a namespace that have labels by which rules tell them apart."""
    found = fetch(tables, source.namespace) or ()
    return tuple(msgspec.structs.replace(key, labels=source.labels) for key in found)


@table
def outbound_apart(fetch: Fetch, source: Source) -> Outbound | None:
    """What they listen for: the same, with tables of their own."""
    found = fetch(outbound, source.namespace)
    http = tuple(key for key in fetch(tables_apart, source) or () if key.port)
    return msgspec.structs.replace(found, http=http) if found else None
