"""Which AuthorizationPolicies and RequestAuthentications are for a workload.

One is for the workloads of its namespace, or of all namespaces where it lies in the root namespace: all of them, those that its
selector names, or what its targetRefs name: the ports of a Service or of a ServiceEntry's host, what is bound for a Gateway, or
(in the root namespace) for all Gateways of a GatewayClass.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from tulle.api.istio import AuthorizationPolicy, RequestAuthentication, Telemetry
from tulle.core.compile.hostname import Key
from tulle.core.compile.mistakes import warning
from tulle.core.compile.objects import (
    age,
    authorization_policies,
    request_authentications,
    selects,
    settled,
    targets_of,
    workload_entries,
)
from tulle.core.compile.workload_notes import labels_of
from tulle.core.flow import Fetch, Input, table
from tulle.kit.problem import Problem

Guarding = AuthorizationPolicy | RequestAuthentication
Target = tuple[str, str, Key]  # group, kind, object

SOURCES: Mapping[str, Input[Key, Any]] = {
    "AuthorizationPolicy": authorization_policies,
    "RequestAuthentication": request_authentications,
}
CLASS = ("gateway.networking.k8s.io", "GatewayClass")
_TARGETS = (
    ("", "Service"),
    ("networking.istio.io", "ServiceEntry"),
    ("networking.istio.io", "Gateway"),
    ("gateway.networking.k8s.io", "Gateway"),
    CLASS,
)


class Standing(NamedTuple):
    """What of a policy says where it stands, and is the same when its rules are others: its age, and the labels it is for."""

    age: tuple[str, str, str]
    labels: tuple[tuple[str, str], ...]


@table
def standing(fetch: Fetch, key: tuple[str, Key]) -> Standing | None:
    """Where a (kind, policy) stands."""
    row: Guarding | None = fetch(SOURCES[key[0]], key[1])
    if row is None:
        return None
    return Standing(age(row), tuple(row.spec.selector.match_labels.items()) if row.spec.selector else ())


def in_order(fetch: Fetch, kind: str, keys: Iterable[Key]) -> tuple[Key, ...]:
    """Policies of a kind, the oldest first."""
    there: dict[Key, Standing] = {key: found for key in keys if (found := fetch(standing, (kind, key)))}
    return tuple(sorted(there, key=lambda key: there[key].age))


@table
def wide_policies(fetch: Fetch, key: tuple[str, str]) -> tuple[Key, ...]:
    """Those of a (kind, namespace) that are for all workloads of the namespace."""
    kind, namespace = key
    spaces = dict.fromkeys((*settled(fetch).root_namespaces, namespace))
    return tuple(one for space in spaces for one in fetch.keys(SOURCES[kind], "target", (space,)))


@table
def policies_of(fetch: Fetch, key: tuple[str, Key]) -> tuple[Key, ...]:
    """Those of a (kind, workload) that are for all that the workload is called at."""
    kind, workload = key
    entry = fetch(workload_entries, workload)
    if entry is None:
        return ()
    labels = labels_of(entry)
    wide: tuple[Key, ...] | None = fetch(wide_policies, (kind, workload[0]))
    found = dict.fromkeys(wide or ())
    for space in dict.fromkeys((*settled(fetch).root_namespaces, workload[0])):
        for name, value in labels.items():
            for one in fetch.keys(SOURCES[kind], "target", (space, name, value)):
                stands: Standing | None = fetch(standing, (kind, one))
                if stands and stands.labels and selects(dict(stands.labels), labels):
                    found[one] = None
    return in_order(fetch, kind, found)


def policies_for(fetch: Fetch, kind: str, target: Target) -> tuple[Key, ...]:
    """Those of a kind that refer to an object."""
    group, called, key = target
    return fetch.keys(SOURCES[kind], "target", (group, called, *key))


def target_problems(fetch: Fetch, row: Guarding | Telemetry) -> Iterator[Problem]:
    """References to what no policy can be for."""
    for index, one in enumerate(targets_of(row)):
        path = "spec.targetRef" if row.spec.target_ref else f"spec.targetRefs[{index}]"
        if (one.group, one.kind) == CLASS and row.metadata.namespace not in settled(fetch).root_namespaces:
            message = f"found a GatewayClass in a policy of {row.metadata.namespace}, which has no effect there; needed one of "
            yield warning(row.ref, f"{path}.kind", "NotHonoured", f"{message}{settled(fetch).root_namespaces[0]}")
        elif (one.group, one.kind) not in _TARGETS:
            found = f"{one.kind}.{one.group}" if one.group else one.kind
            message = f"found {found}; needed a Gateway, a Service or a ServiceEntry: the policy has no effect there"
            yield warning(row.ref, f"{path}.kind", "NotHonoured", message)
