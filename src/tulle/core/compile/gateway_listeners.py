"""What a gateway workload serves → the ports that it binds, and a chain for each kind of connection."""

from __future__ import annotations

from collections.abc import Iterator

from tulle.core.compile.gateway_tcp import PortRoutes, port_routes
from tulle.core.compile.gateway_udp import udp_bound
from tulle.core.compile.gateways import ANY_ADDRESS, ANY_NAME, Section, Served, served, table_key
from tulle.core.compile.hostname import Key
from tulle.core.flow import Fetch, table
from tulle.core.model.gateway import GatewayChain, GatewayListener


@table
def gateway_listeners(fetch: Fetch, key: Key) -> tuple[GatewayListener, ...]:
    """The ports that a gateway workload binds. Servers that name different addresses of one port share it on all addresses."""
    found = fetch(served, key) or Served()
    addresses: dict[int, set[str]] = {}
    for one in (*found.bound, *(it.bound for it in found.tcp)):
        addresses.setdefault(one.port, set()).add(one.address)
    datagrams = {one.port for one in fetch(udp_bound, key) or ()}  # there is no place for QUIC beside them
    listeners: list[GatewayListener] = []
    for port, named in sorted(addresses.items()):
        chains = [GatewayChain(table=table_key(key, port))] if port in found.plain else []
        chains += (chain for one in found.sections if one.port == port for chain in _chains(key, one, quic=port not in datagrams))
        forwarded = fetch(port_routes, (key, port)) or PortRoutes()
        address = next(iter(named)) if len(named) == 1 else ANY_ADDRESS
        chains += forwarded.chains
        if chains or forwarded.routes:
            listeners.append(GatewayListener(port, tuple(chains), address, forwarded.routes))
    return tuple(listeners)


def _chains(key: Key, section: Section, *, quic: bool) -> Iterator[GatewayChain]:
    """A section's chain; a second one where it is for certain names and for any other too."""
    where = table_key(key, section.port, section.id)
    http3 = section.http3 if quic else 0
    named = tuple(sorted(name for name in section.names if name != ANY_NAME))
    if named:
        yield GatewayChain(names=named, encrypted=True, tls=section.tls, table=where, http3=http3)
    if ANY_NAME in section.names:
        yield GatewayChain(encrypted=True, tls=section.tls, table=where, http3=http3)
