"""History and rollback through the API: who changed what, and back to how it was, in one transaction."""

from __future__ import annotations

import base64
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web

from tests.support.apiserver import Running, running
from tests.unit.apiserver.test_objects import CONFIG_MAP, NAMESPACE, SECRET, SERVICE, VIRTUAL_SERVICE, kind, route, service
from tulle.client.api import ApiClient
from tulle.client.errors import NotFound
from tulle.control.history_api import add_history
from tulle.control.store.memory import MemoryStore
from tulle.kit.errors import TulleError
from tulle.ports import Cause, Key, Put

ROLE_BINDING = kind("rbac.authorization.k8s.io", "RoleBinding")
WORKLOAD = kind("networking.istio.io", "WorkloadEntry")
CANARY = "canary-that-nobody-may-see"


@contextlib.asynccontextmanager
async def serving(store: MemoryStore | None = None, **options: Any) -> AsyncIterator[Running]:
    """An API server with the routes of the history."""
    app = web.Application()
    served: list[Running] = []
    add_history(app, lambda: served[0].server.objects)
    async with running(store or MemoryStore(), extra_apps={"/tulle/v1": app}, **options) as one:
        served.append(one)
        yield one


@pytest.fixture
async def api() -> AsyncIterator[ApiClient]:
    """An administrator of a server of its own."""
    async with serving() as served, served.client() as client:
        yield client


async def history(api: ApiClient, **query: str) -> list[dict[str, Any]]:
    answer = await api.request("GET", "/tulle/v1/history", query=query)
    return list(answer["changes"])


async def revision(api: ApiClient) -> int:
    return int((await api.request("GET", "/tulle/v1/history"))["revision"])


async def back(api: ApiClient, to: int, **more: Any) -> dict[str, Any]:
    return dict(await api.request("POST", "/tulle/v1/rollback", body={"revision": to, **more}))


def did(plan: dict[str, Any]) -> list[tuple[str, str]]:
    return [(step["action"], step["name"]) for step in plan["changes"]]


def secret(name: str, value: str) -> dict[str, Any]:
    data = {"password": base64.b64encode(value.encode()).decode(), "same": base64.b64encode(b"same").decode()}
    annotations = {"kubectl.kubernetes.io/last-applied-configuration": json.dumps({"data": data})}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "annotations": annotations}, "data": data}


def config(name: str, **data: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}


async def test_who_changed_what(api: ApiClient) -> None:
    """Asked after an outage: the object before and after, who, when, from where, how; and nothing that only was observed."""
    await api.create(route())
    await api.patch(VIRTUAL_SERVICE, "reviews", {"spec": {"hosts": ["ratings"]}})
    await api.patch(VIRTUAL_SERVICE, "reviews", {"status": {"observedGeneration": 2}}, subresource="status")
    await api.apply({**route(), "spec": {"hosts": ["details"], "http": route()["spec"]["http"]}})
    await api.delete(VIRTUAL_SERVICE, "reviews")
    changes = await history(api, resource=VIRTUAL_SERVICE.resource, namespace="default", name="reviews")
    assert [change["verb"] for change in changes] == ["delete", "apply", "patch", "create"]
    assert {(change["author"], change["address"], change["kind"]) for change in changes} == {
        ("admin", "127.0.0.1", "VirtualService")
    }
    hosts = [[side and side["spec"]["hosts"] for side in (change["before"], change["after"])] for change in changes]
    assert hosts == [[["details"], None], [["ratings"], ["details"]], [["reviews"], ["ratings"]], [None, ["reviews"]]]
    assert [change["revision"] for change in await history(api, limit="2")] == [change["revision"] for change in changes[:2]]


async def test_one_object_goes_back(api: ApiClient) -> None:
    """The object as it was, still the same object to those who watch it; and what is observed stays."""
    made = await api.create(route())
    at = int(made["metadata"]["resourceVersion"])
    await api.patch(VIRTUAL_SERVICE, "reviews", {"spec": {"hosts": ["ratings"]}, "metadata": {"labels": {"a": "b"}}})
    await api.patch(VIRTUAL_SERVICE, "reviews", {"status": {"observedGeneration": 2}}, subresource="status")
    await api.create(route("other"))
    place = {"resource": VIRTUAL_SERVICE.resource, "namespace": "default", "name": "reviews"}
    plan = await back(api, at, **place, dryRun=True)
    assert did(plan) == [("update", "reviews")]
    assert (await api.get(VIRTUAL_SERVICE, "reviews"))["spec"]["hosts"] == ["ratings"]
    done = await back(api, at, **place, plan=plan["plan"])
    found = await api.get(VIRTUAL_SERVICE, "reviews")
    assert found["spec"] == made["spec"]
    assert "labels" not in found["metadata"]
    assert found["status"] == {"observedGeneration": 2}
    for same in ("uid", "creationTimestamp"):
        assert found["metadata"][same] == made["metadata"][same]
    assert found["metadata"]["generation"] == 3
    assert found["metadata"]["resourceVersion"] == str(done["revision"])
    assert (await history(api))[0]["verb"] == "rollback"
    assert did(await back(api, at, **place)) == []  # it is there already: nothing is written
    assert await revision(api) == done["revision"]
    await back(api, done["revision"] - 1, **place)  # a rollback is rolled back like any change
    assert (await api.get(VIRTUAL_SERVICE, "reviews"))["spec"]["hosts"] == ["ratings"]


async def test_the_whole_mesh_goes_back(api: ApiClient) -> None:
    """Deleted is there again, made since is gone, changed is as it was, in one transaction: no proxy sees half of it."""
    await api.create(route("kept"))
    await api.create(route("changed"))
    gone = await api.create(route("deleted"))
    at = await revision(api)
    await api.patch(VIRTUAL_SERVICE, "changed", {"spec": {"hosts": ["else"]}})
    await api.delete(VIRTUAL_SERVICE, "deleted")
    await api.create(route("made"))
    await api.create(config("passing"))
    await api.delete(CONFIG_MAP, "passing")
    done = await back(api, at)
    assert sorted(did(done)) == [("create", "deleted"), ("delete", "made"), ("update", "changed")]
    found = {item["metadata"]["name"]: item for item in (await api.list(VIRTUAL_SERVICE, "default"))["items"]}
    assert set(found) == {"kept", "changed", "deleted"}
    assert found["changed"]["spec"]["hosts"] == ["changed"]
    assert found["deleted"]["spec"] == gone["spec"]
    assert found["deleted"]["metadata"]["uid"] != gone["metadata"]["uid"]
    assert {found[name]["metadata"]["resourceVersion"] for name in ("changed", "deleted")} == {str(done["revision"])}
    assert {change["revision"] for change in (await history(api))[:3]} == {done["revision"]}


async def test_a_namespace_comes_back_with_its_content(api: ApiClient) -> None:
    """The accident that rollback is for: a namespace deleted by mistake."""
    await api.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop", "labels": {"team": "a"}}})
    cart = await api.create(service("cart", "shop"))
    await api.create({**route(), "metadata": {"name": "reviews", "namespace": "shop"}})
    at = await revision(api)
    await api.delete(NAMESPACE, "shop")
    with pytest.raises(NotFound):
        await api.get(NAMESPACE, "shop")
    done = await back(api, at)
    assert did(done)[0] == ("create", "shop")
    assert (await api.get(NAMESPACE, "shop"))["metadata"]["labels"]["team"] == "a"
    assert (await api.get(NAMESPACE, "shop"))["status"]["phase"] == "Active"
    assert (await api.get(SERVICE, "cart", "shop"))["spec"] == cart["spec"]  # with the address that clients remember
    assert (await api.get(VIRTUAL_SERVICE, "reviews", "shop"))["spec"]["hosts"] == ["reviews"]


async def test_a_namespace_made_since_goes_with_its_content(api: ApiClient) -> None:
    """What a namespace leaves behind is in no list and cannot be deleted."""
    await api.create(route())
    at = await revision(api)
    await api.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}})
    await api.create(service("cart", "shop"))
    place = {"resource": "namespaces", "namespace": "", "name": "shop"}
    assert sorted(did(await back(api, at, **place, dryRun=True))) == [("delete", "cart"), ("delete", "shop")]
    await back(api, at, **place)
    with pytest.raises(NotFound):
        await api.get(NAMESPACE, "shop")
    again = await api.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}})
    assert again["metadata"]["name"] == "shop"
    assert (await api.list(SERVICE, "shop"))["items"] == []


async def test_addresses_of_services() -> None:
    """Two Services with one address, or one whose address nobody holds, send traffic to the wrong place."""
    store = MemoryStore()
    async with serving(store) as served, served.client() as api:
        first = (await api.create(service("first")))["spec"]["clusterIP"]
        second = (await api.create(service("second")))["spec"]["clusterIP"]
        at = await revision(api)
        await api.delete(SERVICE, "first")
        await api.delete(SERVICE, "second")
        await api.create(service("thief", clusterIP=first, clusterIPs=[first]))
        await api.create(service("second", clusterIP="240.240.7.7", clusterIPs=["240.240.7.7"]))
        done = await back(api, at)
        # The thief goes, so its address is free again; a Service that stands keeps the one that it has.
        assert sorted(did(done)) == [("create", "first"), ("delete", "thief")]
        assert (await api.get(SERVICE, "first"))["spec"]["clusterIP"] == first
        assert (await api.get(SERVICE, "second"))["spec"]["clusterIP"] == "240.240.7.7"
        held = {one.key.name: one.body["service"] for one in (await store.list("_clusterips"))[0]}
        assert held == {first: "default/first", "240.240.7.7": "default/second"}
        await api.delete(SERVICE, "first")
        at = await revision(api) - 1
        await api.create(service("thief", clusterIP=first, clusterIPs=[first]))
        place = {"resource": "services", "namespace": "default", "name": "first"}
        done = await back(api, at, **place)
        assert any("is another Service's now" in warning for warning in done["warnings"])
        anew = (await api.get(SERVICE, "first"))["spec"]["clusterIP"]
        assert anew not in (first, second, "240.240.7.7", "")
        held = {one.key.name: one.body["service"] for one in (await store.list("_clusterips"))[0]}
        assert held == {first: "default/thief", "240.240.7.7": "default/second", anew: "default/first"}


async def test_owners_are_found_again(api: ApiClient) -> None:
    """A dependent that names an owner's former uid would be garbage, and collected at once."""
    owner = await api.create(config("owner"))
    reference = {"apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": owner["metadata"]["uid"]}
    lost = {**reference, "name": "lost", "uid": "0"}
    child = config("child")
    child["metadata"]["ownerReferences"] = [reference, lost]
    await api.create(child)
    at = await revision(api)
    await api.delete(CONFIG_MAP, "child")
    await api.delete(CONFIG_MAP, "owner")
    await back(api, at)
    owner, child = [await api.get(CONFIG_MAP, name) for name in ("owner", "child")]
    assert child["metadata"]["ownerReferences"] == [{**reference, "uid": owner["metadata"]["uid"]}]


async def test_secrets_go_back_and_are_not_shown(api: ApiClient) -> None:
    """A password in a diff ends up in a terminal's log; one that is left out of the rollback breaks what uses it."""
    await api.create(secret("s", CANARY))
    at = await revision(api)
    await api.apply(secret("s", CANARY + "-2"))
    plan = await back(api, at)
    shown = json.dumps([plan, await history(api)])
    for form in (CANARY, base64.b64encode(CANARY.encode()).decode()[:20]):
        assert form not in shown
    step = plan["changes"][0]
    assert step["before"]["data"] == {"password": "[redacted]", "same": "[redacted]"}
    assert step["after"]["data"] == {"password": "[redacted, changed]", "same": "[redacted]"}
    assert (await api.get(SECRET, "s"))["data"]["password"] == base64.b64encode(CANARY.encode()).decode()


async def test_what_cannot_change_is_made_again(api: ApiClient) -> None:
    """A binding that was replaced by one of another role could not be rolled back at all."""

    def binding(role: str) -> dict[str, Any]:
        ref = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": role}
        return {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": {"name": "b"}, "roleRef": ref}

    first = await api.create(binding("old"))
    at = await revision(api)
    await api.delete(ROLE_BINDING, "b")
    second = await api.create(binding("new"))
    await back(api, at)
    found = await api.get(ROLE_BINDING, "b")
    assert found["roleRef"]["name"] == "old"
    assert found["metadata"]["uid"] not in (first["metadata"]["uid"], second["metadata"]["uid"])
    unchanging = await api.create({**config("c", a="1"), "immutable": True})
    assert unchanging["immutable"] is True


async def test_what_nodes_register_stays(api: ApiClient) -> None:
    """A workload that runs would be taken out of the mesh, and one that is long gone would get traffic."""
    store = MemoryStore()
    async with serving(store) as served, served.client() as api:
        await api.create(route())
        at = await revision(api)
        body = {
            "apiVersion": "networking.istio.io/v1",
            "kind": "WorkloadEntry",
            "metadata": {"name": "w", "namespace": "default"},
        }
        body |= {"spec": {"address": "10.0.0.1"}}
        await store.write([Put(Key(WORKLOAD.resource, "default", "w"), body)], Cause("system:node:host-1", "", 1.0, "create"))
        await api.delete(VIRTUAL_SERVICE, "reviews")
        plan = await back(api, at)
        assert did(plan) == [("create", "reviews")]
        assert [one["name"] for one in plan["left"]] == ["w"]
        assert await api.get(WORKLOAD, "w")


async def test_finalizers_hold(api: ApiClient) -> None:
    """Whoever put a finalizer there has something to clear away first, also when the object goes by a rollback."""
    at = await revision(api)
    held = config("held")
    held["metadata"]["finalizers"] = ["example.com/hold"]
    await api.create(route())
    await api.create(held)
    await back(api, at + 1)
    found = await api.get(CONFIG_MAP, "held")
    assert found["metadata"]["deletionTimestamp"]
    assert did(await back(api, at + 1)) == []  # it is on its way
    await api.patch(CONFIG_MAP, "held", {"metadata": {"finalizers": None}})
    with pytest.raises(NotFound):
        await api.get(CONFIG_MAP, "held")


async def refused(api: ApiClient, to: Any, **more: Any) -> TulleError:
    with pytest.raises(TulleError) as error:
        await back(api, to, **more)
    return error.value


async def test_refusals(api: ApiClient) -> None:
    """Whoever asks for what cannot be must learn what is wrong, and nothing may have happened."""
    await api.create(route())
    now = await revision(api)
    assert f"the newest is {now}" in (await refused(api, now + 1)).message
    assert "needed 1 or more" in (await refused(api, 0)).message
    assert "needed a whole number" in (await refused(api, "7")).message
    assert "needed a whole number" in (await refused(api, True)).message
    assert "together" in (await refused(api, now, resource="services")).message
    assert "together" in (await refused(api, now, resource="nonsense", name="x")).message
    assert "not known" in (await refused(api, now, what="x")).message
    await api.delete(VIRTUAL_SERVICE, "reviews")
    plan = await back(api, now, dryRun=True)
    await api.create(route())
    assert "has changed since" in (await refused(api, now, plan=plan["plan"])).message
    assert await revision(api) == now + 2


async def test_a_revision_that_is_forgotten() -> None:
    """Half of a rollback, from what happens to be kept, is a mesh that never was."""
    async with serving(MemoryStore(kept=10)) as served, served.client() as api:
        await api.create(route())
        first = await revision(api)
        for n in range(20):
            await api.patch(VIRTUAL_SERVICE, "reviews", {"spec": {"hosts": [f"h{n}"]}})
        error = await refused(api, first)
        assert "older than the history that is kept: the oldest to go back to is" in error.message
        oldest = int(error.message.rsplit(" ", 1)[1].rstrip("."))
        await back(api, oldest)
        assert (await refused(api, oldest - 1)).message.startswith(f"revision {oldest - 1} is older")


async def test_what_is_no_longer_valid(api: ApiClient) -> None:
    """A rollback must not be the door through which an object comes in that is refused at every other."""
    store = MemoryStore()
    async with serving(store) as served, served.client() as api:
        key = Key(VIRTUAL_SERVICE.resource, "default", "reviews")
        made = await api.create(route())
        broken = {**made, "spec": {"hosts": "of a former version"}}
        at = await store.write([Put(key, broken)], Cause("anna", "", 1.0, "update"))
        await api.update({**route(), "metadata": {"name": "reviews", "resourceVersion": str(at)}})
        error = await refused(api, at)
        assert "spec.hosts" in error.message
        assert (await api.get(VIRTUAL_SERVICE, "reviews"))["spec"]["hosts"] == ["reviews"]


async def test_everybody_sees_and_rolls_back_what_is_theirs() -> None:
    """The history would show what its reader may not get, and a rollback would write what its author may not."""
    async with (
        serving() as served,
        served.client() as admin,
        served.client("olga", ["tulle:operators"]) as operator,
        served.client("vera", ["tulle:viewers"]) as viewer,
        served.client("", []) as nobody,
    ):
        await admin.create(route())
        at = await revision(admin)
        await admin.patch(VIRTUAL_SERVICE, "reviews", {"spec": {"hosts": ["ratings"]}})
        await admin.create(config("c", a="1"))
        await admin.create(secret("x", CANARY))
        assert {change["kind"] for change in await history(operator)} == {"VirtualService", "ConfigMap"}
        assert [change["kind"] for change in await history(operator, limit="1")] == ["ConfigMap"]
        with pytest.raises(TulleError, match='"olga" cannot get resource "secrets"'):
            await history(operator, resource="secrets", namespace="default", name="x")
        for dry_run in (True, False):
            assert '"olga" cannot delete resource' in (await refused(operator, at, dryRun=dry_run)).message
        place = {"resource": VIRTUAL_SERVICE.resource, "namespace": "default", "name": "reviews"}
        assert "cannot post path" in (await refused(viewer, at, **place)).message
        assert "nauthorized" in (await refused(nobody, at, **place)).message
        assert (await admin.get(VIRTUAL_SERVICE, "reviews"))["spec"]["hosts"] == ["ratings"]
        await back(operator, at, **place)
        assert (await history(admin))[0]["author"] == "olga"
        assert (await admin.get(VIRTUAL_SERVICE, "reviews"))["spec"]["hosts"] == ["reviews"]


async def test_rights_cannot_be_rolled_back_by_those_without_them() -> None:
    """Who may write roles, but has not what they grant, would get it by a rollback to when somebody else had it."""
    async with serving() as served, served.client() as admin, served.client("adam", ["tulle:admins"]) as adam:
        rule = {"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}
        everything = {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": "r"}, "rules": [rule]}
        await admin.create(everything)
        at = await revision(admin)
        await admin.patch(kind("rbac.authorization.k8s.io", "Role"), "r", {"rules": []})
        error = await refused(adam, at, resource="roles.rbac.authorization.k8s.io", namespace="default", name="r")
        assert "is attempting to grant" in error.message
