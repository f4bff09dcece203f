"""Which of a workload's TCP connections go through its sidecar: Istio's `traffic.sidecar.istio.io/*` annotations, read.

`read` is the only way in, and what it lets through is numbers, networks and names of interfaces in their one spelling: the
node's firewall rules are made of nothing else, whatever somebody writes into an annotation.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from ipaddress import IPv4Network, IPv6Network, collapse_addresses, ip_network
from typing import Any, TypeVar

import msgspec

T = TypeVar("T")

PREFIX = "traffic.sidecar.istio.io/"
INCLUDE_OUTBOUND_RANGES = f"{PREFIX}includeOutboundIPRanges"
EXCLUDE_OUTBOUND_RANGES = f"{PREFIX}excludeOutboundIPRanges"
INCLUDE_OUTBOUND_PORTS = f"{PREFIX}includeOutboundPorts"
EXCLUDE_OUTBOUND_PORTS = f"{PREFIX}excludeOutboundPorts"
INCLUDE_INBOUND_PORTS = f"{PREFIX}includeInboundPorts"
EXCLUDE_INBOUND_PORTS = f"{PREFIX}excludeInboundPorts"
EXCLUDE_INTERFACES = f"{PREFIX}excludeInterfaces"
ANNOTATIONS = (
    INCLUDE_OUTBOUND_RANGES, EXCLUDE_OUTBOUND_RANGES, INCLUDE_OUTBOUND_PORTS, EXCLUDE_OUTBOUND_PORTS,
    INCLUDE_INBOUND_PORTS, EXCLUDE_INBOUND_PORTS, EXCLUDE_INTERFACES,
)  # fmt: skip

_LIMIT = 256  # entries of one list
_INTERFACE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,14}")  # what Linux allows and firewalls need not quote
_PORT = re.compile(r"[0-9]{1,5}")


class Interception(msgspec.Struct, frozen=True, omit_defaults=True):
    """None means all. What is excluded counts before what is included.

    `outbound_ports` are captured wherever they lead, beside `outbound_ranges`. Networks are merged and in their usual spelling.
    """

    outbound_ranges: tuple[str, ...] | None = None
    not_outbound_ranges: tuple[str, ...] = ()
    outbound_ports: tuple[int, ...] | None = ()
    not_outbound_ports: tuple[int, ...] = ()
    inbound_ports: tuple[int, ...] | None = None
    not_inbound_ports: tuple[int, ...] = ()
    not_interfaces: tuple[str, ...] = ()

    def enters(self, port: int) -> bool:
        """Whether a connection to this port of the workload meets the sidecar (on an interface that is not excluded)."""
        return port not in self.not_inbound_ports and (self.inbound_ports is None or port in self.inbound_ports)


class Mistake(msgspec.Struct, frozen=True):
    """An annotation that cannot be used, and the sentence that mends it."""

    annotation: str
    message: str


class _Wrong(Exception):
    pass


def read(annotations: Mapping[str, str]) -> tuple[Interception, tuple[Mistake, ...]]:
    """What the annotations ask for, and what is wrong with them; an annotation with a mistake counts as absent."""
    mistakes: list[Mistake] = []

    def one(name: str, parse: Callable[[str], T], absent: T) -> T:
        if name not in annotations:
            return absent
        try:
            return parse(annotations[name])
        except _Wrong as error:
            mistakes.append(Mistake(name, str(error)))
            return absent

    no_ports: tuple[int, ...] | None = ()
    found = Interception(
        outbound_ranges=one(INCLUDE_OUTBOUND_RANGES, _ranges_or_all, None),
        not_outbound_ranges=one(EXCLUDE_OUTBOUND_RANGES, _ranges, ()),
        outbound_ports=one(INCLUDE_OUTBOUND_PORTS, _ports_or_all, no_ports),
        not_outbound_ports=one(EXCLUDE_OUTBOUND_PORTS, _ports, ()),
        inbound_ports=one(INCLUDE_INBOUND_PORTS, _ports_or_all, None),
        not_inbound_ports=one(EXCLUDE_INBOUND_PORTS, _ports, ()),
        not_interfaces=one(EXCLUDE_INTERFACES, _interfaces, ()),
    )
    for name in annotations:
        if name.startswith(PREFIX) and name not in ANNOTATIONS and name.lower() in {known.lower() for known in ANNOTATIONS}:
            meant = next(known for known in ANNOTATIONS if known.lower() == name.lower())
            mistakes.append(Mistake(name, f"is not known; write it {meant.removeprefix(PREFIX)}"))
    return found, tuple(mistakes)


def _ports_or_all(text: str) -> tuple[int, ...] | None:
    return None if text.strip() == "*" else _ports(text)


def _ranges_or_all(text: str) -> tuple[str, ...] | None:
    return None if text.strip() == "*" else _ranges(text)


def _words(text: str) -> list[str]:
    words = [word.strip() for word in text.split(",")] if text.strip() else []
    if len(words) > _LIMIT:
        raise _Wrong(f"has {len(words)} entries, needed at most {_LIMIT}")
    return words


def _shown(word: str) -> str:
    return repr(word if len(word) <= 40 else f"{word[:40]}…")


def _ports(text: str) -> tuple[int, ...]:
    found = set()
    for word in _words(text):
        if not _PORT.fullmatch(word) or not 0 < int(word) < 65536:
            raise _Wrong(f"found {_shown(word)}, needed ports from 1 to 65535 with commas between them, such as 3306,6379")
        found.add(int(word))
    return tuple(sorted(found))


def _ranges(text: str) -> tuple[str, ...]:
    found: list[IPv4Network | IPv6Network] = []
    for word in _words(text):
        try:
            if not word.isascii() or "%" in word:
                raise ValueError
            found.append(ip_network(word, strict=False))
        except ValueError:
            raise _Wrong(
                f"found {_shown(word)}, needed networks with commas between them, such as 10.0.0.0/8,2001:db8::/32"
            ) from None
    merged: list[Any] = [
        *collapse_addresses(one for one in found if isinstance(one, IPv4Network)),
        *collapse_addresses(one for one in found if isinstance(one, IPv6Network)),
    ]
    return tuple(str(one) for one in merged)


def _interfaces(text: str) -> tuple[str, ...]:
    found = set()
    for word in _words(text):
        if not _INTERFACE.fullmatch(word):
            raise _Wrong(f"found {_shown(word)}, needed names of interfaces with commas between them, such as eth1,docker0")
        found.add(word)
    return tuple(sorted(found))
