"""What a proxy takes from its clients: how large a request may be, and at a gateway whose word about a client it takes."""

from __future__ import annotations

from enum import StrEnum

import msgspec


class Paths(StrEnum):
    """The form in which paths are compared and passed on, as Istio's mesh configuration calls it."""

    BASE = "BASE"
    NONE = "NONE"
    MERGE_SLASHES = "MERGE_SLASHES"
    DECODE_AND_MERGE_SLASHES = "DECODE_AND_MERGE_SLASHES"


class Limits(msgspec.Struct, frozen=True, omit_defaults=True):
    """How large requests may be; 0 is Envoy's own limit (60 KiB of headers, 100 of them), and for a body none.

    `header_kb` and `headers` are for the header section, `body` (bytes, at gateways) for what follows. `counted`: routes may have
    limits of how many (`rate_limit`).
    """

    header_kb: int = 0
    headers: int = 0
    body: int = 0
    paths: Paths = Paths.BASE
    counted: bool = False


class Edge(msgspec.Struct, frozen=True, omit_defaults=True):
    """Who stands in front of a gateway. By default nobody: clients are who they are by their connection.

    `trusted` proxies have each added to X-Forwarded-For. `client_certificate` is Envoy's word for what becomes of
    X-Forwarded-Client-Cert. `announced`: every connection begins with the PROXY protocol, or is closed.
    """

    trusted: int = 0
    client_certificate: str = "SANITIZE_SET"
    announced: bool = False


# What holds where nothing is said. Rows have these very objects then, and leave them out where they are written down.
ENVOYS_LIMITS = Limits()
NOBODY_IN_FRONT = Edge()
