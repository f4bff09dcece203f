"""Who has lost an identity: a policy before all others denies him wherever he calls, and nobody calls him."""

from __future__ import annotations

import msgspec

from tulle.core.flow import Fetch, Input, table
from tulle.core.model.authorization import Action, Attribute, Fact, Policy, Rule, Term


class Revoked(msgspec.Struct, frozen=True, omit_defaults=True):
    """SPIFFE IDs that are nobody's any more, and certificates by the SHA-256 of their DER in hex; both sorted.

    `cut` becomes another number when connections that stand are to end.
    """

    identities: tuple[str, ...] = ()
    certificates: tuple[str, ...] = ()
    cut: int = 0


given: Input[str, Revoked] = Input("given_revocations")


@table
def revoked(fetch: Fetch, _key: None) -> Revoked:
    """What is revoked now."""
    return fetch(given, "") or Revoked()


@table
def revoked_policies(fetch: Fetch, _key: None) -> tuple[Policy, ...]:
    """The policies that stand before everything because of it."""
    said = fetch(revoked, None) or Revoked()
    facts = {
        "identity": tuple(Fact(Attribute.PRINCIPAL, one) for one in said.identities),
        "certificate": tuple(Fact(Attribute.CERTIFICATE, one) for one in said.certificates),
    }
    return tuple(
        Policy(namespace="", name=f"revoked-{what}", action=Action.DENY, rules=(Rule(0, sources=((Term(found),),)),))
        for what, found in facts.items()
        if found
    )
