"""Guards → what is decided of connections before their caller has said a word: a server that speaks first is not heard by
those who are shut out.

Envoy's RBAC filter asks when the first bytes come. What a caller calls is known when his connection begins, and who he is when
the handshake is over (strangers never have an identity). Where that alone shuts him out, `set_filter_state` names a cluster for
him at which no connection is ever made (`NOWHERE`), and his own ends. Only what is certain is decided here: the RBAC filter,
which has all rules, judges everybody who says something.

Envoy chooses a connection's cluster when it begins, and again when none could be made there. So whoever may be shut out for who
he is goes nowhere first; by the time of the second choice his certificate has been seen, and he goes where his filter chain leads
(`leads_to`), or nowhere again.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import NamedTuple

from tulle.core import type_urls
from tulle.core.encoded import Encoded, encode
from tulle.core.model.authorization import (
    NOWHERE,
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
from tulle.pb import pack
from tulle.pb.envoy.config.core.v3 import base_pb2, extension_pb2, substitution_format_string_pb2
from tulle.pb.envoy.config.listener.v3 import listener_components_pb2
from tulle.pb.envoy.extensions.filters.common.set_filter_state.v3 import value_pb2
from tulle.pb.envoy.extensions.filters.network.set_filter_state.v3 import set_filter_state_pb2

EARLY_TYPE = "type.googleapis.com/envoy.extensions.filters.network.set_filter_state.v3.Config"

_CLUSTER = "envoy.tcp_proxy.cluster"  # a connection's own cluster, whatever its filter chain says
_LEADS_TO = "tulle.cluster"


class _Is(NamedTuple):
    """An expression is a text."""

    expression: str
    value: str


# Something that is so (True), is not (False), or depends: an expression of CEL.
_Expr = str | bool | _Is

_LONGEST = 90_000  # characters that CEL reads
_CALLER = "connection.uri_san_peer_certificate"
_CERTIFICATE = "connection.sha256_peer_certificate_digest"


def leads_to(cluster: str) -> listener_components_pb2.Filter:
    """The filter before that of `encode_early` where callers have an identity: where their filter chain leads."""
    named = _named(_LEADS_TO, cluster)
    named.factory_key = "envoy.string"
    config = set_filter_state_pb2.Config(on_new_connection=[named])
    return listener_components_pb2.Filter(name="envoy.filters.network.set_filter_state", typed_config=pack(config))


def encode_early(row: Authorization) -> Encoded:
    """The filter that ends connections of those who are shut out for certain."""
    refused = _refused(row)
    text = NOWHERE if refused is True else f"%CEL(({_text(refused)}) ? {_quoted(NOWHERE)} : '')%" if refused else ""
    return _encoded(row.guard.early, text if len(text) < _LONGEST else "", row.guard.strangers)


def _encoded(name: str, text: str, strangers: bool) -> Encoded:
    """The filter that takes its cluster's name from a format."""
    config = set_filter_state_pb2.Config()
    if text and (strangers or text == NOWHERE):
        config.on_new_connection.append(_named(_CLUSTER, text))
    elif text:
        config.on_new_connection.append(_named(_CLUSTER, NOWHERE))
        leads = f"%FILTER_STATE({_LEADS_TO}:PLAIN)%"
        config.on_downstream_tls_handshake.extend(_named(_CLUSTER, one) for one in (leads, text))
    made = extension_pb2.TypedExtensionConfig(name=name, typed_config=pack(config))
    return encode(type_urls.EXTENSION, name, made.SerializeToString(deterministic=True))


def _named(key: str, text: str) -> value_pb2.FilterStateValue:
    """A text that a connection has; what is empty is not set."""
    said = substitution_format_string_pb2.SubstitutionFormatString(
        text_format_source=base_pb2.DataSource(inline_string=text), omit_empty_values=True
    )
    return value_pb2.FilterStateValue(object_key=key, format_string=said, skip_if_empty=True)


def _refused(row: Authorization) -> _Expr:
    """Who is shut out for certain: a DENY holds, or no ALLOW can."""
    holding = _holding(row.policies, row.ports)

    def holds(action: Action) -> list[_Expr]:
        places = [at for at in row.places(action, TCP) if not row.policies[at].dry_run]
        return [holding[at][row.guard.strangers] for at in places]

    allowing = holds(Action.ALLOW)
    return _any((*holds(Action.DENY), _not(_any(allowing)) if allowing else False))


@lru_cache(maxsize=8)
def _holding(policies: tuple[Policy, ...], ports: tuple[tuple[int, int], ...]) -> tuple[tuple[_Expr, _Expr], ...]:
    """All of a guard, for callers with an identity and for strangers, whose resources are made one after the other."""
    return tuple([_policy(policy, ports) for policy in policies])


@lru_cache(maxsize=16384)
def _policy(policy: Policy, ports: tuple[tuple[int, int], ...]) -> tuple[_Expr, _Expr]:
    """Whether one of the rules holds: of one that allows, whether it is possible; of others, for certain. Before callers with an
    identity, and before strangers.
    """
    sure = policy.action is not Action.ALLOW
    rules = [found for rule in policy.rules if (found := told(rule, policy.action, TCP))]
    inside, outside = _Terms(ports, strangers=False), _Terms(ports, strangers=True)
    return _any(inside.rule(rule, sure) for rule in rules), _any(outside.rule(rule, sure) for rule in rules)


class _Terms:
    """What rules ask, as expressions."""

    def __init__(self, ports: tuple[tuple[int, int], ...], strangers: bool) -> None:
        self._strangers = strangers
        self._ports: dict[int, list[int]] = {}
        for said, bound in ports:
            self._ports.setdefault(said, []).append(bound)

    def rule(self, rule: Rule, sure: bool) -> _Expr:
        """Whether a rule holds."""
        parts = [_any(self._clause(clause, sure) for clause in some) for some in (rule.sources, rule.operations) if some]
        return _all((*parts, self._clause(rule.conditions, sure)))

    def _clause(self, clause: Clause, sure: bool) -> _Expr:
        return _all(self._term(term, sure) for term in clause)

    def _term(self, term: Term, sure: bool) -> _Expr:
        if term.invert:
            return _not(self._facts(term.facts, not sure))
        return self._facts(term.facts, sure)

    def _facts(self, facts: Iterable[Fact], sure: bool) -> _Expr:
        """Whether one of the facts is so. What cannot be told here is not, where that has to be sure."""
        said = (self._fact(fact) for fact in facts)
        return _any(not sure if one is None else one for one in said)

    def _fact(self, fact: Fact) -> _Expr | None:
        match fact.attribute:
            case Attribute.PRINCIPAL:
                return False if self._strangers else _compared(_CALLER, fact)
            case Attribute.CERTIFICATE:
                return False if self._strangers else _compared(_CERTIFICATE, fact)
            case Attribute.DESTINATION_PORT:
                number = int(fact.value)
                return f"destination.port in [{','.join(map(str, (number, *self._ports.get(number, ()))))}]"
            case Attribute.SNI:
                return _compared("connection.requested_server_name", fact)
        return None


def _compared(text: str, fact: Fact) -> _Expr:
    match fact.compare:
        case Compare.EXACT:
            return _Is(text, fact.value)
        case Compare.PREFIX:
            return f"{text}.startsWith({_quoted(fact.value)})"
        case Compare.SUFFIX:
            return f"{text}.endsWith({_quoted(fact.value)})"
        case Compare.PRESENT:
            return f"{text} != ''"
        case Compare.REGEX:
            return f"{text}.matches({_quoted(f'^(?:{fact.value})$')})"


@lru_cache(maxsize=16384)
def _quoted(text: str) -> str:
    """A text of CEL, without what means something to CEL or to Envoy's formats."""
    plain = "".join(one if one.isascii() and (one.isalnum() or one in "/:._-") else _escaped(one) for one in text)
    return f"'{plain}'"


def _escaped(one: str) -> str:
    return f"\\u{ord(one):04x}" if ord(one) < 0x10000 else f"\\U{ord(one):08x}"


def _any(parts: Iterable[_Expr]) -> _Expr:
    """One of them: those that compare the same with a text each, as one list."""
    kept = [one for one in parts if one is not False]
    if True in kept:
        return True
    if len(kept) < 2:
        return kept[0] if kept else False
    listed: dict[str, dict[str, None]] = {}
    for one in kept:
        if isinstance(one, _Is):
            listed.setdefault(one.expression, {})[one.value] = None
    lists = (f"{text} in [{','.join(map(_quoted, values))}]" for text, values in listed.items())
    return _joined((*(_text(one) for one in kept if not isinstance(one, _Is)), *lists), " || ")


def _all(parts: Iterable[_Expr]) -> _Expr:
    kept = [one for one in parts if one is not True]
    if False in kept:
        return False
    return kept[0] if len(kept) == 1 else _joined([_text(one) for one in kept], " && ") if kept else True


def _joined(parts: Sequence[str], sign: str) -> str:
    return parts[0] if len(parts) == 1 else sign.join(f"({one})" for one in parts)


def _not(one: _Expr) -> _Expr:
    return (not one) if isinstance(one, bool) else f"!({_text(one)})"


def _text(one: _Expr) -> str:
    return f"{one.expression} == {_quoted(one.value)}" if isinstance(one, _Is) else str(one)
