"""Backups: what is in them, what is not, and that a damaged one is known as such."""

from __future__ import annotations

import base64
import gzip
import json
import random
from pathlib import Path
from typing import Any

import pytest

from tulle.control.store import backup
from tulle.control.store.memory import MemoryStore
from tulle.control.store.sealed import Keys, SealedStore
from tulle.kit.errors import Corrupt, Refused, Unavailable
from tulle.ports import Cause, Key, Put

KEYS = Keys([b"k" * 32])
CANARY = "canary-that-sings-when-it-is-seen"
BODIES: dict[Key, dict[str, Any]] = {
    Key("services", "default", "a"): {"n": 1, "text": "ü\n\r\u2028"},
    Key("secrets", "default", "s"): {"data": {"password": CANARY}},
    Key("_tokens", "", "t"): {"hash": CANARY},
}


async def filled() -> SealedStore:
    store = SealedStore(MemoryStore(), KEYS)
    await store.write([Put(key, body) for key, body in BODIES.items()], Cause("anna", "", 1.0))
    lease = await store.grant(1000)
    await store.write([Put(Key("_leader", "", "l"), {}, lease=lease)])
    return store


async def saved(path: Path, store: SealedStore, files: dict[str, bytes] | None = None) -> Path:
    pieces = backup.written(store.inside, KEYS, "mesh.example", files or {}, clock=lambda: 1000.0)
    path.write_bytes(b"".join([piece async for piece in pieces]))
    return path


async def test_all_of_it_comes_back(tmp_path: Path) -> None:
    """What is not in a backup is found out on the worst day."""
    store = await filled()
    path = await saved(tmp_path / "b", store, {"ca/roots.json": CANARY.encode()})
    found = backup.read(path)
    assert (found.header.revision, found.header.time, found.header.trust_domain) == (2, 1000.0, "mesh.example")
    assert list(found.header.keys) == list(KEYS.ids)
    assert found.opened(KEYS) == {"ca/roots.json": CANARY.encode()}
    other = MemoryStore()
    await other.write(
        [Put(Key("services", "default", "gone"), {}), Put(Key("services", "default", "a"), {})], Cause("x", "", 1.0)
    )
    revision = await backup.restore(found, other)
    restored, at = await SealedStore(other, KEYS).list()
    assert {one.key: one.body for one in restored} == BODIES  # and nothing of a lease, whose holder is not restored
    assert at == revision
    assert await other.history() == []


async def test_no_secret_is_in_it(tmp_path: Path) -> None:
    """Backups lie around; whoever finds one must not find passwords, nor the key of the certificate authority."""
    path = await saved(tmp_path / "b", await filled(), {"ca/roots.json": CANARY.encode()})
    text = gzip.decompress(path.read_bytes())
    assert b'"text":' in text
    for form in (CANARY.encode(), base64.b64encode(CANARY.encode())[:24]):
        assert form not in text
    with pytest.raises(Refused):
        backup.read(path).opened(Keys([b"o" * 32]))


async def test_it_is_a_snapshot(tmp_path: Path) -> None:
    """What is written while the backup is taken would be half in it."""
    store = SealedStore(MemoryStore(), KEYS)
    body = {"text": "x" * 5000}
    await store.write([Put(Key("services", "default", str(n)), body) for n in range(500)])
    pieces, seen = backup.written(store.inside, KEYS, "", {}), []
    async for piece in pieces:
        seen.append(piece)
        await store.write([Put(Key("services", "default", str(n)), {"text": "later"}) for n in range(500)])
    assert len(seen) > 2
    (tmp_path / "b").write_bytes(b"".join(seen))
    found = backup.read(tmp_path / "b")
    assert len(found.objects) == 500
    assert {json.loads(one)["text"] for _, one in found.objects} == {body["text"]}


async def test_damage_is_known(tmp_path: Path) -> None:
    """A backup that is read in part, or with another bit, restores a mesh that never was."""
    path = await saved(tmp_path / "b", await filled(), {"f": b"x"})
    whole, right, dice = path.read_bytes(), backup.read(path), random.Random(5)
    harmless = 0
    for _ in range(200):
        data = bytearray(whole)
        if dice.random() < 0.4:
            del data[dice.randrange(len(data)) :]
        else:
            data[dice.randrange(len(data))] ^= 1 << dice.randrange(8)
        path.write_bytes(data)
        try:
            found = backup.read(path)
        except (Corrupt, Refused):
            continue
        assert found == right  # a bit of gzip's header, or of what fills its last byte, says nothing
        harmless += 1
    assert harmless < 20
    for extra in (b"x", whole):
        path.write_bytes(whole + extra)
        with pytest.raises(Corrupt, match="after its end"):
            backup.read(path)


def lines(path: Path) -> list[bytes]:
    return gzip.decompress(path.read_bytes()).splitlines()


async def test_what_was_taken_out_by_hand_is_missed(tmp_path: Path) -> None:
    """The checksum is over all of it, so that no line can be lost without being missed."""
    path = await saved(tmp_path / "b", await filled())
    text = lines(path)
    del text[1]
    path.write_bytes(gzip.compress(b"\n".join(text) + b"\n"))
    with pytest.raises(Corrupt, match="checksum"):
        backup.read(path)


async def test_what_is_none_of_ours_is_said(tmp_path: Path) -> None:
    """The wrong file must not be taken for a damaged one, nor a newer one be misread."""
    path = tmp_path / "b"
    path.write_bytes(gzip.compress(b"hello\n"))
    with pytest.raises(Refused, match="no backup"):
        backup.read(path)
    await saved(path, await filled())
    text = lines(path)
    text[0] = json.dumps({**json.loads(text[0]), "version": 2}).encode()
    path.write_bytes(gzip.compress(b"\n".join(text) + b"\n"))
    with pytest.raises(Refused, match="version 2; this tulle knows 1"):
        backup.read(path)
    path.write_bytes(b"not compressed")
    with pytest.raises(Corrupt, match="damaged"):
        backup.read(path)
    with pytest.raises(Unavailable, match="cannot be read"):
        backup.read(tmp_path / "absent")
