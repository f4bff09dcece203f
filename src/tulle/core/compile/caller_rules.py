"""DestinationRules for some callers → the destinations that these have, in the place of everybody's.

Such a rule is for the workloads that it selects, for the callers of its namespace where that is not the Service's, or for those
of the namespaces to which it is exported. With
`credentialName` a rule is for those whom it selects, as in Istio, and for gateways: they alone are sent the Secret. Subsets
that only such a rule defines are there for those callers, and for no others. Endpoints stay everybody's, but where the rule says
something of places (`local_rules`).
"""

from __future__ import annotations

from tulle.core.compile.callers import GATEWAY, Source, caller_labels
from tulle.core.compile.destination_rules import for_some, policy_of, rules_for, rules_of
from tulle.core.compile.destinations import Place, places_of, reached
from tulle.core.compile.endpoints import members_of
from tulle.core.compile.hostname import Key
from tulle.core.compile.objects import destination_rules, settled, workload_entries
from tulle.core.compile.services import called, registry, service
from tulle.core.compile.workload_notes import is_gateway
from tulle.core.flow import Fetch, table
from tulle.core.model.destination import Destination
from tulle.core.model.gateway import SecretRef
from tulle.core.model.route import labels_digest


@table
def maybe_apart(fetch: Fetch, namespace: str) -> bool:
    """Whether some rule may be for some callers of a namespace."""
    if fetch.keys(destination_rules, "credential", True) or fetch.keys(destination_rules, "exported", namespace):
        return True
    common = settled(fetch).root_namespaces
    for rule in fetch.rows(destination_rules, "namespace", namespace):
        target = None if rule.spec.host.startswith("*") else called(fetch, rule.spec.host, namespace)
        row = fetch(service, target) if target else None
        shared = (row.namespace,) if row else ()
        if for_some(fetch, rule, (*shared, *common)):
            return True
    return False


@table
def own_source(fetch: Fetch, key: Key) -> Source | None:
    """As which callers a workload with a proxy has destinations of its own; None where it has none."""
    if not fetch(maybe_apart, key[0]):  # first, so that without such rules nothing depends on who it is
        return None
    entry = fetch(workload_entries, key)
    if entry is None:
        return None
    labels = fetch(caller_labels, key) or ()
    source = Source(key[0], tuple(sorted((*labels, GATEWAY))) if is_gateway(entry) else labels)
    return source if fetch(places_apart, source) else None


@table
def sources_apart(fetch: Fetch, namespace: str) -> dict[str, Source]:
    """The callers of a namespace that have destinations of their own, by a digest of what they are."""
    keys = (*fetch.keys(workload_entries, "role", "sidecar"), *fetch.keys(workload_entries, "role", "gateway"))
    found = {source for key in keys if key[0] == namespace and (source := fetch(own_source, key))}
    return {labels_digest(source.labels): source for source in sorted(found)}


@table
def places_apart(fetch: Fetch, source: Source) -> tuple[Place, ...]:
    """The destinations that callers have as their own."""
    # Of everybody's rules those with a Secret concern gateways, who have it without being selected.
    secret = fetch.keys(destination_rules, "credential", True) if GATEWAY in source.labels else ()
    found: set[Place] = set()
    exported = fetch.keys(destination_rules, "exported", source.namespace)
    for key in sorted({*fetch.keys(destination_rules, "namespace", source.namespace), *exported, *secret}):
        rule = fetch(destination_rules, key)
        target = called(fetch, rule.spec.host, key[0]) if rule and not rule.spec.host.startswith("*") else None
        targets: tuple[Key, ...] = (target,) if target else fetch(registry, None) or ()
        for one in targets:
            if key in _own_rules(fetch, one, source) or (key in secret and key in (fetch(rules_for, one) or ())):
                there: tuple[Place, ...] = fetch(places_of, (one, source)) or ()
                found.update(there)
    return tuple(sorted(found))


def _own_rules(fetch: Fetch, key: Key, source: Source) -> tuple[Key, ...]:
    """The rules for a Service that callers have beside everybody's."""
    common = fetch(rules_for, key) or ()
    return tuple(one for one in fetch(rules_of, (key, source)) or () if one not in common)


@table
def destination_apart(fetch: Fetch, key: tuple[Place, Source]) -> Destination | None:
    """How requests of some callers reach (service, port, subset)."""
    said = fetch(policy_of, key)
    return reached(fetch, key[0], fetch(members_of, key), said, said.localities) if said else None


@table
def secrets_apart(fetch: Fetch, source: Source) -> tuple[SecretRef, ...]:
    """The Secrets that the destinations of callers need."""
    policies = (fetch(policy_of, (place, source)) for place in fetch(places_apart, source) or ())
    return tuple(dict.fromkeys(ref for said in policies if said for ref in said.secrets))
