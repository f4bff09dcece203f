"""`/tulle/v1/apitokens`: API tokens of named users, for `tulle apitoken`. Only hashes are kept; a token is in one answer.

Making a token for a user is acting as that user later: it needs the verb `impersonate` on him and on each of his groups.
"""

from __future__ import annotations

from typing import Any

import msgspec
import structlog
from aiohttp import web

from tulle.control.apiserver import errors
from tulle.control.apiserver.guard import GUARD
from tulle.control.apiserver.impersonation import asked_of
from tulle.control.apiserver.table import timestamp
from tulle.control.apiserver.tokens import LONGEST, ApiToken, ApiTokens

PREFIX = "/tulle/v1/apitokens"

log = structlog.get_logger("tulle.apiserver")


class _Wanted(msgspec.Struct, forbid_unknown_fields=True):
    """`POST`: for whom, for how long (seconds)."""

    user: str
    groups: tuple[str, ...] = ()
    lifetime: float = 24 * 3600.0


def token_app(tokens: ApiTokens) -> web.Application:
    """The sub-application to mount at `PREFIX`: POST makes, GET lists, DELETE of an id revokes."""

    async def create(request: web.Request) -> web.Response:
        guard = request[GUARD]
        wanted = _wanted(await request.read())
        for asked in asked_of(wanted.user, wanted.groups):
            if not (await guard.allowed(asked)).allowed:
                who = f'{asked.resource} "{asked.name}"'
                raise errors.forbidden(f'{who} is forbidden: User "{guard.user.name}" cannot impersonate it, nor make its tokens')
        token, number, kept = await tokens.create(wanted.user, wanted.groups, wanted.lifetime, guard.user.author)
        log.info("token made", user=kept.user, id=number, author=kept.author, until=timestamp(kept.expires))
        return web.json_response(_shown(number, kept) | {"token": token}, status=201)

    async def listed(_request: web.Request) -> web.Response:
        return web.json_response({"tokens": [_shown(number, kept) for number, kept in await tokens.list()]})

    async def revoke(request: web.Request) -> web.Response:
        number, guard = request.match_info["id"], request[GUARD]
        if not await tokens.revoke(number):
            raise errors.Denial(404, "NotFound", f"no token has the id {number[:40]!r}")
        log.info("token revoked", id=number, author=guard.user.author)
        return web.json_response({"id": number, "revoked": True})

    app = web.Application()
    app.router.add_post("", create)
    app.router.add_get("", listed)
    app.router.add_delete("/{id}", revoke)
    return app


def _wanted(data: bytes) -> _Wanted:
    try:
        wanted = msgspec.json.decode(data, type=_Wanted)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise errors.bad_request(f"the body is no token request: {error}") from error
    if not wanted.user or not all(one and one.isprintable() for one in (wanted.user, *wanted.groups)):
        raise errors.bad_request("user, groups: needed a name, and printable words")
    if not 0 < wanted.lifetime <= LONGEST:
        raise errors.bad_request(f"lifetime: found {wanted.lifetime:.0f} s, needed more than 0 and at most {LONGEST:.0f} s")
    return wanted


def _shown(number: str, kept: ApiToken) -> dict[str, Any]:
    made = {"id": number, "user": kept.user, "groups": list(kept.groups), "author": kept.author}
    return made | {"created": timestamp(kept.created), "expires": timestamp(kept.expires)}
