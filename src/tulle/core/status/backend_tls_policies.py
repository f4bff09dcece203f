"""BackendTLSPolicy → `status.ancestors`: for each Gateway that sends requests to its Services, whether the policy holds.

What a policy means is in `compile.backend_tls`; here it is said whether it holds, and if not, why.
"""

from __future__ import annotations

from collections.abc import Iterator

from tulle.api.gateway import BackendTLSPolicy
from tulle.api.gateway.shared import GROUP_NAME
from tulle.core.compile.backend_tls import SOURCES
from tulle.core.compile.gateway_workloads import CONTROLLER
from tulle.core.compile.hostname import Key
from tulle.core.compile.listeners import Fault
from tulle.core.compile.objects import ROUTES, age, backend_tls_policies, services
from tulle.core.compile.tls_options import backend_option_problems
from tulle.core.flow import Fetch, table
from tulle.core.status.routes import gateways_of
from tulle.core.status.rows import Condition, Part, Status, false, refused, true

_MOST_ANCESTORS = 16


@table
def backend_tls_policy_status(fetch: Fetch, key: Key) -> Status | None:
    """The status of a BackendTLSPolicy."""
    row = fetch(backend_tls_policies, key)
    if row is None:
        return None
    conditions = _conditions(fetch, key, row)
    refs = [*_gateways(fetch, key, row)] or [
        {"group": target.group, "kind": target.kind, "namespace": key[0], "name": target.name}
        for target in row.spec.target_refs
        if (target.group, target.kind) == ("", "Service")
    ]
    ancestors = (Part({"ancestorRef": ref, "controllerName": CONTROLLER}, conditions) for ref in refs)
    return Status(parts={"ancestors": tuple(ancestors)[:_MOST_ANCESTORS]})


def _gateways(fetch: Fetch, key: Key, row: BackendTLSPolicy) -> Iterator[dict[str, str]]:
    """The Gateways whose routes lead to a target."""
    found: set[Key] = set()
    for target in row.spec.target_refs:
        for kind, rows in ROUTES.items():
            for route in fetch.keys(rows, "backend", (key[0], target.name)):
                found |= gateways_of(fetch, kind, route)
    for namespace, name in sorted(found):
        yield {"group": GROUP_NAME, "kind": "Gateway", "namespace": namespace, "name": name}


def _conditions(fetch: Fetch, key: Key, row: BackendTLSPolicy) -> tuple[Condition, ...]:
    unresolved = _authorities(fetch, key, row)
    resolved = true("ResolvedRefs", message="all references were found")
    if unresolved:
        resolved = refused("ResolvedRefs", unresolved)
    return _accepted(fetch, key, row, unresolved), resolved


def _accepted(fetch: Fetch, key: Key, row: BackendTLSPolicy, unresolved: Fault | None) -> Condition:
    for index, target in enumerate(row.spec.target_refs):
        path = f"spec.targetRefs[{index}]"
        if (target.group, target.kind) != ("", "Service"):
            return false("Accepted", "Invalid", f"{path}.kind: found {target.kind}; needed a Service")
        service = fetch(services, (key[0], target.name))
        if service is None:
            return false("Accepted", "TargetNotFound", f"{path}.name: no Service {target.name} in namespace {key[0]}")
        if target.section_name and target.section_name not in [port.name for port in service.spec.ports]:
            message = f"Service {target.name} has no port named {target.section_name}"
            return false("Accepted", "TargetNotFound", f"{path}.sectionName: {message}")
        for other in fetch.rows(backend_tls_policies, "target", (key[0], target.name)):
            same = any((one.name, one.section_name) == (target.name, target.section_name) for one in other.spec.target_refs)
            if same and age(other) < age(row):
                message = f"BackendTLSPolicy {other.metadata.name} is older and for the same Service or port"
                return false("Accepted", "Conflicted", f"{path}: {message}")
    if unresolved:
        return false("Accepted", "NoValidCACertificate", unresolved.message)
    said = row.spec.validation
    if said.well_known_ca_certificates not in (None, "System"):
        message = f"found {said.well_known_ca_certificates}; needed System"
        return false("Accepted", "Invalid", f"spec.validation.wellKnownCACertificates: {message}")
    without = [f"{one.path}: {one.message}" for one in backend_option_problems(row.ref, row.spec.options)]
    said_so = "TLS is spoken to the targets as the policy says"
    return true("Accepted", message=f"{said_so}, without: {'; '.join(without)}" if without else said_so)


def _authorities(fetch: Fetch, key: Key, row: BackendTLSPolicy) -> Fault | None:
    """What is wrong with the references to authorities; of several, one that is right is enough."""
    found: list[Fault] = []
    refs = row.spec.validation.ca_certificate_refs
    for index, ref in enumerate(refs):
        path = f"spec.validation.caCertificateRefs[{index}]"
        if ref.group or ref.kind not in SOURCES:
            found.append(Fault("InvalidKind", f"found {ref.kind}; needed a ConfigMap", f"{path}.kind"))
            continue
        held = fetch(SOURCES[ref.kind], (key[0], ref.name))
        if held is None or not held.authorities:
            message = f"{ref.kind} {ref.name} has no certificate in ca.crt" if held else f"no {ref.kind} {ref.name}"
            found.append(Fault("InvalidCACertificateRef", f"{message} in namespace {key[0]}", f"{path}.name"))
    return found[0] if refs and len(found) == len(refs) else None
