"""What upstream asserts of the statuses of a test's objects: `asserted`'s table, one of other kinds, and defaults."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from tests.conformance.gateway_api.asserted import ATTACHED, EXPECTED, Check, Gateway, Route, check_status
from tests.conformance.gateway_api.rows import parents
from tests.conformance.gateway_api.suite import INFRA, Case
from tests.support.statuses import condition, find

Raw = dict[str, Any]
Found = Mapping[tuple[str, str, str], Raw]


class At(NamedTuple):
    """Conditions of an object, or of its listener of that name, or under its ancestor of that name; and a listener's kinds."""

    kind: str
    name: str
    conditions: dict[str, str]
    listener: str = ""
    ancestor: str = ""
    namespace: str = INFRA
    kinds: tuple[str, ...] | None = None


class Sets(NamedTuple):
    """How many ListenerSets a Gateway says are attached to it."""

    gateway: str
    attached: int


Any_ = Check | At | Sets

OK = {"Accepted": "True", "Programmed": "True", "ResolvedRefs": "True"}
NOT_ALLOWED = {"Accepted": "False NotAllowed", "Programmed": "False NotAllowed"}


def accepted_set(name: str, namespace: str = INFRA) -> At:
    return At("ListenerSet", name, {"Accepted": "True", "Programmed": "True"}, namespace=namespace)


def refused_set(name: str, namespace: str = INFRA) -> At:
    return At("ListenerSet", name, NOT_ALLOWED, namespace=namespace)


def route(kind: str, name: str, parent: str, **conditions: str) -> Route:
    return Route(name, parent, conditions, kind)


def unresolved(kind: str, name: str, parent: str, reason: str) -> tuple[Any_, ...]:
    return (route(kind, name, parent, Accepted="True Accepted", ResolvedRefs=f"False {reason}"),)


def frontend(listener: str, reason: str) -> At:
    wrong = {"Accepted": "False NoValidCACertificate", "Programmed": "False", "ResolvedRefs": f"False {reason}"}
    return At("Gateway", "gateway-with-invalid-client-cert-validation", wrong, listener)


def policy(name: str, **conditions: str) -> At:
    return At("BackendTLSPolicy", name, conditions, ancestor="same-namespace")


def conflict(word: str) -> tuple[Any_, ...]:
    """ListenerSets that say what a Gateway, or an older ListenerSet, said before."""
    kind = word.lower()
    gateway = f"gateway-with-listenerset-{kind}-conflict"
    first, second = f"listenerset-with-{kind}-conflict-with-gateway", f"listenerset-with-{kind}-conflict-with-listener-set"
    with_gateway, with_set = f"{kind}-conflict-with-gateway-listener", f"{kind}-conflict-with-listener-set-listener"
    wrong = {"Accepted": "False", "Programmed": "False", "Conflicted": f"True {word}Conflict"}
    partly = {"Accepted": "True", "Programmed": "True Programmed"}
    return (
        Sets(gateway, 2),
        At("ListenerSet", f"{first}-1", partly),
        At("ListenerSet", f"{first}-1", OK, "listener-set-1-listener"),
        At("ListenerSet", f"{first}-1", wrong, with_gateway),
        At("ListenerSet", f"{first}-1", OK, with_set),
        At("ListenerSet", f"{first}-2", {"Accepted": "False ListenersNotValid", "Programmed": "False ListenersNotValid"}),
        At("ListenerSet", f"{second}-1", partly),
        At("ListenerSet", f"{second}-1", OK, "listener-set-2-listener"),
        At("ListenerSet", f"{second}-1", wrong, with_set),
        At("ListenerSet", f"{second}-2", {"Accepted": "False ListenersNotValid", "Programmed": "False ListenersNotValid"}),
    )


# By manifest: those of kinds that `asserted` does not hold to upstream's words.
OTHERS: dict[str, tuple[Any_, ...]] = {
    "backendtlspolicy": tuple(policy(one, Accepted="True Accepted") for one in ("host-mismatch", "cert-mismatch")),
    "backendtlspolicy-conflict-resolution": (
        policy("conflicted-without-section-name-1", Accepted="True Accepted", ResolvedRefs="True ResolvedRefs"),
        policy("conflicted-without-section-name-2", Accepted="False Conflicted"),
        policy("conflicted-with-section-name-1", Accepted="True Accepted", ResolvedRefs="True ResolvedRefs"),
        policy("conflicted-with-section-name-2", Accepted="False Conflicted"),
        policy("not-conflicted-with-section-name", Accepted="True Accepted"),
        policy("not-conflicted-without-section-name", Accepted="True Accepted"),
    ),
    "gateway-with-invalid-clientcertificate-validation": (
        At("Gateway", "gateway-with-invalid-client-cert-validation", OK, "https"),
        frontend("https-unresolved", "InvalidCACertificateRef"),
        frontend("https-invalid-kind", "InvalidCACertificateKind"),
        frontend("https-grant-missing", "RefNotPermitted"),
    ),
    "listenerset-allowed-namespace-none": (Sets("gateway-does-not-allow-listenerset", 0), refused_set("listenerset-not-allowed")),
    "listenerset-allowed-namespace-same": (
        Sets("gateway-allows-listenerset-in-same-namespace", 1),
        accepted_set("listenerset-in-same-namespace"),
        refused_set("listenerset-in-different-namespace", "gateway-api-listenerset-not-allowed-ns"),
    ),
    "listenerset-allowed-namespace-selector": (
        Sets("gateway-allows-listenerset-in-selected-namespace", 1),
        accepted_set("listenerset-in-selected-namespace", "gateway-api-listenerset-selector-allowed-ns"),
        refused_set("listenerset-not-in-selected-namespace", "gateway-api-listenerset-selector-not-allowed-ns"),
    ),
    "listenerset-allowed-routes-namespaces": (
        accepted_set("listenerset-test-allowed-routes-namespaces"),
        accepted_set("listenerset-test-allowed-routes-cross-ns", "gateway-api-ls-cross-ns"),
    ),
    "listenerset-allowed-routes-supported-kinds": (
        At(
            "ListenerSet",
            "listenerset-test-allowed-routes-supported-kinds",
            {"ResolvedRefs": "False InvalidRouteKinds"},
            "listener-set-listener-allowed-routes-tls-only",
        ),
    ),
    "listenerset-gateway-parent-section-name-not-found": (accepted_set("listenerset-section-name"),),
    "listenerset-hostname-conflict": conflict("Hostname"),
    "listenerset-http-routing": (
        Sets("gateway-with-listener-sets-http-routing", 2),
        accepted_set("listener-set-http-routing-1"),
        accepted_set("listener-set-http-routing-2"),
    ),
    "listenerset-protocol-conflict": conflict("Protocol"),
    "listenerset-reference-grant": (
        accepted_set("listenerset-with-reference-grant"),
        At(
            "ListenerSet",
            "listenerset-without-reference-grant",
            {"ResolvedRefs": "False RefNotPermitted"},
            "listenerset-without-reference-grant-listener",
            namespace="gateway-api-listener-sets-test-reference-grant-ns",
        ),
    ),
    "listenerset-route-status-scoped-to-parentref": (
        route("HTTPRoute", "route-parentref-gwonly", "gateway-parentref", **ATTACHED),
        route("HTTPRoute", "route-parentref-lsonly", "listenerset-parentref", **ATTACHED),
    ),
    "tcproute-invalid-backendref-nonexistent": unresolved(
        "TCPRoute", "tcp-route-invalid-backend-ref-nonexistent", "tcp-gateway-invalid-backend", "BackendNotFound"
    ),
    "tcproute-invalid-non-tcp-listener": (
        route("TCPRoute", "tcp-route", "tcp-mixed-protocol-gateway", Accepted="False NotAllowedByListeners"),
    ),
    "tlsroute-invalid-backendref-nonexistent": unresolved(
        "TLSRoute", "invalid-backend-ref-nonexistent", "gateway-tlsroute-invalid-backend-ref-nonexistent", "BackendNotFound"
    ),
    "tlsroute-invalid-backendref-unknown-kind": unresolved(
        "TLSRoute", "invalid-backend-ref-unknown-kind", "gateway-tlsroute-invalid-backend-ref-unknown-kind", "InvalidKind"
    ),
    "tlsroute-invalid-no-matching-listener": (
        route(
            "TLSRoute", "tlsroute-not-allowed-protocol-http", "gateway-tlsroute-http-only", Accepted="False NotAllowedByListeners"
        ),
        route(
            "TLSRoute",
            "tlsroute-not-allowed-protocol-https",
            "gateway-tlsroute-https-only",
            Accepted="False NotAllowedByListeners",
        ),
        route(
            "TLSRoute",
            "tlsroute-no-matching-section-name",
            "gateway-tlsroute-tls-passthrough-only",
            Accepted="False NoMatchingParent",
        ),
    ),
    "tlsroute-invalid-no-matching-listener-hostname": (
        route(
            "TLSRoute", "tlsroute-hostname-mismatch-1", "gateway-tls-exact-hostname", Accepted="False NoMatchingListenerHostname"
        ),
        route(
            "TLSRoute",
            "tlsroute-hostname-mismatch-2",
            "gateway-tls-wildcard-hostname",
            Accepted="False NoMatchingListenerHostname",
        ),
    ),
    "tlsroute-invalid-reference-grant": unresolved(
        "TLSRoute", "gateway-conformance-infra-test", "gateway-tlsroute-referencegrant", "RefNotPermitted"
    ),
    "tlsroute-listener-terminate-supported-kinds": (
        At("Gateway", "gateway-tlsroute-terminate-supported", OK, "tls-terminate", kinds=("TLSRoute",)),
    ),
    "udproute-invalid-backendref-nonexistent": unresolved(
        "UDPRoute", "udp-route-invalid-backend-ref-nonexistent", "udp-gateway-invalid-backend", "BackendNotFound"
    ),
    "tcproute-invalid-cross-namespace-backend-ref": unresolved(
        "TCPRoute",
        "tcp-invalid-cross-namespace-backend-ref",
        "tcp-invalid-cross-namespace-backend-ref-gateway",
        "RefNotPermitted",
    ),
    "udproute-invalid-cross-namespace-backend-ref": unresolved(
        "UDPRoute",
        "udp-route-invalid-cross-namespace-backend-ref",
        "udp-gateway-invalid-cross-namespace-backend-ref",
        "RefNotPermitted",
    ),
}


def checks_of(test: Case, own: list[Raw]) -> Sequence[Any_]:
    """The checks of a test; where no table has any: every route is accepted by every parent, and every Gateway is programmed."""
    names = [path.removeprefix("tests/").removesuffix(".yaml") for path in test.manifests]
    if found := [check for name in names for check in (OTHERS.get(name) or EXPECTED.get(name, ()))]:
        return found
    programmed: list[Any_] = [
        Gateway(one["metadata"]["name"], {"Accepted": "True", "Programmed": "True"}) for one in own if one["kind"] == "Gateway"
    ]
    policies = [policy(one["metadata"]["name"], Accepted="True") for one in own if one["kind"] == "BackendTLSPolicy"]
    routes = [
        Route(one["metadata"]["name"], parent["name"], ATTACHED, one["kind"], one["metadata"]["namespace"])
        for one, parent in parents(own)
        if parent.get("kind", "Gateway") == "Gateway"
    ]
    gateways = {check.name for check in programmed if isinstance(check, Gateway)}
    return [*programmed, *routes, *(one for one in policies if not gateways)]


def hold(found: Found, checks: Sequence[Any_]) -> str:
    """What is wrong, "" where nothing is."""
    for check in checks:
        try:
            match check:
                case At():
                    _hold_at(found, check)
                case Sets(gateway, attached):
                    assert find(found, "Gateway", INFRA, gateway).get("attachedListenerSets", 0) == attached, (
                        "attachedListenerSets"
                    )
                case _:
                    check_status(dict(found), check)
        except (AssertionError, KeyError, ValueError) as error:
            words = str(error).splitlines()
            return f"{type(check).__name__} {check[0]} {check[1]}: {words[0] if words else type(error).__name__}"[:400]
    return ""


def _hold_at(found: Found, check: At) -> None:
    status = find(found, check.kind, check.namespace, check.name)
    if check.listener:
        (status,) = (one for one in status["listeners"] if one["name"] == check.listener)
    if check.ancestor:
        (status,) = (one for one in status["ancestors"] if one["ancestorRef"]["name"] == check.ancestor)
    if check.kinds is not None:
        assert tuple(one["kind"] for one in status["supportedKinds"]) == check.kinds, "supportedKinds"
    for kind, wanted in check.conditions.items():
        one = condition(status["conditions"], kind)
        needed, _, reason = wanted.partition(" ")
        assert (one["status"], one["reason"] if reason else "") == (needed, reason), one
