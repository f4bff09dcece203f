"""EndpointSlices: addresses behind a Service that another hand than the mesh's keeps, beside the workloads that it selects.

As in Kubernetes, a slice belongs to the Service of its namespace that its label names, and its ports are those of the Service by
name. An endpoint that is not ready takes no calls, unless none is ready: then those that still serve do. Where an address is that
of one workload of the namespace, the endpoint is that workload, with its identity, labels and sidecar.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import msgspec

from tulle.api.endpoint_slice import Endpoint, EndpointSlice
from tulle.api.kubernetes import Service as ServiceObject
from tulle.core.compile.hostname import Key
from tulle.core.compile.mistakes import meant, not_yet, sorted_problems, warning
from tulle.core.compile.objects import SERVICE_NAME, ZONE, endpoint_slices, services
from tulle.core.flow import Fetch, table
from tulle.core.model.service import ServicePort
from tulle.kit.problem import Problem


class Written(msgspec.Struct, frozen=True):
    """An endpoint as a slice has it: `ports` by the names of the Service's, `serves` their numbers there."""

    address: str
    ports: Mapping[str, int]
    serves: tuple[int, ...]
    topology: Mapping[str, str]
    ready: bool


def written(fetch: Fetch, key: Key, named: Sequence[ServicePort], transport: str = "TCP") -> Iterator[Written]:
    """The endpoints in the slices of a Service, for its ports of a transport."""
    found = [
        (one, endpoint, ports)
        for one in fetch.rows(endpoint_slices, "service", key)
        if one.address_type != "FQDN" and (ports := _ports(one, named, transport))
        for endpoint in one.endpoints
    ]
    anybody = any(_ready(endpoint) for _one, endpoint, _ports in found)
    for _one, endpoint, ports in found:
        zone = {ZONE: endpoint.zone} if endpoint.zone else {}
        yield Written(
            # Further addresses are the same instance once more.
            address=endpoint.addresses[0],
            ports=ports,
            serves=tuple(port.number for port in named if port.name in ports),
            topology={**endpoint.deprecated_topology, **zone},
            ready=_ready(endpoint) if anybody else bool(endpoint.conditions.serving),
        )


def _ready(endpoint: Endpoint) -> bool:
    return endpoint.conditions.ready is not False


def _ports(one: EndpointSlice, named: Sequence[ServicePort], transport: str) -> dict[str, int]:
    names = {port.name for port in named}
    return {port.name: port.port for port in one.ports if port.protocol == transport and port.port and port.name in names}


@table
def endpoint_slice_problems(fetch: Fetch, key: Key) -> tuple[Problem, ...]:
    """A Service that is not there, ports that it does not have, and what has no effect."""
    row = fetch(endpoint_slices, key)
    return sorted_problems(_problems(fetch, key, row)) if row else ()


def _problems(fetch: Fetch, key: Key, row: EndpointSlice) -> Iterator[Problem]:
    name = row.metadata.labels.get(SERVICE_NAME, "")
    of = fetch(services, (key[0], name)) if name else None
    if of is None:
        near = meant(name, (other for _space, other in fetch.keys(services, "namespace", key[0])))
        found = f"no Service {name} in namespace {key[0]}{near}" if name else f"no label {SERVICE_NAME}"
        path = f"metadata.labels[{SERVICE_NAME}]"
        yield warning(row.ref, path, "NoServiceOfSlice", f"{found}; needed the Service whose endpoints these are")
    if row.address_type == "FQDN":
        yield not_yet(row.ref, "addressType", "FQDN")
    for index, port in enumerate(row.ports):
        path = f"ports[{index}]"
        if port.protocol == "SCTP":
            yield not_yet(row.ref, f"{path}.protocol", f"{port.protocol} through the mesh")
        elif port.port is None:
            yield not_yet(row.ref, path, "a port without a number")
        elif of is not None and port.name not in _names(of, port.protocol):
            names = ", ".join(f'"{one}"' for one in _names(of, port.protocol)) or "it has none"
            message = f'found "{port.name}"; needed the name of a {port.protocol} port of Service {name}: {names}'
            yield warning(row.ref, f"{path}.name", "NoPortOfSlice", message)
    for index, endpoint in enumerate(row.endpoints):
        if endpoint.hints and (endpoint.hints.for_zones or endpoint.hints.for_nodes):
            yield not_yet(row.ref, f"endpoints[{index}].hints")
        if endpoint.hostname:
            yield not_yet(row.ref, f"endpoints[{index}].hostname", "a name of its own for an endpoint")


def _names(row: ServiceObject, transport: str) -> list[str]:
    return [one.name or "" for one in row.spec.ports if one.protocol == transport]
