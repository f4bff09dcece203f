"""PromQL of a Rollout's metrics: what is asked, and what an answer says. Pure.

An answer that is no number is no measurement: nobody is promoted or condemned by it. One that does not come for long is a loss
of telemetry; NaN is none, for it is what a quiet service has (nothing divided by nothing).
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import msgspec

from tulle.api.own.rollout import Metric, RolloutSpec
from tulle.api.values import seconds

NAMES = ("name", "namespace", "target", "service", "route", "stable", "candidate", "interval")
_TEMPLATE = re.compile(r"\{\{\s*([^{}]*?)\s*\}\}")
_AGAIN = 10.0  # seconds until it is asked again at the latest, where nothing came


class Query(msgspec.Struct, frozen=True):
    """A metric that Prometheus is asked for, and between which values it is good."""

    name: str
    text: str
    least: float | None = None
    most: float | None = None


class Reading(msgspec.Struct, frozen=True):
    """What came, at a time (seconds since the epoch); `why` there is no value. `lost`: since when nothing came (None: it did)."""

    value: float | None
    why: str = ""
    at: float = 0.0
    lost: float | None = None


class Measured(NamedTuple):
    """What queries have said: what to ask now, what is bad, what is not known, in sentences; and what has vanished."""

    asks: tuple[str, ...]
    bad: tuple[str, ...]
    unknown: tuple[str, ...]
    vanished: tuple[str, ...]


def queries_of(spec: RolloutSpec, namespace: str, name: str) -> tuple[Query, ...]:
    """Those of a Rollout, with their templates filled in."""
    return tuple(
        Query(
            metric.name,
            _filled(metric.query, _values(spec, namespace, name, metric)),
            metric.threshold_range.min if metric.threshold_range else None,
            metric.threshold_range.max if metric.threshold_range else None,
        )
        for metric in spec.analysis.metrics
        if metric.query is not None
    )


def refused_queries(spec: RolloutSpec, *, prometheus: bool) -> Iterator[str]:
    """Why they cannot be asked, field by field."""
    for index, metric in enumerate(spec.analysis.metrics):
        at = f"spec.analysis.metrics[{index}]"
        if metric.query is None:
            continue
        if not prometheus:
            yield f"{at}.query: found it; needed a control plane that runs with --prometheus-url"
        for word in sorted({found[1] for found in _TEMPLATE.finditer(metric.query)} - set(NAMES)):
            yield f"{at}.query: found {{{{ {word} }}}}; needed one of {', '.join(NAMES)}"
        if metric.compare is not None:
            yield f"{at}.compare: found it with a query; needed thresholdRange alone, for only built-in metrics are compared"


def reading(numbers: Sequence[float], now: float, before: Reading | None) -> Reading:
    """What an answer of so many series says."""
    if len(numbers) == 1:
        (value,) = numbers
        return Reading(None, "it is not a number (NaN)", now) if math.isnan(value) else Reading(value, at=now)
    if numbers:
        return Reading(None, f"it has {len(numbers)} series; needed one", now)
    return nothing("Prometheus has nothing for it", now, before)


def nothing(why: str, now: float, before: Reading | None) -> Reading:
    """Nothing came."""
    return Reading(None, why, now, now if before is None or before.lost is None else before.lost)


def measured(queries: Iterable[Query], readings: Mapping[str, Reading], now: float, interval: float, patience: float) -> Measured:
    """What they say together. `patience`: seconds that nothing may come."""
    asks, bad, unknown, vanished = [], [], [], []
    for query in queries:
        found = readings.get(query.name)
        if found is None:
            asks.append(query.name)
            unknown.append(f"{query.name}: Prometheus is being asked")
        elif found.value is None:
            unknown.append(f"{query.name}: {found.why}")
            if now - found.at >= min(interval, _AGAIN):
                asks.append(query.name)
            if found.lost is not None and found.at - found.lost > patience:
                vanished.append(f"{query.name}: {found.why}")
        elif query.least is not None and found.value < query.least:
            bad.append(f"{query.name}: {found.value:.4g}; needed at least {query.least:g}")
        elif query.most is not None and found.value > query.most:
            bad.append(f"{query.name}: {found.value:.4g}; needed at most {query.most:g}")
    return Measured(tuple(asks), tuple(bad), tuple(unknown), tuple(vanished))


def _filled(text: str, values: Mapping[str, str]) -> str:
    return _TEMPLATE.sub(lambda found: values.get(found[1], found[0]), text)


def _values(spec: RolloutSpec, namespace: str, name: str, metric: Metric) -> dict[str, str]:
    milliseconds = round(seconds(metric.interval) * 1000)
    target = spec.target_ref.name
    return {
        "name": name,
        "namespace": namespace,
        "target": target,
        "service": target,
        "route": spec.route_ref.name,
        "stable": spec.stable.version or spec.stable.service or "",
        "candidate": spec.candidate.version or spec.candidate.service or "",
        "interval": f"{milliseconds}ms" if milliseconds % 1000 else f"{milliseconds // 1000}s",
    }
