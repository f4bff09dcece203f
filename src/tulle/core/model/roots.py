"""What proxies check the certificates of their peers with."""

from __future__ import annotations

import msgspec


class Roots(msgspec.Struct, frozen=True, omit_defaults=True):
    """Certificates (PEM) that peers must chain to: `bundle`, or where there are `domains`, those of the peer's trust domain."""

    bundle: str
    domains: tuple[tuple[str, str], ...] = ()
