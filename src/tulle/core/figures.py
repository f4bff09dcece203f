"""Counted calls → figures that people read, by service, workload, edge or route: rate, success, latency, mutual TLS. Pure.

control/telemetry/window.py ──▶ figures.py ──▶ /tulle/v1/telemetry/figures ──▶ `tulle stat`, `edges`, `routes`, `top`, the page
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import StrEnum
from functools import lru_cache

import msgspec

from tulle.core.model.calls import Count, Edge, failed, quantile, totalled

Rows = Sequence[tuple[Edge, Count]]
Key = tuple[str, ...]


class By(StrEnum):
    """What is a row."""

    SERVICE = "service"
    WORKLOAD = "workload"
    EDGE = "edge"
    ROUTE = "route"


class Health(StrEnum):
    """What a person should look at first; `IDLE`: nobody called."""

    FAILING = "failing"
    DEGRADED = "degraded"
    HEALTHY = "healthy"
    IDLE = "idle"


# Shares of calls that went well below which something is wrong, or going wrong.
_FAILING, _DEGRADED = 0.9, 0.999
_REASONS = 5


class Figures(msgspec.Struct, frozen=True):
    """Of some calls: `rate` a second, shares from 0 to 1, latencies in ms; None where it cannot be said.

    `secured` is the share that came with mutual TLS. `reasons`: the commonest codes (and flags) of calls that failed, such as
    `503 UH`, and how many.
    """

    calls: int = 0
    failures: int = 0
    rate: float = 0.0
    success: float | None = None
    p50: float | None = None
    p95: float | None = None
    p99: float | None = None
    secured: float | None = None
    health: Health = Health.IDLE
    reasons: dict[str, int] = {}


class Row(msgspec.Struct, frozen=True, omit_defaults=True):
    """The figures of a `key` (its parts as `FIELDS` names them).

    `series`: calls a second, in equal parts of the time; None: not known.
    """

    key: dict[str, str]
    figures: Figures
    series: tuple[float | None, ...] = ()


class Table(msgspec.Struct, frozen=True):
    """Rows of `seconds` until now, as far as they are known: since `begins` (seconds since the epoch).

    `dropped` calls were of more kinds than there is room for. `notice`: what people are to know of where they come from.
    """

    begins: float
    seconds: float
    rows: tuple[Row, ...] = ()
    dropped: int = 0
    notice: str = ""


FIELDS: dict[By, Key] = {
    By.SERVICE: ("service",),
    By.WORKLOAD: ("workload",),
    By.EDGE: ("source", "destination", "service", "protocol"),
    By.ROUTE: ("service", "route"),
}
UNKNOWN = "unknown"


@lru_cache(maxsize=4096)
def short(host: str) -> str:
    """`NAMESPACE/NAME` of a Service's host; others stay."""
    name, _dot, rest = host.partition(".")
    namespace, _dot, suffix = rest.partition(".")
    return f"{namespace}/{name}" if suffix.startswith("svc.") else host or UNKNOWN


def _service(edge: Edge) -> Key | None:
    return (short(edge.service),) if edge.service else None


def _workload(edge: Edge) -> Key | None:
    return (edge.destination,) if edge.destination else None


def _edge(edge: Edge) -> Key | None:
    return (edge.source or UNKNOWN, edge.destination or UNKNOWN, short(edge.service), edge.protocol)


def _route(edge: Edge) -> Key | None:
    # Only the caller's proxy knows by which route a request went.
    return (short(edge.service), edge.route) if edge.reporter == "source" and edge.route else None


_KEYS: Mapping[By, Callable[[Edge], Key | None]] = {
    By.SERVICE: _service,
    By.WORKLOAD: _workload,
    By.EDGE: _edge,
    By.ROUTE: _route,
}


def grouped(rows: Iterable[tuple[Edge, Count]], by: By, namespace: str = "") -> dict[Key, list[tuple[Edge, Count]]]:
    """The rows of each key that has to do with a namespace ("": all), each call once."""
    key_of, found = _KEYS[by], dict[Key, list[tuple[Edge, Count]]]()
    for row in rows:
        key = None if row[0].reporter == "plaintext" else key_of(row[0])
        if key is not None and (not namespace or _concerns(by, key, row[0], namespace)):
            found.setdefault(key, []).append(row)
    return {key: counted_once(group) for key, group in found.items()}


def _concerns(by: By, key: Key, edge: Edge, namespace: str) -> bool:
    if by is By.EDGE:
        return namespace in (_namespace(edge.source), _namespace(edge.destination))
    # What is no Service of the mesh is everybody's who calls it.
    return (_namespace(key[0]) or _namespace(edge.source)) == namespace


def _namespace(name: str) -> str:
    return name.partition("/")[0] if "/" in name else ""


def counted_once(rows: Rows) -> list[tuple[Edge, Count]]:
    """Both ends count a call: those of the called, as far as there are any, and what never reached them."""
    there = [row for row in rows if row[0].reporter == "destination"]
    return [*there, *(row for row in rows if row[0].reporter == "source" and _lost(row[0]))] if there else list(rows)


def _lost(edge: Edge) -> bool:
    """Whether only the caller's proxy has seen it: nobody was chosen, or no connection came about."""
    return not edge.destination or "UF" in edge.flags


def figures(rows: Rows, seconds: float) -> Figures:
    """What these calls of some seconds come to."""
    count = totalled(rows)
    failures = there = mutual_there = mutual = 0
    for edge, one in rows:
        failures += one.calls if failed(edge) else 0
        mutual += one.calls if edge.mutual else 0
        if edge.reporter == "destination":
            there += one.calls
            mutual_there += one.calls if edge.mutual else 0
    # Who is called knows how it was; where it says nothing, its callers do.
    asked, mutual = (there, mutual_there) if there else (count.calls, mutual)
    success = (count.calls - failures) / count.calls if count.calls else None
    return Figures(
        calls=count.calls,
        failures=failures,
        rate=round(count.calls / max(seconds, 1.0), 4),
        success=success,
        p50=quantile(count, 0.5),
        p95=quantile(count, 0.95),
        p99=quantile(count, 0.99),
        secured=mutual / asked if asked else None,
        health=health(success),
        reasons=_reasons(rows) if failures else {},
    )


def _reasons(rows: Rows) -> dict[str, int]:
    found: Counter[str] = Counter()
    for edge, count in rows:
        if failed(edge):
            code = f"gRPC {edge.grpc}" if edge.protocol == "grpc" and edge.grpc else edge.code if edge.protocol != "tcp" else ""
            found[f"{code} {edge.flags}".strip() or "no answer"] += count.calls
    return dict(found.most_common(_REASONS))


def health(success: float | None) -> Health:
    """By the share of calls that went well."""
    if success is None:
        return Health.IDLE
    return Health.FAILING if success < _FAILING else Health.DEGRADED if success < _DEGRADED else Health.HEALTHY


def table(
    rows: Iterable[tuple[Edge, Count]],
    by: By,
    seconds: float,
    namespace: str = "",
    series: Mapping[Edge, Sequence[int]] | None = None,
    step: float = 1.0,
    missing: int = 0,
) -> list[Row]:
    """A row of each key, sorted.

    `series`: how many calls came in each `step` seconds, after `missing` parts of which nothing is known.
    """
    groups = grouped(rows, by, namespace)
    return [
        Row(
            dict(zip(FIELDS[by], key, strict=True)),
            figures(groups[key], seconds),
            curve(groups[key], series or {}, step, missing),
        )
        for key in sorted(groups)
    ]


def curve(rows: Rows, series: Mapping[Edge, Sequence[int]], step: float, missing: int = 0) -> tuple[float | None, ...]:
    """Calls a second of some rows; nothing where none of them has a series."""
    curves = [series[edge] for edge, _count in rows if edge in series]
    found = [round(sum(values) / step, 3) for values in zip(*curves, strict=True)]
    return (*(None for _ in range(missing)), *found) if found else ()
