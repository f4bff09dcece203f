"""Which services select a workload: the way back from `endpoints.instances`."""

from __future__ import annotations

from tulle.core.compile.hostname import Key
from tulle.core.compile.objects import age, selects, service_entries, services, workload_entries
from tulle.core.compile.service_entries import entries_of, hosts_of
from tulle.core.compile.workload_notes import labels_of
from tulle.core.flow import Fetch, table


@table
def services_of(fetch: Fetch, key: Key) -> tuple[Key, ...]:
    """The services that select a WorkloadEntry: Services, then hosts of ServiceEntries, of each the oldest first."""
    entry = fetch(workload_entries, key)
    if entry is None:
        return ()
    labels = labels_of(entry)
    candidates = (
        row for label, value in sorted(labels.items()) for row in fetch.rows(services, "selector", (key[0], label, value))
    )
    found = sorted((row for row in candidates if selects(row.spec.selector, labels)), key=age)
    keys = dict.fromkeys((row.metadata.namespace, row.metadata.name) for row in found)
    others = {
        age(row): row
        for label, value in labels.items()
        for row in fetch.rows(service_entries, "selector", (key[0], label, value))
        if row.spec.workload_selector and selects(row.spec.workload_selector.labels, labels)
    }
    for _age, row in sorted(others.items()):
        name = (row.metadata.namespace, row.metadata.name)
        keys |= dict.fromkeys(host for host in hosts_of(row) if name in (fetch(entries_of, host) or ()))
    return tuple(keys)
