"""Networks as people write them: addresses, and CIDRs whose host bits may be set."""

from __future__ import annotations

import ipaddress
from functools import lru_cache

# What services get as virtual IPs that were given none, of each family. Nobody but a sidecar answers there.
VIRTUAL = ("240.240.0.0/16", "fd74:756c:f0f0::/112")

# Where a sidecar listens for datagrams to a port of a service: at the service's address, at the port with these bits too. An
# application of the same network could not bind the port itself any more. What programs get that ask for none ends below (60999).
DATAGRAM_PORTS = 0xF000

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@lru_cache(maxsize=65536)
def network(text: str) -> Network:
    """The network; an address is one of its own."""
    return ipaddress.ip_network(text, strict=False)


def inside(narrow: str, wide: str) -> bool:
    """Whether all addresses of one network are in another."""
    inner, outer = network(narrow), network(wide)
    return inner.version == outer.version and outer.prefixlen <= inner.prefixlen and inner.network_address in outer
