"""RateLimit → the limits of its rules, and for which of its targets each is."""

from __future__ import annotations

from collections.abc import Iterator

from tulle.api.own import RateLimit
from tulle.api.own.rate_limit import ClaimMatch, Key, Match, PathMatch, Rule, SourceMatch, TargetRef
from tulle.api.values import seconds
from tulle.core.compile.endpoints import identity_of, selected
from tulle.core.compile.federation import trust_domains
from tulle.core.compile.hostname import Key as ObjectKey
from tulle.core.compile.objects import rate_limits, settled, workload_entries
from tulle.core.flow import Fetch, table
from tulle.core.model.authorization import Attribute, Clause, Compare, Fact, Term
from tulle.core.model.rate_limit import Counting, KeyKind, Limit, LimitKey, Override, Refusal, Unit

SERVICE = ("", "Service")
GATEWAY = ("gateway.networking.k8s.io", "Gateway")

_KINDS = {kind.value: kind for kind in KeyKind}
_NOBODY = Fact(Attribute.PRINCIPAL, "nobody")


@table
def any_limits(fetch: Fetch, _key: None) -> bool:
    """Whether there is a RateLimit at all: else nobody looks for one."""
    return bool(fetch.keys(rate_limits))


@table
def limits_of(fetch: Fetch, key: ObjectKey) -> tuple[Limit, ...]:
    """The limits of a RateLimit, in the order of its rules."""
    row = fetch(rate_limits, key)
    return tuple(_limit(fetch, row, index, rule) for index, rule in enumerate(row.spec.rules)) if row else ()


def rule_name(rule: Rule, index: int) -> str:
    """How a rule is called: by its name, or its place."""
    return rule.name or str(index)


def _limit(fetch: Fetch, row: RateLimit, index: int, rule: Rule) -> Limit:
    said = rule.refusal
    return Limit(
        id=f"{row.metadata.namespace}/{row.metadata.name}/{rule_name(rule, index)}",
        limit=rule.limit,
        window=seconds(rule.window),
        burst=rule.burst,
        unit=Unit(rule.unit),
        counting=counting(rule),
        matches=_matches(fetch, row.metadata.namespace, rule),
        key=_key(rule.key) if rule.key else None,
        overrides=tuple(
            Override(one.values, one.limit, rule.burst if one.burst is None else one.burst) for one in rule.overrides
        ),
        denies=rule.on_failure == "deny",
        refusal=Refusal(said.status_code, said.headers, said.body, said.content_type),
        shadow=rule.shadow,
    )


def counting(rule: Rule) -> Counting:
    """Who counts."""
    if rule.scope == "local":
        return Counting.LOCAL
    return Counting.EXACT if rule.precision == "exact" else Counting.SHARED


def _key(said: Key) -> LimitKey:
    name: tuple[str, ...] = ()
    if said.header is not None:
        name = (said.header.lower(),)
    if said.claim is not None:
        name = _way(said.claim)
    return LimitKey(_KINDS[said.type], name, said.absent == "Skip")


def _way(claim: str) -> tuple[str, ...]:
    """The way to a claim; a name that is a URL has dots of its own."""
    return (claim,) if "/" in claim else tuple(claim.split("."))


def _matches(fetch: Fetch, namespace: str, rule: Rule) -> tuple[Clause, ...]:
    return tuple(tuple(_terms(fetch, namespace, one)) for one in rule.match)


def _terms(fetch: Fetch, namespace: str, said: Match) -> Iterator[Term]:
    if said.methods:
        yield Term(tuple(Fact(Attribute.HEADER, one, name=(":method",)) for one in said.methods))
    if said.path and (found := _path(said.path)):
        yield Term(found)
    for header in said.headers:
        compare = Compare.EXACT if header.type == "Exact" else Compare.REGEX
        yield Term((Fact(Attribute.HEADER, header.value, compare, (header.name.lower(),)),))
    if said.sources:
        yield Term(tuple(fact for one in said.sources for fact in _source(fetch, namespace, one)))
    yield from (_claim(one) for one in said.claims)


def _path(said: PathMatch) -> tuple[Fact, ...]:
    if said.type == "Exact":
        return (Fact(Attribute.PATH, said.value),)
    if said.type == "RegularExpression":
        return (Fact(Attribute.PATH, said.value, Compare.REGEX),)
    stem = said.value.rstrip("/")
    return (Fact(Attribute.PATH, stem), Fact(Attribute.PATH, f"{stem}/", Compare.PREFIX)) if stem else ()


def _source(fetch: Fetch, namespace: str, said: SourceMatch) -> tuple[Fact, ...]:
    """Callers of a namespace, or with the identity of a Service's workloads; nobody where it has none."""
    space = said.namespace or namespace
    if said.service is None:
        names = (f"spiffe://{domain}/ns/{space}/" for domain in fetch(trust_domains, None) or ())
        return tuple(Fact(Attribute.PRINCIPAL, one, Compare.PREFIX) for one in names)
    entries = (fetch(workload_entries, one) for one in fetch(selected, (space, said.service)) or ())
    domain = settled(fetch).trust_domain
    found = sorted({identity_of(one, domain) for one in entries if one})
    return tuple(Fact(Attribute.PRINCIPAL, one) for one in found) or (_NOBODY,)


def _claim(said: ClaimMatch) -> Term:
    return Term(tuple(Fact(Attribute.CLAIM, value, name=_way(said.name)) for value in said.values))


def asks_who_calls(limit: Limit) -> bool:
    """Whether a limit is for some callers."""
    return any(fact.attribute is Attribute.PRINCIPAL for one in limit.matches for term in one for fact in term.facts)


def is_for(ref: TargetRef, kind: tuple[str, str], name: str) -> bool:
    """Whether a reference is to such an object."""
    return ((ref.group, ref.kind), ref.name) == (kind, name)
