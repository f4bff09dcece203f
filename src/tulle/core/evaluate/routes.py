"""The route of a virtual host that a request takes, and what it does there."""

from __future__ import annotations

from collections.abc import Iterable

from tulle.core.evaluate.decision import Decision, Outcome, Passed, Share
from tulle.core.evaluate.hosts import choose_host
from tulle.core.evaluate.request import Request, normalized
from tulle.core.evaluate.texts import why_not
from tulle.core.model.destination import DestinationKey
from tulle.core.model.route import Route, RouteTableKey, VirtualHost

_NOT_FOUND = 404
_NOT_IN_MESH = 502


def decide(key: RouteTableKey, hosts: Iterable[VirtualHost], request: Request, chance: float = 0.0) -> Decision:
    """What a proxy with this table does with a request. `chance` in [0, 1) is where one of several destinations is drawn."""
    found = choose_host(key, hosts, request.authority)
    if found is None:
        return Decision(Outcome.NO_ROUTE, status=_missing(key))
    host, domain = found
    return decide_route(key, host, domain, request, chance)


def decide_route(key: RouteTableKey, host: VirtualHost, domain: str, request: Request, chance: float = 0.0) -> Decision:
    """As `decide`, where the virtual host is known."""
    request = normalized(request)
    passed: list[Passed] = []
    for route in host.routes:
        if because := why_not(route.match, request):
            passed.append(Passed(route.name, because))
            continue
        return _act(host, domain, route, request, chance, tuple(passed))
    if host.passthrough and request.path.startswith("/"):
        if key.port == 0 or key.gateway:
            return Decision(Outcome.RESPOND, host.name, domain, status=_NOT_IN_MESH, passed=tuple(passed))
        return Decision(
            Outcome.PASSTHROUGH, host.name, domain, authority=request.authority, path=request.path, passed=tuple(passed)
        )
    return Decision(Outcome.NO_ROUTE, host.name, domain, status=_missing(key), passed=tuple(passed))


def _missing(key: RouteTableKey) -> int:
    """A forward proxy says that it has no route, where others say that there is no such page."""
    return _NOT_FOUND if key.port else _NOT_IN_MESH


def _act(host: VirtualHost, domain: str, route: Route, request: Request, chance: float, passed: tuple[Passed, ...]) -> Decision:
    if route.abort and route.abort.percent >= 100:
        return Decision(Outcome.RESPOND, host.name, domain, route, status=route.abort.status, passed=passed)
    weights = [share for share in route.destinations if share.weight > 0]
    if not weights:
        return Decision(Outcome.RESPOND, host.name, domain, route, status=route.status or 500, passed=passed)
    total = sum(share.weight for share in weights)
    return Decision(
        Outcome.FORWARD,
        host.name,
        domain,
        route,
        destination=drawn([(share.destination, share.weight) for share in weights], chance),
        shares=tuple(Share(share.destination, share.weight / total) for share in weights),
        authority=request.authority,
        path=request.path,
        passed=passed,
    )


def drawn(weights: list[tuple[DestinationKey, int]], chance: float) -> DestinationKey:
    """The destination at that place of the line on which each has its weight as length, in their order."""
    place = int(chance * sum(weight for _destination, weight in weights))
    for destination, weight in weights:
        if place < weight:
            return destination
        place -= weight
    return weights[-1][0]
