"""The status writer over a real store, pipeline and feed: what it writes, what it leaves alone, and that nothing compiles."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.support.certificates import Roots
from tests.support.statuses import condition
from tulle.api.registry import kind_for
from tulle.app.feed import Feed, only_status
from tulle.control.apiserver.deletion import Deletion
from tulle.control.apiserver.objects import Objects
from tulle.control.apiserver.target import Target, Writing
from tulle.control.events import Events
from tulle.control.status import StatusWriter
from tulle.control.store.memory import MemoryStore
from tulle.core import type_urls
from tulle.core.pipeline import Pipeline
from tulle.ports import Event, Key, Put
from tulle.xds.status import Progress

Raw = dict[str, Any]
GROUP = "gateway.networking.k8s.io"
INGRESS = "tulle-system/ingress"


def gateway(name: str = "gw", port: int = 80) -> Raw:
    spec = {"gatewayClassName": "tulle", "listeners": [{"name": "http", "port": port, "protocol": "HTTP"}]}
    metadata = {"name": name, "namespace": "default"}
    return {"apiVersion": f"{GROUP}/v1", "kind": "Gateway", "metadata": metadata, "spec": spec}


def route(name: str = "r", backend: str = "web") -> Raw:
    spec = {"parentRefs": [{"name": "gw"}], "rules": [{"backendRefs": [{"name": backend, "port": 80}]}]}
    metadata = {"name": name, "namespace": "default"}
    return {"apiVersion": f"{GROUP}/v1", "kind": "HTTPRoute", "metadata": metadata, "spec": spec}


def service(name: str = "web") -> Raw:
    spec = {"selector": {"app": name}, "ports": [{"port": 80, "name": "http"}]}
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": "default"}, "spec": spec}


def virtual_service(name: str = "vs") -> Raw:
    spec = {"hosts": ["web"], "http": [{"route": [{"destination": {"host": "web"}}]}]}
    metadata = {"name": name, "namespace": "default"}
    return {"apiVersion": "networking.istio.io/v1", "kind": "VirtualService", "metadata": metadata, "spec": spec}


def workload() -> Raw:
    metadata = {"name": "ingress", "namespace": "tulle-system", "annotations": {"tulle.dev/capture": "none"}}
    spec = {"address": "192.0.2.1", "labels": {"istio": "ingressgateway"}}
    return {"apiVersion": "networking.istio.io/v1", "kind": "WorkloadEntry", "metadata": metadata, "spec": spec}


class Plane:
    """A control plane without servers: proxies are what a test says."""

    writing = Writing("test")

    def __init__(self, store: MemoryStore) -> None:
        self.store = store
        self.time = 1_750_000_000.0
        self.objects = Objects(store, lambda: self.time)
        self.pipeline = Pipeline()
        self.proxies: dict[str, Progress] = {}
        events = Events(store, lambda: self.time)
        self.writer = StatusWriter(store, self.pipeline, lambda: self.proxies.values(), lambda: self.time, events, moment=0)
        self.feed = Feed(store, self.pipeline, lambda _published: self.writer.published(), self.writer.overwritten)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        revision = await self.feed.load()
        tasks = [asyncio.ensure_future(self.feed.run(revision)), asyncio.ensure_future(self.writer.run())]
        try:
            await self.settled()
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def settled(self) -> None:
        """The feed is at the store's revision, and the writer has written what follows from it."""
        async with asyncio.timeout(20):
            while True:
                await self.writer.idle()
                if self.pipeline.revision >= (await self.store.list("namespaces"))[1]:
                    return
                await asyncio.sleep(0)

    def target(self, body: Raw, subresource: str = "") -> Target:
        kind = kind_for(body["apiVersion"].rpartition("/")[0] if "/" in body["apiVersion"] else "", body["kind"])
        assert kind is not None
        return Target(kind, kind.versions[0], body["metadata"]["namespace"], body["metadata"]["name"], subresource)

    async def apply(self, *bodies: Raw) -> None:
        for body in bodies:
            await self.objects.apply(self.target(body), body, Writing("test"))
        await self.settled()

    async def events(self, name: str) -> set[str]:
        """What was recorded of an object: `Warning BackendNotFound: HTTPRoute ...`."""
        found, _revision = await self.store.list("events")
        mine = [one.body for one in found if one.body["involvedObject"]["name"] == name]
        return {f"{one['type']} {one['reason']}: {one['message']}" for one in mine}

    async def delete(self, body: Raw) -> None:
        await self.objects.delete(self.target(body), Deletion(), Writing("test"))
        await self.settled()

    async def read(self, body: Raw) -> Raw:
        stored = await self.store.get(self.target(body).key)
        assert stored
        return stored.body

    async def said(self, body: Raw, kind: str) -> str:
        status = (await self.read(body)).get("status") or {}
        place = status["parents"][0] if "parents" in status else status
        one = condition(place["conditions"], kind)
        return f"{one['status']} {one['reason']}"

    async def acknowledge(self, *proxies: str) -> None:
        """These proxies are connected and have everything."""
        self.proxies = {name: Progress(name, self.pipeline.revision) for name in proxies}
        self.writer.proxies_moved()
        await self.settled()


@pytest.fixture
async def plane() -> AsyncIterator[Plane]:
    plane = Plane(MemoryStore())
    await plane.objects.prepare()
    async with plane.running():
        yield plane


async def test_a_gateway_is_programmed_once_its_proxy_acknowledges(plane: Plane) -> None:
    """`kubectl wait --for=condition=Programmed` would return too early, or never."""
    await plane.apply(service(), gateway(), route())
    assert await plane.said(gateway(), "Programmed") == "False NoResources"
    await plane.apply(workload())
    assert await plane.said(gateway(), "Programmed") == "Unknown Pending"
    plane.proxies = {INGRESS: Progress(INGRESS, 1)}
    plane.writer.proxies_moved()
    await plane.settled()
    assert await plane.said(gateway(), "Programmed") == "False Pending"
    await plane.acknowledge(INGRESS)
    assert await plane.said(gateway(), "Programmed") == "True Programmed"
    assert await plane.said(route(), "Accepted") == "True Accepted"
    body = await plane.read(gateway())
    assert body["status"]["listeners"][0]["attachedRoutes"] == 1
    await plane.acknowledge()
    assert await plane.said(gateway(), "Programmed") == "True Programmed", "the proxy goes on without its control plane"
    await plane.apply(gateway(port=8080))
    assert await plane.said(gateway(), "Programmed") == "Unknown Pending", "a new generation nobody has acknowledged"


async def test_a_refusal_turns_it_off_with_envoys_words_until_it_takes_another(plane: Plane) -> None:
    """A listener that Envoy does not open would be called programmed."""
    await plane.apply(service(), workload(), gateway(), gateway("other", 81))
    await plane.acknowledge(INGRESS)
    refused = {(type_urls.LISTENER, "0.0.0.0_80"): "cannot bind '0.0.0.0:80': Permission denied"}
    plane.proxies = {INGRESS: Progress(INGRESS, plane.pipeline.revision, refused)}
    plane.writer.proxies_moved()
    await plane.settled()
    assert await plane.said(gateway(), "Programmed") == "False Invalid"
    message = condition((await plane.read(gateway()))["status"]["conditions"], "Programmed")["message"]
    assert "Permission denied" in message
    assert await plane.said(gateway("other"), "Programmed") == "True Programmed", "its port is another's"
    words = f"Programmed: {INGRESS} refuses it: cannot bind '0.0.0.0:80': Permission denied"
    assert f"Warning Invalid: {words}" in await plane.events("gw")
    assert not any("Permission" in one for one in await plane.events("other"))
    await plane.acknowledge(INGRESS)
    assert await plane.said(gateway(), "Programmed") == "True Programmed"
    assert "Normal Programmed: Programmed: the gateway workload has acknowledged it" in await plane.events("gw")


async def test_a_status_write_compiles_nothing_and_is_no_generation(plane: Plane) -> None:
    """Each status would lead to a commit, that to acknowledgements, and those to the next status."""
    await plane.apply(service(), workload(), gateway(), route(), virtual_service())
    computed = plane.pipeline.flow.computed
    computed.clear()
    commits, written = plane.pipeline.flow.revision, plane.writer.written
    await plane.acknowledge(INGRESS)
    assert plane.writer.written > written
    assert not computed, "acknowledgements and status writes compute no row"
    assert plane.pipeline.revision == (await plane.store.list("namespaces"))[1], "the revision goes on all the same"
    body = await plane.read(gateway())
    assert body["metadata"]["generation"] == 1
    assert condition(body["status"]["conditions"], "Programmed")["observedGeneration"] == 1
    (entry,) = (one for one in body["metadata"]["managedFields"] if one["manager"] == "tulle-status")
    assert entry["subresource"] == "status"
    assert await plane.store.history() == []
    assert plane.pipeline.flow.revision - commits < 20


async def test_what_stands_is_not_written_again() -> None:
    """Every start of the control plane would write every object of the mesh."""
    plane = Plane(MemoryStore())
    await plane.objects.prepare()
    async with plane.running():
        await plane.apply(service(), workload(), gateway(), route(), *(virtual_service(f"vs{index}") for index in range(50)))
        await plane.acknowledge(INGRESS)
        assert await plane.said(virtual_service("vs7"), "Reconciled") == "True Reconciled"
    again = Plane(plane.store)
    again.time += 3600
    async with again.running():
        assert again.writer.written == 0
        await again.acknowledge(INGRESS, "default/web")
        assert again.writer.written == 0


async def test_a_backend_that_comes_mends_the_route(plane: Plane) -> None:
    """A condition would stay as it was first found."""
    await plane.apply(workload(), gateway(), route(backend="gone"))
    assert await plane.said(route(), "ResolvedRefs") == "False BackendNotFound"
    since = condition((await plane.read(route()))["status"]["parents"][0]["conditions"], "Accepted")["lastTransitionTime"]
    plane.time += 100
    await plane.apply(service("gone"))
    assert await plane.said(route(), "ResolvedRefs") == "True ResolvedRefs"
    assert {one.partition(":")[0] for one in await plane.events("r")} == {"Warning BackendNotFound", "Normal ResolvedRefs"}
    conditions = (await plane.read(route()))["status"]["parents"][0]["conditions"]
    assert condition(conditions, "Accepted")["lastTransitionTime"] == since
    assert condition(conditions, "ResolvedRefs")["lastTransitionTime"] > since


async def test_what_others_overwrite_is_put_right_and_what_is_theirs_stays(plane: Plane) -> None:
    """A status that somebody cleared would never come back; another controller's entry would vanish."""
    await plane.apply(service(), workload(), gateway(), route())
    one = {"type": "Accepted", "status": "True", "reason": "A", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"}
    theirs = {"parentRef": {"name": "gw"}, "controllerName": "example.com/c", "conditions": [one]}
    await plane.objects.patch(
        plane.target(route(), "status"), lambda live: {**live, "status": {"parents": [theirs]}}, Writing("other")
    )
    await plane.settled()
    parents = (await plane.read(route()))["status"]["parents"]
    assert [one["controllerName"] for one in parents] == ["example.com/c", "tulle.dev/gateway-controller"]


async def test_observed_generation_follows(plane: Plane) -> None:
    """A condition of an older generation would pass for one of the newest."""
    await plane.apply(service(), workload(), gateway(), route())
    await plane.apply({**route(), "spec": {**route()["spec"], "hostnames": ["a.example.com"]}})
    body = await plane.read(route())
    assert body["metadata"]["generation"] == 2
    assert {one["observedGeneration"] for one in body["status"]["parents"][0]["conditions"]} == {2}


async def test_an_object_that_is_made_anew_gets_a_status(plane: Plane) -> None:
    """An object deleted and created within one commit would stay without."""
    await plane.apply(service(), workload(), gateway())
    await plane.objects.delete(plane.target(gateway()), Deletion(), Writing("test"))
    await plane.objects.create(plane.target(gateway()), gateway(), Writing("test"))
    await plane.settled()
    assert await plane.said(gateway(), "Accepted") == "True Accepted"


async def test_deleted_and_foreign_objects_are_left_alone(plane: Plane) -> None:
    """The writer would stumble over what is gone, or write on what is not ours."""
    foreign = {**gateway("foreign"), "spec": {**gateway()["spec"], "gatewayClassName": "nginx"}}
    await plane.apply(service(), workload(), gateway(), foreign)
    await plane.delete(gateway())
    await plane.acknowledge(INGRESS)
    body = await plane.read(foreign)
    assert await plane.said(foreign, "Accepted") == "Unknown Pending", "as the API itself states it"
    assert "tulle-status" not in [one["manager"] for one in body["metadata"]["managedFields"]]


async def test_writers_at_the_same_time_do_not_lose_each_others_writes(plane: Plane) -> None:
    """A person's change would be overwritten by a status, or the status be lost to it."""
    await plane.apply(service(), workload(), gateway())
    for number in range(20):
        body = {**route(), "metadata": {**route()["metadata"], "labels": {"n": str(number)}}}
        body["spec"] = {**body["spec"], "hostnames": [f"h{number}.example.com"]}
        await plane.objects.apply(plane.target(body), body, Writing("person"))
        await asyncio.sleep(0.01)
    await plane.settled()
    body = await plane.read(route())
    assert body["spec"]["hostnames"] == ["h19.example.com"]
    assert {one["observedGeneration"] for one in body["status"]["parents"][0]["conditions"]} == {body["metadata"]["generation"]}


async def test_a_change_beside_a_status_of_the_same_object_is_not_passed_over(plane: Plane) -> None:
    """Of two events that come together the one that matters would be lost behind the one that does not."""
    await plane.apply(service(), workload(), gateway(), route())
    target = plane.target(route())
    stored = await plane.store.get(target.key)
    assert stored
    changed = {**stored.body, "spec": {**stored.body["spec"], "hostnames": ["b.example.com"]}}
    changed["metadata"] = {**stored.body["metadata"], "generation": 2}
    revision = await plane.store.write([Put(target.key, changed, stored.revision)])
    await plane.store.write([Put(target.key, {**changed, "status": {"parents": []}}, revision)])
    await plane.settled()
    body = await plane.read(route())
    assert {one["observedGeneration"] for one in body["status"]["parents"][0]["conditions"]} == {2}


def test_what_is_only_a_status() -> None:
    """A spec that changed together with a status would not be compiled."""
    key = Key("gateways.gateway.networking.k8s.io", "default", "gw")
    body = {**gateway(), "status": {"a": 1}}
    other = {**body, "status": {"a": 2}, "metadata": {**body["metadata"], "managedFields": [{}]}}
    assert only_status(Event(key, 2, other, body))
    assert not only_status(Event(key, 2, {**other, "spec": {}}, body))
    assert not only_status(Event(key, 2, {**body, "metadata": {**body["metadata"], "labels": {"a": "b"}}}, body))
    assert not only_status(Event(key, 2, body, None))
    assert not only_status(Event(key, 2, None, body))


async def test_a_certificate_begins_and_ends_without_a_write(plane: Plane) -> None:
    """A listener would be said to be well while every client refuses it, until somebody happens to write something."""
    begins, ends = plane.time + 1, plane.time + 3
    chain, key = (one.decode() for one in Roots().server("shop.example", begins=begins, ends=ends))
    metadata = {"name": "cert", "namespace": "default"}
    data = {"tls.crt": chain, "tls.key": key}
    body = gateway()
    body["spec"]["listeners"] = [
        {"name": "https", "port": 443, "protocol": "HTTPS", "tls": {"certificateRefs": [{"name": "cert"}]}}
    ]
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "type": "kubernetes.io/tls", "stringData": data}
    await plane.apply(workload(), secret, body)
    await plane.acknowledge(INGRESS)

    async def resolved(status: str) -> str:
        async with asyncio.timeout(20):
            while True:
                found = (await plane.read(body))["status"]["listeners"][0]["conditions"]
                if (one := condition(found, "ResolvedRefs"))["status"] == status:
                    assert condition(found, "Programmed")["status"] == "True", "it is served all the same"
                    return f"{one['reason']}: {one['message']}"
                await asyncio.sleep(0)

    words = await resolved("False")
    assert words.startswith("InvalidCertificateRef: Secret default/cert: the certificate begins ")
    assert await plane.said(body, "ResolvedRefs") == "False ListenersNotResolved"
    plane.time = begins
    assert (await resolved("True")).startswith("ResolvedRefs: ")
    plane.time = ends
    assert (await resolved("False")).startswith("InvalidCertificateRef: Secret default/cert: the certificate ended ")
    renewed = [one.decode() for one in Roots().server("shop.example", begins=begins, ends=ends + 86400)]
    await plane.apply({**secret, "stringData": {"tls.crt": renewed[0], "tls.key": renewed[1]}})
    assert await plane.said(body, "ResolvedRefs") == "True ResolvedRefs"
