"""VirtualService → routes, in the order in which they are written; the first that matches decides.

One VirtualService gives different routes to different callers: `match.port` and `match.gateways` leave some out, and a
destination without a port takes the caller's. So a row is keyed by the object, by who calls (the sidecars, or a Gateway) and by
the port of the call. Destinations that are not there stay in the route, and Envoy answers 503 for their share, as in Istio; a
match that says what the model cannot say yet is left out, for a wider match would send the wrong requests.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from tulle.api.istio import VirtualService
from tulle.api.istio.shared import Percent, StringMatch
from tulle.api.istio.virtual_service import Destination, HTTPFaultInjection, HTTPMatchRequest, HTTPRetry
from tulle.api.istio.virtual_service import HTTPRoute as Rule
from tulle.api.values import seconds
from tulle.core.compile import backends
from tulle.core.compile.hostname import Key, full_name, service_key
from tulle.core.compile.mistakes import error, not_yet, sorted_problems, unsaid, warning
from tulle.core.compile.objects import MESH, gateway_key, virtual_services
from tulle.core.compile.routes import Routes, reachable
from tulle.core.flow import Fetch, table
from tulle.core.model.destination import DestinationKey
from tulle.core.model.route import (
    DEFAULT_RETRY,
    Abort,
    Delay,
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

# Who calls: the sidecars ("mesh"), or the Gateway of that namespace and name; and the port of the call.
Caller = tuple[Key, Key | str, int]


@table
def virtual_service_routes(fetch: Fetch, key: Caller) -> Routes | None:
    """The routes of (VirtualService, caller, port)."""
    row = fetch(virtual_services, key[0])
    if row is None:
        return None
    routes: list[Route] = []
    problems: list[Problem] = []
    for index, rule in enumerate(row.spec.http):
        made, found = _rule(fetch, row, rule, f"spec.http[{index}]", key)
        problems += found
        routes += made
    return Routes(reachable(routes), sorted_problems(problems))


def _rule(fetch: Fetch, row: VirtualService, rule: Rule, path: str, caller: Caller) -> tuple[list[Route], list[Problem]]:
    problems = [*unsaid(row.ref, rule, path, _SAID)]
    matches, found = _matches(row, rule, path, caller)
    problems += found
    action, found = _action(fetch, row.ref, rule, path, caller[2])
    problems += found
    delay, abort, found = _fault(row.ref, rule.fault, f"{path}.fault")
    problems += found
    retry, found = _retry(row.ref, rule.retries, f"{path}.retries")
    problems += found
    name = rule.name or f"{row.metadata.namespace}/{row.metadata.name}.{path.removeprefix('spec.')}"
    routes = [
        msgspec.structs.replace(
            action,
            name=f"{name}.{suffix}" if suffix else name,
            match=match,
            timeout=seconds(rule.timeout) if rule.timeout else 0.0,
            retry=retry,
            delay=delay,
            abort=abort,
            origin=Origin(ref=row.ref, path=path),
        )
        for match, suffix in matches
    ]
    return routes, problems


_SAID = ("name", "match", "route", "direct_response", "timeout", "retries", "fault")


def _action(fetch: Fetch, ref: Ref, rule: Rule, path: str, called: int) -> tuple[Route, list[Problem]]:
    """A route with only what it does; 500 for actions that are not supported (and so said by the caller)."""
    if rule.direct_response:
        problems = [*unsaid(ref, rule.direct_response, f"{path}.directResponse", ("status",))]
        return Route(status=rule.direct_response.status), problems
    if not rule.route:
        return Route(status=500), []
    problems = []
    shares: list[WeightedDestination] = []
    broken = 0
    for index, one in enumerate(rule.route):
        at = f"{path}.route[{index}]"
        problems += unsaid(ref, one, at, ("destination", "weight"))
        weight = one.weight if len(rule.route) > 1 else 1
        found = _find(fetch, ref, one.destination, f"{at}.destination", called)
        if isinstance(found, Problem):
            problems.append(found)
            broken += 1
            found = _missing(ref, one.destination, called)
        if weight > 0:
            shares.append(WeightedDestination(found, weight))
    if not shares:
        message = "found weights whose sum is 0; needed a weight above 0 for at least one destination"
        problems.append(error(ref, f"{path}.route", "WeightSumZero", message))
    if not shares or broken == len(rule.route):
        return Route(status=503), problems
    return Route(destinations=tuple(shares)), problems


def _find(fetch: Fetch, ref: Ref, one: Destination, path: str, called: int) -> backends.Found:
    return backends.find(fetch, ref, path, one.host, one.port.number if one.port else None, one.subset, called)


def _missing(ref: Ref, one: Destination, called: int) -> DestinationKey:
    """A destination that is nowhere: its share of the requests is answered 503."""
    key = service_key(one.host, ref.namespace)
    return DestinationKey(full_name(key) if key else one.host, one.port.number if one.port else called, one.subset)


def _matches(row: VirtualService, rule: Rule, path: str, caller: Caller) -> tuple[list[tuple[RouteMatch, str]], list[Problem]]:
    """The matches that concern the caller, each with its name."""
    if not rule.match:
        return [(RouteMatch(), "")], []
    _key, who, port = caller
    problems: list[Problem] = []
    matches: list[tuple[RouteMatch, str]] = []
    for index, one in enumerate(rule.match):
        at = f"{path}.match[{index}]"
        problems += unsaid(row.ref, one, at, (*_MATCHED, *_CALLERS))
        narrowed = [field for field in _CALLERS if getattr(one, field)]
        problems += (
            warning(row.ref, f"{at}.{_CALLERS[field]}", "NotYetSupported", "not supported yet; this match is left out")
            for field in narrowed
        )
        elsewhere = one.port is not None and one.port != port
        if one.gateways and who not in [
            name if name == MESH else gateway_key(name, row.metadata.namespace) for name in one.gateways
        ]:
            elsewhere = True
        if not narrowed and not elsewhere:
            matches.append((request_match(one), one.name))
    return matches, problems


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
)
# Matches by who the caller is.
_CALLERS = {"source_labels": "sourceLabels", "source_namespace": "sourceNamespace"}


def request_match(one: HTTPMatchRequest) -> RouteMatch:
    """What a match says of the request itself."""
    pseudo = ((":scheme", one.scheme), (":method", one.method), (":authority", one.authority))
    headers = [NamedMatch(name, _text(said)) for name, said in pseudo if said is not None]
    headers += (NamedMatch(name.lower(), _text(said)) for name, said in one.headers.items())
    headers += (NamedMatch(name.lower(), _text(said), invert=True) for name, said in one.without_headers.items())
    path = _text(one.uri, one.ignore_uri_case) if one.uri else None
    return RouteMatch(
        path=None if path is None or path.kind is MatchKind.PRESENT else path,
        headers=tuple(sorted(headers, key=lambda header: (header.name, header.invert))),
        query=tuple(NamedMatch(name, _text(said)) for name, said in sorted(one.query_params.items())),
    )


def _text(said: StringMatch, ignore_case: bool = False) -> TextMatch:
    if said.exact is not None:
        return TextMatch(MatchKind.EXACT, said.exact, ignore_case)
    if said.prefix is not None:
        return TextMatch(MatchKind.PREFIX, said.prefix, ignore_case)
    if said.regex is not None:
        return TextMatch(MatchKind.REGEX, said.regex, ignore_case)
    return TextMatch(MatchKind.PRESENT)


def _percent(percentage: Percent | None, older: int | None = None) -> float:
    if percentage is not None:
        return percentage.value
    return 100.0 if older is None else float(older)


def _fault(ref: Ref, said: HTTPFaultInjection | None, path: str) -> tuple[Delay | None, Abort | None, list[Problem]]:
    delay: Delay | None = None
    abort: Abort | None = None
    problems: list[Problem] = []
    if said and said.delay:
        problems += unsaid(ref, said.delay, f"{path}.delay", ("fixed_delay", "percentage", "percent"))
        if said.delay.fixed_delay:
            delay = Delay(seconds(said.delay.fixed_delay), _percent(said.delay.percentage, said.delay.percent))
    if said and said.abort:
        problems += unsaid(ref, said.abort, f"{path}.abort", ("http_status", "percentage"))
        if said.abort.http_status:
            abort = Abort(said.abort.http_status, _percent(said.abort.percentage))
    return delay, abort, problems


def _retry(ref: Ref, said: HTTPRetry | None, path: str) -> tuple[Retry | None, list[Problem]]:
    if said is None:
        return DEFAULT_RETRY, []
    problems = [*unsaid(ref, said, path, ("attempts", "per_try_timeout", "retry_on"))]
    if said.attempts == 0:
        return None, problems
    words = [word for part in said.retry_on.split(",") if (word := part.strip())]
    statuses = tuple(int(word) for word in words if word.isdigit())
    on = tuple(word for word in words if not word.isdigit())
    if statuses:
        on = tuple(dict.fromkeys((*on, "retriable-status-codes")))
    return (
        Retry(
            attempts=said.attempts,
            on=on if words else DEFAULT_RETRY.on,
            statuses=statuses if words else DEFAULT_RETRY.statuses,
            per_try_timeout=seconds(said.per_try_timeout) if said.per_try_timeout else 0.0,
        ),
        problems,
    )


def others(row: VirtualService) -> Iterator[Problem]:
    """What a VirtualService has besides HTTP routes."""
    yield from (
        not_yet(row.ref, f"spec.{field}", f"{field.upper()} routes") for field in ("tls", "tcp") if getattr(row.spec, field)
    )
