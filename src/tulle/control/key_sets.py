"""The keys that tokens are checked with, where RequestAuthentications say a URL or an issuer: fetched here, kept, and kept fresh.

Proxies ask nobody: what they have came with their configuration. An issuer that is away, slow or says nonsense changes nothing
while there are keys of before; without any, its tokens are refused.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import structlog

from tulle.control.documents import document
from tulle.control.metrics import Metric
from tulle.core.compile.tokens import KeySet, Wanted, usable_keys
from tulle.core.encoded import Published
from tulle.core.pipeline import Pipeline
from tulle.kit.errors import Unavailable

log = structlog.get_logger("tulle.control-plane")

_EVERY = 300.0  # seconds between two questions of its own accord: keys that an issuer has withdrawn go
_FIRST, _LAST = 1.0, 60.0  # seconds before somebody who failed is asked again: each time twice as long


class KeySets:
    """A task for each URL that the mesh wants keys of. `run` until cancelled; `look` when the mesh may want others."""

    def __init__(self, pipeline: Pipeline, publish: Callable[[Published], None], every: float = _EVERY) -> None:
        self._pipeline, self._publish, self._every = pipeline, publish, every
        self._news = asyncio.Event()
        self._tasks: dict[Wanted, asyncio.Task[None]] = {}
        self._found: dict[str, KeySet] = {}
        self._heard: dict[str, float] = {}  # when keys came last
        self.read: Counter[str] = Counter()  # by URL, since the start
        self.failed: Counter[str] = Counter()

    def metrics(self) -> list[Metric]:
        """How often keys came and did not, and how old those are that are used, by URL (without a query, which may be secret)."""
        now = time.monotonic()
        ages = {url: now - at for url, at in self._heard.items()}
        return [
            Metric(name, kind, what, [({"url": _shown(url)}, float(value)) for url, value in sorted(values.items())])
            for name, kind, what, values in (
                ("tulle_jwks_fetched_total", "counter", "Key sets for tokens that were read.", self.read),
                ("tulle_jwks_failed_total", "counter", "Key sets for tokens that could not be read.", self.failed),
                ("tulle_jwks_age_seconds", "gauge", "Since the keys that are used were read.", ages),
            )
        ]

    def look(self) -> None:
        """The mesh has become another."""
        self._news.set()

    async def run(self) -> None:
        """Follow what the mesh wants."""
        try:
            while True:
                self._news.clear()
                self._follow(set(self._pipeline.wanted_keys))
                await self._news.wait()
        finally:
            for task in self._tasks.values():
                task.cancel()
            await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    def _follow(self, wanted: set[Wanted]) -> None:
        for one in self._tasks.keys() - wanted:
            self._tasks.pop(one).cancel()
        gone = self._found.keys() - {one.url for one in wanted}
        if gone:
            for url in gone:
                for kept in (self._found, self._heard, self.read, self.failed):
                    kept.pop(url, None)
            self._publish(self._pipeline.take_keys(dict.fromkeys(gone)))
        for one in wanted - self._tasks.keys():
            self._tasks[one] = asyncio.create_task(self._keep(one), name=f"keys of {one.url}")

    async def _keep(self, wanted: Wanted) -> None:
        pause = _FIRST
        while True:
            found = await fetched(wanted)
            before = self._found.get(wanted.url, KeySet())
            (self.failed if found.why else self.read)[wanted.url] += 1
            self._take(wanted.url, KeySet(found.keys or before.keys, found.why))
            if found.why:
                if found.why != before.why:
                    log.warning("keys for tokens cannot be read", url=wanted.url, why=found.why)
                await asyncio.sleep(pause)
                pause = min(2 * pause, _LAST)
            else:
                self._heard[wanted.url] = time.monotonic()
                pause = _FIRST
                await asyncio.sleep(self._every)

    def _take(self, url: str, found: KeySet) -> None:
        if self._found.get(url) != found:
            self._found[url] = found
            self._publish(self._pipeline.take_keys({url: found}))


def _shown(url: str) -> str:
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment="").geturl()


async def fetched(wanted: Wanted) -> KeySet:
    """The keys behind a URL, which may be a key set or an issuer's page that names one; or why there are none."""
    try:
        async with (
            asyncio.timeout(wanted.timeout),
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=wanted.timeout)) as session,
        ):
            said: Mapping[str, Any] = await document(session, wanted.url)
            place = said.get("jwks_uri")
            if "keys" not in said and isinstance(place, str) and place.startswith(("http://", "https://")):
                said = await document(session, place)
    except Unavailable as error:
        return KeySet(why=error.message)
    except TimeoutError:
        return KeySet(why="it does not answer in time")
    return usable_keys(json.dumps(said))
