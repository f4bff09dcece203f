"""A node's identities, from a real authority over real TLS, and on a real disk."""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import msgspec
import pytest
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from tests.support.envoy import envoy_path
from tulle.control.asking import IDENTITY
from tulle.control.ca.authority import Authority
from tulle.control.ca.http import PREFIX, identity_app
from tulle.control.ca.signer import OwnSigner
from tulle.control.ca.tokens import JoinTokens
from tulle.control.store.memory import MemoryStore
from tulle.kit.errors import Refused, TulleError, Unavailable
from tulle.node.identity import Identity, IdentityClient, Kept, context, retry_delay

NODE = "spiffe://cluster.local/node/here"
REVIEWS = "spiffe://cluster.local/ns/default/sa/reviews"


class ControlPlane:
    """The identity part of one, on a port of its own; `start` and `stop` as often as a test likes."""

    def __init__(self, folder: Path, lifetime: float = 3600.0) -> None:
        self.authority = Authority.open(folder)
        self.store = MemoryStore()
        self.tokens = JoinTokens(self.store, lambda: self.authority.pin)
        self.lifetime = lifetime
        self.port = 0
        self.asked = 0
        self._folder = folder
        self._runner: web.AppRunner | None = None

    @property
    def client(self) -> IdentityClient:
        return IdentityClient(f"127.0.0.1:{self.port}")

    async def token(self) -> str:
        return await self.tokens.create(["default/*"], 60.0)

    async def start(self) -> None:
        @web.middleware
        async def front(
            request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
        ) -> web.StreamResponse:
            assert request.transport is not None
            peer = request.transport.get_extra_info("peercert") or {}
            request[IDENTITY] = next((value for kind, value in peer.get("subjectAltName", ()) if kind == "URI"), "")
            self.asked += 1
            return await handler(request)

        app = web.Application(middlewares=[front])
        app.add_subapp(PREFIX, identity_app(OwnSigner(self.authority), self.tokens, self.store, self.lifetime))
        pair = self.authority.issue_server(["127.0.0.1"], 3600.0)
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        (self._folder / "server.pem").write_bytes(pair.key + pair.chain)
        tls.load_cert_chain(self._folder / "server.pem")
        tls.verify_mode = ssl.CERT_OPTIONAL
        tls.load_verify_locations(cadata=self.authority.bundle.decode())
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self.port, ssl_context=tls)
        await site.start()
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None


@pytest.fixture
async def plane(tmp_path: Path) -> AsyncIterator[ControlPlane]:
    made = ControlPlane(tmp_path / "ca")
    await made.start()
    yield made
    await made.stop()


async def joined(plane: ControlPlane) -> Identity:
    return await plane.client.join(await plane.token(), "here")


async def test_joins_and_signs_for_its_workloads(plane: ControlPlane) -> None:
    """A node would not get into the mesh, or its workloads would have no identity of their own."""
    own = await joined(plane)
    assert own.name == NODE
    assert own.trust_domain == "cluster.local"
    workload = await plane.client.sign(own, REVIEWS)
    assert workload.name == REVIEWS
    assert workload.key != own.key
    assert workload.bundle.encode() == plane.authority.bundle
    assert time.time() < workload.not_after <= time.time() + 3600.0
    again = await plane.client.sign(own, NODE)
    assert again.name == NODE
    assert again.key != own.key, "a renewal has a new key"


@pytest.mark.parametrize(
    ("kind", "size"), [("ecdsa-p256", 256), ("ecdsa-p384", 384), ("rsa-2048", 2048)], ids=["ecdsa-p256", "ecdsa-p384", "rsa-2048"]
)
async def test_keys_of_every_kind(plane: ControlPlane, kind: str, size: int, tmp_path: Path) -> None:
    """Broken: who has to have keys of another kind would get none, or such as no proxy can take."""
    client = IdentityClient(f"127.0.0.1:{plane.port}", kind)
    workload = await client.sign(await client.join(await plane.token(), "here"), REVIEWS)
    key = x509.load_pem_x509_certificate(workload.chain.encode()).public_key()
    assert isinstance(key, rsa.RSAPublicKey if kind.startswith("rsa") else ec.EllipticCurvePublicKey)
    assert key.key_size == size
    pair = {"certificate_chain": {"inline_string": workload.chain}, "private_key": {"inline_string": workload.key}}
    tls = {
        "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
        "common_tls_context": {"tls_certificates": [pair]},
    }
    chain = {"transport_socket": {"name": "tls", "typed_config": tls}}
    address = {"socket_address": {"address": "127.0.0.1", "port_value": 0}}
    file = tmp_path / "envoy.json"
    file.write_text(json.dumps({"static_resources": {"listeners": [{"address": address, "filter_chains": [chain]}]}}))
    envoy = await asyncio.create_subprocess_exec(
        *(envoy_path(), "--mode", "validate", "-c", str(file)), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    said, _ = await envoy.communicate()
    assert envoy.returncode == 0, said.decode()


def test_a_kind_of_keys_that_is_none() -> None:
    """Broken: a mistyped setting would be found where the first key is made, or make a weak one."""
    with pytest.raises(Refused, match="found 'rsa-1024', needed one of ecdsa-p256"):
        IdentityClient("127.0.0.1:1", "rsa-1024")


async def test_only_the_pinned_root_is_believed(plane: ControlPlane, tmp_path: Path) -> None:
    """Who sits between a node and the control plane would get the token, and could hand out identities of its own."""
    other = ControlPlane(tmp_path / "other")
    other.port = 0
    await other.start()
    token = await plane.token()
    asked = other.asked
    with pytest.raises(Refused, match="root that the join token names"):
        await other.client.join(token, "here")
    assert other.asked == asked + 1, "it was asked for its root, and was not sent the token"
    await other.stop()
    assert (await plane.client.join(token, "here")).name == NODE, "the token is unused"


@pytest.mark.parametrize("token", ["", "tulle.a.b", "secret"])
async def test_what_is_not_a_token(plane: ControlPlane, token: str) -> None:
    """A mistyped token would be sent somewhere, or fail without saying why."""
    with pytest.raises(Refused, match="not a join token"):
        await plane.client.join(token, "here")


async def test_refusals_are_told_from_outages(plane: ControlPlane) -> None:
    """A node would try a used token for ever, or give up because the control plane restarts."""
    token = await plane.token()
    own = await plane.client.join(token, "here")
    with pytest.raises(Refused):
        await plane.client.join(token, "here")
    with pytest.raises(Refused, match="default/\\*"):
        await plane.client.sign(own, "spiffe://cluster.local/ns/kube-system/sa/admin")
    await plane.stop()
    with pytest.raises(Unavailable):
        await plane.client.sign(own, REVIEWS)


async def test_a_control_plane_of_another_mesh_is_refused(plane: ControlPlane, tmp_path: Path) -> None:
    """A node would present its certificate, and send its requests, to whoever took over the address."""
    own = await joined(plane)
    other = ControlPlane(tmp_path / "other")
    await other.start()
    with pytest.raises(TulleError):
        await other.client.sign(own, REVIEWS)
    assert other.asked == 0
    await other.stop()


async def test_works_from_disk_without_a_control_plane(plane: ControlPlane, tmp_path: Path) -> None:
    """A workload could not start while the control plane is away."""
    own = await joined(plane)
    path = tmp_path / "w" / "identity.json"
    used: list[Identity] = []
    first = await Kept(path, lambda: plane.client.sign(own, REVIEWS), used.append).open(REVIEWS)
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    await plane.stop()
    assert await Kept(path, lambda: plane.client.sign(own, REVIEWS), used.append).open(REVIEWS) == first
    assert used == [first, first]
    with pytest.raises(Unavailable):
        await Kept(path, lambda: plane.client.sign(own, REVIEWS), used.append).open(REVIEWS + "2")


async def test_an_expired_certificate_is_not_used(plane: ControlPlane, tmp_path: Path) -> None:
    """A workload would start with a certificate that every peer refuses, and nothing would say so."""
    own = await joined(plane)
    path = tmp_path / "identity.json"
    msgspec.structs.replace(await plane.client.sign(own, REVIEWS), not_after=time.time() - 1).save(path)
    asked = plane.asked
    renewed = await Kept(path, lambda: plane.client.sign(own, REVIEWS), lambda identity: None).open(REVIEWS)
    assert plane.asked == asked + 1
    assert renewed.valid(time.time())
    assert Identity.load(path) == renewed


@pytest.mark.parametrize("content", [b"", b"{", b"{}", b'{"key": 1}'])
async def test_a_damaged_file_is_replaced(plane: ControlPlane, tmp_path: Path, content: bytes) -> None:
    """A node would not start after a disk lost what was written."""
    own = await joined(plane)
    path = tmp_path / "identity.json"
    path.write_bytes(content)
    assert (await Kept(path, lambda: plane.client.sign(own, REVIEWS), lambda identity: None).open(REVIEWS)).name == REVIEWS


async def test_renews_at_half_life_and_outlasts_an_outage(plane: ControlPlane, tmp_path: Path) -> None:
    """Certificates would stop rotating, at the latest after the first failure, and connections fail when they expire."""
    own = await joined(plane)
    await plane.stop()
    plane.lifetime = 8.0
    await plane.start()
    used: asyncio.Queue[Identity] = asyncio.Queue()
    kept = Kept(tmp_path / "identity.json", lambda: plane.client.sign(own, REVIEWS), used.put_nowait)
    first = await kept.open(REVIEWS)
    assert used.get_nowait() == first
    await plane.stop()
    renewing = asyncio.create_task(kept.run())
    try:
        async with asyncio.timeout(first.not_after - time.time()):
            while not kept.error:  # noqa: ASYNC110 - it is a field, to be read
                await asyncio.sleep(0.01)
            assert time.time() > first.issued + 0.45 * (first.not_after - first.issued)
            await plane.start()
            second = await used.get()
        assert second.key != first.key
        assert kept.current == second
        assert not kept.error
    finally:
        renewing.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await renewing


def test_times_of_renewal() -> None:
    """All certificates of a mesh would be renewed at the same moment, or some only after they expired."""
    identity = Identity("", "", "", "", "", issued=1000.0, not_after=2000.0)
    assert identity.renew_at(0.0) == 1450.0
    assert identity.renew_at(1.0) == 1550.0
    assert [retry_delay(attempt, 1e6) for attempt in (1, 2, 3, 12)] == [1.0, 2.0, 4.0, 300.0]
    assert retry_delay(12, 80.0) == 10.0, "more often near the end"
    assert retry_delay(12, -5.0) == 1.0


async def test_keys_do_not_show(plane: ControlPlane) -> None:
    """A log line or a traceback would contain a private key."""
    own = await joined(plane)
    assert "PRIVATE" not in repr(own)
    assert "PRIVATE" not in str(own)
    assert isinstance(x509.load_pem_x509_certificates(own.chain.encode())[0], x509.Certificate)
    assert context(own).verify_mode is ssl.CERT_REQUIRED
