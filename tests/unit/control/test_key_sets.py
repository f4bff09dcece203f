"""Keys of issuers: fetched, kept while an issuer is away, and nothing else when he says nonsense."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web

from tests.unit.core.compile.mesh import changes, obj
from tests.unit.core.envoy.test_tokens import FOREIGN, OURS
from tulle.control.key_sets import KeySets, fetched
from tulle.core.compile.tokens import KeySet, Wanted, key_sets
from tulle.core.pipeline import Pipeline


@asynccontextmanager
async def serving(answers: dict[str, Any]) -> AsyncIterator[str]:
    """A server that answers each path with a text, a status, or after so many seconds."""

    async def answer(request: web.Request) -> web.StreamResponse:
        said = answers[request.path]
        if isinstance(said, float):
            await asyncio.sleep(said)
        return web.Response(status=said) if isinstance(said, int) else web.Response(text=str(said))

    application = web.Application()
    application.router.add_get("/{path:.*}", answer)
    runner = web.AppRunner(application, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


async def test_what_is_no_key_set() -> None:
    """Broken: a slow, huge or confused issuer would hold the control plane up, or be believed."""
    answers = {
        "/keys": OURS.keys,
        "/slow": 30.0,
        "/huge": f'{{"keys":[], "x": "{"a" * 2_000_000}"}}',
        "/text": "hello",
        "/none": "{}",
    }
    answers |= {"/gone": 404, "/list": "[]", "/deep": "[" * 100_000}
    async with serving(answers) as url:
        answers["/page"] = json.dumps({"issuer": url, "jwks_uri": f"{url}/keys"})
        found = {path: await fetched(Wanted(f"{url}{path}", 0.5)) for path in answers}
        away = await fetched(Wanted("http://127.0.0.1:1/", 0.5))
    good = {path for path, one in found.items() if one.keys}
    assert good == {"/keys", "/page"}
    assert all(one.why for path, one in found.items() if path not in good)
    assert away.why


def believes(url: str) -> Any:
    spec = {"jwtRules": [{"issuer": "https://issuer.example", "jwksUri": url}]}
    metadata = {"name": "tokens", "namespace": "default"}
    return obj({"apiVersion": "security.istio.io/v1", "kind": "RequestAuthentication", "metadata": metadata, "spec": spec})


async def test_keys_are_kept_and_rotate() -> None:
    """Broken: tokens would be refused while their issuer is away, or good for ever after a rotation."""
    answers: dict[str, Any] = {"/keys": OURS.keys}
    pipeline = Pipeline()
    moved = asyncio.Event()

    async with serving(answers) as url:
        sets = KeySets(pipeline, lambda _published: moved.set(), every=0.05)
        running = asyncio.create_task(sets.run())

        async def until(wanted: Any) -> KeySet | None:
            async with asyncio.timeout(20):
                while not wanted(found := pipeline.flow.get(key_sets, f"{url}/keys")):
                    await moved.wait()
                    moved.clear()
                return found

        pipeline.commit(changes([believes(f"{url}/keys")]))
        sets.look()
        first = await until(lambda one: one and one.keys)
        answers["/keys"] = 503
        away = await until(lambda one: one.why)
        assert first is not None
        assert away is not None
        counted = {one.name: one.samples for one in sets.metrics()}
        assert {tuple(labels.values()) for labels, _value in counted["tulle_jwks_age_seconds"]} == {(f"{url}/keys",)}
        assert counted["tulle_jwks_fetched_total"][0][1] != 0
        assert counted["tulle_jwks_failed_total"][0][1] != 0
        assert away.keys == first.keys
        assert [one.reason for one in pipeline.problems()] == ["NoKeys"]
        answers["/keys"] = FOREIGN.keys
        await until(lambda one: not one.why and one.keys != first.keys)
        assert pipeline.problems() == []
        pipeline.commit(dict.fromkeys(changes([believes(f"{url}/keys")])))
        sets.look()
        await until(lambda one: one is None)
        assert [one.samples for one in sets.metrics()] == [[], [], []]
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
