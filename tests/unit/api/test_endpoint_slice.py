"""EndpointSlice and Lease: what kube-apiserver refuses is refused, what it takes is taken."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.mistakes import changed, mistakes

SLICE: dict[str, Any] = {
    "apiVersion": "discovery.k8s.io/v1",
    "kind": "EndpointSlice",
    "metadata": {"name": "web-1", "namespace": "a", "labels": {"kubernetes.io/service-name": "web"}},
    "addressType": "IPv4",
    "endpoints": [{"addresses": ["10.0.0.1"], "conditions": {"ready": True}, "hostname": "web-0", "zone": "z"}],
    "ports": [{"name": "http", "port": 80, "appProtocol": "kubernetes.io/h2c"}, {"name": "", "protocol": "UDP", "port": 53}],
}
LEASE: dict[str, Any] = {
    "apiVersion": "coordination.k8s.io/v1",
    "kind": "Lease",
    "metadata": {"name": "leader", "namespace": "a"},
    "spec": {
        "holderIdentity": "one",
        "leaseDurationSeconds": 15,
        "acquireTime": "2026-01-31T23:59:59.000000Z",
        "renewTime": "2026-01-31T23:59:59.123456+02:00",
        "leaseTransitions": 0,
    },
}


@pytest.mark.parametrize(
    "body",
    [
        SLICE,
        changed(SLICE, "endpoints", None),
        changed(SLICE, "ports", ...),
        changed(SLICE, "ports[0].port", ...),
        changed(changed(SLICE, "addressType", "IPv6"), "endpoints[0].addresses", ["2001:db8::1"]),
        changed(changed(SLICE, "addressType", "FQDN"), "endpoints[0].addresses", ["web.example.com"]),
        LEASE,
        changed(LEASE, "spec", ...),
    ],
)
def test_accepted(body: dict[str, Any]) -> None:
    """An object that Kubernetes' own controllers and clients write would be refused."""
    assert mistakes(body) == []


@pytest.mark.parametrize(
    ("body", "where"),
    [
        (changed(SLICE, "addressType", ...), "addressType"),
        (changed(SLICE, "addressType", "IPv5"), "addressType"),
        (changed(SLICE, "addressType", "IPv6"), "endpoints[0].addresses[0]"),
        (changed(changed(SLICE, "addressType", "FQDN"), "endpoints[0].addresses", ["web"]), "endpoints[0].addresses[0]"),
        (changed(SLICE, "endpoints[0].addresses", []), "endpoints[0].addresses"),
        (changed(SLICE, "endpoints[0].addresses", ["127.0.0.1"]), "endpoints[0].addresses[0]"),
        (changed(SLICE, "endpoints[0].addresses", ["169.254.0.1"]), "endpoints[0].addresses[0]"),
        (changed(SLICE, "endpoints[0].addresses", ["0.0.0.0"]), "endpoints[0].addresses[0]"),
        (changed(SLICE, "endpoints[0].addresses", ["224.0.0.1"]), "endpoints[0].addresses[0]"),
        (changed(SLICE, "endpoints[0].addresses", ["web"]), "endpoints[0].addresses[0]"),
        (changed(SLICE, "endpoints[0].hostname", "Web"), "endpoints[0].hostname"),
        (changed(SLICE, "ports[1].name", "http"), "ports[1].name"),
        (changed(SLICE, "ports[0].name", "HTTP"), "ports[0].name"),
        (changed(SLICE, "ports[0].port", 0), "ports[0].port"),
        (changed(SLICE, "ports[0].port", 65536), "ports[0].port"),
        (changed(SLICE, "ports[0].protocol", "HTTP"), "ports[0].protocol"),
        (changed(SLICE, "ports[0].appProtocol", "a b"), "ports[0].appProtocol"),
        (changed(LEASE, "spec.leaseDurationSeconds", 0), "spec.leaseDurationSeconds"),
        (changed(LEASE, "spec.leaseTransitions", -1), "spec.leaseTransitions"),
        (changed(LEASE, "spec.renewTime", "2026-01-31T23:59:59Z"), "spec.renewTime"),
        (changed(LEASE, "spec.renewTime", "2026-13-31T23:59:59.000000Z"), "spec.renewTime"),
        (changed(LEASE, "spec.preferredHolder", "two"), "spec.strategy"),
    ],
)
def test_refused(body: dict[str, Any], where: str) -> None:
    """Calls would go to an address that cannot be, or a leader would be elected by numbers that mean nothing."""
    assert where in mistakes(body)
