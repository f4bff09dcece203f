"""An external authorizer, over HTTP and by Envoy's gRPC protocol: whoever says `Bearer friend` may pass. Of connections (with no
request) those may whose certificate names the service account `friend`.

python -P authorizer.py HTTP_PORT GRPC_PORT

What it was told (path, names of headers, body) it writes into the header `x-told` of requests that pass. All others get 401.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import grpc.aio
from aiohttp import web

from tulle.pb.envoy.config.core.v3 import base_pb2
from tulle.pb.envoy.service.auth.v3 import external_auth_pb2
from tulle.pb.envoy.type.v3 import http_status_pb2

FRIEND = "Bearer friend"
_WHY = "who are you?"


def _headers(path: str, headers: Mapping[str, str], body: str) -> dict[str, str]:
    told = {"path": path, "headers": sorted(name for name in headers if not name.startswith(":")), "body": body}
    return {"x-user": "kate", "x-other": "o", "x-told": json.dumps(told)}


# What came, as it came; and whether the next ones are left without an answer.
ASKED: list[str] = []
SPEAKS = asyncio.Event()
SPEAKS.set()


async def _http(request: web.Request) -> web.StreamResponse:
    body = await request.text()
    ASKED.append(f"http {request.method} {request.path_qs}")
    await SPEAKS.wait()
    if request.headers.get("authorization") != FRIEND:
        return web.Response(status=401, text=_WHY, headers={"www-authenticate": "Bearer", "x-other": "o"})
    headers = {name.lower(): value for name, value in request.headers.items()}
    return web.Response(headers=_headers(request.path_qs, headers, body))


async def _check(request: Any, _context: Any) -> Any:
    asked = request.attributes.request.http
    answer = external_auth_pb2.CheckResponse()
    ASKED.append(f"grpc {asked.method} {asked.path}".strip())
    if not asked.method:
        friend = request.attributes.source.principal.endswith("/sa/friend")
        answer.status.code = (grpc.StatusCode.OK if friend else grpc.StatusCode.PERMISSION_DENIED).value[0]
        return answer
    if asked.headers.get("authorization") != FRIEND:
        answer.status.code = grpc.StatusCode.UNAUTHENTICATED.value[0]
        answer.denied_response.status.code = http_status_pb2.StatusCode.Unauthorized
        answer.denied_response.body = _WHY
        return answer
    for name, value in _headers(asked.path, asked.headers, asked.body).items():
        answer.ok_response.headers.add(header=base_pb2.HeaderValue(key=name, value=value))
    return answer


@asynccontextmanager
async def authorizing(http: int, grpc_port: int) -> AsyncIterator[None]:
    """The authorizer, as long as it is entered."""
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", _http)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", http).start()
    server = grpc.aio.server()
    check = grpc.unary_unary_rpc_method_handler(
        _check,
        request_deserializer=external_auth_pb2.CheckRequest.FromString,
        response_serializer=external_auth_pb2.CheckResponse.SerializeToString,
    )
    service = grpc.method_handlers_generic_handler("envoy.service.auth.v3.Authorization", {"Check": check})
    server.add_generic_rpc_handlers((service,))
    server.add_insecure_port(f"127.0.0.1:{grpc_port}")
    await server.start()
    try:
        yield
    finally:
        await server.stop(None)
        await runner.cleanup()


async def _serve() -> None:
    async with authorizing(int(sys.argv[1]), int(sys.argv[2])):
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(_serve())
