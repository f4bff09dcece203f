"""01xx: what an object names is there, may be named, and is of the right kind."""

from __future__ import annotations

import base64

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
    pair,
    secret,
)

SUBSETS = RULE % ("reviews", "subsets: [{name: v1, labels: {version: v1}}]")
PORTS = """---
apiVersion: v1
kind: Service
metadata: {name: two}
spec: {selector: {app: reviews}, ports: [{name: http, port: 80}, {name: http-2, port: 81}]}
"""
TWO = """---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: two}
spec: {hosts: ["*"], gateways: [gw], http: [{route: [{destination: {host: two%s}}]}]}
"""
ELSEWHERE = (
    """
apiVersion: v1
kind: Namespace
metadata: {name: shop}
---
apiVersion: v1
kind: Service
metadata: {name: cart, namespace: shop}
spec: {selector: {app: cart}, ports: [{name: http, port: 80}]}
---
"""
    + HTTP_ROUTE % ("r", SERVICE_PARENT, "[{backendRefs: [{name: cart, namespace: shop, port: 80}]}]")
)
GRANT = """---
apiVersion: gateway.networking.k8s.io/v1beta1
kind: ReferenceGrant
metadata: {name: grant, namespace: shop}
spec: {from: [{group: gateway.networking.k8s.io, kind: HTTPRoute, namespace: default}], to: [{group: "", kind: Service}]}
"""
HTTPS = """---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: gw, namespace: tulle-system}
spec:
  selector: {istio: ingressgateway}
  servers:
  - {port: {number: 443, name: https, protocol: HTTPS}, hosts: ["*"], tls: {mode: SIMPLE, credentialName: cert}}
"""
IN_SYSTEM = secret(*pair()).replace("{name: cert}", "{name: cert, namespace: tulle-system}")
POLICY = """
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: p}
spec: %s
"""
CUSTOM = POLICY % "{action: CUSTOM, provider: {name: opa}, rules: [{}]}"
PROVIDERS = """---
apiVersion: tulle.dev/v1alpha1
kind: MeshConfig
metadata: {name: mesh}
spec: {extensionProviders: [{name: opa, envoyExtAuthzGrpc: {service: opa.default, port: 9191}}]}
"""
NAMESPACE = "apiVersion: v1\nkind: Namespace\nmetadata: {name: shop}\n---\n"
IN_SHOP = NAMESPACE + "apiVersion: v1\nkind: ServiceAccount\nmetadata: {name: a, namespace: %s}\n"
CLASS = """---
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {name: other}
spec: {controllerName: example.com/other}
"""
OTHER = API_GATEWAY.replace("tulle", "other") % ("gw", "")

TLS_BACKEND = (
    """
apiVersion: v1
kind: Service
metadata: {name: db}
spec: {selector: {app: reviews}, ports: [{name: %s, port: 443}]}
---
"""
    + HTTP_ROUTE % ("r", SERVICE_PARENT, "[{backendRefs: [{name: db, port: 443}]}]")
)

DELEGATED = (
    VIRTUAL_SERVICE % ("a", "[{delegate: {name: b}}]")
    + """
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: b}
spec: {http: %s}
"""
)

PRIVATE = (
    """
apiVersion: v1
kind: Service
metadata: {name: cart, namespace: shop, annotations: {networking.istio.io/exportTo: "%s"}}
spec: {selector: {app: cart}, ports: [{name: http, port: 80}]}
---
"""
    + VIRTUAL_SERVICE % ("a", "[{route: [{destination: {host: cart.shop.svc.cluster.local}}]}]")
)
CASES: Cases = {
    "TUL0101": (
        VIRTUAL_SERVICE % ("a", "[{route: [{destination: {host: reviewz}}]}]"),
        VIRTUAL_SERVICE % ("a", "[{route: [{destination: {host: reviews}}]}]"),
    ),
    "TUL0102": (
        VIRTUAL_SERVICE.replace("[reviews]", "[nowhere]") % ("a", "[{route: [{destination: {host: reviews}}]}]"),
        VIRTUAL_SERVICE % ("a", "[{route: [{destination: {host: reviews}}]}]"),
    ),
    "TUL0103": (
        SUBSETS + "---" + VIRTUAL_SERVICE % ("a", "[{route: [{destination: {host: reviews, subset: v9}}]}]"),
        SUBSETS + "---" + VIRTUAL_SERVICE % ("a", "[{route: [{destination: {host: reviews, subset: v1}}]}]"),
    ),
    "TUL0104": (
        VIRTUAL_SERVICE % ("a", "[{route: [{destination: {host: reviews, port: {number: 99}}}]}]"),
        VIRTUAL_SERVICE % ("a", "[{route: [{destination: {host: reviews, port: {number: 9080}}}]}]"),
    ),
    "TUL0105": (GATEWAY % ("gw", "*") + PORTS + TWO % "", GATEWAY % ("gw", "*") + PORTS + TWO % ", port: {number: 81}"),
    "TUL0106": (TWO % "", GATEWAY % ("gw", "*") + TWO % ""),
    "TUL0107": (
        API_GATEWAY % ("gw", "") + "---" + HTTP_ROUTE % ("r", "{name: gw, sectionName: https}", TO_REVIEWS),
        API_GATEWAY % ("gw", "") + "---" + HTTP_ROUTE % ("r", "{name: gw, sectionName: http}", TO_REVIEWS),
    ),
    "TUL0108": (
        HTTP_ROUTE % ("r", '{group: "", kind: ConfigMap, name: reviews}', TO_REVIEWS),
        HTTP_ROUTE % ("r", SERVICE_PARENT, TO_REVIEWS),
    ),
    "TUL0109": (ELSEWHERE, ELSEWHERE + GRANT),
    "TUL0110": (HTTPS, IN_SYSTEM + HTTPS),
    "TUL0111": (CUSTOM, CUSTOM + PROVIDERS),
    "TUL0112": (IN_SHOP % "shopp", IN_SHOP % "shop"),
    "TUL0113": (
        POLICY % '{targetRefs: [{group: "", kind: Service, name: reviewz}]}',
        POLICY % '{targetRefs: [{group: "", kind: Service, name: reviews}]}',
    ),
    "TUL0114": (HTTP_ROUTE % ("r", "", TO_REVIEWS), HTTP_ROUTE % ("r", SERVICE_PARENT, TO_REVIEWS)),
    "TUL0115": (OTHER, OTHER + CLASS),
    "TUL0116": (TLS_BACKEND % "tls", TLS_BACKEND % "http"),
    "TUL0117": (VIRTUAL_SERVICE % ("a", "[{delegate: {name: b}}]"), DELEGATED % "[{route: [{destination: {host: ratings}}]}]"),
    "TUL0119": (PRIVATE % ".", PRIVATE % "., default"),
    "TUL0118": (DELEGATED % "[{delegate: {name: b}}]", DELEGATED % "[{route: [{destination: {host: ratings}}]}]"),
}


@pytest.mark.parametrize("code", CASES)
def test_found_where_it_is_and_only_there(code: str) -> None:
    """The code would be missed, or said of what is right."""
    wrong, right = CASES[code]
    assert code in codes(wrong)
    assert code not in codes(right)


def test_a_secret_is_looked_for_where_the_gateway_runs() -> None:
    """A Secret beside the Gateway would be taken for good, and TLS would not be served."""
    beside = HTTPS.replace("namespace: tulle-system", "namespace: default")
    assert "TUL0110" in codes(secret(*pair()) + beside), "the gateway workload is in tulle-system"
    assert "TUL0110" not in codes(IN_SYSTEM + beside)


def test_certificates_of_clients_may_stand_in_three_places() -> None:
    """A MUTUAL server would be reported whose authorities are where Istio's users put them."""
    mutual = HTTPS.replace("mode: SIMPLE", "mode: MUTUAL")
    (one,) = [one for one in found(IN_SYSTEM + mutual) if one.code == "TUL0110"]
    assert "no ca.crt" in one.message
    roots = base64.b64encode(pair()[0].encode()).decode()
    authorities = (
        "---\napiVersion: v1\nkind: Secret\nmetadata: {name: cert-cacert, namespace: tulle-system}\n"
        f"data: {{cacert: {roots}}}\n"
    )
    assert "TUL0110" not in codes(IN_SYSTEM + authorities + mutual)
    assert "TUL0110" not in codes(IN_SYSTEM + f"  ca.crt: {roots}\n" + mutual)
    named = mutual.replace("credentialName: cert", "credentialName: cert, caCertCredentialName: ca")
    assert "TUL0110" in codes(IN_SYSTEM + named)


def test_listeners_of_the_gateway_api() -> None:
    """A listener without its certificate, or with one that it may not name, would look fine."""
    listener = API_GATEWAY.replace("protocol: HTTP", "protocol: HTTPS")
    here = listener % ("gw", ", tls: {certificateRefs: [{name: cert}]}")
    assert "TUL0110" in codes(here)
    assert "TUL0110" not in codes(secret(*pair()) + "---" + here)
    there = listener % ("gw", ", tls: {certificateRefs: [{name: cert, namespace: tulle-system}]}")
    assert "TUL0109" in codes(IN_SYSTEM + "---" + there)
    grant = GRANT.replace("HTTPRoute", "Gateway").replace("shop", "tulle-system").replace("kind: Service", "kind: Secret")
    assert not {"TUL0109", "TUL0110"} & set(codes(IN_SYSTEM + "---" + there + grant))


def test_authorities_of_backends_and_certificates_for_them() -> None:
    """TLS to a backend would fail without a word."""
    policy = """---
apiVersion: gateway.networking.k8s.io/v1
kind: BackendTLSPolicy
metadata: {name: p}
spec:
  targetRefs: [{group: "", kind: Service, name: reviews}]
  validation: {hostname: reviews, caCertificateRefs: [{group: "", kind: ConfigMap, name: ca}]}
"""
    config_map = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: ca}\n"
    assert "TUL0110" in codes(policy)
    assert "TUL0110" not in codes(config_map + policy)
    chosen = "workloadSelector: {matchLabels: {app: curl}}"
    rule = RULE % ("r", f"{chosen}, trafficPolicy: {{tls: {{mode: MUTUAL, credentialName: cert}}}}")
    assert "TUL0110" in codes(rule)
    assert "TUL0110" not in codes(secret(*pair()) + "---" + rule)


def test_routes_on_which_the_mesh_does_not_act() -> None:
    """What such a route names would be wrong on the day when it counts."""
    route = """
apiVersion: gateway.networking.k8s.io/v1
kind: %s
metadata: {name: r}
spec: {parentRefs: [{name: %s}], hostnames: [a.example.com], rules: [{backendRefs: [{name: %s, port: %s}]}]}
"""
    cases: list[tuple[str, str, set[str]]] = [
        ("TLSRoute", "TLS", set()),
        ("TCPRoute", "TCP", set()),
    ]
    for kind, protocol, said in cases:
        text = route if kind != "TCPRoute" else route.replace("hostnames: [a.example.com], ", "")
        tls = ", tls: {mode: Passthrough}" if protocol == "TLS" else ""
        listener = (API_GATEWAY % ("gw", tls)).replace("protocol: HTTP", f"protocol: {protocol}") + "---"
        assert set(codes(listener + text % (kind, "gw", "reviews", 9080))) == said
        assert "TUL0101" in codes(listener + text % (kind, "gw", "reviewz", 9080))
        assert "TUL0104" in codes(listener + text % (kind, "gw", "reviews", 9081))
        assert "TUL0106" in codes(text % (kind, "gw", "reviews", 9080))


def test_namespaces_are_only_missed_where_some_are_known() -> None:
    """Files without a Namespace would have every object reported."""
    account = "apiVersion: v1\nkind: ServiceAccount\nmetadata: {name: a, namespace: shop}\n"
    assert "TUL0112" not in codes(account)
    assert "TUL0112" not in codes(NAMESPACE + account.replace("shop", "default"))


def test_providers_of_telemetry() -> None:
    """Logs would go nowhere."""
    telemetry = """---
apiVersion: telemetry.istio.io/v1
kind: Telemetry
metadata: {name: t}
spec: {accessLogging: [{providers: [{name: %s}]}]}
"""
    assert "TUL0111" in codes(telemetry % "opaa")
    assert "TUL0111" not in codes(PROVIDERS + telemetry % "opa")
    assert "TUL0111" not in codes(telemetry % "envoy"), "it is there without being said"


def test_a_host_of_a_service_entry_is_not_missing() -> None:
    """Istio's examples for hosts outside would be called wrong."""
    text = """
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: api}
spec: {hosts: [api.example.com], ports: [{number: 80, name: http, protocol: HTTP}], resolution: DNS}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: api}
spec: {hosts: [api.example.com], http: [{route: [{destination: {host: api.example.com}}]}]}
"""
    assert set(codes(text)) == set()
