"""What every proxy of the mesh trusts: the bundle of its authority, and those of other trust domains. Both come from outside."""

from __future__ import annotations

import msgspec

from tulle.core.compile.federation import Federated, federated, trust_domains
from tulle.core.flow import Fetch, Input, table
from tulle.core.model.roots import Roots


class Given(msgspec.Struct, frozen=True):
    """Certificates in PEM: the mesh's own, and by trust domain those of others."""

    bundle: str
    others: tuple[tuple[str, str], ...] = ()


given: Input[str, Given] = Input("given_roots")


@table
def roots(fetch: Fetch, _key: None) -> Roots | None:
    """The roots; None where the control plane gives none, and nodes use those that came with their certificates."""
    found = fetch(given, "")
    if found is None:
        return None
    names: tuple[str, ...] = fetch(trust_domains, None) or ()
    known: tuple[Federated, ...] = fetch(federated, None) or ()
    wanted = {one.trust_domain for one in known}
    others = [(name, pem) for name, pem in found.others if name in wanted and pem]
    if not others and len(names) < 2:
        return Roots(found.bundle)
    return Roots(found.bundle, tuple(sorted([*((name, found.bundle) for name in names), *others])))
