"""`/openapi/v2` and `/openapi/v3`: the schemas that kubectl validates with and explains, made once each when first asked for."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any

from aiohttp import web

from tulle.api import openapi
from tulle.control.apiserver.errors import Denial, no_such_path


class OpenApi:
    """The handlers. `group_versions`: what is served, in order."""

    def __init__(self, group_versions: Sequence[tuple[str, str]]) -> None:
        self._roots = {
            (f"apis/{group}/{version}" if group else f"api/{version}"): (group, version) for group, version in group_versions
        }
        self._made: dict[str, tuple[bytes, str]] = {}

    def _document(self, root: str) -> tuple[bytes, str]:
        """The document's JSON and its hash."""
        if root not in self._made:
            document: Any = openapi.openapi_v2() if root == "v2" else openapi.openapi_v3(*self._roots[root])
            data = json.dumps(document, separators=(",", ":")).encode()
            self._made[root] = data, hashlib.sha256(data).hexdigest()[:32].upper()
        return self._made[root]

    async def v2(self, request: web.Request) -> web.Response:
        """All kinds in one Swagger document. There is only JSON."""
        accept = request.headers.get("Accept", "*/*")
        if "json" not in accept and "*/*" not in accept:
            raise Denial(406, "NotAcceptable", "only the following media types are accepted: application/json")
        return _served(*self._document("v2"), request)

    async def index(self, _request: web.Request) -> web.Response:
        """Where the document of each group and version is."""
        paths = {root: {"serverRelativeURL": f"/openapi/v3/{root}?hash={self._document(root)[1]}"} for root in self._roots}
        return web.json_response({"paths": paths})

    async def v3(self, request: web.Request) -> web.Response:
        """One group and version."""
        root = request.match_info["root"]
        if root not in self._roots:
            raise no_such_path(request.path)
        return _served(*self._document(root), request)


def _served(data: bytes, digest: str, request: web.Request) -> web.Response:
    headers = {"ETag": f'"{digest}"', "Vary": "Accept", "Content-Type": "application/json"}
    if request.headers.get("If-None-Match") == f'"{digest}"':
        return web.Response(status=304, headers={"ETag": f'"{digest}"'})
    return web.Response(body=data, headers=headers)
