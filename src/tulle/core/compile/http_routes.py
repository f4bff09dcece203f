"""HTTPRoute → routes with their rank: the Gateway API orders the matches of all routes together, not as they are written.

A row is the object alone, whatever it is attached to; `gateways` and `hosts` put the rows of one host together by rank. A
backend that is not there is answered 500 for its share; a rule with a filter that is not supported yet is answered 500, for
the API forbids to leave a filter out.
"""

from __future__ import annotations

import msgspec

from tulle.api.gateway import HTTPRoute
from tulle.api.gateway.http_route import HTTPBackendRef, HTTPRouteFilter, HTTPRouteMatch, HTTPRouteRule, Timeouts
from tulle.api.gateway.http_route import Retry as RetrySpec
from tulle.api.values import seconds
from tulle.core.compile import backends
from tulle.core.compile.hostname import Key
from tulle.core.compile.mistakes import not_yet, sorted_problems, unsaid, warning
from tulle.core.compile.objects import age, http_routes
from tulle.core.flow import Fetch, table
from tulle.core.model.destination import DestinationKey
from tulle.core.model.route import (
    DEFAULT_RETRY,
    Abort,
    MatchKind,
    NamedMatch,
    Origin,
    Retry,
    Route,
    RouteMatch,
    TextMatch,
    WeightedDestination,
)
from tulle.kit.problem import Problem, Ref

_PATHS = {"Exact": MatchKind.EXACT, "PathPrefix": MatchKind.SEGMENTS, "RegularExpression": MatchKind.REGEX}
_TEXTS = {"Exact": MatchKind.EXACT, "RegularExpression": MatchKind.REGEX}


class Ranked(msgspec.Struct, frozen=True, order=True):
    """A route and its place among all routes of a host: the lower rank goes first.

    Exact path, then prefixes by length, then expressions; a method; more headers; more query parameters; then the oldest object,
    its name, and the order within it.
    """

    rank: tuple[int, int, int, int, int, str, str, str, int, int]
    route: Route


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
    return tuple(one.route for one in sorted(ranked, key=lambda one: one.rank))


@table
def http_route_rules(fetch: Fetch, key: Key) -> RankedRoutes | None:
    """The routes of an HTTPRoute."""
    row = fetch(http_routes, key)
    if row is None:
        return None
    routes: list[Ranked] = []
    problems: list[Problem] = []
    for index, rule in enumerate(row.spec.rules):
        path = f"spec.rules[{index}]"
        action, found = _action(fetch, row, rule, path)
        problems += found
        for place, one in enumerate(rule.matches or (HTTPRouteMatch(),)):
            match = _match(one)
            rank = (*_specificity(one), *age(row), index, place)
            routes.append(Ranked(rank, msgspec.structs.replace(action, match=match)))
    refused = tuple(index for index, rule in enumerate(row.spec.rules) if rule.filters)
    backends_refused = (any(one.filters for one in rule.backend_refs) for rule in row.spec.rules)
    partly = tuple(index for index, some in enumerate(backends_refused) if some and index not in refused)
    return RankedRoutes(tuple(routes), sorted_problems(problems), refused, partly)


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


def _action(fetch: Fetch, row: HTTPRoute, rule: HTTPRouteRule, path: str) -> tuple[Route, list[Problem]]:
    problems = [*unsaid(row.ref, rule, path, ("name", "matches", "filters", "backend_refs", "timeouts", "retry"))]
    retry, timeout = _retry(rule.retry, rule.timeouts)
    problems += unsaid(row.ref, rule.retry, f"{path}.retry", ("codes", "attempts"))
    route = Route(
        name=rule.name or f"{row.metadata.namespace}/{row.metadata.name}.{path.removeprefix('spec.')}",
        timeout=timeout,
        retry=retry,
        origin=Origin(ref=row.ref, path=path),
    )
    if rule.filters:
        problems += _filters(row.ref, rule.filters, f"{path}.filters")
        return msgspec.structs.replace(route, status=500), problems
    shares: list[WeightedDestination] = []
    broken = 0
    for index, backend in enumerate(rule.backend_refs):
        found = _backend(fetch, row, backend, f"{path}.backendRefs[{index}]")
        if isinstance(found, DestinationKey):
            if backend.weight > 0:
                shares.append(WeightedDestination(found, backend.weight))
        else:
            problems += found
            broken += backend.weight
    if not shares:
        if not broken:
            message = "found no backend with a weight above 0; every request is answered 500"
            problems.append(warning(row.ref, f"{path}.backendRefs", "WeightSumZero", message))
        return msgspec.structs.replace(route, status=500), problems
    abort = Abort(500, 100.0 * broken / (broken + sum(share.weight for share in shares))) if broken else None
    return msgspec.structs.replace(route, destinations=_merged(shares), abort=abort), problems


def _merged(shares: list[WeightedDestination]) -> tuple[WeightedDestination, ...]:
    """Each destination once: one backend named twice gets both its shares."""
    weights: dict[DestinationKey, int] = {}
    for share in shares:
        weights[share.destination] = weights.get(share.destination, 0) + share.weight
    return tuple(WeightedDestination(destination, weight) for destination, weight in weights.items())


def _backend(fetch: Fetch, row: HTTPRoute, backend: HTTPBackendRef, path: str) -> DestinationKey | list[Problem]:
    ref = row.ref
    if backend.filters:
        return _filters(ref, backend.filters, f"{path}.filters")
    found = backends.refer(fetch, ref, backend, path)
    return [found] if isinstance(found, Problem) else found


def _filters(ref: Ref, filters: tuple[HTTPRouteFilter, ...], path: str) -> list[Problem]:
    return [
        warning(ref, f"{path}[{index}]", "NotYetSupported", f"the filter {one.type} is not supported yet; answered 500")
        for index, one in enumerate(filters)
    ]


def _retry(said: RetrySpec | None, timeouts: Timeouts | None) -> tuple[Retry | None, float]:
    request = seconds(timeouts.request) if timeouts and timeouts.request else 0.0
    one_try = seconds(timeouts.backend_request) if timeouts and timeouts.backend_request else 0.0
    retry = DEFAULT_RETRY
    if said:
        statuses = said.codes or retry.statuses
        retry = msgspec.structs.replace(retry, attempts=said.attempts or retry.attempts, statuses=tuple(statuses))
    return msgspec.structs.replace(retry, per_try_timeout=one_try), request


def unsaid_fields(row: HTTPRoute) -> list[Problem]:
    """Fields of the object itself that have no effect."""
    return [not_yet(row.ref, "spec.useDefaultGateways")] if row.spec.use_default_gateways else []
