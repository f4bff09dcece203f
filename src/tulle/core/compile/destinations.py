"""Service, its DestinationRules and its endpoints → destinations: one for each port, and for each port and subset."""

from __future__ import annotations

import msgspec

from tulle.core.compile.backend_tls import backend_tls
from tulle.core.compile.callers import ANYBODY, Source
from tulle.core.compile.destination_rules import policy, policy_of, rules_for, rules_of, rules_of_some, shared_subsets, subsets_of
from tulle.core.compile.endpoints import Members, members
from tulle.core.compile.grants import granted
from tulle.core.compile.handshakes import mesh_mtls, tls_defaults
from tulle.core.compile.hostname import Key, full_name
from tulle.core.compile.objects import grpc_routes
from tulle.core.compile.revoked import Revoked, revoked
from tulle.core.compile.services import service
from tulle.core.compile.traffic_policies import Policy
from tulle.core.flow import Fetch, table
from tulle.core.model.destination import Destination, DestinationKey, Transport
from tulle.core.model.handshake import USUAL
from tulle.core.model.service import Protocol, Resolution, Service
from tulle.core.model.tcp_route import PLAIN, Carriage
from tulle.core.model.traffic import LoadBalancer, Localities, Tls, Upgrade

# (service, port, subset): what a `DestinationKey` says, with the Service as the object that it is.
Place = tuple[Key, int, str]


_NOBODY = "revoked"  # a name that no certificate has


@table
def places(fetch: Fetch, key: Key) -> tuple[Place, ...]:
    """The destinations of a Service that all callers have."""
    row = fetch(service, key)
    if row is None:
        return ()
    subsets = ("", *(fetch(shared_subsets, key) or ()))
    return tuple((key, port.number, subset) for port in row.ports for subset in subsets)


@table
def places_of(fetch: Fetch, key: tuple[Key, Source]) -> tuple[Place, ...]:
    """The same as some callers have them, with subsets that are theirs alone."""
    row = fetch(service, key[0])
    subsets = ("", *(fetch(subsets_of, key) or ()))
    return tuple((key[0], port.number, subset) for port in (row.ports if row else ()) for subset in subsets)


def is_private(fetch: Fetch, place: Place) -> bool:
    """Whether only some callers have a destination, for its subset is not everybody's."""
    return bool(place[2]) and place[2] not in (fetch(shared_subsets, place[0]) or ())


def _proving(own: Tls | None, row: Service) -> Tls | None:
    """TLS to endpoints, which must prove to be whom their ServiceEntry names where the rule for TLS names nobody."""
    if own is None or own.names or own.uris or not row.subject_alt_names:
        return own
    uris = tuple(name for name in row.subject_alt_names if "://" in name)
    return msgspec.structs.replace(own, uris=uris, names=tuple(name for name in row.subject_alt_names if name not in uris))


def _identities(found: Members, lost: tuple[str, ...], *, every: bool) -> tuple[str, ...]:
    """Whom endpoints may prove to be: those with a sidecar, or (`every`: a rule has mutual TLS for all, as to a gateway) all of
    them, if it is known of all. Never who has `lost` his identity; where nobody else is left, nobody.
    """
    asked = [who for one, who in found if every or one.mtls]
    if every and not all(asked):
        return ()
    known = {who for who in asked if who}
    return tuple(sorted(known.difference(lost))) or ((_NOBODY,) if known else ())


@table
def carriage(fetch: Fetch, key: tuple[Place, Source]) -> Carriage | None:
    """How connections of some callers are carried to a destination.

    Where its sidecars would take HTTP as well, a connection that carries bytes has to say so. TLS of its own is no sidecar's:
    what it offers by ALPN is for a server that knows nothing of the mesh.
    """
    place, source = key
    service_key, number, _subset = place
    row = fetch(service, service_key)
    port = row.port(number) if row else None
    if port is None:
        return None
    said = fetch(policy_of, (place, source)) or Policy()
    own = fetch(backend_tls, (service_key, number)) or said.tls
    found = Carriage(
        told=port.protocol is Protocol.AUTO and not own,
        idle_timeout=said.tcp_idle_timeout,
        max_duration=said.connections.max_duration,
        tunnel=said.tunnel,
    )
    return PLAIN if found == PLAIN else found


def carriage_of(fetch: Fetch, key: Place, source: Source) -> Carriage:
    """The same, which all callers have in common who have no rules of their own."""
    rules = fetch(rules_of_some, key[0]) or ()
    some = bool(rules) and fetch(rules_of, (key[0], source)) != fetch(rules_for, key[0])
    return fetch(carriage, (key, source if some else ANYBODY)) or PLAIN


@table
def takes_grpc(fetch: Fetch, key: tuple[Key, int]) -> bool:
    """Whether a GRPCRoute that may do so sends to (Service, port): gRPC is HTTP/2, also where nobody declared it."""
    target, number = key
    for route in fetch.keys(grpc_routes, "backend", target):
        row = fetch(grpc_routes, route)
        if row is None or not granted(fetch, "GRPCRoute", route[0], "Service", target):
            continue
        refs = (ref for rule in row.spec.rules for ref in rule.backend_refs)
        if any((ref.namespace or route[0], ref.name, ref.port) == (*target, number) for ref in refs):
            return True
    return False


@table
def destination(fetch: Fetch, key: Place) -> Destination | None:
    """How requests reach (service, port, subset)."""
    said = fetch(policy, key) or Policy()
    return reached(fetch, key, fetch(members, key), said, said.localities)


def reached(fetch: Fetch, key: Place, found: Members | None, said: Policy, near: Localities | None) -> Destination | None:
    """The same with some endpoints under a policy; `near` is what makes of these what all callers at a place have."""
    service_key, number, subset = key
    row = fetch(service, service_key)
    port = row.port(number) if row else None
    if row is None or port is None or found is None:
        return None
    grpc = port.protocol in (Protocol.AUTO, Protocol.TLS) and (fetch(takes_grpc, (service_key, number)) or False)
    requests = said.requests
    if said.tunnel and requests.upgrade is Upgrade.DECLARED:
        # Who asks for a tunnel speaks first, so that there is no caller's version to follow: proxies speak HTTP/1.
        requests = msgspec.structs.replace(requests, upgrade=Upgrade.HTTP1)
    own = _proving(fetch(backend_tls, (service_key, number)) or said.tls, row)
    secured = [endpoint.mtls for endpoint, _identity in found]
    chosen = row.resolution.has_endpoints
    # As long as there are none nothing is sent; mutual TLS is what the first one inside the mesh will most likely want.
    transport = Transport.MIXED if any(secured) else Transport.PLAINTEXT
    if all(secured) and not row.external and chosen:
        transport = Transport.MTLS
    transport = Transport.TLS if own else said.transport or transport
    spoken = None if transport is Transport.PLAINTEXT else fetch(tls_defaults if own else mesh_mtls, None)
    lost = (fetch(revoked, None) or Revoked()).identities
    identities = row.subject_alt_names or _identities(found, lost, every=said.transport is Transport.MTLS)
    asked = () if row.resolution is Resolution.KNOWN else tuple(endpoint for endpoint, _identity in found)
    return Destination(
        key=DestinationKey(full_name(service_key), number, subset),
        resolution=row.resolution,
        endpoints=asked,
        http=port.protocol.is_http or grpc,
        http2=port.protocol in (Protocol.HTTP2, Protocol.GRPC) or grpc,
        auto=port.protocol is Protocol.AUTO and not grpc,
        load_balancer=(said.load_balancer or LoadBalancer.LEAST_REQUEST) if chosen else LoadBalancer.PASSTHROUGH,
        transport=transport,
        identities=said.names or identities,
        connect_timeout=said.connect_timeout if said.connect_timeout is not None else 10.0,
        sni=said.sni,
        tls=own,
        handshake=spoken or USUAL,
        hash=said.hash if chosen else None,
        utilization=said.utilization if chosen else None,
        warmup=said.warmup if chosen else None,
        connections=said.connections,
        requests=requests,
        outlier=said.outlier,
        check=said.check if chosen else None,
        proxy_protocol=said.proxy_protocol,
        # Of names that the proxy asks DNS for, the places are not known.
        shared_out=row.resolution is Resolution.KNOWN and bool(near and (near.distribute or near.zone_aware)),
    )


@table
def gateway_destination(fetch: Fetch, key: Place) -> Destination | None:
    """How gateways reach a destination whose protocol nobody declared, where that is not as sidecars do.

    Who comes to a gateway says nothing of what the application speaks: it is called in HTTP/1, which all speak. An application of
    the mesh knows whom it calls, and is taken at its word.
    """
    found = fetch(destination, key)
    if found is None or not found.auto or found.transport is Transport.TLS or found.requests.upgrade is not Upgrade.DECLARED:
        return None
    return msgspec.structs.replace(found, requests=msgspec.structs.replace(found.requests, upgrade=Upgrade.HTTP1))
