"""Numbers, durations and expressions that no proxy could be told: refused with their field, wherever a kind has such a field."""

from __future__ import annotations

from typing import Any

import pytest

from tulle.api.decode import decode
from tulle.kit.problem import Severity

ISTIO, GATEWAY_API = "networking.istio.io/v1", "gateway.networking.k8s.io/v1"
TO = [{"destination": {"host": "a"}}]
BACKEND = {"name": "a", "port": 80}


def in_rule(**fields: Any) -> tuple[str, str, dict[str, Any]]:
    return ISTIO, "VirtualService", {"hosts": ["a"], "http": [{"route": TO, **fields}]}


def in_policy(**policy: Any) -> tuple[str, str, dict[str, Any]]:
    return ISTIO, "DestinationRule", {"host": "a", "trafficPolicy": policy}


def in_route(**fields: Any) -> tuple[str, str, dict[str, Any]]:
    return GATEWAY_API, "HTTPRoute", {"parentRefs": [{"name": "a"}], "rules": [{"backendRefs": [BACKEND], **fields}]}


def mirror(**share: Any) -> dict[str, Any]:
    return {"type": "RequestMirror", "requestMirror": {"backendRef": BACKEND, **share}}


def fault(kind: str, **said: Any) -> tuple[str, str, dict[str, Any]]:
    return in_rule(fault={kind: said})


LARGE = "(a{100}){11}"
RULE, POLICY = "spec.http[0]", "spec.trafficPolicy"
CASES: dict[str, tuple[str, str, dict[str, Any]]] = {
    f"{RULE}.fault.abort.percentage.value": fault("abort", httpStatus=500, percentage={"value": 100.1}),
    f"{RULE}.fault.delay.percentage.value": fault("delay", fixedDelay="1s", percentage={"value": -1}),
    f"{RULE}.fault.delay.percent": fault("delay", fixedDelay="1s", percent=101),
    f"{RULE}.fault.delay.fixedDelay": fault("delay", fixedDelay="-1s"),
    f"{RULE}.fault.abort.httpStatus": fault("abort", httpStatus=-500),
    f"{RULE}.mirrorPercentage.value": in_rule(mirror={"host": "a"}, mirrorPercentage={"value": 101}),
    f"{RULE}.mirrors[0].percentage.value": in_rule(mirrors=[{"destination": {"host": "a"}, "percentage": {"value": 101}}]),
    f"{RULE}.timeout": in_rule(timeout="-1s"),
    f"{RULE}.retries.perTryTimeout": in_rule(retries={"attempts": 1, "perTryTimeout": "-1s"}),
    f"{RULE}.retries.attempts": in_rule(retries={"attempts": -1}),
    f"{RULE}.corsPolicy.maxAge": in_rule(corsPolicy={"maxAge": "-1s"}),
    f"{RULE}.match[0].uri.regex": in_rule(match=[{"uri": {"regex": LARGE}}]),
    f"{RULE}.match[0].headers.x.regex": in_rule(match=[{"headers": {"x": {"regex": LARGE}}}]),
    f"{RULE}.match[0].queryParams.x.regex": in_rule(match=[{"queryParams": {"x": {"regex": LARGE}}}]),
    f"{RULE}.rewrite.uriRegexRewrite.match": in_rule(rewrite={"uriRegexRewrite": {"match": LARGE, "rewrite": "/"}}),
    f"{RULE}.corsPolicy.allowOrigins[0].regex": in_rule(corsPolicy={"allowOrigins": [{"regex": LARGE}]}),
    f"{POLICY}.outlierDetection.maxEjectionPercent": in_policy(outlierDetection={"maxEjectionPercent": 101}),
    f"{POLICY}.outlierDetection.minHealthPercent": in_policy(outlierDetection={"minHealthPercent": -1}),
    f"{POLICY}.outlierDetection.interval": in_policy(outlierDetection={"interval": "-1s"}),
    f"{POLICY}.outlierDetection.consecutiveErrors": in_policy(outlierDetection={"consecutiveErrors": -1}),
    f"{POLICY}.connectionPool.tcp.connectTimeout": in_policy(connectionPool={"tcp": {"connectTimeout": "-1s"}}),
    f"{POLICY}.connectionPool.tcp.maxConnections": in_policy(connectionPool={"tcp": {"maxConnections": -1}}),
    f"{POLICY}.connectionPool.http.maxRetries": in_policy(connectionPool={"http": {"maxRetries": -1}}),
    "spec.rules[0].timeouts.request": in_route(timeouts={"request": "-1s"}),
    "spec.rules[0].retry.backoff": in_route(retry={"backoff": "-1s"}),
    "spec.rules[0].retry.codes[0]": in_route(retry={"codes": [600]}),
    "spec.rules[0].filters[0].requestMirror.percent": in_route(filters=[mirror(percent=101)]),
    "spec.rules[0].filters[0].requestMirror.fraction.numerator": in_route(
        filters=[mirror(fraction={"numerator": 2, "denominator": 1})]
    ),
    "spec.rules[0].matches[0].path.value": in_route(matches=[{"path": {"type": "RegularExpression", "value": LARGE}}]),
    "spec.rules[0].matches[0].headers[0].value": in_route(
        matches=[{"headers": [{"type": "RegularExpression", "name": "x", "value": LARGE}]}]
    ),
}


@pytest.mark.parametrize("path", CASES)
def test_what_no_proxy_could_be_told_is_refused_with_its_field(path: str) -> None:
    """The object would be taken, and every proxy refuse all that changes after it; or nobody would learn which field it is."""
    version, kind, spec = CASES[path]
    made, problems = decode(
        {"apiVersion": version, "kind": kind, "metadata": {"name": "a", "namespace": "default"}, "spec": spec}
    )
    assert made is None
    assert [problem.path for problem in problems if problem.severity is Severity.ERROR] == [path]
    assert all("needed" in problem.message for problem in problems)
