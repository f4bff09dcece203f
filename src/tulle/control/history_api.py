"""`/tulle/v1/history` and `/tulle/v1/rollback`: who changed what, and the way back. Added to the application of `mesh_api.py`.

A person sees the history of the objects that it may get, and rolls back what it may write. The values of Secrets take part in a
rollback, and are never shown.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from aiohttp import web

from tulle.api.redaction import redacted
from tulle.api.registry import kind_of_resource
from tulle.control.apiserver import errors
from tulle.control.apiserver.guard import GUARD, Guard
from tulle.control.apiserver.negotiation import answer
from tulle.control.apiserver.objects import Objects
from tulle.control.apiserver.rollback import Plan, Rollback
from tulle.control.apiserver.target import Target, number
from tulle.ports import Cause, Change, Key

Raw = dict[str, Any]

_LIMIT = 100  # changes that are shown unless more are asked for


def add_history(app: web.Application, objects: Callable[[], Objects]) -> None:
    """The routes. `objects`: the write side of the API server, which is made after this."""

    async def history(request: web.Request) -> web.Response:
        guard, query = _guard(request), request.query
        limit = number(query, "limit") if "limit" in query else _LIMIT
        place = {name: query[name] for name in ("resource", "namespace", "name") if name in query}
        if len(place) == 3:
            await _may_get(guard, Key(place["resource"], place["namespace"], place["name"]))
        store = objects().store
        _, revision = await store.list("_none")
        may: dict[Key, bool] = {}
        asked = limit
        while True:
            found = await store.history(
                resource=place.get("resource"), namespace=place.get("namespace"), name=place.get("name"), limit=asked
            )
            for change in found:
                if change.key not in may:
                    may[change.key] = await _may(guard, change.key)
            shown = [change for change in found if may[change.key]]
            if not limit or len(shown) >= limit or len(found) < asked:
                break
            asked *= 4  # some are not for this user to see
        return answer({"revision": revision, "changes": [_change(change) for change in (shown[:limit] if limit else shown)]})

    async def rollback(request: web.Request) -> web.Response:
        guard = _guard(request)
        asked = await _asked(request)
        cause = Cause(guard.user.author, request.remote or "", time.time(), "rollback")
        run = Rollback(objects()).run
        plan = await run(asked["revision"], _key(asked), guard, cause, dry_run=asked["dryRun"], shown=asked["plan"])
        return answer(_plan(plan))

    app.router.add_get("/history", history)
    app.router.add_post("/rollback", rollback)


def _guard(request: web.Request) -> Guard:
    guard: Guard | None = request.get(GUARD)
    if guard is None:
        raise errors.unauthorized()
    return guard


async def _may(guard: Guard, key: Key) -> bool:
    try:
        await _may_get(guard, key)
    except errors.Denial:
        return False
    return True


async def _may_get(guard: Guard, key: Key) -> None:
    kind = kind_of_resource(key.resource)
    if kind is None:
        raise errors.bad_request(f"resource: found {key.resource!r}; needed one that is served, as plural.group")
    await guard.require("get", Target(kind, kind.versions[0], key.namespace, key.name))


_FIELDS: Mapping[str, tuple[type, Any]] = {
    "revision": (int, None),
    "resource": (str, ""),
    "namespace": (str, ""),
    "name": (str, ""),
    "dryRun": (bool, False),
    "plan": (str, ""),
}


async def _asked(request: web.Request) -> Raw:
    try:
        body = await request.json()
    except ValueError as error:
        raise errors.bad_request(f"the body is not JSON: {error}") from error
    if not isinstance(body, dict):
        raise errors.bad_request("the body is not an object")
    if unknown := sorted(body.keys() - _FIELDS.keys()):
        raise errors.bad_request(f"{unknown[0]}: found a field that is not known; needed one of {', '.join(_FIELDS)}")
    asked = {}
    for name, (kind, default) in _FIELDS.items():
        asked[name] = body.get(name, default)
        if type(asked[name]) is not kind:
            needed = {int: "a whole number", str: "a string", bool: "true or false"}[kind]
            raise errors.bad_request(f"{name}: found {body.get(name)!r}; needed {needed}")
    return asked


def _key(asked: Raw) -> Key | None:
    """The one object that is meant; None for the whole mesh."""
    if not asked["resource"] and not asked["name"]:
        return None
    kind = kind_of_resource(asked["resource"])
    if kind is None or not asked["name"]:
        raise errors.bad_request("needed resource (plural.group, of a kind that is served) and name together, or none of them")
    return Key(asked["resource"], asked["namespace"] if kind.namespaced else "", asked["name"])


def _place(key: Key) -> Raw:
    kind = kind_of_resource(key.resource)
    return {"resource": key.resource, "kind": kind.kind if kind else "", "namespace": key.namespace, "name": key.name}


def _change(change: Change) -> Raw:
    cause = change.cause
    who = {"revision": change.revision, "time": cause.time, "author": cause.author, "address": cause.address, "verb": cause.verb}
    before, after = redacted(change.previous, change.body)
    return {**who, **_place(change.key), "before": before, "after": after}


def _plan(plan: Plan) -> Raw:
    steps = []
    for step in plan.steps:
        before, after = redacted(step.before, step.after)
        steps.append({"action": step.action, **_place(step.target.key), "before": before, "after": after})
    return {
        "to": plan.to,
        "revision": plan.revision,
        "plan": plan.digest,
        "changes": steps,
        "left": [_place(key) for key in plan.left],
        "warnings": list(plan.warnings),
    }
