"""Which conditions, kinds and counts upstream's suite asserts of its manifests.

`EXPECTED` has what upstream's test of a manifest asserts of statuses; where that is nothing of its own, every route is accepted
by every parent.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from tests.support.statuses import condition, find

INFRA, WEB = "gateway-conformance-infra", "gateway-conformance-web-backend"
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


def check_status(found: dict[Any, dict[str, Any]], check: Check) -> None:
    """The statuses `found` say what a check asserts."""
    match check:
        case Gateway(name, conditions, attached):
            status = find(found, "Gateway", INFRA, name)
            assert attached is None or sum(one["attachedRoutes"] for one in status["listeners"]) == attached
            check_conditions(status["conditions"], conditions, check)
        case Listener(gateway, name, kinds, count, conditions):
            (listener,) = (one for one in find(found, "Gateway", INFRA, gateway)["listeners"] if one["name"] == name)
            shown = {one["kind"] for one in listener["supportedKinds"]}
            assert set(kinds) <= shown, "upstream asks for these at least"
            assert bool(kinds) == bool(shown)
            assert listener["attachedRoutes"] == count
            check_conditions(listener["conditions"], conditions, check)
        case Route(name, parent, conditions, kind, namespace):
            parents = [one for one in find(found, kind, namespace, name)["parents"] if one["parentRef"]["name"] == parent]
            assert parents, check
            for one in parents:
                assert one["controllerName"] == "tulle.dev/gateway-controller"
                check_conditions(one["conditions"], conditions, check)
        case Other(kind, name, conditions, ancestor):
            status = find(found, kind, "" if kind == "GatewayClass" else INFRA, name)
            if ancestor:
                (status,) = (one for one in status["ancestors"] if one["ancestorRef"]["name"] == ancestor)
            check_conditions(status["conditions"], conditions, check)


def check_conditions(conditions: list[dict[str, Any]], expected: dict[str, str], check: Check) -> None:
    """Conditions are as expected, of this generation, and with a sentence."""
    for kind, wanted in expected.items():
        one = condition(conditions, kind)
        status, _space, reason = wanted.partition(" ")
        assert (one["status"], one["reason"] if reason else "") == (status, reason), (check, one)
        assert one["message"]
        assert one["observedGeneration"] == 1


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
    **dict.fromkeys(
        (
            "grpcroute-exact-method-matching",
            "httproute-303-redirect",
            "httproute-307-redirect",
            "httproute-cors",
            "httproute-https-listener",
            "httproute-redirect-host-and-status",
            "tlsroute-hostname-intersection",
        ),
        (),
    ),
    "listenerset-dual-parentref-independence": (
        Route("route-dual-parentref-both", "gateway-dual-parentref", ATTACHED),
        Route("route-dual-parentref-both", "ls-dual-parentref", ATTACHED),
        Route("route-dual-parentref-one", "gateway-dual-parentref", not_accepted("NoMatchingParent")),
        Route("route-dual-parentref-one", "ls-dual-parentref", ATTACHED),
    ),
    "tlsroute-listener-passthrough-supported-kinds": (
        Listener(
            "gateway-tlsroute-passthrough-supported-kind",
            "tls-passthrough",
            ("TLSRoute",),
            0,
            {"Accepted": "True Accepted", "ResolvedRefs": "False InvalidRouteKinds"},
        ),
    ),
}

# Asked only of those who cannot do it.
NOT_ASKED = ("tlsroute-listener-mixed-termination-not-supported", "tlsroute-listener-terminate-not-supported")
