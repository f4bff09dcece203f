"""`/tulle/v1`: what no Kubernetes kind says of a running mesh: proxies and their sync, findings, join tokens.

Mounted beside the API server's own paths, which lets in whom a rule with `nonResourceURLs` of the path allows it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol

import msgspec
from aiohttp import web

from tulle.control.describe_api import Describer, add_describe
from tulle.control.findings_api import Judge, add_findings


class Mesh(Judge, Describer, Protocol):
    """What the pages below ask; wired in `app/mesh.py`."""

    def status(self) -> dict[str, Any]:
        """Version, revision, trust domain, counts."""
        ...

    async def proxies(self, here: bool) -> Sequence[Any]:
        """Every connected proxy; only those of this control plane, where they are asked for."""
        ...

    async def revision(self) -> int:
        """The newest revision of the store."""
        ...

    async def wait_synced(self, revision: int, timeout: float, here: bool) -> list[str]:
        """Wait until all connected proxies (here, or everywhere) have acknowledged; the ids of those that have not by then."""
        ...

    async def create_token(self, allow: tuple[str, ...], lifetime: float, node: str) -> str:
        """A join token, for one node where it is named."""
        ...


_MAX_WAIT = 300.0


def mesh_api(mesh: Mesh) -> web.Application:
    """The sub-application."""

    def answered(handler: Callable[[web.Request], Awaitable[Any]]) -> Any:
        async def handle(request: web.Request) -> web.Response:
            return _json(await handler(request))

        return handle

    async def status(_request: web.Request) -> Any:
        return mesh.status()

    async def proxies(request: web.Request) -> Any:
        return {"proxies": await mesh.proxies(_here(request))}

    async def synced(request: web.Request) -> Any:
        revision = _number(request, "revision", await mesh.revision())
        timeout = min(_number(request, "timeout", 20.0), _MAX_WAIT)
        here = _here(request)
        behind = await mesh.wait_synced(int(revision), timeout, here)
        return {"revision": int(revision), "synced": not behind, "behind": behind, "proxies": len(await mesh.proxies(here))}

    async def tokens(request: web.Request) -> Any:
        body = await request.json() if request.body_exists else {}
        allow = tuple(str(pattern) for pattern in body.get("allow", ["*/*"]))
        lifetime, node = float(body.get("lifetime", 3600)), str(body.get("node", ""))
        return {"token": await mesh.create_token(allow, lifetime, node)}

    app = web.Application()
    app.router.add_get("/status", answered(status))
    app.router.add_get("/proxies", answered(proxies))
    app.router.add_get("/synced", answered(synced))
    add_findings(app, mesh)
    add_describe(app, mesh)
    app.router.add_post("/tokens", answered(tokens))
    return app


def _here(request: web.Request) -> bool:
    """Whether only the control plane that is asked is meant: so it is by another one, which puts the answers together."""
    return request.query.get("here", "") == "true"


def _number(request: web.Request, name: str, default: float) -> float:
    text = request.query.get(name, "")
    try:
        return float(text) if text else default
    except ValueError:
        raise web.HTTPBadRequest(text=f"{name}: found {text!r}, needed a number") from None


def _json(body: Any, status: int = 200) -> web.Response:
    return web.Response(body=msgspec.json.encode(body), status=status, content_type="application/json")
