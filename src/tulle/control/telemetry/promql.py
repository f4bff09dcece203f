"""What to ask a Prometheus for the calls of a while, and what its answers mean. Pure.

`increase` would be the usual way, and misses the first value of every series: the first calls of a kind, which in an incident
matter most. So a count is its last value in the window less the one before the window (0 where there was none); only where a
proxy has begun anew in between it is `increase`. A series that is gone (its workload ended) counts as far as it came.

prometheus.py ──▶ promql.py ──▶ `core.model.calls` rows, as `window.py` has them
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping

import msgspec

from tulle.core.model.calls import BOUNDS, LABELS, Count, Edge

REQUESTS, DURATION, CONNECTIONS = (
    "istio_requests_total",
    "istio_request_duration_milliseconds_bucket",
    "istio_tcp_connections_closed_total",
)
ROUTES, ROUTE_DURATION = "tulle_route_requests_total", "tulle_route_request_duration_milliseconds_bucket"
# What every node says of itself: since when the mesh is read.
_THERE = 'istio_build{component="node"}'
# How long before a time a sample may be for being the value of then (seconds).
_BACK = 300
_UNKNOWN = "unknown"

Labels = Mapping[str, str]


class Series(msgspec.Struct, frozen=True):
    """Of one series: its labels, and its values by time; a time without one is left out."""

    labels: dict[str, str]
    values: tuple[tuple[float, float], ...]


def counted(metric: str, seconds: float, services: Iterable[str] | None = None) -> str:
    """How much a counter (or the buckets of a histogram) grew in the last seconds, by kind of call; of all services, or some."""
    window = max(1, math.ceil(seconds))
    more = (*(("le",) if metric.endswith("_bucket") else ()), *(("route",) if metric.startswith("tulle_route_") else ()))
    labels = ", ".join((*more, "reporter", *LABELS))
    if services is not None:
        names = "|".join(re.escape(name) if name else f"|{_UNKNOWN}" for name in sorted(services))
        metric = f"{metric}{{destination_service=~{json.dumps(names)}}}"
    last = f"last_over_time({metric}[{window}s])"
    before = f"(last_over_time({metric}[{_BACK}s] offset {window}s) or 0 * {last})"
    grown = f"({last} - {before}) and resets({metric}[{window + 60}s]) == 0 or increase({metric}[{window}s])"
    return f"sum by ({labels}) ({grown})"


def begins(seconds: float) -> str:
    """When the mesh was read first in the last seconds (and `_BACK` before them)."""
    window = math.ceil(seconds) + _BACK
    return f"min(min_over_time(timestamp({_THERE})[{window}s:{max(15, window // 500)}s]))"


def edge(labels: Labels) -> Edge:
    """The kind of call that labels of Istio's metrics are of (`node/metrics/standard.py` made them)."""

    def said(name: str) -> str:
        value = labels.get(name, "")
        return "" if value in (_UNKNOWN, "-") else value

    def workload(side: str) -> str:
        name = said(f"{side}_workload")
        return f"{said(f'{side}_workload_namespace')}/{name}" if name else ""

    principal = said("destination_principal" if labels.get("reporter") == "source" else "source_principal")
    return Edge(
        reporter=labels.get("reporter", ""),
        source=workload("source"),
        source_app=said("source_app"),
        source_version=said("source_version"),
        destination=workload("destination"),
        destination_app=said("destination_app"),
        destination_version=said("destination_version"),
        service=said("destination_service"),
        protocol=said("request_protocol") or "http",
        code=said("response_code"),
        grpc=said("grpc_response_status"),
        flags=said("response_flags"),
        principal=principal,
        mutual=bool(principal) or labels.get("connection_security_policy") == "mutual_tls",
        route=labels.get("route", ""),
    )


def counts(requests: Iterable[Series], buckets: Iterable[Series]) -> dict[Edge, Count]:
    """How many calls of each kind there were, and their times; kinds of which there were none are left out.

    Of what was timed the times alone are counted: a Telemetry may have given requests other labels than their durations.
    """
    times: dict[Edge, dict[float, float]] = {}
    for one in buckets:
        bound = _bound(one.labels.get("le", ""))
        if bound is not None:
            there = times.setdefault(edge(one.labels), {})
            there[bound] = there.get(bound, 0.0) + _last(one)
    found = {kind: Count(round(row.get(math.inf, 0.0)), 0.0, _cumulative(row)) for kind, row in times.items()}
    timed = {_counter(kind) for kind, count in found.items() if count.calls}
    for one in requests:
        kind = edge(one.labels)
        if _counter(kind) not in timed:
            found[kind] = Count(found.get(kind, Count()).calls + round(_last(one)))
    return {kind: count for kind, count in found.items() if count.calls > 0}


def _counter(kind: Edge) -> tuple[str, str, str]:
    """Whose proxy counted it, for which service: what one Telemetry is for."""
    return kind.reporter, kind.source if kind.reporter == "source" else kind.destination, kind.service


def _cumulative(by_bound: Mapping[float, float]) -> tuple[int, ...]:
    made, most = [], 0
    for bound in BOUNDS:
        most = max(most, round(by_bound.get(float(bound), most)))
        made.append(most)
    return tuple(made)


def series(found: Iterable[Series], times: tuple[float, ...], ahead: float = 0.0) -> dict[Edge, tuple[int, ...]]:
    """How many calls of each kind came between each of `times` (all as far apart) and the next.

    `ahead`: how many seconds the clock by which they are told is ahead of that of `times`.
    """
    step = times[1] - times[0]
    made: dict[Edge, list[float]] = {}
    for one in found:
        row = made.setdefault(edge(one.labels), [0.0] * (len(times) - 1))
        for time, value in one.values:
            place = round((time - ahead - times[1]) / step)
            if 0 <= place < len(row) and math.isfinite(value):
                row[place] += max(0.0, value)
    return {kind: tuple(map(round, row)) for kind, row in made.items() if any(row)}


def parts(
    requests: Iterable[Series], buckets: Iterable[Series], times: tuple[float, ...], ahead: float
) -> dict[Edge, tuple[Count, ...]]:
    """The calls of each kind between each of `times` and the next, as `series` has them."""
    rows = [counts(_at(requests, at, times, ahead), _at(buckets, at, times, ahead)) for at in range(len(times) - 1)]
    return {kind: tuple(row.get(kind, Count()) for row in rows) for kind in {kind for row in rows for kind in row}}


def _at(found: Iterable[Series], part: int, times: tuple[float, ...], ahead: float) -> list[Series]:
    step = times[1] - times[0]
    values = ((one, tuple(pair for pair in one.values if round((pair[0] - ahead - times[1]) / step) == part)) for one in found)
    return [Series(one.labels, there) for one, there in values if there]


def _last(one: Series) -> float:
    value = one.values[-1][1] if one.values else 0.0
    return max(0.0, value) if math.isfinite(value) else 0.0


def _bound(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
