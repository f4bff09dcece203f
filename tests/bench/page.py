"""The page in Chromium: how soon a mesh of 500 services is there, and how fluid a graph of 300 nodes and 1,000 links is.

The page is the real one; what it asks is answered here, with figures made up, so that only the browser is measured.
"""

from __future__ import annotations

import asyncio
import random
import time
from typing import Any

import msgspec
from aiohttp import web
from playwright.async_api import Page, async_playwright

from tests.support.serving import program
from tulle.control.ui.page import PREFIX, page_app
from tulle.core.figures import Figures, Health, Row, Table
from tulle.core.graph import Graph, Level, Link, Node
from tulle.core.inventory import Inventory, ServiceItem

SERVICES, NODES, LINKS = 500, 300, 1000
SHOWN = 200  # rows of a table until somebody asks for the rest
_SECONDS = 3.0
_FRAMES = """seconds => new Promise((done) => {
    let frames = 0; const start = performance.now();
    const next = (now) => {
        frames += 1;
        if (now - start < 1000 * seconds) requestAnimationFrame(next); else done(frames / ((now - start) / 1000));
    };
    requestAnimationFrame(next); })"""


class Measured(msgspec.Struct):
    """`painted`, `filled`: seconds to the first paint, and to all services; frames a second while a graph is moved, zoomed."""

    painted: float
    filled: float
    moving: float
    zooming: float


def _answers() -> dict[str, Any]:
    made = random.Random(7)

    def figures() -> Figures:
        rate = made.random() * 50
        return Figures(int(rate * 600), 0, rate, 1.0, 3.0, 9.0, 20.0, 1.0, Health.HEALTHY)

    names = [f"space{at % 10}/service{at}" for at in range(SERVICES)]
    rows = tuple(Row({"service": name}, figures(), tuple(made.random() for _ in range(30))) for name in names)
    items = tuple(ServiceItem(name, "Service", name[:6], name, f"{name}.svc", "", (), 3, 3) for name in names)
    nodes = tuple(Node(f"n{at}", f"space{at % 6}", f"service{at}", figures(), health=Health.HEALTHY) for at in range(NODES))
    pairs = {(at, min(NODES - 1, at + 1 + int(made.expovariate(0.05)))) for at in made.choices(range(NODES - 1), k=4 * LINKS)}
    links = tuple(Link(f"n{one}", f"n{other}", "http", figures()) for one, other in sorted(pairs)[:LINKS])
    return {
        "status": {"version": "", "trustDomain": "cluster.local"},
        "proxies": {"proxies": []},
        "findings": {"findings": []},
        "history": {"changes": []},
        "telemetry/figures": Table(0.0, 600.0, rows),
        "telemetry/inventory": Inventory(items),
        "telemetry/graph": Graph(Level.APP, 0.0, 600.0, nodes, links),
    }


async def measure() -> Measured:
    """All of it."""
    app = web.Application()
    for path, found in _answers().items():
        body = msgspec.json.encode(found)

        async def answer(_request: web.Request, body: bytes = body) -> web.Response:
            return web.Response(body=body, content_type="application/json")

        app.router.add_get(f"/tulle/v1/{path}", answer)
    app.add_subapp(PREFIX, page_app())
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    address = f"http://127.0.0.1:{runner.addresses[0][1]}{PREFIX}/"
    try:
        async with async_playwright() as driver:
            browser = await driver.chromium.launch(executable_path=program("chromium-headless-shell"), args=["--no-sandbox"])
            page = await browser.new_page(viewport={"width": 1280, "height": 720})
            began = time.perf_counter()
            await page.goto(address)
            await page.locator("main tbody tr").nth(SHOWN - 1).wait_for(state="attached")
            filled = time.perf_counter() - began
            painted = await page.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime / 1000")
            await page.goto(f"{address}#/graph")
            await page.locator("[data-node]").nth(NODES - 1).wait_for(state="attached")
            moving = await _while(page, lambda at: page.mouse.move(400 + at % 300, 300 + at % 170), pressed=True)
            zooming = await _while(page, lambda at: page.mouse.wheel(0, 40 if at % 40 < 20 else -40), pressed=False)
            await browser.close()
            return Measured(painted, filled, moving, zooming)
    finally:
        await runner.cleanup()


async def _while(page: Page, act: Any, *, pressed: bool) -> float:
    """Frames a second while somebody does that."""
    await page.mouse.move(400, 300)
    if pressed:
        await page.mouse.down()
    counting = asyncio.ensure_future(page.evaluate(_FRAMES, _SECONDS))
    at = 0
    while not counting.done():
        await act(at)
        at += 7
        await asyncio.sleep(0.01)
    if pressed:
        await page.mouse.up()
    found: float = await counting
    return found
