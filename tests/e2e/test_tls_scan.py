"""What an independent scanner finds wherever the mesh speaks TLS: nothing weak; and what MeshConfig says of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.gateways import ROOTS, Gateways, listener, object_, pem, route, secret
from tests.support.mesh import Mesh, free_port
from tests.support.scanner import Place, scan
from tulle.control.ca.authority import Authority
from tulle.control.store.sealed import Keys

GOOD = {f"TLS_ECDHE_{key}_WITH_{cipher}" for key in ("ECDSA", "RSA") for cipher in (
    "AES_128_GCM_SHA256",
    "AES_256_GCM_SHA384",
    "CHACHA20_POLY1305_SHA256",
)}  # fmt: skip
GOOD_13 = {"TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256"}
CURVES = {"X25519", "X448", "prime256v1", "secp256r1", "secp384r1", "secp521r1"}  # P-256 by both of its names


@pytest.fixture(scope="module")
def insider(mesh: Mesh, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The certificate of a workload, and its key."""
    file = tmp_path_factory.mktemp("scan") / "insider.pem"
    state = mesh.home / "state" / "demo"
    pair = Authority.open(state / "ca", seal=Keys.of_folder(state)).issue_server(
        ["localhost"], 3600, "spiffe://cluster.local/ns/default/sa/bookinfo-productpage"
    )
    file.write_bytes(pair.key + pair.chain)
    return file


@pytest.fixture
def sidecar(mesh: Mesh, insider: Path) -> Place:
    """A workload's port."""
    address = mesh.kubectl("get", "workloadentry", "details-v1", "-o", "jsonpath={.spec.address}").out
    return Place(address, 9080, "details", insider)


def test_nothing_weak_is_accepted(gateways: Gateways, sidecar: Place, insider: Path) -> None:
    """Broken: traffic of the mesh, or what reaches its control plane, could be read by whoever forces an old cipher on it."""
    mesh, port = gateways.mesh, free_port()
    spec = {"gatewayClassName": "tulle", "listeners": [listener("a", port, "scan.example", "scan")]}
    gateways.apply(
        secret("scan", pem(ROOTS.server("scan.example"))),
        object_("Gateway", "scan", spec),
        route("scan"),
    )
    where = {
        "sidecar": sidecar,
        "gateway": Place("127.0.0.1", port, "scan.example"),
        "API server": Place("127.0.0.1", mesh.api_port, "localhost", insider),
        "xDS": Place("127.0.0.1", mesh.xds_port, "localhost", insider),
    }
    for name, found in zip(where, scan(*where.values()), strict=True):
        assert found.ciphers["TLS 1.3"] <= GOOD_13, name
        assert set(found.ciphers) <= {"TLS 1.2", "TLS 1.3"}, name
        assert found.ciphers.get("TLS 1.2", set()) <= GOOD, name
        assert found.curves <= CURVES, name
        assert found.holes == set(), name


def test_what_mesh_config_says_holds(mesh: Mesh, sidecar: Place) -> None:
    """Broken: who may speak nothing but TLS 1.3 by a rule of his trade could not tell the mesh so."""

    def said(**config: object) -> None:
        spec = {"apiVersion": "tulle.dev/v1alpha1", "kind": "MeshConfig", "metadata": {"name": "mesh"}, "spec": config}
        mesh.tulle("apply", "-f", "-", stdin=json.dumps(spec))
        mesh.synced()

    try:
        said(meshMTLS={"minProtocolVersion": "TLSV1_3", "ecdhCurves": ["P-256"]})
        (found,) = scan(sidecar)
        assert set(found.ciphers) == {"TLS 1.3"}
        assert found.curves == {"secp256r1"}
        assert mesh.inside("curl", "-sS", "-o", "/dev/null", "-w", "%{http_code}", "http://details:9080/details/0").out == "200"
        said(meshMTLS={"cipherSuites": ["ECDHE-ECDSA-AES256-GCM-SHA384"]})
        (found,) = scan(sidecar)
        assert found.ciphers["TLS 1.2"] == {"TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384"}
        assert mesh.inside("curl", "-sS", "-o", "/dev/null", "-w", "%{http_code}", "http://details:9080/details/0").out == "200"
        weak = {"spec": {"meshMTLS": {"cipherSuites": ["AES128-SHA"]}}}
        refused = mesh.kubectl("patch", "meshconfig", "mesh", "--type=merge", "-p", json.dumps(weak), check=False)
        assert refused.code != 0
        assert "AES128-SHA" in refused.err
    finally:
        mesh.kubectl("delete", "meshconfig", "mesh", "--ignore-not-found")
        mesh.synced()
