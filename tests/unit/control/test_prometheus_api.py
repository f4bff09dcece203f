"""Where Prometheus is sent to."""

from __future__ import annotations

from typing import Any

from tulle.control.prometheus_api import node_targets, workload_targets


def entry(name: str, metrics: str, node: str = "host-1", **labels: str) -> dict[str, Any]:
    notes = {"tulle.dev/metrics": metrics, "tulle.dev/node": node} if metrics else {}
    return {
        "metadata": {"name": name, "namespace": "shop", "annotations": notes},
        "spec": {"address": "10.1.2.3", "labels": labels},
    }


def test_a_target_for_each_workload() -> None:
    """Broken: a workload would not be read, or its figures be another's."""
    made = workload_targets([entry("web", "192.0.2.7:15020", app="web", version="v1"), entry("by-hand", "")])
    (found,) = made
    assert found.targets == ("192.0.2.7:15020",)
    assert found.labels == {
        "__metrics_path__": "/workloads/shop/web",
        "instance": "shop/web",
        "namespace": "shop",
        "workload": "web",
        "app": "web",
        "version": "v1",
        "node": "host-1",
    }


def test_a_target_for_each_node() -> None:
    """Broken: what proxies take would be missing, or counted once for each of a node's workloads."""
    made = node_targets(
        [entry("a", "192.0.2.7:15020"), entry("b", "192.0.2.7:15020"), entry("c", "[2001:db8::1]:15020", "host-2")]
    )
    assert [(one.targets, one.labels["node"]) for one in made] == [
        (("192.0.2.7:15020",), "host-1"),
        (("[2001:db8::1]:15020",), "host-2"),
    ]


def test_what_is_no_address_is_no_target() -> None:
    """Broken: an annotation would have Prometheus send its requests anywhere."""
    for strange in ("http://evil/", "a b:1", "x:1/path", "x:", "192.0.2.7"):
        assert workload_targets([entry("a", strange)]) == []
        assert node_targets([entry("a", strange)]) == []
