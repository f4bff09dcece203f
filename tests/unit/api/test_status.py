"""What a status may be: that of each kind's API, and nothing where a kind has none."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.mistakes import changed, mistakes

CONDITION = {
    "type": "Accepted",
    "status": "True",
    "reason": "Accepted",
    "message": "",
    "lastTransitionTime": "2026-01-31T23:59:59Z",
    "observedGeneration": 1,
}
PARENT = {"parentRef": {"name": "gw"}, "controllerName": "tulle.dev/gateway", "conditions": [CONDITION]}
ROUTE: dict[str, Any] = {
    "apiVersion": "gateway.networking.k8s.io/v1",
    "kind": "HTTPRoute",
    "metadata": {"name": "a", "namespace": "a"},
    "spec": {},
    "status": {"parents": [PARENT]},
}
RULE: dict[str, Any] = {
    "apiVersion": "networking.istio.io/v1",
    "kind": "DestinationRule",
    "metadata": {"name": "a", "namespace": "a"},
    "spec": {"host": "a"},
    "status": {"conditions": [{"type": "Reconciled", "status": "True"}], "observedGeneration": "3", "anything": {"else": 1}},
}
MAP = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a", "namespace": "a"}}
AT = "status.parents[0]"


@pytest.mark.parametrize("body", [ROUTE, changed(ROUTE, "status.parents", []), RULE])
def test_accepted(body: dict[str, Any]) -> None:
    """A controller's status would be refused."""
    assert mistakes(body) == []


@pytest.mark.parametrize(
    ("body", "where"),
    [
        (changed(ROUTE, "status", {}), "status.parents"),
        (changed(ROUTE, f"{AT}.controllerName", "gateway"), f"{AT}.controllerName"),
        (changed(ROUTE, f"{AT}.conditions", []), f"{AT}.conditions"),
        (changed(ROUTE, f"{AT}.conditions", [CONDITION, CONDITION]), f"{AT}.conditions[1].type"),
        (changed(ROUTE, f"{AT}.conditions[0].status", "yes"), f"{AT}.conditions[0].status"),
        (changed(ROUTE, f"{AT}.conditions[0].reason", "two words"), f"{AT}.conditions[0].reason"),
        (changed(ROUTE, f"{AT}.conditions[0].lastTransitionTime", "today"), f"{AT}.conditions[0].lastTransitionTime"),
        (changed(ROUTE, f"{AT}.conditions[0].observedGeneration", -1), f"{AT}.conditions[0].observedGeneration"),
        (changed(ROUTE, "status.more", 1), "status.more"),
        (changed(RULE, "status.conditions[0].status", True), "status.conditions[0].status"),
        (changed(RULE, "status.validationMessages", [{"level": "FATAL"}]), "status.validationMessages[0].level"),
        ({**MAP, "status": {}}, "status"),
    ],
)
def test_refused(body: dict[str, Any], where: str) -> None:
    """`kubectl wait` and everybody's tools would read what is no status."""
    assert where in mistakes(body)
