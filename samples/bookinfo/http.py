"""What the four services share: health, the headers that a request takes along, and calls to each other."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from typing import Any

import aiohttp
from aiohttp import web

# Trace context in every format in use, the user whom routes match on, and the request's name. Without these one user's
# request falls apart into many traces, and rules on `end-user` stop at the first hop.
FORWARDED = (
    "x-request-id",
    "traceparent",
    "tracestate",
    "b3",
    "x-b3-traceid",
    "x-b3-spanid",
    "x-b3-parentspanid",
    "x-b3-sampled",
    "x-b3-flags",
    "x-ot-span-context",
    "x-datadog-trace-id",
    "x-datadog-parent-id",
    "x-datadog-sampling-priority",
    "x-cloud-trace-context",
    "grpc-trace-bin",
    "authorization",
    "cookie",
    "user-agent",
    "end-user",
)

SESSION = web.AppKey("session", aiohttp.ClientSession)


class Failed(Exception):
    """A call that brought no usable answer: the HTTP `status`, 0 where there was none, and why."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status


def forwarded(headers: Mapping[str, str]) -> dict[str, str]:
    """The headers to pass on with every call made for this request."""
    return {name: headers[name] for name in FORWARDED if name in headers}


def service_url(name: str) -> str:
    """Where a service is called: `$RATINGS_URL`, or its name on port 9080, which is what the mesh resolves."""
    return os.environ.get(f"{name.upper()}_URL", f"http://{name}:9080")


async def fetch(app: web.Application, url: str, headers: dict[str, str], seconds: float) -> Any:
    """GET a JSON document; raises `Failed` where there is none within the time."""
    try:
        async with app[SESSION].get(url, headers=headers, timeout=aiohttp.ClientTimeout(total=seconds)) as response:
            if response.status != 200:
                raise Failed(response.status, f"HTTP {response.status}")
            return await response.json(content_type=None)
    except TimeoutError as error:
        raise Failed(0, f"no answer within {seconds:g} s") from error
    except (aiohttp.ClientError, ValueError, OSError) as error:
        raise Failed(0, str(error)) from error


async def _health(_request: web.Request) -> web.Response:
    return web.json_response({"status": "Healthy"})


async def _open_session(app: web.Application) -> None:
    # trust_env: where the mesh has no way into the network, it is an ordinary HTTP proxy.
    app[SESSION] = aiohttp.ClientSession(trust_env=True, cookie_jar=aiohttp.DummyCookieJar())


async def _close_session(app: web.Application) -> None:
    await app[SESSION].close()
    await asyncio.sleep(0)


def base() -> web.Application:
    """An application that answers `/health` and has a client session."""
    app = web.Application()
    app.router.add_get("/health", _health)
    app.on_startup.append(_open_session)
    app.on_cleanup.append(_close_session)
    return app


def product_id(request: web.Request) -> int:
    """The number in the path; 400 where it is none."""
    text = request.match_info["id"]
    if not text.isdigit():
        raise web.HTTPBadRequest(text='{"error": "please provide numeric product ID"}', content_type="application/json")
    return int(text)
