"""04xx: gateways have a workload, and a port and host of their own."""

from __future__ import annotations

import pytest

from tests.unit.core.analyze.cases import API_GATEWAY, GATEWAY, Cases, codes

TWO = """
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: gw}
spec:
  gatewayClassName: tulle
  listeners:
  - {name: a, port: 80, protocol: HTTP}
  - {name: b, port: %s, protocol: TCP}
"""

CASES: Cases = {
    "TUL0401": ((GATEWAY % ("gw", "*")).replace("istio: ingressgateway", "istio: nobody"), GATEWAY % ("gw", "*")),
    "TUL0402": (
        GATEWAY % ("a", "shop.example.com") + "---" + GATEWAY % ("b", "shop.example.com"),
        GATEWAY % ("a", "shop.example.com") + "---" + GATEWAY % ("b", "blog.example.com"),
    ),
    "TUL0403": (TWO % 80, TWO % 81),
    "TUL0404": (
        (API_GATEWAY % ("gw", "")).replace("listeners", "addresses: [{type: Hostname, value: a.example.com}], listeners"),
        (API_GATEWAY % ("gw", "")).replace("listeners", "addresses: [{value: 192.0.2.1}], listeners"),
    ),
    "TUL0405": (
        API_GATEWAY % ("gw", ", allowedRoutes: {kinds: [{kind: TCPRoute}]}"),
        API_GATEWAY % ("gw", ", allowedRoutes: {kinds: [{kind: HTTPRoute}]}"),
    ),
    "TUL0406": (
        (API_GATEWAY % ("gw", "")).replace("{name: gw}", '{name: gw, annotations: {tulle.dev/http3: "true"}}'),
        (API_GATEWAY % ("gw", "")).replace("{name: gw}", '{name: gw, annotations: {tulle.dev/http3: "false"}}'),
    ),
}


@pytest.mark.parametrize("code", CASES)
def test_found_where_it_is_and_only_there(code: str) -> None:
    """The code would be missed, or said of what is right."""
    wrong, right = CASES[code]
    assert code in codes(wrong)
    assert code not in codes(right)


def test_other_workloads_or_ports_are_no_conflict() -> None:
    """Gateways that never meet would be reported."""
    first, second = GATEWAY % ("a", "*"), GATEWAY % ("b", "*")
    assert "TUL0402" not in codes(first + "---" + second.replace("8080", "8081"))
    assert "TUL0402" not in codes(first + "---" + second.replace("istio: ingressgateway", "istio: egressgateway"))
    assert "TUL0402" in codes(first + "---" + second.replace("istio: ingressgateway", "app: edge")), "a workload may have both"


def test_gateways_of_the_gateway_api() -> None:
    """All of ours are on the same workloads; those of another controller are not."""
    first, second = API_GATEWAY % ("a", ""), API_GATEWAY % ("b", "")
    assert "TUL0402" in codes(first + "---" + second)
    assert "TUL0402" not in codes(first + "---" + second.replace("port: 80", "port: 81"))
    other = "---\napiVersion: gateway.networking.k8s.io/v1\nkind: GatewayClass\nmetadata: {name: other}\n"
    other += "spec: {controllerName: example.com/other}\n---\n"
    assert "TUL0402" not in codes(first + other + second.replace("tulle", "other"))
