"""Rules that nothing reaches: each of their matches is taken by an earlier one, in the same object or in one that goes first."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import msgspec

from tulle.core.analyze.coverage import Callers, Match, Seen
from tulle.core.compile.hostname import Key
from tulle.core.compile.http_routes import http_route_rules
from tulle.core.compile.mistakes import info, warning
from tulle.core.compile.objects import MESH, age, gateway_key, grpc_routes, http_routes, in_mesh, parent_key, virtual_services
from tulle.core.compile.virtual_services import request_match
from tulle.core.flow import Fetch, table
from tulle.core.model.route import MatchKind, NamedMatch, RouteMatch, TextMatch
from tulle.kit.problem import Problem, Ref

if TYPE_CHECKING:
    from tulle.api.gateway import GRPCRoute
    from tulle.api.gateway.routes import GRPCRouteMatch
    from tulle.api.istio import VirtualService
    from tulle.api.istio.virtual_service import L4MatchAttributes, TLSMatchAttributes


class Rule(msgspec.Struct, frozen=True):
    """A rule's field and its matches, each with its own field (the rule's, where it matches everything)."""

    path: str
    matches: tuple[tuple[str, Match], ...]


class Taken(msgspec.Struct, frozen=True):
    """A match that is left nothing, and what takes it: a field of the same object, or an object."""

    rule: str
    match: str
    by: str
    whole: bool  # all matches of the rule are


def _taken(rules: tuple[Rule, ...], seen: Seen, name: str = "") -> tuple[Taken, ...]:
    """What the rules leave of each other, after those in `seen`; `name` stands for these rules to whoever comes later."""
    found: list[Taken] = []
    for rule in rules:
        takers = [seen.taker(match) for _path, match in rule.matches]
        whole = all(takers)
        for (path, match), taker in zip(rule.matches, takers, strict=True):
            # Within a rule a match may be a special case of another before it.
            by = taker if taker or name else seen.taker(match)
            if by:
                found.append(Taken(rule.path, path, by, whole))
            seen.add(match, name or path)
    return tuple(found)


# -- VirtualService --


def _virtual_service_rules(row: VirtualService) -> dict[str, tuple[Rule, ...]]:
    """The rules of each protocol."""
    return {
        "http": tuple(
            Rule(path, tuple((f"{path}.match[{at}]", _http(row, one)) for at, one in enumerate(rule.match)) or ((path, Match()),))
            for path, rule in _numbered("spec.http", row.spec.http)
        ),
        "tls": tuple(
            Rule(path, tuple((f"{path}.match[{at}]", _connection(row, one)) for at, one in enumerate(rule.match)))
            for path, rule in _numbered("spec.tls", row.spec.tls)
        ),
        "tcp": tuple(
            Rule(
                path,
                tuple((f"{path}.match[{at}]", _connection(row, one)) for at, one in enumerate(rule.match)) or ((path, Match()),),
            )
            for path, rule in _numbered("spec.tcp", row.spec.tcp)
        ),
    }


def _numbered(path: str, rules: tuple[Any, ...]) -> Iterator[tuple[str, Any]]:
    return ((f"{path}[{index}]", rule) for index, rule in enumerate(rules))


def _http(row: VirtualService, one: Any) -> Match:
    return Match(request=request_match(one), callers=_callers(row, one))


def _connection(row: VirtualService, one: TLSMatchAttributes | L4MatchAttributes) -> Match:
    return Match(
        callers=_callers(row, one),
        names=tuple(getattr(one, "sni_hosts", ())),
        subnets=one.destination_subnets,
        source_subnet=getattr(one, "source_subnet", ""),
    )


def _callers(row: VirtualService, one: Any) -> Callers:
    names = (name if name == MESH else "/".join(gateway_key(name, row.metadata.namespace)) for name in one.gateways)
    return Callers(
        port=one.port,
        gateways=frozenset(names),
        source_labels=tuple(sorted(one.source_labels.items())),
        source_namespace=one.source_namespace,
    )


def virtual_service_shadows(fetch: Fetch, key: Key) -> Iterator[Problem]:
    """Rules of a VirtualService that an earlier one of its own leaves nothing, or an older VirtualService at its gateways."""
    row = fetch(virtual_services, key)
    if row is None:
        return
    own = [one for rules in _virtual_service_rules(row).values() for one in _taken(rules, Seen())]
    yield from _problems(
        row.ref, own, "an earlier one, {by}, takes all of its requests; needed a narrower one there, or this first"
    )
    if in_mesh(row) or not row.spec.http:
        return
    places = {(gateway_key(name, key[0]), host) for name in row.spec.gateways for host in row.spec.hosts}
    slices = [{one.match: one for one in fetch(taken_at_gateway, (*place, key)) or ()} for place in sorted(places)]
    yield from _problems(
        row.ref,
        [one for one in _everywhere(slices) if one.match not in {mine.match for mine in own}],
        "the older VirtualService {by} of the same host and gateway takes all of its requests; needed a narrower match there",
    )


def _everywhere(slices: list[dict[str, Taken]]) -> list[Taken]:
    """What is taken in all of the places where an object is."""
    if not slices:
        return []
    common = set.intersection(*(set(one) for one in slices))
    return [
        msgspec.structs.replace(one, whole=all(part[match].whole for part in slices))
        for match, one in slices[0].items()
        if match in common
    ]


@table
def shadows_at_gateway(fetch: Fetch, place: tuple[Key, str]) -> dict[Key, tuple[Taken, ...]]:
    """What VirtualServices for one host at one Gateway leave of each other's HTTP rules, the oldest first."""
    rows = sorted(fetch.rows(virtual_services, "gateway_host", place), key=age)
    if len(rows) < 2:
        return {}
    seen, found = Seen(), {}
    for row in rows:
        taken = _taken(_virtual_service_rules(row)["http"], seen, f"{row.metadata.namespace}/{row.metadata.name}")
        mine = tuple(one for one in taken if one.by != f"{row.metadata.namespace}/{row.metadata.name}")
        if mine:
            found[row.metadata.namespace, row.metadata.name] = mine
    return found


@table
def taken_at_gateway(fetch: Fetch, key: tuple[Key, str, Key]) -> tuple[Taken, ...]:
    """What older VirtualServices leave nothing of (Gateway, host, VirtualService)."""
    return (fetch(shadows_at_gateway, (key[0], key[1])) or {}).get(key[2], ())


# -- routes of the Gateway API --


def http_route_shadows(fetch: Fetch, key: Key) -> Iterator[Problem]:
    """Matches that another one before them, by the Gateway API's precedence, leaves nothing."""
    row = fetch(http_routes, key)
    made = fetch(http_route_rules, key)
    if row is None or made is None:
        return
    places = {(*parent_key(parent, key[0]), host) for parent in row.spec.parent_refs for host in row.spec.hostnames or ("*",)}
    yield from _route_shadows(row.ref, [fetch(taken_http, (place, key)) or () for place in sorted(places)])


def grpc_route_shadows(fetch: Fetch, key: Key) -> Iterator[Problem]:
    """The same for GRPCRoutes."""
    row = fetch(grpc_routes, key)
    if row is None:
        return
    places = {(*parent_key(parent, key[0]), host) for parent in row.spec.parent_refs for host in row.spec.hostnames or ("*",)}
    yield from _route_shadows(row.ref, [fetch(taken_grpc, (place, key)) or () for place in sorted(places)])


def _route_shadows(ref: Ref, slices: list[tuple[Taken, ...]]) -> Iterator[Problem]:
    """What is taken at every parent and hostname."""
    taken = _everywhere([{one.match: one for one in part} for part in slices])
    inside = [one for one in taken if one.by.startswith("spec.")]
    yield from _problems(ref, inside, "{by} has this match, or a wider one that goes first; needed another match")
    for one in taken:
        if one not in inside:
            message = f"the older {ref.kind} {one.by} has this match for the same parent and hostname; needed another match"
            yield warning(ref, one.match, "Conflict", message)


Place = tuple[str, str, str, str, str]  # a parent's group, kind, namespace and name, and a hostname
_Ordered = list[tuple[Any, Key, str, str, Match]]  # rank, object, rule, match


def _in_order(ordered: _Ordered) -> dict[Key, tuple[Taken, ...]]:
    ordered.sort(key=lambda one: one[0])
    seen = Seen()
    takers: dict[tuple[Key, str], list[tuple[str, str | None]]] = {}
    for _rank, key, rule, path, match in ordered:
        takers.setdefault((key, rule), []).append((path, seen.taker(match)))
        seen.add(match, f"{key[0]}/{key[1]} {path}")
    found: dict[Key, list[Taken]] = {}
    for (key, rule), matches in takers.items():
        whole = all(by for _path, by in matches)
        for path, by in matches:
            if by:
                owner, _space, field = by.partition(" ")
                found.setdefault(key, []).append(Taken(rule, path, field if owner == f"{key[0]}/{key[1]}" else owner, whole))
    return {key: tuple(taken) for key, taken in found.items()}


@table
def http_shadows(fetch: Fetch, place: Place) -> dict[Key, tuple[Taken, ...]]:
    """What HTTPRoutes for one parent and hostname leave of each other."""
    ordered: _Ordered = []
    for key in fetch.keys(http_routes, "parent_host", place):
        made = fetch(http_route_rules, key)
        for one in made.routes if made else ():
            if one.share:  # of one match for several backends, the first stands for all
                continue
            rule, at = f"spec.rules[{one.rank[-2]}]", one.rank[-1]
            ordered.append((one.rank, key, rule, f"{rule}.matches[{at}]", Match(request=one.route.match)))
    return _in_order(ordered)


@table
def taken_http(fetch: Fetch, key: tuple[Place, Key]) -> tuple[Taken, ...]:
    """What is taken of (parent and hostname, HTTPRoute)."""
    return (fetch(http_shadows, key[0]) or {}).get(key[1], ())


@table
def grpc_shadows(fetch: Fetch, place: Place) -> dict[Key, tuple[Taken, ...]]:
    """What GRPCRoutes for one parent and hostname leave of each other."""
    ordered: _Ordered = []
    for row in fetch.rows(grpc_routes, "parent_host", place):
        ordered += _grpc(row)
    return _in_order(ordered)


@table
def taken_grpc(fetch: Fetch, key: tuple[Place, Key]) -> tuple[Taken, ...]:
    """What is taken of (parent and hostname, GRPCRoute)."""
    return (fetch(grpc_shadows, key[0]) or {}).get(key[1], ())


def _grpc(row: GRPCRoute) -> _Ordered:
    """By the Gateway API's precedence: the longer service, the longer method, more headers, then the older route."""
    key = (row.metadata.namespace, row.metadata.name)
    found: _Ordered = []
    for index, rule in enumerate(row.spec.rules):
        path = f"spec.rules[{index}]"
        if not rule.matches:
            found.append(((1, 0, 0, 0, *age(row), index, 0), key, path, path, Match()))
        for at, one in enumerate(rule.matches):
            method = one.method
            exact = method is None or method.type == "Exact"
            service, name = (method.service or "", method.method or "") if method else ("", "")
            rank = (0 if exact else 1, -len(service), -len(name), -len(one.headers), *age(row), index, at)
            found.append((rank, key, path, f"{path}.matches[{at}]", Match(request=_grpc_match(one))))
    return found


def _grpc_match(one: GRPCRouteMatch) -> RouteMatch:
    kinds = {"Exact": MatchKind.EXACT, "RegularExpression": MatchKind.REGEX}
    headers = [NamedMatch(header.name.lower(), TextMatch(kinds[header.type], header.value)) for header in one.headers]
    path = None
    if one.method and one.method.type == "Exact" and one.method.service:
        kind = MatchKind.EXACT if one.method.method else MatchKind.PREFIX
        path = TextMatch(kind, f"/{one.method.service}/{one.method.method or ''}")
    elif one.method:
        service, name = one.method.service or "[^/]+", one.method.method or "[^/]+"
        path = TextMatch(MatchKind.REGEX, f"/{service}/{name}")
    return RouteMatch(path=path, headers=tuple(sorted(headers, key=lambda header: header.name)))


def _problems(ref: Ref, taken: list[Taken], words: str) -> Iterator[Problem]:
    said: set[str] = set()
    for one in taken:
        message = words.format(by=one.by)
        if not one.whole:
            yield info(ref, one.match, "IneffectiveMatch", message)
        elif one.rule not in said:
            said.add(one.rule)
            yield warning(ref, one.rule, "UnreachableRule", message)
