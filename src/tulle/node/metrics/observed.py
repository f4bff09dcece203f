"""What a proxy has counted altogether → what is new since the last look, for the control plane. Pure.

Envoy ─▶ families.py ─▶ observed.py ─▶ report.py ──▶ control plane
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from tulle.core.model.calls import BOUNDS, Count, Edge, added, since
from tulle.node.metrics.families import Family, Histogram
from tulle.node.metrics.standard import UNKNOWN, Who, counted, known, peer, service, words

Counts = Mapping[Edge, Count]
# What tells of every call once.
_COUNTS = ("duration", "duration_alone", "requests", "closed", "plaintext")


def observed(found: Iterable[Family], own: Who) -> Counts:
    """All calls that the proxy of `own` has counted."""
    made: dict[Edge, Count] = {}
    for family in found:
        if (named := counted(family.name)) is None or named[1] not in _COUNTS:
            continue
        side, what = named
        for sample in family.samples:
            edge = _edge(side, what, words(sample.labels), own)
            made[edge] = added(made.get(edge, Count()), _count(what, sample.value))
    return made


def news(before: Counts, now: Counts) -> tuple[tuple[Edge, Count], ...]:
    """What is new in `now`."""
    found = ((edge, since(before.get(edge), count)) for edge, count in now.items())
    return tuple((edge, count) for edge, count in found if count.calls or (count.buckets and count.buckets[-1]))


def _count(what: str, value: float | Histogram) -> Count:
    if not isinstance(value, Histogram):
        return Count(int(value))
    # Bounds are in microseconds there.
    by_bound = {round(bound / 1000, 3): count for bound, count in value.buckets}
    return Count(int(value.count), value.sum / 1000, tuple(int(by_bound.get(bound, 0)) for bound in BOUNDS))


def _edge(side: str, what: str, said: dict[str, str], own: Who) -> Edge:
    principal = known(said.get("principal", ""))
    other = peer(said.get("peer", ""), principal)
    source, destination = (own, other) if side == "source" else (other, own)
    host, _name, _namespace = service(said.get("service", ""), destination)
    tcp = what == "closed" or said.get("kind") == "tcp"
    grpc = said.get("grpc", "").strip("-")
    return Edge(
        reporter="plaintext" if what == "plaintext" else side,
        source=_workload(source),
        source_app=_said(source.app),
        source_version=_said(source.version),
        destination=_workload(destination),
        destination_app=_said(destination.app),
        destination_version=_said(destination.version),
        service=_said(host),
        protocol="tcp" if tcp else "grpc" if grpc else "http",
        code=said.get("code", ""),
        grpc=grpc,
        flags=said.get("flags", "").strip("-"),
        principal=_said(principal),
        mutual=principal != UNKNOWN,
        address=said.get("address", ""),
        route="" if said.get("route") == "-" else said.get("route", ""),
    )


def _workload(who: Who) -> str:
    return "" if who.workload == UNKNOWN else f"{who.namespace}/{who.workload}"


def _said(value: str) -> str:
    return "" if value == UNKNOWN else value
