"""For which Gateways a node is to start a workload, and what their status says meanwhile."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.statuses import condition, written
from tests.unit.core.compile.mesh import Mesh, entry, obj
from tulle.api.object import Object
from tulle.core.compile.gateway_starts import Start, gateway_starts, started_name

SHARED = {"istio": "ingressgateway"}


@pytest.fixture
def mesh() -> Mesh:
    return Mesh([])


def gateway(name: str = "gw", gateway_class: str = "tulle", node: str = "", **more: Any) -> Object:
    listeners = [{"name": "http", "port": 80, "protocol": "HTTP"}, {"name": "udp", "port": 53, "protocol": "UDP"}]
    metadata = {"name": name, "annotations": {"tulle.dev/node": node} if node else {}}
    spec = {"gatewayClassName": gateway_class, "listeners": listeners, **more}
    return obj({"apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway", "metadata": metadata, "spec": spec})


def lease(holder: str = "", **refused: str) -> Object:
    notes = {f"refused.tulle.dev/{node}": why for node, why in refused.items()}
    metadata = {"name": "gw-tulle", "labels": {"tulle.dev/gateway": "gw"}, "annotations": notes}
    return obj(
        {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": metadata, "spec": {"holderIdentity": holder}}
    )


def own(started: bool) -> Object:
    labels = {"gateway.networking.k8s.io/gateway-name": "gw"} | ({"tulle.dev/started": "true"} if started else {})
    return entry("gw-tulle", "10.0.0.7", labels, capture="none")


def starts(mesh: Mesh) -> dict[str, Start]:
    return {name: one for (_namespace, name), one in (mesh.pipeline.flow.get(gateway_starts, None) or {}).items()}


def programmed(mesh: Mesh) -> str:
    status = written(mesh.pipeline, ("gateways.gateway.networking.k8s.io", ("default", "gw")))
    one = condition(status["conditions"], "Programmed")
    return f"{one['status']} {one['reason']}: {one['message']}"


def test_what_nothing_serves_is_to_be_started(mesh: Mesh) -> None:
    """Broken: a Gateway would wait for ever, or have an Envoy beside those that serve it already."""
    mesh.apply([gateway(), gateway("theirs", gateway_class="nginx")])
    assert starts(mesh) == {"gw": Start("gw-tulle", "", (80,))}
    shared = entry("shared", "10.0.0.9", SHARED, "tulle-system", capture="none")
    mesh.apply([shared])
    assert starts(mesh) == {}
    mesh.delete([shared])
    mesh.apply([own(started=True)])
    assert starts(mesh).keys() == {"gw"}, "what was started for it is no reason to end that"
    assert programmed(mesh).startswith("True")
    mesh.apply([own(started=False)])
    assert starts(mesh) == {}


def test_one_that_names_a_node_is_served_there_alone(mesh: Mesh) -> None:
    """Broken: the shared gateway would bind the port first, and the one that was asked for could not be started."""
    mesh.apply([entry("shared", "10.0.0.9", SHARED, "tulle-system", capture="none")])
    mesh.apply([gateway(node="edge-1")])
    assert starts(mesh) == {"gw": Start("gw-tulle", "edge-1", (80,))}
    assert "waiting for node edge-1 (annotation tulle.dev/node)" in programmed(mesh)
    mesh.apply([own(started=True)])
    assert programmed(mesh).startswith("True")


def test_addresses_and_refusals(mesh: Mesh) -> None:
    """Broken: a node without the address would start it; and nobody would hear why none did."""
    mesh.apply([gateway(addresses=[{"value": "10.0.0.7"}])])
    assert starts(mesh)["gw"].addresses == ("10.0.0.7",)
    assert programmed(mesh).startswith("False AddressNotUsable")
    mesh.apply([gateway(), lease()])
    assert programmed(mesh) == (
        "False NoResources: no gateway workload serves it: waiting for a node that runs with --gateways to start one; "
        "`tulle gateway` does too"
    )
    mesh.apply([lease(n1="port 80 is in use")])
    assert programmed(mesh).endswith("node n1 cannot start one: port 80 is in use")
    mesh.apply([lease("n2", n1="port 80 is in use")])
    assert programmed(mesh).endswith("node n2 is starting one")


def test_what_is_not_accepted_is_not_started(mesh: Mesh) -> None:
    """Broken: an Envoy would run for a Gateway that is nothing."""
    listeners = [{"name": "http", "port": 80, "protocol": "example.com/x"}]
    mesh.apply([gateway(listeners=listeners)])
    assert starts(mesh) == {}


@pytest.mark.parametrize("name", ["gw", "a" * 63, "shop.example", "a" * 60])
def test_names(name: str) -> None:
    """Broken: a Gateway whose name no workload may have could not be started, or take the name of another's."""
    made = started_name(name)
    assert len(made) <= 63
    assert made.replace("-", "").isalnum()
    assert made != started_name(f"{name}x")
