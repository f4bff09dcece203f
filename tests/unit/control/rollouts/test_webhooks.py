"""Webhooks of roll-outs, asked of real servers: what hangs, redirects, floods or refuses is a sentence, and signatures hold."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web

from tulle.control.events import Events
from tulle.control.rollouts.asking import Asking
from tulle.control.rollouts.posting import SIGNATURE, Poster
from tulle.control.rollouts.webhooks import DELIVERY, Webhooks
from tulle.control.store.memory import MemoryStore
from tulle.core.rollout.hooks import Answer, Hook
from tulle.ports import Key, Put

ABOUT = {"apiVersion": "tulle.dev/v1alpha1", "kind": "Rollout", "metadata": {"namespace": "default", "name": "shop", "uid": "u"}}
PLACE = "default", "shop"


class Hooked:
    """A server whose path says how it answers; what it was sent is in `heard`."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, Any, Any]] = []
        self.come = asyncio.Event()
        self.held = asyncio.Event()

    async def answer(self, request: web.Request) -> web.StreamResponse:
        data = await request.read()
        self.heard.append((request.path, dict(request.headers), data))
        self.come.set()
        match request.path:
            case "/hang":
                await self.held.wait()
            case "/drip":
                reply = web.StreamResponse()
                await reply.prepare(request)
                while not self.held.is_set():
                    await reply.write(b".")
                    await asyncio.sleep(0.01)
            case "/flood":
                return web.Response(body=b"x" * 2**20)
            case "/away":
                return web.Response(status=302, headers={"Location": "/ok"})
            case "/second":
                return web.Response(status=200 if len(self.heard) > 1 else 503)
            case "/ok":
                return web.Response(status=204)
            case _:
                return web.Response(status=int(request.path[1:]), text="a secret of somebody")
        return web.Response()


@asynccontextmanager
async def hooked() -> AsyncIterator[tuple[Hooked, str]]:
    found = Hooked()
    application = web.Application()
    application.router.add_route("*", "/{path:.*}", found.answer)
    runner = web.AppRunner(application, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield found, f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        found.held.set()
        await runner.cleanup()


async def test_what_is_no_yes() -> None:
    """Broken: a webhook that hangs, redirects or answers a megabyte would hold the control plane up, or be taken for consent."""
    async with hooked() as (server, url), Poster() as poster:
        said = {path: await poster.post(url + path, {}, 0.3) for path in ("/ok", "/hang", "/drip", "/flood", "/away", "/403")}
        assert said == {
            "/ok": "",
            "/hang": "it has not answered within 0.3 s",
            "/drip": "it has not answered within 0.3 s",
            "/flood": "it answers 200 with more than 65536 bytes",
            "/away": "it redirects (302), which is not followed",
            "/403": "it answers 403",
        }
        assert [path for path, *_ in server.heard].count("/ok") == 1
        assert "cannot be asked" in await poster.post("http://127.0.0.1:1/", {}, 0.3)
        assert await poster.post("http://[nonsense/", {}, 0.3)


async def test_where_clouds_keep_their_credentials() -> None:
    """Broken: whoever may write a Rollout could make the control plane ask the machine's own metadata service."""
    async with Poster() as poster:
        for host in ("169.254.169.254", "[fe80::1%25lo]", "[::ffff:169.254.169.254]", "0xA9FEA9FE"):
            why = await poster.post(f"http://{host}/latest", {}, 2.0)
            assert "link-local" in why or "cannot be asked" in why, why
        assert "link-local" in await poster.post("http://169.254.169.254/latest", {}, 2.0)


async def test_a_second_attempt() -> None:
    """Broken: `retries` would not be kept."""
    async with hooked() as (server, url), Poster() as poster:
        assert await poster.post(f"{url}/second", {}, 5.0, retries=1) == ""
        assert len(server.heard) == 2


def secret(value: bytes) -> Put:
    body = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"namespace": "default", "name": "hooks"},
        "data": {"key": base64.b64encode(value).decode()},
    }
    return Put(Key("secrets", "default", "hooks"), body)


async def test_signed_and_told_apart() -> None:
    """Broken: a receiver could not know who asks, or that it is asked the same again."""
    store = MemoryStore()
    await store.write([secret(b"shared")])
    async with hooked() as (server, url), Poster() as poster, asyncio.timeout(20):
        hooks = Webhooks(store, poster, Events(store, lambda: 1.0), lambda: 1.0)
        hook = Hook("gate", "confirm-rollout", f"{url}/ok", metadata=(("team", "shop"),), key=("hooks", "key"))
        for point in ("one", "two", "one"):
            assert await hooks.ask(ABOUT, point, hook, {"phase": "Waiting"}) == Answer(True, "", 1.0)
        _path, headers, data = server.heard[0]
        assert headers[SIGNATURE] == "sha256=" + hmac.new(b"shared", data, hashlib.sha256).hexdigest()
        told = {"name": "shop", "namespace": "default", "phase": "Waiting", "type": "confirm-rollout"}
        assert json.loads(data) == {**told, "metadata": {"team": "shop"}}
        deliveries = [one[1][DELIVERY] for one in server.heard]
        assert deliveries[0] == deliveries[2] != deliveries[1]
        bad = Hook("bad", "confirm-rollout", f"{url}/ok", key=("hooks", "other"))
        assert (await hooks.ask(ABOUT, "one", bad, {})).why == "Secret default/hooks has no other"
        assert len(server.heard) == 3


async def test_an_answer_counts_where_it_was_asked_for() -> None:
    """Broken: the consent to the last step would be taken for consent to this one, or one would be asked twice at once."""
    asking: Asking[str] = Asking()
    asked: list[str] = []
    held = asyncio.Event()

    async def slow(_before: str | None) -> str:
        asked.append("slow")
        await held.wait()
        return "late"

    async def other(before: str | None) -> str:
        return f"after {before}"

    asking.follow(PLACE, "one", {"gate": slow})
    await asyncio.sleep(0)
    asking.follow(PLACE, "one", {"gate": slow})
    asking.follow(PLACE, "two", {"other": other})
    held.set()
    await asking._asked[PLACE, "other"]
    assert asked == ["slow"]
    assert (asking.answers(PLACE, "one"), asking.answers(PLACE, "two")) == ({}, {"other": "after None"})
    asking.follow(PLACE, "two", {"other": other})
    await asking._asked[PLACE, "other"]
    assert asking.answers(PLACE, "two") == {"other": "after after None"}
    asking.keep(set())
    assert asking.answers(PLACE, "two") == {}
