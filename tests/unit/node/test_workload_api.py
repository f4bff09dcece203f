"""The Workload API with the client that people use: who is served what, and what is pushed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import grpc
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from spiffe import WorkloadApiClient

from tulle.control.ca.authority import Authority
from tulle.control.ca.jwt_keys import JwtKeys
from tulle.control.store.memory import MemoryStore
from tulle.core.trust_bundle import TrustBundle, public_key, split
from tulle.kit.errors import Refused
from tulle.node.attestation import Peer
from tulle.node.identity import DEFAULT_KEY_TYPE, Identity, _identity, _request
from tulle.node.jwt_svids import validate
from tulle.node.news import News
from tulle.node.workload_api import WorkloadApi
from tulle.pb.workload_api import HEADER, SERVICE, message

CART = "spiffe://cluster.local/ns/shop/sa/cart"
PAY = "spiffe://cluster.local/ns/shop/sa/pay"
HEADERS = ((HEADER, "true"),)


class Kept:
    """An identity, and nothing that renews it."""

    def __init__(self, current: Identity | None = None) -> None:
        self.current = current


class Node:
    """What the API needs of a node: an authority of its own, bundles, tokens, and processes that are who this test says."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.authority = Authority.open(folder / "ca")
        self.news, self.asked = News(), asyncio.Event()
        self.kept: list[Kept] = []
        self.peers: list[Peer] = []
        self.others: dict[str, TrustBundle] = {}
        self.refused = 0

    async def open(self) -> None:
        self.keys = await JwtKeys.open(MemoryStore())
        self.socket = self.folder / "api.sock"
        self.api = WorkloadApi(
            self.socket,
            self.folder / "inner.sock",
            self.entitled,
            self,  # type: ignore[arg-type]
            self,  # type: ignore[arg-type]
            self.news,
        )
        await self.api.start()

    def entitled(self, peer: Peer) -> Sequence[Any]:
        self.peers.append(peer)
        if self.kept:
            self.asked.set()
        return self.kept

    def issue(self, name: str) -> Identity:
        key, csr = _request(name, DEFAULT_KEY_TYPE)
        chain = self.authority.sign(csr.encode(), name, 60)
        return _identity(key, {"chain": chain.decode(), "bundle": self.authority.bundle.decode()})

    # As TrustBundles and JwtSvids have it.

    def of(self, identity: Identity) -> TrustBundle:
        return TrustBundle(identity.trust_domain, split(self.authority.bundle), self.keys.public)

    def foreign(self, _trust_domain: str) -> dict[str, TrustBundle]:
        return self.others

    async def fetch(self, name: str, audience: Sequence[str]) -> str:
        return self.keys.sign(name, audience)[0]

    def client(self) -> WorkloadApiClient:
        return WorkloadApiClient(f"unix://{self.socket}")


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[Node]:
    made = Node(tmp_path)
    await made.open()
    yield made
    await made.api.close()


async def test_svids_bundles_and_tokens(node: Node) -> None:
    """Broken: the client of the standard's own people does not understand what is said, or is told of an identity too few."""
    node.kept = [Kept(node.issue(CART)), Kept(node.issue(PAY))]
    other = Authority.open(node.folder / "other", "other.example")
    node.others = {"other.example": TrustBundle("other.example", split(other.bundle))}

    def ask() -> None:
        with node.client() as client:
            assert [str(one.spiffe_id) for one in client.fetch_x509_svids()] == [CART, PAY]
            bundles = client.fetch_x509_bundles().bundles
            assert {str(one.trust_domain) for one in bundles} == {"cluster.local", "other.example"}
            keys = client.fetch_jwt_bundles().bundles
            assert {str(one.trust_domain) for one in keys} == {"cluster.local"}, "the other one has no keys for tokens"
            token = client.fetch_jwt_svid(audience={"bank"})
            assert str(client.validate_jwt_svid(token.token, "bank").spiffe_id) == CART
            tokens = client.fetch_jwt_svids(audience={"bank"})
            assert [str(one.spiffe_id) for one in tokens] == [CART, PAY]

    await asyncio.to_thread(ask)
    assert {peer.alive for peer in node.peers} == {True}


async def test_a_rotation_is_pushed_and_a_lost_identity_ends_the_stream(node: Node) -> None:
    """Broken: an application would go on with a certificate that has ended, or with an identity that it may not have any more."""
    node.kept = [Kept(node.issue(CART))]
    async with grpc.aio.insecure_channel(f"unix:{node.socket}") as channel:
        method = channel.unary_stream(f"/{SERVICE}/FetchX509SVID", response_deserializer=message("X509SVIDResponse").FromString)
        stream = method(b"", metadata=HEADERS)
        first = await stream.read()
        assert first.svids[0].spiffe_id == CART
        node.news.tell()  # of something else: nothing is sent for it
        node.kept[0].current = node.issue(CART)
        node.news.tell()
        second = await asyncio.wait_for(stream.read(), 5)
        assert second.svids[0].x509_svid != first.svids[0].x509_svid
        assert second.svids[0].bundle == first.svids[0].bundle
        node.kept = []
        node.news.tell()
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await asyncio.wait_for(stream.read(), 5)
        assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED
        assert node.refused


@pytest.mark.parametrize(
    ("method", "request_", "metadata", "code"),
    [
        ("FetchX509Bundles", {}, (), grpc.StatusCode.INVALID_ARGUMENT),
        ("FetchJWTBundles", {}, ((HEADER, "True"),), grpc.StatusCode.INVALID_ARGUMENT),
        ("FetchJWTSVID", {}, HEADERS, grpc.StatusCode.INVALID_ARGUMENT),
        ("FetchJWTSVID", {"audience": ["a b"]}, HEADERS, grpc.StatusCode.INVALID_ARGUMENT),
        ("FetchJWTSVID", {"audience": ["a"], "spiffe_id": PAY}, HEADERS, grpc.StatusCode.PERMISSION_DENIED),
        ("ValidateJWTSVID", {"audience": "a", "svid": "nonsense"}, HEADERS, grpc.StatusCode.INVALID_ARGUMENT),
        ("FetchWITSVID", {}, HEADERS, grpc.StatusCode.UNIMPLEMENTED),
    ],
)
async def test_what_is_refused(
    node: Node, method: str, request_: dict[str, Any], metadata: Sequence[tuple[str, str]], code: grpc.StatusCode
) -> None:
    """Broken: a call that the standard forbids is answered, or with a code that clients take for something else."""
    node.kept = [Kept(node.issue(CART))]
    body = message(f"{method.removeprefix('Fetch')}Request")(**request_).SerializeToString() if "WIT" not in method else b""
    async with grpc.aio.insecure_channel(f"unix:{node.socket}") as channel:
        call = channel.unary_stream(f"/{SERVICE}/{method}")(body, metadata=metadata)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await asyncio.wait_for(call.read(), 5)
    assert caught.value.code() is code, caught.value.details()


async def test_who_has_no_identity_is_told_so_and_who_waits_for_one_gets_it(node: Node) -> None:
    """Broken: strangers get identities; or a process that starts with its node is told that it has none, and gives up."""

    async with grpc.aio.insecure_channel(f"unix:{node.socket}") as channel:
        method = channel.unary_stream(f"/{SERVICE}/FetchX509SVID", response_deserializer=message("X509SVIDResponse").FromString)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await method(b"", metadata=HEADERS).read()
        assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED
        node.kept = [Kept()]
        waiting = asyncio.ensure_future(method(b"", metadata=HEADERS).read())
        await node.asked.wait()
        node.kept[0].current = node.issue(CART)
        node.news.tell()
        assert (await asyncio.wait_for(waiting, 5)).svids[0].spiffe_id == CART


def test_tokens_of_others_are_checked() -> None:
    """Broken: a token that is forged, old, meant for others, or signed by nobody would be taken."""
    key, wrong = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    bundle = TrustBundle("cluster.local", keys=({**public_key(key.public_key()), "kid": "k"},))
    good: dict[str, Any] = {"sub": CART, "aud": ["bank"], "exp": 4e9}

    def token(claims: dict[str, Any], signer: Any = key, algorithm: str = "ES256", **header: str) -> str:
        return jwt.encode(claims, signer, algorithm=algorithm, headers={"kid": "k", **header})

    assert validate(token(good), "bank", [bundle])["sub"] == CART
    public = jwt.PyJWK({**bundle.keys[0], "alg": "ES256"}).Algorithm.to_jwk(key.public_key())
    refused = {
        "another audience": token({**good, "aud": ["shop"]}),
        "expired": token({**good, "exp": 1}),
        "not valid": token({"sub": CART, "aud": ["bank"]}),
        "algorithm 'none'": token(good, None, "none"),
        "algorithm 'HS256'": jwt.encode(good, str(public) + "-" * 64, algorithm="HS256", headers={"kid": "k"}),
        r"type 'at\+jwt'": token(good, typ="at+jwt"),
        "with no key": token(good, kid="other"),
        "no SPIFFE ID": token({**good, "sub": "admin"}),
        "longer than": "x" * 20_000,
        "not a signed JWT": "a.b.c",
    }
    for words, one in refused.items():
        with pytest.raises(Refused, match=words):
            validate(one, "bank", [bundle])
    with pytest.raises(Refused, match="not valid"):
        validate(token(good, wrong), "bank", [bundle])
    with pytest.raises(Refused, match=r"trust domain cluster\.local"):
        validate(token(good), "bank", [TrustBundle("other.example", keys=bundle.keys)])
    with pytest.raises(Refused, match="audience"):
        validate(token(good), "", [bundle])
