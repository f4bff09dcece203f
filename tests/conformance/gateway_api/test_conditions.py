"""The Gateway API's own conformance manifests → the conditions, kinds and counts that upstream's suite asserts of them.

No network and no proxy: the objects go into a pipeline, and a proxy that has acknowledged everything is assumed. Every manifest
is in a table of `asserted`, or is run by the suite in real traffic, with its conditions.
"""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.conformance.gateway_api.asserted import (
    ATTACHED,
    EXPECTED,
    INFRA,
    NOT_ASKED,
    WEB,
    Gateway,
    Route,
    check_conditions,
    check_status,
)
from tests.conformance.gateway_api.suite import cases
from tests.support.certificates import Roots
from tests.support.corpora import corpora
from tests.support.statuses import condition, find, statuses
from tulle.api.decode import decode
from tulle.api.object import Object
from tulle.api.registry import kind_for

_PLACEHOLDERS = {
    "{GATEWAY_CLASS_NAME}": "tulle",
    "PLACEHOLDER_UNUSABLE_ADDRS": "192.0.2.200",
    "PLACEHOLDER_USABLE_ADDRS": "192.0.2.1",
}


def manifests() -> list[Path]:
    folder = Path(corpora("gateway-api/conformance/tests"))
    return sorted(folder.glob("*.yaml"))


def read(path: Path) -> list[Object]:
    """The objects of a manifest that are of kinds that we serve (a Deployment is not)."""
    objects = []
    text = path.read_text()
    for placeholder, value in _PLACEHOLDERS.items():
        text = text.replace(placeholder, value)
    for raw in yaml.safe_load_all(text):
        if raw and kind_for(raw["apiVersion"].rpartition("/")[0], raw["kind"]):
            if raw["kind"] == "GatewayClass":
                raw["spec"]["controllerName"] = "tulle.dev/gateway-controller"
            decoded, problems = decode(raw)
            assert decoded is not None, problems
            objects.append(decoded)
    return objects


def typed(raw: dict[str, Any]) -> Object:
    decoded, problems = decode(raw)
    assert decoded is not None, problems
    return decoded


@pytest.fixture(scope="module")
def base() -> list[Object]:
    """What the suite itself sets up: its base manifests and certificates; and a gateway workload to be bound to."""
    roots = Roots()
    chain, key = roots.leaf("spiffe://example.com/a")
    data = {"tls.crt": base64.b64encode(chain).decode(), "tls.key": base64.b64encode(key).decode()}
    names = ((INFRA, "tls-validity-checks-certificate"), (WEB, "certificate"))
    secrets = [
        {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "namespace": namespace}, "data": data}
        for namespace, name in names
    ]
    workload = {
        "apiVersion": "networking.istio.io/v1",
        "kind": "WorkloadEntry",
        "metadata": {"name": "ingress", "namespace": "tulle-system", "annotations": {"tulle.dev/capture": "none"}},
        "spec": {"address": "192.0.2.1", "labels": {"istio": "ingressgateway"}},
    }
    return [*read(corpora("gateway-api/conformance/base/manifests.yaml")), *map(typed, (*secrets, workload))]


def test_every_manifest_is_accounted_for() -> None:
    """A manifest of the suite would be passed over without anybody having decided so."""
    run = {Path(path).stem for test in cases() for path in test.manifests}
    assert {path.stem for path in manifests()} == EXPECTED.keys() | run | {*NOT_ASKED}


@pytest.mark.parametrize("name", EXPECTED)
def test_conditions(name: str, base: list[Object]) -> None:
    """People and tools that know the Gateway API would read another status here than everywhere else."""
    own = read(corpora(f"gateway-api/conformance/tests/{name}.yaml"))
    found = statuses([*base, *own])
    checks = EXPECTED[name] or [
        Route(one.metadata.name, parent.name, ATTACHED, namespace=one.metadata.namespace, kind=one.kind)
        for one in own
        if one.kind.endswith("Route")
        for parent in one.spec.parent_refs  # type: ignore[attr-defined]
    ]
    assert checks
    for check in checks:
        check_status(found, check)


@pytest.mark.parametrize(
    ("name", "kind", "route", "reason"),
    [
        ("tlsroute-invalid-backendref-nonexistent", "TLSRoute", "invalid-backend-ref-nonexistent", "BackendNotFound"),
        ("tlsroute-invalid-backendref-unknown-kind", "TLSRoute", "invalid-backend-ref-unknown-kind", "InvalidKind"),
        ("tcproute-invalid-cross-namespace-backend-ref", "TCPRoute", "", "RefNotPermitted"),
        ("udproute-invalid-cross-namespace-backend-ref", "UDPRoute", "", "RefNotPermitted"),
        ("tlsroute-invalid-reference-grant", "TLSRoute", "", "RefNotPermitted"),
        ("tcproute-invalid-backendref-nonexistent", "TCPRoute", "", "BackendNotFound"),
        ("udproute-invalid-backendref-nonexistent", "UDPRoute", "", "BackendNotFound"),
    ],
)
def test_references_of_kinds_that_are_not_acted_on(name: str, kind: str, route: str, reason: str, base: list[Object]) -> None:
    """A reference that leads nowhere would stay unnoticed until the kind is acted on."""
    own = read(corpora(f"gateway-api/conformance/tests/{name}.yaml"))
    found = statuses([*base, *own])
    chosen = [one for one in own if one.kind == kind and route in ("", one.metadata.name)]
    reasons = {
        condition(parent["conditions"], "ResolvedRefs")["reason"]
        for one in chosen
        for parent in find(found, kind, one.metadata.namespace, one.metadata.name)["parents"]
    }
    assert reason in reasons


@pytest.mark.parametrize(
    ("addresses", "accepted", "programmed", "shown"),
    [
        (["192.0.2.200", "192.0.2.1"], "True Accepted", "False AddressNotUsable", ["192.0.2.1"]),
        (["192.0.2.1"], "True Accepted", "True Programmed", ["192.0.2.1"]),
    ],
)
def test_static_addresses(base: list[Object], addresses: list[str], accepted: str, programmed: str, shown: list[str]) -> None:
    """The later steps of upstream's test, which takes the addresses that cannot be used away one after the other."""
    path = corpora("gateway-api/conformance/tests/gateway-static-addresses.yaml")
    (raw,) = (one for one in yaml.safe_load_all(path.read_text().replace("{GATEWAY_CLASS_NAME}", "tulle")) if one)
    raw["spec"]["addresses"] = [{"value": one} for one in addresses]
    status = find(statuses([*base, typed(raw)]), "Gateway", INFRA, "gateway-static-addresses")
    check = Gateway("gateway-static-addresses", {"Accepted": accepted, "Programmed": programmed})
    check_conditions(status["conditions"], check.conditions, check)
    assert [one["value"] for one in status["addresses"]] == shown
