"""What every request passes before its handler: a plain path, a user, its share, the right to ask for a path.

Resources (`/api`, `/apis` below the discovery documents) are authorised where they are read; everything else here, by rules
with `nonResourceURLs`. What has no rule is refused, whoever serves it.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Collection
from urllib.parse import unquote

from aiohttp import web

from tulle.control.apiserver import errors
from tulle.control.apiserver.auth import MASTERS, User
from tulle.control.apiserver.authn import Authenticator
from tulle.control.apiserver.authorizer import RbacAuthorizer
from tulle.control.apiserver.connections import Connection, read_body
from tulle.control.apiserver.guard import GUARD, USER, Guard
from tulle.control.apiserver.impersonation import impersonated
from tulle.control.apiserver.limits import Limits, Rates, Shares, too_many
from tulle.control.apiserver.node_limits import Identities
from tulle.control.asking import IDENTITY

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

OPEN = ("/healthz", "/readyz", "/livez", "/version")  # for everybody
_OPEN_BELOW = tuple(f"{one}/" for one in OPEN[:3])
# Escapes that another reader of the path may take for something else: / \ % and control characters.
_HIDDEN = re.compile(r"%(2f|5c|25|[01][0-9a-f]|7f)", re.IGNORECASE)


class Gate:
    """The middleware. `unguarded`: prefixes of applications that let in for themselves (nodes that join)."""

    def __init__(
        self,
        authenticator: Authenticator,
        authorizer: RbacAuthorizer,
        documents: Collection[str],
        unguarded: Collection[str],
        limits: Limits,
        identities: Identities | None,
    ) -> None:
        self.authenticator, self.authorizer, self.limits, self._identities = authenticator, authorizer, limits, identities
        self._documents, self._unguarded = documents, tuple(f"{prefix}/" for prefix in unguarded)
        self._rates = Rates(limits.rate)
        self._requests = Shares(limits.at_once, limits.at_once_in_all, "requests at once")
        self._watches = Shares(limits.watches, limits.watches_in_all, "watches")

    @web.middleware
    async def middleware(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """One request, from here to its answer."""
        connection = request.protocol
        assert isinstance(connection, Connection)
        connection.began(request)
        path = plain_path(request.rel_url.raw_path)
        user = await self._identify(request)
        if is_open(path):
            return await handler(request)
        if user is not None:
            connection.known()
        name = (user.actor or user.name) if user is not None else f"address {connection.address}"
        exempt = user is not None and MASTERS in user.groups and not user.actor
        if not exempt and (wait := self._rates.wait(name, asyncio.get_running_loop().time())):
            raise too_many(f"{name} asks more than {self.limits.rate:g} times a second", wait)
        watches = request.method == "GET" and "watch" in request.query
        with (self._watches if watches else self._requests).hold(name, exempt):
            await self._authorize(request, path, user)
            connection.watcher = asyncio.current_task() if watches else None
            try:
                return await handler(request)
            finally:
                connection.watcher = None

    async def _identify(self, request: web.Request) -> User | None:
        """Sets what handlers know of the caller."""
        user = await self.authenticator.user(request)
        if user is not None:
            user = await impersonated(request.headers, user, self.authorizer)
        if user is not None:
            request[USER], request[IDENTITY] = user, user.identity
            request[GUARD] = Guard(self.authorizer, user, self.authorizer, self._identities)
        return user

    async def _authorize(self, request: web.Request, path: str, user: User | None) -> None:
        resource = path.startswith(("/api/", "/apis/")) and path.rstrip("/") not in self._documents
        unguarded = path.startswith(self._unguarded)
        if user is None and not unguarded:
            raise errors.unauthorized()
        if not resource and not unguarded:
            await request[GUARD].require_path(request.method.lower(), path)
        if not resource and request.can_read_body:
            await read_body(request)  # kept by the request, for handlers that read without limits of their own


def is_open(path: str) -> bool:
    """Whether everybody may ask for that path."""
    return path in OPEN or path.startswith(_OPEN_BELOW)


def plain_path(raw: str) -> str:
    """The path, unquoted. Raises a `Denial` (400) for one that two readers may read differently."""
    dotted = ("/." in raw or "%" in raw) and any(unquote(segment) in (".", "..") for segment in raw.split("/"))
    if not raw.startswith("/") or "//" in raw or "\\" in raw or dotted or _HIDDEN.search(raw):
        raise errors.bad_request("the path is not plain: needed one without //, . and .., and without escapes of /, \\ and %")
    try:
        return unquote(raw, errors="strict") if "%" in raw else raw
    except UnicodeDecodeError as error:
        raise errors.bad_request("the path is not UTF-8") from error
