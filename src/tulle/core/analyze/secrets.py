"""Secrets and ConfigMaps with certificates, and those who name them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from tulle.core.analyze.certificates import TLS
from tulle.core.analyze.inputs import certificates, scope
from tulle.core.compile.hostname import Key
from tulle.core.compile.mistakes import error, meant, warning
from tulle.core.compile.objects import backend_tls_policies, config_maps, destination_rules
from tulle.core.flow import Fetch
from tulle.kit.problem import Problem, Ref

if TYPE_CHECKING:
    from tulle.api.istio.destination_rule import TrafficPolicy

_SOON = 30 * 24 * 3600.0


def secret_problems(fetch: Fetch, key: Key) -> Iterator[Problem]:
    """What is wrong with the certificate in a Secret."""
    row, here = fetch(certificates, key), fetch(scope, "")
    if row is None:
        return
    if row.fault and row.type == TLS:
        field, reason, message = row.fault
        yield error(row.ref, field, reason, message)
    if not row.ends or here is None:
        return
    if here.now >= row.ends:
        yield error(row.ref, "data", "CertificateNotValid", f"the certificate ended {_day(row.ends)}; needed one that is valid")
    elif here.now < row.begins:
        message = f"the certificate begins {_day(row.begins)}; needed one that is valid now"
        yield error(row.ref, "data", "CertificateNotValid", message)
    elif here.now >= row.ends - _SOON:
        yield warning(row.ref, "data", "CertificateEnds", f"the certificate ends {_day(row.ends)}; needed a new one by then")


def _day(seconds: float) -> str:
    from datetime import UTC, datetime

    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M} UTC"


def _pair(fetch: Fetch, ref: Ref, path: str, key: Key) -> Iterator[Problem]:
    """A Secret that is needed for its certificate and key."""
    row = fetch(certificates, key)
    if row is None:
        yield warning(ref, path, "SecretNotFound", _absent(fetch, "Secret", key))
    elif not row.pair:
        message = f"Secret {key[0]}/{key[1]} of type {row.type} has no certificate with its key; needed tls.crt and tls.key"
        yield warning(ref, path, "SecretUnusable", message)


def destination_rule_secrets(fetch: Fetch, key: Key) -> Iterator[Problem]:
    """The Secrets with the certificates that are shown to a host."""
    row = fetch(destination_rules, key)
    if row is None:
        return
    yield from _policy_secrets(fetch, row.ref, row.spec.traffic_policy, "spec.trafficPolicy")
    for index, subset in enumerate(row.spec.subsets):
        yield from _policy_secrets(fetch, row.ref, subset.traffic_policy, f"spec.subsets[{index}].trafficPolicy")


def _policy_secrets(fetch: Fetch, ref: Ref, said: TrafficPolicy | None, path: str) -> Iterator[Problem]:
    if said is None:
        return
    places = [
        (said.tls, path),
        *((one.tls, f"{path}.portLevelSettings[{at}]") for at, one in enumerate(said.port_level_settings)),
    ]
    for tls, at in places:
        if tls is None or not tls.credential_name:
            continue
        key = (ref.namespace, tls.credential_name)
        if tls.mode == "MUTUAL":
            yield from _pair(fetch, ref, f"{at}.tls.credentialName", key)
        elif fetch(certificates, key) is None:
            yield warning(ref, f"{at}.tls.credentialName", "SecretNotFound", _absent(fetch, "Secret", key))


def backend_tls_certificates(fetch: Fetch, key: Key) -> Iterator[Problem]:
    """The ConfigMaps (or Secrets) with which backends are checked."""
    row = fetch(backend_tls_policies, key)
    for index, one in enumerate(row.spec.validation.ca_certificate_refs if row else ()):
        target = (key[0], one.name)
        secret = fetch(certificates, target)
        config_map = fetch(config_maps, target)
        there = {"Secret": secret is not None, "ConfigMap": config_map is not None}.get(one.kind, True)
        if row and not there:
            message = _absent(fetch, one.kind, target)
            yield warning(row.ref, f"spec.validation.caCertificateRefs[{index}].name", "SecretNotFound", message)


def _absent(fetch: Fetch, kind: str, key: Key) -> str:
    names = fetch.keys(certificates) if kind == "Secret" else fetch.keys(config_maps)
    near = meant(key[1], (name for space, name in names if space == key[0]))
    return f"no {kind} {key[1]} in namespace {key[0]}{near}"
