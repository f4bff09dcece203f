"""05xx: what is not known, what is old, and what has no effect."""

from __future__ import annotations

import pytest

from tests.unit.core.analyze.cases import VIRTUAL_SERVICE, Cases, codes

GOOD = VIRTUAL_SERVICE % ("a", "[{route: [{destination: {host: reviews}}]}]")
NAMED = "apiVersion: networking.istio.io/v1\nkind: %s\nmetadata: {name: x}\nspec: {}\n"
POLICY = (NAMED % "ProxyConfig").replace("/v1", "/v1beta1")

CASES: Cases = {
    "TUL0501": (POLICY, GOOD),
    "TUL0502": (GOOD.replace("/v1", "/v1alpha3"), GOOD),
    "TUL0503": (GOOD.replace("/v1", "/v1beta1"), GOOD),
    "TUL0504": (GOOD.replace("/v1", "/v1alpha9"), GOOD),
    "TUL0505": ((NAMED % "Deployment").replace("networking.istio.io", "apps"), GOOD),
    "TUL0506": (NAMED % "EnvoyFilter", GOOD),
}


@pytest.mark.parametrize("code", CASES)
def test_found_where_it_is_and_only_there(code: str) -> None:
    """The code would be missed, or said of what is right."""
    wrong, right = CASES[code]
    assert code in codes(wrong)
    assert code not in codes(right)


def test_versions_of_every_api() -> None:
    """An old version of another API would pass, or the only one that there is be called old."""
    text = "apiVersion: %s\nkind: %s\nmetadata: {name: x}\nspec: %s\n"
    route = "{parentRefs: [{name: gw}], rules: [{backendRefs: [{name: reviews, port: 9080}]}]}"
    assert "TUL0502" in codes(text % ("gateway.networking.k8s.io/v1alpha2", "TCPRoute", route))
    assert "TUL0503" in codes(text % ("gateway.networking.k8s.io/v1beta1", "HTTPRoute", route))
    grant = "{from: [{group: a, kind: B, namespace: c}], to: [{group: '', kind: Service}]}"
    for version, kind, spec in (
        ("networking.istio.io/v1beta1", "ProxyConfig", "{}"),
        ("gateway.networking.k8s.io/v1beta1", "ReferenceGrant", grant),
        ("gateway.networking.k8s.io/v1", "ReferenceGrant", grant),
    ):
        assert not {"TUL0502", "TUL0503"} & set(codes(text % (version, kind, spec))), (version, kind)


def test_said_once() -> None:
    """Decoding and analysing know it both, and a person would read it twice."""
    assert codes(POLICY).count("TUL0501") == 1
