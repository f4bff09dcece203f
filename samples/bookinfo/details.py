"""details: facts about a book."""

from __future__ import annotations

from aiohttp import web

from bookinfo import http


async def _details(request: web.Request) -> web.Response:
    return web.json_response(
        {
            "id": http.product_id(request),
            "author": "William Shakespeare",
            "year": 1595,
            "type": "paperback",
            "pages": 200,
            "publisher": "PublisherA",
            "language": "English",
            "ISBN-10": "1234567890",
            "ISBN-13": "123-1234567890",
        }
    )


def application(_version: str) -> web.Application:
    """The service."""
    app = http.base()
    app.router.add_get("/details/{id}", _details)
    return app
