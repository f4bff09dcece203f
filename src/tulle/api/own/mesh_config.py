"""MeshConfig: what holds for the whole mesh and no standard kind says. Fields are named as in Istio's mesh configuration."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from tulle.api.istio.hosts import destination_fault
from tulle.api.list_types import UNIQUE, keyed
from tulle.api.object import Fault, Object, Ruled, Schema
from tulle.api.own.status import MeshConfigStatus
from tulle.api.rules import exactly_one
from tulle.api.values import (
    DNS_LABEL,
    WORDS,
    AnyDuration,
    Defaulted,
    DnsLabel,
    Duration,
    Many,
    Port,
    PreciseHostname,
    Words,
    seconds,
)

NAME = "mesh"  # the one MeshConfig's name


class OutboundTrafficPolicy(Schema):
    """What happens to calls of names that the mesh does not know: they go out, or they are refused."""

    mode: Defaulted[Literal["ALLOW_ANY", "REGISTRY_ONLY"]] = "ALLOW_ANY"


class ProxySettings(Ruled):
    """How proxies run where no ProxyConfig says otherwise.

    `concurrency` 0 is a worker thread for each core. `drainDuration` is the time that calls have to end when a proxy stops.
    """

    concurrency: Annotated[int, Field(ge=0, le=1024, json_schema_extra={"format": "int32"})] | None = None
    drain_duration: AnyDuration | None = None

    def faults(self) -> Iterator[Fault]:
        """Time goes forward, and a host's shutdown does not wait for hours."""
        if self.drain_duration is not None and not 0 <= seconds(self.drain_duration) <= 3600:
            yield Fault(("drainDuration",), f"found {self.drain_duration}; needed a duration from 0s to 1h", "OutOfRange")


class ServiceProvider(Ruled):
    """A service that proxies ask or tell, by its host name and port."""

    service: Annotated[str, Field(min_length=1, max_length=253)]
    port: Port
    timeout: Duration | None = None

    def faults(self) -> Iterator[Fault]:
        """The host name of a service."""
        for fault in destination_fault(self.service):
            yield fault._replace(at=("service",))


class HTTPAuthorizer(ServiceProvider):
    """A service that answers whether a request may pass, over HTTP. `failOpen` lets requests pass while it is away."""

    path_prefix: Annotated[str, Field(max_length=1024)] = ""
    include_request_headers_in_check: Annotated[Many[str], Field(max_length=64)] = ()
    headers_to_upstream_on_allow: Annotated[Many[str], Field(max_length=64)] = ()
    headers_to_downstream_on_deny: Annotated[Many[str], Field(max_length=64)] = ()
    fail_open: bool = False


class GRPCAuthorizer(ServiceProvider):
    """A service that answers whether a request may pass, over Envoy's gRPC protocol."""

    fail_open: bool = False


class FileLog(Schema):
    """Access logs in a file; `/dev/stdout` is the proxy's own output."""

    path: Defaulted[Annotated[str, Field(min_length=1, max_length=4096)]] = "/dev/stdout"


class Nothing(Schema):
    """Needs no settings."""


class ExtensionProvider(Ruled):
    """Something outside that policies name: AuthorizationPolicy's `provider`, Telemetry's `providers`."""

    name: Annotated[str, Field(min_length=1, max_length=253)]
    envoy_ext_authz_http: HTTPAuthorizer | None = None
    envoy_ext_authz_grpc: GRPCAuthorizer | None = None
    envoy_file_access_log: FileLog | None = None
    envoy_otel_als: ServiceProvider | None = None
    opentelemetry: ServiceProvider | None = None
    prometheus: Nothing | None = None

    def faults(self) -> Iterator[Fault]:
        """One kind of provider."""
        names = (
            "envoyExtAuthzHttp",
            "envoyExtAuthzGrpc",
            "envoyFileAccessLog",
            "envoyOtelAls",
            "opentelemetry",
            "prometheus",
        )
        yield from exactly_one(self, *names)


class MeshConfigSpec(Schema):
    """The mesh's settings. Identities of `trustDomainAliases` count as the mesh's own."""

    trust_domain_aliases: Annotated[Many[PreciseHostname], Field(max_length=64), UNIQUE] = ()
    root_namespace: Annotated[DnsLabel, Words(WORDS[DNS_LABEL])] = "tulle-system"
    outbound_traffic_policy: OutboundTrafficPolicy = OutboundTrafficPolicy()
    default_config: ProxySettings = ProxySettings()
    extension_providers: Annotated[Many[ExtensionProvider], Field(max_length=1000), keyed("name")] = ()


class MeshConfig(Object, Ruled):
    """The configuration of the mesh; there is one, and its name is `mesh`."""

    kind: Literal["MeshConfig"] = "MeshConfig"
    spec: MeshConfigSpec = MeshConfigSpec()
    status: MeshConfigStatus | None = None

    def faults(self) -> Iterator[Fault]:
        """Only one."""
        if self.metadata.name and self.metadata.name != NAME:
            yield Fault(("metadata", "name"), f'found "{self.metadata.name}"; needed {NAME}, for there is only one', "BadName")
