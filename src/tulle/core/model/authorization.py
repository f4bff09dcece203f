"""Authorization: which policies guard what a workload is called at, and what each of their rules asks of a request.

A rule is three lists of clauses as AuthorizationPolicy has them: one of its `sources`, one of its `operations` and all of its
`conditions` must hold. A clause holds where all of its terms do; a term where one of its facts does (`invert`: none of them).
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum

import msgspec

from tulle.core.model.external_auth import ExternalAuth


class Action(StrEnum):
    """What a policy does with the requests that it matches. They are asked in the order of this list, as Istio does it."""

    CUSTOM = "CUSTOM"
    AUDIT = "AUDIT"
    DENY = "DENY"
    ALLOW = "ALLOW"


class Attribute(StrEnum):
    """What of a request is looked at. UNKNOWN: something that no proxy here can tell."""

    PRINCIPAL = "principal"  # the SPIFFE ID of the caller
    CERTIFICATE = "certificate"  # the SHA-256 of the caller's certificate, in hex; stands alone in its rule
    SOURCE_IP = "source.ip"
    REMOTE_IP = "remote.ip"
    DESTINATION_IP = "destination.ip"
    DESTINATION_PORT = "destination.port"
    SNI = "connection.sni"
    HEADER = "header"  # `:authority` and `:method` too
    PATH = "path"  # without the query
    REQUEST_PRINCIPAL = "request.auth.principal"  # ISSUER/SUBJECT of a token
    CLAIM = "request.auth.claims"
    UNKNOWN = "unknown"


# What only HTTP requests have.
HTTP_ONLY = frozenset({Attribute.HEADER, Attribute.PATH, Attribute.REQUEST_PRINCIPAL, Attribute.CLAIM})


class Compare(StrEnum):
    """How texts are compared. Regexes are RE2 and match the whole text; PRESENT is any text but an empty one."""

    EXACT = "exact"
    PREFIX = "prefix"
    SUFFIX = "suffix"
    REGEX = "regex"
    PRESENT = "present"


class Fact(msgspec.Struct, frozen=True, omit_defaults=True):
    """An attribute has a value. `name` is the header's, or the way to a claim. Addresses are networks, compared as such."""

    attribute: Attribute
    value: str = ""
    compare: Compare = Compare.EXACT
    name: tuple[str, ...] = ()


class Term(msgspec.Struct, frozen=True, omit_defaults=True):
    """One of the facts holds; with `invert` none of them. `field` is the path in the object that says it."""

    facts: tuple[Fact, ...]
    invert: bool = False
    field: str = ""


Clause = tuple[Term, ...]


class Rule(msgspec.Struct, frozen=True, omit_defaults=True):
    """Requests from one of `sources` for one of `operations` under all `conditions`; a list that is empty asks nothing.

    `index` is its place in the object.
    """

    index: int
    sources: tuple[Clause, ...] = ()
    operations: tuple[Clause, ...] = ()
    conditions: Clause = ()

    @property
    def terms(self) -> tuple[Term, ...]:
        """All that it asks."""
        return (*(term for clause in (*self.sources, *self.operations) for term in clause), *self.conditions)


class Policy(msgspec.Struct, frozen=True, omit_defaults=True, cache_hash=True):
    """An AuthorizationPolicy. `dry_run`: what it would have done is counted and logged, and it does nothing.

    `headers`, `address`, `tokens`: whether it looks at headers, at the path or the host of requests, and at what tokens say.
    `provider` is whom a CUSTOM one asks; `of_requests`: it says nothing of connections whose bytes are not looked into.
    """

    namespace: str
    name: str
    action: Action
    rules: tuple[Rule, ...] = ()
    dry_run: bool = False
    provider: str = ""
    headers: bool = False
    address: bool = False
    tokens: bool = False
    of_requests: bool = False

    def rule_name(self, rule: Rule) -> str:
        """The name of a rule in logs, as Istio writes it."""
        return f"ns[{self.namespace}]-policy[{self.name}]-rule[{rule.index}]"


class TokenPlace(msgspec.Struct, frozen=True, omit_defaults=True):
    """Where a request has a token: in a `header`, after a prefix, in a `param` of the query, or in a `cookie`."""

    kind: str
    name: str
    prefix: str = ""


class TokenRule(msgspec.Struct, frozen=True, omit_defaults=True):
    """Tokens of an `issuer` ("": of any) for one of `audiences` (none: for any), signed by one of `keys` (a JSON Web Key Set).

    Without `places` they are looked for where tokens usually are. A token that is there has to be good; `required`: one has to
    be there. What it says goes on as `payload_header` and `claim_headers` (claim, header), itself only with `forward`. `spaced`
    are claims whose text is a list of words.
    """

    name: str
    issuer: str = ""
    audiences: tuple[str, ...] = ()
    keys: str = ""
    places: tuple[TokenPlace, ...] = ()
    forward: bool = False
    payload_header: str = ""
    claim_headers: tuple[tuple[str, str], ...] = ()
    required: bool = False
    spaced: tuple[str, ...] = ()


class Authorizer(msgspec.Struct, frozen=True):
    """Somebody who is asked, by the name that policies have for him."""

    name: str
    asks: ExternalAuth


class Asking(msgspec.Struct, frozen=True, order=True, omit_defaults=True):
    """There are policies that ask an authorizer. `late`: after the tokens are checked, for they look at these.

    `grpc`: he can be asked for connections whose bytes are not looked into, too.
    """

    authorizer: str
    grpc: bool = False
    late: bool = False


class Guard(msgspec.Struct, frozen=True, order=True, omit_defaults=True):
    """What stands before a port, always: tokens are checked, then policies deny and allow, as resources named after `name` say.
    Before these those are asked that CUSTOM policies name (`asking`).

    Without a policy these ask nothing; so the first one, and the end of the last, reach connections that stand. `headers`:
    policies look at headers, so that no name may pass that an application could take for another. `strangers`: what the callers'
    certificates say is nobody's word, or that of an authority other than the mesh's: they have no identity. `audit`: there are
    policies that only take notes.
    """

    name: str = ""
    headers: bool = False
    strangers: bool = False
    audit: bool = False
    asking: tuple[Asking, ...] = ()

    @property
    def actions(self) -> tuple[Action, ...]:
        """What has a filter, in the order in which they are asked."""
        return (Action.AUDIT, Action.DENY, Action.ALLOW) if self.audit else (Action.DENY, Action.ALLOW)

    def resource(self, action: Action, kind: str) -> str:
        """The name of the resource with the policies of an action, for HTTP or TCP."""
        return self._named(f"authz-{action.lower()}-{kind}")

    @property
    def early(self) -> str:
        """The name of the resource that ends connections of those who are shut out before they say anything."""
        return self._named("authz-early")

    def question(self, asking: Asking, kind: str) -> str:
        """The name of the resource that tells the requests, or connections, for which somebody is asked."""
        return self._named(f"authz-custom-{kind}-{asking.authorizer}")

    def answer(self, asking: Asking, kind: str) -> str:
        """The name of the resource that says how he is asked."""
        return self._named(f"ext-authz-{kind}-{asking.authorizer}")

    @property
    def outside(self) -> Guard:
        """The same before callers whose certificates, if any, are not the mesh's."""
        return OPEN_TO_STRANGERS if self == OPEN else msgspec.structs.replace(self, strangers=True)

    @property
    def token_resource(self) -> str:
        """The name of the resource with the rules for tokens."""
        return self._named("tokens")

    def _named(self, what: str) -> str:
        named = f"{what}~{self.name}" if self.name else what
        return f"{named}~strangers" if self.strangers else named


# Where no policy stands.
OPEN = Guard()
OPEN_TO_STRANGERS = Guard(strangers=True)


# The cluster of those who are shut out before they say anything: no connection is ever made there.
NOWHERE = "NowhereCluster"

# What policies are asked of: requests, or connections whose bytes are not looked into.
HTTP, TCP = "http", "tcp"


class Authorization(msgspec.Struct, frozen=True, omit_defaults=True):
    """The policies of a guard, sorted by action, then the oldest first.

    `ports`: a port as callers or the application know it, and the one that the proxy has for it, where these differ.
    """

    guard: Guard
    policies: tuple[Policy, ...] = ()
    tokens: tuple[TokenRule, ...] = ()
    ports: tuple[tuple[int, int], ...] = ()
    authorizers: tuple[Authorizer, ...] = ()

    def places(self, action: Action, kind: str) -> list[int]:
        """Where among `policies` those are that do this to requests, or to connections of a kind: where none can be asked, CUSTOM
        denies.
        """
        found = [at for at, one in enumerate(self.policies) if one.action is action]
        if action is Action.CUSTOM:
            found = [at for at in found if can_ask(self.authorizers, self.policies[at].provider, kind)]
        elif action is Action.DENY:
            custom = [at for at, one in enumerate(self.policies) if one.action is Action.CUSTOM]
            unasked = {at for at in custom if not can_ask(self.authorizers, self.policies[at].provider, kind)}
            found = sorted({*found, *unasked}) if unasked else found
        return found if kind == HTTP else [at for at in found if not self.policies[at].of_requests]

    def having(self, action: Action, kind: str) -> list[Policy]:
        """The policies at these places."""
        return [self.policies[at] for at in self.places(action, kind)]


def can_ask(authorizers: Sequence[Authorizer], name: str, kind: str) -> bool:
    """Whether one of them can be asked for connections of a kind."""
    return any(one.name == name and (kind == HTTP or one.asks.grpc) for one in authorizers)


def told(rule: Rule, action: Action, kind: str) -> Rule | None:
    """A rule without what cannot be told of a connection of that kind; None where it can hold for none.

    A rule that allows and asks for such a thing never holds. One that denies holds without being asked: in doubt nobody passes.
    (For fields of HTTP on TCP ports that is Istio's rule too.)
    """
    if not any(_untold(term, kind) for term in rule.terms):
        return rule
    if action in (Action.ALLOW, Action.AUDIT):
        kept = [
            tuple(clause for clause in clauses if not _any_untold(clause, kind)) for clauses in (rule.sources, rule.operations)
        ]
        lost = (rule.sources and not kept[0]) or (rule.operations and not kept[1])
        if lost or _any_untold(rule.conditions, kind):
            return None
        return msgspec.structs.replace(rule, sources=kept[0], operations=kept[1])
    return msgspec.structs.replace(
        rule,
        sources=tuple(_without(clause, kind) for clause in rule.sources),
        operations=tuple(_without(clause, kind) for clause in rule.operations),
        conditions=_without(rule.conditions, kind),
    )


def _any_untold(clause: Clause, kind: str) -> bool:
    return any(_untold(term, kind) for term in clause)


def _without(clause: Clause, kind: str) -> Clause:
    return tuple(term for term in clause if not _untold(term, kind))


def _untold(term: Term, kind: str) -> bool:
    missing = HTTP_ONLY if kind == TCP else frozenset()
    return any(fact.attribute is Attribute.UNKNOWN or fact.attribute in missing for fact in term.facts)
