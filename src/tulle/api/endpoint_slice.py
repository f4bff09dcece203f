"""Kubernetes' EndpointSlice: addresses behind a Service that another hand than the mesh's keeps."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Annotated, Literal

from pydantic import Field

from tulle.api.kubernetes import ObjectReference
from tulle.api.list_types import UNIQUE
from tulle.api.object import Fault, Object, Ruled, Schema
from tulle.api.rules import distinct
from tulle.api.values import DNS_LABEL, DNS_SUBDOMAIN, WORDS, Defaulted, Int32, Many, Map

_SUBDOMAIN = re.compile(DNS_SUBDOMAIN)
_QUALIFIED = re.compile(
    r"([a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?"
)
_LINK_LOCAL_MULTICAST = (ipaddress.ip_network("224.0.0.0/24"), ipaddress.ip_network("ff02::/16"))


class EndpointConditions(Schema):
    """Whether an endpoint takes calls. What is not written counts as ready."""

    ready: bool | None = None
    serving: bool | None = None
    terminating: bool | None = None


class ForZone(Schema):
    """A zone for whose callers an endpoint is."""

    name: str


class ForNode(Schema):
    """A node for whose callers an endpoint is."""

    name: str


class EndpointHints(Schema):
    """For whose calls an endpoint is best."""

    for_zones: Annotated[Many[ForZone], Field(max_length=8)] = ()
    for_nodes: Annotated[Many[ForNode], Field(max_length=8)] = ()


class Endpoint(Schema):
    """One instance, by its addresses (which are all the same instance)."""

    addresses: Annotated[Many[str], Field(min_length=1, max_length=100), UNIQUE]
    conditions: EndpointConditions = Field(default_factory=EndpointConditions)
    hostname: Annotated[str, Field(pattern=DNS_LABEL, max_length=63)] | None = None
    target_ref: ObjectReference | None = None
    deprecated_topology: Annotated[Map[str], Field(max_length=16)] = Field(default_factory=dict)
    node_name: Annotated[str, Field(pattern=DNS_SUBDOMAIN, max_length=253)] | None = None
    zone: str | None = None
    hints: EndpointHints | None = None


class EndpointPort(Ruled):
    """A port of all endpoints of the slice; all ports where it has no number."""

    name: Defaulted[str] = ""
    protocol: Defaulted[Literal["TCP", "UDP", "SCTP"]] = "TCP"
    port: Int32 | None = None
    app_protocol: str | None = None

    def faults(self) -> Iterator[Fault]:
        """A port number and names."""
        if self.port is not None and not 1 <= self.port <= 65535:
            yield Fault(("port",), f"found {self.port}; needed a port from 1 to 65535", "OutOfRange")
        if self.name and (len(self.name) > 63 or not re.fullmatch(DNS_LABEL, self.name)):
            yield Fault(("name",), f'found "{self.name}"; needed {WORDS[DNS_LABEL]}', "BadName")
        if self.app_protocol and not _QUALIFIED.fullmatch(self.app_protocol):
            message = f'found "{self.app_protocol}"; needed a name such as "http" or "example.com/protocol"'
            yield Fault(("appProtocol",), message, "BadName")


class EndpointSlice(Object, Ruled):
    """Some of the endpoints of the Service that the label `kubernetes.io/service-name` names."""

    kind: Literal["EndpointSlice"] = "EndpointSlice"
    address_type: Literal["IPv4", "IPv6", "FQDN"]
    endpoints: Annotated[Many[Endpoint], Field(max_length=1000)] = ()
    ports: Annotated[Many[EndpointPort], Field(max_length=20_000)] = ()

    def faults(self) -> Iterator[Fault]:
        """Addresses of the type, ports with names of their own."""
        yield from distinct(self.ports, lambda port: port.name, ("ports",), "name")
        for index, endpoint in enumerate(self.endpoints):
            for number, address in enumerate(endpoint.addresses):
                if needed := _NEEDED[self.address_type](address):
                    yield Fault(("endpoints", index, "addresses", number), f'found "{address}"; needed {needed}', "BadAddress")


def _address(text: str, version: int) -> str:
    try:
        parsed = ipaddress.ip_address(text)
    except ValueError:
        return f"an IPv{version} address"
    if parsed.version != version:
        return f"an IPv{version} address, for the addressType is IPv{version}"
    for special, name in (
        (parsed.is_unspecified, "unspecified"),
        (parsed.is_loopback, "loopback"),
        (parsed.is_link_local or any(parsed in network for network in _LINK_LOCAL_MULTICAST), "link-local"),
    ):
        if special:
            return f"an address that other hosts can reach ({name} addresses are not)"
    return ""


def _domain(text: str) -> str:
    name = text.removesuffix(".")
    return "" if "." in name and len(name) <= 253 and _SUBDOMAIN.fullmatch(name) else "a DNS name with at least one dot"


_NEEDED: Mapping[str, Callable[[str], str]] = {
    "IPv4": lambda text: _address(text, 4),
    "IPv6": lambda text: _address(text, 6),
    "FQDN": _domain,
}
