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
from tulle.core.compile.hostname import Key, covers, specificity, tells_tls
from tulle.core.compile.http3 import asks_http3, no_http3
from tulle.core.compile.listeners import gateway_fault, verdicts_of
from tulle.core.compile.objects import age, gateways, istio_gateways, listener_sets, selects
from tulle.core.compile.places import places
from tulle.core.flow import Fetch, table
from tulle.core.model.gateway import ServerTls
from tulle.core.model.route import RouteTableKey

HTTP = ("HTTP", "HTTP2", "GRPC", "GRPC-WEB")
TCP = ("TCP", "MONGO", "REDIS", "MYSQL")
ANY_ADDRESS = "0.0.0.0"  # noqa: S104 - a gateway is there to be reached
ANY_NAME = "*"


class Bound(msgspec.Struct, frozen=True, order=True):
    """A server or listener (by its index, or place) of a Gateway, bound to a port. `istio` tells the two APIs apart.

    `section` is where its requests are routed: "" for plain HTTP. `redirect`: plain requests are sent to HTTPS instead.
    """

    port: int
    istio: bool
    gateway: Key
    index: int
    address: str = ANY_ADDRESS
    section: str = ""
    redirect: bool = False


class Section(msgspec.Struct, frozen=True):
    """TLS that ends at a port of a gateway workload, for those server `names` that no older Gateway has.

    `http3` is the port, as clients know it, where HTTP/3 is spoken too; 0 where it is not.
    """

    port: int
    id: str
    names: tuple[str, ...]
    tls: ServerTls
    http3: int = 0


class Bytes(msgspec.Struct, frozen=True):
    """A server or listener that forwards bytes: TCP, or TLS for certain server `names`, which ends here where `tls` is.

    `by_itself`: mutual TLS of the mesh is passed on to the services of these names, without a rule.
    """

    bound: Bound
    encrypted: bool = False
    names: tuple[str, ...] = ()
    tls: ServerTls | None = None
    by_itself: bool = False


class Served(msgspec.Struct, frozen=True):
    """All that a gateway workload serves. `tcp` has the oldest first; `plain` are the ports where what is not TLS is HTTP."""

    bound: tuple[Bound, ...] = ()
    sections: tuple[Section, ...] = ()
    tcp: tuple[Bytes, ...] = ()
    plain: tuple[int, ...] = ()


def serves(server: Server) -> bool:
    """Whether a server of Istio's Gateway is one with HTTP routes that the model can say."""
    if server.bind.startswith("unix://"):
        return False
    protocol = server.port.protocol.upper()
    return protocol in HTTP or (protocol == "HTTPS" and istio_tls.ends(server))


def forwards(server: Server) -> bool:
    """Whether a server of Istio's Gateway is one that forwards bytes, by VirtualServices' `tls` and `tcp`."""
    if server.bind.startswith("unix://") or serves(server):
        return False
    passes = istio_tls.passes(server) or istio_tls.passes_by_itself(server)
    return passes or server.port.protocol.upper() in TCP or istio_tls.ends(server)


class _Candidate(msgspec.Struct, frozen=True):
    """Something bound, before it is known who has which server name. `tls` is None for plain HTTP.

    `forwards` is there where bytes are forwarded instead.
    """

    age: tuple[str, str, str]
    bound: Bound
    id: str = ""
    names: tuple[str, ...] = ()
    tls: ServerTls | None = None
    forwards: Bytes | None = None
    http3: int = 0


@table
def served(fetch: Fetch, key: Key) -> Served:
    """Everything that a gateway workload serves, by port."""
    found: list[Bound] = []
    sections: list[Section] = []
    forwarded: list[Bytes] = []
    owner: dict[tuple[int, str], str] = {}
    plain: dict[int, bool] = {}  # whether what is not TLS on a port is HTTP
    candidates = [*_servers(fetch, key), *_listeners(fetch, key)]
    for one in sorted(candidates, key=lambda one: (one.age, one.bound)):
        port = one.bound.port
        if one.forwards is not None:
            if one.forwards.encrypted or not plain.setdefault(port, False):
                forwarded.append(one.forwards)
        elif one.tls is None:
            if plain.setdefault(port, True):
                found.append(one.bound)
        else:
            free = tuple(name for name in one.names if (port, name) not in owner)
            if free:
                owner |= dict.fromkeys(((port, name) for name in free), one.id)
                sections.append(Section(port, one.id, free, one.tls, one.http3))
            section = one.id if free else owner[port, one.names[0]]
            found.append(msgspec.structs.replace(one.bound, section=section))
    return Served(
        tuple(sorted(found)),
        tuple(sorted(sections, key=lambda one: (one.port, one.id))),
        tuple(forwarded),
        tuple(sorted(port for port, http in plain.items() if http)),
    )


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
            if not serves(server) and not forwards(server):
                continue
            redirect = server.tls is not None and server.tls.https_redirect
            one = Bound(
                bound_port(fetch, key, server.port.number), True, name, index, server.bind or ANY_ADDRESS, redirect=redirect
            )
            hosts = tuple(dict.fromkeys(host.rpartition("/")[2].lower() for host in server.hosts))
            tls = istio_tls.server_tls(fetch, server, key[0]) if istio_tls.ends(server) else None
            if istio_tls.ends(server) and tls is None:
                continue  # it has no certificate
            if tls is not None and not (hosts := tuple(filter(tells_tls, hosts))):
                continue
            if forwards(server):
                encrypted = server.port.protocol.upper() not in TCP
                yield _Candidate(
                    age(row),
                    one,
                    forwards=Bytes(one, encrypted, hosts if encrypted else (), tls, istio_tls.passes_by_itself(server)),
                )
            elif tls is None:
                yield _Candidate(age(row), one)
            else:
                section = f"{server.port.name}~{name[1]}~{name[0]}~istio"
                http3 = server.port.number if asks_http3(row) and not no_http3(fetch, key, tls) else 0
                yield _Candidate(age(row), one, section, hosts, tls, http3=http3)


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
            place = there[index]
            if not verdict.bound or place.listener.protocol == "UDP":
                continue
            one = Bound(bound_port(fetch, key, place.listener.port), False, name, index)
            hostname = place.listener.hostname or ANY_NAME
            if place.listener.protocol in ("TCP", "TLS"):
                encrypted = place.listener.protocol == "TLS"
                yield _Candidate(age(row), one, forwards=Bytes(one, encrypted, (hostname,) if encrypted else (), verdict.tls))
                continue
            if verdict.tls is None:
                yield _Candidate(age(row), one)
                continue
            kind = "" if place.set is None else "~set"
            section = f"{place.listener.name}~{place.owner[1]}~{place.owner[0]}{kind}"
            owner = row if place.set is None else fetch(listener_sets, place.set)
            http3 = place.listener.port if asks_http3(owner) and not no_http3(fetch, key, verdict.tls) else 0
            yield _Candidate(age(row), one, section, (hostname,), verdict.tls, http3=http3)


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
