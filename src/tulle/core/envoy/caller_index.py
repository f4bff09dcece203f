"""Many policies at one place: an index by caller before Envoy's RBAC filter, which tries one rule after the other.

A request is judged by the rules that can hold for its caller: those that name him, and those that do not say who calls. Each of
these sets is an RBAC filter of its own, with the same names and notes as one that has all rules; which of them a request meets is
looked up by the caller's SPIFFE ID (`match_delegate` before a `composite` filter). Where nothing is gained, there is no index.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache

import msgspec

from tulle.core.model.authorization import Attribute, Clause, Compare, Rule, Term
from tulle.kit.wire import field
from tulle.pb import pack
from tulle.pb.envoy.config.core.v3 import extension_pb2
from tulle.pb.envoy.extensions.common.matching.v3 import extension_matcher_pb2
from tulle.pb.envoy.extensions.filters.http.composite.v3 import composite_pb2
from tulle.pb.envoy.extensions.matching.common_inputs.ssl.v3 import ssl_inputs_pb2
from tulle.pb.xds.core.v3 import extension_pb2 as xds_extension_pb2
from tulle.pb.xds.type.matcher.v3 import matcher_pb2, string_pb2

INDEX_TYPE = "type.googleapis.com/envoy.extensions.common.matching.v3.ExtensionWithMatcher"

# Fewer policies are tried as quickly as one is looked up.
_LEAST = 32
# An index is worth its place where no caller has more than this share of the rules, and all sets together are not more than so
# many times the rules.
_SHARE, _TIMES = 4, 8

_ACTION_TYPE = b"type.googleapis.com/envoy.extensions.filters.http.composite.v3.ExecuteFilterAction"
_URI_SAN = xds_extension_pb2.TypedExtensionConfig(name="caller", typed_config=pack(ssl_inputs_pb2.UriSanInput()))
_Predicate = matcher_pb2.Matcher.MatcherList.Predicate


class Piece(msgspec.Struct, frozen=True, cache_hash=True):
    """A policy as bytes (entries of `envoy.config.rbac.v3.RBAC.policies`), and the SPIFFE IDs for which alone it can hold; None
    where it does not say.
    """

    rules: bytes
    callers: frozenset[str] | None = None
    dry_run: bool = False


def callers_of(rules: Iterable[Rule]) -> frozenset[str] | None:
    """The SPIFFE IDs for which alone one of the rules can hold; None where others are possible."""
    found: set[str] = set()
    for rule in rules:
        if named := _named(rule.conditions):
            found |= named
            continue
        for clause in rule.sources or ((),):
            if not (named := _named(clause)):
                return None
            found |= named
    return frozenset(found)


def _named(clause: Clause) -> frozenset[str]:
    """Whom a clause names; nobody where it does not need to be somebody whose whole name stands there."""
    return next((frozenset(fact.value for fact in term.facts) for term in clause if _names(term)), frozenset())


def _names(term: Term) -> bool:
    exact = (fact.attribute is Attribute.PRINCIPAL and fact.compare is Compare.EXACT for fact in term.facts)
    return not term.invert and all(exact)


def by_caller(pieces: Sequence[Piece], made: Callable[[Sequence[Piece]], bytes], type_url: str) -> bytes | None:
    """The serialised `ExtensionWithMatcher` that finds the filter of a caller; None where all rules in one do as well.

    `made` makes the message of a filter (of `type_url`) that has some of the policies; makers that are equal make the same. What
    one caller meets is made once, and not again where a policy of others is another.
    """
    if len(pieces) < _LEAST:
        return None
    everybody = [one for one in pieces if one.callers is None]
    named: dict[str, list[Piece]] = {}
    for one in pieces:
        for caller in one.callers or ():
            named.setdefault(caller, []).append(one)
    size, common = _size(pieces), _size(everybody)
    sizes = [common + _size(own) for own in named.values()]
    if not sizes or max(sizes) * _SHARE > size or sum(sizes) > size * _TIMES:
        return None
    kind = type_url.encode()
    shared = tuple(everybody)
    entries = [_entry(caller, tuple(named[caller]), shared, made, kind) for caller in sorted(named)]
    tree = field(_Tree.INPUT_FIELD_NUMBER, _URI_SAN.SerializeToString(deterministic=True))
    tree += field(_Tree.EXACT_MATCH_MAP_FIELD_NUMBER, b"".join(entries))
    matcher = field(_Matcher.MATCHER_TREE_FIELD_NUMBER, tree)
    matcher += field(_Matcher.ON_NO_MATCH_FIELD_NUMBER, _others(made(pieces), made(everybody), kind))
    found = field(_Extension.XDS_MATCHER_FIELD_NUMBER, matcher)
    composite = extension_pb2.TypedExtensionConfig(name="of-caller", typed_config=pack(composite_pb2.Composite()))
    return found + field(_Extension.EXTENSION_CONFIG_FIELD_NUMBER, composite.SerializeToString(deterministic=True))


_Extension = extension_matcher_pb2.ExtensionWithMatcher
_Matcher = matcher_pb2.Matcher
_Tree = matcher_pb2.Matcher.MatcherTree


def _size(pieces: Iterable[Piece]) -> int:
    return sum(len(one.rules) for one in pieces)


def _others(whole: bytes, everybody: bytes, kind: bytes) -> bytes:
    """Who is not in the index: a certificate with several names may be anybody, so it meets all rules; the rest is not named."""
    several = _Predicate.SinglePredicate(input=_URI_SAN, value_match=string_pb2.StringMatcher(contains=","))
    head = _Predicate(single_predicate=several).SerializeToString(deterministic=True)
    listed = field(1, field(1, head) + field(2, _does(whole, kind)))
    return field(1, field(1, listed) + field(3, _does(everybody, kind)))


@lru_cache(maxsize=16384)
def _entry(
    caller: str, own: tuple[Piece, ...], everybody: tuple[Piece, ...], made: Callable[[Sequence[Piece]], bytes], kind: bytes
) -> bytes:
    """An entry of the map: the caller, and what is done with his requests."""
    return field(1, field(1, caller.encode()) + field(2, _does(made((*everybody, *own)), kind)))


def _does(message: bytes, kind: bytes) -> bytes:
    """`Matcher.OnMatch`: the request meets this filter (`ExecuteFilterAction` in two extensions' wrappings: name 1, `Any` 2)."""
    rbac = field(1, b"rbac") + field(2, field(1, kind) + field(2, message))
    action = field(1, b"meets") + field(2, field(1, _ACTION_TYPE) + field(2, field(1, rbac)))
    return field(2, action)
