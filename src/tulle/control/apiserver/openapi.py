"""`/openapi/v2` and `/openapi/v3`: the schemas that kubectl validates with and explains, made once each when first asked for."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import Sequence
from typing import Any

from aiohttp import web

from tulle.api import openapi
from tulle.control.apiserver import swagger
from tulle.control.apiserver.errors import Denial, no_such_path


class OpenApi:
    """The handlers. `group_versions`: what is served, in order."""

    def __init__(self, group_versions: Sequence[tuple[str, str]]) -> None:
        self._roots = {
            (f"apis/{group}/{version}" if group else f"api/{version}"): (group, version) for group, version in group_versions
        }
        self._made: dict[str, asyncio.Task[bytes]] = {}
        # Documents change with the program only, so that this server's start may stand for their contents: the index needs
        # no document made, and no client's cache outlives the program that it came from.
        self._digest = secrets.token_hex(16).upper()

    async def _document(self, root: str) -> bytes:
        """The document's JSON, made in a thread: it takes a while, and the mesh goes on meanwhile."""
        if root not in self._made:
            self._made[root] = asyncio.ensure_future(asyncio.to_thread(self._make, root))
        return await asyncio.shield(self._made[root])

    def _make(self, root: str) -> bytes:
        if root == "v2.pb":
            return swagger.document(openapi.openapi_v2())
        document: Any = openapi.openapi_v2() if root == "v2" else openapi.openapi_v3(*self._roots[root])
        return json.dumps(document, separators=(",", ":")).encode()

    async def v2(self, request: web.Request) -> web.Response:
        """All kinds in one Swagger document, as JSON or, for kubectl, as protobuf."""
        accept = request.headers.get("Accept", "*/*")
        if "json" in accept or "*/*" in accept:
            return self._served(await self._document("v2"), request)
        if "proto-openapi.spec.v2" in accept:
            return self._served(await self._document("v2.pb"), request, swagger.MEDIA_TYPE)
        raise Denial(406, "NotAcceptable", f"only the following are accepted: application/json, {swagger.MEDIA_TYPE}")

    async def index(self, _request: web.Request) -> web.Response:
        """Where the document of each group and version is."""
        paths = {root: {"serverRelativeURL": f"/openapi/v3/{root}?hash={self._digest}"} for root in self._roots}
        return web.json_response({"paths": paths})

    async def v3(self, request: web.Request) -> web.Response:
        """One group and version."""
        root = request.match_info["root"]
        if root not in self._roots:
            raise no_such_path(request.path)
        return self._served(await self._document(root), request)

    def _served(self, data: bytes, request: web.Request, media_type: str = "application/json") -> web.Response:
        tag = f'"{self._digest}"'
        if request.headers.get("If-None-Match") == tag:
            return web.Response(status=304, headers={"ETag": tag})
        return web.Response(body=data, headers={"ETag": tag, "Vary": "Accept", "Content-Type": media_type})
