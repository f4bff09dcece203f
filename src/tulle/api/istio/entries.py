"""WorkloadEntry and ServiceEntry: instances and services that no platform registered."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from tulle.api.istio.hosts import export_to_faults, host_fault, is_host, is_ip, is_subnet
from tulle.api.istio.status import IstioStatus
from tulle.api.list_types import keyed
from tulle.api.object import Fault, Object, Ruled
from tulle.api.rules import distinct
from tulle.api.values import Many, Map, UInt32

_LONGEST_PATH = 107  # what Linux takes for a Unix socket
_PORT_NAME = re.compile("[a-zA-Z0-9](?:[-a-zA-Z0-9]*[a-zA-Z0-9])?")


class WorkloadEntrySpec(Ruled):
    """One instance: how callers reach it, its labels and its identity."""

    address: Annotated[str, Field(max_length=256)] = ""
    ports: Annotated[Map[UInt32], Field(max_length=128)] = Field(default_factory=dict)
    labels: Annotated[Map[str], Field(max_length=256)] = Field(default_factory=dict)
    network: Annotated[str, Field(max_length=2048)] = ""
    locality: Annotated[str, Field(max_length=2048)] = ""
    weight: UInt32 | None = None
    service_account: Annotated[str, Field(max_length=253)] = ""

    def faults(self) -> Iterator[Fault]:
        """An address or a network; named ports."""
        if not self.address and not self.network and self.needs_address():
            yield Fault(("address",), "found nothing; needed an IP address or a host name (or network)", "Required")
        yield from endpoint_faults(self)

    def needs_address(self) -> bool:
        """Whether an address must be there."""
        return True


def endpoint_faults(endpoint: WorkloadEntrySpec) -> Iterator[Fault]:
    """Mistakes in an address or its ports."""
    address = endpoint.address
    if address.startswith("unix://"):
        path = address.removeprefix("unix://")
        if not path.startswith(("/", "@")) or path.endswith("/"):
            yield Fault(("address",), f'found "{address}"; needed an absolute path of a socket after unix://')
        elif len(path.encode()) > _LONGEST_PATH:
            yield Fault(("address",), f"found a path of {len(path.encode())} bytes; needed at most {_LONGEST_PATH} for a socket")
        if "ports" in endpoint.model_fields_set:
            yield Fault(("ports",), "found ports of a Unix socket; needed none", "OneOf")
    elif address and not is_ip(address) and (not is_host(address) or "*" in address):
        yield Fault(("address",), f'found "{address}"; needed an IP address or a host name')
    for name, port in endpoint.ports.items():
        if len(name) > 62 or not _PORT_NAME.fullmatch(name):
            yield Fault(("ports", name), f'found "{name}" as a port\'s name; needed letters, digits and dashes', "BadName")
        if not 1 <= port <= 65535:
            yield Fault(("ports", name), f"found {port}; needed a port from 1 to 65535")


class WorkloadEntry(Object):
    """Istio's WorkloadEntry. The annotations that the mesh reads stand in `docs/architecture.md`."""

    kind: Literal["WorkloadEntry"] = "WorkloadEntry"
    spec: WorkloadEntrySpec
    status: IstioStatus | None = None


class ServiceEntryPort(Ruled):
    """A port of a service."""

    number: UInt32
    name: Annotated[str, Field(max_length=256)]
    protocol: Annotated[str, Field(max_length=256)] = ""
    target_port: UInt32 | None = None

    def faults(self) -> Iterator[Fault]:
        """Port numbers and a name."""
        for field, port in (("number", self.number), ("targetPort", self.target_port)):
            if port is not None and not 1 <= port <= 65535:
                yield Fault((field,), f"found {port}; needed a port from 1 to 65535")
        if not _PORT_NAME.fullmatch(self.name):
            yield Fault(("name",), f'found "{self.name}"; needed a name of letters, digits and dashes', "BadName")
        known = ("HTTP", "HTTPS", "GRPC", "GRPC-WEB", "HTTP2", "MONGO", "REDIS", "MYSQL", "TCP", "TLS", "UDP", "")
        if self.protocol.upper() not in known:
            yield Fault(("protocol",), f'found "{self.protocol}"; needed one of {", ".join(known[:-1])}', "BadEnum")


class LabelSelector(Ruled):
    """Workloads by their labels."""

    labels: Annotated[Map[Annotated[str, Field(max_length=63)]], Field(max_length=256)] = Field(default_factory=dict)

    def faults(self) -> Iterator[Fault]:
        """Labels are compared as they stand."""
        for key, value in self.labels.items():
            if "*" in value:
                yield Fault(("labels", key), f'found "{value}"; needed a label without wildcards')
            if not key:
                yield Fault(("labels",), "found an empty key; needed a label's name")


class ServiceEntrySpec(Ruled):
    """A service that callers name by one of `hosts`."""

    hosts: Annotated[Many[str], Field(min_length=1, max_length=256)]
    addresses: Annotated[Many[Annotated[str, Field(max_length=64)]], Field(max_length=256)] = ()
    ports: Annotated[Many[ServiceEntryPort], Field(max_length=256), keyed("name")] = ()
    location: Literal["MESH_EXTERNAL", "MESH_INTERNAL"] = "MESH_EXTERNAL"
    resolution: Literal["NONE", "STATIC", "DNS", "DNS_ROUND_ROBIN", "DYNAMIC_DNS"] = "NONE"
    endpoints: Annotated[Many[WorkloadEntrySpec], Field(max_length=4096)] = ()
    workload_selector: LabelSelector | None = None
    export_to: Many[str] = ()
    subject_alt_names: Many[str] = ()

    def faults(self) -> Iterator[Fault]:
        """Hosts, ports and addresses that fit together."""
        yield from self._host_faults()
        yield from distinct(self.ports, lambda port: port.number, ("ports",), "number")
        if self.workload_selector is not None and "endpoints" in self.model_fields_set:
            yield Fault((), "found endpoints and workloadSelector; needed at most one of the two", "OneOf")
        yield from self._resolution_faults()
        yield from export_to_faults(self.export_to)

    def _host_faults(self) -> Iterator[Fault]:
        for index, host in enumerate(self.hosts):
            if host == "*":
                yield Fault(("hosts", index), 'found "*"; needed a host name, or a name such as "*.example.com"', "BadHost")
            else:
                yield from host_fault(host, "hosts", index)
        for index, address in enumerate(self.addresses):
            if not is_subnet(address):
                yield Fault(("addresses", index), f'found "{address}"; needed an IP address or a network such as "10.0.0.0/8"')
            elif "/" in address and self.resolution not in ("NONE", "STATIC"):
                yield Fault(("addresses", index), f'found the network "{address}" with {self.resolution}; needed an address')

    def _resolution_faults(self) -> Iterator[Fault]:
        if self.resolution == "NONE" and "endpoints" in self.model_fields_set:
            yield Fault(("endpoints",), "found endpoints with resolution NONE; needed STATIC or DNS, or no endpoints", "OneOf")
        ports = {port.name for port in self.ports}
        for index, endpoint in enumerate(self.endpoints):
            for name in endpoint.ports:
                if self.ports and name not in ports:
                    message = f'found "{name}", which no port of the service has; needed one of {", ".join(sorted(ports))}'
                    yield Fault(("endpoints", index, "ports", name), message, "BadName")
            if (
                self.resolution == "STATIC"
                and endpoint.address
                and not endpoint.address.startswith("unix://")
                and not is_ip(endpoint.address)
            ):
                yield Fault(
                    ("endpoints", index, "address"),
                    f'found "{endpoint.address}"; needed an IP address, for the resolution is STATIC',
                )
        if self.resolution in ("DNS", "DNS_ROUND_ROBIN") and not self.endpoints:
            for index, host in enumerate(self.hosts):
                if host.startswith("*"):
                    message = f'found "{host}" with {self.resolution}; needed a whole name, or endpoints'
                    yield Fault(("hosts", index), message, "BadHost")
        if self.resolution == "DNS_ROUND_ROBIN" and len(self.endpoints) > 1:
            yield Fault(("endpoints",), f"found {len(self.endpoints)} with DNS_ROUND_ROBIN; needed at most one")
        if self.resolution == "DYNAMIC_DNS":
            if not all(host.startswith("*.") for host in self.hosts):
                yield Fault(("hosts",), 'found a whole name with DYNAMIC_DNS; needed names such as "*.example.com"', "BadHost")
            if self.endpoints:
                yield Fault(("endpoints",), "found endpoints with DYNAMIC_DNS; needed none", "OneOf")


class ServiceEntry(Object):
    """Istio's ServiceEntry."""

    kind: Literal["ServiceEntry"] = "ServiceEntry"
    spec: ServiceEntrySpec
    status: IstioStatus | None = None
