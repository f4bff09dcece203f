"""`/tulle/v1/findings`: what the analysis says of the mesh (GET), and of what somebody is about to write (POST).

Judged here and not where people sit: the rows are there already, so that a few objects cost a few milliseconds beside ten
thousand others, and nobody needs the right to read the whole mesh to apply one file. Of standing objects only those are told
that the caller may read.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import msgspec
from aiohttp import web

from tulle.api.decode import decode
from tulle.api.object import Object
from tulle.api.registry import kind_for
from tulle.control.apiserver import errors
from tulle.control.apiserver.auth import Attributes
from tulle.control.apiserver.guard import GUARD
from tulle.core.analyze.finding import Finding, in_order
from tulle.kit.problem import Ref

MOST = 1000  # objects in one question: a bound for the time in which nobody else is answered


class Judge(Protocol):
    """Who knows; wired in `app/mesh.py`."""

    async def findings(self) -> list[Finding]:
        """Of the objects as they are."""
        ...

    async def findings_with(self, objects: Sequence[Object]) -> list[Finding]:
        """Of these objects if they were written, and what they would newly make wrong elsewhere."""
        ...


def add_findings(app: web.Application, judge: Judge) -> None:
    """Serve `/findings`."""

    async def standing(request: web.Request) -> web.Response:
        return _answer(await _readable(request, await judge.findings(), set()))

    async def wished(request: web.Request) -> web.Response:
        try:
            body = await request.json()
        except ValueError:
            raise errors.bad_request("found a body that is not JSON") from None
        objects = _objects(body)
        found = await judge.findings_with(objects)
        return _answer(await _readable(request, found, {one.ref for one in objects}))

    app.router.add_get("/findings", standing)
    app.router.add_post("/findings", wished)


def _objects(body: Any) -> list[Object]:
    """The objects of a question. One that does not decode is left out: whoever asks has heard of it from its own decoder."""
    raws = body.get("objects") if isinstance(body, dict) else None
    if not isinstance(raws, list):
        raise errors.bad_request('found no objects; needed {"objects": [...]}')
    if len(raws) > MOST:
        raise errors.Denial(413, "RequestEntityTooLarge", f"found {len(raws)} objects; needed at most {MOST}")
    decoded = (decode(raw)[0] for raw in raws)
    return [one for one in decoded if one is not None]


async def _readable(request: web.Request, found: list[Finding], own: set[Ref]) -> list[Finding]:
    """Those of the caller's own objects, and of those that he may read."""
    guard = request.get(GUARD)
    if guard is None:
        raise errors.Denial(401, "Unauthorized", "Unauthorized")
    known: dict[Ref | None, bool] = {}
    for ref in {one.ref for one in found} - own:
        kind = kind_for(ref.group, ref.kind) if ref else None
        if ref is None or kind is None:
            continue
        asked = Attributes("get", kind.group, kind.plural, "", ref.namespace, ref.name)
        known[ref] = (await guard.authorizer.allowed(guard.user, asked)).allowed
    return in_order([one for one in found if one.ref in own or known.get(one.ref)])


def _answer(found: list[Finding]) -> web.Response:
    return web.Response(body=msgspec.json.encode({"findings": found}), content_type="application/json")
