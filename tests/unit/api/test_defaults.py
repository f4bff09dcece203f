"""Defaults of every kind: harmless to repeat, without meaning of their own, and for Kubernetes' kinds those of Kubernetes."""

from __future__ import annotations

from typing import Any

import pytest

from tulle.api.decode import decode
from tulle.api.defaults import with_defaults
from tulle.api.object import Kind
from tulle.api.registry import KINDS, kind_of_resource


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.resource)
def test_defaults_twice_are_defaults_once(kind: Kind) -> None:
    """Every read and write of an object would change it."""
    for version in kind.versions:
        once = with_defaults(kind, version, {"metadata": {"name": "a"}, "spec": {}})
        assert with_defaults(kind, version, once) == once


def test_an_object_means_the_same_with_its_defaults() -> None:
    """A file that is read as it is written, and the object that is stored of it, would be two things."""
    body = {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "HTTPRoute",
        "metadata": {"name": "a", "namespace": "a"},
        "spec": {"rules": [{"backendRefs": [{"name": "a", "port": 1}]}, {}]},
    }
    kind = next(kind for kind in KINDS if kind.kind == "HTTPRoute")
    plain, filled = decode(body)[0], decode(with_defaults(kind, "v1", body))[0]
    assert plain is not None
    assert plain == filled


def filled(resource: str, body: dict[str, Any]) -> dict[str, Any]:
    kind = kind_of_resource(resource)
    assert kind is not None
    return with_defaults(kind, kind.versions[0], body)


@pytest.mark.parametrize(
    ("written", "more"),
    [
        ({}, {"type": "ClusterIP", "internalTrafficPolicy": "Cluster"}),
        ({"type": "ExternalName", "externalName": "a.b"}, {}),
        ({"type": "NodePort"}, {"externalTrafficPolicy": "Cluster", "internalTrafficPolicy": "Cluster"}),
        (
            {"type": "LoadBalancer", "externalTrafficPolicy": "Local"},
            {"internalTrafficPolicy": "Cluster", "allocateLoadBalancerNodePorts": True},
        ),
        (
            {"sessionAffinity": "ClientIP", "type": "ClusterIP"},
            {"internalTrafficPolicy": "Cluster", "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 10800}}},
        ),
        (
            {"ports": [{"port": 80}, {"port": 53, "protocol": "UDP", "targetPort": "dns"}]},
            {
                "type": "ClusterIP",
                "internalTrafficPolicy": "Cluster",
                "ports": [
                    {"port": 80, "protocol": "TCP", "targetPort": 80},
                    {"port": 53, "protocol": "UDP", "targetPort": "dns"},
                ],
            },
        ),
    ],
)
def test_services(written: dict[str, Any], more: dict[str, Any]) -> None:
    """A Service would read back otherwise than on Kubernetes, and `kubectl apply` would find a change in every one."""
    assert filled("services", {"spec": written})["spec"] == {"sessionAffinity": "None", **written, **more}


def test_other_kinds_of_kubernetes() -> None:
    """A binding without API groups would give nothing to anybody; a namespace could not be selected by its name."""
    assert filled("secrets", {}) == {"type": "Opaque"}
    namespace = filled("namespaces", {"metadata": {"name": "a", "labels": {"b": "c"}}})
    assert namespace["metadata"]["labels"] == {"b": "c", "kubernetes.io/metadata.name": "a"}
    assert namespace["status"] == {"phase": "Active"}
    group = "rbac.authorization.k8s.io"
    subjects = [{"kind": "User", "name": "kim"}, {"kind": "ServiceAccount", "name": "web"}]
    binding = filled(f"rolebindings.{group}", {"subjects": subjects, "roleRef": {"kind": "Role", "name": "r"}})
    assert binding["roleRef"] == {"apiGroup": group, "kind": "Role", "name": "r"}
    assert binding["subjects"] == [{"kind": "User", "name": "kim", "apiGroup": group}, subjects[1]]
    assert filled("endpointslices.discovery.k8s.io", {"ports": [{"port": 80}]})["ports"] == [
        {"port": 80, "name": "", "protocol": "TCP"}
    ]


@pytest.mark.parametrize(
    "body", [{"spec": None}, {"spec": []}, {"spec": {"ports": {}}}, {"spec": {"ports": [None, 1, []]}}, {"metadata": 1}]
)
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.resource)
def test_what_cannot_be_read_is_left(kind: Kind, body: dict[str, Any]) -> None:
    """A malformed object would end in a stack trace instead of a sentence."""
    assert isinstance(with_defaults(kind, kind.versions[0], body), dict)
