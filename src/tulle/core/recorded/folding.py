"""Calls → shapes: added up in a table that does not grow without bound. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable

import msgspec

from tulle.core.model.calls import BOUNDS, Count, added
from tulle.core.model.recorded import EXAMPLES, Example, Record, Rows, Shape
from tulle.core.recorded.paths import OTHERS

# What in Envoy's response-code details is of one call: addresses, numbers of sockets and of errors.
_OF_ONE = re.compile(r"\d+\.\d+\.\d+\.\d+(:\d+)?|\[[0-9a-f:]+\](:\d+)?|\b\d{3,}\b")
_LONGEST = 160


def kind_of(details: str) -> str:
    """Response-code details without what differs from call to call."""
    return _OF_ONE.sub("*", details)[:_LONGEST]


def one(example: Example) -> Record:
    """The record of one call."""
    time = example.milliseconds
    buckets = tuple(int(time <= bound) for bound in BOUNDS)
    estimate = 1 / example.share if example.share > 0 else 1.0
    return Record(Count(1, time, buckets), estimate, example.time, example.time, (example,))


def merged(old: Record, new: Record) -> Record:
    """Both together, with the newest examples."""
    seen: dict[tuple[str, float], Example] = {}
    for example in sorted((*old.examples, *new.examples), key=lambda example: -example.time):
        seen.setdefault((example.id, example.time), example)
    return Record(
        added(old.count, new.count),
        old.estimate + new.estimate,
        min(old.first, new.first),
        max(old.last, new.last),
        tuple(seen.values())[:EXAMPLES],
    )


def blurred(shape: Shape) -> Shape:
    """What stands for a shape where there is no room for it: without the path, and without Envoy's details."""
    return msgspec.structs.replace(shape, path=OTHERS if shape.path else "", method="", details="", principal="")


class Fold:
    """A table of shapes: at most `most`, and as many again for what the rest is folded into.

    `dropped` are the calls for which there was no room even so.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self.rows: dict[Shape, Record] = {}
        self.dropped = 0

    def add(self, shape: Shape, record: Record) -> Shape | None:
        """Count it in; under which shape, or None where there was no room."""
        for candidate, room in ((shape, self._most), (blurred(shape), 2 * self._most)):
            there = self.rows.get(candidate)
            if there is not None:
                self.rows[candidate] = merged(there, record)
                return candidate
            if len(self.rows) < room:
                self.rows[candidate] = record
                return candidate
        self.dropped += record.count.calls
        return None

    def take(self) -> Rows:
        """All of it; the table is empty then."""
        found = tuple(self.rows.items())
        self.rows = {}
        return found

    def put_back(self, rows: Iterable[tuple[Shape, Record]]) -> None:
        """What could not be told, before what came since."""
        for shape, record in rows:
            self.add(shape, record)
