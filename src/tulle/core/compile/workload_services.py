"""Which Services select a workload: the way back from `endpoints.selected`."""

from __future__ import annotations

from tulle.core.compile.hostname import Key
from tulle.core.compile.objects import age, labels_of, selects, services, workload_entries
from tulle.core.flow import Fetch, table


@table
def services_of(fetch: Fetch, key: Key) -> tuple[Key, ...]:
    """The Services that select a WorkloadEntry, the oldest first."""
    entry = fetch(workload_entries, key)
    if entry is None:
        return ()
    labels = labels_of(entry)
    candidates = (
        row for label, value in sorted(labels.items()) for row in fetch.rows(services, "selector", (key[0], label, value))
    )
    found = sorted((row for row in candidates if selects(row.spec.selector, labels)), key=age)
    return tuple((row.metadata.namespace, row.metadata.name) for row in found)
