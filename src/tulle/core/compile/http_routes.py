"""HTTPRoute → routes with their rank: the Gateway API orders the matches of all routes together, not as they are written.

A row is the object alone, whatever it is attached to; `gateways` and `hosts` put the rows of one host together by rank.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from tulle.api.gateway import HTTPRoute
from tulle.api.gateway.http_route import HTTPRouteMatch, HTTPRouteRule, Timeouts
from tulle.api.gateway.http_route import Retry as RetrySpec
from tulle.api.values import seconds
from tulle.core.compile.hostname import Key
from tulle.core.compile.mistakes import sorted_problems
from tulle.core.compile.objects import age, http_routes
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
    route = placed(one.route, port, bound, tls)
    return one if route is one.route else Ranked(one.rank, route, one.share)


@table
def http_route_rules(fetch: Fetch, key: Key) -> RankedRoutes | None:
    """The routes of an HTTPRoute."""
    row = fetch(http_routes, key)
    if row is None:
        return None
    routes: list[Ranked] = []
    problems: list[Problem] = []
    refused: list[int] = []
    partly: list[int] = []
    for index, rule in enumerate(row.spec.rules):
        path = f"spec.rules[{index}]"
        made = _action(fetch, row, rule, path)
        problems += made.problems
        refused += [index] * made.refused
        partly += [index] * made.partly
        for place, one in enumerate(rule.matches or (HTTPRouteMatch(),)):
            match = _match(one)
            rank = (*_specificity(one), *age(row), index, place)
            routes += (Ranked(rank, route, share) for share, route in enumerate(matched(made.routes, match)))
    return RankedRoutes(tuple(routes), sorted_problems(problems), tuple(refused), tuple(partly))


def matched(routes: tuple[Route, ...], match: RouteMatch) -> Iterator[Route]:
    """The routes of a rule where a match of it holds."""
    for route in routes:
        yield msgspec.structs.replace(route, match=msgspec.structs.replace(match, percent=route.match.percent))


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


def _action(fetch: Fetch, row: HTTPRoute, rule: HTTPRouteRule, path: str) -> Action:
    retry, timeout = _retry(rule.retry, rule.timeouts)
    kept, problems = session(row.ref, rule.session_persistence, f"{path}.sessionPersistence")
    base = Route(
        name=rule.name or f"{row.metadata.namespace}/{row.metadata.name}.{path.removeprefix('spec.')}",
        timeout=timeout,
        retry=retry,
        session=kept,
        origin=Origin(ref=row.ref, path=path),
    )
    made = action(fetch, row.ref, base, rule.filters, rule.backend_refs, path)
    return msgspec.structs.replace(made, problems=(*made.problems, *problems))


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
    return msgspec.structs.replace(retry, per_try_timeout=one_try), request
