"""Secrets at rest: what lies on the disk, who opens it, and what a wrong key says."""

from __future__ import annotations

import base64
import stat
from pathlib import Path

import pytest

from tulle.control.store.memory import MemoryStore
from tulle.control.store.sealed import Keys, SealedStore, sealed_with
from tulle.control.store.sqlite import SqliteStore
from tulle.kit.errors import Corrupt, Refused
from tulle.ports import Cause, Delete, Key, Put

S = Key("secrets", "default", "s")
OTHER = Key("secrets", "default", "other")
TOKEN = Key("_tokens", "", "t")
PLAIN = Key("configmaps", "default", "c")
CANARY = "canary-that-sings-when-it-is-seen"
BODY = {"data": {"password": CANARY}}
BY = Cause("anna", "192.0.2.7", 1.0, "update")


def key(letter: str) -> bytes:
    return letter.encode() * 32


def text(letter: str) -> str:
    return base64.b64encode(key(letter)).decode()


async def test_nothing_of_a_secret_is_on_the_disk(tmp_path: Path) -> None:
    """Whoever gets the disk, or a copy of the file, would have the passwords."""
    store = SealedStore(SqliteStore(tmp_path / "s.db"), Keys([key("a")]))
    await store.write([Put(S, BODY), Put(TOKEN, BODY), Put(PLAIN, {"data": {"seen": "by-everyone"}})], BY)
    await store.write([Put(S, {"data": {"password": CANARY + "2"}})], BY)
    await store.write([Delete(S), Put(OTHER, BODY)], BY)
    assert {one.body["data"]["password"] for one in await store.history(name="s") if one.body} == {CANARY, CANARY + "2"}
    on_disk = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert (tmp_path / "s.db-wal").stat().st_size > 0
    await store.close()
    on_disk += b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert b"by-everyone" in on_disk
    for form in (CANARY.encode(), base64.b64encode(CANARY.encode())[:30]):
        assert form not in on_disk


async def test_rotation() -> None:
    """A new key must not lock out what the old one sealed, and the old one must become dispensable."""
    inside = MemoryStore()
    await inside.write([Put(Key("secrets", "default", "old"), BODY), Put(PLAIN, {})])  # of before there was a key
    await SealedStore(inside, Keys([key("a")])).write([Put(S, BODY), Put(TOKEN, BODY)])
    both = SealedStore(inside, Keys([key("b"), key("a")]))
    assert {one.body["data"]["password"] for one in (await both.list("secrets"))[0]} == {CANARY}
    assert await both.reseal() == 3
    assert await both.reseal() == 0
    only = SealedStore(inside, Keys([key("b")]))
    assert {one.body["data"]["password"] for one in (await only.list("secrets"))[0]} == {CANARY}
    assert {sealed_with(one.body) for one in (await inside.list())[0]} == {"", Keys([key("b")]).first}
    with pytest.raises(Refused) as refused:
        await SealedStore(inside, Keys([key("a")])).list()
    assert Keys([key("b")]).first in refused.value.message
    assert "TULLE_ENCRYPTION_KEY" in refused.value.hint


async def test_a_sealed_body_opens_only_in_its_place() -> None:
    """Who can write the file but not read it could give itself another one's Secret under a name that it may read."""
    inside = MemoryStore()
    store = SealedStore(inside, Keys([key("a")]))
    await store.write([Put(S, BODY)])
    stolen = await inside.get(S)
    assert stolen is not None
    await inside.write([Put(OTHER, stolen.body)])
    with pytest.raises(Corrupt, match="moved"):
        await store.get(OTHER)
    sealed = stolen.body["sealed"]
    changed = {"sealed": {**sealed, "data": sealed["data"][:-8] + "AAAAAAA="}}
    await inside.write([Put(S, changed)])
    with pytest.raises(Corrupt, match="changed"):
        await store.get(S)


def test_keys_as_text() -> None:
    """A key that is read wrongly locks its owner out, and one that is shown in an error is none any more."""
    assert list(Keys.parse(f"# new\n{text('b')}\n\n# old\n{text('a')}\n", "f").ids) == list(Keys([key("b"), key("a")]).ids)
    assert list(Keys.parse(f"{text('b')}, {text('a')}", "f").ids) == list(Keys([key("b"), key("a")]).ids)
    for wrong in (text("a")[:-5], "pass-word!", base64.b64encode(b"x" * 16).decode()):
        with pytest.raises(Refused) as refused:
            Keys.parse(f"{text('b')} {wrong}", "TULLE_ENCRYPTION_KEY")
        assert refused.value.message == "TULLE_ENCRYPTION_KEY: key 2 is none: needed the base64 of 32 bytes"
    with pytest.raises(Refused, match="found no key"):
        Keys.parse("# nothing\n", "f")


def test_the_key_of_a_folder(tmp_path: Path) -> None:
    """The key must be the same at every start, and nobody else's."""
    made = Keys.of_folder(tmp_path / "state")
    path = tmp_path / "state" / "encryption.key"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(Keys.of_folder(tmp_path / "state").ids) == list(made.ids)
    assert list(Keys.of_folder(tmp_path / "other").ids) != list(made.ids)
    path.chmod(0o640)
    with pytest.raises(Refused, match="0640"):
        Keys.of_folder(tmp_path / "state")
    path.chmod(0o600)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(Refused, match="not text"):
        Keys.of_folder(tmp_path / "state")
    with pytest.raises(Refused, match="cannot be read"):
        Keys.read(tmp_path / "absent")
