"""Networks as people write them: addresses, and CIDRs whose host bits may be set."""

from __future__ import annotations

import ipaddress
from functools import lru_cache

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@lru_cache(maxsize=65536)
def network(text: str) -> Network:
    """The network; an address is one of its own."""
    return ipaddress.ip_network(text, strict=False)


def inside(narrow: str, wide: str) -> bool:
    """Whether all addresses of one network are in another."""
    inner, outer = network(narrow), network(wide)
    return inner.version == outer.version and outer.prefixlen <= inner.prefixlen and inner.network_address in outer
