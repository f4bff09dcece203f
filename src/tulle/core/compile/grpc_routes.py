"""GRPCRoute → routes with their rank, as those of an HTTPRoute: a method of gRPC is a path of HTTP.

Among GRPCRoutes the longest service goes first, then the longest method, more headers, and the oldest object. Its routes hold for
gRPC alone and stand before those of HTTPRoutes for the same host, which get everything else.
"""

from __future__ import annotations

from tulle.api.gateway.routes import GRPCRouteMatch, GRPCRouteRule
from tulle.core.compile.hostname import Key
from tulle.core.compile.http_routes import RankedRoutes, Rule, ranked
from tulle.core.compile.objects import grpc_routes
from tulle.core.flow import Fetch, table
from tulle.core.model.route import MatchKind, NamedMatch, RouteMatch, TextMatch

_KINDS = {"Exact": MatchKind.EXACT, "RegularExpression": MatchKind.REGEX}
_GRPC = NamedMatch("content-type", TextMatch(MatchKind.PREFIX, "application/grpc"))


@table
def grpc_route_rules(fetch: Fetch, key: Key) -> RankedRoutes | None:
    """The routes of a GRPCRoute."""
    row = fetch(grpc_routes, key)
    if row is None:
        return None
    return ranked(fetch, row, [_rule(rule) for rule in row.spec.rules])


def _rule(said: GRPCRouteRule) -> Rule:
    return Rule(said, tuple((_specificity(one), grpc_match(one)) for one in said.matches or (GRPCRouteMatch(),)))


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
