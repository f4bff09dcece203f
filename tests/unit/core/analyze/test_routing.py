"""02xx: rules that contradict each other, that nothing reaches, or that lead nowhere."""

from __future__ import annotations

import pytest

from tests.unit.core.analyze.cases import (
    API_GATEWAY,
    GATEWAY,
    HTTP_ROUTE,
    RULE,
    SERVICE_PARENT,
    TO_REVIEWS,
    VIRTUAL_SERVICE,
    Cases,
    codes,
    found,
)

TO = "route: [{destination: {host: reviews}}]"
ALL = f"[{{{TO}}}]"
TWO = "[{route: [{destination: {host: reviews}, weight: %d}, {destination: {host: ratings}, weight: %d}]}]"
BACKEND = "[{backendRefs: [{name: reviews-v1, port: 9080, weight: %d}]}]"
TCP = """
apiVersion: v1
kind: Service
metadata: {name: db}
spec: {selector: {app: reviews}, ports: [{name: %s, port: 3306}]}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: db}
spec: {hosts: [db], http: [{route: [{destination: {host: db}}]}]}
"""
CONNECTIONS = """
apiVersion: v1
kind: Service
metadata: {name: db}
spec: {clusterIP: 240.240.9.9, selector: {app: reviews}, ports: [{name: %s, port: 3306}]}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: db}
spec: {hosts: [db], tcp: [{route: [{destination: {host: db}}]}]}
"""
AT_GATEWAY = """---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: %s}
spec: {hosts: ["%s"], gateways: [gw], http: %s}
"""
HOSTED = API_GATEWAY % ("gw", ", hostname: shop.example.com") + "---" + HTTP_ROUTE
FROM_SHOP = (
    API_GATEWAY
    + "---\napiVersion: v1\nkind: Namespace\nmetadata: {name: shop}\n---\n"
    + HTTP_ROUTE.replace("metadata: {", "metadata: {namespace: shop, ")
)
ENTRY = """---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: %s}
spec: {hosts: [%s], ports: [{number: 443, name: one, protocol: %s}], resolution: %s%s}
"""
PREFIX = "match: [{uri: {prefix: %s}}]"

SIDECAR = """
apiVersion: networking.istio.io/v1
kind: Sidecar
metadata: {name: s}
spec: {egress: [%s]}
"""
UDP = """
apiVersion: v1
kind: Service
metadata: {name: dns}
spec: {selector: {app: reviews}, ports: [{name: dns, port: 53, protocol: %s}%s]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: UDPRoute
metadata: {name: dns}
spec:
  parentRefs: [{group: "", kind: Service, name: dns}]
  rules: [{backendRefs: [{name: dns, port: 53}]}]
"""
CASES: Cases = {
    "TUL0201": (
        VIRTUAL_SERVICE % ("a", ALL) + "---" + VIRTUAL_SERVICE % ("b", ALL),
        VIRTUAL_SERVICE % ("a", ALL) + "---" + VIRTUAL_SERVICE.replace("[reviews]", "[ratings]") % ("b", ALL),
    ),
    "TUL0202": (
        "---".join(RULE % (name, "trafficPolicy: {loadBalancer: {simple: RANDOM}}") for name in "ab"),
        RULE % ("a", "trafficPolicy: {loadBalancer: {simple: RANDOM}}")
        + "---"
        + RULE % ("b", "subsets: [{name: v1, labels: {version: v1}}]"),
    ),
    "TUL0203": (
        VIRTUAL_SERVICE % ("a", f"[{{{PREFIX % '/a'}, {TO}}}, {{{PREFIX % '/a/b'}, {TO}}}]"),
        VIRTUAL_SERVICE % ("a", f"[{{{PREFIX % '/a/b'}, {TO}}}, {{{PREFIX % '/a'}, {TO}}}]"),
    ),
    "TUL0204": (
        VIRTUAL_SERVICE % ("a", f"[{{match: [{{uri: {{prefix: /a}}}}, {{uri: {{exact: /a/b}}}}], {TO}}}]"),
        VIRTUAL_SERVICE % ("a", f"[{{match: [{{uri: {{prefix: /a}}}}, {{uri: {{exact: /b}}}}], {TO}}}]"),
    ),
    "TUL0205": (VIRTUAL_SERVICE % ("a", TWO % (0, 0)), VIRTUAL_SERVICE % ("a", TWO % (0, 100))),
    "TUL0206": (HTTP_ROUTE % ("r", SERVICE_PARENT, BACKEND % 0), HTTP_ROUTE % ("r", SERVICE_PARENT, BACKEND % 1)),
    "TUL0207": (VIRTUAL_SERVICE % ("a", TWO % (80, 10)), VIRTUAL_SERVICE % ("a", TWO % (80, 20))),
    "TUL0208": (TCP % "mysql", TCP % "http"),
    "TUL0209": (
        GATEWAY % ("gw", "shop.example.com") + AT_GATEWAY % ("a", "blog.example.com", ALL),
        GATEWAY % ("gw", "*.example.com") + AT_GATEWAY % ("a", "blog.example.com", ALL),
    ),
    "TUL0210": (
        HOSTED.replace("spec: {parentRefs", "spec: {hostnames: [blog.example.com], parentRefs") % ("r", "{name: gw}", TO_REVIEWS),
        HOSTED.replace("spec: {parentRefs", "spec: {hostnames: [shop.example.com], parentRefs") % ("r", "{name: gw}", TO_REVIEWS),
    ),
    "TUL0211": (
        FROM_SHOP % ("gw", "", "r", "{name: gw, namespace: default}", "[{}]"),
        FROM_SHOP % ("gw", ", allowedRoutes: {namespaces: {from: All}}", "r", "{name: gw, namespace: default}", "[{}]"),
    ),
    "TUL0212": (VIRTUAL_SERVICE % ("a", TWO % (-1, 101)), VIRTUAL_SERVICE % ("a", TWO % (1, 99))),
    "TUL0213": (
        ENTRY % ("a", "api.example.com", "TLS", "DNS", "") + ENTRY % ("b", "api.example.com", "HTTP", "DNS", ""),
        ENTRY % ("a", "api.example.com", "TLS", "DNS", "") + ENTRY % ("b", "api.example.com", "TLS", "DNS", ""),
    ),
    "TUL0214": (
        ENTRY % ("a", "one.example.com", "TCP", "NONE", "") + ENTRY % ("b", "two.example.com", "TCP", "NONE", ""),
        ENTRY % ("a", "one.example.com", "TCP", "NONE", ", addresses: [192.0.2.1]")
        + ENTRY % ("b", "two.example.com", "TCP", "DNS", ""),
    ),
    "TUL0215": (
        RULE % ("a", "subsets: [{name: v9, labels: {version: v9}}]"),
        RULE % ("a", "subsets: [{name: v1, labels: {version: v1}}]"),
    ),
    "TUL0216": (
        "---".join(HTTP_ROUTE % (name, SERVICE_PARENT, TO_REVIEWS) for name in "ab"),
        HTTP_ROUTE % ("a", SERVICE_PARENT, "[{matches: [{path: {value: /a}}]}]")
        + "---"
        + HTTP_ROUTE % ("b", SERVICE_PARENT, "[{matches: [{path: {value: /b}}]}]"),
    ),
    "TUL0217": (CONNECTIONS % "http", CONNECTIONS % "mysql"),
    "TUL0218": (
        SIDECAR % "{port: {number: 9080, protocol: TCP}, captureMode: NONE, hosts: ['./*']}",
        SIDECAR % "{port: {number: 9080, protocol: HTTP}, captureMode: NONE, hosts: ['./*']}",
    ),
    "TUL0220": (UDP % ("TCP", ""), UDP % ("UDP", "")),
    "TUL0219": (
        SIDECAR % "{port: {number: 9080, protocol: HTTP}, bind: 127.0.0.3, captureMode: NONE, hosts: ['./none.example.com']}",
        SIDECAR % "{port: {number: 1234, protocol: TCP}, bind: 127.0.0.3, hosts: ['./ratings.default.svc.cluster.local']}",
    ),
}


@pytest.mark.parametrize("code", CASES)
def test_found_where_it_is_and_only_there(code: str) -> None:
    """The code would be missed, or said of what is right."""
    wrong, right = CASES[code]
    assert code in codes(wrong)
    assert code not in codes(right)


def test_where_an_unreachable_rule_is() -> None:
    """A person would not know which rule, and which other takes its requests."""
    text = VIRTUAL_SERVICE % ("a", f"[{{{PREFIX % '/'}, {TO}}}, {{{TO}}}, {{match: [{{method: {{exact: GET}}}}], {TO}}}]")
    dead = [one for one in found(text) if one.code == "TUL0203"]
    assert [one.path for one in dead] == ["spec.http[1]", "spec.http[2]"]
    assert all("spec.http[0].match[0]" in one.message for one in dead)


def test_rules_of_connections() -> None:
    """Rules for TLS and TCP would be taken for reachable, or those of other networks and names for dead."""
    text = """
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: a}
spec:
  hosts: [reviews]
  tls:
  - match: [{sniHosts: ["*.example.com"]}]
    route: [{destination: {host: reviews}}]
  - match: [{sniHosts: [%s]}]
    route: [{destination: {host: reviews}}]
  tcp:
  - match: [{destinationSubnets: [10.0.0.0/8]}]
    route: [{destination: {host: reviews}}]
  - match: [{destinationSubnets: [%s], port: 80}]
    route: [{destination: {host: reviews}}]
"""
    dead = [one.path for one in found(text % ("shop.example.com", "10.1.0.0/16")) if one.code == "TUL0203"]
    assert dead == ["spec.tcp[1]", "spec.tls[1]"]
    assert "TUL0203" not in codes(text % ("shop.example.org", "11.0.0.0/8"))


def test_an_older_object_takes_all_at_a_gateway() -> None:
    """The younger of two VirtualServices of one host and gateway would have rules that nothing reaches."""
    a, b = AT_GATEWAY % ("a", "*", ALL), AT_GATEWAY % ("b", "*", f"[{{{PREFIX % '/b'}, {TO}}}]")
    (dead,) = [one for one in found(GATEWAY % ("gw", "*") + a + b) if one.code == "TUL0203"]
    assert str(dead.ref) == "VirtualService default/b"
    assert "VirtualService default/a" in dead.message
    narrow = AT_GATEWAY % ("a", "*", f"[{{{PREFIX % '/a'}, {TO}}}]")
    assert "TUL0203" not in codes(GATEWAY % ("gw", "*") + narrow + b)
    assert "TUL0203" not in codes(GATEWAY % ("gw", "*") + a.replace('"*"', "a.example.com") + b)


def test_routes_of_the_gateway_api_go_by_precedence() -> None:
    """A wide match that is written first would be said to hide a narrow one, which goes before it all the same."""
    rules = "[{matches: [{path: {value: /}}]}, {matches: [{path: {value: /a}}, {path: {value: /a/}}]}, {}]"
    got = found(HTTP_ROUTE % ("r", SERVICE_PARENT, rules))
    assert [(one.code, one.path) for one in got if one.code.startswith("TUL020") and one.code != "TUL0206"] == [
        ("TUL0204", "spec.rules[1].matches[0]"),  # /a/ is the longer of the two
        ("TUL0203", "spec.rules[2]"),
    ]


def test_calls_of_grpc_routes() -> None:
    """A gRPC method would be routed by two routes, and one of them never."""
    route = HTTP_ROUTE.replace("HTTPRoute", "GRPCRoute")
    twice = "[{matches: [{method: {service: a.B, method: C}}]}, {matches: [{method: {service: a.B, method: C}}]}]"
    assert "TUL0203" in codes(route % ("r", SERVICE_PARENT, twice))
    wider = "[{matches: [{method: {service: a.B}}]}, {matches: [{method: {service: a.B, method: C}}]}]"
    assert "TUL0203" not in codes(route % ("r", SERVICE_PARENT, wider)), "the method goes before its service"


def test_subsets_are_only_judged_where_it_is_known_what_runs() -> None:
    """Files alone, in a pipeline without a mesh, would have every subset reported."""
    assert "TUL0215" not in [one.code for one in found(CASES["TUL0215"][0], live=False, beside=False)]


def test_a_service_entry_with_the_name_of_a_service() -> None:
    """Traffic would go to the Service, whatever the ServiceEntry says."""
    assert "TUL0213" in codes(ENTRY % ("a", "reviews.default.svc.cluster.local", "HTTP", "DNS", ""))
