"""Gateways that show backends a certificate (`spec.tls.backend.clientCertificateRef`) → destinations of their own.

The clusters of destinations are everybody's. Where a BackendTLSPolicy has TLS spoken to a backend, the gateway workloads of
such a Gateway have one more for it, with that certificate, and the Gateway's routes lead there.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from tulle.core.compile.backend_tls import backend_tls
from tulle.core.compile.destinations import Place, destination
from tulle.core.compile.endpoints import endpoints
from tulle.core.compile.gateway_secrets import pair_ref
from tulle.core.compile.gateway_workloads import chosen_workloads
from tulle.core.compile.hostname import Key
from tulle.core.compile.listeners import Fault, certificate_fault
from tulle.core.compile.localities import endpoints_from, is_local, standpoint
from tulle.core.compile.objects import backend_tls_policies, gateways
from tulle.core.compile.services import called, service
from tulle.core.flow import Fetch, table
from tulle.core.model.destination import Destination, DestinationKey, EndpointSet
from tulle.core.model.gateway import SecretRef
from tulle.core.model.route import Route, WeightedDestination

# (gateway workload, its Gateway, destination).
OwnPlace = tuple[Key, Key, Place]


@table
def client_certificate_fault(fetch: Fetch, key: Key) -> Fault | None:
    """What is wrong with the certificate that a Gateway names for backends."""
    row = fetch(gateways, key)
    backend = row.spec.tls.backend if row and row.spec.tls else None
    if backend is None or backend.client_certificate_ref is None:
        return None
    fault = certificate_fault(fetch, key[0], backend.client_certificate_ref, "Gateway")
    return msgspec.structs.replace(fault, path="spec.tls.backend.clientCertificateRef") if fault else None


@table
def client_certificate(fetch: Fetch, key: Key) -> SecretRef | None:
    """The certificate that a Gateway shows to backends; None where it names none, or one that cannot be used."""
    row = fetch(gateways, key)
    said = row.spec.tls.backend.client_certificate_ref if row and row.spec.tls and row.spec.tls.backend else None
    if said is None or fetch(client_certificate_fault, key) is not None:
        return None
    return pair_ref((said.namespace or key[0], said.name))


def shown(fetch: Fetch, gateway: Key, route: Route) -> Route:
    """A route as it is at a Gateway: to the destinations that are shown its certificate."""
    if fetch(client_certificate, gateway) is None:
        return route
    mirrors = tuple(msgspec.structs.replace(one, destination=_own(fetch, gateway, one.destination)) for one in route.mirrors)
    auth = route.auth and msgspec.structs.replace(route.auth, destination=_own(fetch, gateway, route.auth.destination))
    return msgspec.structs.replace(route, destinations=shown_to(fetch, gateway, route.destinations), mirrors=mirrors, auth=auth)


def shown_to(fetch: Fetch, gateway: Key, shares: tuple[WeightedDestination, ...]) -> tuple[WeightedDestination, ...]:
    """The same of the destinations alone."""
    if fetch(client_certificate, gateway) is None:
        return shares
    return tuple(msgspec.structs.replace(one, destination=_own(fetch, gateway, one.destination)) for one in shares)


def _own(fetch: Fetch, gateway: Key, key: DestinationKey) -> DestinationKey:
    named = called(fetch, key.hostname, "")
    if named is None or fetch(backend_tls, (named, key.port)) is None:
        return key
    return msgspec.structs.replace(key, client=_client(gateway))


def _client(gateway: Key) -> str:
    return f"{gateway[0]}/{gateway[1]}"


@table
def own_places(fetch: Fetch, workload: Key) -> tuple[OwnPlace, ...]:
    """The destinations that only a gateway workload has, because it shows them a certificate."""
    showing = [one for one in fetch.keys(gateways) if workload in (fetch(chosen_workloads, one) or ())]
    showing = [one for one in showing if fetch(client_certificate, one) is not None]
    there = tuple(sorted(set(_secured(fetch)))) if showing else ()
    return tuple((workload, gateway, place) for gateway in sorted(showing) for place in there)


def _secured(fetch: Fetch) -> Iterator[Place]:
    """The ports of Services for which there is a BackendTLSPolicy."""
    for key in fetch.keys(backend_tls_policies):
        rule = fetch(backend_tls_policies, key)
        for target in rule.spec.target_refs if rule else ():
            row = fetch(service, (key[0], target.name)) if (target.group, target.kind) == ("", "Service") else None
            for port in row.ports if row else ():
                if fetch(backend_tls, ((key[0], target.name), port.number)) is not None:
                    yield (key[0], target.name), port.number, ""


@table
def own_destination(fetch: Fetch, key: OwnPlace) -> Destination | None:
    """A destination as a Gateway calls it."""
    _workload, gateway, place = key
    found, ref = fetch(destination, place), fetch(client_certificate, gateway)
    if found is None or found.tls is None or ref is None:
        return None
    tls = msgspec.structs.replace(found.tls, certificate=ref.resource)
    return msgspec.structs.replace(found, key=msgspec.structs.replace(found.key, client=_client(gateway)), tls=tls)


@table
def own_endpoints(fetch: Fetch, key: OwnPlace) -> EndpointSet | None:
    """Its endpoints, a resource of their own: Envoy, which has asked for those of the shared one, would wait for ever."""
    workload, gateway, place = key
    here = fetch(standpoint, workload) if is_local(fetch, place) else None
    found = fetch(endpoints_from, (place, here)) if here else fetch(endpoints, place)
    return msgspec.structs.replace(found, key=msgspec.structs.replace(found.key, client=_client(gateway))) if found else None


@table
def own_secrets(fetch: Fetch, workload: Key) -> tuple[SecretRef, ...]:
    """The certificates that a gateway workload shows."""
    refs = (fetch(client_certificate, gateway) for _workload, gateway, _place in fetch(own_places, workload) or ())
    return tuple(dict.fromkeys(ref for ref in refs if ref))
