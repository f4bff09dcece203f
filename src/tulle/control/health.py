"""How well a control plane does its work, for `/metrics`: what it sends to proxies, how soon they have it, what they refuse.

Names that Istio's dashboards ask for (`pilot_*`, `citadel_*`, `istio_build`) are used where the meaning is Istio's.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping

import tulle
from tulle.control.metrics import Metric, Timings
from tulle.core.type_urls import SHORT
from tulle.xds.server import Observer
from tulle.xds.status import Nack

# Upper bounds (s): Istio's, and below the smallest of them those among which nearly all of ours are.
_BOUNDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 3.0, 5.0, 10.0, 20.0, 30.0)
_REMEMBERED = 1000  # revisions; of older ones the oldest of these counts

Labels = Mapping[str, str]


class Health(Observer):
    """What the xDS server tells, counted. `moved` is called when a proxy came, went, refused something or has all."""

    def __init__(self, moved: Callable[[], None], clock: Callable[[], float] = time.monotonic) -> None:
        self._moved, self._clock = moved, clock
        self._published: OrderedDict[int, float] = OrderedDict()
        self._since: dict[int, float] = {}  # a stream → when the first answer came of what it has not all of
        self._connected: dict[int, float] = {}
        self._sent: dict[str, int] = {}
        self._refused: dict[str, int] = {}
        self._streams = 0
        self.convergence = Timings("", _BOUNDS)
        self.publications = 0

    def published(self, revision: int) -> None:
        """There is something new for proxies."""
        self.publications += 1
        self._published.setdefault(revision, self._clock())
        while len(self._published) > _REMEMBERED:
            self._published.popitem(last=False)

    def connected(self, proxy: str, stream: int) -> None:
        """It came."""
        self._streams += 1
        self._connected[stream] = self._clock()
        self._moved()

    def disconnected(self, proxy: str, stream: int) -> None:
        """It went."""
        self._connected.pop(stream, None)
        self._since.pop(stream, None)
        self._moved()

    def sent(self, proxy: str, stream: int, type_url: str, revision: int) -> None:
        """It was sent something: what that was made of is as old as its revision, or as the stream."""
        short = _short(type_url)
        self._sent[short] = self._sent.get(short, 0) + 1
        there = self._published.get(revision, next(iter(self._published.values()), 0.0))
        self._since.setdefault(stream, max(there, self._connected.get(stream, 0.0)))

    def nacked(self, proxy: str, stream: int, nack: Nack) -> None:
        """It refused something."""
        short = _short(nack.type_url)
        self._refused[short] = self._refused.get(short, 0) + 1
        self._moved()

    def synced(self, proxy: str, stream: int, revision: int) -> None:
        """It has acknowledged everything."""
        if (began := self._since.pop(stream, None)) is not None:
            self.convergence.add("", max(0.0, self._clock() - began))
        self._moved()

    def metrics(self, waiting: int, queued: int) -> list[Metric]:
        """All of it. `waiting` proxies have not all that they are to have; `queued` answers are not yet written to them."""
        build = {"component": "pilot", "tag": tulle.__version__}
        pushes = [({"type": short}, float(count)) for short, count in sorted(self._sent.items())]
        refused = [({"type": short}, float(count)) for short, count in sorted(self._refused.items())]
        return [
            _gauge("istio_build", "Which version this is.", [(build, 1.0)]),
            _gauge("pilot_xds", "Proxies that are connected.", [({}, float(len(self._connected)))]),
            _counter("tulle_xds_streams_total", "Streams of proxies that began.", [({}, float(self._streams))]),
            _counter("pilot_xds_pushes", "Answers that were sent to proxies, by type.", pushes),
            _counter("pilot_total_xds_rejects", "Answers that proxies refused.", [({}, float(sum(self._refused.values())))]),
            _counter("tulle_xds_rejects_total", "The same by type.", refused),
            _counter("tulle_publications_total", "Times that there was something new.", [({}, float(self.publications))]),
            self.convergence.metric(
                "pilot_proxy_convergence_time", "Seconds from a change to its acknowledgement by a proxy that it is for."
            ),
            _gauge("tulle_xds_waiting", "Proxies that have not acknowledged everything.", [({}, float(waiting))]),
            _gauge("tulle_xds_queue", "Answers that wait to be written to proxies.", [({}, float(queued))]),
            *process(),
        ]


def _short(type_url: str) -> str:
    """A type as Istio's metrics name it: `cds`."""
    return SHORT.get(type_url, "other").lower()


def process() -> list[Metric]:
    """What this process takes, under the names that every client of Prometheus has for it."""
    import resource

    used = resource.getrusage(resource.RUSAGE_SELF)
    found = [_counter("process_cpu_seconds_total", "CPU.", [({}, used.ru_utime + used.ru_stime)])]
    try:
        with open("/proc/self/statm") as file:
            pages = int(file.read().split()[1])
    except (OSError, ValueError, IndexError):
        return found
    return [*found, _gauge("process_resident_memory_bytes", "Memory.", [({}, float(pages * resource.getpagesize()))])]


def _gauge(name: str, help_: str, samples: Iterable[tuple[Labels, float]]) -> Metric:
    return Metric(name, "gauge", help_, list(samples))


def _counter(name: str, help_: str, samples: Iterable[tuple[Labels, float]]) -> Metric:
    return Metric(name, "counter", help_, list(samples))
