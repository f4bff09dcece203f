"""Kubernetes' RBAC kinds: what kube-apiserver refuses is refused, what it takes is taken."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.mistakes import changed, mistakes

API = "rbac.authorization.k8s.io"
RULE = {"verbs": ["get"], "apiGroups": [""], "resources": ["services"]}
ROLE: dict[str, Any] = {"apiVersion": f"{API}/v1", "kind": "Role", "metadata": {"name": "r", "namespace": "a"}, "rules": [RULE]}
CLUSTER_ROLE = {**ROLE, "kind": "ClusterRole", "metadata": {"name": "system:node"}}
SUBJECT = {"kind": "User", "name": "kim@example.com", "apiGroup": API}
BINDING: dict[str, Any] = {
    **{key: ROLE[key] for key in ("apiVersion", "metadata")},
    "kind": "RoleBinding",
    "subjects": [SUBJECT, {"kind": "ServiceAccount", "name": "web"}],
    "roleRef": {"apiGroup": API, "kind": "Role", "name": "r"},
}
CLUSTER_BINDING = {
    **BINDING,
    "kind": "ClusterRoleBinding",
    "metadata": {"name": "all"},
    "subjects": [SUBJECT, {"kind": "ServiceAccount", "name": "web", "namespace": "a"}],
    "roleRef": {"kind": "ClusterRole", "name": "system:node"},
}
PATHS = {"verbs": ["get"], "nonResourceURLs": ["/metrics"]}


@pytest.mark.parametrize(
    "body",
    [
        ROLE,
        CLUSTER_ROLE,
        BINDING,
        CLUSTER_BINDING,
        changed(ROLE, "rules", []),
        changed(ROLE, "rules", None),
        changed(CLUSTER_ROLE, "rules[0]", PATHS),
        changed(CLUSTER_ROLE, "aggregationRule", {"clusterRoleSelectors": [{"matchLabels": {"a": "b"}}]}),
        changed(BINDING, "subjects", ...),
        changed(BINDING, "metadata.name", "Has Spaces:and Capitals"),
        changed(BINDING, "subjects[0].apiGroup", ...),
        changed(BINDING, "subjects[0].apiGroup", ""),
        changed(BINDING, "subjects[1].apiGroup", ""),
        changed(BINDING, "subjects[1].namespace", "b"),
    ],
)
def test_accepted(body: dict[str, Any]) -> None:
    """A role that Kubernetes takes could not be applied here."""
    assert mistakes(body) == []


@pytest.mark.parametrize(
    ("body", "where"),
    [
        (changed(ROLE, "metadata.name", "a/b"), "metadata.name"),
        (changed(ROLE, "metadata.name", ".."), "metadata.name"),
        (changed(ROLE, "metadata.name", "50%"), "metadata.name"),
        (changed(ROLE, "rules[0].verbs", []), "rules[0].verbs"),
        (changed(ROLE, "rules[0].verbs", ...), "rules[0].verbs"),
        (changed(ROLE, "rules[0].apiGroups", ...), "rules[0].apiGroups"),
        (changed(ROLE, "rules[0].resources", ...), "rules[0].resources"),
        (changed(ROLE, "rules[0]", PATHS), "rules[0].nonResourceURLs"),
        (changed(CLUSTER_ROLE, "rules[0].nonResourceURLs", ["/a"]), "rules[0].resources"),
        (changed(CLUSTER_ROLE, "aggregationRule", {}), "aggregationRule.clusterRoleSelectors"),
        (changed(CLUSTER_ROLE, "metadata.namespace", "a"), "metadata.namespace"),
        (
            changed(CLUSTER_ROLE, "aggregationRule.clusterRoleSelectors", [{"matchExpressions": [{"key": "a", "operator": ""}]}]),
            "aggregationRule.clusterRoleSelectors[0].matchExpressions[0].operator",
        ),
        (changed(BINDING, "roleRef", ...), "roleRef"),
        (changed(BINDING, "roleRef.kind", "User"), "roleRef.kind"),
        (changed(BINDING, "roleRef.name", ""), "roleRef.name"),
        (changed(BINDING, "roleRef.apiGroup", "apps"), "roleRef.apiGroup"),
        (changed(BINDING, "subjects[0].kind", "Robot"), "subjects[0].kind"),
        (changed(BINDING, "subjects[0].name", ""), "subjects[0].name"),
        (changed(BINDING, "subjects[0].apiGroup", "apps"), "subjects[0].apiGroup"),
        (changed(BINDING, "subjects[1].apiGroup", API), "subjects[1].apiGroup"),
        (changed(BINDING, "subjects[1].name", "Not A Name"), "subjects[1].name"),
        (changed(CLUSTER_BINDING, "roleRef.kind", "Role"), "roleRef.kind"),
        (changed(CLUSTER_BINDING, "subjects[1].namespace", ...), "subjects[1].namespace"),
    ],
)  # fmt: skip
def test_refused(body: dict[str, Any], where: str) -> None:
    """A role that means something else than was wished, or nothing, would be stored."""
    assert where in mistakes(body)
