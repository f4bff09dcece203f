"""MeshConfig → the trust domains whose identities are believed beside the mesh's own, and where their bundles are to be had."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from tulle.api.own.mesh_config import MeshConfig
from tulle.core.compile.objects import mesh_configs, settled
from tulle.core.flow import Fetch, table
from tulle.kit.problem import Problem


class Federated(msgspec.Struct, frozen=True):
    """A trust domain: the bundle to begin with ("": none), and where later ones are (`url` "": nowhere), as MeshConfig says."""

    trust_domain: str
    bundle: str = ""
    url: str = ""
    profile: str = ""
    spiffe_id: str = ""
    ca_certificates: str = ""


@table
def trust_domains(fetch: Fetch, _key: None) -> tuple[str, ...]:
    """The names of the mesh's trust domain: its own first, then its aliases."""
    aliases = (alias for config in fetch.rows(mesh_configs) for alias in config.spec.trust_domain_aliases)
    return tuple(dict.fromkeys((settled(fetch).trust_domain, *aliases)))


@table
def federated(fetch: Fetch, _key: None) -> tuple[Federated, ...]:
    """The trust domains that the mesh is federated with, none of which is its own."""
    own: tuple[str, ...] = fetch(trust_domains, None) or ()
    found = {one.trust_domain: one for row in fetch.rows(mesh_configs) for one in row.spec.federated_trust_domains}
    return tuple(
        Federated(
            trust_domain=name,
            bundle=said.trust_domain_bundle,
            url=at.url if (at := said.bundle_endpoint) else "",
            profile=at.profile if at else "",
            spiffe_id=at.spiffe_id if at else "",
            ca_certificates=at.ca_certificates if at else "",
        )
        for name, said in sorted(found.items())
        if name not in own
    )


def believed(fetch: Fetch) -> tuple[str, ...]:
    """How the SPIFFE IDs begin that may come in by mutual TLS, beside those of the mesh's own trust domain: under its other names
    workloads, of other trust domains whatever these call so.
    """
    others: tuple[Federated, ...] = fetch(federated, None) or ()
    names: tuple[str, ...] = fetch(trust_domains, None) or ()
    return (*(f"spiffe://{name}/ns/" for name in names[1:]), *(f"spiffe://{one.trust_domain}/" for one in others))


def federation_problems(fetch: Fetch, row: MeshConfig) -> Iterator[Problem]:
    """A trust domain that is the mesh's own, and a bundle that is none."""
    if not row.spec.federated_trust_domains:
        return
    from tulle.core.trust_bundle import parse  # the libraries of certificates: `tulle analyze` of other files needs none

    own = {settled(fetch).trust_domain, *row.spec.trust_domain_aliases}
    for index, one in enumerate(row.spec.federated_trust_domains):
        path = f"spec.federatedTrustDomains[{index}]"
        if one.trust_domain in own:
            message = f"found {one.trust_domain}, which is the mesh's own; needed another one"
            yield Problem(row.ref, f"{path}.trustDomain", "OwnTrustDomain", message)
        try:
            if one.trust_domain_bundle:
                parse(one.trust_domain_bundle, one.trust_domain)
        except ValueError as error:
            yield Problem(row.ref, f"{path}.trustDomainBundle", "BadBundle", str(error))
