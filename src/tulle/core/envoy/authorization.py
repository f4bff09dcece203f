"""Guards → Envoy's RBAC filters. The filters of a listener name resources, which have the policies: a policy that changes reaches
requests of connections that stand, and no listener is made anew.

A filter whose resource has not come lets nobody through: the listener waits for it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache

import msgspec

from tulle.core import type_urls
from tulle.core.encoded import Encoded, encode
from tulle.core.envoy import ext_authz
from tulle.core.envoy.caller_index import INDEX_TYPE, Piece, by_caller, callers_of
from tulle.core.envoy.early import EARLY_TYPE, encode_early, leads_to
from tulle.core.envoy.source import ADS, uint32
from tulle.core.envoy.tokens import PAYLOAD, TOKENS, TOKENS_TYPE, encode_tokens
from tulle.core.model.authorization import (
    HTTP,
    TCP,
    Action,
    Asking,
    Attribute,
    Authorization,
    Clause,
    Compare,
    Fact,
    Guard,
    Policy,
    Rule,
    Term,
    told,
)
from tulle.core.networks import network as network_of
from tulle.kit.wire import field
from tulle.pb.envoy.config.core.v3 import address_pb2, config_source_pb2, extension_pb2
from tulle.pb.envoy.config.listener.v3 import listener_components_pb2
from tulle.pb.envoy.config.rbac.v3 import rbac_pb2
from tulle.pb.envoy.config.route.v3 import route_components_pb2
from tulle.pb.envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2
from tulle.pb.envoy.type.matcher.v3 import metadata_pb2, path_pb2, regex_pb2, string_pb2, value_pb2

_Permission = rbac_pb2.Permission
_Principal = rbac_pb2.Principal

_ACTIONS = {Action.DENY: rbac_pb2.RBAC.DENY, Action.ALLOW: rbac_pb2.RBAC.ALLOW, Action.AUDIT: rbac_pb2.RBAC.LOG}
_HEADS = {action: rbac_pb2.RBAC(action=does).SerializeToString() for action, does in _ACTIONS.items()}
# What the destination of a connection tells; the rest is about who calls.
_OF_DESTINATION = frozenset({Attribute.DESTINATION_IP, Attribute.DESTINATION_PORT, Attribute.SNI})
_HTTP_TYPE = "type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC"
_TCP_TYPE = "type.googleapis.com/envoy.extensions.filters.network.rbac.v3.RBAC"
_NOBODY = _Principal(not_id=_Principal(any=True))


def http_filters(guard: Guard) -> Iterator[http_connection_manager_pb2.HttpFilter]:
    """The filters that stand before requests."""
    yield from (_http(*one) for asking in guard.asking if not asking.late for one in _asked(guard, asking, HTTP))
    yield _http(guard.token_resource, TOKENS_TYPE)
    yield from (_http(*one) for asking in guard.asking if asking.late for one in _asked(guard, asking, HTTP))
    for action in guard.actions:
        yield _http(guard.resource(action, HTTP), _HTTP_TYPE, INDEX_TYPE)


def tcp_filters(guard: Guard, cluster: str = "") -> Iterator[listener_components_pb2.Filter]:
    """The filters that stand before connections whose bytes are not looked into, and lead to a cluster ("": to one of several).

    Who has an identity and may not come is turned away before he hears anything where the proxy after them says so, too (`tcp`).
    """
    if cluster and not guard.strangers:
        yield leads_to(cluster)
    if cluster or guard.strangers:
        yield listener_components_pb2.Filter(name=guard.early, config_discovery=_discovered(EARLY_TYPE))
    named = [one for asking in guard.asking if asking.grpc for one in _asked(guard, asking, TCP)]
    for name, type_url in (*named, *((guard.resource(action, TCP), _TCP_TYPE) for action in guard.actions)):
        yield listener_components_pb2.Filter(name=name, config_discovery=_discovered(type_url))


def _asked(guard: Guard, asking: Asking, kind: str) -> tuple[tuple[str, ...], ...]:
    """Two filters: one finds out whether somebody is asked, the other asks him."""
    if kind == HTTP:
        return (guard.question(asking, kind), _HTTP_TYPE), (guard.answer(asking, kind), ext_authz.HTTP_TYPE, INDEX_TYPE)
    return (guard.question(asking, kind), _TCP_TYPE), (guard.answer(asking, kind), ext_authz.TCP_TYPE)


def _http(name: str, *type_urls: str) -> http_connection_manager_pb2.HttpFilter:
    return http_connection_manager_pb2.HttpFilter(name=name, config_discovery=_discovered(*type_urls))


def _discovered(*type_urls: str) -> config_source_pb2.ExtensionConfigSource:
    return config_source_pb2.ExtensionConfigSource(config_source=ADS, type_urls=type_urls)


def encode_authorization(row: Authorization) -> tuple[Encoded, ...]:
    """The resources of a guard: for each action, one for requests and one for connections; and what is asked of tokens."""
    found = tuple(_filter(row, action, kind) for action in row.guard.actions for kind in (HTTP, TCP))
    return (*found, encode_early(row), encode_tokens(row.guard.token_resource, row.tokens), *_questions(row))


def _questions(row: Authorization) -> Iterator[Encoded]:
    """For each authorizer: for which requests, and connections, he is asked (Istio's way: the filter that finds out only takes
    notes, which the next one reads), and how.
    """
    asking = {one.authorizer: one for one in row.guard.asking}
    for authorizer in row.authorizers:
        if authorizer.name not in asking:
            continue  # the guard is one that was, of which nothing is served
        one, prefix = asking[authorizer.name], f"istio_ext_authz_{authorizer.name}_"
        for kind in (HTTP, TCP) if one.grpc else (HTTP,):
            asked = [policy for policy in row.having(Action.CUSTOM, kind) if policy.provider == authorizer.name]
            pieces = (_told_one(policy, row.ports).piece(kind, row.guard.strangers) for policy in asked)
            message = field(2, _joined(Action.DENY, (piece.rules for piece in pieces if piece)))
            message += field(3 if kind == HTTP else 5, prefix.encode())
            yield _extension(row.guard.question(one, kind), kind, message + (field(3, b"tcp.") if kind == TCP else b""))
            yield ext_authz.for_policies(row.guard.answer(one, kind), authorizer.asks, prefix, kind)


class _Filter(msgspec.Struct, frozen=True, cache_hash=True):
    """What makes the message of an RBAC filter of some policies. `enforced`, `tried`: among all of the guard's there are such."""

    action: Action
    kind: str
    enforced: bool
    tried: bool

    def __call__(self, pieces: Sequence[Piece]) -> bytes:
        # Field numbers of both filters' messages; the rules are put together of pieces that are serialised once. Rules that are
        # there and empty allow nothing.
        action, http = self.action, self.kind == HTTP
        message = field(1, _joined(action, [one.rules for one in pieces if not one.dry_run])) if self.enforced else b""
        if self.tried:
            message += field(2, _joined(action, [one.rules for one in pieces if one.dry_run]))
            message += field(3 if http else 5, f"istio_dry_run_{action.lower()}".encode())
        return message if http else message + field(3, b"tcp.")


def _filter(row: Authorization, action: Action, kind: str) -> Encoded:
    policies = _told(row.policies, row.ports)
    found = [policies[at] for at in row.places(action, kind)]
    dry = [one.policy.dry_run for one in found]
    made = _Filter(action, kind, not all(dry), any(dry))
    pieces = [piece for one in found if (piece := one.piece(kind, row.guard.strangers)) is not None]
    name = row.guard.resource(action, kind)
    # Strangers have no identity that an index could know.
    index = by_caller(pieces, made, _HTTP_TYPE) if kind == HTTP and not row.guard.strangers else None
    return _extension(name, kind, made(pieces)) if index is None else _encoded(name, INDEX_TYPE, index)


class _Told:
    """A policy as the filters have it, each piece made when the first of them asks."""

    def __init__(self, policy: Policy, ports: tuple[tuple[int, int], ...]) -> None:
        self.policy, self._ports = policy, ports
        self._made: dict[tuple[str, bool], Piece | None] = {}

    def piece(self, kind: str, strangers: bool) -> Piece | None:
        """Its rules before callers with an identity, or before strangers; None where it can hold for none of these."""
        key = (kind, strangers)
        if key not in self._made:
            rules = [rule for one in self.policy.rules if (rule := told(one, self.policy.action, kind))]
            callers = callers_of(rules)
            # What holds for callers by name holds for no stranger.
            named = strangers and callers is not None
            self._made[key] = None if named else Piece(self._serialised(rules, strangers), callers, self.policy.dry_run)
        return self._made[key]

    def _serialised(self, rules: Sequence[Rule], strangers: bool) -> bytes:
        rbac = rbac_pb2.RBAC()
        for rule in rules:
            rbac.policies[self.policy.rule_name(rule)].CopyFrom(_Rule(rule, strangers, _by_number(self._ports)).policy())
        return rbac.SerializeToString(deterministic=True)


@lru_cache(maxsize=16384)
def _told_one(policy: Policy, ports: tuple[tuple[int, int], ...]) -> _Told:
    return _Told(policy, ports)


@lru_cache(maxsize=8)
def _told(policies: tuple[Policy, ...], ports: tuple[tuple[int, int], ...]) -> tuple[_Told, ...]:
    """All of a guard, for those of its resources that are made one after the other."""
    return tuple([_told_one(policy, ports) for policy in policies])


def _extension(name: str, kind: str, message: bytes) -> Encoded:
    return _encoded(name, _HTTP_TYPE if kind == HTTP else _TCP_TYPE, message)


def _encoded(name: str, type_url: str, message: bytes) -> Encoded:
    config = extension_pb2.TypedExtensionConfig(name=name)
    config.typed_config.type_url = type_url
    config.typed_config.value = message
    return encode(type_urls.EXTENSION, config.name, config.SerializeToString(deterministic=True))


def _joined(action: Action, rules: Iterable[bytes]) -> bytes:
    """Serialised `envoy.config.rbac.v3.RBAC`: messages one after the other are one message with all that they have."""
    return b"".join((_HEADS[action], *rules))


def _by_number(ports: Iterable[tuple[int, int]]) -> dict[int, list[int]]:
    """The other numbers of each port."""
    found: dict[int, list[int]] = {}
    for said, bound in ports:
        found.setdefault(said, []).append(bound)
    return found


class _Rule:
    """One rule as Envoy has it: `permissions` about what is called, `principals` about who calls, and both must hold."""

    def __init__(self, rule: Rule, strangers: bool, ports: dict[int, list[int]]) -> None:
        self._rule = rule
        self._strangers = strangers
        self._ports = ports

    def policy(self) -> rbac_pb2.Policy:
        """The rule."""
        if certificates := [fact.value for term in self._rule.terms for fact in term.facts if _is_certificate(fact)]:
            return self._of_certificates(certificates)
        sources = [self._principals(clause) for clause in self._rule.sources]
        operations = [self._permissions(clause) for clause in self._rule.operations]
        of_destination = tuple(term for term in self._rule.conditions if _of_destination(term))
        of_caller = tuple(term for term in self._rule.conditions if not _of_destination(term))
        permissions = [_any_permission(operations)] if operations else []
        principals = [_any_principal(sources)] if sources else []
        permissions += [self._permissions(of_destination)] if of_destination else []
        principals += [self._principals(of_caller)] if of_caller else []
        return rbac_pb2.Policy(permissions=[_all_permissions(permissions)], principals=[_all_principals(principals)])

    def _of_certificates(self, digests: Sequence[str]) -> rbac_pb2.Policy:
        """Who shows one of these certificates, which only an expression can ask: `connection.sha256_... in [...]`."""
        nobody = _NOBODY if self._strangers else _Principal(any=True)
        made = rbac_pb2.Policy(permissions=[_Permission(any=True)], principals=[nobody])
        call = made.condition.call_expr
        call.function = "@in"
        field_of = call.args.add().select_expr
        field_of.operand.ident_expr.name = "connection"
        field_of.field = "sha256_peer_certificate_digest"
        listed = call.args.add().list_expr
        for one in digests:
            listed.elements.add().const_expr.string_value = one
        return made

    def _permissions(self, clause: Clause) -> rbac_pb2.Permission:
        return _all_permissions([self._permission_term(term) for term in clause])

    def _principals(self, clause: Clause) -> rbac_pb2.Principal:
        return _all_principals([self._principal_term(term) for term in clause])

    def _permission_term(self, term: Term) -> rbac_pb2.Permission:
        found = _any_permission([one for fact in term.facts for one in self._permission(fact)])
        return _Permission(not_rule=found) if term.invert else found

    def _principal_term(self, term: Term) -> rbac_pb2.Principal:
        found = _any_principal([self._principal(fact) for fact in term.facts])
        return _Principal(not_id=found) if term.invert else found

    def _permission(self, fact: Fact) -> list[rbac_pb2.Permission]:
        match fact.attribute:
            case Attribute.DESTINATION_PORT:
                number = int(fact.value)
                return [_Permission(destination_port=one) for one in (number, *self._ports.get(number, ()))]
            case Attribute.DESTINATION_IP:
                return [_Permission(destination_ip=_range(fact.value))]
            case Attribute.SNI:
                return [_Permission(requested_server_name=_text(fact))]
            case Attribute.PATH:
                return [_Permission(url_path=_path(fact))]
        return [_Permission(header=_header(fact))]

    def _principal(self, fact: Fact) -> rbac_pb2.Principal:
        match fact.attribute:
            case Attribute.PRINCIPAL:
                if self._strangers:
                    return _NOBODY
                return _Principal(authenticated=_Principal.Authenticated(principal_name=_text(fact)))
            case Attribute.SOURCE_IP:
                return _Principal(direct_remote_ip=_range(fact.value))
            case Attribute.REMOTE_IP:
                return _Principal(remote_ip=_range(fact.value))
            case Attribute.CLAIM:
                return _claim(fact.name, _text(fact))
            case Attribute.REQUEST_PRINCIPAL:
                return _request_principal(fact)
        return _Principal(header=_header(fact))


def _is_certificate(fact: Fact) -> bool:
    return fact.attribute is Attribute.CERTIFICATE


def _of_destination(term: Term) -> bool:
    return term.facts[0].attribute in _OF_DESTINATION


def _any_permission(rules: Sequence[rbac_pb2.Permission]) -> rbac_pb2.Permission:
    return rules[0] if len(rules) == 1 else _Permission(or_rules=_Permission.Set(rules=rules))


def _all_permissions(rules: Sequence[rbac_pb2.Permission]) -> rbac_pb2.Permission:
    if len(rules) == 1:
        return rules[0]
    return _Permission(and_rules=_Permission.Set(rules=rules)) if rules else _Permission(any=True)


def _any_principal(ids: Sequence[rbac_pb2.Principal]) -> rbac_pb2.Principal:
    return ids[0] if len(ids) == 1 else _Principal(or_ids=_Principal.Set(ids=ids))


def _all_principals(ids: Sequence[rbac_pb2.Principal]) -> rbac_pb2.Principal:
    if len(ids) == 1:
        return ids[0]
    return _Principal(and_ids=_Principal.Set(ids=ids)) if ids else _Principal(any=True)


def _text(fact: Fact) -> string_pb2.StringMatcher:
    return _matcher(fact.compare, fact.value)


def _matcher(compare: Compare, value: str) -> string_pb2.StringMatcher:
    match compare:
        case Compare.EXACT:
            return string_pb2.StringMatcher(exact=value)
        case Compare.PREFIX:
            return string_pb2.StringMatcher(prefix=value)
        case Compare.SUFFIX:
            return string_pb2.StringMatcher(suffix=value)
        case Compare.PRESENT:
            return string_pb2.StringMatcher(safe_regex=regex_pb2.RegexMatcher(regex=".+"))
        case Compare.REGEX:
            return string_pb2.StringMatcher(safe_regex=regex_pb2.RegexMatcher(regex=value))


def _header(fact: Fact) -> route_components_pb2.HeaderMatcher:
    if fact.compare is Compare.PRESENT:
        return route_components_pb2.HeaderMatcher(name=fact.name[0], present_match=True)
    return route_components_pb2.HeaderMatcher(name=fact.name[0], string_match=_text(fact))


def _path(fact: Fact) -> path_pb2.PathMatcher:
    return path_pb2.PathMatcher(path=_text(fact))


def _claim(way: Sequence[str], text: string_pb2.StringMatcher) -> rbac_pb2.Principal:
    """A claim that is a text, or a list with one."""
    path = [metadata_pb2.MetadataMatcher.PathSegment(key=key) for key in (PAYLOAD, *way)]
    one = value_pb2.ValueMatcher(string_match=text)
    either = value_pb2.ValueMatcher(
        or_match=value_pb2.OrMatcher(value_matchers=[one, value_pb2.ValueMatcher(list_match=value_pb2.ListMatcher(one_of=one))])
    )
    return _Principal(metadata=metadata_pb2.MetadataMatcher(filter=TOKENS, path=path, value=either))


def _request_principal(fact: Fact) -> rbac_pb2.Principal:
    """ISSUER/SUBJECT, wherever in it the issuer ends: it may have slashes, and so may the subject."""
    value, compare = fact.value, fact.compare
    some = _matcher(Compare.PRESENT, "")
    if compare is Compare.PRESENT:
        return _issued(some, some)
    found: list[rbac_pb2.Principal] = []
    if compare is Compare.PREFIX:
        found.append(_issued(_matcher(compare, value), some))
    if compare is Compare.SUFFIX:
        found.append(_issued(some, _matcher(compare, value)))
    for place in (at for at, sign in enumerate(value) if sign == "/"):
        before, after = value[:place], value[place + 1 :]
        issuer = _matcher(Compare.SUFFIX if compare is Compare.SUFFIX else Compare.EXACT, before)
        subject = _matcher(Compare.PREFIX if compare is Compare.PREFIX else Compare.EXACT, after)
        if before and after:
            found.append(_issued(issuer, subject))
        elif before and compare is Compare.PREFIX:
            found.append(_issued(issuer, some))
        elif after and compare is Compare.SUFFIX:
            found.append(_issued(some, subject))
    return _any_principal(found) if found else _NOBODY


def _issued(issuer: string_pb2.StringMatcher, subject: string_pb2.StringMatcher) -> rbac_pb2.Principal:
    return _Principal(and_ids=_Principal.Set(ids=[_claim(("iss",), issuer), _claim(("sub",), subject)]))


def _range(text: str) -> address_pb2.CidrRange:
    network = network_of(text)
    return address_pb2.CidrRange(address_prefix=str(network.network_address), prefix_len=uint32(network.prefixlen))
