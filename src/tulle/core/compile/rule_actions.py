"""What a rule of an HTTPRoute or GRPCRoute does with a request → the model's routes, but for its matches.

A backend that is not there is answered 500 for its share. A rule with a filter that is not supported is answered 500, for the API
forbids to leave one out, as is one whose authorizer is not there; a backend with such a filter, for its share. Where a backend
has filters that only a whole route can have, the rule becomes one route for each backend, told apart by a share of the requests.
"""

from __future__ import annotations

import msgspec

from tulle.api.gateway.http_route import HTTPBackendRef
from tulle.api.gateway.routes import GRPCBackendRef
from tulle.api.gateway.shared import SessionPersistence
from tulle.api.values import seconds
from tulle.core.compile import backends
from tulle.core.compile.headers import together
from tulle.core.compile.mistakes import not_yet, warning
from tulle.core.compile.rule_filters import Filter, Steps, steps
from tulle.core.flow import Fetch
from tulle.core.model.destination import DestinationKey
from tulle.core.model.external_auth import ExternalAuth
from tulle.core.model.route import Abort, Rewrite, Route, RouteMatch, Session, WeightedDestination
from tulle.kit.problem import Problem, Ref

_SESSION = "tulle-session"


class Action(msgspec.Struct, frozen=True):
    """The routes of a rule, of which each holds for a share of the requests (`match.percent`), and what is wrong.

    `refused`: every request is answered 500 for what is not supported; `partly`: the share of some backends.
    """

    routes: tuple[Route, ...]
    problems: tuple[Problem, ...] = ()
    refused: bool = False
    partly: bool = False


class _Backend(msgspec.Struct, frozen=True):
    weight: int
    destination: DestinationKey | None  # None: answered 500
    steps: Steps = Steps()


def action(
    fetch: Fetch,
    ref: Ref,
    base: Route,
    filters: tuple[Filter, ...],
    refs: tuple[HTTPBackendRef | GRPCBackendRef, ...],
    path: str,
) -> Action:
    """What the rule at `path` does; `base` has what is not in its filters and backends."""
    whole = steps(fetch, ref, filters, f"{path}.filters")
    problems = [*whole.problems]
    base = msgspec.structs.replace(
        base,
        headers=whole.headers,
        rewrite=whole.rewrite,
        mirrors=whole.mirrors,
        cors=whole.cors,
        auth=whole.auth,
        redirect=whole.redirect,
    )
    if whole.closed:
        return Action((_broken(base),), tuple(problems), refused=whole.refused)
    if whole.redirect:
        return Action((msgspec.structs.replace(base, rewrite=None, mirrors=()),), tuple(problems))
    paths = [f"{path}.backendRefs[{index}]" for index in range(len(refs))]
    found = [_backend(fetch, ref, one, at, whole.auth, problems) for one, at in zip(refs, paths, strict=True)]
    partly = any(one.steps.refused for one in found)
    some = [one for one in found if one.weight > 0]
    if not some:
        # A backend that is not there, and has no weight, is no reason to say that none has.
        if all(one.destination for one in found):
            message = "found no backend with a weight above 0; every request is answered 500"
            problems.append(warning(ref, f"{path}.backendRefs", "WeightSumZero", message))
        return Action((_broken(base),), tuple(problems), partly=partly)
    if any(one.steps.of_a_route for one in some):
        return Action(_apart(base, some), tuple(problems), partly=partly)
    return Action((_together(base, some),), tuple(problems), partly=partly)


def _broken(base: Route) -> Route:
    return msgspec.structs.replace(base, status=500, redirect=None, rewrite=None, mirrors=(), auth=None)


def _backend(
    fetch: Fetch,
    ref: Ref,
    one: HTTPBackendRef | GRPCBackendRef,
    path: str,
    asked: ExternalAuth | None,
    problems: list[Problem],
) -> _Backend:
    own = steps(fetch, ref, one.filters, f"{path}.filters", asked)
    problems += own.problems
    found = backends.refer(fetch, ref, one, path)
    if isinstance(found, Problem):
        problems.append(found)
        return _Backend(one.weight, None)
    return _Backend(one.weight, None if own.closed else found, own)


def _together(base: Route, some: list[_Backend]) -> Route:
    """One route with a share for each backend; one that is named twice gets both its shares."""
    weights: dict[WeightedDestination, int] = {}
    for one in some:
        if one.destination:
            share = WeightedDestination(one.destination, 1, one.steps.headers, one.steps.authority)
            weights[share] = weights.get(share, 0) + one.weight
    broken = sum(one.weight for one in some if one.destination is None)
    if not weights:
        return _broken(base)
    abort = Abort(500, 100.0 * broken / (broken + sum(weights.values()))) if broken else None
    shares = tuple(msgspec.structs.replace(share, weight=weight) for share, weight in weights.items())
    return msgspec.structs.replace(base, destinations=shares, abort=abort)


def _apart(base: Route, some: list[_Backend]) -> tuple[Route, ...]:
    """A route for each backend: the first holds for its share, the next for its own and that of the one before, and so on."""
    total, below = sum(one.weight for one in some), 0
    routes: list[Route] = []
    for one in some:
        below += one.weight
        match = RouteMatch(percent=100.0 * below / total)
        routes.append(msgspec.structs.replace(_alone(base, one), match=match))
    return tuple(routes)


def _alone(base: Route, one: _Backend) -> Route:
    own = one.steps
    base = msgspec.structs.replace(
        base, headers=together(base.headers, own.headers), cors=own.cors or base.cors, auth=own.auth or base.auth
    )
    if own.redirect and not own.closed:
        return msgspec.structs.replace(base, redirect=own.redirect, rewrite=None, mirrors=())
    if one.destination is None:
        return _broken(base)
    before = base.rewrite or Rewrite()
    rewrite = Rewrite(own.authority or before.authority, own.path or before.path)
    return msgspec.structs.replace(
        base,
        destinations=(WeightedDestination(one.destination),),
        rewrite=None if rewrite == Rewrite() else rewrite,
        mirrors=(*base.mirrors, *own.mirrors),
    )


def session(ref: Ref, said: SessionPersistence | None, path: str) -> tuple[Session | None, list[Problem]]:
    """How requests of one session come to one endpoint."""
    if said is None:
        return None, []
    lifetime = seconds(said.absolute_timeout) if said.absolute_timeout else 0.0
    if said.type == "Header" and said.header:
        problems = [not_yet(ref, f"{path}.absoluteTimeout", "the end of a session that is in a header")] if lifetime else []
        return Session(header=said.header.name), problems
    cookie = said.cookie
    permanent = cookie is not None and cookie.lifetime_type == "Permanent"
    problems = [not_yet(ref, f"{path}.absoluteTimeout", "the end of a session cookie")] if lifetime and not permanent else []
    made = Session(
        cookie=(cookie.name if cookie else None) or _SESSION,
        path=(cookie.path if cookie else "") or "/",
        lifetime=lifetime if permanent else 0.0,
    )
    return made, problems
