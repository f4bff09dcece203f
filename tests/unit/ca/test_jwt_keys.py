"""JWT-SVIDs are signed with keys that everybody has by then, and nodes ask for what their join token named only."""

from __future__ import annotations

import asyncio
from pathlib import Path

import jwt
import msgspec
import pytest
from aiohttp import ClientSession, test_utils, web

from tests.unit.ca.test_join import NODE, REVIEWS, Clock
from tulle.control.asking import IDENTITY
from tulle.control.ca.authority import Authority
from tulle.control.ca.bundles import Bundles
from tulle.control.ca.http import COUNTS, PREFIX, identity_app
from tulle.control.ca.jwt_keys import KEY, JwtKeys
from tulle.control.ca.nodes import NodeRecord, Nodes
from tulle.control.ca.rotation import Step
from tulle.control.ca.signer import OwnSigner
from tulle.control.ca.tokens import JoinTokens
from tulle.control.ca.workload_http import add_workload_identity
from tulle.control.store.memory import MemoryStore
from tulle.core.trust_bundle import TrustBundle, parse
from tulle.kit.errors import Corrupt, Refused
from tulle.node.jwt_svids import validate
from tulle.ports import Conflict, Put


async def test_keys_overlap_so_that_no_token_is_without_one() -> None:
    """Broken: at a change of the key tokens would be refused by whoever has not heard of it yet, or has forgotten the old one."""
    clock, store = Clock(), MemoryStore()
    keys = await JwtKeys.open(store, clock=clock, lifetime=300, key_lifetime=1000, spread=100)
    other = await JwtKeys.open(store, clock=clock, lifetime=300, key_lifetime=1000, spread=100)
    assert keys.public == other.public
    first = keys.public[0]["kid"]

    def signer() -> str:
        return str(jwt.get_unverified_header(keys.sign(REVIEWS, ["a"])[0])["kid"])

    await keys.step()
    assert len(keys.public) == 1, "not due"
    clock.now += 1000
    await keys.step()
    assert len(keys.public) == 2
    assert signer() == first, "published before it signs"
    clock.now += 99
    await keys.step()
    assert signer() == first
    clock.now += 1
    await keys.step()
    second = signer()
    assert second != first
    assert {key["kid"] for key in keys.public} == {first, second}, "the old one's tokens live on"
    clock.now += 399
    await keys.step()
    assert len(keys.public) == 2
    clock.now += 1
    await keys.step()
    assert [key["kid"] for key in keys.public] == [second]
    with pytest.raises(Conflict):
        await other.step()
    again = await JwtKeys.open(store, clock=clock)
    assert again.public == keys.public


async def test_what_cannot_be_used_is_not_replaced() -> None:
    """Broken: a damaged record would silently become a new key that nobody's tokens are of."""
    store = MemoryStore()
    await store.write([Put(KEY, {"keys": [{"slot": "active", "since": 0, "key": "nonsense"}]}, expect=0)])
    with pytest.raises(Corrupt, match="does not parse"):
        await JwtKeys.open(store)


async def test_audiences_and_identities_are_checked() -> None:
    """Broken: a token without an audience is good everywhere; one of another trust domain is a forgery."""
    keys = await JwtKeys.open(MemoryStore())
    for audience in ([], ["a"] * 33, [""], ["a b"], ["x" * 1025]):
        with pytest.raises(Refused, match="audience"):
            keys.sign(REVIEWS, audience)
    with pytest.raises(Refused, match="identity"):
        keys.sign("spiffe://other/ns/default/sa/x", ["a"])


async def test_nodes_ask_for_tokens_and_bundles(tmp_path: Path) -> None:
    """Broken: a node gets a token of an identity that is not its own, or does not hear that a root or key is new."""
    store = MemoryStore()
    authority = Authority.open(tmp_path / "ca")
    keys = await JwtKeys.open(store)
    bundles = Bundles(store, OwnSigner(authority), keys, lambda: 60.0)
    await bundles.settle()
    await Nodes(store).put("host-1", NodeRecord(("default/bookinfo-*",), 0.0))
    app = identity_app(OwnSigner(authority), JoinTokens(store, lambda: authority.pin), store)
    add_workload_identity(app, keys, bundles, Nodes(store))

    @web.middleware
    async def front(request: web.Request, handler: object) -> web.StreamResponse:
        request[IDENTITY] = request.headers.get("as", "")
        answer: web.StreamResponse = await handler(request)  # type: ignore[operator]
        return answer

    parent = web.Application(middlewares=[front])
    parent.add_subapp(PREFIX, app)
    async with test_utils.TestServer(parent) as server, ClientSession() as session:

        async def ask(body: object, caller: str) -> tuple[int, dict[str, str]]:
            url = server.make_url(f"{PREFIX}/jwt")
            async with session.post(url, json=body, headers={"as": caller} if caller else {}) as response:
                return response.status, await response.json()

        async def known(tag: str, caller: str = NODE) -> tuple[int, dict[str, str]]:
            url = server.make_url(f"{PREFIX}/bundles").with_query(tag=tag)
            async with session.get(url, headers={"as": caller} if caller else {}) as response:
                return response.status, await response.json()

        status, body = await ask({"identity": REVIEWS, "audience": ["shop"]}, NODE)
        assert status == 200
        own = bundles.own
        assert validate(body["token"], "shop", [own])["sub"] == REVIEWS
        for identity, caller in (
            ("spiffe://cluster.local/ns/default/sa/admin", NODE),
            (REVIEWS, ""),
            (REVIEWS, "spiffe://cluster.local/ns/default/sa/other"),
            (REVIEWS, "spiffe://cluster.local/node/stranger"),
        ):
            assert (await ask({"identity": identity, "audience": ["shop"]}, caller))[0] == 403
        assert (await ask({"identity": REVIEWS}, NODE))[0] == 400
        assert (await ask({"identity": REVIEWS, "audience": []}, NODE))[0] == 403
        assert app[COUNTS].signed["jwt"] == 1
        assert app[COUNTS].refused["jwt"] == 5

        assert (await known("", caller=""))[0] == 403
        status, said = await known("")
        assert status == 200
        assert parse(msgspec.json.encode(said["bundles"]["cluster.local"]), "cluster.local") == own  # type: ignore[index]
        waiting = asyncio.create_task(known(said["tag"]))
        foreign = Authority.open(tmp_path / "other", "other.example")
        bundles.use({"other.example": TrustBundle("other.example", (foreign.bundle.decode(),))}, ("old.example",))
        await bundles.settle()
        status, said = await asyncio.wait_for(waiting, 5)
        assert set(said["bundles"]) == {"cluster.local", "other.example"}
        assert said["aliases"] == ["old.example"]  # type: ignore[comparison-overlap]
        before = bundles.own.sequence
        authority.take(Step.PREPARE)
        await bundles.settle()
        assert bundles.own.sequence == before + 1
        assert len(bundles.own.authorities) == 2
        restarted = Bundles(store, OwnSigner(authority), keys, lambda: 60.0)
        await restarted.settle()
        assert restarted.own.sequence == before + 1, "counted on, not from the start"
