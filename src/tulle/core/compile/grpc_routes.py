"""GRPCRoute → routes with their rank, as those of an HTTPRoute: a method of gRPC is a path of HTTP.

Among GRPCRoutes the longest service goes first, then the longest method, more headers, and the oldest object. Its routes hold for
gRPC alone and stand before those of HTTPRoutes for the same host, which get everything else.
"""

from __future__ import annotations

import msgspec

from tulle.api.gateway import GRPCRoute
from tulle.api.gateway.routes import GRPCRouteMatch, GRPCRouteRule
from tulle.core.compile.hostname import Key
from tulle.core.compile.http_routes import Ranked, RankedRoutes, matched
from tulle.core.compile.mistakes import sorted_problems
from tulle.core.compile.objects import age, grpc_routes
from tulle.core.compile.rule_actions import Action, action, session
from tulle.core.flow import Fetch, table
from tulle.core.model.route import MatchKind, NamedMatch, Origin, Route, RouteMatch, TextMatch
from tulle.kit.problem import Problem

_KINDS = {"Exact": MatchKind.EXACT, "RegularExpression": MatchKind.REGEX}
_GRPC = NamedMatch("content-type", TextMatch(MatchKind.PREFIX, "application/grpc"))


@table
def grpc_route_rules(fetch: Fetch, key: Key) -> RankedRoutes | None:
    """The routes of a GRPCRoute."""
    row = fetch(grpc_routes, key)
    if row is None:
        return None
    routes: list[Ranked] = []
    problems: list[Problem] = []
    refused: list[int] = []
    partly: list[int] = []
    for index, rule in enumerate(row.spec.rules):
        made = _action(fetch, row, rule, f"spec.rules[{index}]")
        problems += made.problems
        refused += [index] * made.refused
        partly += [index] * made.partly
        for place, one in enumerate(rule.matches or (GRPCRouteMatch(),)):
            rank = (*_specificity(one), *age(row), index, place)
            routes += (Ranked(rank, route, share) for share, route in enumerate(matched(made.routes, grpc_match(one))))
    return RankedRoutes(tuple(routes), sorted_problems(problems), tuple(refused), tuple(partly))


def _action(fetch: Fetch, row: GRPCRoute, rule: GRPCRouteRule, path: str) -> Action:
    kept, problems = session(row.ref, rule.session_persistence, f"{path}.sessionPersistence")
    base = Route(
        name=rule.name or f"{row.metadata.namespace}/{row.metadata.name}.{path.removeprefix('spec.')}",
        session=kept,
        origin=Origin(ref=row.ref, path=path),
    )
    made = action(fetch, row.ref, base, rule.filters, rule.backend_refs, path)
    return msgspec.structs.replace(made, problems=(*made.problems, *problems))


def _specificity(one: GRPCRouteMatch) -> tuple[int, int, int, int, int]:
    method = one.method
    service, name = (method.service or "", method.method or "") if method else ("", "")
    expression = method is not None and method.type == "RegularExpression"
    # Below 0, so that all of them go before the rules of HTTPRoutes.
    return -1, 1 if expression else 0, -len(service), -len(name), -len(one.headers)


def grpc_match(one: GRPCRouteMatch) -> RouteMatch:
    """The requests for which a match holds."""
    headers = {header.name.lower(): TextMatch(_KINDS[header.type], header.value) for header in reversed(one.headers)}
    named = [NamedMatch(name, text) for name, text in headers.items()]
    path: TextMatch | None = None
    if one.method and one.method.type == "Exact" and one.method.service:
        kind = MatchKind.EXACT if one.method.method else MatchKind.PREFIX
        path = TextMatch(kind, f"/{one.method.service}/{one.method.method or ''}")
    elif one.method:
        service, name = one.method.service or "[^/]+", one.method.method or "[^/]+"
        path = TextMatch(MatchKind.REGEX, f"/(?:{service})/(?:{name})")
    return RouteMatch(path=path, headers=tuple(sorted((*named, _GRPC), key=lambda header: header.name)))
