"""The recorded calls of the last days, by day, and how many calls there were by the metrics. Pure; bounded in time and size.

When there are too many shapes the oldest days go first, and `begins` says how far back the rest goes. Calls that failed are kept
one by one, too: the last ones of each workload.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator

import msgspec

from tulle.core.model.calls import Count, Edge, failed
from tulle.core.model.recorded import Coverage, Example, Record, Recorded, Shape, failing
from tulle.core.recorded.folding import Fold, merged

DAY = 24 * 3600.0
KEEP = 7 * DAY
MOST = 20_000  # shapes in all days: some 40 MB
_CHUNK = 100  # shapes that are written together
_OF_WORKLOAD = 20  # failures of one workload that are kept
_WORKLOADS = 500
_SERVICES = 2_000  # of a day, with counts of their calls

Failure = tuple[Shape, Example]


class Tally(msgspec.Struct, frozen=True, array_like=True):
    """Calls by the metrics: all, and those that failed."""

    calls: int = 0
    failures: int = 0


class Day:
    """What was recorded from `start` on for a day (UTC)."""

    def __init__(self, start: float, most: int) -> None:
        self.start = start
        self.fold = Fold(most)
        self._order: list[Shape] = []  # as they came: what is written together stays together
        self._places: dict[Shape, int] = {}
        self.counted: dict[str, Tally] = {}
        self.changed: set[int] = set()

    def add(self, shape: Shape, record: Record) -> None:
        """Count it in."""
        under = self.fold.add(shape, record)
        if under is None:
            return
        if under not in self._places:
            self._places[under] = len(self._order)
            self._order.append(under)
        self.changed.add(self._places[under] // _CHUNK)

    def chunk(self, number: int) -> list[tuple[Shape, Record]]:
        """Some of the shapes."""
        some = self._order[number * _CHUNK : (number + 1) * _CHUNK]
        return [(shape, self.fold.rows[shape]) for shape in some]


class Kept:
    """`began` is when it was begun (seconds since the epoch)."""

    def __init__(self, began: float, keep: float = KEEP, most: int = MOST) -> None:
        self._began, self._keep, self._most = began, keep, most
        self._days: deque[Day] = deque()
        self._last: OrderedDict[str, deque[Failure]] = OrderedDict()
        self.dropped = 0
        self.left_out = 0  # rows of reports that made no sense, or were too many
        self._gone: list[float] = []  # days that were forgotten since somebody looked

    @property
    def begins(self) -> float:
        """Since when it knows all that it was told."""
        return self._began

    def began_earlier(self, began: float | None) -> None:
        """What an earlier control plane kept was put in: it began then."""
        self._began = self._began if began is None else min(self._began, began)

    def add(self, now: float, rows: Iterable[tuple[Shape, Record]], failures: Iterable[Failure] = (), dropped: int = 0) -> None:
        """What nodes have recorded until now."""
        day = self._day(now)
        before = day.fold.dropped
        for shape, record in rows:
            day.add(shape, record)
        self.dropped += dropped + day.fold.dropped - before
        for failure in failures:
            self._keep_failure(failure)
        self._settle(now)

    def count(self, now: float, rows: Iterable[tuple[Edge, Count]], _seconds: float = 0.0) -> None:
        """What the metrics say of the same time: both ends of a call count it, as both record it."""
        day = self._day(now)
        for edge, count in rows:
            if edge.reporter == "plaintext" or not count.calls:
                continue
            there = day.counted.get(edge.service)
            if there is None and len(day.counted) >= _SERVICES:
                continue
            there = there or Tally()
            failures = count.calls if failed(edge) else 0
            day.counted[edge.service] = Tally(there.calls + count.calls, there.failures + failures)
            day.changed.add(0)
        self._settle(now)

    def _day(self, now: float) -> Day:
        start = now - now % DAY
        if not self._days or self._days[-1].start < start:
            self._days.append(Day(start, max(1, self._most // 2)))
        return self._days[-1]

    def _settle(self, now: float) -> None:
        while self._days and (self._days[0].start + DAY <= now - self._keep or (self.size > self._most and len(self._days) > 1)):
            old = self._days.popleft()
            self._gone.append(old.start)
            self._began = max(self._began, old.start + DAY)

    @property
    def size(self) -> int:
        """Shapes in all days."""
        return sum(len(day.fold.rows) for day in self._days)

    def _keep_failure(self, failure: Failure) -> None:
        for workload in {failure[0].source, failure[0].destination, failure[1].proxy} - {""}:
            kept = self._last.setdefault(workload, deque(maxlen=_OF_WORKLOAD))
            kept.append(failure)
            self._last.move_to_end(workload)
        while len(self._last) > _WORKLOADS:
            self._last.popitem(last=False)

    # Asked.

    def since(
        self,
        start: float,
        wanted: Callable[[Shape, Record], bool] = lambda _shape, _record: True,
        meant: Callable[[str], bool] = lambda _service: True,
    ) -> Recorded:
        """The calls from then on; `meant`: whether a service (a host name) is one that was asked for."""
        found: dict[Shape, Record] = {}
        coverage: dict[str, Coverage] = {}
        days = [day for day in self._days if day.start + DAY > start]
        for day in days:
            seen: dict[str, Coverage] = {name: Coverage(0, tally.calls, 0, tally.failures) for name, tally in day.counted.items()}
            for shape, record in day.fold.rows.items():
                before = seen.get(shape.service, Coverage())
                calls = record.count.calls
                errors = calls if shape_failed(shape) else 0
                seen[shape.service] = covered(before, Coverage(calls, 0, errors, 0))
                if record.last >= start and wanted(shape, record):
                    there = found.get(shape)
                    found[shape] = record if there is None else merged(there, record)
            for name, one in seen.items():
                coverage[name] = covered(coverage.get(name, Coverage()), one)
        covers = max(self._began, days[0].start) if days else start
        services = {shape.service for shape in found} | {name for name in coverage if meant(name)}
        return Recorded(max(self._began, start), tuple(found.items()), coverage, self.dropped, covers, tuple(sorted(services)))

    def failures_of(self, workload: str) -> list[Failure]:
        """The last failures that have to do with a workload, the newest first."""
        return sorted(self._last.get(workload, ()), key=lambda one: -one[1].time)

    def calls_of(self, request: str) -> list[Failure]:
        """All that is known of the request with an ID, as each proxy saw it."""
        found = {(one[0].reporter, one[1].proxy, one[1].time): one for one in self._all() if one[1].id == request}
        return sorted(found.values(), key=lambda one: one[1].time)

    def _all(self) -> Iterator[Failure]:
        for failures in self._last.values():
            yield from failures
        for day in self._days:
            for shape, record in day.fold.rows.items():
                for example in record.examples:
                    yield shape, example

    # Written.

    def changes(self) -> Iterator[tuple[float, int, list[tuple[Shape, Record]], dict[str, Tally]]]:
        """What changed since the last call: a day's start, the chunk's number, its rows; with chunk 0 the day's counts."""
        for day in self._days:
            for number in sorted(day.changed):
                yield day.start, number, day.chunk(number), day.counted if number == 0 else {}
            day.changed = set()

    def forgotten(self) -> list[float]:
        """The starts of days that were forgotten since the last call."""
        found, self._gone = self._gone, []
        return found

    def unwritten(self, chunks: Iterable[tuple[float, int]], gone: Iterable[float]) -> None:
        """What `changes` and `forgotten` told of could not be written: they are to tell of it again."""
        days = {day.start: day for day in self._days}
        for start, number in chunks:
            if start in days:
                days[start].changed.add(number)
        self._gone += gone

    def put(self, start: float, rows: Iterable[tuple[Shape, Record]], counted: dict[str, Tally]) -> None:
        """What was written before, of a day; days in their order."""
        day = self._day(start)
        for shape, record in rows:
            day.add(shape, record)
            if shape_failed(shape):
                for example in record.examples:
                    self._keep_failure((shape, example))
        day.counted.update(counted)
        day.changed = set()


def shape_failed(shape: Shape) -> bool:
    """Whether the calls of a shape are such as the metrics count as failed."""
    return failed(Edge(shape.reporter, protocol=shape.protocol, code=shape.code, grpc=shape.grpc, flags=shape.flags))


def is_first(shape: Shape) -> bool:
    """Whether its calls are among those that are recorded first: failed, denied, or flagged."""
    return failing(shape.code, shape.flags, shape.details, shape.grpc)


def covered(one: Coverage, other: Coverage) -> Coverage:
    """Both together."""
    return Coverage(*(a + b for a, b in zip(msgspec.structs.astuple(one), msgspec.structs.astuple(other), strict=True)))
