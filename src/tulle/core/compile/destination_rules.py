"""DestinationRule → which rules hold for a Service, its subsets, and the policy of each of its ports and subsets.

Of the rules for a Service those of its own namespace count, else those of the root namespace: all callers share one view of a
destination. Several rules for one host are one: subsets add up, and the oldest with a policy has it. A rule that names the host
outright comes before one with a wildcard.
"""

from __future__ import annotations

from collections.abc import Iterator

from tulle.api.istio import DestinationRule
from tulle.api.istio.destination_rule import TrafficPolicy
from tulle.core.compile.hostname import Key, covers, full_name, meanings, shown, specificity
from tulle.core.compile.mistakes import error, no_service, sorted_problems, unsaid, warning
from tulle.core.compile.objects import age, destination_rules, settled, visible
from tulle.core.compile.services import called, service
from tulle.core.compile.traffic_policies import Policy, merge, read
from tulle.core.compile.traffic_policy_problems import unsaid_of_bytes, unsaid_policy
from tulle.core.flow import Fetch, table
from tulle.kit.problem import Problem


def _host(rule: DestinationRule, name: str) -> str:
    """The rule's host in full, or its wildcard; of the names that it may mean, `name` where that is one."""
    host = rule.spec.host
    found = [full_name(key) for key in meanings(host, rule.metadata.namespace)]
    return name if name in found else next(iter(found), host)


@table
def rules_for(fetch: Fetch, key: Key) -> tuple[Key, ...]:
    """The DestinationRules that hold for a Service, the oldest first."""
    found = {candidate: fetch(destination_rules, candidate) for candidate in _candidates(fetch, key)}
    name, row = full_name(key), fetch(service, key)
    owner = row.namespace if row else key[0]
    rules = [rule for rule in found.values() if rule and covers(_host(rule, name), name)]
    for namespace in (owner, *settled(fetch).root_namespaces):
        here = [
            rule
            for rule in rules
            if rule.metadata.namespace == namespace and _exported(rule, owner) and rule.spec.workload_selector is None
        ]
        if here:
            best = min(specificity(_host(rule, name)) for rule in here)
            chosen = sorted((rule for rule in here if specificity(_host(rule, name)) == best), key=age)
            return tuple((rule.metadata.namespace, rule.metadata.name) for rule in chosen)
    return ()


def _candidates(fetch: Fetch, key: Key) -> tuple[Key, ...]:
    return *fetch.keys(destination_rules, "host", key), *fetch.keys(destination_rules, "host", "*")


def _exported(rule: DestinationRule, namespace: str) -> bool:
    return visible(rule.spec.export_to, rule.metadata.namespace, namespace)


@table
def subset_labels(fetch: Fetch, key: Key) -> dict[str, dict[str, str]]:
    """The labels of a Service's subsets, by name."""
    labels: dict[str, dict[str, str]] = {}
    for rule_key in fetch(rules_for, key) or ():
        rule = fetch(destination_rules, rule_key)
        for subset in rule.spec.subsets if rule else ():
            labels.setdefault(subset.name, dict(subset.labels))
    return labels


@table
def policy(fetch: Fetch, key: tuple[Key, int, str]) -> Policy:
    """The policy of (service, port, subset): what the subset says over what its rule says (see `traffic_policies`)."""
    service_key, port, subset = key
    whole: TrafficPolicy | None = None
    part: TrafficPolicy | None = None
    for rule_key in fetch(rules_for, service_key) or ():
        rule = fetch(destination_rules, rule_key)
        if rule is None:
            continue
        whole = whole or rule.spec.traffic_policy
        if part is None and subset:
            part = next((one.traffic_policy for one in rule.spec.subsets if one.name == subset), None)
    return read(merge(whole, part, port))


@table
def destination_rule_problems(fetch: Fetch, key: Key) -> tuple[Problem, ...]:
    """A host that is no Service, subsets and policies that an older rule has, fields and places without effect."""
    rule = fetch(destination_rules, key)
    return sorted_problems(_problems(fetch, key, rule)) if rule else ()


def _problems(fetch: Fetch, key: Key, rule: DestinationRule) -> Iterator[Problem]:
    spec, ref = rule.spec, rule.ref
    target = None if spec.host.startswith("*") else called(fetch, spec.host, key[0])
    row = fetch(service, target) if target else None
    if target is not None and row is not None:
        yield from _place(fetch, key, rule, target, row.namespace)
    elif not spec.host.startswith("*"):
        message = no_service(fetch, target) if target else f"found {spec.host}; needed the host of a service of the mesh"
        yield error(ref, "spec.host", "HostNotFound", message)
    yield from unsaid(ref, spec, "spec", ("host", "traffic_policy", "subsets", "export_to"))
    yield from unsaid_policy(ref, spec.traffic_policy, "spec.trafficPolicy")
    for index, subset in enumerate(spec.subsets):
        yield from unsaid_policy(ref, subset.traffic_policy, f"spec.subsets[{index}].trafficPolicy")
    bytes_ = [port.number for port in row.ports if not port.protocol.is_http] if row else []
    yield from unsaid_of_bytes(ref, spec.traffic_policy, "spec.trafficPolicy", bytes_)
    for index, subset in enumerate(spec.subsets):
        yield from unsaid_of_bytes(ref, subset.traffic_policy, f"spec.subsets[{index}].trafficPolicy", bytes_)


def _place(fetch: Fetch, key: Key, rule: DestinationRule, target: Key, owner: str) -> Iterator[Problem]:
    spec, ref = rule.spec, rule.ref
    chosen = fetch(rules_for, target) or ()
    if key not in chosen:
        if spec.workload_selector is not None:
            return  # said as a field without effect
        where = f"namespace {owner}, where the Service is, or the root namespace"
        if key[0] in (owner, *settled(fetch).root_namespaces):
            where = "an exportTo that the Service's namespace is in, and no rule of that namespace beside it"
        named = shown(target).removeprefix("Service ")
        message = f"a rule in namespace {key[0]} for {named} has no effect; needed {where}"
        yield warning(ref, "metadata.namespace", "NotYetSupported", message)
        return
    older = [found for one in chosen[: chosen.index(key)] if (found := fetch(destination_rules, one))]
    taken = {subset.name: other for other in reversed(older) for subset in other.spec.subsets}
    for index, subset in enumerate(spec.subsets):
        if other := taken.get(subset.name):
            message = (
                f'found "{subset.name}", which the older {other.ref} defines; needed a name of its own: this one has no effect'
            )
            yield warning(ref, f"spec.subsets[{index}].name", "Conflict", message)
    with_policy = next((other for other in older if other.spec.traffic_policy), None)
    if spec.traffic_policy and with_policy:
        message = f"the older {with_policy.ref} has a policy for this host; needed one of the two: this one has no effect"
        yield warning(ref, "spec.trafficPolicy", "Conflict", message)
