"""`/openapi/v2` and `/openapi/v3`: the schemas that kubectl validates with and explains, made once each when first asked for."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pydantic
from aiohttp import web

import tulle
from tulle.api import openapi
from tulle.control.apiserver import swagger
from tulle.control.apiserver.errors import no_such_path, not_acceptable
from tulle.control.apiserver.negotiation import encode


class OpenApi:
    """The handlers. `group_versions`: what is served, in order."""

    def __init__(self, group_versions: Sequence[tuple[str, str]]) -> None:
        self._roots = {
            (f"apis/{group}/{version}" if group else f"api/{version}"): (group, version) for group, version in group_versions
        }
        self._made: dict[str, asyncio.Task[bytes]] = {}
        # Documents change with the program only. Its schemas stand for them, so that the index needs no document made, and that
        # several control planes of one version say the same.
        self._digest = _digest()

    async def _document(self, root: str) -> bytes:
        """The document's JSON, made in a thread: it takes a while, and the mesh goes on meanwhile."""
        if root not in self._made:
            self._made[root] = asyncio.ensure_future(asyncio.to_thread(self._make, root))
        return await asyncio.shield(self._made[root])

    def _make(self, root: str) -> bytes:
        if root == "v2.pb":
            return swagger.document(openapi.openapi_v2())
        document: Any = openapi.openapi_v2() if root == "v2" else openapi.openapi_v3(*self._roots[root])
        return encode(document)

    async def v2(self, request: web.Request) -> web.Response:
        """All kinds in one Swagger document, as JSON or, for kubectl, as protobuf."""
        accept = request.headers.get("Accept", "*/*")
        if "json" in accept or "*/*" in accept:
            return self._served(await self._document("v2"), request)
        if "proto-openapi.spec.v2" in accept:
            return self._served(await self._document("v2.pb"), request, swagger.MEDIA_TYPE)
        raise not_acceptable(("application/json", swagger.MEDIA_TYPE))

    async def index(self, request: web.Request) -> web.Response:
        """Where the document of each group and version is."""
        paths = {root: {"serverRelativeURL": f"/openapi/v3/{root}?hash={self._digest}"} for root in self._roots}
        return self._served(encode({"paths": paths}), request)

    async def v3(self, request: web.Request) -> web.Response:
        """One group and version. Under the right hash it may be kept for ever; under another, the right one is named."""
        root = request.match_info["root"]
        if root not in self._roots:
            raise no_such_path(request.path)
        asked = request.query.get("hash", "")
        if asked and asked != self._digest:
            return web.Response(status=301, headers={"Location": f"/openapi/v3/{root}?hash={self._digest}"})
        response = self._served(await self._document(root), request)
        if asked:
            response.headers["Cache-Control"] = "public, immutable"
        return response

    def _served(self, data: bytes, request: web.Request, media_type: str = "application/json") -> web.Response:
        tag = f'"{self._digest}"'
        if tag in request.headers.get("If-None-Match", ""):
            return web.Response(status=304, headers={"ETag": tag, "Vary": "Accept"})
        return web.Response(body=data, headers={"ETag": tag, "Vary": "Accept", "Content-Type": media_type})


def _digest() -> str:
    """Of the schemas, as this version of the program has them."""
    made = hashlib.sha512(f"{tulle.__version__} {pydantic.VERSION}".encode())
    for path in sorted(Path(openapi.__file__).parent.rglob("*.py")):
        made.update(path.read_bytes())
    return made.hexdigest().upper()
