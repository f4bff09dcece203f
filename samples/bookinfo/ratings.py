"""ratings: stars by reviewer. A PUT or POST changes them, until the process ends."""

from __future__ import annotations

from json import JSONDecodeError

from aiohttp import web

from bookinfo import http

_RATINGS = web.AppKey("ratings", dict[int, dict[str, int]])
_DEFAULT = {"Reviewer1": 5, "Reviewer2": 4}


async def _get(request: web.Request) -> web.Response:
    number = http.product_id(request)
    return web.json_response({"id": number, "ratings": request.app[_RATINGS].get(number, _DEFAULT)})


async def _put(request: web.Request) -> web.Response:
    number = http.product_id(request)
    try:
        sent = await request.json()
    except (JSONDecodeError, UnicodeDecodeError):
        return web.json_response({"error": "please provide valid ratings JSON"}, status=400)
    valid = isinstance(sent, dict) and all(isinstance(stars, int) for stars in sent.values())
    if not valid or len(sent) > 100 or len(request.app[_RATINGS]) > 10_000:
        return web.json_response({"error": "please provide valid ratings JSON"}, status=400)
    request.app[_RATINGS][number] = sent
    return web.json_response({"id": number, "ratings": sent})


def application(_version: str) -> web.Application:
    """The service."""
    app = http.base()
    app[_RATINGS] = {}
    app.router.add_get("/ratings/{id}", _get)
    app.router.add_put("/ratings/{id}", _put)
    app.router.add_post("/ratings/{id}", _put)
    return app
