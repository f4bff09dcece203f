"""`/tulle/v1/describe`: what the mesh does with the requests for a host, and where a proxy looks for the routes of one request.

The virtual host is given as it is in the model, and whoever asks evaluates it: an expression that takes long to match takes it
of his time, not of the control plane's.
"""

from __future__ import annotations

from typing import Protocol

import msgspec
from aiohttp import web

from tulle.control.apiserver import errors
from tulle.core.describe import Description, Heard
from tulle.core.doors import Door


class Describer(Protocol):
    """Who knows; wired in `app/mesh.py`."""

    async def describe(self, host: str, namespace: str) -> Description:
        """Of a host, as an object of the namespace would name it."""
        ...

    async def heard(self, proxy: str, authority: str, port: int) -> Heard | None:
        """Where the proxy (`namespace/name`) looks for a request; None where there is no such proxy."""
        ...

    async def door(self, workload: str, port: int, host: str) -> Door | None:
        """What stands before a workload (`namespace/name`) at a port; None where there is no such one."""
        ...


def add_describe(app: web.Application, mesh: Describer) -> None:
    """Serve `/describe/host`, `/describe/request` and `/describe/door`."""

    async def host(request: web.Request) -> web.Response:
        name = _needed(request, "host")
        return _answer(await mesh.describe(name, request.query.get("namespace", "default")))

    async def one_request(request: web.Request) -> web.Response:
        proxy, authority, port = (_needed(request, name) for name in ("from", "authority", "port"))
        if not port.isascii() or not port.isdigit() or not 0 < int(port) < 65536:
            raise errors.bad_request(f"port: found {port!r}, needed a number from 1 to 65535")
        found = await mesh.heard(proxy, authority, int(port))
        if found is None:
            raise errors.Denial(404, "NotFound", f"no workload {proxy} with a proxy")
        return _answer(found)

    async def one_door(request: web.Request) -> web.Response:
        workload, port, host = (_needed(request, name) for name in ("workload", "port", "host"))
        if not port.isascii() or not port.isdigit() or not 0 <= int(port) < 65536:
            raise errors.bad_request(f"port: found {port!r}, needed a number from 1 to 65535, or 0 for the first one")
        found = await mesh.door(workload, int(port), host)
        if found is None:
            raise errors.Denial(404, "NotFound", f"no workload {workload} with a proxy and such a port")
        return _answer(found)

    app.router.add_get("/describe/host", host)
    app.router.add_get("/describe/door", one_door)
    app.router.add_get("/describe/request", one_request)


def _needed(request: web.Request, name: str) -> str:
    text = request.query.get(name, "")
    if not text:
        raise errors.bad_request(f"found no {name}; needed it in the query")
    return text


def _answer(found: Description | Heard | Door) -> web.Response:
    return web.Response(body=msgspec.json.encode(found), content_type="application/json")
