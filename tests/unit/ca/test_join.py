"""How nodes get certificates: tokens, who may have which identity, and the HTTP that carries it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import structlog
from aiohttp import ClientSession, test_utils, web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tulle.control.asking import IDENTITY
from tulle.control.ca.authority import Authority
from tulle.control.ca.http import COUNTS, PREFIX, identity_app
from tulle.control.ca.signer import OwnSigner
from tulle.control.ca.tokens import JoinTokens
from tulle.control.store.memory import MemoryStore
from tulle.kit.errors import Refused
from tulle.ports import Key, Signer

NODE = "spiffe://cluster.local/node/host-1"
REVIEWS = "spiffe://cluster.local/ns/default/sa/bookinfo-reviews"


class Clock:
    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


def csr() -> str:
    key = ec.generate_private_key(ec.SECP256R1())
    made = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(key, hashes.SHA256())
    return made.public_bytes(serialization.Encoding.PEM).decode()


def uri(chain: str) -> str:
    leaf = x509.load_pem_x509_certificate(chain.encode())
    (name,) = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return str(name.value)


class Site:
    """A control plane's identity API; the caller's verified certificate is the header `as`, which the front trusts here."""

    def __init__(self, folder: Path) -> None:
        self.clock = Clock()
        self.store = MemoryStore()
        self.authority = Authority.open(folder, clock=self.clock)
        self.tokens = JoinTokens(self.store, lambda: self.authority.pin, self.clock)
        signer: Signer = OwnSigner(self.authority)
        self.app = identity_app(signer, self.tokens, self.store, lifetime=10.0, clock=self.clock)

    async def __aenter__(self) -> Site:
        @web.middleware
        async def front(
            request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
        ) -> web.StreamResponse:
            request[IDENTITY] = request.headers.get("as", "")
            return await handler(request)

        parent = web.Application(middlewares=[front])
        parent.add_subapp(PREFIX, self.app)
        self.server = test_utils.TestServer(parent)
        await self.server.start_server()
        self.session = ClientSession()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.session.close()
        await self.server.close()
        await self.store.close()

    async def post(self, path: str, body: object, caller: str = "") -> tuple[int, dict[str, Any]]:
        headers = {"as": caller} if caller else {}
        async with self.session.post(self.server.make_url(PREFIX + path), json=body, headers=headers) as response:
            return response.status, await response.json()

    async def join(self, token: str, node: str = "host-1") -> tuple[int, dict[str, Any]]:
        return await self.post("/join", {"token": token, "csr": csr(), "node": node})

    async def sign(self, identity: str, caller: str) -> tuple[int, dict[str, Any]]:
        return await self.post("/sign", {"csr": csr(), "identity": identity}, caller)


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    async with Site(tmp_path / "ca") as running:
        yield running


async def test_a_node_joins_and_gets_what_its_token_named(site: Site) -> None:
    """Would fail if a node could not get its workloads' certificates, or could get others'."""
    status, body = await site.join(await site.tokens.create(["default/bookinfo-*"], 60))
    assert status == 200
    assert uri(body["chain"]) == NODE
    assert body["trust_domain"] == "cluster.local"
    assert body["bundle"].encode() == site.authority.bundle
    status, body = await site.sign(REVIEWS, NODE)
    assert (status, uri(body["chain"])) == (200, REVIEWS)
    for other in (
        "spiffe://cluster.local/ns/default/sa/admin",
        "spiffe://cluster.local/ns/other/sa/bookinfo-reviews",
        "spiffe://cluster.local/ns/default/sa/bookinfo-reviews/x",
        "spiffe://cluster.local/node/host-2",
        "spiffe://cluster.local/ns/tulle-system/sa/control-plane",
    ):
        status, body = await site.sign(other, NODE)
        assert status == 403, other
        assert "default/bookinfo-*" in body["message"]
    status, body = await site.sign("spiffe://evil/ns/default/sa/bookinfo-reviews", NODE)
    assert status == 403
    assert site.app[COUNTS].signed == {"join": 1, "sign": 1}
    assert site.app[COUNTS].refused["sign"] == 6


async def test_who_may_sign(site: Site) -> None:
    """Would fail if anybody but a node that joined, or the holder of a certificate for itself, were given one."""
    assert (await site.sign(REVIEWS, ""))[0] == 403
    assert (await site.sign(NODE, NODE))[0] == 403, "it never joined"
    assert (await site.sign(REVIEWS, REVIEWS))[0] == 200, "renewal"
    assert (await site.sign("spiffe://cluster.local/ns/default/sa/other", REVIEWS))[0] == 403
    await site.join(await site.tokens.create([], 60))
    assert (await site.sign(NODE, NODE))[0] == 200
    assert (await site.sign(REVIEWS, NODE))[0] == 403


async def test_a_token_is_good_once(site: Site) -> None:
    """Would fail if a join token that was seen by somebody could be used a second time, even at the same moment."""
    token = await site.tokens.create(["*/*"], 60)
    results = await asyncio.gather(*(site.join(token) for _ in range(8)))
    assert sorted(status for status, _ in results) == [200] + [403] * 7
    assert (await site.join(token))[0] == 403


async def test_tokens_that_are_refused(site: Site) -> None:
    """Would fail if a wrong, old or foreign token let a node in, or if a refusal told which part was wrong."""
    good = await site.tokens.create(["*/*"], 60, node="host-1")
    _, number, secret, pin = good.split(".")
    other = await site.tokens.create(["*/*"], 60)
    wrong_secret = ".".join(("tulle", number, other.split(".")[2], pin))
    unknown = ".".join(("tulle", "0" * 16, secret, pin))
    messages = set()
    for token in (wrong_secret, unknown):
        status, body = await site.join(token)
        assert status == 403
        messages.add(body["message"])
    assert len(messages) == 1
    for token in ("", "tulle", good + "x", "tulle..." + pin):
        assert (await site.join(token))[0] == 403
    status, body = await site.join(good, node="host-2")
    assert (status, "host-1" in body["message"]) == (403, True)
    assert (await site.join(good))[0] == 200, "no refusal used it up"
    late = await site.tokens.create(["*/*"], 60)
    site.clock.now += 61
    status, body = await site.join(late)
    assert (status, body["message"]) == (403, messages.pop())


async def test_a_bad_request_does_not_cost_the_token(site: Site) -> None:
    """Would fail if a mistake in the request used the token up, or a node's name could break out of its identity."""
    token = await site.tokens.create(["*/*"], 60)
    assert (await site.post("/join", {"token": token, "csr": "x", "node": "host-1"}))[0] == 403
    for node in ("", "../ns/default/sa/admin", "a/b", "host\n", "x" * 300):
        assert (await site.join(token, node))[0] == 403
    bodies: tuple[object, ...] = (
        {},
        [],
        {"token": 1, "csr": "", "node": ""},
        {"token": token, "csr": csr(), "node": "n", "extra": 1},
    )
    for body in bodies:
        status, answer = await site.post("/join", body)
        assert (status, answer["code"]) == (400, "bad-data")
        assert token not in answer["message"]
    assert (await site.join(token))[0] == 200


async def test_only_hashes_are_kept_and_nothing_is_logged(site: Site) -> None:
    """Would fail if reading the store, or the log, were enough to join."""
    with structlog.testing.capture_logs() as logs:
        token = await site.tokens.create(["*/*"], 60)
        stored = await site.store.list("_jointokens")
        await site.join(token, "not/a/name")
        await site.join(token)
        await site.join(token)
    secret = token.split(".")[2]
    assert secret not in repr(stored)
    assert secret not in repr(logs)
    assert [entry["event"] for entry in logs] == ["identity refused", "identity signed", "identity refused"]
    assert token.endswith(site.authority.pin)


async def test_tokens_of_a_root_that_was(site: Site) -> None:
    """Broken: tokens that no node can use any more, for the root was rotated, are handed out to hosts, and nobody has said so."""
    pin = "a" * 64
    tokens = JoinTokens(site.store, lambda: pin, site.clock)
    await tokens.create(["*/*"], 60)
    await tokens.create(["*/*"], 600)
    assert await tokens.unused() == (2, 0)
    pin = "b" * 64
    await tokens.create(["*/*"], 600)
    assert await tokens.unused() == (1, 2)
    site.clock.now += 61
    assert await tokens.unused() == (1, 1)


async def test_old_tokens_are_swept(site: Site) -> None:
    """Would fail if tokens that nobody used stayed in the store for ever."""
    old = await site.tokens.create(["*/*"], 10)
    site.clock.now += 11
    await site.tokens.create(["*/*"], 10)
    items, _ = await site.store.list("_jointokens")
    assert len(items) == 1
    assert await site.store.get(Key("_jointokens", "", old.split(".")[1])) is None


async def test_tokens_that_make_no_sense(site: Site) -> None:
    """Would fail if a mistyped glob or lifetime gave a token that then does not work, or allows too much."""
    for glob in ("default", "*", "a/b/c", ""):
        with pytest.raises(Refused, match="identities"):
            await site.tokens.create([glob], 60)
    for lifetime in (0, -5, 1e10):
        with pytest.raises(Refused, match="lifetime"):
            await site.tokens.create(["*/*"], lifetime)


async def test_the_bundle_is_for_everybody(site: Site) -> None:
    """Would fail if a node could not check, against its token's pin, which control plane it talks to."""
    async with site.session.get(site.server.make_url(PREFIX + "/bundle")) as response:
        body = await response.json()
    assert set(body) == {"bundle", "trust_domain", "signs"}
    assert "PRIVATE" not in body["bundle"]


async def test_bad_requests_are_counted_and_said_once(site: Site) -> None:
    """Broken: a flood of nonsense costs more than a line each, or nobody can see who sends it."""
    token = await site.tokens.create(["*/*"], 60)
    assert (await site.join(token))[0] == 200
    huge = csr() + "x" * (1 << 20)
    with structlog.testing.capture_logs() as logs:
        for body in ({"csr": huge, "identity": REVIEWS}, {"csr": 5}, {"csr": "x", "identity": REVIEWS}):
            async with site.session.post(site.server.make_url(PREFIX + "/sign"), json=body, headers={"as": NODE}) as response:
                assert response.status in (400, 403, 413)
    refused = [entry for entry in logs if entry["event"] == "identity refused"]
    assert [entry["peer"] for entry in refused] == [NODE] * 3
    assert all(entry["why"] for entry in refused)
    assert site.app[COUNTS].refused["sign"] == 3
    assert (await site.sign(REVIEWS, NODE))[0] == 200, "and nothing else is affected"
