"""productpage: the page that people open. Asks details and reviews, and says so where one of them does not answer."""

from __future__ import annotations

import asyncio
import html
import re
from pathlib import Path
from string import Template
from typing import Any

from aiohttp import web

from bookinfo import http

_HERE = Path(__file__).parent
_PAGE = Template((_HERE / "productpage.html").read_text())
_PRODUCT = {
    "id": 0,
    "title": "The Comedy of Errors",
    "descriptionHtml": "An early play of Shakespeare's, and his shortest: two pairs of twins, parted at birth, meet in one town.",
}
_PATIENCE = 3.0  # seconds for one try; reviews are asked twice, as everybody's delay examples expect


async def _page(request: web.Request) -> web.Response:
    headers = _headers(request)
    (details_status, details), (reviews_status, reviews) = await asyncio.gather(
        _details_of(request, 0, headers), _reviews_of(request, 0, headers)
    )
    user = headers.get("end-user", "")
    body = _PAGE.substitute(
        title=html.escape(str(_PRODUCT["title"])),
        description=html.escape(str(_PRODUCT["descriptionHtml"])),
        account=_account(user),
        details=_details_html(details) if details_status == 200 else _sorry("details", details),
        reviews=_reviews_html(reviews) if reviews_status == 200 else _sorry("reviews", reviews),
        served_by=html.escape(str(reviews.get("podname", ""))) if reviews_status == 200 else "nobody",
    )
    return web.Response(text=body, content_type="text/html")


def _account(user: str) -> str:
    if not user:
        return (
            '<form class="account" action="login" method="post">'
            '<input name="username" aria-label="User name" placeholder="user name, try jason">'
            '<input name="passwd" type="password" aria-label="Password" placeholder="any password">'
            "<button>Sign in</button></form>"
        )
    return f'<p class="account"><span class="user">{html.escape(user)}</span> <a class="button" href="logout">Sign out</a></p>'


def _sorry(what: str, answer: dict[str, Any]) -> str:
    why = html.escape(str(answer.get("error", "")))
    sentence = f"Sorry, product {what} are currently unavailable for this book."
    return f'<p class="error"><strong>{sentence}</strong><br><small>{why}</small></p>'


def _details_html(details: dict[str, Any]) -> str:
    names = {
        "type": "Type",
        "pages": "Pages",
        "publisher": "Publisher",
        "language": "Language",
        "ISBN-10": "ISBN-10",
        "ISBN-13": "ISBN-13",
    }
    rows = "".join(f"<dt>{name}</dt><dd>{html.escape(str(details.get(key, '')))}</dd>" for key, name in names.items())
    return f"<dl>{rows}</dl>"


def _reviews_html(reviews: dict[str, Any]) -> str:
    return "".join(_review_html(review) for review in reviews.get("reviews", []) if isinstance(review, dict))


def _review_html(review: dict[str, Any]) -> str:
    rating = review.get("rating")
    stars = ""
    if isinstance(rating, dict) and "stars" in rating:
        count = max(0, min(5, int(rating["stars"])))
        color = "red" if rating.get("color") == "red" else "black"
        stars = f'<p class="stars {color}" aria-label="{count} of 5 stars">{"★" * count}<span>{"★" * (5 - count)}</span></p>'
    elif isinstance(rating, dict):
        stars = f'<p class="error"><small>{html.escape(str(rating.get("error", "")))}</small></p>'
    text, reviewer = html.escape(str(review.get("text", ""))), html.escape(str(review.get("reviewer", "")))
    return f"<blockquote><p>{text}</p><footer>{reviewer}</footer>{stars}</blockquote>"


def _headers(request: web.Request) -> dict[str, str]:
    """What goes along: the `end-user` of the session, or the one that came with the request."""
    headers = http.forwarded(request.headers)
    headers.pop("cookie", None)  # the session is ours alone
    if user := request.cookies.get("session-user"):
        headers["end-user"] = user
    return headers


async def _details_of(request: web.Request, number: int, headers: dict[str, str]) -> tuple[int, dict[str, Any]]:
    return await _ask(request, f"{http.service_url('details')}/details/{number}", headers, "details")


async def _reviews_of(request: web.Request, number: int, headers: dict[str, str]) -> tuple[int, dict[str, Any]]:
    url = f"{http.service_url('reviews')}/reviews/{number}"
    status, answer = await _ask(request, url, headers, "reviews")
    return (status, answer) if status == 200 else await _ask(request, url, headers, "reviews")


async def _ratings_of(request: web.Request, number: int, headers: dict[str, str]) -> tuple[int, dict[str, Any]]:
    return await _ask(request, f"{http.service_url('ratings')}/ratings/{number}", headers, "ratings")


async def _ask(request: web.Request, url: str, headers: dict[str, str], what: str) -> tuple[int, dict[str, Any]]:
    try:
        answer = await http.fetch(request.app, url, headers, _PATIENCE)
    except http.Failed as failed:
        return failed.status or 500, {"error": f"{what}: {failed}"}
    if not isinstance(answer, dict):
        return 500, {"error": f"Sorry, product {what} came in a form that is not known."}
    return 200, answer


def _back() -> web.Response:
    """To the page, always: a target taken from the request would let anybody send people elsewhere."""
    return web.Response(status=302, headers={"location": "productpage"})


async def _login(request: web.Request) -> web.Response:
    form = await request.post()
    user = str(form.get("username", ""))
    response = _back()
    # The name goes out as a header: what cannot stand in one cannot be a name.
    if re.fullmatch(r"[\w.@-]{1,64}", user, flags=re.ASCII):
        response.set_cookie("session-user", user, httponly=True, samesite="Lax")
    return response


async def _logout(_request: web.Request) -> web.Response:
    response = _back()
    response.del_cookie("session-user")
    return response


async def _index(_request: web.Request) -> web.Response:
    return _back()


async def _products(_request: web.Request) -> web.Response:
    return web.json_response([_PRODUCT])


async def _product(request: web.Request) -> web.Response:
    return _answer(*await _details_of(request, http.product_id(request), _headers(request)))


async def _product_reviews(request: web.Request) -> web.Response:
    return _answer(*await _reviews_of(request, http.product_id(request), _headers(request)))


async def _product_ratings(request: web.Request) -> web.Response:
    return _answer(*await _ratings_of(request, http.product_id(request), _headers(request)))


def _answer(status: int, body: dict[str, Any]) -> web.Response:
    return web.json_response(body, status=status)


def application(_version: str) -> web.Application:
    """The service."""
    app = http.base()
    app.router.add_get("/", _index)
    app.router.add_get("/productpage", _page)
    app.router.add_post("/login", _login)
    app.router.add_get("/logout", _logout)
    app.router.add_static("/static", _HERE / "static")
    app.router.add_get("/api/v1/products", _products)
    app.router.add_get("/api/v1/products/{id}", _product)
    app.router.add_get("/api/v1/products/{id}/reviews", _product_reviews)
    app.router.add_get("/api/v1/products/{id}/ratings", _product_ratings)
    return app
