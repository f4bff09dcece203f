"""What 1,000 AuthorizationPolicies cost a request: two sidecars, one with a single policy and one with a thousand, asked in turn.

`apart`: of the thousand, one guards the workload that is called, as in a mesh of a thousand workloads. `together`: all do.
Requests go one after the other over one connection of mutual TLS; what is compared is within a round.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from contextlib import AsyncExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgspec

from tests.support.guarded import Guarded, guarded, policy

POLICIES = 1000
_CALLER = "spiffe://cluster.local/ns/default/sa/s500"
_REQUEST = b"GET /v/500 HTTP/1.1\r\nhost: web\r\n\r\n"


class Policed(msgspec.Struct):
    """Medians over the rounds: milliseconds, and the ratios to one policy within each round."""

    policies: int
    rounds: int
    requests: int
    one_p50: float
    one_p99: float
    apart_p50: float
    apart_p99: float
    together_p50: float
    together_p99: float


def _policies(app: str) -> list[Any]:
    """One caller, one method, one path each; `app` says for whom all but number 500 are."""
    return [
        policy(
            f"p{number}",
            {
                "selector": {"matchLabels": {"app": "web" if number == 500 else app}},
                "rules": [
                    {
                        "from": [{"source": {"principals": [f"cluster.local/ns/default/sa/s{number}"]}}],
                        "to": [{"operation": {"methods": ["GET"], "paths": ["/v/*"]}}],
                    }
                ],
            },
        )
        for number in range(POLICIES)
    ]


class _Caller:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    @classmethod
    async def to(cls, web: Guarded) -> _Caller:
        return cls(*await web.connected(web.http, web.context(_CALLER)))

    async def times(self, requests: int) -> list[float]:
        """Seconds of each."""
        found = []
        for _ in range(requests):
            began = time.perf_counter()
            self._writer.write(_REQUEST)
            head = await self._reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200"), head
            length = next(int(one[15:]) for one in head.lower().split(b"\r\n") if one.startswith(b"content-length:"))
            await self._reader.readexactly(length)
            found.append(time.perf_counter() - began)
        return found


async def measure(rounds: int = 9, requests: int = 1000) -> Policed:
    """All three in turn, so many times."""
    variants = {"one": _policies("web")[500:501], "apart": _policies("other"), "together": _policies("web")}
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in variants}
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="tulle-bench-")))
        callers = {}
        for name, objects in variants.items():
            (folder / name).mkdir()
            web = await stack.enter_async_context(guarded(folder / name))
            await web.apply(*objects)
            callers[name] = await _Caller.to(web)
            await callers[name].times(requests)
        for _ in range(rounds):
            # In small turns, so that what else the machine does meets all of them.
            gathered: dict[str, list[float]] = {name: [] for name in variants}
            for _turn in range(20):
                for name, caller in callers.items():
                    gathered[name] += await caller.times(requests // 20)
            for name, times in gathered.items():
                cuts = statistics.quantiles(times, n=100)
                taken[name].append((cuts[49], cuts[98]))
    of_one = [statistics.median(one[at] for one in taken["one"]) * 1000 for at in (0, 1)]
    ratios = {
        (name, at): statistics.median(one[at] / base[at] for one, base in zip(taken[name], taken["one"], strict=True))
        for name in ("apart", "together")
        for at in (0, 1)
    }
    return Policed(POLICIES, rounds, requests, *of_one, *(ratios[name, at] for name in ("apart", "together") for at in (0, 1)))
