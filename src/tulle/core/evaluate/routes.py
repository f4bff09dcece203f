"""The route of a virtual host that a request takes, and what it does there."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from tulle.core.evaluate.decision import Decision, Outcome, Passed, Share
from tulle.core.evaluate.edits import edited_request, location, new_path
from tulle.core.evaluate.hosts import choose_host
from tulle.core.evaluate.request import Request, normalized
from tulle.core.evaluate.texts import holds, why_not
from tulle.core.model.route import Cors, HeaderEdit, PathKind, Rewrite, Route, RouteTableKey, VirtualHost, WeightedDestination

CONNECT = "CONNECT"
_NOT_FOUND = 404
_NOT_IN_MESH = 502
_GRPC = "application/grpc"
# Of HTTP's statuses those that gRPC has something like; all others are unknown to it.
_GRPC_STATUSES = {400: 13, 401: 16, 403: 7, 404: 12, 429: 14, 502: 14, 503: 14, 504: 14}
_UNKNOWN = 2


def decide(key: RouteTableKey, hosts: Iterable[VirtualHost], request: Request, chance: float = 0.0, lot: float = 0.0) -> Decision:
    """What a proxy with this table does with a request.

    `chance` in [0, 1) is where one of several destinations is drawn; `lot` likewise, for routes that hold for a part of the
    requests.
    """
    found = choose_host(key, hosts, request.authority)
    if found is None:
        return _as_grpc(Decision(Outcome.NO_ROUTE, status=_missing(key)), request)
    host, domain = found
    return decide_route(key, host, domain, request, chance, lot)


def decide_route(
    key: RouteTableKey, host: VirtualHost, domain: str, request: Request, chance: float = 0.0, lot: float = 0.0
) -> Decision:
    """As `decide`, where the virtual host is known."""
    request = normalized(request)
    return _as_grpc(_decide(key, host, domain, request, chance, lot), request)


def _as_grpc(decision: Decision, request: Request) -> Decision:
    """The proxy's own answer to a call of gRPC travels in a response of 200, with the nearest status that gRPC has."""
    itself = decision.outcome in (Outcome.RESPOND, Outcome.REDIRECT, Outcome.NO_ROUTE)
    if not itself or decision.grpc is not None or not _is_grpc(request):
        return decision
    return msgspec.structs.replace(decision, status=200, grpc=_GRPC_STATUSES.get(decision.status, _UNKNOWN))


def _is_grpc(request: Request) -> bool:
    kind = next(iter(request.header("content-type")), "")
    return kind == _GRPC or kind.startswith(f"{_GRPC}+")


def _decide(key: RouteTableKey, host: VirtualHost, domain: str, request: Request, chance: float, lot: float) -> Decision:
    if host.require_tls and request.scheme != "https":
        # Envoy names no place where there is no path.
        where = f"https://{request.authority}{request.path}" if request.path else ""
        return Decision(Outcome.REDIRECT, host.name, domain, status=301, location=where)
    passed: list[Passed] = []
    connects = request.method == CONNECT
    for route in host.routes:
        if because := _takes_no_connect(key, route) if connects else "":
            passed.append(Passed(route.name, because))
            continue
        if because := why_not(route.match, request):
            passed.append(Passed(route.name, because))
            continue
        if lot * 100 >= route.match.percent:
            passed.append(Passed(route.name, f"it holds for {route.match.percent:g}% of the requests, and not for this one"))
            continue
        return _act(host, domain, route, request, chance, tuple(passed))
    if host.passthrough and connects and (key.port == 0 or key.gateway or key.bind):
        return Decision(Outcome.NO_ROUTE, host.name, domain, status=_missing(key), passed=tuple(passed))
    if host.passthrough and (connects or request.path.startswith("/")):
        if key.port == 0 or key.gateway or key.bind:
            return Decision(Outcome.RESPOND, host.name, domain, status=_NOT_IN_MESH, passed=tuple(passed))
        return Decision(
            Outcome.PASSTHROUGH, host.name, domain, authority=request.authority, path=request.path, passed=tuple(passed)
        )
    return Decision(Outcome.NO_ROUTE, host.name, domain, status=_missing(key), passed=tuple(passed))


def _takes_no_connect(key: RouteTableKey, route: Route) -> str:
    """Why a route is not for CONNECT, which names where it wants to go instead of whom it calls; "" where it may be."""
    if route.match.path is not None:
        return "it is for a path, which CONNECT has none of"
    asked = any(one.name == ":method" and one.match.value == CONNECT for one in route.match.headers)
    return "" if asked or key.service else "it does not ask for CONNECT, and not all that comes here is for one service"


def _missing(key: RouteTableKey) -> int:
    """A forward proxy says that it has no route, where others say that there is no such page."""
    return _NOT_FOUND if key.port else _NOT_IN_MESH


def _act(host: VirtualHost, domain: str, route: Route, request: Request, chance: float, passed: tuple[Passed, ...]) -> Decision:
    shares = [share for share in route.destinations if share.weight > 0]
    share = drawn(shares, chance) if shares else None
    # The share is drawn before anything else: its headers are on whatever the caller gets.
    response = _edits(*((share.headers.response,) if share else ()), route.headers.response)
    base = Decision(Outcome.RESPOND, host.name, domain, route, response=response, passed=passed)
    if share and route.cors and _is_preflight(route.cors, request):
        # No other rule has a say in this answer; and where a route answers itself, it does so to a preflight too.
        return msgspec.structs.replace(base, status=200, response=())
    if route.auth:
        base = msgspec.structs.replace(base, asks=route.auth.destination)
    if route.abort and route.abort.percent >= 100:
        # A status of gRPC travels in a response of 200, to whoever asked; but only calls of gRPC are told it.
        grpc = route.abort.grpc
        told = grpc if _is_grpc(request) else None
        return msgspec.structs.replace(base, status=route.abort.status if grpc is None else 200, grpc=told)
    if share is None and route.redirect:
        edit, match = route.redirect.path, route.match.path
        # CONNECT has no path. Envoy names a place only where it has made one, which it does for no new path as a whole.
        made = edit is not None and edit.kind is not PathKind.FULL and bool(new_path(edit, match, request.path))
        nowhere = request.method == CONNECT and not made
        where = "" if nowhere else location(route.redirect, match, request)
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
        path=new_path(rewrite.path, route.match.path, request.path) if rewrite.path and request.path else request.path,
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
