"""What tells callers apart, beyond where they call: their namespace, labels that some rule asks for, their Sidecar.

The sidecars of a namespace share their tables. Those that have some of the labels that any rule asks for share tables of their
own, so that a rule by `sourceLabels` or `workloadSelector` costs one more set of tables for each kind of caller that it tells
apart, and nothing where nobody writes one.
"""

from __future__ import annotations

import msgspec

from tulle.core.compile.hostname import Key
from tulle.core.compile.objects import caller_matches, destination_rules, sidecars, virtual_services, workload_entries
from tulle.core.compile.sidecars import SELECTED, selecting_sidecar
from tulle.core.compile.workload_notes import labels_of
from tulle.core.flow import Fetch, table
from tulle.core.model.route import labels_digest

Labels = tuple[tuple[str, str], ...]


class Source(msgspec.Struct, frozen=True, order=True):
    """Callers of a `namespace` (""; of all of them, where nothing depends on it) that have these `labels` among others."""

    namespace: str = ""
    labels: Labels = ()


ANYBODY = Source()
# A label that only the model knows, of callers that are gateways.
GATEWAY = ("tulle.dev/gateway", "")


@table
def labels_told_apart(fetch: Fetch, _key: None) -> frozenset[tuple[str, str]]:
    """The labels that any rule asks of its callers."""
    rows = fetch.rows(virtual_services, "by_labels", True)
    asked = [one.source_labels for row in rows for one in caller_matches(row)]
    asked += (
        row.spec.workload_selector.match_labels
        for row in fetch.rows(destination_rules, "selects", True)
        if row.spec.workload_selector
    )
    return frozenset(pair for labels in asked for pair in labels.items())


@table
def caller_labels(fetch: Fetch, key: Key) -> Labels:
    """Those labels of a workload by which rules tell it from others, and the Sidecar that selects it."""
    asked = fetch(labels_told_apart, None) or frozenset()
    entry = fetch(workload_entries, key) if asked else None
    found = [pair for pair in labels_of(entry).items() if pair in asked] if entry else []
    selected = fetch(selecting_sidecar, key)
    return tuple(sorted([*found, (SELECTED, selected)] if selected else found))


@table
def callers_apart(fetch: Fetch, namespace: str) -> dict[str, Labels]:
    """The kinds of callers in a namespace that have such labels, by the digest of those."""
    if not fetch(labels_told_apart, None) and not fetch.keys(sidecars, "namespace", namespace):
        return {}
    here = (key for key in fetch.keys(workload_entries, "role", "sidecar") if key[0] == namespace)
    found = {labels for key in here if (labels := fetch(caller_labels, key))}
    return {labels_digest(labels): labels for labels in sorted(found)}
