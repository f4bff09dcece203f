"""The registry: every service of the mesh by its host name, with its virtual IP and what is spoken on its ports.

A Service object is one; the others are hosts of ServiceEntries (`service_entries`). Where both have a name, it is the Service's.
"""

from __future__ import annotations

from collections.abc import Iterator

from tulle.api.istio.hosts import export_to_faults
from tulle.api.kubernetes import Service as ServiceObject
from tulle.api.kubernetes import ServicePort as PortObject
from tulle.core.compile.exports import EXPORT_TO, exports, said_exports
from tulle.core.compile.hostname import Key, full_name, is_address, meanings
from tulle.core.compile.mistakes import error, not_yet, sorted_problems, unsaid, warning
from tulle.core.compile.objects import age, service_entries, services
from tulle.core.compile.service_entries import entry_hosts, entry_service
from tulle.core.flow import Fetch, table
from tulle.core.model.destination import DestinationKey
from tulle.core.model.service import Protocol, Service, ServicePort
from tulle.kit.problem import Problem

# Words of `appProtocol` and prefixes of a port's name (before its first "-"), as Istio reads them.
_PROTOCOLS = {
    "http": Protocol.HTTP,
    "http2": Protocol.HTTP2,
    "h2c": Protocol.HTTP2,
    "kubernetes.io/h2c": Protocol.HTTP2,
    "kubernetes.io/ws": Protocol.HTTP,
    "grpc": Protocol.GRPC,
    "grpc-web": Protocol.HTTP,
    "https": Protocol.TLS,
    "kubernetes.io/wss": Protocol.TLS,
    "tls": Protocol.TLS,
    "tcp": Protocol.TCP,
    "mongo": Protocol.TCP,
    "mysql": Protocol.TCP,
    "redis": Protocol.TCP,
}


# Fields that are acted on, or of which `_outside` speaks.
_SAID = (
    "selector",
    "ports",
    "type",
    "cluster_ip",
    "cluster_ips",
    "ip_families",
    "ip_family_policy",
    "session_affinity",
    "session_affinity_config",
    "internal_traffic_policy",
    "external_traffic_policy",
    "allocate_load_balancer_node_ports",
    "external_name",
)


def protocol_of(port: PortObject) -> Protocol:
    """What is spoken on a port: by `appProtocol`, else by the port's name; AUTO where neither says."""
    if port.app_protocol:
        return _PROTOCOLS.get(port.app_protocol.lower(), Protocol.AUTO)
    name = (port.name or "").lower()
    if name.startswith("grpc-web"):
        return Protocol.HTTP
    return _PROTOCOLS.get(name.partition("-")[0], Protocol.AUTO)


def _ports(row: ServiceObject, transport: str = "TCP") -> tuple[ServicePort, ...]:
    return tuple(
        ServicePort(
            number=port.port,
            name=port.name or "",
            protocol=protocol_of(port),
            target=port.target_port if port.target_port not in (None, "", 0) else port.port,
        )
        for port in row.spec.ports
        if port.protocol == transport
    )


@table
def service(fetch: Fetch, key: Key) -> Service | None:
    """A service as callers see it; an alias (ExternalName) is none."""
    row = fetch(services, key) if key[0] else None
    if row is None:  # of names that nobody has there are many: they are asked for no more than that
        return fetch(entry_service, key) if fetch.keys(service_entries, "host", key) else None
    if row.spec.type == "ExternalName":
        return None
    own = [one for one in _claimed(row) if fetch(address_owner, one) == key]
    address, address6 = (next((one for one in own if (":" in one) is six), "") for six in (False, True))
    ports, udp = _ports(row), _ports(row, "UDP")
    return Service(full_name(key), key[1], key[0], address, ports, export_to=exports(fetch, row), address6=address6, udp=udp)


def called(fetch: Fetch, host: str, namespace: str) -> Key | None:
    """The service that a host means to an object of `namespace`, be it there or not; None for an address."""
    found = meanings(host, namespace)
    return next((key for key in found if fetch(service, key)), found[0] if found else None)


def named_at(fetch: Fetch, goal: DestinationKey) -> int:
    """See `WeightedDestination.named_at`."""
    key = called(fetch, goal.hostname, "")
    row = fetch(service, key) if key else None
    return row.named_at(goal.port) if row else 0


@table
def registry(fetch: Fetch, _key: None) -> tuple[Key, ...]:
    """All services that there are."""
    hosts = {host for key in fetch.keys(service_entries) for host in fetch(entry_hosts, key) or ()}
    known: tuple[Key, ...] = fetch.keys(services)
    return (*known, *sorted(hosts.difference(known)))


def _claimed(row: ServiceObject) -> list[str]:
    """The virtual IPs that a Service asks for: `clusterIP`, and of `clusterIPs` the one of the other family."""
    first = row.spec.cluster_ip
    if not is_address(first):
        return []
    other = (one for one in row.spec.cluster_ips if is_address(one) and (":" in one) is not (":" in first))
    return [first, *([found] if (found := next(other, "")) else [])]


@table
def address_owner(fetch: Fetch, address: str) -> Key | None:
    """Who has a virtual IP: the oldest Service that claims it."""
    claims = fetch.rows(services, "address", address)
    first = min(claims, key=age, default=None)
    return (first.metadata.namespace, first.metadata.name) if first else None


@table
def service_problems(fetch: Fetch, key: Key) -> tuple[Problem, ...]:
    """What a Service says that has no effect, and a virtual IP that is another's."""
    row = fetch(services, key)
    if row is None:
        return ()
    return sorted_problems(_problems(fetch, key, row))


def _problems(fetch: Fetch, key: Key, row: ServiceObject) -> Iterator[Problem]:
    yield from unsaid(row.ref, row.spec, "spec", _SAID)
    yield from _outside(row)
    for fault in export_to_faults(said_exports(row)):
        yield error(row.ref, f"metadata.annotations[{EXPORT_TO}]", "BadAnnotation", fault.message)
    if row.spec.session_affinity != "None":
        yield not_yet(row.ref, "spec.sessionAffinity")
    for index, port in enumerate(row.spec.ports):
        if port.protocol == "SCTP":
            message = "SCTP does not go through sidecars: its packets are sent as they are"
            yield warning(row.ref, f"spec.ports[{index}].protocol", "NotYetSupported", message)
    for address in _claimed(row):
        if (owner := fetch(address_owner, address)) not in (None, key):
            assert owner is not None
            message = f"{address} is the virtual IP of the older Service {owner[0]}/{owner[1]}; needed an address of its own"
            field = "spec.clusterIP" if address == row.spec.cluster_ip else "spec.clusterIPs"
            yield warning(row.ref, field, "DuplicateAddress", message)


def _outside(row: ServiceObject) -> Iterator[Problem]:
    """How Kubernetes exposes a Service beyond the mesh, and over which addresses: nobody does it here. Defaults say nothing."""
    spec = row.spec
    if spec.type != "ClusterIP":
        yield not_yet(row.ref, "spec.type", spec.type)
    for name, policy in (
        ("externalTrafficPolicy", spec.external_traffic_policy),
        ("internalTrafficPolicy", spec.internal_traffic_policy),
    ):
        if policy == "Local":
            yield not_yet(row.ref, f"spec.{name}", policy)
    claimed = _claimed(row)
    for index, address in enumerate(spec.cluster_ips):
        if address != spec.cluster_ip and address not in claimed:
            yield not_yet(row.ref, f"spec.clusterIPs[{index}]", "an address beside clusterIP")
    for index, port in enumerate(spec.ports):
        if port.node_port:
            yield not_yet(row.ref, f"spec.ports[{index}].nodePort")
