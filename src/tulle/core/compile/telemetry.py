"""Telemetry → what a workload's proxy counts, logs and traces, on each side of a call.

As with Istio: the Telemetry of the root namespace, then that of the workload's, each the oldest that selects nothing; then the
oldest that is for the workload in particular, by its labels or by reference to a Gateway, or (for the calls that come by it) a
Service or a ServiceEntry. What a later one says counts, and what it does not say is inherited.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from tulle.api.istio import Telemetry as Rule
from tulle.core.compile.guards import place_name, places_called
from tulle.core.compile.hostname import Key
from tulle.core.compile.objects import age, selects, settled, telemetries, workload_entries
from tulle.core.compile.telemetry_logs import logs
from tulle.core.compile.telemetry_metrics import counting
from tulle.core.compile.telemetry_tracing import tracing
from tulle.core.compile.workload_notes import labels_of
from tulle.core.flow import Fetch, table
from tulle.core.model.gateway import GatewayListener
from tulle.core.model.telemetry import STANDARD, STANDARD_SIDES, Sides, Telemetry


@table
def wide_telemetries(fetch: Fetch, namespace: str) -> tuple[Key, ...]:
    """Those that are for all workloads of a namespace: of the mesh, then of the namespace."""
    roots = settled(fetch).root_namespaces
    of_mesh = next((one for root in roots if (one := _oldest(fetch, fetch.keys(telemetries, "target", (root,))))), None)
    own = None if namespace in roots else _oldest(fetch, fetch.keys(telemetries, "target", (namespace,)))
    return tuple(filter(None, (of_mesh, own)))


def _oldest(fetch: Fetch, keys: Iterable[Key]) -> Key | None:
    rows: dict[Key, Rule] = {key: row for key in keys if (row := fetch(telemetries, key))}
    return min(rows, key=lambda key: age(rows[key]), default=None)


@table
def particular_telemetries(fetch: Fetch, key: Key) -> dict[str, Key]:
    """The one that is for a workload in particular, by the place where it is called; "": everywhere, and for its own calls."""
    entry = fetch(workload_entries, key)
    if entry is None:
        return {}
    labels = labels_of(entry)
    found: dict[str, list[Key]] = {"": []}
    for name, value in labels.items():
        for one in fetch.keys(telemetries, "target", (key[0], name, value)):
            row = fetch(telemetries, one)
            if row and row.spec.selector and selects(row.spec.selector.match_labels, labels):
                found[""].append(one)
    for place, (group, kind, target) in places_called(fetch, key):
        found.setdefault(place, []).extend(fetch.keys(telemetries, "target", (group, kind, *target)))
    first = {place: _oldest(fetch, (*keys, *found[""])) for place, keys in found.items()}
    return {place: one for place, one in first.items() if one and (not place or one != first[""])}


def _particular(fetch: Fetch, workload: Key) -> dict[str, Key]:
    """The row of it, which is not made for each workload where there is no Telemetry at all."""
    found: dict[str, Key] | None = fetch(particular_telemetries, workload) if fetch.keys(telemetries) else None
    return found or {}


def own_telemetry(fetch: Fetch, workload: Key) -> Key | None:
    """The one by which a workload's calls differ from those of its namespace."""
    return _particular(fetch, workload).get("")


def telemetry_at(fetch: Fetch, workload: Key, place: str = "") -> Sides:
    """What is made of the calls that a workload gets at a place; at "": of all others, and of those that it makes."""
    found = _particular(fetch, workload)
    return telemetry_of(fetch, workload[0], found.get(place) or found.get(""))


def telemetry_of(fetch: Fetch, namespace: str, particular: Key | None = None) -> Sides:
    """What is made of the calls of a namespace's workloads, of those that have a particular Telemetry."""
    wide: tuple[Key, ...] = fetch(wide_telemetries, namespace) or ()
    return fetch(sides, (*wide, *((particular,) if particular else ()))) or STANDARD_SIDES


@table
def sides(fetch: Fetch, keys: tuple[Key, ...]) -> Sides:
    """What several that inherit from each other make together, the widest first."""
    rules = [rule.spec for key in keys if (rule := fetch(telemetries, key))]
    made = [
        Telemetry(counting(fetch, rules, side), logs(fetch, rules, side), tracing(fetch, rules, side))
        for side in ("CLIENT", "SERVER")
    ]
    if made == [STANDARD, STANDARD]:
        return STANDARD_SIDES
    return Sides(*(STANDARD if one == STANDARD else one for one in made))


def told_listeners(fetch: Fetch, key: Key, listeners: Iterable[GatewayListener]) -> tuple[GatewayListener, ...]:
    """The listeners of a gateway workload with what is made of the calls of each chain: a gateway passes on, as a client does."""

    def at(port: int, section: str) -> Telemetry:
        return telemetry_at(fetch, key, place_name(port, section)).client

    return tuple(
        msgspec.structs.replace(
            listener,
            telemetry=at(listener.port, ""),
            chains=tuple(
                msgspec.structs.replace(chain, telemetry=at(listener.port, chain.table.section if chain.table else ""))
                for chain in listener.chains
            ),
        )
        for listener in listeners
    )
