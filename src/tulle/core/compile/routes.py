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
