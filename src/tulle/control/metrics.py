"""`/metrics`: what the control plane counts and knows, in Prometheus' text format."""

from __future__ import annotations

import contextlib
import time
from bisect import bisect_left
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence

import msgspec
from aiohttp import web

_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_ESCAPES = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n"})


class Spread(msgspec.Struct, frozen=True):
    """A histogram: how many were at most each of `bounds` (cumulative), how many there were, and their sum."""

    bounds: tuple[float, ...]
    counts: tuple[int, ...]
    count: int
    sum: float


class Metric(msgspec.Struct, frozen=True):
    """One metric: its `kind` (counter, gauge, histogram), and its samples by labels."""

    name: str
    kind: str
    help: str
    samples: Sequence[tuple[Mapping[str, str], float | Spread]]


class Timings:
    """How many seconds things took, by the value of one `label` ("": they are all of one kind). For the event loop alone."""

    def __init__(self, label: str, bounds: tuple[float, ...]) -> None:
        self._label, self._bounds = label, bounds
        self._counts: dict[str, list[int]] = {}
        self._sums: dict[str, float] = {}

    def add(self, kind: str, seconds: float) -> None:
        """One took so long."""
        counts = self._counts.setdefault(kind, [0] * (len(self._bounds) + 1))
        counts[bisect_left(self._bounds, seconds)] += 1
        self._sums[kind] = self._sums.get(kind, 0.0) + seconds

    @contextlib.contextmanager
    def of(self, kind: str) -> Iterator[None]:
        """Time what happens inside, also where it fails."""
        began = time.monotonic()
        try:
            yield
        finally:
            self.add(kind, time.monotonic() - began)

    def metric(self, name: str, help_: str) -> Metric:
        """As a metric."""
        samples: list[tuple[Mapping[str, str], Spread]] = []
        for kind, counts in sorted(self._counts.items()):
            total, up_to = 0, []
            for count in counts:
                total += count
                up_to.append(total)
            spread = Spread(self._bounds, tuple(up_to[:-1]), total, self._sums[kind])
            samples.append(({self._label: kind} if self._label else {}, spread))
        return Metric(name, "histogram", help_, samples)


def text(metrics: Iterable[Metric]) -> str:
    """As Prometheus reads them."""
    lines: list[str] = []
    for one in metrics:
        lines += [f"# HELP {one.name} {one.help}", f"# TYPE {one.name} {one.kind}"]
        for labels, value in one.samples:
            lines += (f"{one.name}{suffix}{_labels(all_)} {number:.17g}" for suffix, all_, number in _rows(labels, value))
    return "\n".join([*lines, ""])


def _rows(labels: Mapping[str, str], value: float | Spread) -> Iterator[tuple[str, Mapping[str, str], float]]:
    if not isinstance(value, Spread):
        yield "", labels, value
        return
    for bound, count in zip(value.bounds, value.counts, strict=True):
        yield "_bucket", {**labels, "le": f"{bound:g}"}, count
    yield "_bucket", {**labels, "le": "+Inf"}, value.count
    yield "_sum", labels, value.sum
    yield "_count", labels, value.count


def _labels(labels: Mapping[str, str]) -> str:
    said = ",".join(f'{name}="{label.translate(_ESCAPES)}"' for name, label in labels.items())
    return f"{{{said}}}" if said else ""


def metrics_app(metrics: Callable[[], Awaitable[Sequence[Metric]]]) -> web.Application:
    """The sub-application to mount at `/metrics`."""

    async def show(_request: web.Request) -> web.Response:
        return web.Response(body=text(await metrics()).encode(), headers={"Content-Type": _TYPE})

    app = web.Application()
    app.router.add_get("", show)
    return app
