"""Nodes take the Leases of Gateways: over a real API server, with agents that only note what they were asked for."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from tests.support.apiserver import Running, running
from tulle.api.registry import kind_for
from tulle.client.api import ApiClient
from tulle.client.node_api import WorkloadSpec
from tulle.kit.errors import Unavailable
from tulle.node.gateways import DURATION, Gateways
from tulle.node.network import Network
from tulle.node.proxy import ProxyNetwork

LEASE = kind_for("coordination.k8s.io", "Lease")
ID = "default/gw-tulle"


class Host:
    """As much of an agent as starting takes: what it runs, by name."""

    def __init__(self, name: str, folder: Path) -> None:
        network: Network = ProxyNetwork(folder)
        self.node = SimpleNamespace(name=name, network=network)
        self.workloads: dict[str, Any] = {}
        self.ending = False
        self.broken = ""

    async def add(self, spec: WorkloadSpec) -> None:
        if self.broken:
            raise Unavailable(self.broken)
        self.workloads[spec.id] = SimpleNamespace(spec=spec)

    async def remove(self, id_: str) -> None:
        self.workloads.pop(id_, None)


class Node:
    """A node with its own certificate, and a clock that the test moves."""

    def __init__(self, served: Running, name: str, folder: Path) -> None:
        self.client = served.client(name="", groups=(), uris=[f"spiffe://cluster.local/node/{name}"])
        self.host = Host(name, folder)
        self.clock = 1_700_000_000.0
        self.gateways = Gateways(cast(Any, self.host), self._api, lambda: self.clock)

    async def _api(self) -> ApiClient:
        return self.client

    async def settle(self, after: float = 0.0) -> bool:
        """Whether it runs the workload once it has looked."""
        self.clock += after
        await self.gateways.settle()
        return ID in self.host.workloads


@pytest.fixture
async def served() -> AsyncIterator[Running]:
    async with running() as one:
        yield one


@pytest.fixture
async def nodes(served: Running, tmp_path: Path) -> AsyncIterator[tuple[Node, Node]]:
    one, two = (Node(served, name, tmp_path / name) for name in ("n1", "n2"))
    async with one.client, two.client:
        yield one, two


async def wish(served: Running, **notes: str) -> None:
    metadata = {"name": "gw-tulle", "namespace": "default", "labels": {"tulle.dev/gateway": "gw"}}
    notes = {f"tulle.dev/{name}": value for name, value in notes.items()}
    async with served.client() as api:
        await api.apply(
            {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {**metadata, "annotations": notes}},
            field_manager="tulle-gateways",
        )


async def lease(served: Running) -> dict[str, Any]:
    assert LEASE is not None
    async with served.client() as api:
        return await api.get(LEASE, "gw-tulle", "default")


async def test_one_of_two_nodes_starts_it_and_the_other_when_that_is_gone(served: Running, nodes: tuple[Node, Node]) -> None:
    """Broken: two hosts would bind the Gateway's ports, or none after the first one's end."""
    one, two = nodes
    await wish(served, ports="")
    assert not await one.settle(), "a gateway that is only started anew is not replaced"
    assert not await two.settle()
    assert await one.settle(3)
    assert not await two.settle(3)
    assert one.host.workloads[ID].spec.labels["gateway.networking.k8s.io/gateway-name"] == "gw"
    assert await one.settle(15)
    assert not await two.settle(DURATION - 10), "it was renewed"
    assert await two.settle(DURATION)
    one.clock = two.clock
    assert not await one.settle(), "it is the other's now"

    assert LEASE is not None
    async with served.client() as api:
        await api.delete(LEASE, "gw-tulle", "default")
    assert not await two.settle()


async def test_both_try_at_once(served: Running, nodes: tuple[Node, Node]) -> None:
    """Broken: two nodes that see a free Lease in the same moment would both start it."""
    one, two = nodes
    await wish(served, ports="", node="")
    await one.settle()
    await two.settle()
    seen = (await two.client.list(cast(Any, LEASE), label_selector="tulle.dev/gateway"))["items"]

    async def stale(*_: object, **__: object) -> dict[str, Any]:
        return {"items": seen}

    assert await one.settle(3)
    two.client.list = stale  # type: ignore[method-assign]  # what it read before the other wrote
    assert not await two.settle(3)
    assert (await lease(served))["spec"]["holderIdentity"] == "n1"


async def test_the_node_that_is_named_starts_it(served: Running, nodes: tuple[Node, Node]) -> None:
    """Broken: who names a host would find the port open on another."""
    one, two = nodes
    await wish(served, ports="", node="n1")
    assert await one.settle()
    await wish(served, ports="", node="n2")
    assert not await one.settle()
    assert await two.settle()


async def test_what_cannot_be_is_said_and_left_to_others(served: Running, nodes: tuple[Node, Node]) -> None:
    """Broken: a Gateway whose port is taken here would hold the others up, without a word."""
    one, two = nodes
    with socket.create_server(("0.0.0.0", 0)) as taken:
        port = taken.getsockname()[1]
        await wish(served, ports=str(port), node="n1")
        assert not await one.settle()
        written = (await lease(served))["metadata"]
        assert written["annotations"]["refused.tulle.dev/n1"] == f"port {port} is in use"
        assert not await one.settle(31)
        assert (await lease(served))["metadata"]["resourceVersion"] == written["resourceVersion"], "said once"
    assert await one.settle(31)
    assert "refused.tulle.dev/n1" not in (await lease(served))["metadata"]["annotations"]

    await wish(served, ports="", addresses="192.0.2.1", node="n2")
    assert not await two.settle()
    assert not await one.settle(), "it is another's to start"
    assert "192.0.2.1" in (await lease(served))["metadata"]["annotations"]["refused.tulle.dev/n2"]


async def test_a_workload_that_does_not_start_gives_the_lease_back(served: Running, nodes: tuple[Node, Node]) -> None:
    """Broken: a node without a working Envoy would keep every other from serving the Gateway."""
    one, two = nodes
    one.host.broken = "Envoy does not start"
    await wish(served, ports="")
    await one.settle()
    await two.settle()
    assert not await one.settle(3)
    assert (await lease(served))["spec"]["holderIdentity"] == ""
    assert await two.settle(3)
