"""HTTPRoute → routes with their rank: the Gateway API orders the matches of all routes together, not as they are written.

A row is the object alone, whatever it is attached to; `gateways` and `hosts` put the rows of one host together by rank.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import msgspec

from tulle.api.gateway import GRPCRoute, HTTPRoute
from tulle.api.gateway.http_route import HTTPRouteMatch, HTTPRouteRule, Timeouts
from tulle.api.gateway.http_route import Retry as RetrySpec
from tulle.api.gateway.routes import GRPCRouteRule
from tulle.api.values import seconds
from tulle.core.compile.hostname import Key
from tulle.core.compile.mistakes import sorted_problems
from tulle.core.compile.objects import age, http_routes
from tulle.core.compile.pauses import paced, pause_problems
from tulle.core.compile.route_limits import route_counters
from tulle.core.compile.routes import placed
from tulle.core.compile.rule_actions import Action, action, session
from tulle.core.flow import Fetch, table
from tulle.core.model.route import DEFAULT_RETRY, MatchKind, NamedMatch, Origin, Retry, Route, RouteMatch, TextMatch
from tulle.kit.problem import Problem

_PATHS = {"Exact": MatchKind.EXACT, "PathPrefix": MatchKind.SEGMENTS, "RegularExpression": MatchKind.REGEX}
_TEXTS = {"Exact": MatchKind.EXACT, "RegularExpression": MatchKind.REGEX}


class Ranked(msgspec.Struct, frozen=True, order=True):
    """A route and its place among all routes of a host: the lower rank goes first.

    Exact path, then prefixes by length, then expressions; a method; more headers; more query parameters; then the oldest object,
    its name, and the order within it; `share` is the place among the routes of one match.
    """

    rank: tuple[int, int, int, int, int, str, str, str, int, int]
    route: Route
    share: int = 0


class RankedRoutes(msgspec.Struct, frozen=True):
    """The routes of an HTTPRoute, and what is wrong with them.

    `refused` are the rules (by their place) of which every request is answered 500 because they say what is not supported yet,
    `partly` those of which it is the share of some backends.
    """

    routes: tuple[Ranked, ...] = ()
    problems: tuple[Problem, ...] = ()
    refused: tuple[int, ...] = ()
    partly: tuple[int, ...] = ()


def in_order(ranked: list[Ranked]) -> tuple[Route, ...]:
    """The routes of several objects as one list."""
    return tuple(one.route for one in sorted(ranked, key=lambda one: (one.rank, one.share)))


def at_listener(one: Ranked, port: int, bound: int, tls: bool) -> Ranked:
    """The route as it is at a listener: see `placed`."""
    return rerouted(one, placed(one.route, port, bound, tls))


def rerouted(one: Ranked, route: Route) -> Ranked:
    """Another route at the same rank."""
    return one if route is one.route else Ranked(one.rank, route, one.share)


@table
def http_route_rules(fetch: Fetch, key: Key) -> RankedRoutes | None:
    """The routes of an HTTPRoute."""
    row = fetch(http_routes, key)
    if row is None:
        return None
    return ranked(fetch, row, [_rule(rule) for rule in row.spec.rules])


class Rule(msgspec.Struct, frozen=True):
    """A rule of an HTTPRoute or GRPCRoute as it is `said`: where it holds (and how specific that is), and what its kind adds."""

    said: HTTPRouteRule | GRPCRouteRule
    matches: tuple[tuple[tuple[int, int, int, int, int], RouteMatch], ...]
    retry: Retry | None = DEFAULT_RETRY
    timeout: float = 0.0


def ranked(fetch: Fetch, row: HTTPRoute | GRPCRoute, rules: Iterable[Rule]) -> RankedRoutes:
    """The routes of an object's rules: what each does, wherever one of its matches holds."""
    routes: list[Ranked] = []
    notes = row.metadata.annotations
    problems = [*pause_problems(row.ref, notes)]
    refused: list[int] = []
    partly: list[int] = []
    for index, rule in enumerate(rules):
        made = _action(fetch, row, rule, f"spec.rules[{index}]")
        problems += made.problems
        refused += [index] * made.refused
        partly += [index] * made.partly
        for place, (specificity, match) in enumerate(rule.matches):
            rank = (*specificity, *age(row), index, place)
            routes += (Ranked(rank, route, share) for share, route in enumerate(_matched(paced(made.routes, notes), match)))
    return RankedRoutes(tuple(routes), sorted_problems(problems), tuple(refused), tuple(partly))


def _matched(routes: Iterable[Route], match: RouteMatch) -> Iterator[Route]:
    """The routes of a rule where a match of it holds."""
    for route in routes:
        yield msgspec.structs.replace(route, match=msgspec.structs.replace(match, percent=route.match.percent))


def _action(fetch: Fetch, row: HTTPRoute | GRPCRoute, rule: Rule, path: str) -> Action:
    said = rule.said
    kept, problems = session(row.ref, said.session_persistence, f"{path}.sessionPersistence")
    base = Route(
        name=said.name or f"{row.metadata.namespace}/{row.metadata.name}.{path.removeprefix('spec.')}",
        timeout=rule.timeout,
        retry=rule.retry,
        session=kept,
        origin=Origin(ref=row.ref, path=path),
        limits=route_counters(fetch, row.kind, (row.metadata.namespace, row.metadata.name), said.name),
    )
    made = action(fetch, row.ref, base, said.filters, said.backend_refs, path)
    return msgspec.structs.replace(made, problems=(*made.problems, *problems))


def _rule(said: HTTPRouteRule) -> Rule:
    retry, timeout = _retry(said.retry, said.timeouts)
    matches = tuple((_specificity(one), _match(one)) for one in said.matches or (HTTPRouteMatch(),))
    return Rule(said, matches, retry, timeout)


def _specificity(one: HTTPRouteMatch) -> tuple[int, int, int, int, int]:
    kind = ("Exact", "PathPrefix", "RegularExpression").index(one.path.type)
    return kind, -len(one.path.value), 0 if one.method else 1, -len(one.headers), -len(one.query_params)


def _match(one: HTTPRouteMatch) -> RouteMatch:
    path = TextMatch(_PATHS[one.path.type], one.path.value)
    everything = path.kind is MatchKind.SEGMENTS and path.value == "/"
    headers = {header.name.lower(): TextMatch(_TEXTS[header.type], header.value) for header in reversed(one.headers)}
    if one.method:
        headers[":method"] = TextMatch(MatchKind.EXACT, one.method)
    query = {parameter.name: TextMatch(_TEXTS[parameter.type], parameter.value) for parameter in reversed(one.query_params)}
    return RouteMatch(
        path=None if everything else path,
        headers=tuple(NamedMatch(name, text) for name, text in sorted(headers.items())),
        query=tuple(NamedMatch(name, text) for name, text in sorted(query.items())),
    )


def _retry(said: RetrySpec | None, timeouts: Timeouts | None) -> tuple[Retry | None, float]:
    request = seconds(timeouts.request) if timeouts and timeouts.request else 0.0
    one_try = seconds(timeouts.backend_request) if timeouts and timeouts.backend_request else 0.0
    retry = DEFAULT_RETRY
    if said:
        # Who writes a retry asks for it, whatever is repeated: connections that broke and tries that took too long, too.
        retry = Retry(
            attempts=said.attempts or retry.attempts,
            on=(*(one for one in retry.on if one != "reset-before-request"), "reset"),
            statuses=said.codes,
            backoff=seconds(said.backoff) if said.backoff else 0.0,
        )
    elif one_try:
        # To Envoy a try that took too long is a reset, and nobody asked for slow instances to be asked three times.
        retry = msgspec.structs.replace(retry, safe=())
    return msgspec.structs.replace(retry, per_try_timeout=one_try), request
