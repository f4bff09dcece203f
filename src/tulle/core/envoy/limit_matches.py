"""What a limit is for → a predicate of Envoy's matching: over headers, the caller's certificate and the claims of its token."""

from __future__ import annotations

import re
from collections.abc import Sequence

from google.protobuf.message import Message

from tulle.core.envoy.tokens import PAYLOAD, TOKENS
from tulle.core.model.authorization import Attribute, Clause, Compare, Fact, Term
from tulle.pb import pack
from tulle.pb.envoy.extensions.matching.common_inputs.network.v3 import network_inputs_pb2
from tulle.pb.envoy.extensions.matching.input_matchers.metadata.v3 import metadata_pb2
from tulle.pb.envoy.type.matcher.v3 import http_inputs_pb2, value_pb2
from tulle.pb.envoy.type.matcher.v3 import regex_pb2 as envoy_regex_pb2
from tulle.pb.envoy.type.matcher.v3 import string_pb2 as envoy_string_pb2
from tulle.pb.xds.core.v3 import extension_pb2
from tulle.pb.xds.type.matcher.v3 import matcher_pb2, regex_pb2, string_pb2

Predicate = matcher_pb2.Matcher.MatcherList.Predicate
_Single = Predicate.SinglePredicate
_REST = {Compare.EXACT: "", Compare.PREFIX: "[^,;]+"}
_QUERY = r"(?:[?#].*)?"


def predicate(matches: Sequence[Clause]) -> Predicate | None:
    """True where one of the clauses holds; None: always."""
    if not matches or () in matches:
        return None
    return _any([_all([_term(term) for term in clause]) for clause in matches])


def _term(term: Term) -> Predicate:
    found = _any([_fact(fact) for fact in term.facts])
    return Predicate(not_matcher=found) if term.invert else found


def _any(some: Sequence[Predicate]) -> Predicate:
    return some[0] if len(some) == 1 else Predicate(or_matcher=Predicate.PredicateList(predicate=some))


def _all(some: Sequence[Predicate]) -> Predicate:
    return some[0] if len(some) == 1 else Predicate(and_matcher=Predicate.PredicateList(predicate=some))


def _fact(fact: Fact) -> Predicate:
    match fact.attribute:
        case Attribute.PATH:
            header = http_inputs_pb2.HttpRequestHeaderMatchInput(header_name=":path")
            return _single(header, value_match=_regex(f"{_pattern(fact)}{_QUERY}"))
        case Attribute.PRINCIPAL:
            # Of a connection without TLS Envoy's input of names has no answer yet, so that no choice would ever be made. In this
            # header the connection manager has written it, as the last word of the last of those before.
            header = http_inputs_pb2.HttpRequestHeaderMatchInput(header_name="x-forwarded-client-cert")
            return _single(header, value_match=_regex(f".*;URI={re.escape(fact.value)}{_REST[fact.compare]}"))
        case Attribute.CLAIM:
            return _claim(fact)
    header = http_inputs_pb2.HttpRequestHeaderMatchInput(header_name=fact.name[0])
    return _single(header, value_match=_text(fact))


def _single(of: Message, **match: string_pb2.StringMatcher | extension_pb2.TypedExtensionConfig) -> Predicate:
    looked_at = extension_pb2.TypedExtensionConfig(name="input", typed_config=pack(of))
    single = _Single(input=looked_at)
    for field, value in match.items():
        getattr(single, field).CopyFrom(value)
    return Predicate(single_predicate=single)


def _pattern(fact: Fact) -> str:
    """The expression of what the fact says, for a whole text."""
    match fact.compare:
        case Compare.EXACT:
            return re.escape(fact.value)
        case Compare.PREFIX:
            return f"{re.escape(fact.value)}.*"
        case Compare.SUFFIX:
            return f".*{re.escape(fact.value)}"
        case Compare.PRESENT:
            return ".+"
        case Compare.REGEX:
            return f"(?:{fact.value})"


def _text(fact: Fact) -> string_pb2.StringMatcher:
    if fact.compare is Compare.EXACT:
        return string_pb2.StringMatcher(exact=fact.value)
    return _regex(_pattern(fact))


def _regex(text: str) -> string_pb2.StringMatcher:
    return string_pb2.StringMatcher(safe_regex=regex_pb2.RegexMatcher(regex=text, google_re2=regex_pb2.RegexMatcher.GoogleRE2()))


def _claim(fact: Fact) -> Predicate:
    """A claim that is a text, or a list with one."""
    steps = network_inputs_pb2.DynamicMetadataInput.PathSegment
    of = network_inputs_pb2.DynamicMetadataInput(filter=TOKENS, path=[steps(key=one) for one in (PAYLOAD, *fact.name)])
    one = value_pb2.ValueMatcher(
        string_match=envoy_string_pb2.StringMatcher(exact=fact.value)
        if fact.compare is Compare.EXACT
        else envoy_string_pb2.StringMatcher(safe_regex=envoy_regex_pb2.RegexMatcher(regex=_pattern(fact)))
    )
    listed = value_pb2.ValueMatcher(list_match=value_pb2.ListMatcher(one_of=one))
    either = value_pb2.ValueMatcher(or_match=value_pb2.OrMatcher(value_matchers=[one, listed]))
    matcher = extension_pb2.TypedExtensionConfig(
        name="envoy.matching.matchers.metadata_matcher", typed_config=pack(metadata_pb2.Metadata(value=either))
    )
    return _single(of, custom_match=matcher)
