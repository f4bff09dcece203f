"""One authority of several control planes over one store."""

from __future__ import annotations

import asyncio

import pytest

from tulle.control.ca.rotation import Step
from tulle.control.ca.shared import KEY, SharedAuthority
from tulle.control.store.memory import MemoryStore
from tulle.control.store.sealed import Keys, SealedStore
from tulle.kit.errors import Corrupt, Refused
from tulle.ports import Put


def shared() -> SealedStore:
    return SealedStore(MemoryStore(), Keys([b"k" * 32]))


async def test_whoever_comes_first_makes_it() -> None:
    """Two control planes with two roots would be two meshes."""
    store = shared()
    opened = await asyncio.gather(*(SharedAuthority.open(store) for _ in range(8)))
    assert len({one.authority.pin for one in opened}) == 1
    again = await SharedAuthority.open(store)
    assert again.authority.bundle == opened[0].authority.bundle
    server = opened[0].authority.issue_server(["a"], 60)
    assert b"BEGIN CERTIFICATE" in server.chain


async def test_the_key_is_nowhere_in_the_store() -> None:
    """Whoever reads etcd would have the mesh's identity."""
    store = shared()
    await SharedAuthority.open(store)
    (stored,), _ = await store.inside.list()
    assert stored.key == KEY
    assert b"PRIVATE" not in stored.json
    assert list(stored.body) == ["sealed"]


async def test_a_step_of_one_is_taken_up_by_all() -> None:
    """After a rotation one control plane would sign with a root that the others' nodes do not trust."""
    store = shared()
    first, second = await SharedAuthority.open(store), await SharedAuthority.open(store)
    heard = asyncio.Event()
    following = asyncio.create_task(second.run(heard.set))
    for step in (Step.PREPARE, Step.ACTIVATE, Step.RETIRE):
        heard.clear()
        await first.take(step)
        await asyncio.wait_for(heard.wait(), 5)
        assert (second.authority.bundle, second.authority.pin) == (first.authority.bundle, first.authority.pin)
    following.cancel()
    third = await SharedAuthority.open(store)
    await first.take(Step.PREPARE)
    with pytest.raises(Refused, match="meanwhile"):
        await third.take(Step.PREPARE)


async def test_what_cannot_be_used_is_refused_and_kept() -> None:
    """A new root over one that could still be restored would be a new mesh; and words of the key must not get into a log."""
    store = shared()
    made = await SharedAuthority.open(store)
    with pytest.raises(Corrupt, match="trust domain 'cluster\\.local', needed 'other'"):
        await SharedAuthority.open(store, "other")
    heard: list[bool] = []
    following = asyncio.create_task(made.run(lambda: heard.append(True)))
    await store.write([Put(KEY, {"roots": "secret words"})])
    with pytest.raises(Corrupt) as error:
        await SharedAuthority.open(store)
    assert "secret" not in str(error.value)
    assert made.authority.issue_server(["a"], 60)  # goes on with what it had
    assert not heard
    following.cancel()
