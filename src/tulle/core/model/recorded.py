"""Recorded calls: what a sample of single requests and connections looked like, folded into shapes.

    Envoy ──OTLP logs, a sample──▶ node: entries ─▶ shapes ──▶ control plane: kept for days, read by explain and planning

Beside `calls` (all calls, counted), which says of how many these were seen.
"""

from __future__ import annotations

import msgspec

from tulle.core.model.calls import Count

# The only headers of a request that are ever recorded: none of them is a secret, or has the query of an address in it.
HEADERS = (
    "accept",
    "content-length",
    "content-type",
    "grpc-timeout",
    "origin",
    "traceparent",
    "user-agent",
    "x-envoy-attempt-count",
    "x-forwarded-proto",
)
EARLY = "rbac_access_denied_early"  # details of a connection that was refused before a word was said, as Envoy would call it
LONGEST = 256  # characters of a header, or of a path, that are kept
EXAMPLES = 3  # of a shape


class Shape(msgspec.Struct, frozen=True, array_like=True):
    """A kind of call. `reporter` is `source` or `destination`: whose proxy saw it.

    Workloads are `namespace/name` ("": not of the mesh, or not known), `service` a host name, `port` what was called there,
    `protocol` is `http`, `grpc` or `tcp`. `path` is a template: what differs from call to call is folded. `code`, `grpc` and
    `flags` are as Envoy has them, `details` are its response-code details without what differs from call to call. `principal`
    is the SPIFFE ID of the other end; `mutual`: it came with mutual TLS. `policy` is the rule that let the call pass or did not
    (`namespace/name rule 0`), `origin` the object that routed it, and `field` where in it.
    """

    reporter: str
    source: str = ""
    destination: str = ""
    service: str = ""
    port: int = 0
    protocol: str = "http"
    method: str = ""
    path: str = ""
    code: str = ""
    grpc: str = ""
    flags: str = ""
    details: str = ""
    principal: str = ""
    mutual: bool = False
    policy: str = ""
    origin: str = ""
    field: str = ""


class Example(msgspec.Struct, frozen=True, array_like=True):
    """One of the calls. `id` is its request ID, `time` when it began (seconds since the epoch), `proxy` whose Envoy told of it.

    `path` has no query. `headers` are some of `HEADERS`. `endpoint` is the address it went to by Envoy's `cluster`, `attempts`
    how often, `address` whence it came. `details` and `why` (of TLS or of a connection) are Envoy's own words. `share` is the
    share of such calls that was recorded then.
    """

    id: str
    time: float
    milliseconds: float = 0.0
    proxy: str = ""
    authority: str = ""
    path: str = ""
    headers: dict[str, str] = {}
    endpoint: str = ""
    cluster: str = ""
    address: str = ""
    details: str = ""
    why: str = ""
    attempts: int = 0
    share: float = 1.0


class Record(msgspec.Struct, frozen=True, array_like=True):
    """The calls of a shape that were seen: how many and how long they took; times are seconds since the epoch.

    `estimate` is how many there were, by the share of calls that was recorded at the time of each.
    """

    count: Count
    estimate: float
    first: float
    last: float
    examples: tuple[Example, ...] = ()


Rows = tuple[tuple[Shape, Record], ...]
Failures = tuple[tuple[Shape, Example], ...]


class RecordedReport(msgspec.Struct, frozen=True):
    """What a `node` has recorded since its last report; `failures` are single calls that failed or were denied.

    `dropped` calls were sent by proxies and not looked at, for there were too many. `sent` is when, by the node's clock (0.0:
    it does not say).
    """

    node: str
    rows: Rows = ()
    failures: Failures = ()
    dropped: int = 0
    sent: float = 0.0


class Coverage(msgspec.Struct, frozen=True, array_like=True):
    """How many calls were `seen` of how many that proxies `counted`, and of those that failed."""

    seen: int = 0
    counted: int = 0
    failures_seen: int = 0
    failures_counted: int = 0


class Recorded(msgspec.Struct, frozen=True):
    """The answer to who asks: the shapes, since when they are kept, and by service how much was seen.

    `covers`: since when `coverage` counts (by day, and both ends of each call). `services` are those that were asked for,
    whether or not a call of them was seen. `notice`: what people are to know of it.
    """

    begins: float
    rows: Rows = ()
    coverage: dict[str, Coverage] = {}
    dropped: int = 0
    covers: float = 0.0
    services: tuple[str, ...] = ()
    notice: str = ""


def failing(code: str, flags: str, details: str, grpc: str) -> bool:
    """Whether a call is one of those that are recorded first: it failed, was denied, or something stands in its flags."""
    number = int(code) if code.isascii() and code.isdigit() else 0
    if number >= 500 or flags not in ("", "-"):
        return True
    if details.startswith("rbac_") or (number >= 400 and details.startswith(DENIALS)):
        return True
    return grpc in FAILED


# How the response-code details begin of what a proxy denies.
DENIALS = ("jwt_authn_", "rbac_", "ext_authz_")
# gRPC's statuses of a server that failed, of who may not, and of too little of something: by number.
FAILED = frozenset(("4", "7", "8", "12", "13", "14", "15", "16"))
