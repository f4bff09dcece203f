"""DestinationRule: how requests reach a host once routing has chosen it, and its named subsets."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from tulle.api.istio.hosts import export_to_faults, host_fault
from tulle.api.istio.shared import PortSelector, WorkloadSelector
from tulle.api.istio.status import IstioStatus
from tulle.api.object import Fault, Object, Ruled, Schema
from tulle.api.rules import at_most_one, distinct
from tulle.api.values import AnyDuration, Double, Duration, Int32, Many, Map, Nullable, Percent, UInt32, UInt64


class HTTPCookie(Schema):
    """The cookie that keeps a client with an endpoint; made where it is absent and has a `ttl`."""

    name: str
    path: str = ""
    ttl: AnyDuration | None = None
    attributes: Many[CookieAttribute] = ()


class CookieAttribute(Schema):
    """An attribute of a made cookie, such as `SameSite`."""

    name: str
    value: str = ""


class RingHash(Schema):
    """The ring-hash algorithm."""

    minimum_ring_size: UInt64 = 0


class MagLev(Schema):
    """The Maglev algorithm."""

    table_size: UInt64 = 0


class ConsistentHash(Ruled):
    """Requests with the same value go to the same endpoint."""

    http_header_name: str | None = None
    http_cookie: HTTPCookie | None = None
    use_source_ip: bool | None = None
    http_query_parameter_name: str | None = None
    ring_hash: RingHash | None = None
    maglev: MagLev | None = None
    minimum_ring_size: UInt64 = 0  # older spelling of ringHash.minimumRingSize

    def faults(self) -> Iterator[Fault]:
        """One value to hash, one algorithm."""
        yield from at_most_one(self, "httpHeaderName", "httpCookie", "useSourceIp", "httpQueryParameterName")
        yield from at_most_one(self, "ringHash", "maglev")
        keys = (self.http_header_name, self.http_cookie, self.use_source_ip, self.http_query_parameter_name)
        if all(key is None for key in keys):
            yield Fault(
                (), "found nothing to hash; needed httpHeaderName, httpCookie, useSourceIp or httpQueryParameterName", "OneOf"
            )


class Distribute(Schema):
    """Shares in percent of the traffic from a locality by the locality that gets it."""

    from_: str = Field(default="", alias="from")
    to: Map[UInt32] = Field(default_factory=dict)


class Failover(Schema):
    """The region to go to when `from` fails."""

    from_: str = Field(default="", alias="from")
    to: str = ""


class LocalityLoadBalancer(Ruled):
    """Preference of near endpoints."""

    distribute: Many[Distribute] = ()
    failover: Many[Failover] = ()
    failover_priority: Many[str] = ()
    enabled: Nullable[bool] = None

    def faults(self) -> Iterator[Fault]:
        """Shares that add up, failover to somewhere else, one way of the three."""
        if self.distribute and (self.failover or self.failover_priority):
            yield Fault((), "found distribute beside failover; needed one of the two", "OneOf")
        for index, share in enumerate(self.distribute):
            if share.to and (total := sum(share.to.values())) != 100:
                yield Fault(("distribute", index, "to"), f"found shares that add up to {total}; needed 100")
            for locality, weight in share.to.items():
                if weight == 0:
                    yield Fault(("distribute", index, "to", locality), "found 0; needed a share above 0, or no entry")
        for index, failover in enumerate(self.failover):
            if failover.from_ == failover.to:
                yield Fault(("failover", index), f'found "{failover.to}" for from and to; needed two different regions')
            for field, region in (("from", failover.from_), ("to", failover.to)):
                if "/" in region or "*" in region:
                    yield Fault(("failover", index, field), f'found "{region}"; needed a region, without zone or wildcard')


class ZoneAware(Schema):
    """Preference of the own zone in proportion to what stands there."""

    enabled: Nullable[bool] = None
    failover: Many[Failover] = ()
    failover_priority: Many[str] = ()
    min_cluster_size: Nullable[Annotated[int, Field(ge=1, le=2**32 - 1)]] = None


class Warmup(Schema):
    """New endpoints get their share slowly."""

    duration: Duration
    minimum_percent: Nullable[Percent] = None
    aggression: Nullable[Annotated[Double, Field(ge=0)]] = None


class BackendUtilization(Schema):
    """Shares by the load that endpoints report."""

    error_utilization_penalty_percent: UInt32 = 0
    metric_names_for_computing_utilization: Many[str] = ()
    weight_expiration_period: AnyDuration | None = None
    weight_stabilization_period: AnyDuration | None = None
    weight_update_period: AnyDuration | None = None


class LoadBalancer(Ruled):
    """How an endpoint is chosen."""

    simple: Literal["UNSPECIFIED", "LEAST_CONN", "RANDOM", "PASSTHROUGH", "ROUND_ROBIN", "LEAST_REQUEST"] | None = None
    consistent_hash: ConsistentHash | None = None
    backend_utilization: BackendUtilization | None = None
    locality_lb_setting: LocalityLoadBalancer | None = None
    zone_aware_lb_setting: ZoneAware | None = None
    warmup: Warmup | None = None
    warmup_duration_secs: Duration | None = None  # older spelling of warmup.duration

    def faults(self) -> Iterator[Fault]:
        """One algorithm, and warm-up only where it can be."""
        yield from at_most_one(self, "simple", "consistentHash", "backendUtilization")
        if self.locality_lb_setting and self.zone_aware_lb_setting:
            yield Fault((), "found localityLbSetting and zoneAwareLbSetting; needed at most one of the two", "OneOf")
        if self.warmup and self.warmup_duration_secs:
            yield Fault(("warmupDurationSecs",), "found it beside warmup; needed only warmup", "OneOf")
        if (self.warmup or self.warmup_duration_secs) and self.simple not in (
            None,
            "UNSPECIFIED",
            "ROUND_ROBIN",
            "LEAST_REQUEST",
        ):
            field = "warmup" if self.warmup else "warmupDurationSecs"
            yield Fault((field,), f"found it with {self.simple}; needed ROUND_ROBIN or LEAST_REQUEST, or no warm-up")


class TcpKeepalive(Schema):
    """TCP keep-alive probes."""

    probes: UInt32 = 0
    time: Duration | None = None
    interval: Duration | None = None


class TCPSettings(Ruled):
    """Bounds of connections."""

    max_connections: Int32 = 0
    connect_timeout: Duration | None = None
    tcp_keepalive: TcpKeepalive | None = None
    max_connection_duration: Duration | None = None
    idle_timeout: AnyDuration | None = None

    def faults(self) -> Iterator[Fault]:
        """No negative counts."""
        if self.max_connections < 0:
            yield Fault(("maxConnections",), f"found {self.max_connections}; needed 0 (no bound) or more")


class Http2KeepAlive(Schema):
    """HTTP/2 pings."""

    interval: Duration | None = None
    timeout: Duration | None = None


class HTTPSettings(Ruled):
    """Bounds of requests."""

    http1_max_pending_requests: Int32 = 0
    http2_max_requests: Int32 = 0
    max_requests_per_connection: Int32 = 0
    max_retries: Int32 = 0
    idle_timeout: Duration | None = None
    h2_upgrade_policy: Literal["DEFAULT", "DO_NOT_UPGRADE", "UPGRADE"] = "DEFAULT"
    use_client_protocol: bool = False
    max_concurrent_streams: Int32 = 0
    http2_keep_alive: Http2KeepAlive | None = None

    def faults(self) -> Iterator[Fault]:
        """No negative counts; one opinion on HTTP/2."""
        for name, field in type(self).model_fields.items():
            value = getattr(self, name)
            if isinstance(value, int) and value < 0:
                yield Fault((field.alias or name,), f"found {value}; needed 0 (no bound) or more")
        if self.use_client_protocol and self.h2_upgrade_policy == "UPGRADE":
            yield Fault(("h2UpgradePolicy",), "found UPGRADE beside useClientProtocol; needed only one of the two", "OneOf")


class ConnectionPool(Ruled):
    """Bounds of what goes to one host."""

    tcp: TCPSettings | None = None
    http: HTTPSettings | None = None

    def faults(self) -> Iterator[Fault]:
        """Something in it."""
        if self.tcp is None and self.http is None:
            yield Fault((), "found nothing; needed tcp or http", "Required")


class OutlierDetection(Ruled):
    """Endpoints that fail are left out for a while."""

    consecutive_errors: Int32 = 0  # older spelling of consecutiveGatewayErrors
    consecutive_gateway_errors: Nullable[UInt32] = None
    consecutive_5xx_errors: Nullable[UInt32] = Field(default=None, alias="consecutive5xxErrors")
    consecutive_local_origin_failures: Nullable[UInt32] = None
    split_external_local_origin_errors: bool = False
    interval: Duration | None = None
    base_ejection_time: Duration | None = None
    max_ejection_percent: Int32 = 0
    min_health_percent: Int32 = 0
    outlier_detection_http_error_codes: Many[Annotated[int, Field(ge=100, le=599)]] = ()

    def faults(self) -> Iterator[Fault]:
        """Percentages, and local failures only where they are told apart."""
        for field, value in (("maxEjectionPercent", self.max_ejection_percent), ("minHealthPercent", self.min_health_percent)):
            if not 0 <= value <= 100:
                yield Fault((field,), f"found {value}; needed a percentage from 0 to 100")
        if self.consecutive_errors < 0:
            yield Fault(("consecutiveErrors",), f"found {self.consecutive_errors}; needed 0 (nothing is counted) or more")
        if self.consecutive_local_origin_failures and not self.split_external_local_origin_errors:
            yield Fault(
                ("consecutiveLocalOriginFailures",),
                "found it without splitExternalLocalOriginErrors; needed splitExternalLocalOriginErrors: true",
                "Required",
            )


class ClientTLS(Ruled):
    """TLS towards a host. Files are paths at the proxy."""

    mode: Literal["DISABLE", "SIMPLE", "MUTUAL", "ISTIO_MUTUAL"] = "DISABLE"
    client_certificate: str = ""
    private_key: str = ""
    ca_certificates: str = ""
    ca_crl: str = ""
    credential_name: str = ""
    subject_alt_names: Many[str] = ()
    sni: str = ""
    insecure_skip_verify: Nullable[bool] = None

    def faults(self) -> Iterator[Fault]:
        """Certificates where the mode needs them, and none where the mesh has its own."""
        if self.insecure_skip_verify and self.mode == "SIMPLE" and (self.ca_certificates or self.subject_alt_names):
            field = "caCertificates" if self.ca_certificates else "subjectAltNames"
            yield Fault((field,), "found it beside insecureSkipVerify: true; needed one of the two", "OneOf")
        files = {
            "clientCertificate": self.client_certificate,
            "privateKey": self.private_key,
            "caCertificates": self.ca_certificates,
            "credentialName": self.credential_name,
        }
        if self.mode == "ISTIO_MUTUAL":
            for field, value in files.items():
                if value:
                    yield Fault(
                        (field,), "found it with mode ISTIO_MUTUAL; needed nothing, for the mesh has its own certificates"
                    )
        if self.credential_name and (self.client_certificate or self.private_key or self.ca_certificates):
            yield Fault(("credentialName",), "found it beside files; needed either credentialName or files", "OneOf")
        if self.mode == "MUTUAL" and not self.credential_name:
            for field in ("clientCertificate", "privateKey"):
                if not files[field]:
                    yield Fault((field,), "found nothing; needed a file, for the mode is MUTUAL (or credentialName)", "Required")


class ProxyProtocol(Schema):
    """Send the PROXY protocol's header first."""

    version: Literal["V1", "V2"] = "V1"


class RetryBudget(Schema):
    """Retries as a share of the active requests."""

    percent: Nullable[Percent] = None
    min_retry_concurrency: UInt32 = 0
    budget_interval: AnyDuration | None = None


class Tunnel(Ruled):
    """Send TCP through a tunnel at the host."""

    protocol: str = ""
    target_host: str
    target_port: UInt32

    def faults(self) -> Iterator[Fault]:
        """CONNECT or POST, to a host and a port."""
        if self.protocol not in ("", "CONNECT", "POST"):
            yield Fault(("protocol",), f'found "{self.protocol}"; needed CONNECT or POST', "BadEnum")
        yield from host_fault(self.target_host, "targetHost")
        if "*" in self.target_host:
            yield Fault(("targetHost",), f'found "{self.target_host}"; needed a host name without wildcards', "BadHost")
        if not 1 <= self.target_port <= 65535:
            yield Fault(("targetPort",), f"found {self.target_port}; needed a port from 1 to 65535")


class PortTrafficPolicy(Schema):
    """What differs for one port."""

    port: PortSelector | None = None
    load_balancer: LoadBalancer | None = None
    connection_pool: ConnectionPool | None = None
    outlier_detection: OutlierDetection | None = None
    tls: ClientTLS | None = None


class TrafficPolicy(Ruled):
    """How requests reach a host; `port_level_settings` replace the rest for their port."""

    load_balancer: LoadBalancer | None = None
    connection_pool: ConnectionPool | None = None
    outlier_detection: OutlierDetection | None = None
    tls: ClientTLS | None = None
    port_level_settings: Annotated[Many[PortTrafficPolicy], Field(max_length=4096)] = ()
    tunnel: Tunnel | None = None
    proxy_protocol: ProxyProtocol | None = None
    retry_budget: RetryBudget | None = None

    def faults(self) -> Iterator[Fault]:
        """Something in it, and a port in each port's settings."""
        if not any(getattr(self, name) for name in type(self).model_fields):
            yield Fault((), "found nothing; needed at least one setting", "Required")
        for index, setting in enumerate(self.port_level_settings):
            if setting.port is None:
                yield Fault(("portLevelSettings", index, "port"), "found nothing; needed port.number", "Required")
        ports = [setting.port.number if setting.port else None for setting in self.port_level_settings]
        yield from distinct(ports, lambda port: port, ("portLevelSettings",), "port")


class Subset(Ruled):
    """A part of the host's endpoints, by labels."""

    name: str
    labels: Map[str] = Field(default_factory=dict)
    traffic_policy: TrafficPolicy | None = None

    def faults(self) -> Iterator[Fault]:
        """A name that fits into a cluster's name."""
        if not self.name or not all(part.isalnum() or part in "-._" for part in self.name):
            yield Fault(("name",), f'found "{self.name}"; needed a name of letters, digits, "-", "." and "_"', "BadName")


class DestinationRuleSpec(Ruled):
    """How requests reach `host`."""

    host: str
    traffic_policy: TrafficPolicy | None = None
    subsets: Many[Subset] = ()
    export_to: Many[str] = ()
    workload_selector: WorkloadSelector | None = None

    def faults(self) -> Iterator[Fault]:
        """A host, and subsets of different names."""
        yield from host_fault(self.host, "host")
        yield from distinct(self.subsets, lambda subset: subset.name, ("subsets",), "name")
        yield from export_to_faults(self.export_to)


class DestinationRule(Object):
    """Istio's DestinationRule."""

    kind: Literal["DestinationRule"] = "DestinationRule"
    spec: DestinationRuleSpec
    status: IstioStatus | None = None
