"""TLS to backends: what BackendTLSPolicies and DestinationRules make of it, and which of them counts."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.certificates import Roots
from tests.support.statuses import condition, written
from tests.unit.core.compile.mesh import Mesh, bookinfo, obj
from tulle.api.object import Object
from tulle.core.compile.destinations import destination
from tulle.core.model.destination import Destination, Transport
from tulle.core.model.traffic import Tls

PEM = Roots().pem.decode()


@pytest.fixture
def mesh() -> Mesh:
    return Mesh([*bookinfo(), config_map(PEM)])


def config_map(text: str) -> Object:
    return obj({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "ca"}, "data": {"ca.crt": text}})


def policy(name: str = "p", created: str = "2024-01-01T00:00:00Z", section: str = "", **validation: Any) -> Object:
    target = {"group": "", "kind": "Service", "name": "reviews", **({"sectionName": section} if section else {})}
    options = validation.pop("options", {})
    said = {"hostname": f"{name}.example.com", "caCertificateRefs": [{"group": "", "kind": "ConfigMap", "name": "ca"}]}
    if "wellKnownCACertificates" in validation:
        del said["caCertificateRefs"]
    spec = {"targetRefs": [target], "validation": {**said, **validation}, "options": options}
    metadata = {"name": name, "creationTimestamp": created}
    return obj({"apiVersion": "gateway.networking.k8s.io/v1", "kind": "BackendTLSPolicy", "metadata": metadata, "spec": spec})


def rule(**tls: Any) -> Object:
    spec = {"host": "reviews", "trafficPolicy": {"tls": tls}}
    return obj({"apiVersion": "networking.istio.io/v1", "kind": "DestinationRule", "metadata": {"name": "reviews"}, "spec": spec})


def how(mesh: Mesh) -> Destination:
    row = mesh.pipeline.flow.get(destination, (("default", "reviews"), 9080, ""))
    assert row
    return row


def test_a_policy(mesh: Mesh) -> None:
    """Broken: requests would go to the backend in plain text, or unchecked."""
    mesh.apply([policy()])
    assert how(mesh).transport is Transport.TLS
    assert how(mesh).tls == Tls(sni="p.example.com", authorities=PEM)
    names = [{"type": "Hostname", "hostname": "a.example"}, {"type": "URI", "uri": "spiffe://a/b"}]
    mesh.apply([policy(subjectAltNames=names, wellKnownCACertificates="System")])
    assert how(mesh).tls == Tls(sni="p.example.com", names=("a.example",), uris=("spiffe://a/b",))
    mesh.delete([policy()])
    assert how(mesh).transport is Transport.MTLS


def test_options_of_a_policy(mesh: Mesh) -> None:
    """Broken: a version would be spoken that somebody ruled out; or an option be believed in that does nothing."""
    options = {
        "tulle.dev/tls-min-protocol-version": "TLSV1_3",
        "gateway.istio.io/tls-cipher-suites": "ECDHE-ECDSA-AES256-GCM-SHA384, ROT13",
        "gateway.istio.io/tls-terminate-mode": "MUTUAL",
        "example.com/x": "y",
    }
    mesh.apply([policy(options=options)])
    assert how(mesh).tls == Tls(
        sni="p.example.com", authorities=PEM, minimum="TLSv1_3", ciphers=("ECDHE-ECDSA-AES256-GCM-SHA384",)
    )
    found = {(one.reason, one.path.removeprefix("spec.options")) for one in mesh.problems()}
    assert found == {
        ("BadEnum", '["gateway.istio.io/tls-cipher-suites"]'),
        ("NotYetSupported", '["gateway.istio.io/tls-terminate-mode"]'),
        ("NotYetSupported", '["example.com/x"]'),
    }
    status = written(mesh.pipeline, ("backendtlspolicies.gateway.networking.k8s.io", ("default", "p")))
    accepted = condition(status["ancestors"][0]["conditions"], "Accepted")
    assert accepted["status"] == "True"
    assert 'without: spec.options["gateway.istio.io/tls-cipher-suites"]: found "ROT13"' in accepted["message"]
    assert "example.com/x" in accepted["message"]


@pytest.mark.parametrize("text", ["", "Hello", "-----BEGIN CERTIFICATE-----\nMAAA\n-----END CERTIFICATE-----\n"])
def test_without_authorities_nobody_is_trusted(mesh: Mesh, text: str) -> None:
    """Broken: a backend would be trusted unchecked, or Envoy refuse the cluster and keep an older one."""
    mesh.apply([policy(), config_map(text)])
    assert how(mesh).tls == Tls(sni="p.example.com", nobody=True)


def test_which_policy_counts(mesh: Mesh) -> None:
    """Broken: a policy for all ports would hide the one for this port, or the younger the older."""
    mesh.apply([policy("young", "2024-02-01T00:00:00Z"), policy("old"), rule(mode="SIMPLE", sni="rule.example.com")])
    assert (how(mesh).tls or Tls()).sni == "old.example.com"
    mesh.apply([policy("port", "2024-03-01T00:00:00Z", section="http"), policy("other", section="nothing")])
    assert (how(mesh).tls or Tls()).sni == "port.example.com"
    mesh.delete([policy("port"), policy("old"), policy("young")])
    assert (how(mesh).tls or Tls()).sni == "rule.example.com"


@pytest.mark.parametrize(
    ("said", "means"),
    [
        ({"mode": "SIMPLE"}, Tls()),
        ({"mode": "SIMPLE", "insecureSkipVerify": True}, Tls(verify=False)),
        (
            {"mode": "SIMPLE", "sni": "a", "subjectAltNames": ["b", "spiffe://c/d"], "caCertificates": "/ca", "caCrl": "/crl"},
            Tls("a", ("b",), ("spiffe://c/d",), ca_file="/ca", crl_file="/crl"),
        ),
        (
            {"mode": "MUTUAL", "clientCertificate": "/c", "privateKey": "/k", "caCertificates": "system"},
            Tls(certificate_file="/c", key_file="/k"),
        ),
    ],
)
def test_a_rule(mesh: Mesh, said: dict[str, Any], means: Tls) -> None:
    """Broken: a host outside the mesh would be called in plain text, or with other certificates than a person said."""
    mesh.apply([rule(**said)])
    assert mesh.problems() == []
    assert (how(mesh).transport, how(mesh).tls) == (Transport.TLS, means)


def test_routes_to_a_port_of_tls_need_a_policy(mesh: Mesh) -> None:
    """Broken: plain HTTP would be sent to a port of TLS, or a good policy be of no use."""
    ports = [{"name": "https", "port": 443}]
    spec = {"selector": {"app": "reviews"}, "ports": ports}
    service = obj({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "reviews"}, "spec": spec})
    spec = {
        "parentRefs": [{"group": "", "kind": "Service", "name": "ratings"}],
        "rules": [{"backendRefs": [{"name": "reviews", "port": 443}]}],
    }
    route = {"apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute", "metadata": {"name": "r"}, "spec": spec}
    mesh.apply([service, obj(route)])
    assert [problem.reason for problem in mesh.problems()] == ["UnsupportedProtocol"]
    mesh.apply([policy()])
    assert mesh.problems() == []
