"""Who may call: the policies of a guard and a call → allowed or denied, and by which rule. As Envoy's RBAC filters decide."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import msgspec

from tulle.core.evaluate.expressions import full_match
from tulle.core.evaluate.request import Request
from tulle.core.model.authorization import (
    HTTP,
    TCP,
    Action,
    Attribute,
    Authorization,
    Clause,
    Compare,
    Fact,
    Policy,
    Rule,
    Term,
    told,
)
from tulle.core.networks import inside


class Call(msgspec.Struct, frozen=True):
    """A connection, and the request on it (None: its bytes are not looked into) with the claims of its token.

    `principal` is the SPIFFE ID that mutual TLS has shown, "" for none.
    """

    principal: str = ""
    source_ip: str = "127.0.0.1"
    remote_ip: str = "127.0.0.1"
    destination_ip: str = "127.0.0.1"
    destination_port: int = 0
    sni: str = ""
    request: Request | None = None
    claims: Mapping[str, Any] | None = None


class Question(msgspec.Struct, frozen=True):
    """Somebody is asked: `authorizer`, by a policy (`namespace/name`) and its rule, the `field`."""

    authorizer: str
    policy: str
    field: str


class Verdict(msgspec.Struct, frozen=True, omit_defaults=True):
    """What becomes of a call. `policy` is `namespace/name` of the one that decided, "" where none did; `field` its rule.

    `asked` are the policies that allow something, and not this; `trials` what dry runs would have done. Where somebody else is
    asked (`questions`), a call that is allowed only passes if all of them allow it too.
    """

    allowed: bool
    policy: str = ""
    field: str = ""
    action: Action | None = None
    asked: tuple[str, ...] = ()
    trials: tuple[str, ...] = ()
    questions: tuple[Question, ...] = ()


def judge(row: Authorization, call: Call) -> Verdict:
    """Whether the policies of a guard let a call pass."""
    trials = tuple(_trials(row, call))
    if found := _first(row, _enforced(row, Action.DENY, call), call):
        policy, rule = found
        return Verdict(False, _name(policy), _field(rule), policy.action, trials=trials)
    questions = tuple(_questions(row, call))
    allowing = _enforced(row, Action.ALLOW, call)
    if found := _first(row, allowing, call):
        policy, rule = found
        return Verdict(True, _name(policy), _field(rule), policy.action, trials=trials, questions=questions)
    allowed = not allowing
    return Verdict(allowed, asked=tuple(map(_name, allowing)), trials=trials, questions=questions if allowed else ())


def _enforced(row: Authorization, action: Action, call: Call) -> list[Policy]:
    return [policy for policy in row.having(action, _kind(call)) if not policy.dry_run]


def _questions(row: Authorization, call: Call) -> Iterator[Question]:
    """Who is asked, and by which rule: by the first one that holds."""
    custom = _enforced(row, Action.CUSTOM, call)
    for name in dict.fromkeys(policy.provider for policy in custom):
        if found := _first(row, [policy for policy in custom if policy.provider == name], call):
            yield Question(name, _name(found[0]), _field(found[1]))


def _field(rule: Rule) -> str:
    return f"spec.rules[{rule.index}]"


def _kind(call: Call) -> str:
    return TCP if call.request is None else HTTP


def _trials(row: Authorization, call: Call) -> Iterable[str]:
    """What dry runs would have done, in words."""
    for action in (Action.DENY, Action.ALLOW):
        tried = [one for one in row.policies if one.dry_run and one.action is action]
        found = _first(row, tried, call)
        if found:
            yield f"{_name(found[0])} would have {'denied' if action is Action.DENY else 'allowed'} it"
        elif tried and action is Action.ALLOW:
            yield f"{', '.join(map(_name, tried))} would have denied it"


def _name(policy: Policy) -> str:
    return f"{policy.namespace}/{policy.name}" if policy.namespace else policy.name


def _first(row: Authorization, policies: Iterable[Policy], call: Call) -> tuple[Policy, Rule] | None:
    kind = _kind(call)
    other: dict[int, list[int]] = {}
    for said, bound in row.ports:
        other.setdefault(said, []).append(bound)
    judged = call if not row.guard.strangers else msgspec.structs.replace(call, principal="")
    for policy in policies:
        for one in policy.rules:
            rule = told(one, policy.action, kind)
            if rule is not None and _rule_holds(rule, judged, other):
                return policy, one
    return None


def _rule_holds(rule: Rule, call: Call, other: Mapping[int, list[int]]) -> bool:
    def any_of(clauses: tuple[Clause, ...]) -> bool:
        return not clauses or any(all(_term_holds(term, call, other) for term in clause) for clause in clauses)

    return any_of(rule.sources) and any_of(rule.operations) and any_of((rule.conditions,))


def _term_holds(term: Term, call: Call, other: Mapping[int, list[int]]) -> bool:
    return any(_holds(fact, call, other) for fact in term.facts) is not term.invert


def _holds(fact: Fact, call: Call, other: Mapping[int, list[int]]) -> bool:
    match fact.attribute:
        case Attribute.SOURCE_IP:
            return inside(call.source_ip, fact.value)
        case Attribute.REMOTE_IP:
            return inside(call.remote_ip, fact.value)
        case Attribute.DESTINATION_IP:
            return inside(call.destination_ip, fact.value)
        case Attribute.DESTINATION_PORT:
            return call.destination_port in (int(fact.value), *other.get(int(fact.value), ()))
        case Attribute.HEADER:
            values = call.request.header(fact.name[0]) if call.request else ()
            return bool(values) if fact.compare is Compare.PRESENT else any(_compared(fact, value) for value in values)
    return any(_compared(fact, text) for text in _texts(fact, call))


def _texts(fact: Fact, call: Call) -> Iterable[str]:
    """The texts that an attribute has."""
    match fact.attribute:
        case Attribute.PRINCIPAL:
            return [call.principal] if call.principal else []
        case Attribute.SNI:
            return [call.sni]
        case Attribute.PATH:
            return [call.request.bare_path] if call.request else []
        case Attribute.REQUEST_PRINCIPAL:
            who = [(call.claims or {}).get(name) for name in ("iss", "sub")]
            return ["/".join(map(str, who))] if all(isinstance(one, str) and one for one in who) else []
        case Attribute.CLAIM:
            found: Any = call.claims or {}
            for step in fact.name:
                found = found.get(step) if isinstance(found, Mapping) else None
            return [one for one in (found if isinstance(found, list) else [found]) if isinstance(one, str)]
    return []


def _compared(fact: Fact, text: str) -> bool:
    match fact.compare:
        case Compare.EXACT:
            return text == fact.value
        case Compare.PREFIX:
            return text.startswith(fact.value)
        case Compare.SUFFIX:
            return text.endswith(fact.value)
        case Compare.PRESENT:
            return bool(text)
        case Compare.REGEX:
            return full_match(fact.value, text)
