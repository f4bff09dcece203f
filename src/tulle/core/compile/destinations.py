"""Service, its DestinationRules and its endpoints → destinations: one for each port, and for each port and subset."""

from __future__ import annotations

import msgspec

from tulle.core.compile.backend_tls import backend_tls
from tulle.core.compile.destination_rules import policy, subset_labels
from tulle.core.compile.endpoints import members
from tulle.core.compile.hostname import Key, full_name
from tulle.core.compile.services import service
from tulle.core.compile.traffic_policies import Policy
from tulle.core.flow import Fetch, table
from tulle.core.model.destination import Destination, DestinationKey, Transport
from tulle.core.model.service import Protocol, Resolution, Service
from tulle.core.model.traffic import LoadBalancer, Tls

# (service, port, subset): what a `DestinationKey` says, with the Service as the object that it is.
Place = tuple[Key, int, str]


@table
def places(fetch: Fetch, key: Key) -> tuple[Place, ...]:
    """Every destination of a Service."""
    row = fetch(service, key)
    if row is None:
        return ()
    labels = fetch(subset_labels, key)
    subsets = ("", *sorted(labels or ()))
    return tuple((key, port.number, subset) for port in row.ports for subset in subsets)


def _proving(own: Tls | None, row: Service) -> Tls | None:
    """TLS to endpoints, which must prove to be whom their ServiceEntry names where the rule for TLS names nobody."""
    if own is None or own.names or own.uris or not row.subject_alt_names:
        return own
    uris = tuple(name for name in row.subject_alt_names if "://" in name)
    return msgspec.structs.replace(own, uris=uris, names=tuple(name for name in row.subject_alt_names if name not in uris))


@table
def told(fetch: Fetch, key: Place) -> bool:
    """Whether a connection that carries bytes to a destination has to say so: where its sidecars would take HTTP as well."""
    service_key, number, _subset = key
    row = fetch(service, service_key)
    port = row.port(number) if row else None
    if port is None or port.protocol is not Protocol.AUTO:
        return False
    # TLS of its own is no sidecar's: what it offers by ALPN is for a server that knows nothing of the mesh.
    return not fetch(backend_tls, (service_key, number)) and (fetch(policy, key) or Policy()).tls is None


@table
def destination(fetch: Fetch, key: Place) -> Destination | None:
    """How requests reach (service, port, subset)."""
    service_key, number, subset = key
    row = fetch(service, service_key)
    port = row.port(number) if row else None
    found = fetch(members, key)
    if row is None or port is None or found is None:
        return None
    said = fetch(policy, key) or Policy()
    own = _proving(fetch(backend_tls, (service_key, number)) or said.tls, row)
    secured = [endpoint.mtls for endpoint, _identity in found]
    # Without endpoints nothing is sent; mutual TLS is what the first endpoint inside the mesh will most likely want.
    transport = Transport.MIXED if any(secured) else Transport.PLAINTEXT
    if all(secured) and not row.external:
        transport = Transport.MTLS
    identities = row.subject_alt_names or tuple(sorted({who for one, who in found if one.mtls and who}))
    asked = () if row.resolution is Resolution.KNOWN else tuple(endpoint for endpoint, _identity in found)
    original = row.resolution is Resolution.ORIGINAL
    return Destination(
        key=DestinationKey(full_name(service_key), number, subset),
        resolution=row.resolution,
        endpoints=asked,
        http=port.protocol.is_http,
        http2=port.protocol in (Protocol.HTTP2, Protocol.GRPC),
        auto=port.protocol is Protocol.AUTO,
        load_balancer=LoadBalancer.PASSTHROUGH if original else said.load_balancer or LoadBalancer.LEAST_REQUEST,
        transport=Transport.TLS if own else said.transport or transport,
        identities=said.names or identities,
        connect_timeout=said.connect_timeout if said.connect_timeout is not None else 10.0,
        sni=said.sni,
        tls=own,
        hash=None if original else said.hash,
        warmup=None if original else said.warmup,
        connections=said.connections,
        requests=said.requests,
        outlier=said.outlier,
        proxy_protocol=said.proxy_protocol,
        # Of names that the proxy asks DNS for, the places are not known.
        shared_out=row.resolution is Resolution.KNOWN and bool(said.localities and said.localities.distribute),
    )
