"""What only a cluster can suffer: members that die, hang or are cut off, answers that are lost, revisions that etcd forgets."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.conformance.store import etcd_servers
from tests.conformance.store.steps import numbered, take
from tests.support.etcd import EtcdCluster
from tests.support.lossy import LossyProxy
from tulle.control.store.etcd import EtcdStore
from tulle.control.store.etcd_cluster import DEADLINE, TlsFiles, parse
from tulle.kit.errors import Refused, Unavailable
from tulle.ports import Cause, Compacted, Conflict, Delete, Event, Key, Put

A = Key("services", "default", "a")
B = Key("services", "default", "b")
END = Key("x", "", "end")


@pytest.fixture
def three(tmp_path: Path) -> Iterator[EtcdCluster]:
    """A cluster of three of the test's own."""
    cluster = EtcdCluster(tmp_path / "etcd", 3)
    cluster.start()
    yield cluster
    cluster.stop()


@pytest.fixture
def one() -> EtcdCluster:
    """The server that the suite shares."""
    return etcd_servers.servers("one")


@contextlib.asynccontextmanager
async def opened(cluster: EtcdCluster, prefix: str = "tulle") -> AsyncIterator[EtcdStore]:
    store = EtcdStore(parse(cluster.url(prefix)))
    try:
        yield store
    finally:
        await store.close()


async def follow(store: EtcdStore, since: int = 0) -> list[Event]:
    """Every event until `END` is written."""
    seen = []
    async for event in store.watch(since):
        seen.append(event)
        if event.key == END:
            break
    return seen


async def persist(store: EtcdStore, *operations: Put | Delete) -> int:
    """Write, again and again while etcd is away."""
    while True:
        with contextlib.suppress(Unavailable):
            return await store.write(operations)


async def count(store: EtcdStore, name: str, upto: int) -> None:
    """Raise a number step by step, each step on top of the one that was read."""
    key = Key("x", name, "n")
    while True:
        with contextlib.suppress(Unavailable, Conflict):
            found = await store.get(key)
            at = found.body["n"] if found else 0
            if at == upto:
                return
            await store.write([Put(key, numbered(at + 1), expect=found.revision if found else 0)])


def check_steps(events: list[Event], names: list[str], upto: int) -> None:
    """Each number went up one by one: no event is missing, none came twice, and no write was done twice."""
    assert [event.revision for event in events] == sorted({event.revision for event in events})
    for name in names:
        steps = [event.body["n"] for event in events if event.key.namespace == name and event.body]
        assert steps == list(range(1, upto + 1))


@pytest.mark.parametrize("harm", ["kill a follower", "kill the leader", "pause the leader", "pause a follower"])
async def test_a_member_fails(three: EtcdCluster, harm: str) -> None:
    """One of three members may go, or hang with its connections open: nothing is lost, and nothing done twice."""
    async with opened(three) as first, opened(three) as second:
        leader = three.leader()
        # A client stays with the member that answered: the first endpoint.
        follower = next(one for one in three.members if one is not leader)
        victim = leader if "leader" in harm else follower
        watching = [asyncio.create_task(follow(store)) for store in (first, second)]
        counting = [asyncio.create_task(count(store, name, 300)) for store, name in ((first, "one"), (second, "two"))]
        await take(first.watch(0), 50)
        if "kill" in harm:
            victim.kill()
        else:
            victim.pause()
        await asyncio.wait_for(asyncio.gather(*counting), 30)
        await persist(first, Put(END, {}))
        events = await asyncio.wait_for(asyncio.gather(*watching), 30)
        assert events[0] == events[1]
        check_steps(events[0], ["one", "two"], 300)
        if "pause" in harm:
            victim.resume()


async def test_the_whole_cluster_hangs(three: EtcdCluster) -> None:
    """Without a majority there is an answer in bounded time, with a sentence; and with it again, everything goes on by itself."""
    async with opened(three) as store:
        before = await store.write([Put(A, numbered(1))])
        watching = asyncio.create_task(follow(store, before))
        for member in three.members:
            member.pause()
        began = time.monotonic()
        calls = [store.get(A), store.list(), store.write([Put(A, numbered(2), expect=before)]), store.grant(5)]
        answers = await asyncio.gather(*calls, return_exceptions=True)
        assert time.monotonic() - began < DEADLINE + 3
        unknown = []
        for answer in answers:
            assert isinstance(answer, Unavailable)
            assert "etcd does not answer" in answer.message
            assert "mends itself" in answer.hint
            unknown.append("whether the change was written is not known" in answer.hint)
        assert unknown == [False, False, True, False]
        assert not watching.done()
        for member in three.members:
            member.resume()
        await asyncio.wait_for(persist(store, Put(B, numbered(3))), 20)
        await persist(store, Put(END, {}))
        events = await asyncio.wait_for(watching, 10)
        # Whether the write that got no answer was done nobody could say at that time; but it was done once at most.
        assert [event.key for event in events] in ([A, B, END], [B, END])


async def test_a_majority_is_lost_and_comes_back(three: EtcdCluster) -> None:
    """The last member alone must not answer, for it cannot know what is true."""
    async with opened(three) as store:
        await store.write([Put(A, numbered(1))])
        for member in three.members[:2]:
            member.kill()
        with pytest.raises(Unavailable):
            await store.get(A)
        for member in three.members[:2]:
            member.start(three.members)
        found = None
        while found is None:
            with contextlib.suppress(Unavailable):
                found = await store.get(A)
        assert found.body == numbered(1)


async def test_lost_answers(one: EtcdCluster) -> None:
    """A write whose answer is lost is sent again: it must not be done twice, nor be reported as refused by itself."""
    async with LossyProxy(one.members[0].endpoint) as proxy:
        store = EtcdStore(parse(f"etcd://{proxy.endpoint}/lost"))
        try:
            last = 0
            for n in range(1, 25):
                if n % 3 == 0:
                    proxy.lose_next_answer()
                key = Key("x", "one", "n")
                last = await store.write([Put(key, numbered(n), expect=last)], Cause("anna", "", 1.0) if n % 2 else None)
            assert proxy.lost == 8
            await store.write([Put(END, {})])
            check_steps([event for event in await follow(store) if event.key != END], ["one"], 24)
            changes = await store.history()
            assert (len(changes), changes[0].revision) == (12, last - 1)
        finally:
            await store.close()


async def test_what_one_writes_the_other_reads(one: EtcdCluster) -> None:
    """Two control planes: a token that one has made must be there when the other is asked for it, at once."""
    async with opened(one, "two") as first, opened(one, "two") as second:
        for n in range(200):
            writer, reader = (first, second) if n % 2 else (second, first)
            revision = await writer.write([Put(A, numbered(n))])
            found = await reader.get(A)
            assert found is not None
            assert (found.body, found.revision) == (numbered(n), revision)
            assert (await reader.list())[1] == revision


async def test_a_watch_goes_on_at_a_control_plane_that_has_just_started(one: EtcdCluster) -> None:
    """A client that comes from another control plane, with a revision of there, must miss nothing and see nothing twice."""
    async with opened(one, "moved") as first:
        revisions = [await first.write([Put(A, numbered(n)), Put(B, numbered(n))]) for n in range(20)]
        whole = await take(first.watch(0), 40)
    async with opened(one, "moved") as second:
        events = second.watch(revisions[4])
        assert await take(events, 30) == whole[10:]
        more = [await second.write([Put(A, numbered(n))]) for n in range(20, 40)]
        assert [event.revision for event in await take(events, 20)] == more
        # And a list whose further pages are asked for here, too.
        found, at = await second.list("services", at=revisions[7])
        assert ([item.body for item in found], at) == ([numbered(7), numbered(7)], revisions[7])
        one.compact()
        with pytest.raises(Compacted):
            await take(second.watch(revisions[3]), 1)
        with pytest.raises(Compacted):
            await second.list("services", at=revisions[3])


async def test_etcd_forgets_what_was_missed(one: EtcdCluster) -> None:
    """Cut off for so long that etcd has forgotten: watchers must be told, and what is read afterwards must be true."""
    async with LossyProxy(one.members[0].endpoint) as proxy, opened(one, "cut") as other:
        store = EtcdStore(parse(f"etcd://{proxy.endpoint}/cut"))
        try:
            since = await store.write([Put(A, numbered(1)), Put(B, numbered(1))])
            watching = asyncio.create_task(follow(store, since))
            await store.get(A)
            proxy.cut()
            await other.write([Put(A, numbered(2)), Delete(B)])
            await other.write([Put(A, numbered(3))])
            one.compact()
            proxy.mend()
            with pytest.raises(Compacted):
                await asyncio.wait_for(watching, 10)
            found, revision = await store.list()
            assert [(item.key, item.body) for item in found] == [(A, numbered(3))]
            last = await other.write([Put(B, numbered(4))])
            assert await take(store.watch(revision), 1) == [Event(B, last, numbered(4))]
        finally:
            await store.close()


async def test_large_transactions(one: EtcdCluster) -> None:
    """A namespace goes with all that is in it, or not at all; what etcd cannot take at once is refused with the flag's name."""
    keys = [Key("x", "big", f"{n:04}") for n in range(1500)]
    async with opened(one, "large") as store, opened(one, "large") as other:
        revision = await store.write([Put(key, numbered(0), expect=0) for key in keys], Cause("anna", "", 1.0))
        found, _ = await other.list("x")
        assert [item.key for item in found] == keys
        assert {item.revision for item in found} == {revision}
        assert len(await other.history(since=revision - 1)) == 1500
        changed = await other.write([Put(keys[700], numbered(1))])
        with pytest.raises(Conflict) as error:
            await store.write([Delete(key, expect=revision) for key in keys], Cause("anna", "", 2.0))
        assert (error.value.key, error.value.found) == (keys[700], changed)
        assert len((await store.list("x"))[0]) == 1500
        # With somebody else who writes all the time.
        busy = asyncio.create_task(count(other, "busy", 200))
        await store.write([Delete(key) for key in keys], Cause("anna", "", 3.0))
        await busy
        assert [item.key.namespace for item in (await store.list("x"))[0]] == ["busy"]
        with pytest.raises(Refused) as refused:
            await store.write([Put(Key("x", "", str(n)), {}) for n in range(5000)])
        assert "--max-txn-ops" in refused.value.hint
        with pytest.raises(Refused) as refused:
            await store.write([Put(A, {"large": "x" * 3_000_000})])
        assert "--max-request-bytes" in refused.value.hint


async def test_tls_is_checked_both_ways() -> None:
    """Whoever reaches the port must not read the mesh's secrets, and nobody may pass for etcd."""
    cluster = etcd_servers.servers("tls")
    assert cluster.tls is not None
    place = parse(cluster.url("strict"))
    other = etcd_servers.servers("one").tls
    assert other is None
    without = EtcdStore(place, TlsFiles(ca=cluster.tls.ca))
    unknown = EtcdStore(place, TlsFiles())  # trusts the machine's roots only
    answers = await asyncio.gather(without.get(A), unknown.get(A), return_exceptions=True)
    for store, answer in zip((without, unknown), answers, strict=True):
        assert isinstance(answer, Unavailable)
        assert "etcd does not answer" in answer.message
        await store.close()
    with pytest.raises(Refused, match="cannot be read"):
        EtcdStore(place, TlsFiles(ca=Path("/nonexistent")))


async def test_etcd_was_put_back(tmp_path: Path) -> None:
    """An etcd that was restored to an earlier revision must not be taken for the one before: what was read since is not there."""
    cluster = EtcdCluster(tmp_path / "etcd")
    cluster.start()
    try:
        async with opened(cluster) as store:
            for n in range(20):
                await store.write([Put(A, numbered(n))])
            await store.get(A)
            cluster.stop()
            for member in cluster.members:
                member.forget()
            cluster.start()
            with pytest.raises(Unavailable, match="where revision 21 was seen before"):
                await store.get(A)
    finally:
        cluster.stop()
