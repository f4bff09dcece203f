"""The calls of the last hours, to 15 seconds. Pure; bounded in time and memory.

It keeps what was counted altogether, by kind of call, and at every step a mark of how much that was: what came in a while is the
difference of two marks, however long the while is. Marks are small: the differences to one in full, compressed. Where they become
too many the older ones are thinned out, first to a minute and then to more; only then does the oldest go, and `begins` says so.

Numbers of a kind stand beside each other while they are counted; in a mark all calls come first, so that a curve reads no more
than those. Numbers only grow: so whole arrays are added and subtracted as one long integer each, and none borrows of another.
"""

from __future__ import annotations

import sys
import zlib
from array import array
from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from itertools import accumulate, pairwise
from operator import add, sub

from tulle.core.model.calls import BOUNDS, Count, Edge

STEP = 15.0  # seconds from mark to mark
KEEP = 6 * 3600.0  # seconds altogether
MOST = 30_000  # kinds of call at a time
MEMORY = 96 << 20  # bytes of all marks
_WIDTH = 2 + len(BOUNDS)  # numbers of a kind: calls, microseconds, and how many were in each bucket alone
_NONE = (0,) * _WIDTH
_FULL = 40  # marks from one in full to the next
_THINNER = (60.0, 300.0, 900.0)


class Mark:
    """What was counted before `time`: the numbers of `base`, and of `more` where there are any; both compressed."""

    __slots__ = ("base", "full", "more", "time")

    def __init__(self, time: float, base: bytes, more: bytes, full: bool) -> None:
        self.time, self.base, self.more, self.full = time, base, more, full

    @property
    def size(self) -> int:
        """Its bytes; a base counts where it was made."""
        return len(self.more) + (len(self.base) if self.full else 0) + 200

    def numbers(self) -> array[int]:
        """All of them, by kind."""
        found = _unpacked(self.base)
        return _plus(found, _unpacked(self.more)) if self.more else found

    def some(self, places: Iterable[int], bases: dict[bytes, array[int]]) -> list[array[int]]:
        """The numbers of some kinds alone; `bases` has those that were unpacked already, sort by sort."""
        base = bases.get(self.base)
        if base is None:
            base = bases[self.base] = _sorts(self.base)
        more = _sorts(self.more) if self.more else _NOTHING
        return [array("Q", map(add, _picked(base, at), _picked(more, at))) for at in places]

    def calls(self) -> array[int]:
        """How many calls of each kind."""
        found = _first(self.base)
        return _plus(found, _first(self.more)) if self.more else found


def _packed(numbers: array[int]) -> bytes:
    """How many numbers these are, and then sort by sort (all calls, all microseconds, ...), compressed."""
    sorts: array[int] = array("Q")
    for sort in range(_WIDTH):
        sorts.extend(numbers[sort::_WIDTH])
    return len(numbers).to_bytes(8, "big") + zlib.compress(sorts.tobytes(), 1)


_NOTHING: array[int] = array("Q")


def _sorts(packed: bytes) -> array[int]:
    return array("Q", zlib.decompress(memoryview(packed)[8:]))


def _picked(sorts: array[int], at: int) -> Sequence[int]:
    """Those of the kind at a place; none where it was not there yet."""
    kinds = len(sorts) // _WIDTH
    return sorts[at // _WIDTH :: kinds] if at < len(sorts) else _NONE


def _unpacked(packed: bytes) -> array[int]:
    sorts = _sorts(packed)
    found, kinds = array("Q", bytes(8 * len(sorts))), len(sorts) // _WIDTH
    for sort in range(_WIDTH):
        found[sort::_WIDTH] = sorts[sort * kinds : (sort + 1) * kinds]
    return found


def _first(packed: bytes) -> array[int]:
    """Of the first sort only."""
    size = int.from_bytes(packed[:8], "big") // _WIDTH * 8
    return array("Q", zlib.decompressobj().decompress(memoryview(packed)[8:], size)) if size else array("Q")


def _padded(numbers: array[int], length: int) -> array[int]:
    return numbers + array("Q", bytes(8 * (length - len(numbers)))) if len(numbers) < length else numbers


def _plus(one: array[int], other: array[int]) -> array[int]:
    length = max(len(one), len(other))
    return _words(_long(_padded(one, length)) + _long(_padded(other, length)), length)


def _minus(now: array[int], then: array[int]) -> array[int]:
    """How much they have grown; of what was not there then, all."""
    return _words(_long(now) - _long(_padded(then, len(now))), len(now))


def _long(numbers: array[int]) -> int:
    return int.from_bytes(numbers.tobytes(), sys.byteorder)


def _words(number: int, length: int) -> array[int]:
    return array("Q", number.to_bytes(8 * length, sys.byteorder))


class Window:
    """`began` is when it was begun; times are seconds since the epoch, and the clock may stand still, not go back."""

    def __init__(self, began: float, keep: float = KEEP, most: int = MOST, memory: int = MEMORY) -> None:
        self._began, self._keep, self._most, self._memory = began, keep, most, memory
        self._places: dict[Edge, int] = {}
        self._free: list[int] = []
        self._numbers: array[int] = array("Q")
        self._marks: list[Mark] = []
        self._base: tuple[array[int], bytes] = self._numbers, b""
        self._since_full = _FULL
        self._slot = 0.0
        self._last = 0.0
        self._columns: dict[float, array[int]] = {}
        self._looked = 0.0  # the slot in which idle kinds were last looked for
        self.size = 0  # bytes of the marks
        self.dropped = 0  # calls of more kinds than there is room for

    @property
    def begins(self) -> float:
        """Since when it knows all that it was told."""
        return self._began

    @property
    def last(self) -> float:
        """When it was told of calls last; 0.0: never."""
        return self._last

    @property
    def kinds(self) -> int:
        """How many kinds of call there are."""
        return len(self._places)

    def add(self, now: float, rows: Iterable[tuple[Edge, Count]]) -> None:
        """What came until now."""
        self._step(now - now % STEP)
        self._last = max(self._last, now)
        for edge, count in rows:
            at = self._places.get(edge)
            if at is None and (at := self._place(edge)) is None:
                self.dropped += count.calls
                continue
            self._count(at, count)

    def _count(self, at: int, count: Count) -> None:
        numbers, below = self._numbers, 0
        try:
            numbers[at] += count.calls
            numbers[at + 1] += round(count.milliseconds * 1000)
            for place, value in enumerate(count.buckets[: len(BOUNDS)], at + 2):
                numbers[place] += max(0, value - below)
                below = value
        except OverflowError:  # nobody makes that many calls: a node that tells tales
            self.dropped += count.calls

    def _place(self, edge: Edge) -> int | None:
        """Where its numbers are; None where there is no more room."""
        if len(self._places) >= self._most and not self._free:
            self._reclaim()
        if self._free:
            # Its numbers go on from where they are: only differences count, and in this window there was none.
            at = self._free.pop()
        elif len(self._places) < self._most:
            at = len(self._numbers)
            self._numbers.frombytes(bytes(8 * _WIDTH))
        else:
            return None
        self._places[edge] = at
        return at

    def _reclaim(self) -> None:
        """Forget what was not called in the whole window."""
        if self._looked == self._slot or not self._marks:
            return
        self._looked = self._slot
        news = _minus(self._numbers[::_WIDTH], self._marks[0].calls())
        idle = [one for one, at in self._places.items() if not news[at // _WIDTH]]
        self._free = [self._places.pop(one) for one in idle]

    def _step(self, slot: float) -> None:
        if slot <= self._slot:
            return
        if self._slot and slot > self._slot + STEP:
            self._mark(self._slot + STEP)  # nothing came from there on
        self._mark(slot)
        self._slot = slot
        self._settle(slot)

    def _mark(self, time: float) -> None:
        if self._since_full >= _FULL:
            whole = _packed(self._numbers)
            self._base, self._since_full = (self._numbers[:], whole), 0
            found = Mark(time, whole, b"", full=True)
        else:
            base, whole = self._base
            found = Mark(time, whole, _packed(_minus(self._numbers, base)), full=False)
        self._since_full += 1
        self._marks.append(found)
        self.size += found.size

    def _settle(self, now: float) -> None:
        gone = bisect_right(self._marks, now - self._keep, key=_time) - 1
        if gone > 0:
            self._forget(gone)
        for seconds in _THINNER:
            if self.size > self._memory:
                self._thin(seconds)
        while self.size > self._memory and len(self._marks) > 1:
            self._forget(max(1, len(self._marks) // 20))

    def _forget(self, count: int) -> None:
        self.size -= sum(mark.size for mark in self._marks[:count])
        del self._marks[:count]
        self._began = max(self._began, self._marks[0].time)
        if not self._marks[0].full:  # what the others of its kind count from
            self.size -= self._marks[0].size
            self._marks[0].full = True
            self.size += self._marks[0].size

    def _thin(self, seconds: float) -> None:
        """Of the older half: one in so many seconds."""
        old, young = self._marks[: len(self._marks) // 2], self._marks[len(self._marks) // 2 :]
        kept: list[Mark] = []
        for mark in old:
            if mark.full or not kept or mark.time // seconds > kept[-1].time // seconds:
                kept.append(mark)
        self._marks = [*kept, *young]
        self.size = sum(mark.size for mark in self._marks)

    def since(self, start: float, wanted: Callable[[Edge], bool] = lambda _edge: True) -> dict[Edge, Count]:
        """The calls from then on (to the step), summed up."""
        return self.between(start, None, wanted)

    def between(self, start: float, end: float | None, wanted: Callable[[Edge], bool] = lambda _edge: True) -> dict[Edge, Count]:
        """Those from `start` until `end` (None: now)."""
        if start >= self._slot + STEP or not self._marks:
            return {}
        news = _minus(self._at(end), self._at(start))
        calls = news[::_WIDTH]
        return {edge: _counted(news, at) for edge, at in self._places.items() if calls[at // _WIDTH] and wanted(edge)}

    def parts(self, times: Sequence[float], wanted: Callable[[Edge], bool]) -> dict[Edge, tuple[Count, ...]]:
        """What came between each of these times (ascending) and the next, of some kinds; of those of which none did, nothing."""
        places = {edge: at for edge, at in self._places.items() if wanted(edge)}
        if not self._marks or not places:
            return {}
        bases: dict[bytes, array[int]] = {}
        rows = [self._some(time, places.values(), bases) for time in times]
        found = {
            edge: tuple(_counted(array("Q", map(sub, after[at], before[at])), 0) for before, after in pairwise(rows))
            for at, edge in enumerate(places)
        }
        return {edge: counts for edge, counts in found.items() if any(count.calls for count in counts)}

    def _some(self, time: float, places: Iterable[int], bases: dict[bytes, array[int]]) -> list[array[int]]:
        if time >= self._slot + STEP:
            return [self._numbers[at : at + _WIDTH] for at in places]
        return self._mark_at(time).some(places, bases)

    def series(self, times: Sequence[float]) -> dict[Edge, tuple[int, ...]]:
        """How many calls of each kind came between each of these times (ascending) and the next."""
        if not self._marks:
            return {}
        columns = [self._calls_at(time) for time in times]
        kinds = len(self._numbers) // _WIDTH
        parts = [_minus(_padded(after, kinds), before) for before, after in pairwise(columns)]
        came = _minus(_padded(columns[-1], kinds), columns[0])
        return {edge: tuple(part[at // _WIDTH] for part in parts) for edge, at in self._places.items() if came[at // _WIDTH]}

    def _calls_at(self, time: float) -> array[int]:
        if time >= self._slot + STEP:
            return self._numbers[::_WIDTH]
        mark = self._mark_at(time)
        found = self._columns.get(mark.time)
        if found is None:
            if len(self._columns) >= 2 * _FULL:
                self._columns.clear()
            found = self._columns[mark.time] = mark.calls()
        return found

    def _mark_at(self, time: float) -> Mark:
        return self._marks[max(0, bisect_right(self._marks, time, key=_time) - 1)]

    def _at(self, time: float | None) -> array[int]:
        """All numbers of that time (None: of now)."""
        if time is None or time >= self._slot + STEP:
            return self._numbers
        return _padded(self._mark_at(time).numbers(), len(self._numbers))


def _counted(numbers: array[int], at: int) -> Count:
    calls, microseconds, *buckets = numbers[at : at + _WIDTH]
    return Count(calls, microseconds / 1000, tuple(accumulate(buckets)))


def _time(mark: Mark) -> float:
    return mark.time
