"""Who calls whom: counted calls, and what there is in the mesh → nodes and edges, as a person looks at them. Pure.

window.py ──calls──▶ graph.py ──▶ /tulle/v1/telemetry/graph ──▶ `tulle graph`, the page
inventory.py ──idle──▶
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Set
from enum import StrEnum

import msgspec

from tulle.core.figures import UNKNOWN, Figures, Health, counted_once, curve, figures, short
from tulle.core.inventory import Inventory
from tulle.core.model.calls import Count, Edge


class Level(StrEnum):
    """What is a node: an application, a service, an application's version, or a workload."""

    APP = "app"
    SERVICE = "service"
    VERSION = "version"
    WORKLOAD = "workload"


class Role(StrEnum):
    """What a node is beside what the level says: a gateway, a host outside, a service nobody answered for, an unknown caller."""

    MESH = "mesh"
    GATEWAY = "gateway"
    OUTSIDE = "outside"
    UNANSWERED = "unanswered"
    UNKNOWN = "unknown"


class Node(msgspec.Struct, frozen=True, omit_defaults=True):
    """Somebody. `figures` are of the calls that came in; `ready` of its `workloads` take calls (0 of 0: none is known).

    `series` is a `Row`'s.
    """

    id: str
    namespace: str
    name: str
    figures: Figures
    version: str = ""
    role: Role = Role.MESH
    health: Health = Health.IDLE
    workloads: int = 0
    ready: int = 0
    series: tuple[float | None, ...] = ()


class Link(msgspec.Struct, frozen=True, omit_defaults=True):
    """The calls from one node to another. `share` (0 to 1): of all that the caller sent to the service, what came here."""

    source: str
    target: str
    protocol: str
    figures: Figures
    services: tuple[str, ...] = ()
    share: float = 1.0
    series: tuple[float | None, ...] = ()


class About(msgspec.Struct, frozen=True, omit_defaults=True):
    """Some calls of a graph at a `level`: those to a `node`, or (without one) of the link from `source` to `target`; by id."""

    level: Level
    node: str = ""
    source: str = ""
    target: str = ""
    protocol: str = ""

    def of(self, edge: Edge) -> bool:
        """Whether calls of this kind are among them."""
        if edge.reporter == "plaintext":
            return False
        target = _target(edge, self.level, frozenset(), frozenset()).id  # the role that a place has is not in its id
        if self.node:
            return target == self.node
        source = _source(edge, self.level, frozenset()).id
        return (source, target, edge.protocol) == (self.source, self.target, self.protocol)


class Parts(msgspec.Struct, frozen=True):
    """The figures of equal parts of a while, of `step` seconds each, until `until`; None: of before anything was known.

    `notice` is as a `Table`'s.
    """

    until: float
    step: float
    parts: tuple[Figures | None, ...] = ()
    notice: str = ""


class Curves(msgspec.Struct, frozen=True):
    """How many calls of each kind came in each `step` seconds, after `missing` parts of which nothing is known."""

    series: Mapping[Edge, Sequence[int]] = {}
    step: float = 1.0
    missing: int = 0

    def of(self, rows: Sequence[tuple[Edge, Count]]) -> tuple[float | None, ...]:
        """Calls a second of some rows."""
        return curve(rows, self.series, self.step, self.missing) if self.series else ()


_NO_CURVES = Curves()


class Graph(msgspec.Struct, frozen=True):
    """Of `seconds` until now, as far as they are known: since `begins`. `notice` is as a `Table`'s."""

    level: Level
    begins: float
    seconds: float
    nodes: tuple[Node, ...] = ()
    links: tuple[Link, ...] = ()
    notice: str = ""


class _Place(msgspec.Struct, frozen=True):
    id: str
    namespace: str
    name: str
    version: str = ""
    role: Role = Role.MESH


_NOBODY = _Place(UNKNOWN, "", UNKNOWN, role=Role.UNKNOWN)


def graph(
    calls: Iterable[tuple[Edge, Count]],
    level: Level,
    there: Inventory,
    begins: float,
    seconds: float,
    idle: bool = True,
    namespace: str = "",
    curves: Curves = _NO_CURVES,
) -> Graph:
    """The graph; `idle`: with those of the mesh (or of one namespace) that nobody called, and who call nobody."""
    gateways = {one.id for one in there.workloads if one.gateway}
    known = {one.id for one in there.services}
    places: dict[str, _Place] = {}
    into: dict[str, list[tuple[Edge, Count]]] = {}
    between: dict[tuple[str, str, str], list[tuple[Edge, Count]]] = {}
    sources: dict[tuple[str, ...], _Place] = {}
    targets: dict[tuple[str, ...], _Place] = {}
    for edge, count in calls:
        if edge.reporter == "plaintext":
            continue
        # Many kinds of call are from one place to another.
        one = edge.source, edge.source_app, edge.source_version
        other = edge.destination, edge.destination_app, edge.destination_version, edge.service
        if (source := sources.get(one)) is None:
            source = sources[one] = _source(edge, level, gateways)
            places.setdefault(source.id, source)
        if (target := targets.get(other)) is None:
            target = targets[other] = _target(edge, level, gateways, known)
            places[target.id] = _stronger(places.get(target.id), target)
        into.setdefault(target.id, []).append((edge, count))
        between.setdefault((source.id, target.id, edge.protocol), []).append((edge, count))
    mine = _inventory(there, level)
    for place, _all, _ready in mine.values():
        if place.id in places or (idle and namespace in ("", place.namespace)):
            places[place.id] = place
    nodes = tuple(_node(places[key], counted_once(into.get(key, [])), mine, seconds, curves) for key in sorted(places))
    return Graph(level, begins, seconds, nodes, _links(between, seconds, curves))


def parts(counts: Mapping[Edge, Sequence[Count]], until: float, step: float, count: int, missing: int = 0) -> Parts:
    """The figures of so many parts; of the first `missing` of them nothing is known."""
    found: list[Figures | None] = [None] * missing
    for at in range(missing, count):
        rows = [(edge, values[at]) for edge, values in counts.items() if values[at].calls]
        found.append(figures(counted_once(rows), step))
    return Parts(until, step, tuple(found))


def _stronger(one: _Place | None, other: _Place) -> _Place:
    """Somebody who answered is known better than one who did not."""
    return other if one is None or one.role is Role.UNANSWERED else one


def _node(
    place: _Place,
    rows: Sequence[tuple[Edge, Count]],
    mine: dict[str, tuple[_Place, int, int]],
    seconds: float,
    curves: Curves,
) -> Node:
    found = figures(rows, seconds)
    _place, workloads, ready = mine.get(place.id, (place, 0, 0))
    health = Health.FAILING if workloads and not ready else found.health
    series = curves.of(rows)
    return Node(place.id, place.namespace, place.name, found, place.version, place.role, health, workloads, ready, series)


def _links(between: dict[tuple[str, str, str], list[tuple[Edge, Count]]], seconds: float, curves: Curves) -> tuple[Link, ...]:
    counted = {key: counted_once(rows) for key, rows in between.items()}
    sent: dict[tuple[str, str], int] = {}  # by caller and service
    for (source, _target_id, _protocol), rows in counted.items():
        for edge, count in rows:
            sent[source, edge.service] = sent.get((source, edge.service), 0) + count.calls
    links = []
    for (source, target, protocol), rows in sorted(counted.items()):
        services = {edge.service for edge, _count in rows}
        all_sent = sum(sent[source, service] for service in services)
        found = figures(rows, seconds)
        share = found.calls / all_sent if all_sent else 1.0
        named = tuple(sorted(map(short, services)))
        links.append(Link(source, target, protocol, found, named, round(share, 4), curves.of(rows)))
    return tuple(links)


def _source(edge: Edge, level: Level, gateways: Set[str]) -> _Place:
    if not edge.source:
        return _NOBODY
    role = Role.GATEWAY if edge.source in gateways else Role.MESH
    return _place(edge.source, edge.source_app, edge.source_version, level, role)


def _target(edge: Edge, level: Level, gateways: Set[str], known: Set[str]) -> _Place:
    service = short(edge.service)
    if level is Level.SERVICE and edge.service and "/" in service:
        namespace, _slash, name = service.partition("/")
        return _Place(service, namespace, name)
    if edge.destination:
        role = Role.GATEWAY if edge.destination in gateways else Role.MESH
        return _place(edge.destination, edge.destination_app, edge.destination_version, level, role)
    if "/" in service:
        namespace, _slash, name = service.partition("/")
        # Nobody answered: at the level of workloads there is nobody to point to but the service.
        return _Place(
            service if level in (Level.APP, Level.SERVICE) else f"service:{service}", namespace, name, role=Role.UNANSWERED
        )
    return _Place(f"host:{service}", "", service, role=Role.OUTSIDE) if service in known or edge.service else _NOBODY


def _place(workload: str, app: str, version: str, level: Level, role: Role) -> _Place:
    namespace, _slash, name = workload.partition("/")
    if level is Level.WORKLOAD:
        return _Place(workload, namespace, name, version, role)
    app = app or name
    if level is Level.VERSION and version:
        return _Place(f"{namespace}/{app}@{version}", namespace, app, version, role)
    return _Place(f"{namespace}/{app}", namespace, app, role=role)


def _inventory(there: Inventory, level: Level) -> dict[str, tuple[_Place, int, int]]:
    """Everybody whom the mesh has: where it is in the graph, how many workloads it is, and how many of them are ready."""
    found: dict[str, tuple[_Place, int, int]] = {}
    if level is Level.SERVICE:
        for service in there.services:
            if service.kind == "Service":
                place = _Place(service.id, service.namespace, service.name)
                found[place.id] = place, service.endpoints, service.ready
    for one in there.workloads:
        place = _place(one.id, one.app, one.version, level, Role.GATEWAY if one.gateway else Role.MESH)
        if level is Level.SERVICE and place.id in found:
            continue
        _there, workloads, ready = found.get(place.id, (place, 0, 0))
        if level is not Level.SERVICE or not one.services:
            found[place.id] = place, workloads + 1, ready + one.ready
    return found
