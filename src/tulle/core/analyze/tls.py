"""Mutual TLS: what a DestinationRule tells callers against what the workloads take, and STRICT where it leaves nobody to call."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import msgspec

from tulle.core.analyze.inputs import workloads_known
from tulle.core.compile.destination_rules import rules_for, subset_labels
from tulle.core.compile.destinations import places
from tulle.core.compile.endpoints import Instance, instance, instances
from tulle.core.compile.hostname import Key, service_key
from tulle.core.compile.istio_tls import ENDED_BY_SIDECARS
from tulle.core.compile.mistakes import error, warning
from tulle.core.compile.mtls import Modes, modes
from tulle.core.compile.objects import (
    destination_rules,
    peer_authentications,
    selects,
    services,
    settled,
    sidecars,
    workload_entries,
)
from tulle.core.compile.services import service
from tulle.core.compile.sidecars import behind, sidecar_of
from tulle.core.compile.workload_notes import labels_of
from tulle.core.flow import Fetch
from tulle.core.model.workload import MtlsMode
from tulle.kit.problem import Problem

if TYPE_CHECKING:
    from tulle.api.istio import DestinationRule
    from tulle.api.istio.destination_rule import TrafficPolicy

_MANY = 3  # names in a message


class Said(msgspec.Struct, frozen=True):
    """A field that says how callers reach a destination: the rule that has it, its path, and the mode."""

    rule: Key
    path: str
    mode: str


def contradictions(fetch: Fetch, key: Key) -> Iterator[Problem]:
    """Fields of a DestinationRule that tell callers what the workloads do not take, by port and subset."""
    rule = fetch(destination_rules, key)
    if rule is None or not any(_fields(rule)):
        return
    found: dict[tuple[str, str], dict[str, None]] = {}
    for target in _targets(fetch, rule):
        for place in fetch(places, target) or ():
            said = _said(fetch, place)
            if said is None or said.rule != key:
                continue
            for reason, workload in _against(fetch, place, said.mode):
                found.setdefault((said.path, reason), {})[workload] = None
    for (path, reason), workloads in sorted(found.items()):
        names = _names(list(workloads))
        if reason == "PlaintextToStrict":
            message = f"found DISABLE, and {names} takes only mutual TLS (PeerAuthentication STRICT); needed no tls here"
        else:
            message = f"found ISTIO_MUTUAL, and {names} takes only plaintext (no sidecar, or DISABLE); needed no tls here"
        yield error(rule.ref, path, reason, message)


def _fields(rule: DestinationRule) -> Iterator[bool]:
    """Whether there is something to contradict, which most rules have not."""
    for policy in (rule.spec.traffic_policy, *(subset.traffic_policy for subset in rule.spec.subsets)):
        if policy:
            yield policy.tls is not None
            yield from (one.tls is not None for one in policy.port_level_settings)


def _targets(fetch: Fetch, rule: DestinationRule) -> Iterator[Key]:
    """The Services for which the rule counts."""
    key = (rule.metadata.namespace, rule.metadata.name)
    target = service_key(rule.spec.host, key[0])
    for one in (target,) if target else fetch.keys(services):
        if key in (fetch(rules_for, one) or ()):
            yield one


def _said(fetch: Fetch, place: tuple[Key, int, str]) -> Said | None:
    """The field that decides for (Service, port, subset): the subset's before the rule's, a port's before the rest."""
    target, port, subset = place
    whole: Said | None = None
    part: Said | None = None
    has_whole = has_part = False
    for key in fetch(rules_for, target) or ():
        rule = fetch(destination_rules, key)
        if rule is None:
            continue
        if not has_whole and rule.spec.traffic_policy:
            has_whole, whole = True, _of(key, rule.spec.traffic_policy, port, "spec.trafficPolicy")
        for index, one in enumerate(rule.spec.subsets if subset and not has_part else ()):
            if one.name == subset:
                has_part, part = True, _of(key, one.traffic_policy, port, f"spec.subsets[{index}].trafficPolicy")
    return part or whole


def _of(key: Key, said: TrafficPolicy | None, port: int, path: str) -> Said | None:
    if said is None:
        return None
    for index, one in enumerate(said.port_level_settings):
        if one.port and one.port.number == port:
            return Said(key, f"{path}.portLevelSettings[{index}].tls.mode", one.tls.mode) if one.tls else None
    return Said(key, f"{path}.tls.mode", said.tls.mode) if said.tls else None


def _against(fetch: Fetch, place: tuple[Key, int, str], mode: str) -> Iterator[tuple[str, str]]:
    """(reason, workload) of those that do not take what callers are told."""
    target, number, subset = place
    row = fetch(service, target)
    port = row.port(number) if row else None
    labels = (fetch(subset_labels, target) or {}).get(subset, {}) if subset else {}
    for one in fetch(instances, target) or ():
        if port is None or not selects(labels, one.labels):
            continue
        takes = _takes(fetch, one, one.port(port))
        if mode == "DISABLE" and takes is MtlsMode.STRICT:
            yield "PlaintextToStrict", one.workload
        if mode == "ISTIO_MUTUAL" and takes is MtlsMode.DISABLE:
            yield "MutualToPlaintext", one.workload


def _takes(fetch: Fetch, one: Instance, port: int) -> MtlsMode:
    if not one.mtls:
        return MtlsMode.DISABLE
    namespace, _slash, name = one.workload.partition("/")
    return (fetch(modes, (namespace, name)) or Modes()).of(port, one.app_ports.get(port, port))


def strict_outside(fetch: Fetch, key: Key) -> Iterator[Problem]:
    """Workloads without a proxy for which a PeerAuthentication says STRICT."""
    row = fetch(peer_authentications, key)
    if row is None or not fetch(workloads_known, None) or row.spec.mtls is None or row.spec.mtls.mode != "STRICT":
        return
    labels = row.spec.selector.match_labels if row.spec.selector else {}
    mesh = key[0] in settled(fetch).root_namespaces and not labels
    outside = fetch.keys(workload_entries, "outside", "" if mesh else key[0])
    found = []
    for one in outside:
        entry = fetch(workload_entries, one) if labels else None
        if labels and not (entry and selects(labels, labels_of(entry))):
            continue
        if (fetch(modes, one) or Modes()).default is MtlsMode.STRICT:
            found.append(f"{one[0]}/{one[1]}")
    if found:
        message = f"found STRICT, and {_names(found)} has no sidecar to answer mutual TLS; needed it in the mesh, or an exception"
        yield warning(row.ref, "spec.mtls.mode", "StrictOutsideMesh", message)


def ended_nowhere(fetch: Fetch, key: Key) -> Iterator[Problem]:
    """Ingress listeners of a Sidecar whose TLS nobody can use: the port takes only the mesh's."""
    row = fetch(sidecars, key)
    said = [(at, one) for at, one in enumerate(row.spec.ingress) if one.tls and one.tls.mode in ENDED_BY_SIDECARS] if row else []
    if row is None or not said:
        return
    anywhere = key[0] in settled(fetch).root_namespaces
    entries = fetch.keys(workload_entries) if anywhere else fetch.keys(workload_entries, "namespace", key[0])
    mine = [one for one in sorted(entries) if (here := fetch(instance, one)) and here.mtls and sidecar_of(fetch, one) == row]
    for index, listener in said:
        number = listener.port.number
        _host, app_port, _path = behind(listener, "")
        strict = [f"{one[0]}/{one[1]}" for one in mine if (fetch(modes, one) or Modes()).of(number, app_port) is MtlsMode.STRICT]
        if strict:
            message = f"{_names(strict)} takes only the mesh's mutual TLS there (PeerAuthentication STRICT); needed PERMISSIVE"
            yield warning(row.ref, f"spec.ingress[{index}].tls", "StrictIngress", f"{message} at port {number}")


def _names(workloads: list[str]) -> str:
    shown = ", ".join(workloads[:_MANY])
    more = len(workloads) - _MANY
    return f"{shown} and {more} more" if more > 0 else shown
