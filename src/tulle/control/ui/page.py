"""`/ui/`: the page's files, for everybody: they say nothing of the mesh. What they show they ask of the API, as who logs in.

The files are read once, at start, so that no path from outside ever names a file. Nothing of another origin is loaded or asked,
nothing runs that does not stand in a file here, and nobody may frame the page.
"""

from __future__ import annotations

import hashlib
from importlib import resources
from importlib.resources.abc import Traversable

import msgspec
from aiohttp import web

PREFIX = "/ui"
_TYPES = {
    "html": "text/html; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "svg": "image/svg+xml",
}
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'"
)
_HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    # Asked about each time, answered with 304: after an upgrade nobody has half of the old page.
    "Cache-Control": "no-cache",
}


class _File(msgspec.Struct, frozen=True):
    body: bytes
    headers: dict[str, str]


def page_app() -> web.Application:
    """The sub-application to mount at `PREFIX`."""
    files = dict(_files(resources.files("tulle.control.ui") / "static", ""))

    async def serve(request: web.Request) -> web.Response:
        found = files.get(request.match_info["name"] or "index.html")
        if found is None:
            return web.Response(status=404, text="there is no such page; the page is at /ui/")
        if request.headers.get("If-None-Match") == found.headers["ETag"]:
            return web.Response(status=304, headers=found.headers)
        return web.Response(body=found.body, headers=found.headers)

    app = web.Application()
    app.router.add_get("/{name:.*}", serve)
    return app


def _files(folder: Traversable, prefix: str) -> list[tuple[str, _File]]:
    found: list[tuple[str, _File]] = []
    for one in folder.iterdir():
        if one.is_dir():
            found += _files(one, f"{prefix}{one.name}/")
        elif kind := _TYPES.get(one.name.rpartition(".")[2]):
            body = one.read_bytes()
            tag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
            found.append((f"{prefix}{one.name}", _File(body, {**_HEADERS, "Content-Type": kind, "ETag": tag})))
    return found
