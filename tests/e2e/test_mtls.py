"""Mutual TLS is real: plaintext is refused, identities are right, foreign certificates are not accepted."""

from __future__ import annotations

import re
from pathlib import Path

from cryptography import x509

from tests.support.commands import run
from tests.support.mesh import Mesh
from tulle.control.ca.authority import Authority
from tulle.control.store.sealed import Keys

PERMISSIVE = """
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default, namespace: tulle-system}
spec:
  mtls: {mode: %s}
"""


def address(mesh: Mesh, workload: str) -> str:
    """The IP address of a workload, as its WorkloadEntry says."""
    return mesh.kubectl("get", "workloadentry", workload, "-o", "jsonpath={.spec.address}").out


def from_outside(mesh: Mesh, *argv: str, check: bool = False) -> str:
    """A command beside the workloads, outside of any sidecar: on the host, as root."""
    ran = run(list(argv), mesh.env, stdin="", timeout=30)
    assert not check or ran.code == 0, ran.text
    return f"{ran.code}\n{ran.text}"


def test_plaintext_from_the_host_is_refused(mesh: Mesh) -> None:
    """STRICT: what has no sidecar gets no answer from a workload's port."""
    where = f"http://{address(mesh, 'reviews-v1')}:9080/reviews/0"
    seen = from_outside(mesh, "curl", "-sS", "-m", "5", where)
    assert not seen.startswith("0\n"), seen
    assert "podname" not in seen


def test_the_certificate_is_the_workloads(mesh: Mesh) -> None:
    """openssl sees one certificate with exactly the workload's SPIFFE ID, from the mesh's root."""
    seen = from_outside(
        mesh, "openssl", "s_client", "-connect", f"{address(mesh, 'reviews-v1')}:9080", "-alpn", "istio", "-showcerts"
    )
    leaf = re.search(r"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", seen, re.S)
    assert leaf, seen
    certificate = x509.load_pem_x509_certificate(leaf[0].encode())
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    assert uris == ["spiffe://cluster.local/ns/default/sa/bookinfo-reviews"]
    assert not certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca


def test_a_certificate_of_another_authority_is_refused(mesh: Mesh, tmp_path: Path) -> None:
    """The right SPIFFE ID under a foreign root gets no answer, and no certificate at all gets none either."""
    foreign = Authority.open(tmp_path / "ca").issue_server(
        ["localhost"], 3600, "spiffe://cluster.local/ns/default/sa/bookinfo-productpage"
    )
    own = tmp_path / "foreign.pem"
    own.write_bytes(foreign.key + foreign.chain)
    state = mesh.home / "state" / "demo"
    real = Authority.open(state / "ca", seal=Keys.of_folder(state)).issue_server(
        ["localhost"], 3600, "spiffe://cluster.local/ns/default/sa/bookinfo-productpage"
    )
    good = tmp_path / "good.pem"
    good.write_bytes(real.key + real.chain)
    url = f"https://{address(mesh, 'reviews-v1')}:9080/reviews/0"

    def call(*extra: str) -> str:
        return from_outside(mesh, "curl", "-sSk", "-m", "5", "--alpn", "--http2", *extra, url)

    assert "podname" in call("--cert", str(good)), "the same call with a certificate of this mesh is answered"
    for extra in (("--cert", str(own)), ()):
        seen = call(*extra)
        assert not seen.startswith("0\n"), seen
        assert "podname" not in seen


def test_permissive_lets_plaintext_in_and_strict_shuts_it_again(mesh: Mesh) -> None:
    """The reverse: PERMISSIVE answers plaintext, while calls inside the mesh stay encrypted and go on."""
    where = f"http://{address(mesh, 'reviews-v1')}:9080/reviews/0"
    mesh.tulle("apply", "-f", "-", stdin=PERMISSIVE % "PERMISSIVE")
    mesh.synced()
    try:
        assert "podname" in from_outside(mesh, "curl", "-sS", "-m", "5", where)
        assert "podname" in mesh.inside("curl", "-sS", "http://reviews:9080/reviews/0").out
    finally:
        mesh.tulle("apply", "-f", "-", stdin=PERMISSIVE % "STRICT")
        mesh.synced()
    assert "podname" not in from_outside(mesh, "curl", "-sS", "-m", "5", where)


def test_private_keys_are_never_shown(mesh: Mesh) -> None:
    """`proxy config` in every form, and every file of the programs' logs, are without key material."""
    for what in ("all", "secret", "bootstrap"):
        shown = mesh.tulle("proxy", "config", what, "reviews-v1", "-o", "json").out
        assert "PRIVATE KEY" not in shown
        assert not re.search(r'"private_?[kK]ey":\s*\{\s*"inline_?[bB]ytes":\s*"(?!W3JlZGFjdGVkXQ|\[redacted)', shown)
    for log in mesh.home.rglob("*.log"):
        assert "PRIVATE KEY" not in log.read_text(errors="replace"), log
