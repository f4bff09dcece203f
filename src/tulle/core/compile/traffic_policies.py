"""Istio's TrafficPolicy → the model's words for one port (what has no effect: `traffic_policy_problems`).

Parts (`loadBalancer`, `connectionPool`, `outlierDetection`, `tls`, ...) are inherited whole, as Istio does it: a subset's part
replaces the rule's. The settings of a port replace these four together, and what they leave out is the default again.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from tulle.api.istio.destination_rule import (
    ClientTLS,
    ConnectionPool,
    ConsistentHash,
    LoadBalancer,
    OutlierDetection,
    ProxyProtocol,
    RetryBudget,
    TrafficPolicy,
    Tunnel,
)
from tulle.api.values import seconds
from tulle.core.model import tcp_route, traffic
from tulle.core.model.destination import Transport
from tulle.core.model.gateway import SecretRef
from tulle.core.model.traffic import (
    ANY_CONNECTIONS,
    ANY_REQUESTS,
    Cookie,
    Hash,
    Keepalive,
    Localities,
    Outlier,
    Requests,
    Tls,
    Upgrade,
    Utilization,
    Warmup,
)
from tulle.core.model.traffic import LoadBalancer as Balancing

_BALANCING = {
    "UNSPECIFIED": Balancing.LEAST_REQUEST,
    "LEAST_CONN": Balancing.LEAST_REQUEST,
    "LEAST_REQUEST": Balancing.LEAST_REQUEST,
    "ROUND_ROBIN": Balancing.ROUND_ROBIN,
    "RANDOM": Balancing.RANDOM,
    "PASSTHROUGH": Balancing.PASSTHROUGH,
}
_TRANSPORT = {"DISABLE": Transport.PLAINTEXT, "ISTIO_MUTUAL": Transport.MTLS}
_LONGEST_NAME = 255  # of servers as of headers; nothing real is longer, and Envoy takes no longer server name

OWN = ("SIMPLE", "MUTUAL")
_SYSTEM = "system"  # the host's own authorities, as Istio calls them
_UPGRADE = {"UPGRADE": Upgrade.HTTP2, "DO_NOT_UPGRADE": Upgrade.HTTP1}
# What Envoy's own budget is where only some of it is said.
_BUDGET_PERCENT = 20.0

# Parts that a port's settings replace together, and those that are for all ports.
OF_PORT = ("load_balancer", "connection_pool", "outlier_detection", "tls")
OF_ALL = ("proxy_protocol", "retry_budget", "tunnel")


class Parts(msgspec.Struct, frozen=True):
    """The parts of a TrafficPolicy that hold for one port of a destination."""

    load_balancer: LoadBalancer | None = None
    connection_pool: ConnectionPool | None = None
    outlier_detection: OutlierDetection | None = None
    tls: ClientTLS | None = None
    proxy_protocol: ProxyProtocol | None = None
    retry_budget: RetryBudget | None = None
    tunnel: Tunnel | None = None


class Policy(msgspec.Struct, frozen=True):
    """How to reach a destination; None where nothing was said (a transport is then read off the endpoints).

    `credential` is the Secret that `tls` is spoken with, by those who have it (`secrets`), and of which they
    show the certificate (`shows`).
    """

    load_balancer: Balancing | None = None
    hash: Hash | None = None
    utilization: Utilization | None = None
    warmup: Warmup | None = None
    localities: Localities | None = None
    connect_timeout: float | None = None
    connections: traffic.Connections = ANY_CONNECTIONS
    tcp_idle_timeout: float | None = None
    tunnel: tcp_route.Tunnel | None = None
    requests: Requests = ANY_REQUESTS
    outlier: Outlier | None = None
    check: traffic.HealthCheck | None = None
    transport: Transport | None = None
    sni: str = ""
    names: tuple[str, ...] = ()
    tls: Tls | None = None
    credential: str = ""
    shows: bool = False
    secrets: tuple[SecretRef, ...] = ()
    proxy_protocol: traffic.ProxyProtocol = traffic.ProxyProtocol.NONE


def merge(whole: TrafficPolicy | None, part: TrafficPolicy | None, port: int) -> Parts:
    """What holds for a port of a subset (`part`) of a rule (`whole`)."""
    return _over(_over(Parts(), whole, port), part, port)


def _over(inherited: Parts, said: TrafficPolicy | None, port: int) -> Parts:
    if said is None:
        return inherited
    found = {name: getattr(said, name) or getattr(inherited, name) for name in (*OF_PORT, *OF_ALL)}
    for setting in said.port_level_settings:
        if setting.port and setting.port.number == port:
            found |= {name: getattr(setting, name) for name in OF_PORT}
    return Parts(**found)


def read(parts: Parts) -> Policy:
    """The parts in the model's words."""
    balancer, outlier = parts.load_balancer, parts.outlier_detection
    tcp = parts.connection_pool.tcp if parts.connection_pool else None
    hashed, tls = _hash(balancer), parts.tls
    utilization = _utilization(balancer)
    return Policy(
        utilization=utilization,
        load_balancer=Balancing.UTILIZATION
        if utilization
        else hashed[0]
        if hashed
        else _BALANCING[balancer.simple]
        if balancer and balancer.simple
        else None,
        hash=hashed[1] if hashed else None,
        warmup=_warmup(balancer),
        localities=_localities(balancer, failing=outlier is not None),
        connect_timeout=seconds(tcp.connect_timeout) if tcp and tcp.connect_timeout else None,
        connections=_connections(parts.connection_pool),
        tcp_idle_timeout=seconds(tcp.idle_timeout) if tcp and tcp.idle_timeout else None,
        tunnel=_tunnel(parts.tunnel),
        requests=_requests(parts.connection_pool, parts.retry_budget),
        outlier=_outlier(outlier) if outlier else None,
        proxy_protocol=traffic.ProxyProtocol(parts.proxy_protocol.version if parts.proxy_protocol else ""),
        transport=_TRANSPORT.get(tls.mode) if tls else None,
        tls=_tls(tls) if tls else None,
        credential=tls.credential_name if tls and tls.mode in OWN else "",
        shows=tls is not None and tls.mode == "MUTUAL",
        sni=_server_name(tls) if tls and _mutual(tls) else "",
        names=tls.subject_alt_names if tls and _mutual(tls) else (),
    )


def _hash(balancer: LoadBalancer | None) -> tuple[Balancing, Hash | None] | None:
    """The algorithm, and what it hashes: nothing (so that any endpoint may get any request) where `useSourceIp` is false."""
    said = balancer.consistent_hash if balancer else None
    if said is None:
        return None
    cookie = said.http_cookie
    size = said.maglev.table_size if said.maglev else said.ring_hash.minimum_ring_size if said.ring_hash else 0
    algorithm = Balancing.MAGLEV if said.maglev else Balancing.RING_HASH
    named = [name for _field, name in hashed_names(said)]
    if not all(map(usable, named)) or not (named or said.use_source_ip):
        return algorithm, None
    return algorithm, Hash(
        header=said.http_header_name or "",
        query=said.http_query_parameter_name or "",
        cookie=Cookie(
            name=cookie.name,
            path=cookie.path,
            ttl=seconds(cookie.ttl) if cookie.ttl else None,
            attributes=tuple((one.name, one.value) for one in cookie.attributes),
        )
        if cookie
        else None,
        source_address=bool(said.use_source_ip),
        size=size or (0 if said.maglev else said.minimum_ring_size),
    )


def _utilization(balancer: LoadBalancer | None) -> Utilization | None:
    said = balancer.backend_utilization if balancer else None
    if said is None:
        return None
    times = (said.weight_stabilization_period, said.weight_expiration_period, said.weight_update_period)
    settling, expiry, interval = (seconds(one) if one else None for one in times)
    return Utilization(
        metrics=said.metric_names_for_computing_utilization,
        penalty=said.error_utilization_penalty_percent / 100,
        settling=settling,
        expiry=expiry,
        interval=interval,
    )


def hashed_names(said: ConsistentHash) -> Iterator[tuple[str, str]]:
    """What is named to be hashed, by field."""
    if said.http_header_name is not None:
        yield "httpHeaderName", said.http_header_name
    if said.http_query_parameter_name is not None:
        yield "httpQueryParameterName", said.http_query_parameter_name
    if said.http_cookie:
        yield "httpCookie.name", said.http_cookie.name
        for index, one in enumerate(said.http_cookie.attributes):
            yield f"httpCookie.attributes[{index}].name", one.name
            if one.value:
                yield f"httpCookie.attributes[{index}].value", one.value


def usable(name: str) -> bool:
    """Whether a name can be that of a header, a cookie or a parameter: Envoy refuses others."""
    return 0 < len(name) <= _LONGEST_NAME and name.isascii() and name.isprintable() and " " not in name


def _warmup(balancer: LoadBalancer | None) -> Warmup | None:
    said = balancer.warmup if balancer else None
    if said:
        return Warmup(seconds(said.duration), said.minimum_percent, said.aggression)
    if balancer and balancer.warmup_duration_secs:
        return Warmup(seconds(balancer.warmup_duration_secs))
    return None


def _localities(balancer: LoadBalancer | None, failing: bool) -> Localities | None:
    """Near endpoints come first where a rule says so, or where it says how endpoints fail; as in Istio."""
    said = balancer.locality_lb_setting if balancer else None
    by_zone = balancer.zone_aware_lb_setting if balancer else None
    if by_zone is not None and by_zone.enabled is not False:
        return Localities(
            failover=tuple((one.from_, one.to) for one in by_zone.failover),
            priority=by_zone.failover_priority,
            zone_aware=True,
            minimum=by_zone.min_cluster_size or 0,
        )
    if said is None:
        return Localities() if failing else None
    if said.enabled is False:
        return None
    return Localities(
        distribute=tuple((one.from_, tuple(sorted(one.to.items()))) for one in said.distribute),
        failover=tuple((one.from_, one.to) for one in said.failover),
        priority=said.failover_priority,
    )


def _connections(said: ConnectionPool | None) -> traffic.Connections:
    if said is None:
        return ANY_CONNECTIONS
    tcp, http = said.tcp, said.http
    alive = tcp.tcp_keepalive if tcp else None
    pings = http.http2_keep_alive if http else None
    # What is idle for HTTP is said there, else for TCP.
    idle = (http.idle_timeout if http else None) or (tcp.idle_timeout if tcp else None)
    return traffic.Connections(
        maximum=tcp.max_connections if tcp else 0,
        keepalive=Keepalive(alive.probes, _whole(alive.time), _whole(alive.interval)) if alive else None,
        max_duration=seconds(tcp.max_connection_duration) if tcp and tcp.max_connection_duration else 0.0,
        idle_timeout=seconds(idle) if idle else None,
        ping_interval=seconds(pings.interval) if pings and pings.interval else 0.0,
        ping_timeout=seconds(pings.timeout) if pings and pings.timeout else 0.0,
    )


def _tunnel(said: Tunnel | None) -> tcp_route.Tunnel | None:
    return tcp_route.Tunnel(said.target_host, said.target_port, said.protocol == "POST") if said else None


def _whole(duration: str | None) -> int:
    """Whole seconds, as the kernel counts; at least one where something was said."""
    return max(1, round(seconds(duration))) if duration else 0


def _requests(said: ConnectionPool | None, budget: RetryBudget | None) -> Requests:
    if said is None and budget is None:
        return ANY_REQUESTS
    http = said.http if said else None
    percent = None
    if budget:
        percent = budget.percent if budget.percent is not None else _BUDGET_PERCENT
    upgrade = Upgrade.DECLARED
    if http:
        upgrade = Upgrade.AS_CALLED if http.use_client_protocol else _UPGRADE.get(http.h2_upgrade_policy, Upgrade.DECLARED)
    return Requests(
        maximum=http.http2_max_requests if http else 0,
        max_pending=http.http1_max_pending_requests if http else 0,
        max_retries=http.max_retries if http else 0,
        max_per_connection=http.max_requests_per_connection if http else 0,
        max_streams=http.max_concurrent_streams if http else 0,
        upgrade=upgrade,
        budget=percent,
        budget_minimum=budget.min_retry_concurrency if budget else 0,
        budget_interval=seconds(budget.budget_interval) if budget and budget.budget_interval else 0.0,
    )


def _outlier(said: OutlierDetection) -> Outlier:
    gateway = said.consecutive_gateway_errors
    return Outlier(
        errors=said.consecutive_5xx_errors,
        gateway_errors=gateway if gateway is not None else said.consecutive_errors or None,
        local_failures=said.consecutive_local_origin_failures,
        split_local=said.split_external_local_origin_errors,
        interval=seconds(said.interval) if said.interval else 0.0,
        ejection_time=seconds(said.base_ejection_time) if said.base_ejection_time else 0.0,
        max_ejected=said.max_ejection_percent,
        minimum_health=said.min_health_percent,
        codes=tuple(sorted(set(said.outlier_detection_http_error_codes))),
    )


def _mutual(said: ClientTLS) -> bool:
    return said.mode == "ISTIO_MUTUAL"


def _server_name(said: ClientTLS) -> str:
    return said.sni if usable(said.sni) else ""


def _tls(said: ClientTLS) -> Tls | None:
    """TLS with certificates of its own. A name with a scheme (`spiffe://...`) is a URI, any other a DNS name."""
    if said.mode not in OWN:
        return None
    return Tls(
        sni=_server_name(said),
        names=tuple(name for name in said.subject_alt_names if "://" not in name),
        uris=tuple(name for name in said.subject_alt_names if "://" in name),
        ca_file="" if said.ca_certificates == _SYSTEM else said.ca_certificates,
        crl_file=said.ca_crl,
        certificate_file=said.client_certificate if said.mode == "MUTUAL" else "",
        key_file=said.private_key if said.mode == "MUTUAL" else "",
        verify=not said.insecure_skip_verify,
    )
