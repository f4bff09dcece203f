"""Guards → what is decided of connections before their caller has said a word: a server that speaks first is not heard by
strangers who are shut out.

Envoy's RBAC filter asks when the first bytes come. That a caller has no identity, and what he calls, is known when his connection
begins. Where that alone shuts him out, `set_filter_state` names the cluster without hosts for him, and the connection ends. Only
what is certain is decided here: the RBAC filter, which has all rules, judges everybody who says something. (Who has an identity
is known when the handshake is over; by then Envoy has chosen the cluster.)
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache

from tulle.core import type_urls
from tulle.core.encoded import Encoded, encode
from tulle.core.envoy.clusters import BLACK_HOLE
from tulle.core.model.authorization import TCP, Action, Attribute, Authorization, Clause, Compare, Fact, Policy, Rule, Term, told
from tulle.pb import pack
from tulle.pb.envoy.config.core.v3 import base_pb2, extension_pb2, substitution_format_string_pb2
from tulle.pb.envoy.extensions.filters.network.set_filter_state.v3 import set_filter_state_pb2

EARLY_TYPE = "type.googleapis.com/envoy.extensions.filters.network.set_filter_state.v3.Config"

# Something that is so (True), is not (False), or depends: an expression of CEL.
_Expr = str | bool

_LONGEST = 90_000  # characters that CEL reads
_OF_CALLER = frozenset({Attribute.PRINCIPAL, Attribute.CERTIFICATE})


def encode_early(row: Authorization) -> Encoded:
    """The filter that ends connections of strangers."""
    refused = _refused(row)
    text = BLACK_HOLE if refused is True else f"%CEL(({refused}) ? {_quoted(BLACK_HOLE)} : '')%" if refused else ""
    return _encoded(row.guard.early, text if len(text) < _LONGEST else "")


@lru_cache(maxsize=16384)
def _encoded(name: str, text: str) -> Encoded:
    """The filter that takes its cluster's name from a format."""
    config = set_filter_state_pb2.Config()
    if text:
        said = substitution_format_string_pb2.SubstitutionFormatString(
            text_format_source=base_pb2.DataSource(inline_string=text), omit_empty_values=True
        )
        config.on_new_connection.add(object_key="envoy.tcp_proxy.cluster", format_string=said, skip_if_empty=True)
    made = extension_pb2.TypedExtensionConfig(name=name, typed_config=pack(config))
    return encode(type_urls.EXTENSION, name, made.SerializeToString(deterministic=True))


def _refused(row: Authorization) -> _Expr:
    """Who is shut out for certain: a DENY holds, or no ALLOW can."""

    def holds(action: Action, *, sure: bool) -> list[_Expr]:
        enforced = (policy for policy in row.having(action, TCP) if not policy.dry_run)
        return [_policy(policy, sure, row.ports) for policy in enforced]

    allowing = holds(Action.ALLOW, sure=False)
    return _any((*holds(Action.DENY, sure=True), _not(_any(allowing)) if allowing else False))


@lru_cache(maxsize=16384)
def _policy(policy: Policy, sure: bool, ports: tuple[tuple[int, int], ...]) -> _Expr:
    """Whether one of the rules holds: for certain (`sure`), or possibly."""
    rules = (found for rule in policy.rules if (found := told(rule, policy.action, TCP)))
    return _any(_Terms(ports).rule(rule, sure) for rule in rules)


class _Terms:
    """What rules ask, as expressions."""

    def __init__(self, ports: tuple[tuple[int, int], ...]) -> None:
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
        if fact.attribute in _OF_CALLER:
            return False
        match fact.attribute:
            case Attribute.DESTINATION_PORT:
                number = int(fact.value)
                return f"destination.port in [{','.join(map(str, (number, *self._ports.get(number, ()))))}]"
            case Attribute.SNI:
                return _compared("connection.requested_server_name", fact)
        return None


def _compared(text: str, fact: Fact) -> _Expr:
    match fact.compare:
        case Compare.EXACT:
            return f"{text} == {_quoted(fact.value)}"
        case Compare.PREFIX:
            return f"{text}.startsWith({_quoted(fact.value)})"
        case Compare.SUFFIX:
            return f"{text}.endsWith({_quoted(fact.value)})"
        case Compare.PRESENT:
            return f"{text} != ''"
        case Compare.REGEX:
            return f"{text}.matches({_quoted(f'^(?:{fact.value})$')})"


def _quoted(text: str) -> str:
    """A text of CEL, without what means something to CEL or to Envoy's formats."""
    plain = "".join(one if one.isascii() and (one.isalnum() or one in "/:._-") else _escaped(one) for one in text)
    return f"'{plain}'"


def _escaped(one: str) -> str:
    return f"\\u{ord(one):04x}" if ord(one) < 0x10000 else f"\\U{ord(one):08x}"


def _any(parts: Iterable[_Expr]) -> _Expr:
    kept = [one for one in parts if one is not False]
    return True if True in kept else _joined(kept, " || ") if kept else False


def _all(parts: Iterable[_Expr]) -> _Expr:
    kept = [one for one in parts if one is not True]
    return False if False in kept else _joined(kept, " && ") if kept else True


def _joined(parts: Sequence[_Expr], sign: str) -> _Expr:
    return parts[0] if len(parts) == 1 else sign.join(f"({one})" for one in parts)


def _not(one: _Expr) -> _Expr:
    return (not one) if isinstance(one, bool) else f"!({one})"
