"""Gateways of both APIs → the ports that a gateway workload binds, and the servers and listeners behind each.

A Gateway says a port as clients name it; the workload binds what the Service in front of it sends that port to (its
`targetPort`), or the port itself where no Service has it. Plain HTTP of one bound port is one table. TLS is told apart by server
name before a request is read, so each listener or server whose TLS ends at the gateway is a *section* with a table of its own. A
server name belongs to the oldest Gateway that has it; what a younger one has for the same name joins that section.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from tulle.api.istio.gateway import Server
from tulle.core.compile import istio_tls
from tulle.core.compile.gateway_workloads import bound_port, chosen_workloads, gateway_labels
from tulle.core.compile.hostname import Key, covers, specificity
from tulle.core.compile.listeners import gateway_fault, verdicts_of
from tulle.core.compile.objects import age, gateways, istio_gateways, selects
from tulle.core.compile.places import places
from tulle.core.flow import Fetch, table
from tulle.core.model.gateway import GatewayChain, GatewayListener, ServerTls
from tulle.core.model.route import RouteTableKey

HTTP = ("HTTP", "HTTP2", "GRPC", "GRPC-WEB")
_ANY = "0.0.0.0"  # noqa: S104 - a gateway is there to be reached
ANY_NAME = "*"


class Bound(msgspec.Struct, frozen=True, order=True):
    """A server or listener (by its index, or place) of a Gateway, bound to a port. `istio` tells the two APIs apart.

    `section` is where its requests are routed: "" for plain HTTP. `redirect`: plain requests are sent to HTTPS instead.
    """

    port: int
    istio: bool
    gateway: Key
    index: int
    address: str = _ANY
    section: str = ""
    redirect: bool = False


class Section(msgspec.Struct, frozen=True):
    """TLS that ends at a port of a gateway workload, for those server `names` that no older Gateway has."""

    port: int
    id: str
    names: tuple[str, ...]
    tls: ServerTls


class Served(msgspec.Struct, frozen=True):
    """All that a gateway workload serves."""

    bound: tuple[Bound, ...] = ()
    sections: tuple[Section, ...] = ()


def serves(server: Server) -> bool:
    """Whether a server of Istio's Gateway is one with HTTP routes that the model can say."""
    if server.bind.startswith("unix://"):
        return False
    protocol = server.port.protocol.upper()
    return protocol in HTTP or (protocol == "HTTPS" and istio_tls.ends(server))


class _Candidate(msgspec.Struct, frozen=True):
    """Something bound, before it is known who has which server name. `tls` is None for plain HTTP."""

    age: tuple[str, str, str]
    bound: Bound
    id: str = ""
    names: tuple[str, ...] = ()
    tls: ServerTls | None = None


@table
def served(fetch: Fetch, key: Key) -> Served:
    """Everything that a gateway workload serves, by port."""
    found: list[Bound] = []
    sections: list[Section] = []
    owner: dict[tuple[int, str], str] = {}
    candidates = [*_servers(fetch, key), *_listeners(fetch, key)]
    for one in sorted(candidates, key=lambda one: (one.age, one.bound)):
        if one.tls is None:
            found.append(one.bound)
            continue
        port = one.bound.port
        free = tuple(name for name in one.names if (port, name) not in owner)
        if free:
            owner |= dict.fromkeys(((port, name) for name in free), one.id)
            sections.append(Section(port, one.id, free, one.tls))
        section = one.id if free else owner[port, one.names[0]]
        found.append(msgspec.structs.replace(one.bound, section=section))
    return Served(tuple(sorted(found)), tuple(sorted(sections, key=lambda one: (one.port, one.id))))


@table
def bound(fetch: Fetch, key: Key) -> tuple[Bound, ...]:
    """Everything with HTTP routes that a gateway workload serves, by port."""
    found = fetch(served, key)
    return found.bound if found else ()


def _servers(fetch: Fetch, key: Key) -> Iterator[_Candidate]:
    """The servers of Istio's Gateways that select a gateway workload."""
    labels = fetch(gateway_labels, key) or {}
    for name in fetch.keys(istio_gateways):
        row = fetch(istio_gateways, name)
        if row is None or not selects(row.spec.selector, labels):
            continue
        for index, server in enumerate(row.spec.servers):
            if not serves(server):
                continue
            redirect = server.tls is not None and server.tls.https_redirect
            one = Bound(bound_port(fetch, key, server.port.number), True, name, index, server.bind or _ANY, redirect=redirect)
            if not istio_tls.ends(server):
                yield _Candidate(age(row), one)
            elif tls := istio_tls.server_tls(fetch, server, key[0]):
                hosts = tuple(dict.fromkeys(host.rpartition("/")[2].lower() for host in server.hosts))
                yield _Candidate(age(row), one, f"{server.port.name}~{name[1]}~{name[0]}~istio", hosts, tls)


def _listeners(fetch: Fetch, key: Key) -> Iterator[_Candidate]:
    """The listeners of Gateways of ours that are served, bound by a gateway workload."""
    for name in fetch.keys(gateways):
        row = fetch(gateways, name)
        if row is None or key not in (fetch(chosen_workloads, name) or ()):
            continue
        if fetch(gateway_fault, name) is not None:
            continue
        there, verdicts = fetch(places, name) or (), fetch(verdicts_of, name) or ()
        for index, verdict in enumerate(verdicts):
            if not verdict.bound:
                continue
            place = there[index]
            one = Bound(bound_port(fetch, key, place.listener.port), False, name, index)
            if verdict.tls is None:
                yield _Candidate(age(row), one)
                continue
            kind = "" if place.set is None else "~set"
            section = f"{place.listener.name}~{place.owner[1]}~{place.owner[0]}{kind}"
            yield _Candidate(age(row), one, section, (place.listener.hostname or ANY_NAME,), verdict.tls)


def table_key(key: Key, port: int, section: str = "") -> RouteTableKey:
    """The route table of a gateway workload's port, or of a section of it."""
    return RouteTableKey(port=port, namespace=key[0], gateway=f"{key[0]}/{key[1]}", section=section)


@table
def section_names(fetch: Fetch, key: tuple[Key, int]) -> dict[str, str]:
    """The server names of a (gateway workload, port), and the section that each belongs to."""
    found = fetch(served, key[0])
    return {name: one.id for one in (found.sections if found else ()) if one.port == key[1] for name in one.names}


def section_of(names: dict[str, str], host: str) -> str:
    """The section that requests for a host belong to: by the most specific server name that holds for it; "" for none."""
    fitting = [name for name in names if covers(name, host)]
    return names[min(fitting, key=specificity)] if fitting else ""


@table
def gateway_listeners(fetch: Fetch, key: Key) -> tuple[GatewayListener, ...]:
    """The ports that a gateway workload binds. Servers that name different addresses of one port share it on all addresses."""
    found = fetch(served, key) or Served()
    addresses: dict[int, set[str]] = {}
    plain: dict[int, GatewayChain] = {}
    for one in found.bound:
        addresses.setdefault(one.port, set()).add(one.address)
        if not one.section:
            plain[one.port] = GatewayChain(table=table_key(key, one.port))
    return tuple(
        GatewayListener(
            port=port,
            chains=(
                *((plain[port],) if port in plain else ()),
                *(chain for one in found.sections if one.port == port for chain in _chains(key, one)),
            ),
            address=next(iter(named)) if len(named) == 1 else _ANY,
        )
        for port, named in sorted(addresses.items())
    )


def _chains(key: Key, section: Section) -> Iterator[GatewayChain]:
    """A section's chain; a second one where it is for certain names and for any other too."""
    where = table_key(key, section.port, section.id)
    named = tuple(sorted(name for name in section.names if name != ANY_NAME))
    if named:
        yield GatewayChain(names=named, encrypted=True, tls=section.tls, table=where)
    if ANY_NAME in section.names:
        yield GatewayChain(encrypted=True, tls=section.tls, table=where)
