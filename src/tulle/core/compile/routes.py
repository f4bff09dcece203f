"""What lists of routes have in common, whichever API they come from."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from tulle.core.model.route import Route, RouteMatch
from tulle.kit.problem import Problem


class Routes(msgspec.Struct, frozen=True):
    """The routes of an object for one caller, and what is wrong with it."""

    routes: tuple[Route, ...] = ()
    problems: tuple[Problem, ...] = ()


def reachable(routes: Iterable[Route]) -> tuple[Route, ...]:
    """The routes up to the first that takes everything: behind it nothing is ever reached, and need not be sent."""
    found: list[Route] = []
    for route in routes:
        found.append(route)
        if route.match == RouteMatch():
            break
    return tuple(found)


def placed(route: Route, port: int, bound: int, tls: bool) -> Route:
    """The route at a listener that says `port` and is bound to `bound`: a redirect to its own port gets the number.

    A port that goes without saying is left out, where the caller's authority has none; that of a listener at another port has.
    """
    said = route.redirect
    if said is None or not (said.own_port or said.port):
        return route
    usual = {"http": 80, "https": 443}[said.scheme or ("https" if tls else "http")]
    number = said.port or (usual if said.scheme else port)
    bare = bool(said.host) or bound in (80, 443) or (said.own_port and not said.scheme)
    return msgspec.structs.replace(
        route,
        redirect=msgspec.structs.replace(said, own_port=False, port=0 if number == usual and bare else number),
    )
