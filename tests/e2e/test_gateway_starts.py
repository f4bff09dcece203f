"""Gateways for which the node starts a workload of their own: it comes with the object and goes with it."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.support.mesh import Mesh, fetch, free_port

NAME = "edge"


def objects(port: int) -> str:
    metadata = {"name": NAME, "namespace": "default"}
    gateway = {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "Gateway",
        "metadata": {**metadata, "annotations": {"tulle.dev/node": "demo"}},
        "spec": {
            "gatewayClassName": "tulle",
            "infrastructure": {"labels": {"team": "shop"}},
            "listeners": [{"name": "http", "port": port, "protocol": "HTTP"}],
        },
    }
    backend = {"name": "productpage", "port": 9080}
    route = {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "HTTPRoute",
        "metadata": metadata,
        "spec": {"parentRefs": [{"name": NAME}], "rules": [{"backendRefs": [backend]}]},
    }
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": [gateway, route]})


def programmed(mesh: Mesh) -> dict[str, Any]:
    status = json.loads(mesh.kubectl("get", "gateways.gateway.networking.k8s.io", NAME, "-o", "json").out).get("status", {})
    found: dict[str, Any] = next((one for one in status.get("conditions", ()) if one["type"] == "Programmed"), {})
    return {**found, "addresses": [one["value"] for one in status.get("addresses", ())]}


def until(mesh: Mesh, holds: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    deadline = time.monotonic() + 60
    while not holds(found := programmed(mesh)):
        assert time.monotonic() < deadline, f"{found}\n{mesh.logs()}"
        time.sleep(0.1)
    return found


def entries(mesh: Mesh) -> list[dict[str, Any]]:
    found = mesh.kubectl("get", "workloadentries", "-l", f"gateway.networking.k8s.io/gateway-name={NAME}", "-o", "json").out
    items: list[dict[str, Any]] = json.loads(found)["items"]
    return items


@pytest.fixture
def clean(mesh: Mesh) -> Iterator[None]:
    yield
    mesh.kubectl("delete", "gateways.gateway.networking.k8s.io,httproutes", NAME, "--ignore-not-found")


def test_a_gateway_starts_its_workload_and_ends_it(mesh: Mesh, clean: None) -> None:
    """Broken: a Gateway of class tulle would wait for somebody to start an Envoy for it, or leave one behind."""
    port = free_port()
    mesh.kubectl("apply", "-f", "-", stdin=objects(port))
    found = until(mesh, lambda one: one.get("status") == "True")
    (entry,) = entries(mesh)
    assert found["addresses"] == [entry["spec"]["address"]]
    assert entry["metadata"]["labels"]["team"] == "shop"
    replies = fetch(f"http://127.0.0.1:{port}/productpage", 10)
    assert {one.status for one in replies} == {200}
    assert fetch(f"{mesh.base}/productpage")[0].status == 200, "the other gateway goes on"

    mesh.kubectl("delete", "gateways.gateway.networking.k8s.io", NAME)
    deadline = time.monotonic() + 60
    while entries(mesh) or _open(port):
        assert time.monotonic() < deadline, mesh.logs()
        time.sleep(0.1)
    assert "edge" not in mesh.kubectl("get", "leases", "-A").out


def test_what_cannot_be_started_says_why_and_is_started_when_it_can(mesh: Mesh, clean: None) -> None:
    """Broken: a Gateway whose port another program has would wait without a word, or take half of that program's connections."""
    with socket.socket() as other:
        other.bind(("0.0.0.0", 0))
        other.listen()
        taken: int = other.getsockname()[1]
        mesh.kubectl("apply", "-f", "-", stdin=objects(taken))
        found = until(mesh, lambda one: "cannot start" in one.get("message", ""))
        assert (found["status"], found["reason"], found["addresses"]) == ("False", "NoResources", [])
        assert f"node demo cannot start one: port {taken} is in use" in found["message"]
        assert entries(mesh) == []
    port = free_port()
    mesh.kubectl("apply", "-f", "-", stdin=objects(port))  # another wish: tried at once
    until(mesh, lambda one: one.get("status") == "True")
    assert fetch(f"http://127.0.0.1:{port}/productpage")[0].status == 200


def _open(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(5)
        return probe.connect_ex(("127.0.0.1", port)) == 0
