"""Load that begins: Envoys are told to tell less at once, and what was under way is not taken for more load."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, cast
from urllib.parse import parse_qsl, urlsplit

from tests.unit.node.calls.test_entry import OWN, SAID, batch
from tulle.client.api import ApiClient
from tulle.core.envoy.calls import MILLION, SAMPLED
from tulle.node.calls.recorder import Recorder
from tulle.node.workload import Workload


@dataclass
class Admin:
    """An Envoy's administration, as far as it is told of shares."""

    shares: list[float] = field(default_factory=list)
    told: asyncio.Event = field(default_factory=asyncio.Event)

    async def post(self, path: str) -> None:
        """Remembers the share of calls that went well."""
        self.shares.append(int(dict(parse_qsl(urlsplit(path).query))[SAMPLED]) / MILLION)
        self.told.set()


@asynccontextmanager
async def running(recorder: Recorder) -> AsyncIterator[Admin]:
    """The recorder with one Envoy, which has been told once."""
    admin = Admin()
    workload = SimpleNamespace(envoy=SimpleNamespace(answers=True, process=SimpleNamespace(pid=1), admin=admin))

    async def api() -> ApiClient:
        raise AssertionError("nothing is told to the control plane before its time")

    task = asyncio.create_task(recorder.run(lambda: [cast("Workload", workload)], api))
    try:
        await admin.told.wait()
        admin.told.clear()
        yield admin
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def calls(count: int, began: float) -> bytes:
    """That many that went well."""
    found: list[dict[str, Any]] = [SAID] * count
    return batch(*found, time=began)


async def test_load_that_begins() -> None:
    """Broken: each burst would be recorded whole until the next second, at the price of the requests in it."""
    recorder = Recorder("n", budget=50, interval=600)
    async with asyncio.timeout(10), running(recorder) as admin:
        began = time.monotonic()
        recorder.take(calls(200, time.time()), OWN)
        await admin.told.wait()
        assert time.monotonic() - began < 0.5
        assert admin.shares[-1] < admin.shares[-2]


async def test_what_was_under_way_is_not_more_load() -> None:
    """Broken: calls that were told of by the old share would count by the new one, as a hundred times the load there is, and the
    record would be empty for a minute.
    """
    recorder = Recorder("n", budget=50, interval=600)
    async with asyncio.timeout(10), running(recorder) as admin:
        before = time.time()
        recorder.take(calls(200, before), OWN)
        await admin.told.wait()
        share = admin.shares[-1]
        admin.told.clear()
        recorder.take(calls(200, before), OWN)  # they waited in Envoy's buffer
        await admin.told.wait()
        assert admin.shares[-1] > share, "of what began since, nothing came: the share grows"
