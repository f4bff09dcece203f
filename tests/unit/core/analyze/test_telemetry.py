"""08xx: what Telemetry asks for is made, or said not to be."""

from __future__ import annotations

import pytest

from tests.unit.core.analyze.cases import Cases, codes

TELEMETRY = """---
apiVersion: telemetry.istio.io/v1
kind: Telemetry
metadata: {name: t}
spec: {%s}
"""
LABEL = TELEMETRY % "metrics: [{overrides: [{tagOverrides: {%s: {value: '%s'}}}]}]"
FILTER = TELEMETRY % "accessLogging: [{filter: {expression: '%s'}}]"

CASES: Cases = {
    "TUL0801": (LABEL % ("le", "request.host"), LABEL % ("host", "request.host")),
    "TUL0802": (FILTER % "response.code >= ", FILTER % "response.code >= 400"),
    "TUL0803": (LABEL % ("path", "request.path"), LABEL % ("method", "request.method")),
}


@pytest.mark.parametrize("code", CASES)
def test_found_where_it_is_and_only_there(code: str) -> None:
    """Broken: the code would be missed, or said of what is right."""
    wrong, right = CASES[code]
    assert code in codes(wrong)
    assert code not in codes(right)


@pytest.mark.parametrize(
    "spec",
    [
        "metrics: [{providers: [{name: envoy}]}]",
        "metrics: [{overrides: [{match: {customMetric: mine}}]}]",
        "metrics: [{overrides: [{tagOverrides: {a: {}}}]}]",
        "metrics: [{overrides: [{tagOverrides: {a-b: {operation: REMOVE}}}]}]",
        "metrics: [{overrides: [{match: {metric: GRPC_REQUEST_MESSAGES}, disabled: true}]}]",
        "metrics: [{overrides: [{match: {metric: GRPC_REQUEST_MESSAGES}, tagOverrides: {a: {operation: REMOVE}}}]}]",
        "accessLogging: [{providers: [{name: prometheus}]}]",
        "tracing: [{providers: [{name: prometheus}]}]",
        "tracing: [{}, {match: {mode: CLIENT}}]",
        "tracing: [{customTags: {a: {}}}]",
    ],
)
def test_what_has_no_effect_says_so(spec: str) -> None:
    """Broken: a person would believe that something is measured, logged or traced."""
    assert "TUL0801" in codes(TELEMETRY % spec)


@pytest.mark.parametrize(
    ("expression", "right"),
    [
        ('request.headers["x-tenant"] == "a" && !connection.mtls', True),
        ("has(request.headers) ? request.host : request.method", True),
        ('string(destination.port) == "80"', False),
        ('request.headers.exists(name, name == "x")', False),
        ("request.hoast", False),
        ("unknown(request.host)", False),
        ('request.host.matches("(")', False),
        ("(1 + 2)%3 == 0", False),
        ("wasm.count == 1", False),
    ],
)
def test_expressions_that_a_proxy_takes(expression: str, right: bool) -> None:
    """Broken: one expression would have a proxy refuse all of its listeners, or a good one would not be taken."""
    assert ("TUL0802" in codes(FILTER % expression)) is not right
