"""Secrets and ConfigMaps with certificates, and those who name them."""

from __future__ import annotations

from collections.abc import Iterator

from tulle.core.analyze.certificates import TLS
from tulle.core.analyze.inputs import certificates, scope
from tulle.core.compile import istio_tls
from tulle.core.compile.gateway_workloads import gateway_labels, gateway_workloads
from tulle.core.compile.hostname import Key
from tulle.core.compile.listeners import verdicts_of
from tulle.core.compile.mistakes import error, meant, warning
from tulle.core.compile.objects import backend_tls_policies, config_maps, gateways, istio_gateways, selects
from tulle.core.compile.places import places
from tulle.core.flow import Fetch, table
from tulle.kit.problem import Problem, Ref

_SOON = 30 * 24 * 3600.0


@table
def turns(fetch: Fetch, _key: None) -> tuple[float, ...]:
    """The moments at which certificates of Secrets begin and end to be valid."""
    rows = fetch.rows(certificates)
    return tuple(sorted({moment for row in rows if row.ends for moment in (row.begins, row.ends)}))


@table
def not_valid(fetch: Fetch, key: Key) -> str:
    """Why the certificate of a Secret is not valid at this time; "" where it is, or where nobody said what time it is."""
    row, here = fetch(certificates, key), fetch(scope, "")
    if row is None or not row.ends or here is None:
        return ""
    if here.now >= row.ends:
        return f"the certificate ended {_day(row.ends)}; needed one that is valid"
    return f"the certificate begins {_day(row.begins)}; needed one that is valid now" if here.now < row.begins else ""


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
    if why := fetch(not_valid, key):
        yield error(row.ref, "data", "CertificateNotValid", why)
    elif here.now >= row.ends - _SOON:
        yield warning(row.ref, "data", "CertificateEnds", f"the certificate ends {_day(row.ends)}; needed a new one by then")


def _day(seconds: float) -> str:
    from datetime import UTC, datetime

    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M} UTC"


def istio_gateway_certificates(fetch: Fetch, key: Key) -> Iterator[Problem]:
    """Servers of Istio's Gateway whose certificate is not valid at this time."""
    row = fetch(istio_gateways, key)
    selector = row.spec.selector if row else {}
    labels = {one: fetch(gateway_labels, one) for one in fetch(gateway_workloads, None) or ()}
    chosen = [one for one, mine in labels.items() if selects(selector, mine or {})]
    spaces = sorted({one[0] for one in chosen}) or [key[0]]
    for index, server in enumerate(row.spec.servers if row else ()):
        for field, name in istio_tls.fields(server.tls) if server.tls and istio_tls.ends(server) else ():
            for space in spaces:
                if row and (why := fetch(not_valid, (space, name))):
                    yield _not_valid(row.ref, f"spec.servers[{index}].tls.{field}", (space, name), why)


def gateway_certificates(fetch: Fetch, key: Key) -> Iterator[Problem]:
    """Listeners of a Gateway of the Gateway API whose certificate is not valid at this time."""
    row = fetch(gateways, key)
    there, verdicts = fetch(places, key) or (), fetch(verdicts_of, key) or ()
    for place, verdict in zip(there, verdicts, strict=True):
        for one in verdict.tls.certificates if row and verdict.tls and place.set is None else ():
            for _kind, namespace, name in one.objects:
                if row and (why := fetch(not_valid, (namespace, name))):
                    yield _not_valid(row.ref, f"{place.path}.tls.certificateRefs", (namespace, name), why)


def _not_valid(ref: Ref, path: str, secret: Key, why: str) -> Problem:
    return error(ref, path, "CertificateNotValid", f"Secret {secret[0]}/{secret[1]}: {why}; it is served all the same")


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
