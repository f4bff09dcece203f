"""Policies in the running mesh: from `tulle apply` by the node to Envoy, and back again."""

from __future__ import annotations

from tests.support.mesh import Mesh

POLICY = """
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: reviews, namespace: default}
spec:
  selector: {matchLabels: {app: reviews}}
  rules:
  - from: [{source: {principals: [cluster.local/ns/default/sa/%s]}}]
    to: [{operation: {methods: [GET], paths: ["/reviews/*"]}}]
"""
NOTHING = """
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: reviews, namespace: default}
spec: {selector: {matchLabels: {app: reviews}}}
"""
ALIAS = """
apiVersion: tulle.dev/v1alpha1
kind: MeshConfig
metadata: {name: mesh}
spec: {trustDomainAliases: [before.example]}
"""


def status(mesh: Mesh, path: str = "/reviews/0") -> str:
    """What `curl` in the mesh is answered."""
    return mesh.inside("curl", "-sS", "-o", "/dev/null", "-w", "%{http_code}", "--path-as-is", f"http://reviews:9080{path}").out


def test_who_may_call(mesh: Mesh) -> None:
    """Broken: policies would be believed and not kept, or outlive their objects."""
    account = mesh.kubectl("get", "workloadentry", "curl", "-o", "jsonpath={.spec.serviceAccount}").out
    try:
        assert status(mesh) == "200", "the sidecar of the caller has a connection now"
        seen = []
        for text in (NOTHING, POLICY % account, POLICY % "somebody-else"):
            mesh.tulle("apply", "-f", "-", stdin=text)
            mesh.synced()
            seen.append(status(mesh))
        assert seen == ["403", "200", "403"]
        mesh.tulle("apply", "-f", "-", stdin=POLICY % account)
        mesh.synced()
        assert [status(mesh, path) for path in ("/reviews/0", "/health", "/reviews/../health")] == ["200", "403", "403"]
        words = ("--from", account, "--path")
        told = [mesh.tulle("authz", "check", "reviews-v1", *words, path, check=False).code for path in ("/reviews/0", "/health")]
        assert told == [0, 1]
        passed = mesh.kubectl("get", "authorizationpolicy", "reviews", "-o", "jsonpath={.status.conditions[*].reason}").out
        assert "NoProblems" in passed
    finally:
        mesh.tulle("delete", "-f", "-", stdin=NOTHING)
        mesh.synced()
    assert status(mesh) == "200"


def test_another_name_of_the_trust_domain(mesh: Mesh) -> None:
    """Broken: policies written before the trust domain was renamed would shut everybody out, or let in who has the old name."""
    account = mesh.kubectl("get", "workloadentry", "curl", "-o", "jsonpath={.spec.serviceAccount}").out
    before = (POLICY % account).replace("cluster.local", "before.example")
    try:
        mesh.tulle("apply", "-f", "-", stdin=before)
        mesh.synced()
        assert status(mesh) == "403", "of another trust domain"
        mesh.tulle("apply", "-f", "-", stdin=ALIAS)
        mesh.synced()
        assert status(mesh) == "200"
    finally:
        for text in (ALIAS, NOTHING):
            mesh.tulle("delete", "-f", "-", stdin=text, check=False)
        mesh.synced()
    assert status(mesh) == "200"
