"""DestinationRule → which rules hold for a Service, its subsets, and the policy of each of its ports and subsets.

Of the rules for a Service those of its own namespace count for all callers to whom they are exported, else those of the root
namespace. Callers whose own namespace has a rule for it follow that one, and before it one that selects them (`rules_of`).
Several rules for one host are one: subsets add up, and the oldest with a policy has it. A rule that names the host outright
comes before one with a wildcard.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from tulle.api.istio import DestinationRule
from tulle.api.istio.destination_rule import TrafficPolicy
from tulle.core.compile.callers import GATEWAY, Source
from tulle.core.compile.detection import NOTES, detecting, detection_problems
from tulle.core.compile.exports import counts_for
from tulle.core.compile.gateway_secrets import authorities_fault, authorities_ref, pair_fault, pair_ref
from tulle.core.compile.hostname import Key, covers, full_name, meanings, shown, specificity
from tulle.core.compile.mistakes import error, no_service, sorted_problems, unsaid, warning
from tulle.core.compile.objects import age, destination_rules, secrets, settled
from tulle.core.compile.services import called, service
from tulle.core.compile.traffic_policies import OWN, Policy, merge, read
from tulle.core.compile.traffic_policy_problems import unsaid_policy
from tulle.core.flow import Fetch, table
from tulle.core.model.gateway import SecretRef
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
            if rule.metadata.namespace == namespace and counts_for(fetch, rule, "*") and rule.spec.workload_selector is None
        ]
        if here:
            best = min(specificity(_host(rule, name)) for rule in here)
            chosen = sorted((rule for rule in here if specificity(_host(rule, name)) == best), key=age)
            return tuple((rule.metadata.namespace, rule.metadata.name) for rule in chosen)
    return ()


def _candidates(fetch: Fetch, key: Key) -> tuple[Key, ...]:
    return *fetch.keys(destination_rules, "host", key), *fetch.keys(destination_rules, "host", "*")


@table
def rules_of_some(fetch: Fetch, key: Key) -> tuple[Key, ...]:
    """The DestinationRules for a Service that hold for some callers alone: by a selector, by their namespace, or by that to which
    they are exported; the oldest first.
    """
    name, common = full_name(key), _common(fetch, key)
    found = (rule for one in _candidates(fetch, key) if (rule := fetch(destination_rules, one)))
    some = (rule for rule in found if for_some(fetch, rule, common) and covers(_host(rule, name), name))
    return tuple((rule.metadata.namespace, rule.metadata.name) for rule in sorted(some, key=age))


def _common(fetch: Fetch, key: Key) -> tuple[str, ...]:
    """The namespaces whose rules for a Service count for callers of others too, the first that has some alone."""
    row = fetch(service, key)
    return (row.namespace if row else key[0], *settled(fetch).root_namespaces)


def for_some(fetch: Fetch, rule: DestinationRule, common: tuple[str, ...]) -> bool:
    """Whether a rule counts for some callers alone."""
    return rule.spec.workload_selector is not None or rule.metadata.namespace not in common or not counts_for(fetch, rule, "*")


@table
def rules_of(fetch: Fetch, key: tuple[Key, Source]) -> tuple[Key, ...]:
    """The DestinationRules for a Service as some callers have them.

    Those that select the callers, then the others of their namespace, then those of the Service's (or the root's) that are
    exported to them and not to all (of each the most specific host's), then those for all.
    """
    service_key, source = key
    name, labels = full_name(service_key), set(source.labels)
    rules = [rule for one in fetch(rules_of_some, service_key) or () if (rule := fetch(destination_rules, one))]
    rules = [rule for rule in rules if counts_for(fetch, rule, source.namespace) and _asked(rule) <= labels]
    own = [rule for rule in rules if rule.metadata.namespace == source.namespace]
    steps = [[rule for rule in own if (rule.spec.workload_selector is not None) is selecting] for selecting in (True, False)]
    shared = fetch(rules_for, service_key) or ()
    others = [one for one in rules if one.spec.workload_selector is None and one.metadata.namespace != source.namespace]
    for common in _common(fetch, service_key) if others else ():
        steps.append([one for one in others if one.metadata.namespace == common])
        if steps[-1] or any(one[0] == common for one in shared):
            break
    found: list[Key] = []
    for some in steps:
        best = min((specificity(_host(rule, name)) for rule in some), default=None)
        found += ((one.metadata.namespace, one.metadata.name) for one in some if specificity(_host(one, name)) == best)
    return (*found, *shared)


def _asked(rule: DestinationRule) -> set[tuple[str, str]]:
    return set(rule.spec.workload_selector.match_labels.items()) if rule.spec.workload_selector else set()


@table
def shared_subsets(fetch: Fetch, key: Key) -> tuple[str, ...]:
    """The subsets of a Service that all callers have."""
    return _subsets(fetch, fetch(rules_for, key) or ())


@table
def subsets_of(fetch: Fetch, key: tuple[Key, Source]) -> tuple[str, ...]:
    """Those that some callers have, with all others'."""
    return _subsets(fetch, fetch(rules_of, key) or ())


def _subsets(fetch: Fetch, rules: tuple[Key, ...]) -> tuple[str, ...]:
    rows = (row for one in rules if (row := fetch(destination_rules, one)))
    return tuple(sorted({subset.name for row in rows for subset in row.spec.subsets}))


@table
def subset_labels(fetch: Fetch, key: Key) -> dict[str, dict[str, str]]:
    """The labels of a Service's subsets, by name, whoever has them. Those that all have come before others of the same name."""
    return _labels(fetch, (*(fetch(rules_for, key) or ()), *(fetch(rules_of_some, key) or ())))


@table
def subset_labels_of(fetch: Fetch, key: tuple[Key, Source]) -> dict[str, dict[str, str]]:
    """The labels of those that some callers have: their own rules come before those that all have."""
    return _labels(fetch, fetch(rules_of, key) or ())


def _labels(fetch: Fetch, rules: tuple[Key, ...]) -> dict[str, dict[str, str]]:
    labels: dict[str, dict[str, str]] = {}
    for rule_key in rules:
        rule = fetch(destination_rules, rule_key)
        for subset in rule.spec.subsets if rule else ():
            labels.setdefault(subset.name, dict(subset.labels))
    return labels


@table
def policy(fetch: Fetch, key: tuple[Key, int, str]) -> Policy:
    """The policy of (service, port, subset): what the subset says over what its rule says (see `traffic_policies`)."""
    found = _policy(fetch, fetch(rules_for, key[0]) or (), key)
    # Nobody has the Secret who is not told apart.
    return msgspec.structs.replace(found, tls=None) if found.credential else found


@table
def policy_of(fetch: Fetch, key: tuple[tuple[Key, int, str], Source]) -> Policy:
    """The same as some callers have it."""
    place, source = key
    rules = fetch(rules_of, (place[0], source)) or ()
    found = _policy(fetch, rules, place)
    if found.tls is None or not found.credential:
        return found
    first = fetch(destination_rules, rules[0])
    if GATEWAY not in source.labels and (first is None or first.spec.workload_selector is None):
        return msgspec.structs.replace(found, tls=None)
    secret = (source.namespace, found.credential)
    shown = (pair_ref(secret),) if found.shows else ()
    trusted = _authorities(fetch, secret) if found.tls.verify else ()
    tls = msgspec.structs.replace(
        found.tls,
        certificate=shown[0].resource if shown else "",
        roots=trusted[0].resource if trusted else "",
        nobody=not trusted,
    )
    return msgspec.structs.replace(found, tls=tls, secrets=(*shown, *trusted))


def _authorities(fetch: Fetch, secret: Key) -> tuple[SecretRef, ...]:
    """Where the certificates are that a server is checked with, as in Istio: in NAME-cacert, or in the Secret itself."""
    for name in (f"{secret[1]}-cacert", secret[1]):
        if not authorities_fault(fetch, "Secret", (secret[0], name)):
            return (authorities_ref([("Secret", (secret[0], name))]),)
    return ()


def _policy(fetch: Fetch, rules: tuple[Key, ...], key: tuple[Key, int, str]) -> Policy:
    _service_key, port, subset = key
    whole: TrafficPolicy | None = None
    part: TrafficPolicy | None = None
    noted: DestinationRule | None = None
    for rule_key in rules:
        rule = fetch(destination_rules, rule_key)
        if rule is None:
            continue
        if noted is None and NOTES & rule.metadata.annotations.keys():
            noted = rule
        whole = whole or rule.spec.traffic_policy
        if part is None and subset:
            part = next((one.traffic_policy for one in rule.spec.subsets if one.name == subset), None)
    said = read(merge(whole, part, port))
    return detecting(said, noted, port) if noted else said


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
    yield from detection_problems(rule, row)
    yield from unsaid(ref, spec, "spec", ("host", "traffic_policy", "subsets", "export_to", "workload_selector"))
    yield from unsaid_policy(ref, spec.traffic_policy, "spec.trafficPolicy")
    yield from _secrets(fetch, rule, spec.traffic_policy, "spec.trafficPolicy")
    for index, subset in enumerate(spec.subsets):
        path = f"spec.subsets[{index}].trafficPolicy"
        yield from unsaid_policy(ref, subset.traffic_policy, path)
        yield from _secrets(fetch, rule, subset.traffic_policy, path)


def _secrets(fetch: Fetch, rule: DestinationRule, said: TrafficPolicy | None, path: str) -> Iterator[Problem]:
    """Secrets for TLS that nobody is sent, that are not there, or that cannot be used."""
    settings = [(path, said.tls)] if said else []
    settings += (
        (f"{path}.portLevelSettings[{index}]", one.tls) for index, one in enumerate(said.port_level_settings if said else ())
    )
    for at, tls in settings:
        if tls is None or tls.mode not in OWN or not tls.credential_name:
            continue
        field = f"{at}.tls.credentialName"
        if rule.spec.workload_selector is None:
            message = "credentialName without a workloadSelector is for gateways alone"
            yield warning(rule.ref, field, "NotYetSupported", f"{message}: sidecars speak no TLS; needed one, or files")
            continue
        key = (rule.metadata.namespace, tls.credential_name)
        fault = pair_fault(fetch, key) if tls.mode == "MUTUAL" else ""
        if not fault and not tls.insecure_skip_verify and not _authorities(fetch, key):
            fault = f"no Secret {key[1]} or {key[1]}-cacert in namespace {key[0]} has certificates in ca.crt"
        missing = fetch(secrets, key) is None and fetch(secrets, (key[0], f"{key[1]}-cacert")) is None
        if fault:
            yield warning(rule.ref, field, "SecretNotFound" if missing else "SecretUnusable", f"{fault}; requests fail")


def _place(fetch: Fetch, key: Key, rule: DestinationRule, target: Key, owner: str) -> Iterator[Problem]:
    spec, ref = rule.spec, rule.ref
    callers = dict.fromkeys((key[0], *(word for word in spec.export_to if word not in ("*", ".", "~"))))
    followed = (fetch(rules_of, (target, Source(one, tuple(sorted(_asked(rule)))))) or () for one in callers)
    chosen = next((rules for rules in followed if key in rules), ())
    if key not in chosen:
        where = f"namespace {owner}, where the Service is, or the root namespace"
        if key[0] in (owner, *settled(fetch).root_namespaces):
            where = "an exportTo that callers are in, and no rule of the Service's namespace beside it"
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
    yield from _tunnels(fetch, rule, target)


def _tunnels(fetch: Fetch, rule: DestinationRule, target: Key) -> Iterator[Problem]:
    """Tunnels to a service of which no port carries bytes."""
    row = fetch(service, target)
    if row is None or any(not port.protocol.is_http for port in row.ports):
        return
    policies = [("spec.trafficPolicy", rule.spec.traffic_policy)]
    policies += [(f"spec.subsets[{index}].trafficPolicy", one.traffic_policy) for index, one in enumerate(rule.spec.subsets)]
    for path, policy in policies:
        if policy is not None and policy.tunnel is not None:
            message = f"every port of {shown(target)} is declared as HTTP; needed one that is not: the tunnel has no effect"
            yield warning(rule.ref, f"{path}.tunnel", "NoTcpPort", message)
