"""ServiceEntry → services: each host of one is a service of the mesh, known by its name.

One host is one service: the oldest ServiceEntry that has it says what it is (its addresses, how it is resolved, who sees it), and
younger ones of the same namespace add their ports and endpoints.
"""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Iterator

from tulle.api.istio import ServiceEntry
from tulle.api.istio.entries import ServiceEntryPort
from tulle.core.compile.exports import exports
from tulle.core.compile.hostname import Key, entry_key, full_name, is_address, tells_tls
from tulle.core.compile.mistakes import no_server_name, not_yet, sorted_problems, warning
from tulle.core.compile.objects import age, network_of, service_entries, services
from tulle.core.flow import Fetch, table
from tulle.core.model.service import PROTOCOLS, Protocol, Resolution, Service, ServicePort
from tulle.core.networks import VIRTUAL
from tulle.kit.problem import Problem

# Where services without an address of their own get one: the range of Services' virtual IPs.
RANGE = ipaddress.IPv4Network(VIRTUAL[0])

_RESOLUTIONS = {
    "STATIC": Resolution.KNOWN,
    "DNS": Resolution.DNS,
    "DNS_ROUND_ROBIN": Resolution.LOGICAL_DNS,
    "NONE": Resolution.ORIGINAL,
    "DYNAMIC_DNS": Resolution.DYNAMIC,
}


def resolution_of(row: ServiceEntry) -> Resolution:
    """How a ServiceEntry's endpoints are found."""
    return _RESOLUTIONS[row.spec.resolution]


def hosts_of(row: ServiceEntry) -> tuple[Key, ...]:
    """The services that a ServiceEntry's hosts are, each once."""
    return tuple(dict.fromkeys(entry_key(host, row.metadata.namespace) for host in row.spec.hosts))


@table
def entry_hosts(fetch: Fetch, key: Key) -> tuple[Key, ...]:
    """The services that a ServiceEntry's hosts are."""
    row = fetch(service_entries, key)
    return hosts_of(row) if row else ()


@table
def entries_of(fetch: Fetch, key: Key) -> tuple[Key, ...]:
    """The ServiceEntries that make up a service, the first of which leads; none where a Service has the name."""
    if fetch(services, key if key[0] else _as_service(key[1])) is not None:
        return ()
    rows = sorted(fetch.rows(service_entries, "host", key), key=age)
    return tuple(
        (row.metadata.namespace, row.metadata.name) for row in rows if row.metadata.namespace == rows[0].metadata.namespace
    )


def _as_service(host: str) -> Key:
    """The Service that callers would mean by a host: a name of two parts is one's, too."""
    name, _dot, namespace = host.partition(".")
    return namespace, name


@table
def entry_service(fetch: Fetch, key: Key) -> Service | None:
    """The service that a host of ServiceEntries is."""
    rows = [row for one in fetch(entries_of, key) or () if (row := fetch(service_entries, one))]
    if not rows:
        return None
    first, resolution = rows[0], resolution_of(rows[0])
    ports: dict[int, ServicePort] = {}
    for row in rows:
        for port in row.spec.ports:
            if carried(port, resolution):
                target = port.target_port or port.number
                ports.setdefault(port.number, ServicePort(port.number, port.name, _protocol(port), target))
    own = [one for one in map(network_of, first.spec.addresses) if fetch(entry_address_owner, one) == key]
    if resolution is Resolution.DYNAMIC:
        own = []  # a call that names no host has no place to go
    given = next((one for one in own if is_address(one)), "")
    return Service(
        hostname=full_name(key),
        name=key[1],
        namespace=first.metadata.namespace,
        address=given or fetch(allotted, key) or "",
        ports=tuple(ports[number] for number in sorted(ports)),
        entry=first.metadata.name,
        external=first.spec.location == "MESH_EXTERNAL",
        resolution=resolution,
        networks=tuple(one for one in own if one != given),
        export_to=exports(fetch, first),
        subject_alt_names=tuple(first.spec.subject_alt_names),
    )


def _protocol(port: ServiceEntryPort) -> Protocol:
    return PROTOCOLS.get(port.protocol.upper(), Protocol.TCP)


def carried(port: ServiceEntryPort, resolution: Resolution) -> bool:
    """Whether calls to a port go through the mesh: UDP does not, nor what names no host where that says where it goes."""
    if port.protocol.upper() == "UDP":
        return False
    protocol = _protocol(port)
    return resolution is not Resolution.DYNAMIC or protocol.is_http or protocol is Protocol.TLS


@table
def entry_address_owner(fetch: Fetch, address: str) -> Key | None:
    """Who has an address that ServiceEntries name: a Service with that virtual IP, else the first host of the oldest of them."""
    if held := fetch.keys(services, "address", address):
        return held[0]
    first = min(fetch.rows(service_entries, "address", address), key=age, default=None)
    return hosts_of(first)[0] if first else None


@table
def allotted(fetch: Fetch, key: Key) -> str | None:
    """The virtual IP that a host has because nothing gave it one."""
    return (fetch(allotments, None) or {}).get(key)


@table
def allotments(fetch: Fetch, _key: None) -> dict[Key, str]:
    """The virtual IPs of all hosts without one, for DNS to answer: TCP and TLS are told by them.

    A host's first choice follows from its name. Where Services or older ServiceEntries have that it takes the next, so that no
    host loses its address to a newer one. Wildcards have none, nor hosts whose callers must say themselves where they want to go,
    nor what sidecars do not carry: only they answer at such an address.
    """
    rows = sorted((row for key in fetch.keys(service_entries) if (row := fetch(service_entries, key))), key=age)
    wanting: dict[Key, None] = {}
    for row in rows:
        resolution = resolution_of(row)
        if resolution.has_endpoints and any(carried(port, resolution) for port in row.spec.ports):
            given = {fetch(entry_address_owner, one) for one in row.spec.addresses if is_address(one)}
            wanting |= dict.fromkeys(key for key in hosts_of(row) if key not in given and "*" not in key[1])
    found: dict[Key, str] = {}
    taken: set[str] = set()
    for key in wanting:
        place = next(
            one
            for one in _choices(key)
            if one not in taken and not fetch.keys(services, "address", one) and not fetch.keys(service_entries, "address", one)
        )
        taken.add(place)
        found[key] = place
    return found


def _choices(key: Key) -> Iterator[str]:
    seed = int.from_bytes(hashlib.sha256(full_name(key).encode()).digest()[:8], "big")
    usable = RANGE.num_addresses - 2
    return (str(RANGE[1 + (seed + step) % usable]) for step in range(usable))


@table
def service_entry_problems(fetch: Fetch, key: Key) -> tuple[Problem, ...]:
    """Hosts and addresses that are another's, and what has no effect."""
    row = fetch(service_entries, key)
    return sorted_problems(_problems(fetch, key, row)) if row else ()


def _problems(fetch: Fetch, key: Key, row: ServiceEntry) -> Iterator[Problem]:
    ref, spec = row.ref, row.spec
    tls = any(_protocol(port) is Protocol.TLS for port in spec.ports)
    for index, host in enumerate(spec.hosts):
        if tls and not spec.addresses and not tells_tls(host):
            yield no_server_name(ref, f"spec.hosts[{index}]", host)
        makers = fetch(entries_of, entry_key(host, key[0])) or ()
        if key not in makers and makers:
            other = fetch(service_entries, makers[0])
            assert other is not None
            message = (
                f"the older {other.ref} has {host}; needed one ServiceEntry, or one namespace, for a host: this one has no effect"
            )
            yield warning(ref, f"spec.hosts[{index}]", "Conflict", message)
    for index, address in enumerate(spec.addresses):
        owner = fetch(entry_address_owner, network_of(address))
        if owner is not None and owner not in hosts_of(row):
            message = f"{address} belongs to {full_name(owner)}; needed an address of its own"
            yield warning(ref, f"spec.addresses[{index}]", "DuplicateAddress", message)
    for index, port in enumerate(spec.ports):
        if port.protocol.upper() == "UDP":
            message = "UDP does not go through sidecars: its packets are sent as they are"
            yield warning(ref, f"spec.ports[{index}].protocol", "NotYetSupported", message)
        elif not carried(port, resolution_of(row)):
            message = (
                f"found {port.protocol or 'none'} with DYNAMIC_DNS; needed HTTP, HTTP2, GRPC, HTTPS or TLS, which name the host"
            )
            yield warning(ref, f"spec.ports[{index}].protocol", "NotYetSupported", f"{message}: this port has no effect")
    if spec.resolution == "DYNAMIC_DNS" and spec.addresses:
        yield not_yet(ref, "spec.addresses", "an address with DYNAMIC_DNS, whose hosts are told by their names,")
    if spec.resolution in ("NONE", "DYNAMIC_DNS") and spec.workload_selector is not None:
        yield not_yet(ref, "spec.workloadSelector", f"a selector with resolution {spec.resolution}")
