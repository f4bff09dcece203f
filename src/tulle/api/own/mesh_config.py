"""MeshConfig: what holds for the whole mesh and no standard kind says. Fields are named as in Istio's mesh configuration."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from tulle.api.list_types import UNIQUE, keyed
from tulle.api.object import Fault, Object, Ruled, Schema
from tulle.api.own.providers import DefaultProviders, ExtensionProvider, Nothing
from tulle.api.own.status import MeshConfigStatus
from tulle.api.values import (
    DNS_LABEL,
    WORDS,
    AnyDuration,
    Defaulted,
    DnsLabel,
    Many,
    PreciseHostname,
    Words,
    seconds,
)

CipherSuite = Literal[
    "ECDHE-ECDSA-AES128-GCM-SHA256",
    "ECDHE-RSA-AES128-GCM-SHA256",
    "ECDHE-ECDSA-AES256-GCM-SHA384",
    "ECDHE-RSA-AES256-GCM-SHA384",
    "ECDHE-ECDSA-CHACHA20-POLY1305",
    "ECDHE-RSA-CHACHA20-POLY1305",
]
Curve = Literal["X25519MLKEM768", "X25519", "P-256", "P-384", "P-521"]

NAME = "mesh"  # the one MeshConfig's name


class OutboundTrafficPolicy(Schema):
    """What happens to calls of names that the mesh does not know: they go out, or they are refused."""

    mode: Defaulted[Literal["ALLOW_ANY", "REGISTRY_ONLY"]] = "ALLOW_ANY"


class GatewayTopology(Schema):
    """What stands in front of the gateways, and so whose word about a client they take.

    `numTrustedProxies` is how many proxies add to X-Forwarded-For before a request gets here; `forwardClientCertDetails` what
    becomes of X-Forwarded-Client-Cert; with `proxyProtocol` every connection has to begin with the PROXY protocol.
    """

    num_trusted_proxies: Annotated[int, Field(ge=0, le=2**32 - 1)] = 0
    forward_client_cert_details: Literal[
        "UNDEFINED", "SANITIZE", "FORWARD_ONLY", "APPEND_FORWARD", "SANITIZE_SET", "ALWAYS_FORWARD_ONLY"
    ] = "UNDEFINED"
    proxy_protocol: Nothing | None = None


class RequestLimits(Schema):
    """How large a request may be: Envoy's own limits where nothing is said.

    A header section larger than `maxRequestHeadersKb`, or with more than `maxHeadersCount` headers, is answered 431. A body
    above `maxRequestBytes` is answered 413 by a gateway, which for that holds each request until it is whole.
    """

    max_request_headers_kb: Annotated[int, Field(ge=1, le=8192, json_schema_extra={"format": "int32"})] | None = None
    max_headers_count: Annotated[int, Field(ge=1, le=10_000, json_schema_extra={"format": "int32"})] | None = None
    max_request_bytes: Annotated[int, Field(ge=1, le=2**32 - 1)] | None = None


class ProxySettings(Ruled):
    """How proxies run where no ProxyConfig says otherwise.

    `concurrency` 0 is a worker thread for each core. `drainDuration` is the time that calls have to end when a proxy stops.
    """

    concurrency: Annotated[int, Field(ge=0, le=1024, json_schema_extra={"format": "int32"})] | None = None
    drain_duration: AnyDuration | None = None
    gateway_topology: GatewayTopology = Field(default_factory=GatewayTopology)
    request_limits: RequestLimits = Field(default_factory=RequestLimits)

    def faults(self) -> Iterator[Fault]:
        """Time goes forward, and a host's shutdown does not wait for hours."""
        if self.drain_duration is not None and not 0 <= seconds(self.drain_duration) <= 3600:
            yield Fault(("drainDuration",), f"found {self.drain_duration}; needed a duration from 0s to 1h", "OutOfRange")


class PathNormalization(Schema):
    """In which form proxies compare and pass on paths. DEFAULT is BASE: as RFC 3986 has it, and `\\` is `/`.

    MERGE_SLASHES makes one of several slashes, DECODE_AND_MERGE_SLASHES of escaped ones too; NONE leaves paths as they come.
    """

    normalization: Defaulted[Literal["DEFAULT", "NONE", "BASE", "MERGE_SLASHES", "DECODE_AND_MERGE_SLASHES"]] = "DEFAULT"


class TLSConfig(Schema):
    """What of TLS proxies take part in. TLS 1.3 is spoken wherever both ends can, and below 1.2 nothing is.

    `cipherSuites` are those of TLS 1.2 (1.3 has its own, all of them good); `ecdhCurves` are in the order of preference. Where
    nothing is said both are Envoy's own: ciphers that authenticate what they encrypt, with forward secrecy. Weaker ones cannot
    be chosen for the mesh.
    """

    min_protocol_version: Defaulted[Literal["TLS_AUTO", "TLSV1_2", "TLSV1_3"]] = "TLS_AUTO"
    cipher_suites: Annotated[Many[CipherSuite], Field(max_length=16), UNIQUE] = ()
    ecdh_curves: Annotated[Many[Curve], Field(max_length=16), UNIQUE] = ()


class BundleEndpoint(Ruled):
    """Where a trust domain publishes its bundle ("SPIFFE Federation" §5), and how one knows that it is the right place.

    `https_web`: a certificate for the URL's host of the machine's authorities, or of `caCertificates` (PEM). `https_spiffe`: a
    certificate with `spiffeId`, of the bundle that is known so far.
    """

    url: Annotated[str, Field(pattern=r"^https://[^/@?#\s]+(/[^@?#\s]*)?$", max_length=2048)]
    profile: Defaulted[Literal["https_web", "https_spiffe"]] = "https_web"
    spiffe_id: Annotated[str, Field(max_length=2048)] = ""
    ca_certificates: Annotated[str, Field(max_length=65536)] = ""

    def faults(self) -> Iterator[Fault]:
        """Each profile has what it knows the place by."""
        spiffe = self.profile == "https_spiffe"
        if spiffe and not re.fullmatch(r"spiffe://[a-z0-9._-]{1,255}(/[A-Za-z0-9._-]+)+", self.spiffe_id):
            yield Fault(("spiffeId",), f'found "{self.spiffe_id}"; needed the SPIFFE ID of the endpoint', "Invalid")
        if not spiffe and self.spiffe_id:
            yield Fault(("spiffeId",), "found one; needed none with the profile https_web", "Invalid")
        if spiffe and self.ca_certificates:
            yield Fault(("caCertificates",), "found some; needed none with the profile https_spiffe", "Invalid")


class FederatedTrustDomain(Ruled):
    """Another trust domain, whose identities are believed: those of that domain, and of no other.

    `trustDomainBundle` is its bundle as a SPIFFE document: the first one, where `bundleEndpoint` tells of later ones.
    """

    trust_domain: Annotated[str, Field(pattern="^[a-z0-9._-]+$", min_length=1, max_length=255)]
    bundle_endpoint: BundleEndpoint | None = None
    trust_domain_bundle: Annotated[str, Field(max_length=2**20)] = ""

    def faults(self) -> Iterator[Fault]:
        """There is something to begin with."""
        endpoint, bundle = self.bundle_endpoint, self.trust_domain_bundle
        if endpoint is None and not bundle:
            yield Fault((), "found neither bundleEndpoint nor trustDomainBundle; needed one of them", "OneOf")
        own = f"spiffe://{self.trust_domain}/"
        if endpoint is not None and endpoint.spiffe_id.startswith(own) and not bundle:
            yield Fault(("trustDomainBundle",), "found none; needed the bundle by which the endpoint is known", "Required")


_Exports = Annotated[Many[Literal["*", ".", "~"]], Field(max_length=1)]


class MeshConfigSpec(Schema):
    """The mesh's settings. Identities of `trustDomainAliases` count as the mesh's own.

    `tracePropagators` are the headers by which traces go on, in OpenTelemetry's words: `tracecontext` (W3C) always, and `b3`.

    `defaultServiceExportTo` and its like say who sees what has no `exportTo` of its own: `*` everybody, as without it, `.` its
    own namespace, `~` nobody.

    `meshMTLS` is for mutual TLS between proxies, `tlsDefaults` for TLS with others where a Gateway or rule says nothing else.
    """

    trust_domain_aliases: Annotated[Many[PreciseHostname], Field(max_length=64), UNIQUE] = ()
    default_service_export_to: _Exports = ()
    default_virtual_service_export_to: _Exports = ()
    default_destination_rule_export_to: _Exports = ()
    root_namespace: Annotated[DnsLabel, Words(WORDS[DNS_LABEL])] = "tulle-system"
    outbound_traffic_policy: OutboundTrafficPolicy = Field(default_factory=OutboundTrafficPolicy)
    default_config: ProxySettings = Field(default_factory=ProxySettings)
    path_normalization: PathNormalization = Field(default_factory=PathNormalization)
    mesh_mtls: TLSConfig = Field(default=TLSConfig(), alias="meshMTLS")
    tls_defaults: TLSConfig = Field(default_factory=TLSConfig)
    extension_providers: Annotated[Many[ExtensionProvider], Field(max_length=1000), keyed("name")] = ()
    default_providers: DefaultProviders = Field(default_factory=DefaultProviders)
    trace_propagators: Annotated[Many[Literal["tracecontext", "b3"]], Field(max_length=2), UNIQUE] = ()
    federated_trust_domains: Annotated[Many[FederatedTrustDomain], Field(max_length=64), keyed("trustDomain")] = ()


class MeshConfig(Object, Ruled):
    """The configuration of the mesh; there is one, and its name is `mesh`."""

    kind: Literal["MeshConfig"] = "MeshConfig"
    spec: MeshConfigSpec = Field(default_factory=MeshConfigSpec)
    status: MeshConfigStatus | None = None

    def faults(self) -> Iterator[Fault]:
        """Only one."""
        if self.metadata.name and self.metadata.name != NAME:
            yield Fault(("metadata", "name"), f'found "{self.metadata.name}"; needed {NAME}, for there is only one', "BadName")
