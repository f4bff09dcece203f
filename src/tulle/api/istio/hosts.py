"""Names in Istio's kinds: hosts, gateways, headers, networks."""

from __future__ import annotations

import functools
import ipaddress
import re
from collections.abc import Iterator, Sequence

from tulle.api.fault import Fault
from tulle.api.list_types import UNIQUE
from tulle.api.values import HEADER_NAME

_PART = "[a-zA-Z0-9]([-a-zA-Z0-9_]{0,61}[a-zA-Z0-9_])?"
_HOST = re.compile(rf"(\*|(\*\.)?{_PART}(\.{_PART})*|\*[-a-zA-Z0-9_]*(\.{_PART})*)\.?")
_LABEL = re.compile("[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_GATEWAY = re.compile(r"([a-z0-9]([-a-z0-9]*[a-z0-9])?/)?[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_HEADER = re.compile(HEADER_NAME)


def is_ip(text: str) -> bool:
    """Whether the text is an IPv4 or IPv6 address."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def is_subnet(text: str) -> bool:
    """Whether the text is an address or a network such as `10.0.0.0/8`."""
    try:
        ipaddress.ip_network(text, strict=False)
    except ValueError:
        return False
    return True


@functools.lru_cache(4096)  # a mesh names few hosts, again and again
def is_host(text: str) -> bool:
    """Whether the text is a host name, which may start with a wildcard."""
    return len(text) <= 255 and bool(_HOST.fullmatch(text))


def host_fault(host: str, *at: str | int) -> Iterator[Fault]:
    """A host that requests are for: a name (perhaps with a leading wildcard) or an address."""
    if not is_host(host) and not is_ip(host):
        yield Fault(at, f'found "{host}"; needed a host name such as "reviews" or "*.example.com"', "BadHost")


def destination_fault(host: str) -> Iterator[Fault]:
    """A host that requests are sent to; one with a wildcard is the host of a ServiceEntry, as it stands there."""
    if host == "*" or not is_host(host):
        yield Fault(("host",), f'found "{host}"; needed the host name of a service, such as "reviews"', "BadHost")


def gateway_name_fault(name: str, *at: str | int) -> Iterator[Fault]:
    """`mesh`, `name` or `namespace/name`; Istio's older `name.namespace.svc.cluster.local` too."""
    if not _GATEWAY.fullmatch(name):
        yield Fault(at, f'found "{name}"; needed a Gateway as "name" or "namespace/name", or "mesh"', "BadName")


def header_name_fault(name: str, *at: str | int) -> Iterator[Fault]:
    """A header's name, or a pseudo-header's (`:authority`)."""
    if not _HEADER.match(name.removeprefix(":")):
        yield Fault(at, f'found "{name}"; needed a header name', "BadName")


def subnet_fault(subnet: str, *at: str | int) -> Iterator[Fault]:
    """An address or a network."""
    if not is_subnet(subnet):
        yield Fault(at, f'found "{subnet}"; needed an IP address or a network such as "10.0.0.0/8"')


def export_to_faults(namespaces: Sequence[str]) -> Iterator[Fault]:
    """`.` (this namespace), `*` (all), `~` (none) or names of namespaces."""
    for index, namespace in enumerate(namespaces):
        if namespace not in (".", "*", "~") and not _LABEL.fullmatch(namespace):
            yield Fault(("exportTo", index), f'found "{namespace}"; needed ".", "*", "~" or the name of a namespace', "BadName")
    yield from UNIQUE.below(namespaces, "exportTo")
    if len(namespaces) > 1 and ("*" in namespaces or "~" in namespaces):
        yield Fault(("exportTo",), 'found "*" or "~" beside others; needed it alone')
