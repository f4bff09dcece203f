"""What all control planes were told of calls: nodes report to the one that they are connected to, and people ask any.

api.py ──▶ everywhere.py ──▶ window.py
                └──/telemetry/counted──▶ everywhere.py of the others
"""

from __future__ import annotations

from operator import add
from typing import Protocol

import msgspec

from tulle.control.telemetry.others import Others, nobody
from tulle.control.telemetry.window import Window
from tulle.core.graph import About
from tulle.core.model.calls import Count, Edge, added

PATH = "/telemetry/counted"


class Asked(msgspec.Struct, frozen=True):
    """The calls from `start` `until` a time (None: now); and how many came between each of `times` and the next.

    With `about`: of these alone, and whole, with their latencies, between each of `times` and the next.
    """

    start: float
    until: float | None = None
    times: tuple[float, ...] = ()
    about: About | None = None


class Counted(msgspec.Struct, frozen=True):
    """The calls, as far as they are known: since `begins`. `dropped`: of more kinds than there is room for."""

    begins: float
    calls: tuple[tuple[Edge, Count], ...] = ()
    series: tuple[tuple[Edge, tuple[int, ...]], ...] = ()
    dropped: int = 0
    parts: tuple[tuple[Edge, tuple[Count, ...]], ...] = ()


class Found(msgspec.Struct):
    """The same, of all control planes. `notice`: what people are to know of where it comes from."""

    begins: float
    calls: dict[Edge, Count]
    series: dict[Edge, tuple[int, ...]]
    dropped: int
    notice: str = ""
    parts: dict[Edge, tuple[Count, ...]] = {}


class Source(Protocol):
    """Who knows of the calls of a while; `routes`: figures by route are wanted, which not everybody has beside the others."""

    async def found(self, asked: Asked, routes: bool = False) -> Found:
        """The calls."""
        ...


class Everywhere:
    """`window` is what this control plane was told; `others` asks the rest. One that does not answer is left out."""

    def __init__(self, window: Window, others: Others = nobody) -> None:
        self._window, self._others = window, others

    def here(self, asked: Asked) -> Counted:
        """What this one knows."""
        window = self._window
        if asked.about is not None:
            parts = window.parts(asked.times, asked.about.of)
            return Counted(max(window.begins, asked.start), dropped=window.dropped, parts=tuple(parts.items()))
        series = window.series(asked.times) if asked.times else {}
        calls = window.between(asked.start, asked.until)
        return Counted(max(window.begins, asked.start), tuple(calls.items()), tuple(series.items()), window.dropped)

    async def found(self, asked: Asked, routes: bool = False) -> Found:
        """What all know. Where one was started later than another, all of it is known since the earlier one was."""
        own = self.here(asked)
        found = Found(own.begins, dict(own.calls), dict(own.series), own.dropped, parts=dict(own.parts))
        for answer in await self._others(PATH, {"asked": msgspec.json.encode(asked).decode()}):
            told = msgspec.convert(answer, Counted)
            found.begins = min(found.begins, told.begins)
            found.dropped += told.dropped
            for edge, count in told.calls:
                there = found.calls.get(edge)
                found.calls[edge] = count if there is None else added(there, count)
            for edge, values in told.series:
                before = found.series.get(edge)
                found.series[edge] = values if before is None else tuple(map(add, before, values))
            for edge, counts in told.parts:
                known = found.parts.get(edge)
                found.parts[edge] = counts if known is None else tuple(map(added, known, counts))
        return found
