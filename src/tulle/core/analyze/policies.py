"""Policies: those that are for nobody, that are for the same workloads, or that name what is not there."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from tulle.core.analyze.inputs import (
    proxy_configs,
    workloads_known,
)
from tulle.core.compile.hostname import Key
from tulle.core.compile.mistakes import meant, warning
from tulle.core.compile.objects import (
    age,
    authorization_policies,
    backend_tls_policies,
    chosen_label,
    destination_rules,
    gateway_classes,
    gateways,
    grpc_routes,
    http_routes,
    istio_gateways,
    mesh_configs,
    peer_authentications,
    rate_limits,
    request_authentications,
    selects,
    service_entries,
    services,
    settled,
    sidecars,
    telemetries,
    workload_entries,
)
from tulle.core.compile.workload_notes import labels_of
from tulle.core.flow import Fetch, Input, table
from tulle.kit.problem import Problem, Ref

Labels = Mapping[str, str]
Selector = Callable[[Any], tuple[str, Labels]]  # the field of a spec that selects, and its labels


def _match_labels(spec: Any) -> tuple[str, Labels]:
    return "spec.selector", spec.selector.match_labels if spec.selector else {}


def _workload_selector(spec: Any) -> tuple[str, Labels]:
    return "spec.workloadSelector", spec.workload_selector.labels if spec.workload_selector else {}


def _rule_selector(spec: Any) -> tuple[str, Labels]:
    return "spec.workloadSelector", spec.workload_selector.match_labels if spec.workload_selector else {}


def selecting(source: Input[Key, Any], labels: Selector, *, mesh_wide: bool = False) -> Callable[[Fetch, Key], Iterator[Problem]]:
    """The analyzer of a kind whose `labels` select workloads: those that select none.

    `mesh_wide`: in the root namespace they select in all namespaces.
    """

    def nobody(fetch: Fetch, key: Key) -> Iterator[Problem]:
        row = fetch(source, key)
        if row is None:
            return
        path, wanted = labels(row.spec)
        if not wanted or not fetch(workloads_known, None):
            return
        root = mesh_wide and key[0] in settled(fetch).root_namespaces
        if not fetch(somebody, ("" if root else key[0], tuple(sorted(wanted.items())))):
            where = "the mesh" if root else f"namespace {key[0]}"
            words = ", ".join(f"{name}: {value}" for name, value in sorted(wanted.items()))
            yield warning(row.ref, path, "SelectsNothing", f"no workload of {where} has the labels {words}; needed one")

    return nobody


@table
def somebody(fetch: Fetch, key: tuple[str, tuple[tuple[str, str], ...]]) -> bool:
    """Whether a workload of a namespace ("": of any) has all of these labels."""
    namespace, labels = key
    wanted = dict(labels)
    chosen = chosen_label(wanted)
    assert chosen is not None
    candidates = fetch.keys(workload_entries, "label", (namespace, *chosen)) if namespace else fetch.keys(workload_entries)
    return any(selects(wanted, labels_of(row)) for one in candidates if (row := fetch(workload_entries, one)))


authorization_policy_for_nobody = selecting(authorization_policies, _match_labels, mesh_wide=True)
peer_authentication_for_nobody = selecting(peer_authentications, _match_labels)
request_authentication_for_nobody = selecting(request_authentications, _match_labels, mesh_wide=True)
telemetry_for_nobody = selecting(telemetries, _match_labels)
rate_limit_for_nobody = selecting(rate_limits, _match_labels)
proxy_config_for_nobody = selecting(proxy_configs, _match_labels)
sidecar_for_nobody = selecting(sidecars, _workload_selector)
service_entry_for_nobody = selecting(service_entries, _workload_selector)
destination_rule_for_nobody = selecting(destination_rules, _rule_selector)


def alone(source: Input[Key, Any], labels: Selector) -> Callable[[Fetch, Key], Iterator[Problem]]:
    """The analyzer of a kind of which a workload follows only one: those that an older one makes void."""

    def older(fetch: Fetch, key: Key) -> Iterator[Problem]:
        row = fetch(source, key)
        if row is None or getattr(row.spec, "target_ref", None) or getattr(row.spec, "target_refs", None):
            return
        path, mine = labels(row.spec)
        same = [
            other
            for other in fetch.rows(source, "namespace", key[0])
            if age(other) < age(row)
            and dict(labels(other.spec)[1]) == dict(mine)
            and not (getattr(other.spec, "target_ref", None) or getattr(other.spec, "target_refs", None))
        ]
        if same:
            whom = "the same workloads" if mine else "the whole namespace"
            message = f"{min(same, key=age).ref} is older and for {whom}; needed one of the two"
            yield warning(row.ref, path if mine else "spec", "Conflict", message)

    return older


sidecar_conflicts = alone(sidecars, _workload_selector)
telemetry_conflicts = alone(telemetries, _match_labels)
proxy_config_conflicts = alone(proxy_configs, _match_labels)


def targeting(source: Input[Key, Any]) -> Callable[[Fetch, Key], Iterator[Problem]]:
    """The analyzer of a kind with targetRefs: those whose target is not there."""

    def absent(fetch: Fetch, key: Key) -> Iterator[Problem]:
        row = fetch(source, key)
        if row is None:
            return
        named: list[tuple[str, Any]] = []
        if single := getattr(row.spec, "target_ref", None):
            named.append(("spec.targetRef", single))
        named += ((f"spec.targetRefs[{at}]", one) for at, one in enumerate(row.spec.target_refs or ()))
        for path, one in named:
            found = _TARGETS.get((one.group, one.kind))
            here = "" if found is gateway_classes else key[0]
            if found is not None and fetch(found, (here, one.name)) is None:
                near = meant(one.name, (name for space, name in fetch.keys(found) if space == here))
                where = f" in namespace {here}" if here else ""
                yield warning(row.ref, f"{path}.name", "TargetNotFound", f"no {one.kind} {one.name}{where}{near}")

    return absent


_TARGETS: Mapping[tuple[str, str], Input[Key, Any]] = {
    ("", "Service"): services,
    ("networking.istio.io", "ServiceEntry"): service_entries,
    ("networking.istio.io", "Gateway"): istio_gateways,
    ("gateway.networking.k8s.io", "Gateway"): gateways,
    ("gateway.networking.k8s.io", "GatewayClass"): gateway_classes,
    ("gateway.networking.k8s.io", "HTTPRoute"): http_routes,
    ("gateway.networking.k8s.io", "GRPCRoute"): grpc_routes,
}
authorization_policy_targets = targeting(authorization_policies)
request_authentication_targets = targeting(request_authentications)
telemetry_targets = targeting(telemetries)
rate_limit_targets = targeting(rate_limits)
backend_tls_targets = targeting(backend_tls_policies)


@table
def providers(fetch: Fetch, _key: None) -> tuple[str, ...]:
    """The names of the providers that MeshConfigs define."""
    rows = fetch.rows(mesh_configs)
    return tuple(sorted({one.name for row in rows for one in row.spec.extension_providers}))


def authorization_policy_provider(fetch: Fetch, key: Key) -> Iterator[Problem]:
    """The external authorizer of the action CUSTOM."""
    row = fetch(authorization_policies, key)
    if row and row.spec.provider:
        yield from _provider(fetch, row.ref, "spec.provider.name", row.spec.provider.name)


# Providers that are there without being said, as in Istio's own default configuration.
_BUILT_IN = ("envoy", "prometheus")


def telemetry_providers(fetch: Fetch, key: Key) -> Iterator[Problem]:
    """Where logs, metrics and traces go."""
    row = fetch(telemetries, key)
    if row is None:
        return
    parts: tuple[tuple[str, Any], ...] = (
        ("tracing", row.spec.tracing),
        ("metrics", row.spec.metrics),
        ("accessLogging", row.spec.access_logging),
    )
    for field, entries in parts:
        for index, entry in enumerate(entries):
            for at, provider in enumerate(entry.providers):
                if provider.name not in _BUILT_IN:
                    yield from _provider(fetch, row.ref, f"spec.{field}[{index}].providers[{at}].name", provider.name)


def _provider(fetch: Fetch, ref: Ref, path: str, name: str) -> Iterator[Problem]:
    known = fetch(providers, None) or ()
    if name not in known:
        has = f"it has {', '.join(known)}" if known else "there is none"
        yield warning(ref, path, "ProviderNotFound", f"no MeshConfig defines the provider {name}; {has}{meant(name, known)}")
