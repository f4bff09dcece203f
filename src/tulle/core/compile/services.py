"""Service → `model.Service`: its full name, its virtual IP, and what is spoken on its ports."""

from __future__ import annotations

from collections.abc import Iterator

from tulle.api.kubernetes import Service as ServiceObject
from tulle.api.kubernetes import ServicePort as PortObject
from tulle.core.compile.hostname import Key, full_name, is_address
from tulle.core.compile.mistakes import not_yet, sorted_problems, unsaid, warning
from tulle.core.compile.objects import age, services
from tulle.core.flow import Fetch, table
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


def _ports(row: ServiceObject) -> tuple[ServicePort, ...]:
    return tuple(
        ServicePort(
            number=port.port,
            name=port.name or "",
            protocol=protocol_of(port),
            target=port.target_port if port.target_port not in (None, "", 0) else port.port,
        )
        for port in row.spec.ports
        if port.protocol == "TCP"
    )


@table
def service(fetch: Fetch, key: Key) -> Service | None:
    """The Service as callers see it; an alias (ExternalName) is none."""
    row = fetch(services, key)
    if row is None or row.spec.type == "ExternalName":
        return None
    address = row.spec.cluster_ip
    if not is_address(address) or fetch(address_owner, address) != key:
        address = ""
    return Service(hostname=full_name(key), name=key[1], namespace=key[0], address=address, ports=_ports(row))


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
    if row.spec.session_affinity != "None":
        yield not_yet(row.ref, "spec.sessionAffinity")
    for index, port in enumerate(row.spec.ports):
        if port.protocol != "TCP":
            yield not_yet(row.ref, f"spec.ports[{index}].protocol", f"{port.protocol} through the mesh")
    address = row.spec.cluster_ip
    if is_address(address) and (owner := fetch(address_owner, address)) not in (None, key):
        assert owner is not None
        message = f"{address} is the virtual IP of the older Service {owner[0]}/{owner[1]}; needed an address of its own"
        yield warning(row.ref, "spec.clusterIP", "DuplicateAddress", message)


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
    if spec.ip_family_policy not in (None, "SingleStack"):
        yield not_yet(row.ref, "spec.ipFamilyPolicy", spec.ip_family_policy)
    for index, family in enumerate(spec.ip_families):
        if family != "IPv4":
            yield not_yet(row.ref, f"spec.ipFamilies[{index}]", family)
    for index, address in enumerate(spec.cluster_ips):
        if address != spec.cluster_ip:
            yield not_yet(row.ref, f"spec.clusterIPs[{index}]", "an address beside clusterIP")
    for index, port in enumerate(spec.ports):
        if port.node_port:
            yield not_yet(row.ref, f"spec.ports[{index}].nodePort")
