"""Destinations: where a request may be sent (a service's port, or a subset of it), how, and its endpoints."""

from __future__ import annotations

from enum import StrEnum

import msgspec

from tulle.core.model.handshake import USUAL, Handshake
from tulle.core.model.service import Resolution
from tulle.core.model.traffic import (
    ANY_CONNECTIONS,
    ANY_REQUESTS,
    Connections,
    Hash,
    HealthCheck,
    LoadBalancer,
    Outlier,
    ProxyProtocol,
    Requests,
    Tls,
    Utilization,
    Warmup,
)


class DestinationKey(msgspec.Struct, frozen=True, order=True, omit_defaults=True):
    """Names a destination: the service's full `hostname`, the service `port`, and a `subset` ("" for all of it).

    `client`: the Gateway (`namespace/name`) that shows a certificate of its own there; "": nobody in particular. `passing`: TLS
    is passed on there as it is, by its server name.
    """

    hostname: str
    port: int
    subset: str = ""
    client: str = ""
    passing: bool = False

    @property
    def server_name(self) -> str:
        """The server name of mutual TLS there, in Istio's form: `outbound_.9080_.v1_.reviews.default.svc.cluster.local`."""
        return f"outbound_.{self.port}_.{self.subset}_.{self.hostname}"

    @property
    def cluster(self) -> str:
        """The Envoy cluster's name, in Istio's form: `outbound|9080|v1|reviews.default.svc.cluster.local`."""
        if self.passing:
            return self.server_name
        name = f"outbound|{self.port}|{self.subset}|{self.hostname}"
        return f"{name}|{self.client}" if self.client else name


class Transport(StrEnum):
    """MTLS: every endpoint has a sidecar. PLAINTEXT: none has. MIXED: decided per endpoint. TLS: as `Destination.tls` says."""

    MTLS = "mtls"
    PLAINTEXT = "plaintext"
    MIXED = "mixed"
    TLS = "tls"


class Destination(msgspec.Struct, frozen=True, omit_defaults=True):
    """How requests reach a destination. `http2` says that the endpoints' applications themselves speak HTTP/2; `auto` that nobody
    said what they speak, so that their sidecars are told call by call.

    `identities` are the SPIFFE IDs that an endpoint may present, sorted; `connect_timeout` is in seconds. `sni` is another
    server name than the mesh's own. `shared_out`: the places where its endpoints are have shares (`EndpointSet.shares`).
    `endpoints` are those whose names the callers' proxies resolve, by `resolution`; all others are in an `EndpointSet`.
    """

    key: DestinationKey
    http: bool = False
    http2: bool = False
    auto: bool = False
    load_balancer: LoadBalancer = LoadBalancer.LEAST_REQUEST
    transport: Transport = Transport.PLAINTEXT
    identities: tuple[str, ...] = ()
    connect_timeout: float = 10.0
    sni: str = ""
    tls: Tls | None = None
    handshake: Handshake = USUAL
    hash: Hash | None = None
    utilization: Utilization | None = None
    warmup: Warmup | None = None
    connections: Connections = ANY_CONNECTIONS
    requests: Requests = ANY_REQUESTS
    outlier: Outlier | None = None
    check: HealthCheck | None = None
    proxy_protocol: ProxyProtocol = ProxyProtocol.NONE
    shared_out: bool = False
    resolution: Resolution = Resolution.KNOWN
    endpoints: tuple[Endpoint, ...] = ()


class Locality(msgspec.Struct, frozen=True, order=True, omit_defaults=True):
    """Where an endpoint stands; empty strings where nothing was said."""

    region: str = ""
    zone: str = ""
    subzone: str = ""


class Endpoint(msgspec.Struct, frozen=True, order=True, omit_defaults=True):
    """One instance: `address` and `port` as callers reach it, the `workload` (`namespace/name`) behind it, and of what `app` and
    `version` that is.

    `mtls` says that a sidecar answers there. An endpoint that is not `healthy` stays listed and gets no traffic. Those of
    `priority` 0 are taken first, others as far as there are too few healthy ones before. Callers of another `network` go to a
    gateway of that (`compile.network_gateways`); "" is every network.
    """

    address: str
    port: int
    workload: str = ""
    mtls: bool = False
    weight: int = 1
    locality: Locality = Locality()
    healthy: bool = True
    priority: int = 0
    network: str = ""
    app: str = ""
    version: str = ""


class EndpointSet(msgspec.Struct, frozen=True, omit_defaults=True):
    """The endpoints of one destination, sorted; `shares` are weights of places, where those have any."""

    key: DestinationKey
    endpoints: tuple[Endpoint, ...] = ()
    shares: tuple[tuple[Locality, int], ...] = ()
