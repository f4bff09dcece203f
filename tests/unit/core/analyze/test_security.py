"""03xx: mutual TLS on both ends, policies for somebody, certificates that hold."""

from __future__ import annotations

import json

import pytest

from tests.unit.core.analyze.cases import NOW, RULE, Cases, codes, found, pair, secret

PEER = """---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: %s}
spec: {%s}
"""
OUTSIDE = """---
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {name: old}
spec: {address: 192.0.2.7, labels: {app: %s}}
"""
POLICY = """---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: p%s}
spec: {selector: {matchLabels: {app: %s}}}
"""
TOKENS = """---
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {name: t}
spec: {jwtRules: [{issuer: a, jwks: %s}]}
"""
KEY = {"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}
RULES = """---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: p}
spec: {rules: [{when: [{key: "%s", values: [a]}]}]}
"""
TLS = "trafficPolicy: {tls: {mode: %s}}"
HTTPS = """---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: gw}
spec:
  selector: {istio: nobody}
  servers:
  - {port: {number: 443, name: https, protocol: HTTPS}, hosts: ["*"], tls: {mode: SIMPLE, credentialName: cert}}
"""
UDP = """---
apiVersion: v1
kind: Service
metadata: {name: udp}
spec: {selector: {app: reviews}, ports: [{name: dns, port: 53, protocol: %s}]}
"""
GOOD, OTHER = pair(), pair(-1.0, 364.0)

FEDERATED = """
apiVersion: tulle.dev/v1alpha1
kind: MeshConfig
metadata: {name: mesh}
spec:
  federatedTrustDomains: [{trustDomain: %s, trustDomainBundle: '%s'}]
"""
INGRESS = """---
apiVersion: networking.istio.io/v1
kind: Sidecar
metadata: {name: s}
spec:
  workloadSelector: {labels: {app: reviews}}
  ingress:
  - {port: {number: 9443, protocol: HTTPS}, defaultEndpoint: 127.0.0.1:9080, tls: {mode: SIMPLE, credentialName: cert}}
"""
CASES: Cases = {
    "TUL0301": (
        RULE % ("r", TLS % "DISABLE") + PEER % ("p", "mtls: {mode: STRICT}"),
        RULE % ("r", TLS % "ISTIO_MUTUAL") + PEER % ("p", "mtls: {mode: STRICT}"),
    ),
    "TUL0302": (
        RULE % ("r", TLS % "ISTIO_MUTUAL") + PEER % ("p", "mtls: {mode: DISABLE}"),
        RULE % ("r", TLS % "DISABLE") + PEER % ("p", "mtls: {mode: DISABLE}"),
    ),
    "TUL0303": (
        PEER % ("p", "mtls: {mode: STRICT}") + OUTSIDE % "old",
        PEER % ("p", "mtls: {mode: PERMISSIVE}") + OUTSIDE % "old",
    ),
    "TUL0304": (
        PEER % ("a", "mtls: {mode: STRICT}") + PEER % ("b", "mtls: {mode: PERMISSIVE}"),
        PEER % ("a", "mtls: {mode: STRICT}") + PEER % ("b", "selector: {matchLabels: {app: reviews}}"),
    ),
    "TUL0305": (POLICY % ("", "reviewz"), POLICY % ("", "reviews")),
    "TUL0306": (secret("not a certificate", GOOD[1]), secret(*GOOD)),
    "TUL0307": (secret(GOOD[0], OTHER[1]), secret(*GOOD)),
    "TUL0308": (secret(*pair(-9.0, -1.0)), secret(*GOOD)),
    "TUL0309": (secret(*pair(-9.0, 29.0)), secret(*pair(-9.0, 31.0))),
    "TUL0310": (secret("x", "", "Opaque") + HTTPS, secret(*GOOD) + HTTPS),
    "TUL0311": (RULES % "experimental.envoy.filters.network.mysql_proxy[a.b]", RULES % "source.principal"),
    "TUL0313": (FEDERATED % ("cluster.local", '{"keys": []}'), FEDERATED % ("other.example", '{"keys": []}')),
    "TUL0314": (FEDERATED % ("other.example", "nonsense"), FEDERATED % ("other.example", '{"keys": []}')),
    "TUL0315": (PEER % ("p", "mtls: {mode: STRICT}") + UDP % "UDP", PEER % ("p", "mtls: {mode: STRICT}") + UDP % "TCP"),
    "TUL0316": (
        INGRESS + PEER % ("p", "mtls: {mode: STRICT}"),
        INGRESS
        + PEER % ("p", "selector: {matchLabels: {app: reviews}}, mtls: {mode: STRICT}, portLevelMtls: {9443: {mode: DISABLE}}"),
    ),
    "TUL0312": (TOKENS % "nonsense", TOKENS % json.dumps(json.dumps({"keys": [KEY]}))),
}


@pytest.mark.parametrize("code", CASES)
def test_found_where_it_is_and_only_there(code: str) -> None:
    """The code would be missed, or said of what is right."""
    wrong, right = CASES[code]
    assert code in codes(wrong)
    assert code not in codes(right)


def test_ports_and_subsets_have_tls_of_their_own() -> None:
    """The wrong field would be named, or a field reported that another one overrules."""
    rule = RULE % (
        "r",
        "trafficPolicy: {tls: {mode: DISABLE}}, subsets: [{name: v1, labels: {version: v1}, trafficPolicy: "
        "{portLevelSettings: [{port: {number: 9080}, tls: {mode: ISTIO_MUTUAL}}]}}, {name: v2, labels: {version: v2}}]",
    )
    one_port = PEER % ("p", "selector: {matchLabels: {version: v1}}, mtls: {mode: DISABLE}, portLevelMtls: {9080: {mode: %s}}")
    assert [(it.code, it.path) for it in found(rule + one_port % "DISABLE") if it.code.startswith("TUL030")] == [
        ("TUL0302", "spec.subsets[0].trafficPolicy.portLevelSettings[0].tls.mode")
    ]
    (strict,) = [it for it in found(rule + one_port % "STRICT") if it.code.startswith("TUL030")]
    assert (strict.code, strict.path) == ("TUL0301", "spec.trafficPolicy.tls.mode")
    assert "default/reviews-v1 " in strict.message
    assert "default/reviews-v2" not in strict.message


def test_datagrams_past_a_policy() -> None:
    """Broken: somebody who wrote who may call a workload would believe that nobody else reaches it."""
    assert "TUL0315" in codes(POLICY % ("", "reviews") + UDP % "UDP")
    assert "TUL0315" not in codes(POLICY % ("", "ratings") + UDP % "UDP")


def test_a_wildcard_rule_is_judged_by_all_that_it_covers() -> None:
    """A rule for a whole namespace would be passed over."""
    rule = (RULE % ("r", TLS % "DISABLE")).replace("host: reviews", 'host: "*.default.svc.cluster.local"')
    (one,) = [it for it in found(rule + PEER % ("p", "mtls: {mode: STRICT}")) if it.code == "TUL0301"]
    assert "more" in one.message, "seven workloads are not all named"


def test_mutual_tls_to_a_workload_without_a_sidecar() -> None:
    """Only PeerAuthentications would count, and the plainest reason would be missed."""
    service = "---\napiVersion: v1\nkind: Service\nmetadata: {name: old}\n"
    service += "spec: {selector: {app: old}, ports: [{name: http, port: 80}]}\n"
    rule = (RULE % ("r", TLS % "ISTIO_MUTUAL")).replace("host: reviews", "host: old")
    assert "TUL0302" in codes(rule + service + OUTSIDE % "old")


def test_strict_with_an_exception() -> None:
    """The exception that the hint asks for would not help."""
    strict = (PEER % ("p", "mtls: {mode: STRICT}")).replace("name: p", "name: p, namespace: tulle-system")
    assert "TUL0303" in codes(strict + OUTSIDE % "old"), "mesh-wide"
    exception = PEER % ("q", "selector: {matchLabels: {app: old}}, mtls: {mode: PERMISSIVE}")
    assert "TUL0303" not in codes(strict + OUTSIDE % "old" + exception)


def test_every_kind_that_selects() -> None:
    """Only one kind would be looked at."""
    label = "{matchLabels: {app: %s}}"
    texts = [
        ("security.istio.io/v1", "PeerAuthentication", f"selector: {label}"),
        ("security.istio.io/v1", "RequestAuthentication", f"selector: {label}"),
        ("telemetry.istio.io/v1", "Telemetry", f"selector: {label}"),
        ("networking.istio.io/v1beta1", "ProxyConfig", f"selector: {label}"),
        ("networking.istio.io/v1", "Sidecar", "workloadSelector: {labels: {app: %s}}"),
        (
            "networking.istio.io/v1",
            "ServiceEntry",
            "workloadSelector: {labels: {app: %s}}, hosts: [a.example.com], resolution: STATIC",
        ),
        ("networking.istio.io/v1", "DestinationRule", f"workloadSelector: {label}, host: reviews"),
    ]
    for version, kind, spec in texts:
        text = f"apiVersion: {version}\nkind: {kind}\nmetadata: {{name: x}}\nspec: {{{spec}}}\n"
        assert "TUL0305" in codes(text % "nobody"), kind
        assert "TUL0305" not in codes(text % "reviews"), kind


def test_one_in_the_root_namespace_selects_everywhere() -> None:
    """A mesh-wide policy would be said to be for nobody."""
    text = POLICY % (", namespace: tulle-system", "reviews")
    assert "TUL0305" not in codes(text)
    elsewhere = "apiVersion: v1\nkind: Namespace\nmetadata: {name: shop}\n" + POLICY % (", namespace: shop", "reviews")
    assert "TUL0305" in codes(elsewhere)


def test_two_sidecars_for_the_same_workloads() -> None:
    """One of them would have no effect in silence."""
    text = "---\napiVersion: networking.istio.io/v1\nkind: Sidecar\nmetadata: {name: %s}\nspec: {egress: [{hosts: [./*]}]}\n"
    assert codes(text % "a" + text % "b").count("TUL0304") == 1


def test_secrets_that_are_not_about_tls_are_left_alone() -> None:
    """Every password would be called a bad certificate."""
    text = "apiVersion: v1\nkind: Secret\nmetadata: {name: s}\nstringData: {password: hunter2}\n"
    assert codes(text) == []
    assert "TUL0306" in codes(secret(GOOD[0], ""))


def test_nothing_of_a_key_is_told() -> None:
    """A finding would carry what a Secret is there to hide."""
    got = found(secret("hunter2-not-a-certificate", "hunter2-not-a-key"))
    assert [one.code for one in got] == ["TUL0306"]
    assert "hunter2" not in str(got)


def test_a_certificate_whose_time_has_not_come() -> None:
    """A wrong clock would look like a good certificate."""
    (one,) = found(secret(*pair(1.0, 90.0)))
    assert one.code == "TUL0308"
    assert "begins" in one.message
    assert found(secret(*pair(1.0, 90.0)), now=NOW + 48 * 3600.0) == []


def test_gateways_of_a_certificate_that_has_ended() -> None:
    """Broken: whoever looks at a Gateway, of either API, would not see why browsers refuse it."""
    servers = (
        "[{port: {number: 443, name: https, protocol: HTTPS}, hosts: [a.example], tls: {mode: SIMPLE, credentialName: cert}}]"
    )
    listeners = "[{name: https, port: 443, protocol: HTTPS, tls: {certificateRefs: [{name: cert}]}}]"
    both = (
        f"---\napiVersion: networking.istio.io/v1\nkind: Gateway\nmetadata: {{name: a}}\nspec: {{servers: {servers}}}\n"
        "---\napiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {name: b}\n"
        f"spec: {{gatewayClassName: tulle, listeners: {listeners}}}\n"
    )

    def secrets(certificate: str, key: str) -> str:
        """Where each of the two looks for it: beside the object, and beside the gateway workload."""
        one = secret(certificate, key)
        return f"{one}---\n{one.replace('name: cert', 'name: cert, namespace: tulle-system')}"

    ended = [one for one in found(secrets(*pair(-9.0, -1.0)) + both) if one.code == "TUL0308"]
    assert sorted(one.path for one in ended) == [
        "data",
        "data",
        "spec.listeners[0].tls.certificateRefs",
        "spec.servers[0].tls.credentialName",
    ]
    assert "TUL0308" not in codes(secrets(*GOOD) + both)
