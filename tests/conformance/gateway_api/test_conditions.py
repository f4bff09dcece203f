"""The Gateway API's own conformance manifests → the conditions, kinds and counts that upstream's suite asserts of them.

No network and no proxy: the objects go into a pipeline, and a proxy that has acknowledged everything is assumed. Every manifest
is either in `EXPECTED`, with what upstream's test of it asserts of statuses, or in `NOT_YET`, with what it needs that is not
acted on yet.
"""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from tests.support.certificates import Roots
from tests.support.corpora import corpora
from tests.support.statuses import condition, find, statuses
from tulle.api.decode import decode
from tulle.api.object import Object
from tulle.api.registry import kind_for

INFRA, WEB, APP = "gateway-conformance-infra", "gateway-conformance-web-backend", "gateway-conformance-app-backend"
HTTP = ("HTTPRoute",)


class Gateway(NamedTuple):
    """A Gateway's conditions (`True Accepted`; a status alone is any reason) and how many routes its listeners have together."""

    name: str
    conditions: dict[str, str]
    attached: int | None = None


class Listener(NamedTuple):
    """A listener of a Gateway: kinds of routes, attached routes, conditions."""

    gateway: str
    name: str
    kinds: tuple[str, ...]
    attached: int
    conditions: dict[str, str]


class Route(NamedTuple):
    """A route (of the namespace, if not INFRA) and the conditions under its parent of that name."""

    name: str
    parent: str
    conditions: dict[str, str]
    kind: str = "HTTPRoute"
    namespace: str = INFRA


class Other(NamedTuple):
    """Another object of INFRA by kind and name, and its conditions (under a policy's ancestor of that name)."""

    kind: str
    name: str
    conditions: dict[str, str]
    ancestor: str = ""


Check = Gateway | Listener | Route | Other

FINE = {"Accepted": "True", "ResolvedRefs": "True"}
ATTACHED = {"Accepted": "True Accepted", "ResolvedRefs": "True ResolvedRefs"}


def unresolved(reason: str) -> dict[str, str]:
    """Accepted, with a reference that leads nowhere."""
    return {"Accepted": "True", "ResolvedRefs": f"False {reason}"}


def not_accepted(reason: str) -> dict[str, str]:
    return {"Accepted": f"False {reason}"}


def client_certificate(name: str, reason: str) -> Gateway:
    return Gateway(f"gateway-client-certificate-{name}", {"Accepted": "True Accepted", "ResolvedRefs": f"False {reason}"})


def certificate(name: str, reason: str) -> Listener:
    return Listener(name, "https", HTTP, 0, {"ResolvedRefs": f"False {reason}"})


def policy(name: str, reason: str) -> Other:
    conditions = {"Accepted": "False NoValidCACertificate", "ResolvedRefs": f"False {reason}"}
    return Other("BackendTLSPolicy", name, conditions, "same-namespace")


ALL_ATTACHED: tuple[Check, ...] = ()  # every route of the manifest is accepted by every parent, with all references resolved

EXPECTED: dict[str, tuple[Check, ...]] = {
    "backendtlspolicy": ALL_ATTACHED,
    "backendtlspolicy-conflict-resolution": ALL_ATTACHED,
    "backendtlspolicy-observed-generation-bump": ALL_ATTACHED,
    "backendtlspolicy-san": ALL_ATTACHED,
    "gateway-http-listener-isolation": ALL_ATTACHED,
    "gateway-http-listener-isolation-with-hostname-intersection": ALL_ATTACHED,
    "gateway-invalid-listeners-unsupported-protocol": (
        Gateway("gateway-only-unsupported-protocols", {"Accepted": "False ListenersNotValid"}),
        Listener("gateway-only-unsupported-protocols", "invalid", (), 0, {"Accepted": "False UnsupportedProtocol"}),
        Gateway("gateway-supported-and-unsupported-protocols", {"Accepted": "True ListenersNotValid"}),
        Listener("gateway-supported-and-unsupported-protocols", "http", HTTP, 0, {"Accepted": "True Accepted"}),
        Listener("gateway-supported-and-unsupported-protocols", "invalid", (), 0, {"Accepted": "False UnsupportedProtocol"}),
    ),
    "gateway-invalid-parameters-ref": (Gateway("gateway-invalid-parameters-ref", {"Accepted": "False InvalidParameters"}),),
    "gateway-invalid-route-kind": (
        Listener("gateway-only-invalid-route-kind", "http", (), 0, {"ResolvedRefs": "False InvalidRouteKinds"}),
        Listener("gateway-supported-and-invalid-route-kind", "http", HTTP, 0, {"ResolvedRefs": "False InvalidRouteKinds"}),
    ),
    "gateway-invalid-tls-backend-configuration": (
        client_certificate("nonexistent-secret", "InvalidClientCertificateRef"),
        client_certificate("unsupported-group", "InvalidClientCertificateRef"),
        client_certificate("unsupported-kind", "InvalidClientCertificateRef"),
        client_certificate("malformed-secret", "InvalidClientCertificateRef"),
        client_certificate("missing-reference-grant", "RefNotPermitted"),
    ),
    "gateway-invalid-tls-configuration": (
        certificate("gateway-certificate-nonexistent-secret", "InvalidCertificateRef"),
        certificate("gateway-certificate-unsupported-group", "InvalidCertificateRef"),
        certificate("gateway-certificate-unsupported-kind", "InvalidCertificateRef"),
        certificate("gateway-certificate-malformed-secret", "InvalidCertificateRef"),
    ),
    "gateway-name-maximum-length": (
        Gateway("gateway-name-maximum-length-".ljust(253, "a"), {"Accepted": "True Accepted", "Programmed": "True Programmed"}),
    ),
    "gateway-observed-generation-bump": (
        Gateway("gateway-observed-generation-bump", {"Accepted": "True Accepted", "Programmed": "True Programmed"}),
    ),
    "gateway-optional-address-value": (
        Gateway("gateway-without-address-value", {"Accepted": "True Accepted", "Programmed": "True Programmed"}),
        Listener("gateway-without-address-value", "http", HTTP, 0, FINE),
    ),
    "gateway-secret-invalid-reference-grant": (certificate("gateway-secret-invalid-reference-grant", "RefNotPermitted"),),
    "gateway-secret-missing-reference-grant": (certificate("gateway-secret-missing-reference-grant", "RefNotPermitted"),),
    "gateway-secret-reference-grant-all-in-namespace": (
        Listener("gateway-secret-reference-grant-all-in-namespace", "https", HTTP, 0, {"ResolvedRefs": "True ResolvedRefs"}),
    ),
    "gateway-secret-reference-grant-specific": (
        Listener("gateway-secret-reference-grant-specific", "https", HTTP, 0, {"ResolvedRefs": "True ResolvedRefs"}),
    ),
    "gateway-static-addresses": (Gateway("gateway-static-addresses", {"Accepted": "False UnsupportedAddress"}),),
    "gateway-with-attached-routes": (
        Listener("gateway-with-one-attached-route", "http", HTTP, 1, FINE),
        Listener("gateway-with-two-attached-routes", "http", HTTP, 2, FINE),
        Route("http-route-not-accepted", "gateway-with-two-attached-routes", not_accepted("NoMatchingListenerHostname")),
        Listener(
            "unresolved-gateway-with-one-attached-unresolved-route",
            "tls",
            HTTP,
            1,
            {"Programmed": "False Invalid", "ResolvedRefs": "False InvalidCertificateRef"},
        ),
        Route(
            "http-route-4",
            "unresolved-gateway-with-one-attached-unresolved-route",
            {"ResolvedRefs": "False BackendNotFound"},
        ),
    ),
    "gateway-with-attached-routes-with-port-8080": (
        Listener("gateway-with-two-listeners-and-one-attached-route", "http-unattached", HTTP, 0, FINE),
        Listener("gateway-with-two-listeners-and-one-attached-route", "http", HTTP, 1, FINE),
    ),
    "gatewayclass-observed-generation-bump": (
        Other("GatewayClass", "gatewayclass-observed-generation-bump", {"Accepted": "True Accepted"}),
    ),
    "httproute-backend-protocol-h2c": ALL_ATTACHED,
    "httproute-backend-protocol-websocket": ALL_ATTACHED,
    "httproute-cross-namespace": (
        Route("cross-namespace", "backend-namespaces", ATTACHED, namespace=WEB),
        Listener("backend-namespaces", "http", HTTP, 1, FINE),
    ),
    "httproute-disallowed-kind": (
        Gateway("tlsroutes-only", {}, attached=0),
        Route("disallowed-kind", "tlsroutes-only", {"Accepted": "False NotAllowedByListeners", "ResolvedRefs": "True"}),
    ),
    "httproute-exact-path-matching": ALL_ATTACHED,
    "httproute-header-matching": ALL_ATTACHED,
    "httproute-hostname-intersection": (
        *(
            Route(f"{one}-host-matches-listener-{other}-host", "httproute-hostname-intersection", ATTACHED)
            for one in ("specific", "wildcard")
            for other in ("specific", "wildcard")
        ),
        Route("no-intersecting-hosts", "httproute-hostname-intersection", not_accepted("NoMatchingListenerHostname")),
        Route("httproute-hostname-intersection-all", "httproute-hostname-intersection-all", ATTACHED),
        Listener("httproute-hostname-intersection", "listener-1", HTTP, 2, FINE),
        Listener("httproute-hostname-intersection", "listener-2", HTTP, 1, FINE),
        Listener("httproute-hostname-intersection", "listener-3", HTTP, 1, FINE),
    ),
    "httproute-invalid-backendref-unknown-kind": (
        Route("invalid-backend-ref-unknown-kind", "same-namespace", unresolved("InvalidKind")),
        Gateway("same-namespace", {}, attached=1),
    ),
    "httproute-invalid-cross-namespace-backend-ref": (
        Route("invalid-cross-namespace-backend-ref", "same-namespace", unresolved("RefNotPermitted")),
    ),
    "httproute-invalid-cross-namespace-parent-ref": (
        Route("invalid-cross-namespace-parent-ref", "same-namespace", not_accepted("NotAllowedByListeners"), namespace=WEB),
        Gateway("same-namespace", {}, attached=0),
    ),
    "httproute-invalid-nonexistent-backendref": (
        Route("invalid-nonexistent-backend-ref", "same-namespace", unresolved("BackendNotFound")),
    ),
    "httproute-invalid-parentref-not-matching-listener-port": (
        Route("httproute-listener-not-matching-route-port", "same-namespace", not_accepted("NoMatchingParent")),
        Gateway("same-namespace", {}, attached=0),
    ),
    "httproute-invalid-parentref-not-matching-section-name": (
        Route("httproute-listener-not-matching-section-name", "same-namespace", not_accepted("NoMatchingParent")),
        Gateway("same-namespace", {}, attached=0),
    ),
    "httproute-invalid-parentref-section-name-not-matching-port": (
        Route(
            "httproute-listener-section-name-not-matching-port",
            "gateway-with-one-not-matching-port-and-section-name-route",
            not_accepted("NoMatchingParent"),
        ),
        Gateway("gateway-with-one-not-matching-port-and-section-name-route", {}, attached=0),
    ),
    "httproute-invalid-reference-grant": (Route("reference-grant", "same-namespace", unresolved("RefNotPermitted")),),
    "httproute-listener-hostname-matching": ALL_ATTACHED,
    "httproute-listener-port-matching": ALL_ATTACHED,
    "httproute-matching": ALL_ATTACHED,
    "httproute-matching-across-routes": ALL_ATTACHED,
    "httproute-method-matching": ALL_ATTACHED,
    "httproute-multiple-gateways": ALL_ATTACHED,
    "httproute-named-rule": ALL_ATTACHED,
    "httproute-observed-generation-bump": (Route("observed-generation-bump", "same-namespace", ATTACHED),),
    "httproute-omitted-backendrefs": ALL_ATTACHED,
    "httproute-partially-invalid-via-invalid-reference-grant": (
        Route("invalid-reference-grant", "same-namespace", unresolved("RefNotPermitted")),
    ),
    "httproute-path-match-order": ALL_ATTACHED,
    "httproute-query-param-matching": ALL_ATTACHED,
    "httproute-reference-grant": (Route("reference-grant", "same-namespace", ATTACHED),),
    "httproute-retry": ALL_ATTACHED,
    "httproute-retry-connection-error": ALL_ATTACHED,
    "httproute-retry-with-timeouts": ALL_ATTACHED,
    "httproute-simple-same-namespace": ALL_ATTACHED,
    "httproute-timeout-backend-request": ALL_ATTACHED,
    "httproute-timeout-request": ALL_ATTACHED,
    "httproute-weight": ALL_ATTACHED,
    "backendtlspolicy-invalid-ca-certificate-ref": (
        policy("nonexistent-ca-certificate-ref", "InvalidCACertificateRef"),
        policy("malformed-ca-certificate-ref", "InvalidCACertificateRef"),
    ),
    "backendtlspolicy-invalid-kind": (policy("invalid-kind", "InvalidKind"),),
    "listenerset-default-not-allowed": (
        Other(
            "ListenerSet",
            "listenerset-default-not-allowed",
            {"Accepted": "False NotAllowed", "Programmed": "False NotAllowed"},
        ),
    ),
    "udproute-not-allowed-by-listeners": (
        Route(
            "udproute-not-allowed-by-listeners",
            "udproute-tls-only-gateway",
            not_accepted("NotAllowedByListeners"),
            kind="UDPRoute",
        ),
        Gateway("udproute-tls-only-gateway", {}, attached=0),
    ),
}

_FILTERS = "filters of HTTPRoutes"
_HTTPS = "listeners of protocol HTTPS"
_POLICIES = "BackendTLSPolicies that are accepted"
NOT_YET: dict[str, str] = {
    **dict.fromkeys(
        (
            "backendtlspolicy-grpcroute",
            "backendtlspolicy-tlsroute-terminate",
            "gateway-tls-backend-client-certificate",
        ),
        _POLICIES,
    ),
    **dict.fromkeys(
        (
            "gateway-invalid-default-frontend-client-certificate-validation",
            "gateway-modify-listeners",
            "gateway-with-clientcertificate-validation",
            "gateway-with-clientcertificate-validation-insecure-fallback",
            "gateway-with-invalid-clientcertificate-validation",
            "httproute-https-listener",
            "httproute-https-listener-detect-misdirected-requests",
        ),
        _HTTPS,
    ),
    "gateway-infrastructure": "nothing is made for a Gateway that labels could be put on",
    "httproute-service-types": "headless Services with EndpointSlices of their own",
    **dict.fromkeys(
        (
            "httproute-303-redirect",
            "httproute-307-redirect",
            "httproute-308-redirect",
            "httproute-backend-request-redirect",
            "httproute-backend-url-rewrite",
            "httproute-cors",
            "httproute-redirect-host-and-status",
            "httproute-redirect-path",
            "httproute-redirect-port",
            "httproute-redirect-port-and-scheme",
            "httproute-redirect-scheme",
            "httproute-request-header-modifier",
            "httproute-request-header-modifier-backend",
            "httproute-request-header-modifier-backend-weights",
            "httproute-request-mirror",
            "httproute-request-multiple-mirrors",
            "httproute-request-percentage-mirror",
            "httproute-response-header-modifier",
            "httproute-rewrite-host",
            "httproute-rewrite-path",
        ),
        _FILTERS,
    ),
}
# Manifests whose names begin so need a kind that is not acted on yet.
_KINDS = ("grpcroute", "listenerset", "tcproute", "tlsroute", "udproute")


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
    names = {path.stem for path in manifests()}
    kinds = {name for name in names if name.partition("-")[0] in _KINDS}
    assert not EXPECTED.keys() & NOT_YET.keys()
    assert names == EXPECTED.keys() | NOT_YET.keys() | kinds


@pytest.mark.parametrize("name", EXPECTED)
def test_conditions(name: str, base: list[Object]) -> None:
    """People and tools that know the Gateway API would read another status here than everywhere else."""
    own = read(corpora(f"gateway-api/conformance/tests/{name}.yaml"))
    found = statuses([*base, *own])
    checks = EXPECTED[name] or [
        Route(one.metadata.name, parent.name, ATTACHED, namespace=one.metadata.namespace)
        for one in own
        if one.kind == "HTTPRoute"
        for parent in one.spec.parent_refs  # type: ignore[attr-defined]
    ]
    assert checks
    for check in checks:
        _hold(found, check)


def _hold(found: dict[Any, dict[str, Any]], check: Check) -> None:
    match check:
        case Gateway(name, conditions, attached):
            status = find(found, "Gateway", INFRA, name)
            assert attached is None or sum(one["attachedRoutes"] for one in status["listeners"]) == attached
            _same(status["conditions"], conditions, check)
        case Listener(gateway, name, kinds, count, conditions):
            (listener,) = (one for one in find(found, "Gateway", INFRA, gateway)["listeners"] if one["name"] == name)
            shown = {one["kind"] for one in listener["supportedKinds"]}
            assert set(kinds) <= shown, "upstream asks for these at least"
            assert bool(kinds) == bool(shown)
            assert listener["attachedRoutes"] == count
            _same(listener["conditions"], conditions, check)
        case Route(name, parent, conditions, kind, namespace):
            parents = [one for one in find(found, kind, namespace, name)["parents"] if one["parentRef"]["name"] == parent]
            assert parents, check
            for one in parents:
                assert one["controllerName"] == "tulle.dev/gateway-controller"
                _same(one["conditions"], conditions, check)
        case Other(kind, name, conditions, ancestor):
            status = find(found, kind, "" if kind == "GatewayClass" else INFRA, name)
            if ancestor:
                (status,) = (one for one in status["ancestors"] if one["ancestorRef"]["name"] == ancestor)
            _same(status["conditions"], conditions, check)


def _same(conditions: list[dict[str, Any]], expected: dict[str, str], check: Check) -> None:
    for kind, wanted in expected.items():
        one = condition(conditions, kind)
        status, _space, reason = wanted.partition(" ")
        assert (one["status"], one["reason"] if reason else "") == (status, reason), (check, one)
        assert one["message"]
        assert one["observedGeneration"] == 1


@pytest.mark.parametrize("path", ["udproute"])
def test_kinds_that_are_not_acted_on_are_never_accepted(path: str, base: list[Object]) -> None:
    """A route that nobody serves would say that it is."""
    for manifest in manifests():
        if not manifest.stem.startswith(path):
            continue
        own = read(manifest)
        found = statuses([*base, *own])
        for one in own:
            if one.kind.lower() != path:
                continue
            status = find(found, one.kind, one.metadata.namespace, one.metadata.name)
            places = status.get("parents") or [status]
            for place in places:
                accepted = condition(place["conditions"], "Accepted")
                assert accepted["status"] == "False"
                assert accepted["message"]


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
    _same(status["conditions"], check.conditions, check)
    assert [one["value"] for one in status["addresses"]] == shown
