"""Bookinfo keeps the interfaces of Istio's, and shows a broken neighbour instead of breaking."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "samples"))

from bookinfo import details, productpage, ratings, reviews

Make = Callable[[web.Application], Awaitable[TestClient[web.Request, web.Application]]]


@pytest.fixture
async def serve() -> AsyncIterator[Make]:
    """Serves applications on ports of their own until the test ends."""
    clients: list[TestClient[web.Request, web.Application]] = []

    async def start(app: web.Application) -> TestClient[web.Request, web.Application]:
        client = TestClient(TestServer(app))
        await client.start_server()
        clients.append(client)
        return client

    yield start
    for client in clients:
        await client.close()


@pytest.fixture
async def page(serve: Make, monkeypatch: pytest.MonkeyPatch) -> TestClient[web.Request, web.Application]:
    """A productpage with all its neighbours."""
    parts = {
        "details": details.application("v1"),
        "ratings": ratings.application("v1"),
        "reviews": reviews.application("v3"),
    }
    for name, app in parts.items():
        monkeypatch.setenv(f"{name.upper()}_URL", str((await serve(app)).make_url("")).rstrip("/"))
    return await serve(productpage.application("v1"))


@pytest.mark.parametrize(("version", "color"), [("v1", None), ("v2", "black"), ("v3", "red")])
async def test_reviews_show_their_version(serve: Make, monkeypatch: pytest.MonkeyPatch, version: str, color: str | None) -> None:
    """Nobody could see which version answered: the whole of the demo."""
    monkeypatch.setenv("RATINGS_URL", str((await serve(ratings.application("v1"))).make_url("")).rstrip("/"))
    answer = await (await (await serve(reviews.application(version))).get("/reviews/0")).json()
    first = answer["reviews"][0]
    assert answer["podname"]
    assert first.get("rating", {}).get("color") == color
    assert ("rating" in first) == (color is not None)


async def test_the_page_is_whole(page: TestClient[web.Request, web.Application]) -> None:
    """The first thing that people see."""
    body = await (await page.get("/productpage")).text()
    assert "Comedy of Errors" in body
    assert "stars red" in body
    assert "unavailable" not in body
    for path in ("/health", "/api/v1/products", "/api/v1/products/0", "/api/v1/products/0/reviews", "/api/v1/products/0/ratings"):
        assert (await page.get(path)).status == 200, path


async def test_dead_neighbours_show_as_such(serve: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """A dependency that is away would crash the page."""
    for name in ("DETAILS", "REVIEWS", "RATINGS"):
        monkeypatch.setenv(f"{name}_URL", "http://127.0.0.1:1")
    page = await serve(productpage.application("v1"))
    reply = await page.get("/productpage")
    assert reply.status == 200
    body = await reply.text()
    assert "details are currently unavailable" in body
    assert "reviews are currently unavailable" in body
    assert (await page.get("/api/v1/products/0/reviews")).status == 500


async def test_a_dead_ratings_service_leaves_the_reviews(serve: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reviews would be lost because their stars are."""
    monkeypatch.setenv("RATINGS_URL", "http://127.0.0.1:1")
    answer = await (await (await serve(reviews.application("v2"))).get("/reviews/0")).json()
    assert "error" in answer["reviews"][0]["rating"]
    assert answer["reviews"][0]["text"]


async def test_the_user_and_the_trace_go_along(serve: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Routes by user and traces would stop at productpage."""
    seen: list[dict[str, str]] = []

    async def record(request: web.Request) -> web.Response:
        seen.append(dict(request.headers))
        return web.json_response({"reviews": []})

    spy = web.Application()
    spy.router.add_get("/{tail:.*}", record)
    url = str((await serve(spy)).make_url("")).rstrip("/")
    for name in ("DETAILS", "REVIEWS"):
        monkeypatch.setenv(f"{name}_URL", url)
    page = await serve(productpage.application("v1"))
    login = await page.post("/login", data={"username": "jason", "passwd": "x"}, allow_redirects=False)
    assert login.status == 302
    await page.get("/productpage", headers={"traceparent": "00-1-2-01", "x-b3-traceid": "77", "x-request-id": "r1"})
    assert {headers.get("end-user") for headers in seen} == {"jason"}
    assert {headers.get("traceparent") for headers in seen} == {"00-1-2-01"}
    assert {headers.get("x-b3-traceid") for headers in seen} == {"77"}
    seen.clear()
    await page.get("/logout")
    seen.clear()
    await page.get("/productpage", headers={"end-user": "mary"})
    assert {headers.get("end-user") for headers in seen} == {"mary"}, "a header that came with the request goes along too"


async def test_names_cannot_smuggle_headers_or_markup(page: TestClient[web.Request, web.Application]) -> None:
    """A user name with markup or a line break would reach the page, or other services' headers."""
    for name in ("<script>alert(1)</script>", "a\r\nx-evil: 1", "a" * 500):
        reply = await page.post("/login", data={"username": name}, allow_redirects=False)
        assert "session-user" not in reply.cookies
    body = await (await page.get("/productpage", headers={"end-user": "<script>alert(1)</script>"})).text()
    assert "<script>alert" not in body


async def test_ratings_can_be_changed_and_refuse_nonsense(serve: Make) -> None:
    """The interface has a PUT; what is not ratings is a 400 with a sentence."""
    client = await serve(ratings.application("v1"))
    assert (await client.put("/ratings/7", json={"Reviewer1": 1, "Reviewer2": 2})).status == 200
    assert (await (await client.get("/ratings/7")).json())["ratings"]["Reviewer1"] == 1
    assert (await client.put("/ratings/7", json=["x"])).status == 400
    assert (await client.put("/ratings/7", data=b"{")).status == 400
    assert (await client.get("/ratings/x")).status == 400
