"""The traces of a while: the usual ones for half an hour, those that failed or were slow for six. Pure; bounded in bytes.

    spans ──add──▶ growing ──quiet for some seconds──▶ usual, or kept

A trace comes in pieces, from the nodes of all that took part. What is still growing is shown, too. Where there is no room the
oldest go first, and of those kept longer there are only so many that a bad day does not push out what is going on now.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterable, Iterator

import msgspec

from tulle.core import waterfall
from tulle.core.model.spans import Span, Summary

QUIET = 10.0  # seconds without another span after which a trace is taken for whole
USUAL = 1800.0  # seconds that a trace stays
KEEP = 6 * 3600.0  # the same for one that failed or was slow
MOST_BYTES = 64 << 20  # of all spans
_KEPT_SHARE = 0.75  # of the bytes, for those that are kept longer
MOST_SPANS = 1000  # of a trace
_EACH = 200  # bytes that a span takes beside its own
_OF_TRACE = 1000  # and a trace beside its spans
_SLOW = 1000.0  # ms from which a trace is slow in any case
_LAST, _ENOUGH, _QUANTILE = 200, 40, 0.99  # slow is also what took longer than that share of the last ones that began alike
_MOST_KINDS = 500  # ways to begin, of which is known how long they take


class _Growth:
    """A trace, its spans as they are kept; `seen` is when the last of them came, `line` what a list shows of them."""

    __slots__ = ("bytes", "failed", "first", "ids", "line", "seen", "spans")

    def __init__(self, now: float) -> None:
        self.first = self.seen = now
        self.spans: list[bytes] = []
        self.ids: set[str] = set()
        self.bytes = _OF_TRACE
        self.failed = False
        self.line: Summary | None = None

    def read(self) -> list[Span]:
        """Its spans."""
        return [_DECODER.decode(one) for one in self.spans]


_DECODER = msgspec.msgpack.Decoder(Span)
_ENCODER = msgspec.msgpack.Encoder()
_Traces = OrderedDict[str, _Growth]


class Traces:
    """`began` is when it was begun; times are seconds since the epoch by the clock of whoever keeps them, not of who told."""

    def __init__(self, began: float, most_bytes: int = MOST_BYTES) -> None:
        self.began, self._most = began, most_bytes
        self._growing, self._usual, self._kept = _Traces(), _Traces(), _Traces()
        self._took: OrderedDict[tuple[str, str], deque[float]] = OrderedDict()
        self.bytes = 0
        self._kept_bytes = 0
        self.received = 0  # spans
        self.dropped = 0  # spans there was no room for
        self.evicted = 0  # traces that went before their time

    @property
    def count(self) -> int:
        """How many traces there are."""
        return len(self._growing) + len(self._usual) + len(self._kept)

    def add(self, now: float, spans: Iterable[Span]) -> None:
        """What has come now."""
        for span in spans:
            self.received += 1
            trace = self._where(span.trace, now)
            if span.id in trace.ids:
                continue
            if len(trace.ids) >= MOST_SPANS:
                self.dropped += 1
                continue
            packed = _ENCODER.encode(span)
            trace.ids.add(span.id)
            trace.spans.append(packed)
            trace.bytes += len(packed) + _EACH
            trace.failed = trace.failed or span.failed
            trace.seen, trace.line = now, None
            self.bytes += len(packed) + _EACH
        self._settle(now)

    def _where(self, trace: str, now: float) -> _Growth:
        """The trace among those that grow; one that has begun to grow again is taken back there."""
        found = self._growing.get(trace) or self._usual.pop(trace, None)
        if found is None and (found := self._kept.pop(trace, None)) is not None:
            self._kept_bytes -= found.bytes
        if found is None:
            found = _Growth(now)
            self.bytes += found.bytes
        self._growing[trace] = found
        self._growing.move_to_end(trace)
        return found

    def _settle(self, now: float) -> None:
        while self._growing:
            trace, found = next(iter(self._growing.items()))
            if found.seen > now - QUIET:
                break
            del self._growing[trace]
            self._sort(trace, found)
        for traces, keep in ((self._usual, USUAL), (self._kept, KEEP)):
            while traces and next(iter(traces.values())).seen < now - keep:
                self._forget(traces)
        while self._kept_bytes > self._most * _KEPT_SHARE:
            self.evicted += self._forget(self._kept)
        while self.bytes > self._most:
            self.evicted += self._forget(self._usual or self._kept or self._growing)

    def _sort(self, trace: str, found: _Growth) -> None:
        """It is whole: does it stay for long?"""
        line = _line(found)
        if found.failed or self._slow(line):
            self._kept[trace] = found
            self._kept_bytes += found.bytes
            found.line = msgspec.structs.replace(line, kept=True)
        else:
            self._usual[trace] = found

    def _slow(self, line: Summary) -> bool:
        if not line.known:
            return line.duration >= _SLOW
        begins = line.service, line.name
        took = self._took.setdefault(begins, deque(maxlen=_LAST))
        self._took.move_to_end(begins)
        if len(self._took) > _MOST_KINDS:
            self._took.popitem(last=False)
        usual = sorted(took)[int(_QUANTILE * len(took))] if len(took) >= _ENOUGH else _SLOW
        took.append(line.duration)
        return line.duration >= _SLOW or line.duration > usual

    def _forget(self, traces: _Traces) -> int:
        _trace, gone = traces.popitem(last=False)
        self.bytes -= gone.bytes
        if traces is self._kept:
            self._kept_bytes -= gone.bytes
        return 1

    def spans(self, trace: str) -> list[Span]:
        """All spans of a trace; none where it is not known."""
        found = self._growing.get(trace) or self._usual.get(trace) or self._kept.get(trace)
        return found.read() if found else []

    def lines(self, now: float, since: float = 0.0) -> Iterator[Summary]:
        """All traces that got a span since then, each in a line, in no order."""
        self._settle(now)
        for traces in (self._growing, self._usual, self._kept):
            for found in reversed(traces.values()):
                if found.seen < since:
                    break
                yield _line(found)


def _line(found: _Growth) -> Summary:
    if found.line is None:
        line = waterfall.summary(found.read())
        assert line is not None, "a trace has spans"
        found.line = line
    return found.line
