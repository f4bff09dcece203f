"""The route of a virtual host that a request takes, and what it does there."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from tulle.core.evaluate.decision import Decision, Outcome, Passed, Share
from tulle.core.evaluate.edits import edited_request, location, new_path
from tulle.core.evaluate.hosts import choose_host
from tulle.core.evaluate.request import Request, normalized
from tulle.core.evaluate.texts import holds, why_not
from tulle.core.model.route import Cors, HeaderEdit, Rewrite, Route, RouteTableKey, VirtualHost, WeightedDestination

_NOT_FOUND = 404
_NOT_IN_MESH = 502


def decide(key: RouteTableKey, hosts: Iterable[VirtualHost], request: Request, chance: float = 0.0, lot: float = 0.0) -> Decision:
    """What a proxy with this table does with a request.

    `chance` in [0, 1) is where one of several destinations is drawn; `lot` likewise, for routes that hold for a part of the
    requests.
    """
    found = choose_host(key, hosts, request.authority)
    if found is None:
        return Decision(Outcome.NO_ROUTE, status=_missing(key))
    host, domain = found
    return decide_route(key, host, domain, request, chance, lot)


def decide_route(
    key: RouteTableKey, host: VirtualHost, domain: str, request: Request, chance: float = 0.0, lot: float = 0.0
) -> Decision:
    """As `decide`, where the virtual host is known."""
    request = normalized(request)
    if host.require_tls and request.scheme != "https":
        where = f"https://{request.authority}{request.path}"
        return Decision(Outcome.REDIRECT, host.name, domain, status=301, location=where)
    passed: list[Passed] = []
    for route in host.routes:
        if because := why_not(route.match, request):
            passed.append(Passed(route.name, because))
            continue
        if lot * 100 >= route.match.percent:
            passed.append(Passed(route.name, f"it holds for {route.match.percent:g}% of the requests, and not for this one"))
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
    shares = [share for share in route.destinations if share.weight > 0]
    share = drawn(shares, chance) if shares else None
    # The share is drawn before anything else: its headers are on whatever the caller gets.
    response = _edits(*((share.headers.response,) if share else ()), route.headers.response)
    base = Decision(Outcome.RESPOND, host.name, domain, route, response=response, passed=passed)
    if route.cors and _is_preflight(route.cors, request):
        return msgspec.structs.replace(base, status=200)
    if route.abort and route.abort.percent >= 100:
        # A status of gRPC travels in a response of 200, to whoever asked.
        return msgspec.structs.replace(base, status=route.abort.status if route.abort.grpc is None else 200)
    if share is None and route.redirect:
        where = location(route.redirect, route.match.path, request)
        return msgspec.structs.replace(base, outcome=Outcome.REDIRECT, status=route.redirect.status, location=where)
    if share is None:
        return msgspec.structs.replace(base, status=route.status or 500)
    total = sum(one.weight for one in shares)
    rewrite = route.rewrite or Rewrite()
    return msgspec.structs.replace(
        base,
        outcome=Outcome.FORWARD,
        destination=share.destination,
        shares=tuple(Share(one.destination, one.weight / total) for one in shares),
        authority=share.authority or rewrite.authority or request.authority,
        path=new_path(rewrite.path, route.match.path, request.path) if rewrite.path else request.path,
        headers=edited_request(request, _edits(share.headers.request, route.headers.request)).headers,
    )


def _edits(*edits: HeaderEdit) -> tuple[HeaderEdit, ...]:
    return tuple(edit for edit in edits if edit != HeaderEdit())


def _is_preflight(cors: Cors, request: Request) -> bool:
    """Whether the request asks if another may be sent, and is answered by the proxy itself."""
    origin = request.header("origin")
    if request.method != "OPTIONS" or not origin or not any(request.header("access-control-request-method")):
        return False
    allowed = any(one.value == "*" or holds(one, origin[0]) for one in cors.origins)
    return allowed or not cors.forward_unmatched


def drawn(shares: list[WeightedDestination], chance: float) -> WeightedDestination:
    """The share at that place of the line on which each has its weight as length, in their order."""
    place = int(chance * sum(share.weight for share in shares))
    for share in shares:
        if place < share.weight:
            return share
        place -= share.weight
    return shares[-1]
