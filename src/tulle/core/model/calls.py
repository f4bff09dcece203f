"""Calls that proxies have counted, as nodes report them and the control plane keeps them: who called whom, how, and what came."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest
from operator import add

import msgspec

# Upper bounds (ms) of the buckets of `Count.buckets`; what took longer is in none of them.
BOUNDS = (0.5, 1, 5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10000, 30000, 60000, 300000)
# The labels of Istio's metrics by which a Prometheus tells kinds of call apart, beside `reporter`.
LABELS = (
    *(
        f"{side}_{what}"
        for side in ("source", "destination")
        for what in ("workload", "workload_namespace", "app", "version", "principal")
    ),
    "destination_service",
    "request_protocol",
    "response_code",
    "grpc_response_status",
    "response_flags",
    "connection_security_policy",
)


class Edge(msgspec.Struct, frozen=True, array_like=True):
    """One kind of call. `reporter` is `source` or `destination`: whose proxy counted it.

    Workloads are `namespace/name` ("": not one of the mesh, or not known), `service` a host name, `protocol` is `http`, `grpc`
    or `tcp`. `code`, `grpc` and `flags` are as Envoy has them. `principal` is the SPIFFE ID of the other end. `mutual`: it came
    with mutual TLS. `address` is the caller's, of calls that came without. `route` is the name of the route by which its proxy
    sent it, where a rule made one.
    """

    reporter: str
    source: str = ""
    source_app: str = ""
    source_version: str = ""
    destination: str = ""
    destination_app: str = ""
    destination_version: str = ""
    service: str = ""
    protocol: str = "http"
    code: str = ""
    grpc: str = ""
    flags: str = ""
    principal: str = ""
    mutual: bool = False
    address: str = ""
    route: str = ""


class Count(msgspec.Struct, frozen=True, array_like=True):
    """How many requests (of `tcp`: connections) ended, their time in ms altogether, how many took at most each of `BOUNDS`."""

    calls: int = 0
    milliseconds: float = 0.0
    buckets: tuple[int, ...] = ()


class Use(msgspec.Struct, frozen=True):
    """What the proxy of a `workload` takes: `cpu` seconds since it began, `memory` in bytes; None: nobody knows.

    `restarts`: how often it was started again. `version` is Envoy's.
    """

    workload: str
    cpu: float | None = None
    memory: float | None = None
    restarts: int = 0
    version: str = ""


class Report(msgspec.Struct, frozen=True):
    """What the proxies of a `node` have counted since its last report, and what they take.

    `seconds`: how long ago, at most, the first of those calls ended.
    """

    node: str
    rows: tuple[tuple[Edge, Count], ...] = ()
    uses: tuple[Use, ...] = ()
    seconds: float = 0.0


def added(one: Count, other: Count) -> Count:
    """Both together."""
    mine, others = one.buckets, other.buckets
    if len(mine) == len(others):
        buckets = tuple(map(add, mine, others))
    else:
        buckets = tuple(map(sum, zip_longest(mine, others, fillvalue=0)))
    return Count(one.calls + other.calls, one.milliseconds + other.milliseconds, buckets)


def since(before: Count | None, now: Count) -> Count:
    """What came since then. A proxy that counts less than before has begun anew."""
    if before is None or now.calls < before.calls or len(now.buckets) < len(before.buckets):
        return now
    had = (*before.buckets, *(0 for _ in range(len(now.buckets) - len(before.buckets))))
    buckets = tuple(value - old for value, old in zip(now.buckets, had, strict=True))
    return Count(now.calls - before.calls, max(0.0, now.milliseconds - before.milliseconds), buckets)


def quantile(count: Count, share: float) -> float | None:
    """The time (ms) within which that share of the calls ended, by linear interpolation in its bucket; None without calls.

    As Prometheus' `histogram_quantile`: of what took longer than all bounds the highest bound is said.
    """
    total = count.buckets[-1] if count.buckets else 0
    if not total:
        return None
    rank, below, bound_below = share * total, 0, 0.0
    for bound, value in zip(BOUNDS, count.buckets, strict=False):
        if value >= rank and value > below:
            return bound_below + (bound - bound_below) * (rank - below) / (value - below)
        below, bound_below = value, bound
    return bound_below


def failed(edge: Edge) -> bool:
    """Whether a call counts against the success rate: a server's error (5xx, no answer, or one of gRPC's of that kind)."""
    if edge.protocol == "tcp":
        return edge.flags not in ("", "-")
    if edge.protocol == "grpc" and edge.grpc not in ("", "-"):
        return edge.grpc in ("2", "4", "12", "13", "14", "15")
    return edge.code.startswith("5") or edge.code in ("", "0")


def totalled(rows: Sequence[tuple[Edge, Count]]) -> Count:
    """All of them together."""
    if len(rows) == 1:
        return rows[0][1]
    counts = [count for _edge, count in rows]
    buckets = tuple(map(sum, zip_longest(*(one.buckets for one in counts), fillvalue=0)))
    return Count(sum(one.calls for one in counts), sum(one.milliseconds for one in counts), buckets)
