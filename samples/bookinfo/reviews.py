"""reviews: what people said of a book. v1 asks nobody; v2 and v3 ask ratings, and show black or red stars."""

from __future__ import annotations

import os
from typing import Any

from aiohttp import web

from bookinfo import http

_VERSION = web.AppKey("version", str)
_COLOR = {"v2": "black", "v3": "red"}
# v3 loses patience earlier than v2, so that a slow ratings service shows differently in the two.
_PATIENCE = {"v2": 10.0, "v3": 2.5}
_TEXTS = {
    "Reviewer1": "Two hours of mistaken identities, and not a dull minute among them. I laughed at every door that opened.",
    "Reviewer2": "Light, fast and very funny. Do not look for the depths of the tragedies; look for the timing.",
}


async def _reviews(request: web.Request) -> web.Response:
    number = http.product_id(request)
    version = request.app[_VERSION]
    ratings: dict[str, Any] = {}
    if version in _COLOR:
        ratings = await _ratings(request, number, version)
    entries = []
    for reviewer, text in _TEXTS.items():
        entry: dict[str, Any] = {"reviewer": reviewer, "text": text}
        if reviewer in ratings:
            entry["rating"] = ratings[reviewer]
        entries.append(entry)
    workload = os.environ.get("POD_NAME") or f"reviews-{version}"
    return web.json_response(
        {"id": str(number), "podname": workload, "clustername": os.environ.get("CLUSTER_NAME", "tulle"), "reviews": entries}
    )


async def _ratings(request: web.Request, number: int, version: str) -> dict[str, Any]:
    """The rating of each reviewer as it goes into the reply, with an error instead of stars where ratings failed."""
    url = f"{http.service_url('ratings')}/ratings/{number}"
    try:
        answer = await http.fetch(request.app, url, http.forwarded(request.headers), _PATIENCE[version])
        stars = {reviewer: int(answer["ratings"][reviewer]) for reviewer in _TEXTS}
    except (http.Failed, KeyError, TypeError, ValueError):
        return {reviewer: {"error": "Ratings service is currently unavailable"} for reviewer in _TEXTS}
    return {reviewer: {"stars": count, "color": _COLOR[version]} for reviewer, count in stars.items()}


def application(version: str) -> web.Application:
    """The service in one of its versions."""
    app = http.base()
    app[_VERSION] = version
    app.router.add_get("/reviews/{id}", _reviews)
    return app
