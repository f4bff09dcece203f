"""Counting in a real Redis: the same verdicts as in memory, by several at once, and what happens when it goes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.redis import RedisServer, needed
from tulle.control.ratelimits.redis import PREFIX, RedisCounter
from tulle.core.ratelimit.buckets import Ask, Buckets, Rate, Rule
from tulle.kit.errors import Refused, Unavailable

pytestmark = needed

HOUR = Rule("default/all/0", Rate(10, 3600, 2), {"gold": Rate(20, 3600)})
OTHER = Rule("default/all/1", Rate(5, 3600))
SHADOW = Rule("default/all/2", Rate(1, 3600), shadow=True)


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[RedisServer]:
    made = RedisServer(tmp_path)
    made.start()
    yield made
    made.stop()


@pytest.fixture
async def counter(server: RedisServer) -> AsyncIterator[RedisCounter]:
    made = RedisCounter(server.url, timeout=2.0)  # the machine may be busy; what is tested is what it says
    yield made
    await made.close()


async def within(counter: RedisCounter, ask: Ask) -> None:
    """Ask until there is enough."""
    async with asyncio.timeout(5):
        while True:
            said = (await counter.take([[ask]]))[0][0]
            if said.within:
                return
            await asyncio.sleep(0.05)


async def test_it_says_what_counting_in_memory_says(counter: RedisCounter) -> None:
    """Otherwise a second control plane would make other limits of the same objects."""
    requests = [
        *([Ask(HOUR, "tin"), Ask(OTHER)] for _ in range(8)),
        *([Ask(HOUR, "gold", 3)] for _ in range(8)),
        *([Ask(SHADOW), Ask(HOUR, "tin")] for _ in range(9)),
        [Ask(HOUR, "large", 100)],
    ]
    memory = Buckets()
    for asks in requests:
        expected = memory.take(asks, 0.0)
        said = (await counter.take([asks]))[0]
        assert [(one.within, one.left) for one in said] == [(one.within, one.left) for one in expected]


async def test_several_control_planes_count_together(server: RedisServer, counter: RedisCounter) -> None:
    """Otherwise each of them would let through the whole limit."""
    other = RedisCounter(server.url, timeout=2.0)
    try:
        batches = [[[Ask(HOUR)] for _ in range(20)] for _ in range(4)]
        found = await asyncio.gather(*((counter, other)[number % 2].take(batch) for number, batch in enumerate(batches)))
    finally:
        await other.close()
    assert sum(verdicts[0].within for batch in found for verdicts in batch) == 12


async def test_a_bucket_fills_and_its_key_ends(counter: RedisCounter) -> None:
    """Otherwise nobody would ever be let through again, or Redis grow with all clients ever."""
    fast = Rule("default/fast/0", Rate(50, 0.5))
    assert sum(said[0].within for said in await counter.take([[Ask(fast)]] * 60)) >= 50
    name = f"{PREFIX}:{fast.id}:"
    assert 0 < await counter._redis.pttl(name) <= 1500
    await within(counter, Ask(fast, "", 40))


async def test_a_clock_of_redis_that_was_ahead_locks_nobody_out(counter: RedisCounter) -> None:
    """Otherwise a Redis whose clock is set back by a day would refuse for a day."""
    fast = Rule("default/fast/0", Rate(10, 0.2))
    await counter._redis.hset(f"{PREFIX}:{fast.id}:", mapping={"u": "10", "t": "99999999999"})
    assert not (await counter.take([[Ask(fast)]]))[0][0].within
    await within(counter, Ask(fast))


async def test_without_redis_nothing_is_said_quickly_and_it_counts_again_when_it_is_back(
    server: RedisServer, counter: RedisCounter
) -> None:
    """Otherwise requests would hang for as long as Redis is away, or onFailure would hold for ever."""
    await counter.take([[Ask(HOUR)]])
    server.stop()
    with pytest.raises(Unavailable, match="Redis"):
        await asyncio.wait_for(counter.take([[Ask(HOUR)]]), 5)
    with pytest.raises(Unavailable):
        await asyncio.wait_for(counter.take([[Ask(HOUR)]]), 0.1)
    assert counter.failures == 2
    server.start()
    async with asyncio.timeout(10):
        while True:
            try:
                verdicts = (await counter.take([[Ask(HOUR)]]))[0]
            except Unavailable:
                await asyncio.sleep(0.05)
            else:
                break
    assert verdicts[0].left == 11, "its memory was lost with it"


async def test_keys_that_callers_choose_are_no_commands_and_no_names(counter: RedisCounter) -> None:
    """Otherwise a header could reach another rule's bucket."""
    await counter.take([[Ask(HOUR, "x:y\r\nFLUSHALL\r\n*"), Ask(HOUR, "1:default/all/1:")]])
    names = await counter._redis.keys("*")
    assert all(name.startswith(f"{PREFIX}:{HOUR.id}:") and len(name) < 80 for name in names)
    assert len(names) == 2


async def test_what_is_known_of_keys_is_for_people(counter: RedisCounter) -> None:
    """Otherwise `tulle ratelimit status` would be empty where Redis counts."""
    for _ in range(14):
        await counter.take([[Ask(HOUR, "tin")]])
    (state,) = counter.states()
    assert (state.allowed, state.refused, round(state.used, 2)) == (12, 2, 1.0)


def test_an_address_that_is_none_is_said() -> None:
    """Otherwise a typing error would be a traceback."""
    with pytest.raises(Refused, match="Redis"):
        RedisCounter("127.0.0.1:6379")
