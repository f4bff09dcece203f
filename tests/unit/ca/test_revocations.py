"""Identities that are taken back."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.unit.ca.test_authority import WORKLOAD
from tests.unit.ca.test_join import NODE, REVIEWS, Site
from tulle.control.ca.http import identity_app
from tulle.control.ca.ledger import Issued, Ledger
from tulle.control.ca.revocations import Revocations
from tulle.control.ca.signer import OwnSigner
from tulle.control.revocations_api import spiffe_id
from tulle.control.store.memory import MemoryStore
from tulle.core.compile.revoked import Revoked
from tulle.core.pipeline import Pipeline
from tulle.kit.errors import Refused

CERTIFICATE = Issued("default/a", WORKLOAD, "n", "abc", "CN=x", "s", "d1", issued=0.0, not_after=9e9)


async def test_nothing_is_signed_for_it_by_any_control_plane(tmp_path: Path) -> None:
    """Broken: a control plane that has not heard of the revocation yet goes on giving the thief certificates."""
    site = Site(tmp_path / "ca")
    revocations = Revocations(site.store, "cluster.local", site.clock)
    site.app = identity_app(OwnSigner(site.authority), site.tokens, site.store, clock=site.clock, revocations=revocations)
    other = Revocations(site.store, "cluster.local", site.clock)
    async with site:
        assert (await site.join(await site.tokens.create(["default/*"], 60)))[0] == 200
        assert (await site.sign(REVIEWS, NODE))[0] == 200
        await other.revoke(REVIEWS, "ada", "stolen")
        status, body = await site.sign(REVIEWS, NODE)
        assert (status, body["message"]) == (403, f"identity: {REVIEWS} is revoked")
        assert (await site.sign(REVIEWS, REVIEWS))[0] == 403, "not to the thief either"
        assert (await site.sign("spiffe://cluster.local/ns/default/sa/other", NODE))[0] == 200
        await other.restore(REVIEWS)
        assert (await site.sign(REVIEWS, NODE))[0] == 200
        await other.revoke(NODE, "ada")
        assert (await site.sign(REVIEWS, NODE))[0] == 403
        token = await site.tokens.create(["default/*"], 60)
        assert (await site.join(token))[0] == 403, "it does not come back by a token either"


async def test_what_is_revoked_is_followed() -> None:
    """Broken: proxies or the API server do not hear of it, or hear of a certificate as if it were the whole identity."""
    store = MemoryStore()
    first, second = (Revocations(store, "cluster.local", lambda: 100.0) for _ in range(2))
    heard = asyncio.Event()
    following = asyncio.create_task(second.run(heard.set))

    async def news() -> None:
        await asyncio.wait_for(heard.wait(), 5)
        heard.clear()

    await news()
    await first.revoke(WORKLOAD, "ada", certificate=CERTIFICATE, cut=False)
    await news()
    assert second.is_revoked(WORKLOAD, "0ABC")
    assert not second.is_revoked(WORKLOAD, "abd")
    assert not second.is_revoked("", "")
    assert second.cut == 0
    await first.revoke(WORKLOAD, "ada")
    while not second.is_revoked(WORKLOAD, "abd"):
        await news()
    while not second.cut:
        await news()
    await first.restore(WORKLOAD)
    with pytest.raises(Refused, match="is not revoked"):
        await first.restore(WORKLOAD)
    while second.is_revoked(WORKLOAD, "abd"):
        await news()
    assert second.is_revoked(WORKLOAD, "abc"), "the certificate stays revoked"
    following.cancel()
    with pytest.raises(Refused, match="without the control plane's own"):
        await first.revoke("spiffe://cluster.local/ns/tulle-system/sa/control-plane", "ada")
    with pytest.raises(Refused, match="identity"):
        await first.revoke("spiffe://other/ns/a/sa/b", "ada")


async def test_certificates_of_before_are_known() -> None:
    """Broken: the thief has the certificate before the last, and nobody can say its number."""
    store = MemoryStore()
    ledger, events = Ledger(store), store.watch(0, "_certificates")
    writing = asyncio.create_task(ledger.run())
    for number in ("1", "2", "3"):
        ledger.note(Issued("default/a", WORKLOAD, "n", number, "CN=x", "s", f"d{number}", float(number), float(number) + 1.5))
        await asyncio.wait_for(anext(events), 5)
    (one,) = await ledger.all()
    assert one.older == {"2": ("d2", 3.5)}, "the first has ended"
    writing.cancel()


def test_people_write_identities_in_their_ways() -> None:
    """Broken: a typing mistake revokes somebody else, or nobody."""
    assert spiffe_id("shop/web", "t") == "spiffe://t/ns/shop/sa/web"
    assert spiffe_id("node:host-1", "t") == "spiffe://t/node/host-1"
    assert spiffe_id(WORKLOAD, "t") == WORKLOAD
    for said in ("", "web", "/web", "shop/"):
        with pytest.raises(Refused, match="needed NAMESPACE/SERVICEACCOUNT"):
            spiffe_id(said, "t")


def test_every_guard_denies_it() -> None:
    """Broken: a proxy without a policy of its own lets a revoked identity in."""
    pipeline = Pipeline()
    pipeline.commit({})
    published = pipeline.take_revoked(Revoked((WORKLOAD,), ("ab" * 32,), 7))
    changed = published.changed["unguarded"]
    bytes_of = {name: one.value for names in changed.values() for name, one in names.items() if one is not None}
    assert {name for name, value in bytes_of.items() if WORKLOAD.encode() in value} == {
        "authz-deny-http",
        "authz-deny-tcp",
        "authz-early",
    }
    assert b"sha256_peer_certificate_digest" in bytes_of["authz-deny-tcp"]
    pipeline.take_revoked(Revoked(cut=7))
    assert WORKLOAD.encode() not in pipeline.table("unguarded", next(iter(changed)))["authz-deny-http"].value
