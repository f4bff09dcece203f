"""BackendTLSPolicy → TLS towards a Service's port, for gateways and sidecars alike.

A policy for the port (`sectionName`) comes before one for the whole Service, the older before the younger, and any of them before
what a DestinationRule says of `tls`. Where no authority of a policy can be read, nobody is trusted: requests fail, as the Gateway
API has it, instead of going on unchecked.
"""

from __future__ import annotations

from collections.abc import Iterator

from tulle.api.gateway import BackendTLSPolicy
from tulle.core.compile.hostname import Key
from tulle.core.compile.mistakes import not_yet, sorted_problems
from tulle.core.compile.objects import age, backend_tls_policies, config_maps, secrets
from tulle.core.compile.services import service
from tulle.core.compile.tls_options import backend_option_problems, parameters
from tulle.core.flow import Fetch, table
from tulle.core.model.traffic import Tls
from tulle.kit.problem import Problem

SOURCES = {"ConfigMap": config_maps, "Secret": secrets}


@table
def backend_tls(fetch: Fetch, key: tuple[Key, int]) -> Tls | None:
    """What BackendTLSPolicies say of (Service, port)."""
    target, number = key
    row = fetch(service, target)
    port = row.port(number) if row else None
    if port is None:
        return None
    rules = [rule for rule in fetch.rows(backend_tls_policies, "target", target) if sections(rule, target) & {port.name, None}]
    first = min(rules, key=lambda rule: (port.name not in sections(rule, target), age(rule)), default=None)
    return _tls(fetch, first, target[0]) if first else None


def sections(rule: BackendTLSPolicy, target: Key) -> set[str | None]:
    """The ports of a Service that a policy is for, by name; None for all of them."""
    return {
        one.section_name
        for one in rule.spec.target_refs
        if (one.group, one.kind, one.name) == ("", "Service", target[1]) and rule.metadata.namespace == target[0]
    }


def _tls(fetch: Fetch, rule: BackendTLSPolicy, namespace: str) -> Tls:
    said = rule.spec.validation
    authorities = [
        held.material.authorities.decode("ascii", "replace")
        for ref in said.ca_certificate_refs
        if not ref.group and ref.kind in SOURCES and (held := fetch(SOURCES[ref.kind], (namespace, ref.name))) is not None
        if held.authorities and held.material
    ]
    pem = "\n".join(authorities)
    options = parameters(rule.spec.options)
    return Tls(
        sni=said.hostname,
        names=tuple(one.hostname for one in said.subject_alt_names if one.hostname),
        uris=tuple(one.uri for one in said.subject_alt_names if one.uri),
        authorities=pem,
        nobody=not pem and said.well_known_ca_certificates != "System",
        minimum=options.minimum,
        maximum=options.maximum,
        ciphers=options.ciphers,
        curves=options.curves,
    )


@table
def backend_tls_policy_problems(fetch: Fetch, key: Key) -> tuple[Problem, ...]:
    """What a policy says that has no effect."""
    row = fetch(backend_tls_policies, key)
    return sorted_problems(_problems(row)) if row else ()


def _problems(row: BackendTLSPolicy) -> Iterator[Problem]:
    for index, target in enumerate(row.spec.target_refs):
        if (target.group, target.kind) != ("", "Service"):
            kind = f"{target.kind}.{target.group}" if target.group else target.kind
            yield not_yet(row.ref, f"spec.targetRefs[{index}].kind", f"{kind} (something else than a Service)")
    yield from backend_option_problems(row.ref, row.spec.options)
    known = row.spec.validation.well_known_ca_certificates
    if known not in (None, "System"):
        yield not_yet(row.ref, "spec.validation.wellKnownCACertificates", f"{known} (something else than System)")
