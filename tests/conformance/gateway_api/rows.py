"""Rows as they are sent: what `cases.json` could not say (an expression, a certificate, which listener) is filled in here."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping
from copy import deepcopy
from typing import Any, NamedTuple
from urllib.parse import urlencode

from tests.conformance.gateway_api.judge import FAILURES
from tests.conformance.gateway_api.suite import INFRA, Case, Place, cases, named, place

Raw = dict[str, Any]


class Row(NamedTuple):
    """A row and where it goes. `client` is the authority of the client's certificate, `retry` the query of a retry."""

    name: str
    raw: Raw
    place: Place
    client: str = ""
    retry: Mapping[str, str] | None = None
    no_answer: bool = False

    def path(self) -> str:
        """A retry is told from the one before by a number of its own."""
        path: str = self.raw.get("Request", {}).get("Path", "/")
        return f"{path}?{urlencode({**self.retry, 'uuid': uuid.uuid4().hex})}" if self.retry else path


# Rows that go elsewhere than to the first listener of the routes' first parent, by their indexes.
_PLACES: dict[str, dict[range, Place]] = {
    "BackendTLSPolicy": {range(1): Place(443, tls=True), range(1, 9): Place()},
    "GatewayFrontendInvalidDefaultClientCertificateValidation": {range(1): Place(), range(1, 2): Place(443, tls=True)},
    "GatewayFrontendClientCertificateValidation": {range(2): Place(443, tls=True), range(2, 4): Place(8443, tls=True)},
    "GatewayFrontendClientCertificateValidationInsecureFallback": {
        range(1): Place(443, tls=True),
        range(1, 2): Place(8443, tls=True),
    },
    "HTTPRouteRedirectPortAndScheme": {
        range(6): Place(),
        range(6, 9): Place(8080),
        range(9, 15): Place(443, tls=True),
    },
}
# Rows whose client shows a certificate, by the ConfigMap with its authority; "" shows none.
_CLIENTS: dict[str, tuple[str, ...]] = {
    "GatewayFrontendClientCertificateValidation": (
        "tls-validity-checks-ca-certificate",
        "",
        "tls-validity-checks-per-port-ca-certificate",
        "",
    ),
}
# Tests whose one row is a step here (`steps.py`).
_STEPS = ("HTTPRouteHTTPSListenerDetectMisdirectedRequests", "GRPCRouteWeight", "HTTPRouteRequestHeaderModifierBackendWeights")
# Rows that are refused before HTTP.
_NO_ANSWER = {
    "GatewayFrontendInvalidDefaultClientCertificateValidation": (1,),
    "GatewayFrontendClientCertificateValidation": (1, 3),
}
_ALL = "/retry/code-all-attempts-2"
_RETRIES: dict[str, tuple[tuple[str, str, int, str, int], ...]] = {
    # path, code of the failures, how many, how long each takes, status that is needed
    "HTTPRouteRetry": (
        ("/retry/code-500-attempts-3", "500", 2, "", 200),
        ("/retry/code-500-attempts-3", "500", 4, "", 500),
        ("/retry/code-500-attempts-3", "503", 2, "", 503),
        *(
            (_ALL, code, count, "", status)
            for code in ("500", "502", "503", "504")
            for count, status in ((1, 200), (3, int(code)))
        ),
    ),
    "HTTPRouteRetryWithTimeouts": (
        ("/retry/backend-request-timeout-200ms", "500", 2, "1s", 200),
        ("/retry/backend-request-timeout-200ms", "500", 3, "1s", 504),
        ("/retry/request-timeout-200ms", "500", 4, "", 200),
        ("/retry/request-timeout-200ms", "500", 4, "100ms", 504),
    ),
    "HTTPRouteRetryConnectionError": (
        ("/retry/no-status-code-attempts-3", "", 2, "", 200),
        ("/retry/no-status-code-attempts-3", "", 4, "", 503),
    ),
}


def rows(test: Case, objects: list[Raw], own: list[Raw]) -> Iterator[Row]:
    """The rows of HTTP and gRPC of a test."""
    if test.name in _RETRIES:
        yield from _retries(test.name)
        return
    number = 0
    for index, given in enumerate(_rows_of(test)):
        for raw in _complete(test, own, given):
            host = raw.get("Request", {}).get("Host", "")
            where = next((one for span, one in _PLACES.get(test.name, {}).items() if index in span), None)
            client = _CLIENTS[test.name][index] if test.name in _CLIENTS else ""
            refused = index in _NO_ANSWER.get(test.name, ())
            yield Row(f"row {number}", raw, where or place(objects, own, host), client, None, refused)
            number += 1


def _rows_of(test: Case) -> tuple[Raw, ...]:
    """Upstream makes two tests' rows by code: those of a filter of backends are those of the same filter of a rule."""
    if test.name == "HTTPRouteBackendRequestHeaderModifier":
        return next(one.rows for one in cases() if one.name == "HTTPRouteRequestHeaderModifier")
    if test.name == "HTTPRouteReferenceGrant":
        return test.rows[:1]  # the second is without the grant: a step
    return test.rows


def _retries(name: str) -> Iterator[Row]:
    for number, (path, code, count, delay, status) in enumerate(_RETRIES[name]):
        query = {"succeedAfter": str(count)} | ({"responseCode": code} if code else {}) | ({"delayRetry": delay} if delay else {})
        raw = {"Request": {"Path": path}, "Response": {"StatusCode": status}, "Backend": "infra-backend-v3", "Namespace": INFRA}
        yield Row(f"row {number}", raw, Place(), retry=query)


def _complete(test: Case, own: list[Raw], given: Raw) -> Iterator[Raw]:
    raw = deepcopy(given)
    request = raw.get("Request", {})
    if raw.get("Namespace") == {"$var": "ns"}:
        raw["Namespace"] = INFRA
    for mirror in raw.get("MirroredTo", ()):
        percent = mirror.get("Percent")
        if isinstance(percent, dict):
            mirror["Percent"] = int("".join(filter(str.isdigit, percent["$call"].removeprefix("new(int32("))))
    code = (raw.get("Response") or {}).get("Code")
    if isinstance(code, dict):
        raw["Response"] = {**raw["Response"], "Code": code["$var"].removeprefix("codes.")}
    if test.name.startswith("BackendTLSPolicy") and not raw.get("Response") and "mismatch" in str(request.get("Path")):
        raw["Response"] = {"StatusCodes": [*FAILURES, 404]}  # upstream takes any failure; one row's host has no route
    # Both the Service behind the second method and the second host have a certificate that does not fit.
    if "mismatch" in str(raw.get("RequestMetadata", {}).get("Authority")) or (
        test.name == "BackendTLSPolicyGRPCRoute" and "EchoTwoRequest" in raw
    ):
        raw["Response"] = {"Code": "Unavailable"}
    if isinstance(request.get("ClientCert"), dict):
        request["ClientCert"] = "tls-checks-client-certificate"
    if request.get("Path") == {"$expr": True}:
        for path in _paths(own):
            yield {**raw, "Request": {**request, "Path": path}}
    elif test.name not in _STEPS:
        yield raw


def _paths(own: list[Raw]) -> Iterator[str]:
    for route in own:
        for rule in route["spec"]["rules"] if route["kind"] == "HTTPRoute" else ():
            for match in rule.get("matches", ()):
                yield match["path"]["value"]


def parents(own: list[Raw]) -> Iterator[tuple[Raw, Raw]]:
    """Every route of a manifest with each of its parents."""
    for route in own:
        for parent in route["spec"].get("parentRefs", ()) if route["kind"].endswith("Route") else ():
            yield route, parent


def gateway_of(objects: list[Raw], parent: Raw) -> str:
    """The name of the Gateway behind a parent."""
    there = named(objects, parent.get("kind", "Gateway"), parent["name"])
    name: str = there["spec"]["parentRef"]["name"] if there and there["kind"] == "ListenerSet" else parent["name"]
    return name
