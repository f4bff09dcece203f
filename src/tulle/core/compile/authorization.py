"""AuthorizationPolicy → a policy of the model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from tulle.api.istio import AuthorizationPolicy
from tulle.api.istio.authorization import Condition, Operation, Source
from tulle.core.compile import authorization_facts as facts
from tulle.core.compile.authorization_facts import HIDDEN_DOTS, TWO_HOSTS, Facts, Meaning
from tulle.core.compile.authorizers import authorizer
from tulle.core.compile.federation import Federated, federated, trust_domains
from tulle.core.compile.hostname import Key
from tulle.core.compile.mistakes import sorted_problems, warning
from tulle.core.compile.objects import authorization_policies
from tulle.core.compile.policy_targets import target_problems
from tulle.core.flow import Fetch, table
from tulle.core.model.authorization import Action, Attribute, Authorizer, Clause, Compare, Fact, Policy, Rule, Term
from tulle.kit.problem import Problem

DRY_RUN = "istio.io/dry-run"

# Where paths and hosts decide, those are refused that an application could read as others.
AMBIGUOUS = Policy(
    namespace="",
    name="ambiguous",
    action=Action.DENY,
    of_requests=True,
    rules=tuple(
        Rule(index, operations=((Term((fact,)),),))
        for index, fact in enumerate(
            (
                Fact(Attribute.PATH, HIDDEN_DOTS, Compare.REGEX),
                Fact(Attribute.HEADER, TWO_HOSTS, Compare.REGEX, (":authority",)),
            )
        )
    ),
)


@table
def policy(fetch: Fetch, key: Key) -> Policy | None:
    """What an AuthorizationPolicy says, wherever it is asked."""
    row = fetch(authorization_policies, key)
    if row is None:
        return None
    action = Action(row.spec.action)
    domains: tuple[str, ...] | None = fetch(trust_domains, None)
    foreign: tuple[Federated, ...] = fetch(federated, None) or ()
    meaning = Meaning(key[0], domains or (), federated=bool(foreign))
    rules = tuple(_rule(index, row, meaning, action) for index in range(len(row.spec.rules)))
    looked_at = [fact for rule in rules for term in rule.terms for fact in term.facts]
    named = {fact.name[0] for fact in looked_at if fact.attribute is Attribute.HEADER}
    return Policy(
        namespace=key[0],
        name=key[1],
        action=action,
        rules=rules,
        dry_run=row.metadata.annotations.get(DRY_RUN) == "true",
        provider=row.spec.provider.name if row.spec.provider else "",
        headers=any(not name.startswith(":") for name in named),
        address=":authority" in named or any(fact.attribute is Attribute.PATH for fact in looked_at),
        tokens=any(fact.attribute in (Attribute.CLAIM, Attribute.REQUEST_PRINCIPAL) for fact in looked_at),
    )


def _rule(index: int, row: AuthorizationPolicy, meaning: Meaning, action: Action) -> Rule:
    said = row.spec.rules[index]
    # What takes away must hold for every way to write a request: see `authorization_facts`.
    takes = action in (Action.DENY, Action.CUSTOM)
    at = f"spec.rules[{index}]"
    return Rule(
        index=index,
        sources=tuple(
            _source(one.source, meaning, f"{at}.from[{place}].source") for place, one in enumerate(said.from_ or ()) if one.source
        ),
        operations=tuple(
            _operation(one.operation, takes, f"{at}.to[{place}].operation")
            for place, one in enumerate(said.to or ())
            if one.operation
        ),
        conditions=tuple(
            term for place, one in enumerate(said.when) for term in _condition(one, meaning, takes, f"{at}.when[{place}]")
        ),
    )


def _source(source: Source, meaning: Meaning, at: str) -> Clause:
    domains, space, where = meaning.domains, meaning.namespace, meaning.where
    return _terms(
        at,
        ("principals", facts.principals(source.principals or (), domains), False),
        ("notPrincipals", facts.principals(source.not_principals or (), domains), True),
        ("requestPrincipals", facts.request_principals(source.request_principals), False),
        ("notRequestPrincipals", facts.request_principals(source.not_request_principals), True),
        ("namespaces", facts.namespaces(source.namespaces or (), where), False),
        ("notNamespaces", facts.namespaces(source.not_namespaces or (), where), True),
        ("serviceAccounts", facts.service_accounts(source.service_accounts or (), space, domains), False),
        ("notServiceAccounts", facts.service_accounts(source.not_service_accounts or (), space, domains), True),
        ("trustDomains", facts.trust_domains(source.trust_domains, domains), False),
        ("notTrustDomains", facts.trust_domains(source.not_trust_domains, domains), True),
        ("ipBlocks", facts.networks(Attribute.SOURCE_IP, source.ip_blocks), False),
        ("notIpBlocks", facts.networks(Attribute.SOURCE_IP, source.not_ip_blocks), True),
        ("remoteIpBlocks", facts.networks(Attribute.REMOTE_IP, source.remote_ip_blocks), False),
        ("notRemoteIpBlocks", facts.networks(Attribute.REMOTE_IP, source.not_remote_ip_blocks), True),
    )


def _operation(operation: Operation, takes: bool, at: str) -> Clause:
    return _terms(
        at,
        ("hosts", facts.hosts(operation.hosts), False),
        ("notHosts", facts.hosts(operation.not_hosts), True),
        ("ports", facts.ports(operation.ports), False),
        ("notPorts", facts.ports(operation.not_ports), True),
        ("methods", facts.methods(operation.methods, broad=takes), False),
        ("notMethods", facts.methods(operation.not_methods, broad=not takes), True),
        ("paths", facts.paths(operation.paths, broad=takes), False),
        ("notPaths", facts.paths(operation.not_paths, broad=not takes), True),
    )


def _condition(one: Condition, meaning: Meaning, takes: bool, at: str) -> Clause:
    return _terms(
        at,
        ("values", meaning.condition(one.key, one.values, takes) if one.values else (), False),
        ("notValues", meaning.condition(one.key, one.not_values, not takes) if one.not_values else (), True),
    )


def _terms(at: str, *said: tuple[str, Facts, bool]) -> Clause:
    return tuple(Term(found, invert, f"{at}.{field}") for field, found, invert in said if found)


@table
def authorization_policy_problems(fetch: Fetch, key: Key) -> tuple[Problem, ...]:
    """What of a policy cannot be told of any request, and what that does."""
    row, made = fetch(authorization_policies, key), fetch(policy, key)
    if row is None or made is None:
        return ()
    return sorted_problems(_problems(fetch, row, made))


def _problems(fetch: Fetch, row: AuthorizationPolicy, made: Policy) -> Iterator[Problem]:
    effect = "in doubt the rule holds, and the request is denied" if made.action in _TAKING else "the rule never holds"
    for rule in made.rules:
        for term in rule.terms:
            if any(fact.attribute is Attribute.UNKNOWN for fact in term.facts):
                message = f"found something that no proxy here can tell of a request; {effect}"
                yield warning(row.ref, term.field, "NotHonoured", message)
    yield from target_problems(fetch, row)
    if made.action is not Action.CUSTOM:
        return
    found = fetch(authorizer, made.provider)
    if made.dry_run:
        yield warning(row.ref, "spec.action", "NotHonoured", "nobody is asked in a dry run; the policy has no effect")
    elif found is None:
        message = f"found {made.provider}; needed envoyExtAuthzHttp or envoyExtAuthzGrpc of the MeshConfig's extensionProviders"
        yield warning(row.ref, "spec.provider.name", "NotHonoured", f"{message}: what the policy matches is denied")
    elif isinstance(found, Problem):
        message = f"{made.provider} cannot be asked ({found.message}): what the policy matches is denied"
        yield warning(row.ref, "spec.provider.name", "NotHonoured", message)


_TAKING = (Action.DENY, Action.CUSTOM)


def guarding(fetch: Fetch, keys: Sequence[Key]) -> tuple[Policy, ...]:
    """The policies of these names as they are asked, with what they need beside them."""
    custom = Action.CUSTOM
    found = [one for key in keys if (one := fetch(policy, key)) and not (one.dry_run and one.action is custom)]
    if any(one.address and not one.dry_run for one in found):
        found.append(AMBIGUOUS)
    apart: dict[Action, list[Policy]] = {action: [] for action in Action}
    for one in found:
        apart[one.action].append(one)
    return tuple(one for some in apart.values() for one in some)


def authorizers_of(fetch: Fetch, policies: Sequence[Policy]) -> tuple[Authorizer, ...]:
    """Those whom the policies ask, by name; without those who cannot be asked."""
    names = sorted({one.provider for one in policies if one.provider and one.action is Action.CUSTOM})
    return tuple(found for name in names if isinstance(found := fetch(authorizer, name), Authorizer))
