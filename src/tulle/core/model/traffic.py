"""Traffic policy: how a destination is balanced, how much may go to it at once, who is left out, and how TLS is spoken to it.

The words are Istio's DestinationRule's. None, 0 and "" mean that nothing was said. Durations are in seconds.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec


class LoadBalancer(StrEnum):
    """How an endpoint is chosen; the words are Istio's `LoadBalancerSettings`, `RING_HASH` and `MAGLEV` its `consistentHash`,
    `UTILIZATION` its `backendUtilization`.
    """

    LEAST_REQUEST = "LEAST_REQUEST"
    ROUND_ROBIN = "ROUND_ROBIN"
    RANDOM = "RANDOM"
    PASSTHROUGH = "PASSTHROUGH"
    RING_HASH = "RING_HASH"
    MAGLEV = "MAGLEV"
    UTILIZATION = "UTILIZATION"


class Cookie(msgspec.Struct, frozen=True, omit_defaults=True):
    """A cookie to hash. It is made where it is absent and has a `ttl` (0: until the browser ends)."""

    name: str
    path: str = ""
    ttl: float | None = None
    attributes: tuple[tuple[str, str], ...] = ()


class Hash(msgspec.Struct, frozen=True, omit_defaults=True):
    """What requests to a destination are told apart by: exactly one of these. `size` is of the ring (at least) or the table."""

    header: str = ""
    query: str = ""
    cookie: Cookie | None = None
    source_address: bool = False
    size: int = 0


class Warmup(msgspec.Struct, frozen=True, omit_defaults=True):
    """A new endpoint gets its share over `duration`, from `minimum` percent on; `aggression` bends the way up (1: straight)."""

    duration: float
    minimum: float | None = None
    aggression: float | None = None


class Utilization(msgspec.Struct, frozen=True, omit_defaults=True):
    """Shares by the load that endpoints report (ORCA) with their answers: in `metrics`, and `penalty` for their errors.

    A report counts after `settling` seconds and no longer than `expiry`; shares are made anew each `interval`. None: Envoy's own.
    """

    metrics: tuple[str, ...] = ()
    penalty: float = 0.0
    settling: float | None = None
    expiry: float | None = None
    interval: float | None = None


class Keepalive(msgspec.Struct, frozen=True, omit_defaults=True):
    """TCP keep-alive: `probes`, begun after `time` without a byte, one each `interval`; the system's where 0."""

    probes: int = 0
    time: int = 0
    interval: int = 0


class Connections(msgspec.Struct, frozen=True, omit_defaults=True):
    """Bounds of connections to a destination; HTTP/2 pings each `ping_interval`, a connection without answer ends.

    `idle_timeout` is of HTTP connections without a request; 0: never.
    """

    maximum: int = 0
    keepalive: Keepalive | None = None
    max_duration: float = 0.0
    idle_timeout: float | None = None
    ping_interval: float = 0.0
    ping_timeout: float = 0.0


ANY_CONNECTIONS = Connections()


class Upgrade(StrEnum):
    """Which HTTP is spoken to endpoints without a sidecar. DECLARED: as the port says."""

    DECLARED = ""
    HTTP2 = "http2"
    HTTP1 = "http1"
    AS_CALLED = "as called"


class Requests(msgspec.Struct, frozen=True, omit_defaults=True):
    """Bounds of requests to a destination. `budget` is a percentage of the active requests that may be retries."""

    maximum: int = 0
    max_pending: int = 0
    max_retries: int = 0
    max_per_connection: int = 0
    max_streams: int = 0
    upgrade: Upgrade = Upgrade.DECLARED
    budget: float | None = None
    budget_minimum: int = 0
    budget_interval: float = 0.0


ANY_REQUESTS = Requests()


class SuccessRate(msgspec.Struct, frozen=True, omit_defaults=True):
    """Who succeeds less often than the mean of all, by more than `deviations` standard deviations, is left out.

    Counted are endpoints with at least `volume` requests in an interval, if there are as many as `hosts`.
    """

    deviations: float
    hosts: int
    volume: int


class FailurePercentage(msgspec.Struct, frozen=True, omit_defaults=True):
    """Of whose requests so many percent or more fail is left out; `hosts` and `volume` as for success rates."""

    threshold: float
    hosts: int
    volume: int


class HealthCheck(msgspec.Struct, frozen=True, omit_defaults=True):
    """What callers' proxies ask each endpoint: an HTTP `path`, the health service of gRPC, or nothing but a connection.

    `statuses` are those of one that is well (none: 200). Durations are in seconds.
    """

    interval: float
    timeout: float
    unhealthy_after: int
    healthy_after: int
    path: str = ""
    host: str = ""
    statuses: tuple[int, ...] = ()
    grpc: str | None = None


class Outlier(msgspec.Struct, frozen=True, omit_defaults=True):
    """An endpoint that fails so many times in a row is left out for `ejection_time`, longer each time. 0 in a row: never.

    `minimum_health`: below that percentage of healthy endpoints, all of them get traffic again. `codes` are failures instead of
    5xx.
    """

    errors: int | None = None
    gateway_errors: int | None = None
    local_failures: int | None = None
    split_local: bool = False
    interval: float = 0.0
    ejection_time: float = 0.0
    max_ejected: int = 0
    minimum_health: int = 0
    codes: tuple[int, ...] = ()
    success_rate: SuccessRate | None = None
    failure_percentage: FailurePercentage | None = None


class Tls(msgspec.Struct, frozen=True, omit_defaults=True):
    """TLS that is no mesh's, towards endpoints that have a certificate of their own.

    Files are of the proxy's host. `authorities` (PEM) are given here; else `ca_file` has them, and where that is "" the host's
    own do. `certificate` and `roots` are secrets that the proxy asks the mesh for, instead of files. `names` and `uris` are what
    the other side's may be for; none: the `sni`, or the host that was called.
    `nobody`: there should be authorities and are none, so that no certificate is right. `minimum` and `maximum` are `TLSv1_0` to
    `TLSv1_3`, "" for the proxy's own.
    """

    sni: str = ""
    names: tuple[str, ...] = ()
    uris: tuple[str, ...] = ()
    authorities: str = ""
    ca_file: str = ""
    crl_file: str = ""
    certificate_file: str = ""
    key_file: str = ""
    certificate: str = ""
    roots: str = ""
    verify: bool = True
    nobody: bool = False
    minimum: str = ""
    maximum: str = ""
    ciphers: tuple[str, ...] = ()
    curves: tuple[str, ...] = ()


class ProxyProtocol(StrEnum):
    """The version of the PROXY protocol's header that is sent first."""

    NONE = ""
    V1 = "V1"
    V2 = "V2"


class Localities(msgspec.Struct, frozen=True, omit_defaults=True):
    """Which endpoints a caller prefers by the place where both stand.

    `distribute`: shares by locality, for callers in a locality. `failover`: region to region. `priority`: labels; the more of
    them, from the first on, an endpoint shares with the caller (or has as written, `key=value`), the sooner it is taken.
    `zone_aware`: zones of the caller's region get shares by what stands there, from `minimum` endpoints on.
    """

    distribute: tuple[tuple[str, tuple[tuple[str, int], ...]], ...] = ()
    failover: tuple[tuple[str, str], ...] = ()
    priority: tuple[str, ...] = ()
    zone_aware: bool = False
    minimum: int = 0
