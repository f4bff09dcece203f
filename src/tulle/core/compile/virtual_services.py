"""VirtualService → routes, in the order in which they are written; the first that matches decides.

One VirtualService gives different routes to different callers: `match.port`, `match.gateways` and matches by source leave some
out, and a destination without a port takes the caller's. So a row is keyed by the object, by who calls (the sidecars, or a
Gateway), by the port of the call and by what tells the callers apart. A rule may stand for those of another VirtualService (its
delegate): they take the place of the rule, where both its matches and theirs hold, and inherit what they do not say themselves.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from tulle.api.istio import VirtualService
from tulle.api.istio.virtual_service import HTTPMatchRequest
from tulle.api.istio.virtual_service import HTTPRoute as Rule
from tulle.core.compile.callers import Source
from tulle.core.compile.exports import counts_for
from tulle.core.compile.hostname import Key
from tulle.core.compile.matches import both
from tulle.core.compile.mistakes import error, meant, sorted_problems, unsaid, warning
from tulle.core.compile.objects import MESH, gateway_key, virtual_services
from tulle.core.compile.pauses import paced, pause_problems
from tulle.core.compile.routes import Routes, reachable
from tulle.core.compile.virtual_service_actions import Action, text_match
from tulle.core.flow import Fetch, table
from tulle.core.model.route import MatchKind, NamedMatch, Origin, Route, RouteMatch
from tulle.kit.problem import Problem

# Who calls: the sidecars ("mesh"), or the Gateway of that namespace and name; the port of the call, and the callers' workloads.
Caller = tuple[Key, Key | str, int, Source]
# A match and its name.
Named = tuple[RouteMatch, str]

_ANY: tuple[Named, ...] = ((RouteMatch(), ""),)
# What a delegate's rule takes from the rule that stands for it, where it says nothing itself.
_INHERITED = (
    "rewrite",
    "timeout",
    "retries",
    "mirror",
    "mirrors",
    "mirror_percent",
    "mirror_percent_older",
    "mirror_percentage",
    "cors_policy",
    "headers",
)


@table
def virtual_service_routes(fetch: Fetch, key: Caller) -> Routes | None:
    """The routes of (VirtualService, caller, port, source), and what is wrong in the VirtualService itself."""
    row = fetch(virtual_services, key[0])
    if row is None:
        return None
    routes: list[Route] = []
    problems = [*pause_problems(row.ref, row.metadata.annotations)]
    for made, found in _rules(fetch, row, key, _ANY, None):
        routes += paced(made, row.metadata.annotations)
        problems += (problem for problem in found if problem.ref == row.ref)
    return Routes(reachable(routes), sorted_problems(problems))


def _rules(
    fetch: Fetch, row: VirtualService, caller: Caller, outer: tuple[Named, ...], heir: Rule | None
) -> Iterator[tuple[list[Route], list[Problem]]]:
    """The routes of each rule: within the matches `outer`, inheriting of `heir`."""
    for index, said in enumerate(row.spec.http):
        path = f"spec.http[{index}]"
        rule = _inheriting(said, heir) if heir else said
        matches, problems = _matches(row, rule, path, caller)
        within: list[Named] = []
        for inner in matches:
            for outside in outer:
                common = both(outside[0], inner[0])
                if isinstance(common, str):
                    message = f"{common}; requests for both are not routed here"
                    problems.append(warning(row.ref, f"{path}.match", "NotYetSupported", message))
                elif common:
                    within.append((common, ".".join(filter(None, (outside[1], inner[1])))))
        if rule.delegate is None:
            yield _routes(fetch, row, rule, path, caller[2], within, problems)
            continue
        problems += unsaid(row.ref, rule, path, ("name", "match", "delegate", *_INHERITED))
        found = _delegate(fetch, row, rule, path)
        yield ([], problems) if isinstance(found, VirtualService) else ([], [*problems, found])
        if isinstance(found, VirtualService) and within:
            yield from _rules(fetch, found, caller, tuple(within), rule)


def _routes(
    fetch: Fetch, row: VirtualService, rule: Rule, path: str, called: int, matches: list[Named], problems: list[Problem]
) -> tuple[list[Route], list[Problem]]:
    action = Action(fetch, row.ref, path, called)
    made = action.route(rule)
    name = rule.name or f"{row.metadata.namespace}/{row.metadata.name}.{path.removeprefix('spec.')}"
    origin = Origin(ref=row.ref, path=path)
    routes = [
        msgspec.structs.replace(made, name=f"{name}.{suffix}" if suffix else name, match=match, origin=origin)
        for match, suffix in matches
    ]
    return routes, [*problems, *action.problems]


def _inheriting(rule: Rule, heir: Rule) -> Rule:
    """A delegate's rule with what it does not say itself."""
    mirrors = ("mirror", "mirrors", "mirror_percent", "mirror_percent_older", "mirror_percentage")
    fields = [field for field in _INHERITED if not getattr(rule, field)]
    if rule.mirror or rule.mirrors:
        fields = [field for field in fields if field not in mirrors]
    if rule.redirect or rule.direct_response:
        fields = [field for field in fields if field != "rewrite"]
    return rule.model_copy(update={field: getattr(heir, field) for field in fields if getattr(heir, field)})


def _delegate(fetch: Fetch, row: VirtualService, rule: Rule, path: str) -> VirtualService | Problem:
    """The VirtualService whose rules take the place of one."""
    assert rule.delegate is not None
    key = (rule.delegate.namespace or row.metadata.namespace, rule.delegate.name)
    at = f"{path}.delegate.name"
    found = fetch(virtual_services, key)
    if found is None or not counts_for(fetch, found, row.metadata.namespace):
        near = "" if found else meant(key[1], (other for space, other in fetch.keys(virtual_services) if space == key[0]))
        hidden = " that is exported to this namespace" if found else ""
        return error(row.ref, at, "DelegateNotFound", f"no VirtualService {key[1]} in namespace {key[0]}{hidden}{near}")
    if found.spec.hosts:
        message = f"VirtualService {key[0]}/{key[1]} has hosts of its own; needed one without hosts"
        return error(row.ref, at, "DelegateNotFound", message)
    mine = (row.metadata.namespace, row.metadata.name)
    if key == mine or _leads_to(fetch, found, mine, set()):
        message = f"VirtualService {key[0]}/{key[1]} leads back to this one; needed an end: this rule has no effect"
        return error(row.ref, at, "DelegateCycle", message)
    return found


def _leads_to(fetch: Fetch, row: VirtualService, end: Key, seen: set[Key]) -> bool:
    """Whether delegates lead from one VirtualService to another."""
    for rule in row.spec.http:
        key = (rule.delegate.namespace or row.metadata.namespace, rule.delegate.name) if rule.delegate else None
        if key is None or key in seen:
            continue
        seen.add(key)
        if key == end or ((found := fetch(virtual_services, key)) and _leads_to(fetch, found, end, seen)):
            return True
    return False


def _matches(row: VirtualService, rule: Rule, path: str, caller: Caller) -> tuple[list[Named], list[Problem]]:
    """The matches that concern the caller, each with its name."""
    if not rule.match:
        return [*_ANY], []
    problems: list[Problem] = []
    matches: list[Named] = []
    for index, one in enumerate(rule.match):
        problems += unsaid(row.ref, one, f"{path}.match[{index}]", _MATCHED)
        if _concerns(row, one, caller):
            matches.append((request_match(one), one.name))
    return matches, problems


def matches_of(fetch: Fetch, row: VirtualService, through: tuple[Key, ...] = ()) -> Iterator[HTTPMatchRequest]:
    """All matches of HTTP rules, those of the delegates among them."""
    for rule in row.spec.http:
        yield from rule.match
        if rule.delegate:
            key = (rule.delegate.namespace or row.metadata.namespace, rule.delegate.name)
            found = fetch(virtual_services, key)
            if found and key not in through:
                yield from matches_of(fetch, found, (*through, key))


def _concerns(row: VirtualService, one: HTTPMatchRequest, caller: Caller) -> bool:
    """Whether a match may hold for the caller's requests."""
    _key, who, port, source = caller
    if one.port is not None and one.port != port:
        return False
    if one.gateways and who not in [name if name == MESH else gateway_key(name, row.metadata.namespace) for name in one.gateways]:
        return False
    return one.source_namespace in ("", source.namespace) and set(one.source_labels.items()) <= set(source.labels)


_MATCHED = (
    "name",
    "uri",
    "scheme",
    "method",
    "authority",
    "headers",
    "without_headers",
    "query_params",
    "ignore_uri_case",
    "port",
    "gateways",
    "source_labels",
    "source_namespace",
)


def request_match(one: HTTPMatchRequest) -> RouteMatch:
    """What a match says of the request itself."""
    pseudo = ((":scheme", one.scheme), (":method", one.method), (":authority", one.authority))
    headers = [NamedMatch(name, text_match(said)) for name, said in pseudo if said is not None]
    headers += (NamedMatch(name.lower(), text_match(said)) for name, said in one.headers.items())
    headers += (NamedMatch(name.lower(), text_match(said), invert=True) for name, said in one.without_headers.items())
    path = text_match(one.uri, one.ignore_uri_case) if one.uri else None
    return RouteMatch(
        path=None if path is None or path.kind is MatchKind.PRESENT else path,
        headers=tuple(sorted(headers, key=lambda header: (header.name, header.invert))),
        query=tuple(NamedMatch(name, text_match(said)) for name, said in sorted(one.query_params.items())),
    )
