"""Exact limits counted in a Redis that several control planes share: one script for each request, so that nothing comes between.

A bucket is a hash under `tulle:ratelimit:RULE:KEY` (the key as a digest: callers choose it) with how much of it is used (`u`) and
when that was (`t`, by Redis' own clock), and is gone once it would be full. A batch is one round trip. While Redis does not
answer nothing is counted, and each rule's onFailure holds.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from redis.asyncio import Redis
from redis.asyncio.connection import BlockingConnectionPool
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import NoScriptError, RedisError

from tulle.core.ratelimit.buckets import ROUNDING, Ask, Buckets, KeyState, Verdict, verdict
from tulle.kit.errors import Refused, Unavailable

PREFIX = "tulle:ratelimit"
_TIMEOUT = 0.25  # seconds: a request waits for this, and its proxy no longer than that
_AGAIN = 0.5  # seconds before a Redis that did not answer is asked again
_CONNECTIONS = 4

# How much was used before, of each key. As `Buckets.take`: a request is counted for all its rules, or for none but the shadows.
_SCRIPT = """
local time = redis.call('TIME')
local now = tonumber(time[1]) + tonumber(time[2]) / 1000000
local used, refused, said = {}, false, {}
for i, key in ipairs(KEYS) do
  local at = (i - 1) * 5
  local capacity, speed, hits = tonumber(ARGV[at + 1]), tonumber(ARGV[at + 2]), tonumber(ARGV[at + 3])
  local found = redis.call('HMGET', key, 'u', 't')
  local before, since = tonumber(found[1]) or 0, tonumber(found[2]) or now
  used[i] = math.min(capacity, math.max(0, before - math.max(0, now - since) * speed))
  if used[i] + hits > capacity + 0.000001 and ARGV[at + 4] == '0' then refused = true end
  said[i] = string.format('%.9f', used[i])
end
for i, key in ipairs(KEYS) do
  local at = (i - 1) * 5
  local capacity, speed, hits = tonumber(ARGV[at + 1]), tonumber(ARGV[at + 2]), tonumber(ARGV[at + 3])
  local within = used[i] + hits <= capacity + 0.000001
  if within and (not refused or ARGV[at + 4] == '1') then used[i] = used[i] + hits end
  if used[i] > 0 then
    redis.call('HSET', key, 'u', string.format('%.9f', used[i]), 't', string.format('%.6f', now))
    redis.call('PEXPIRE', key, math.ceil(used[i] / speed * 1000) + tonumber(ARGV[at + 5]))
  end
end
return said
"""
_KEEP = 1000  # milliseconds that a bucket is kept longer than it counts
assert ROUNDING == 0.000001  # the script's


class RedisCounter:
    """`url` is `redis://`, `rediss://` (TLS) or `unix://`, with what Redis asks for; raises `Refused` where it is none."""

    def __init__(self, url: str, clock: Callable[[], float] = time.monotonic, timeout: float = _TIMEOUT) -> None:
        try:
            pool = BlockingConnectionPool.from_url(
                url,
                max_connections=_CONNECTIONS,
                timeout=timeout,
                socket_timeout=timeout,
                socket_connect_timeout=timeout,
                decode_responses=True,
                retry=Retry(NoBackoff(), 0),  # what may have been counted is not counted again
            )
        except ValueError as error:
            raise Refused(f"the address of the Redis for rate limits: {error}", hint="redis://HOST:PORT/DATABASE") from error
        self._redis: Any = Redis(connection_pool=pool)
        self._clock = clock
        self._digest = hashlib.sha1(_SCRIPT.encode(), usedforsecurity=False).hexdigest()
        self._until = 0.0  # before which nobody asks
        self._why = ""
        self._seen = Buckets()
        self.failures = 0  # batches that were not counted

    async def take(self, requests: Sequence[Sequence[Ask]]) -> Sequence[Sequence[Verdict]]:
        """Count each, in one round trip; raises `Unavailable`."""
        now = self._clock()
        if now < self._until:
            self.failures += 1
            raise Unavailable(self._why)
        try:
            found = await self._run(requests)
        except (RedisError, OSError, TimeoutError) as error:
            self.failures += 1
            self._until = self._clock() + _AGAIN
            self._why = f"the Redis for rate limits does not count: {error or type(error).__name__}"
            raise Unavailable(self._why) from error
        verdicts = [
            [verdict(ask.rule.of(ask.key), float(used), ask.hits) for ask, used in zip(asks, said, strict=True)]
            for asks, said in zip(requests, found, strict=True)
        ]
        for asks, said in zip(requests, verdicts, strict=True):
            self._seen.saw(asks, said, now)
        return verdicts

    async def _run(self, requests: Sequence[Sequence[Ask]]) -> list[list[str]]:
        try:
            return await self._pipeline(requests)
        except NoScriptError:  # it has begun anew; of what was asked nothing was counted
            await self._redis.script_load(_SCRIPT)
            return await self._pipeline(requests)

    async def _pipeline(self, requests: Sequence[Sequence[Ask]]) -> list[list[str]]:
        async with self._redis.pipeline(transaction=False) as pipe:
            for asks in requests:
                keys = [_key(ask) for ask in asks]
                pipe.evalsha(self._digest, len(keys), *keys, *(word for ask in asks for word in _arguments(ask)))
            found: list[list[str]] = await pipe.execute()
        return found

    def keep(self, rules: Iterable[str]) -> None:
        """Forget what was seen of others; their keys in Redis end by themselves."""
        self._seen.keep(rules)

    def states(self) -> Iterable[KeyState]:
        """The keys that came by this control plane."""
        self._seen.sweep(self._clock())
        return self._seen.states(self._clock())

    async def close(self) -> None:
        """Hang up."""
        await self._redis.aclose()


def _key(ask: Ask) -> str:
    digest = hashlib.sha256(ask.key.encode()).hexdigest()[:32] if ask.key else ""
    return f"{PREFIX}:{ask.rule.id}:{digest}"


def _arguments(ask: Ask) -> tuple[str, ...]:
    rate = ask.rule.of(ask.key)
    return str(rate.capacity), f"{rate.speed:.12g}", str(ask.hits), "1" if ask.rule.shadow else "0", str(_KEEP)
