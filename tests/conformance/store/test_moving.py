"""A mesh that moves: from the file of one control plane into the etcd that several share, and back."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest

from tests.support.etcd import EtcdCluster
from tulle.app.backup import offline, restore, restore_shared
from tulle.app.settings import ControlPlaneSettings
from tulle.app.stores import open_store
from tulle.control.ca.authority import Authority
from tulle.control.ca.shared import SharedAuthority
from tulle.control.members import Member, Members
from tulle.control.store import backup
from tulle.control.store.sealed import Keys, SealedStore
from tulle.control.store.sqlite import SqliteStore
from tulle.kit.errors import Refused
from tulle.ports import Key, Put

SECRET = b"k" * 32
A, S = Key("services", "default", "a"), Key("secrets", "default", "s")


async def test_to_etcd_and_back(tmp_path: Path) -> None:
    """Objects, secrets and the identity of the mesh would be lost on the way, or a mesh that is there be written over."""
    state, back, file = tmp_path / "state", tmp_path / "back", tmp_path / "b"
    key = tmp_path / "key"
    key.touch(0o600)
    key.write_text(base64.b64encode(SECRET).decode())
    keys = Keys([SECRET])
    authority = Authority.open(state / "ca", seal=keys)
    store = SealedStore(SqliteStore(state / "store.db"), keys)
    await store.write([Put(A, {"n": 1}), Put(S, {"n": 2})])
    await store.close()
    file.write_bytes(b"".join([piece async for piece in offline(state, keys, with_authority=True)]))

    cluster = EtcdCluster(tmp_path / "etcd")
    cluster.start()
    try:
        settings = ControlPlaneSettings(state_dir=tmp_path / "none", store=cluster.url(), encryption_key_file=key)
        done = await restore_shared(file, settings, force=False)
        assert (done.objects, done.aside, done.authority) == (2, (), True)
        with pytest.raises(Refused, match="there is something in it already"):
            await restore_shared(file, settings, force=False)
        etcd, _ = open_store(settings)
        assert [(await etcd.get(one)).body for one in (A, S)] == [{"n": 1}, {"n": 2}]  # type: ignore[union-attr]
        assert (await SharedAuthority.open(etcd)).authority.bundle == authority.bundle
        await etcd.write([Put(A, {"n": 3})])
        again = tmp_path / "again"
        again.write_bytes(b"".join([piece async for piece in backup.written(etcd.inside, keys, "cluster.local", {})]))

        lease = await etcd.grant(60)
        running = Members(etcd, Member("a", "127.0.0.1:1", "127.0.0.1:2", "0", 0.0))
        await etcd.write([Put(Key("_controlplanes", "", running.own.name), {"name": "a"}, lease=lease)])
        with pytest.raises(Refused, match="a control plane runs on it: a"):
            await restore_shared(file, settings, force=True)
        await etcd.revoke(lease)

        done = await restore_shared(file, settings, force=True, now=1_800_000_000.0)
        assert [path.name for path in done.aside] == ["b.before-20270115T080000Z"]
        kept = dict(backup.read(done.aside[0]).objects)
        assert kept[A] == b'{"n":3}'
        assert (await etcd.get(A)).body == {"n": 1}  # type: ignore[union-attr]
        await etcd.close()
    finally:
        cluster.stop()

    done = await restore(again, back, keys, force=False)
    assert done.authority
    assert Authority.open(back / "ca", seal=keys).bundle == authority.bundle
    store = SealedStore(SqliteStore(back / "store.db"), keys)
    assert {one.key: one.body for one in (await store.list())[0]} == {A: {"n": 3}, S: {"n": 2}}
    await store.close()
