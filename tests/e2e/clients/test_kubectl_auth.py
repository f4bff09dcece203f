"""The real kubectl on access: who am I, may I, tokens, acting as another, roles and bindings."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.kubectl import Kubectl, kubectls
from tulle.client.kubeconfig import read, with_token

pytestmark = pytest.mark.e2e


@pytest.fixture(params=kubectls() or [""])
def kubectl(request: pytest.FixtureRequest, kubeconfig: Path, tmp_path: Path) -> Iterator[Kubectl]:
    """An administrator's kubectl; what a test made is gone after it."""
    if not request.param:
        pytest.skip("there is no kubectl")
    command = Kubectl(request.param, kubeconfig, tmp_path)
    yield command
    made = "kubernetes.io/bootstrapping!=rbac-defaults"
    command("delete", "role,rolebinding,sa", "--all", "--wait=false")
    command("delete", "clusterrole,clusterrolebinding", "-l", made, "--wait=false")


def with_(kubectl: Kubectl, token: str, tmp_path: Path) -> Kubectl:
    """The same kubectl with a token in place of the certificate."""
    path = tmp_path / "token.kubeconfig"
    path.write_text(with_token(read(kubectl.kubeconfig), token, "robot"))
    return replace(kubectl, kubeconfig=path)


READER = """
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: reader, namespace: default}
rules:
- {apiGroups: [""], resources: [services], verbs: [get, list]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: reader, namespace: default}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: reader}
subjects:
- {kind: User, name: alice, apiGroup: rbac.authorization.k8s.io}
"""


def test_who_am_i(kubectl: Kubectl) -> None:
    """`kubectl auth whoami`, for oneself and as another."""
    assert re.search(r"Username\s+admin", kubectl("auth", "whoami"))
    told = kubectl("auth", "whoami", "--as", "alice", "--as-group", "people", "--as-uid", "u1")
    assert re.search(r"Username\s+alice", told)
    assert re.search(r"UID\s+u1", told)
    assert "people" in told


def test_may_i(kubectl: Kubectl) -> None:
    """`can-i` for a verb and a kind, a name, a subresource, a path, as another, and as a list."""
    assert kubectl("auth", "can-i", "create", "virtualservices") == "yes\n"
    assert kubectl("auth", "can-i", "*", "*") == "yes\n"
    kubectl("apply", "-f", "-", stdin=READER)

    def may(*words: str) -> str:
        done = kubectl.run("auth", "can-i", *words, "--as", "alice")
        assert done.returncode == (0 if done.stdout == "yes\n" else 1), done.stderr
        return done.stdout.strip()

    assert may("get", "services") == "yes"
    assert may("get", "svc/cart") == "yes"
    assert may("delete", "services") == "no"
    assert may("get", "services", "-n", "kube-system") == "no"
    assert may("get", "services", "--subresource=status") == "no"
    assert may("get", "/api") == "yes"
    assert may("get", "/tulle/v1/status") == "no"
    listed = kubectl("auth", "can-i", "--list", "--as", "alice", "-n", "default")
    assert re.search(r"services\s+\[\]\s+\[\]\s+\[get list\]", listed)
    assert "services " not in kubectl("auth", "can-i", "--list", "--as", "alice", "-n", "kube-system")


def test_what_may_not_be_done_is_said(kubectl: Kubectl) -> None:
    """The message that people know from Kubernetes, with user, verb, resource and namespace."""
    done = kubectl.run("get", "secrets", "--as", "alice")
    assert done.returncode == 1
    assert (
        'Error from server (Forbidden): secrets "" is forbidden: User "alice" cannot list resource "secrets" in API group ""'
        ' in the namespace "default"' in done.stderr
    )
    done = kubectl.run("get", "svc", "--as", "alice", "--as-group", "x")
    assert "Forbidden" in done.stderr


def test_tokens_of_service_accounts(kubectl: Kubectl, tmp_path: Path) -> None:
    """`create token` gives a token that works as the service account, and no longer than that is there."""
    kubectl("create", "serviceaccount", "robot")
    token = kubectl("create", "token", "robot", "--duration", "20m").strip()
    robot = with_(kubectl, token, tmp_path)
    assert "system:serviceaccount:default:robot" in robot("auth", "whoami")
    assert robot.run("get", "services").returncode == 1
    kubectl("create", "rolebinding", "robot", "--clusterrole=viewer", "--serviceaccount=default:robot")
    assert robot.run("get", "services").returncode == 0
    assert robot.run("get", "secrets").returncode == 1
    short = kubectl.run("create", "token", "robot", "--duration", "1m")
    assert "may not specify a duration less than 10 minutes" in short.stderr
    assert "not found" in kubectl.run("create", "token", "nobody").stderr
    kubectl("delete", "serviceaccount", "robot")
    gone = robot.run("get", "services")
    assert gone.returncode == 1
    assert "Unauthorized" in gone.stderr or "logged in" in gone.stderr
    assert token not in gone.stderr


def test_imperative_roles_and_bindings(kubectl: Kubectl) -> None:
    """`kubectl create role` and its like; `describe` and `get` show them."""
    kubectl("create", "role", "r", "--verb=get,list", "--resource=services,virtualservices.networking.istio.io")
    kubectl("create", "clusterrole", "c", "--verb=get", "--non-resource-url=/tulle/v1/*")
    kubectl("create", "clusterrole", "all", "--aggregation-rule=to=all")
    kubectl("create", "rolebinding", "b", "--role=r", "--user=alice", "--group=people")
    kubectl("create", "clusterrolebinding", "cb", "--clusterrole=c", "--serviceaccount=default:robot")
    assert "virtualservices.networking.istio.io" in kubectl("describe", "role", "r")
    assert "Role/r" in kubectl("get", "rolebindings")
    assert "ClusterRole/c" in kubectl("get", "clusterrolebinding", "cb")
    assert "cluster-admin" in kubectl("get", "clusterroles")
    changed = kubectl.run(
        "patch",
        "rolebinding",
        "b",
        "--type=merge",
        "-p",
        '{"roleRef":{"apiGroup":"rbac.authorization.k8s.io","kind":"ClusterRole","name":"admin"}}',
    )
    assert "cannot change roleRef" in changed.stderr


def test_reconcile(kubectl: Kubectl) -> None:
    """`kubectl auth reconcile`: what is lacking is added, what is more stays, unless it is to go."""
    assert kubectl("auth", "reconcile", "-f", "-", stdin=READER).count("reconciled") == 2
    more = READER.replace("verbs: [get, list]", "verbs: [watch]").replace("name: alice", "name: bob")
    kubectl("auth", "reconcile", "-f", "-", stdin=more)
    assert kubectl("get", "role", "reader", "-o", "jsonpath={.rules[*].verbs[*]}") == "get list watch"
    assert kubectl("get", "rolebinding", "reader", "-o", "jsonpath={.subjects[*].name}") == "alice bob"
    kubectl("auth", "reconcile", "--remove-extra-permissions", "--remove-extra-subjects", "-f", "-", stdin=more)
    assert kubectl("get", "role", "reader", "-o", "jsonpath={.rules[*].verbs[*]}") == "watch"
    assert kubectl("get", "rolebinding", "reader", "-o", "jsonpath={.subjects[*].name}") == "bob"


def test_aggregated_roles_show_their_rules(kubectl: Kubectl) -> None:
    """`get clusterrole -o yaml` of an aggregated role has the rules of what it gathers."""
    kubectl("create", "clusterrole", "all", "--aggregation-rule=to=all")
    kubectl("create", "clusterrole", "one", "--verb=get", "--resource=secrets")
    kubectl("label", "clusterrole", "one", "to=all")
    kubectl("wait", "clusterrole/all", "--for=jsonpath={.rules[0].resources[0]}=secrets", "--timeout=20s")
    assert "secrets" in kubectl("get", "clusterrole", "all", "-o", "yaml")


def test_nobody_grants_what_he_has_not(kubectl: Kubectl) -> None:
    """With kubectl's own words: somebody with the role `admin` does not make himself cluster-admin."""
    kubectl("create", "clusterrolebinding", "ada", "--clusterrole=admin", "--user=ada")
    refused = kubectl.run("create", "clusterrolebinding", "more", "--clusterrole=cluster-admin", "--user=ada", "--as", "ada")
    assert "is attempting to grant the permissions of ClusterRole" in refused.stderr
    kubectl("create", "clusterrolebinding", "less", "--clusterrole=viewer", "--user=otto", "--as", "ada")


def test_reviews_from_files(kubectl: Kubectl) -> None:
    """`kubectl create -f` of a review, validated like everything else."""
    review = """
apiVersion: authorization.k8s.io/v1
kind: SubjectAccessReview
spec:
  user: alice
  resourceAttributes: {verb: get, resource: services, namespace: default}
"""
    assert kubectl("create", "-f", "-", "-o", "jsonpath={.status.allowed}", stdin=review) == "false"
    kubectl("apply", "-f", "-", stdin=READER)
    assert kubectl("create", "-f", "-", "-o", "jsonpath={.status.allowed}", stdin=review) == "true"
    assert "spec" in kubectl("explain", "subjectaccessreview")


def test_secrets_are_described_and_not_told(kubectl: Kubectl) -> None:
    """`describe` shows sizes, a table keys' number, an error no value; who may read it gets it whole."""
    kubectl("create", "secret", "generic", "s", "--from-literal=password=canary-7f3a9b")
    try:
        for words in (("describe", "secret", "s"), ("get", "secrets"), ("get", "events"), ("get", "secret", "s", "-o", "wide")):
            assert "canary" not in (said := kubectl(*words))
            assert "Y2FuYXJ5" not in said
        assert "13 bytes" in kubectl("describe", "secret", "s")
        wrong = kubectl.run("patch", "secret", "s", "--type=merge", "-p", '{"data":{"password":"canary-7f3a9b"}}')
        assert wrong.returncode == 1
        assert "data.password" in wrong.stderr
        assert "canary" not in wrong.stderr
        assert kubectl("get", "secret", "s", "-o", "jsonpath={.data.password}") == "Y2FuYXJ5LTdmM2E5Yg=="
    finally:
        kubectl("delete", "secret", "s")
