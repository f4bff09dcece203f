"""Bundles of other trust domains: read from where they are published, and believed only as far as they should be."""

from __future__ import annotations

import asyncio
import json
import ssl
from pathlib import Path
from typing import Any

import msgspec
import pytest
from aiohttp import web

from tests.support.certificates import Roots
from tests.support.mesh import free_port
from tulle.control.bundle_endpoint import BundleEndpoint, WebCertificate
from tulle.control.ca.authority import Authority
from tulle.control.federation import Federation, fetched
from tulle.control.store.memory import MemoryStore
from tulle.core.compile.federation import Federated
from tulle.core.trust_bundle import TrustBundle, document, split
from tulle.kit.errors import Refused, Unavailable

WEST = "west.example"
ENDPOINT = f"spiffe://{WEST}/ns/tulle-system/sa/control-plane"


class West:
    """Another trust domain with its endpoint; `answer` is what it says."""

    def __init__(self, folder: Path) -> None:
        self.authority = Authority.open(folder / "ca", WEST)
        self.bundle = TrustBundle(WEST, split(self.authority.bundle), sequence=7, refresh=1.0)
        self.folder, self.port = folder, free_port()
        self.url = f"https://localhost:{self.port}/"

    def tls(self, identity: str = ENDPOINT, authority: Authority | None = None) -> ssl.SSLContext:
        pair = (authority or self.authority).issue_server(["localhost"], 3600, identity)
        (self.folder / "pair.pem").write_bytes(pair.key + pair.chain)
        made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        made.load_cert_chain(self.folder / "pair.pem")
        return made

    @property
    def spiffe(self) -> Federated:
        return Federated(WEST, document(self.bundle).decode(), self.url, "https_spiffe", ENDPOINT)


@pytest.fixture
def west(tmp_path: Path) -> West:
    return West(tmp_path)


async def served(west: West, answer: Any, tls: ssl.SSLContext) -> web.AppRunner:
    app = web.Application()
    app.router.add_get("/", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "localhost", west.port, ssl_context=tls).start()
    return runner


async def test_an_endpoint_is_known_by_its_spiffe_id(west: West, tmp_path: Path) -> None:
    """Broken: whoever answers at an address is believed; or another workload of the partner's can replace its bundle."""
    endpoint = BundleEndpoint(lambda: west.bundle)
    await endpoint.start("localhost", west.port, west.tls())
    assert await fetched(west.spiffe, {WEST: west.bundle}) == west.bundle
    with pytest.raises(Unavailable, match=r"needed spiffe://west\.example/other"):
        await fetched(msgspec.structs.replace(west.spiffe, spiffe_id=f"spiffe://{WEST}/other"), {WEST: west.bundle})
    with pytest.raises(Unavailable, match=r"no trust bundle of west\.example"):
        await fetched(west.spiffe, {})
    stranger = Authority.open(tmp_path / "stranger", WEST)
    with pytest.raises(Unavailable, match="cannot be read"):
        await fetched(west.spiffe, {WEST: TrustBundle(WEST, split(stranger.bundle))})
    await endpoint.stop()


async def test_an_endpoint_of_the_web(west: West, tmp_path: Path) -> None:
    """Broken: a certificate of anybody, or for another host, would do; a renewed one is not served."""
    authority = Roots()
    files = tmp_path / "web.pem", tmp_path / "web.key"
    for file, data in zip(files, authority.server("localhost"), strict=True):
        file.write_bytes(data)
    endpoint = BundleEndpoint(lambda: west.bundle)
    await endpoint.start("localhost", west.port, WebCertificate(*files).tls)
    wanted = Federated(WEST, "", west.url, "https_web", "", authority.pem.decode())
    assert await fetched(wanted, {}) == west.bundle
    for url, pem in (
        (west.url, ""),
        (west.url, Roots().pem.decode()),
        (f"https://127.0.0.1:{west.port}/", wanted.ca_certificates),
    ):
        with pytest.raises(Unavailable, match="cannot be read"):
            await fetched(msgspec.structs.replace(wanted, url=url, ca_certificates=pem), {})
    with pytest.raises(Unavailable, match="caCertificates"):
        await fetched(msgspec.structs.replace(wanted, ca_certificates="nonsense"), {})
    await endpoint.stop()
    with pytest.raises(Refused, match="bundle endpoint"):
        WebCertificate(tmp_path / "none.pem", tmp_path / "none.key")


async def test_what_is_no_bundle_changes_nothing(west: West) -> None:
    """Broken: an error page, a redirect, a flood or half a bundle would cost the trust that there was."""
    answers: dict[str, Any] = {
        "answers 500": lambda _request: web.Response(status=500),
        "answers 302": lambda _request: web.Response(status=302, headers={"location": "https://elsewhere.example/"}),
        "is not JSON": lambda _request: web.Response(text="<html>"),
        "longer than": lambda _request: web.Response(body=b" " * (2**20 + 1)),
        "keys: found none": lambda _request: web.json_response({}),
        "exactly one certificate": lambda _request: web.json_response({"keys": [{"use": "x509-svid"}]}),
    }
    asked = {"words": ""}

    async def answer(request: web.Request) -> web.Response:
        made: web.Response = answers[asked["words"]](request)
        return made

    runner = await served(west, answer, west.tls())
    for words in answers:
        asked["words"] = words
        with pytest.raises(Unavailable, match=words):
            await fetched(west.spiffe, {WEST: west.bundle})
    await runner.cleanup()


async def test_what_was_believed_holds_over_outages_and_restarts(west: West) -> None:
    """Broken: while a partner is away, or after a start, its workloads would be cut off; or a removed entry is believed on."""
    store, used = MemoryStore(), asyncio.Queue[dict[str, TrustBundle]]()
    wanted: list[tuple[Federated, ...]] = [(west.spiffe,)]

    def made() -> Federation:
        return Federation(store, lambda: wanted[0], lambda bundles: used.put_nowait(dict(bundles)))

    newer = TrustBundle(WEST, (*west.bundle.authorities, Roots().pem.decode()), sequence=8, refresh=1.0)
    said = [newer]

    async def answer(_request: web.Request) -> web.Response:
        return web.Response(body=document(said[0]), content_type="application/json")

    runner = await served(west, answer, west.tls())
    first = made()
    running = asyncio.create_task(first.run())
    assert await asyncio.wait_for(used.get(), 5) == {WEST: west.bundle}, "what the configuration says, to begin with"
    assert await asyncio.wait_for(used.get(), 5) == {WEST: newer}
    (shown,) = first.status()
    assert (shown.sequence, shown.authorities, shown.error) == (8, 2, "")
    running.cancel()
    await runner.cleanup()

    second = made()
    await second.begin()
    assert used.get_nowait() == {WEST: newer}, "kept, though nobody answers"
    running = asyncio.create_task(second.run())
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.3):
            await used.get()
    assert "cannot be read" in second.status()[0].error
    wanted[0] = ()
    second.look()
    assert await asyncio.wait_for(used.get(), 5) == {}
    running.cancel()
    changed = made()
    wanted[0] = (msgspec.structs.replace(west.spiffe, url="https://localhost:1/"),)
    await changed.begin()
    assert used.get_nowait() == {WEST: west.bundle}, "another configuration begins anew"
    assert json.loads(document(west.bundle))["spiffe_sequence"] == 7
