"""`/tulle/v1/ca` and `/tulle/v1/certificates`: what signs, the rotation of it, and when what was signed ends.

Added to the application of `mesh_api.py`. No key is in what is shown; only `cluster-admin` changes anything.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Protocol, TypeVar

import msgspec
import structlog
from aiohttp import web

from tulle.control.apiserver import errors
from tulle.control.apiserver.guard import USER
from tulle.control.ca.rotation import Step
from tulle.kit.errors import Refused

log = structlog.get_logger("tulle.ca")

_T = TypeVar("_T")


class Authority(Protocol):
    """What the pages ask; wired in `app/ca.py`."""

    async def status(self) -> dict[str, Any]:
        """What signs, what comes next, and who waits."""
        ...

    async def step(self, step: Step, force: bool) -> None:
        """Do a step of the rotation."""
        ...

    async def request(self) -> bytes:
        """A signing request for an intermediate."""
        ...

    async def bring(self, chain: bytes, roots: bytes) -> None:
        """Take in an intermediate."""
        ...

    async def certificates_shown(self) -> list[dict[str, Any]]:
        """What was signed, for people."""
        ...


class _Rotate(msgspec.Struct, forbid_unknown_fields=True):
    step: Step
    force: bool = False


class _Import(msgspec.Struct, forbid_unknown_fields=True):
    chain: str
    roots: str


def add_ca(app: web.Application, authority: Authority) -> None:
    """The routes."""

    def answered(work: Callable[[web.Request], Awaitable[Any]]) -> Any:
        async def handle(request: web.Request) -> web.Response:
            try:
                body = await work(request)
            except Refused as refusal:
                hint = f" ({refusal.hint})" if refusal.hint else ""
                raise errors.Denial(409, "Conflict", refusal.message + hint) from refusal
            return web.Response(body=msgspec.json.encode(body), content_type="application/json")

        return handle

    async def status(_request: web.Request) -> Any:
        return await authority.status()

    async def certificates(_request: web.Request) -> Any:
        return {"certificates": await authority.certificates_shown()}

    async def rotate(request: web.Request) -> Any:
        asked = await _body(request, _Rotate)
        log.info("a step of the rotation is asked for", step=asked.step.value, force=asked.force, user=_user(request))
        await authority.step(asked.step, asked.force)
        return await authority.status()

    async def csr(request: web.Request) -> Any:
        log.info("a signing request is asked for", user=_user(request))
        return {"csr": (await authority.request()).decode()}

    async def bring(request: web.Request) -> Any:
        asked = await _body(request, _Import)
        log.info("an intermediate is brought", user=_user(request))
        await authority.bring(asked.chain.encode(), asked.roots.encode())
        return await authority.status()

    app.router.add_get("/ca", answered(status))
    app.router.add_get("/certificates", answered(certificates))
    app.router.add_post("/ca/rotate", answered(rotate))
    app.router.add_post("/ca/request", answered(csr))
    app.router.add_post("/ca/import", answered(bring))


async def _body(request: web.Request, kind: type[_T]) -> _T:
    try:
        return msgspec.json.decode(await request.read(), type=kind)
    except msgspec.DecodeError as error:
        raise errors.bad_request(f"the body: {error}") from error


def _user(request: web.Request) -> str:
    user = request.get(USER)
    return user.author if user is not None else ""
