"""Routes and destinations: weights, subsets that nobody is in, ServiceEntries that contradict each other."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from tulle.core.analyze.inputs import workloads_known
from tulle.core.compile.destination_rules import rules_for
from tulle.core.compile.endpoints import instances
from tulle.core.compile.exports import counts_for
from tulle.core.compile.hostname import Key, entry_key, service_key
from tulle.core.compile.mistakes import warning
from tulle.core.compile.objects import TCP, age, destination_rules, selects, service_entries, virtual_services
from tulle.core.compile.services import service
from tulle.core.flow import Fetch
from tulle.kit.problem import Problem

if TYPE_CHECKING:
    from tulle.api.istio import ServiceEntry


def weights(fetch: Fetch, key: Key) -> Iterator[Problem]:
    """Weights that look like percent and do not sum to 100."""
    row = fetch(virtual_services, key)
    if row is None:
        return
    spec = row.spec
    every: tuple[tuple[str, tuple[Any, ...]], ...] = (("http", spec.http), ("tls", spec.tls), ("tcp", spec.tcp))
    for field, rules in every:
        for at, rule in enumerate(rules):
            total = sum([one.weight for one in rule.route])
            if len(rule.route) > 1 and total not in (0, 100):
                shares = ", ".join(f"{one.weight} of {total}" for one in rule.route)
                message = f"found weights whose sum is {total}; needed a sum of 100: they count as shares ({shares})"
                yield warning(row.ref, f"spec.{field}[{at}].route", "WeightSum", message)


def empty_subsets(fetch: Fetch, key: Key) -> Iterator[Problem]:
    """Subsets whose labels no workload of the host has."""
    row = fetch(destination_rules, key)
    target = service_key(row.spec.host, key[0]) if row else None
    if row is None or target is None or key not in (fetch(rules_for, target) or ()) or not fetch(workloads_known, None):
        return
    behind = fetch(instances, target) or ()
    for index, subset in enumerate(row.spec.subsets):
        if subset.labels and not any(selects(subset.labels, one.labels) for one in behind):
            labels = ", ".join(f"{name}: {value}" for name, value in sorted(subset.labels.items()))
            message = f"no workload of {target[0]}/{target[1]} has the labels {labels}; needed one, or other labels"
            yield warning(row.ref, f"spec.subsets[{index}].labels", "SubsetEmpty", message)


def service_entry_conflicts(fetch: Fetch, key: Key) -> Iterator[Problem]:
    """Other ServiceEntries, or a Service, that say something else of a host or a port."""
    row = fetch(service_entries, key)
    if row is None:
        return
    for index, host in enumerate(row.spec.hosts):
        target = service_key(host, key[0])
        called = fetch(service, target) if target else None
        if target and called and not called.entry:
            message = f"{host} is Service {target[0]}/{target[1]}; needed a host that is no Service's name"
            yield warning(row.ref, f"spec.hosts[{index}]", "Conflict", message)
        for other in _others(fetch, row, "host", entry_key(host, key[0])):
            if difference := _difference(row, other):
                message = f"the older {other.ref} has this host too and {difference}; needed one of the two"
                yield warning(row.ref, f"spec.hosts[{index}]", "Conflict", message)
    for index, port in enumerate(row.spec.ports if not row.spec.addresses else ()):
        if port.protocol.upper() not in TCP:
            continue
        for other in _others(fetch, row, "tcp", port.number):
            message = f"the older {other.ref} takes all TCP traffic to port {port.number} too; needed spec.addresses in both"
            yield warning(row.ref, f"spec.ports[{index}].number", "PortClash", message)
            break


def _others(fetch: Fetch, row: ServiceEntry, index: str, value: Any) -> Iterator[ServiceEntry]:
    """Older ServiceEntries in the same bucket that some callers see together with this one."""
    for other in fetch.rows(service_entries, index, value):
        if age(other) >= age(row):
            continue
        here, there = row.metadata.namespace, other.metadata.namespace
        if counts_for(fetch, other, here) or counts_for(fetch, row, there):
            yield other


def _difference(row: ServiceEntry, other: ServiceEntry) -> str:
    mine = {port.number: port.protocol.upper() for port in row.spec.ports}
    for port in other.spec.ports:
        if mine.get(port.number, port.protocol.upper()) != port.protocol.upper():
            return f"says {port.protocol or 'TCP'} for port {port.number}"
    if row.spec.resolution != other.spec.resolution:
        return f"resolves it by {other.spec.resolution}"
    return ""
