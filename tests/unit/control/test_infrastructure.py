"""Labels and annotations of a Gateway's infrastructure on the entries of its own workloads; over a store in memory."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from tulle.api.decode import decode
from tulle.api.registry import kind_for
from tulle.control.apiserver.deletion import Deletion
from tulle.control.apiserver.objects import Objects
from tulle.control.apiserver.target import Target, Writing
from tulle.control.infrastructure import InfrastructureWriter
from tulle.control.store.memory import MemoryStore
from tulle.core.pipeline import Pipeline
from tulle.ports import Key

NODE = Writing("tulle-node")
GATEWAY = "gateway.networking.k8s.io/gateway-name"
_GROUPS = {"Gateway": "gateway.networking.k8s.io", "WorkloadEntry": "networking.istio.io", "Service": ""}
_FED = ("gateways.gateway.networking.k8s.io", "workloadentries.networking.istio.io", "services")


def at(kind: str, name: str) -> Target:
    found = kind_for(_GROUPS[kind], kind)
    assert found is not None
    return Target(found, "v1", "default", name)


def entry(name: str, **labels: str) -> dict[str, Any]:
    return {
        "apiVersion": "networking.istio.io/v1",
        "kind": "WorkloadEntry",
        "metadata": {"name": name, "namespace": "default", "labels": labels, "annotations": {"tulle.dev/capture": "none"}},
        "spec": {"address": "10.0.0.1"},
    }


def gateway(**infrastructure: dict[str, str]) -> dict[str, Any]:
    spec = {"gatewayClassName": "tulle", "listeners": [{"name": "http", "port": 80, "protocol": "HTTP"}]}
    return {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "Gateway",
        "metadata": {"name": "edge", "namespace": "default"},
        "spec": {**spec, "infrastructure": infrastructure},
    }


class Mesh:
    """A store, a pipeline that is told of it by hand, and the writer."""

    def __init__(self) -> None:
        self.store = MemoryStore()
        self.objects = Objects(self.store, lambda: 1_700_000_000.0)
        self.pipeline = Pipeline()
        self.writer = InfrastructureWriter(self.objects, self.pipeline)
        self._there: set[Key] = set()

    async def create(self, body: dict[str, Any]) -> None:
        await self.objects.create(at(body["kind"], body["metadata"]["name"]), body, NODE)
        await self.feed()

    async def feed(self) -> None:
        """What the store has, to the pipeline."""
        found, revision = await self.store.list()
        changes: dict[Key, Any] = dict.fromkeys(self._there)
        for one in found:
            if one.key.resource in _FED:
                changes[one.key] = decode(one.body)[0]
                self._there.add(one.key)
        self.pipeline.commit(changes, revision)
        self.writer.published()

    async def metadata(self, name: str = "edge-1", kind: str = "WorkloadEntry") -> dict[str, Any]:
        stored = await self.store.get(at(kind, name).key)
        assert stored is not None
        found: dict[str, Any] = stored.body["metadata"]
        return found

    async def until(self, holds: Callable[[dict[str, Any]], bool], *which: str) -> dict[str, Any]:
        async with asyncio.timeout(10):
            while not holds(found := await self.metadata(*which)):
                await self.feed()
                await asyncio.sleep(0)
        return found


@pytest.fixture
async def mesh() -> AsyncIterator[Mesh]:
    made = Mesh()
    await made.objects.prepare()
    await made.create(entry("edge-1", app="edge", **{GATEWAY: "edge"}))
    await made.create(entry("shared", istio="ingressgateway"))
    task = asyncio.create_task(made.writer.run())
    yield made
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


async def test_they_come_change_and_go(mesh: Mesh) -> None:
    """What selects by a label of the Gateway would not find its workload, or find it for ever."""
    await mesh.create(gateway(labels={"team": "shop", "tier": "front"}, annotations={"note": "a"}))
    found = await mesh.until(lambda one: "team" in one["labels"])
    assert found["labels"] == {"app": "edge", GATEWAY: "edge", "team": "shop", "tier": "front"}
    assert found["annotations"] == {"tulle.dev/capture": "none", "note": "a"}
    assert (await mesh.metadata("shared"))["labels"] == {"istio": "ingressgateway"}, "it serves others too"

    await mesh.objects.patch(at("Gateway", "edge"), lambda live: {**live, "spec": gateway(labels={"team": "bank"})["spec"]}, NODE)
    found = await mesh.until(lambda one: one["labels"].get("team") == "bank")
    assert (found["labels"], found["annotations"]) == (
        {"app": "edge", GATEWAY: "edge", "team": "bank"},
        {"tulle.dev/capture": "none"},
    )

    await mesh.objects.delete(at("Gateway", "edge"), Deletion(), NODE)
    found = await mesh.until(lambda one: "team" not in one["labels"])
    assert found["labels"] == {"app": "edge", GATEWAY: "edge"}


async def test_the_service_that_a_node_made_has_them_too(mesh: Mesh) -> None:
    """Broken: what selects Services by a label of their Gateway would miss this one; or a person's would be written over."""

    def service(name: str, **notes: str) -> dict[str, Any]:
        metadata = {"name": name, "namespace": "default", "annotations": notes}
        spec = {"selector": {"app": "edge"}, "ports": [{"port": 80}]}
        return {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec}

    await mesh.create(service("edge", **{"tulle.dev/made-by-node": "true"}))
    await mesh.create(service("mine"))
    await mesh.create(gateway(labels={"team": "shop"}, annotations={"note": "a"}))
    found = await mesh.until(lambda one: "team" in one.get("labels", {}), "edge", "Service")
    assert found["annotations"] == {"tulle.dev/made-by-node": "true", "note": "a"}
    assert "labels" not in await mesh.metadata("mine", "Service")

    await mesh.objects.delete(at("Gateway", "edge"), Deletion(), NODE)
    await mesh.until(lambda one: "team" not in one.get("labels", {}), "edge", "Service")


async def test_what_a_node_writes_again_gets_them_again(mesh: Mesh) -> None:
    """They would be gone after the node agent was started anew."""
    await mesh.create(gateway(labels={"team": "shop"}))
    await mesh.until(lambda one: "team" in one["labels"])
    labels = {"app": "edge", GATEWAY: "edge"}
    target = at("WorkloadEntry", "edge-1")
    await mesh.objects.patch(target, lambda live: {**live, "metadata": {**live["metadata"], "labels": labels}}, NODE)
    assert (await mesh.metadata())["labels"] == labels
    await mesh.until(lambda one: "team" in one["labels"])


async def test_what_stands_is_not_written(mesh: Mesh) -> None:
    """Each write wakes the writer: it would write for ever, and every start write to every entry."""
    await mesh.create(gateway(labels={"team": "shop"}))
    await mesh.until(lambda one: "team" in one["labels"])
    _, revision = await mesh.store.list()
    for _ in range(20):
        await mesh.feed()
        await asyncio.sleep(0)
    assert (await mesh.store.list())[1] == revision


async def test_the_meshs_own_words_are_not_a_gateways_to_say(mesh: Mesh) -> None:
    """Who may write a Gateway would move workloads to other nodes, or take them out of rotation."""
    await mesh.create(gateway(annotations={"tulle.dev/ready": "false", "note": "a"}, labels={GATEWAY: "other", "team": "shop"}))
    found = await mesh.until(lambda one: "team" in one["labels"])
    assert found["labels"][GATEWAY] == "edge"
    assert "tulle.dev/ready" not in found["annotations"]
    assert {one.path for one in mesh.pipeline.problems() if one.reason == "NotYetSupported"} == {
        f"spec.infrastructure.labels[{GATEWAY}]",
        "spec.infrastructure.annotations[tulle.dev/ready]",
    }
