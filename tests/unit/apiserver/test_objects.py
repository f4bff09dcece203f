"""Objects through the API: Kubernetes' book-keeping, refusals with sentences, namespaces, addresses."""

from __future__ import annotations

import asyncio
import copy
from typing import Any

import pytest

from tests.support.apiserver import Running, running
from tulle.api.object import Kind, Object
from tulle.api.registry import kind_for
from tulle.client.api import ApiClient
from tulle.client.errors import AlreadyExists, ApiError, NotFound, WriteConflict
from tulle.control.store.memory import MemoryStore
from tulle.kit.errors import BadData, Refused
from tulle.ports import Key


def kind(group: str, name: str) -> Kind:
    found = kind_for(group, name)
    assert found is not None
    return found


SERVICE, NAMESPACE = kind("", "Service"), kind("", "Namespace")
SECRET, CONFIG_MAP = kind("", "Secret"), kind("", "ConfigMap")
VIRTUAL_SERVICE, WORKLOAD = kind("networking.istio.io", "VirtualService"), kind("networking.istio.io", "WorkloadEntry")

VS = "/apis/networking.istio.io/v1/namespaces/default/virtualservices"


def route(name: str = "reviews", version: str = "v1", weight: int | None = None) -> dict[str, Any]:
    to: dict[str, Any] = {"destination": {"host": name, "subset": "v1"}} | ({"weight": weight} if weight is not None else {})
    return {
        "apiVersion": f"networking.istio.io/{version}",
        "kind": "VirtualService",
        "metadata": {"name": name},
        "spec": {"hosts": [name], "http": [{"route": [to]}]},
    }


def service(name: str, namespace: str = "default", **spec: Any) -> dict[str, Any]:
    spec = {"selector": {"app": name}, "ports": [{"port": 80}]} | spec
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": namespace}, "spec": spec}


async def test_what_the_server_adds(api: ApiClient) -> None:
    """kubectl and every controller rely on uid, creation time, generation and resource version."""
    made = await api.create(route())
    meta = made["metadata"]
    assert meta["namespace"] == "default"
    assert meta["generation"] == 1
    assert meta["uid"]
    assert meta["creationTimestamp"].endswith("Z")
    assert int(meta["resourceVersion"]) > 0
    changed = await api.patch(VIRTUAL_SERVICE, "reviews", {"spec": {"gateways": ["mesh"]}})
    assert changed["metadata"]["generation"] == 2
    labelled = await api.patch(VIRTUAL_SERVICE, "reviews", {"metadata": {"labels": {"a": "b"}}})
    assert labelled["metadata"]["generation"] == 2
    assert int(labelled["metadata"]["resourceVersion"]) > int(changed["metadata"]["resourceVersion"])
    unchanged = await api.patch(VIRTUAL_SERVICE, "reviews", {"metadata": {"labels": {"a": "b"}}})
    assert unchanged == labelled
    assert await api.get(VIRTUAL_SERVICE, "reviews") == labelled


async def test_one_object_in_every_version(api: ApiClient) -> None:
    """A file written for v1alpha3 must change the object that one for v1 made, and read back in its own version."""
    await api.create(route(version="v1alpha3"))
    with pytest.raises(AlreadyExists):
        await api.create(route(version="v1"))
    found = await api.get(VIRTUAL_SERVICE, "reviews")
    assert found["apiVersion"] == "networking.istio.io/v1"
    old = await api.request("GET", f"{VS.replace('/v1/', '/v1beta1/')}/reviews")
    assert old["apiVersion"] == "networking.istio.io/v1beta1"
    assert old["metadata"] == found["metadata"]
    applied = await api.apply(route(version="v1alpha3"))
    assert applied["metadata"]["resourceVersion"] != ""
    stored = await api.list(VIRTUAL_SERVICE)
    assert [one["apiVersion"] for one in stored["items"]] == ["networking.istio.io/v1"]


async def test_optimistic_concurrency(api: ApiClient) -> None:
    """Of two editors that read the same object the second must be told, not win silently."""
    made = await api.create(route())
    first, second = copy.deepcopy(made), copy.deepcopy(made)
    first["spec"]["gateways"] = ["mesh"]
    await api.update(first)
    second["spec"]["gateways"] = ["other"]
    with pytest.raises(WriteConflict, match="modified"):
        await api.update(second)
    del second["metadata"]["resourceVersion"]
    with pytest.raises(BadData, match="must be specified for an update"):
        await api.update(second)
    second["metadata"]["resourceVersion"] = (await api.get(VIRTUAL_SERVICE, "reviews"))["metadata"]["resourceVersion"]
    done = await api.update(second)
    assert done["spec"]["gateways"] == ["other"]
    second["metadata"] |= {"uid": "another", "resourceVersion": done["metadata"]["resourceVersion"]}
    with pytest.raises(WriteConflict, match="UID"):
        await api.update(second)


async def test_concurrent_patches_all_land(api: ApiClient) -> None:
    """Patches without a resource version promise nothing about the object: the server retries them, and none is lost."""
    await api.create(route())
    await asyncio.gather(*(api.patch(VIRTUAL_SERVICE, "reviews", {"metadata": {"labels": {f"l{n}": "x"}}}) for n in range(8)))
    found = await api.get(VIRTUAL_SERVICE, "reviews")
    assert set(found["metadata"]["labels"]) == {f"l{n}" for n in range(8)}


async def test_mistakes_are_sentences_with_fields(api: ApiClient) -> None:
    """A person must read which field is wrong, what was found and what is needed; all mistakes at once; nothing is written."""
    bad = route()
    bad["spec"]["htp"] = []
    bad["spec"]["http"][0]["route"][0]["weight"] = "much"
    with pytest.raises(BadData) as wrong:
        await api.create(bad)
    assert {problem.path for problem in wrong.value.problems} == {"spec.htp", "spec.http[0].route[0].weight"}
    assert all("found" in problem.message and "needed" in problem.message for problem in wrong.value.problems)
    with pytest.raises(NotFound):
        await api.get(VIRTUAL_SERVICE, "reviews")


async def test_field_validation(served: Running) -> None:
    """Strict refuses unknown and doubled fields, Warn says them and leaves them out, Ignore is silent."""
    said: list[str] = []
    async with served.client(warn=said.append) as api:
        bad = route()
        bad["spec"]["htp"] = []
        made = await api.request("POST", VS, query={"fieldValidation": "Warn"}, body=bad)
        assert "htp" not in made["spec"]
        assert said == ['unknown field "spec.htp"']
        said.clear()
        bad["metadata"]["resourceVersion"] = made["metadata"]["resourceVersion"]
        await api.request("PUT", f"{VS}/reviews", query={"fieldValidation": "Ignore"}, body=bad)
        assert said == []
        with pytest.raises(BadData, match="sometimes"):
            await api.request("POST", VS, query={"fieldValidation": "sometimes"}, body=bad)


async def test_bodies_that_make_no_sense(api: ApiClient) -> None:
    """What comes from outside is refused with 400, 409, 415 or 422, and never with 500."""
    bodies: list[Any] = [
        None,
        [],
        "x",
        7,
        {},
        {"metadata": []},
        {"metadata": {"name": 3}},
        {"kind": "Service", "apiVersion": "v1"},
    ]
    for body in bodies:
        with pytest.raises(BadData):
            await api.request("POST", VS, body=body)
    await api.create(route())
    patches: list[tuple[Any, str]] = [
        ([], "application/merge-patch+json"),
        ({}, "application/json-patch+json"),
        ({"op": 1}, "application/strategic-merge-patch+json"),
        ({}, "text/plain"),
        ({"metadata": {"name": "other"}}, "application/merge-patch+json"),
        ([{"op": "remove", "path": "/spec/none"}], "application/json-patch+json"),
        ([{"op": "replace", "path": "", "value": 3}], "application/json-patch+json"),
        ({"spec": None}, "application/merge-patch+json"),
    ]
    for body, content_type in patches:
        with pytest.raises(BadData):
            await api.request("PATCH", f"{VS}/reviews", body=body, content_type=content_type)
    with pytest.raises(ApiError) as method:
        await api.request("POST", f"{VS}/reviews", body=route())
    assert method.value.http == 405
    with pytest.raises(BadData, match="resourceVersion"):
        await api.create({**route("x"), "metadata": {"name": "x", "resourceVersion": "1"}})


async def test_generated_names(api: ApiClient) -> None:
    """`generateName` gives each its own name."""
    body = {**route(), "metadata": {"generateName": "r-"}}
    names = {(await api.create(body))["metadata"]["name"] for _ in range(3)}
    assert len(names) == 3
    assert all(name.startswith("r-") and len(name) == 7 for name in names)


async def test_dry_runs_change_nothing(api: ApiClient, served: Running) -> None:
    """`kubectl diff` is a dry run: it must show what would be, check all of it, and write nothing."""
    before = (await served.store.list())[1]
    assert (await api.create(route(), dry_run=True))["metadata"]["uid"]
    assert (await api.apply(route("other"), dry_run=True))["spec"]
    assert (await api.create(service("cart"), dry_run=True))["spec"]["clusterIP"].startswith("240.240.")
    with pytest.raises(BadData):
        await api.create({**route(), "spec": {"hosts": 3}}, dry_run=True)
    with pytest.raises(NotFound):
        await api.delete(VIRTUAL_SERVICE, "reviews", dry_run=True)
    assert (await served.store.list())[1] == before
    made = await api.create(route())
    changed = await api.patch(VIRTUAL_SERVICE, "reviews", {"spec": {"gateways": ["x"]}}, dry_run=True)
    assert changed["spec"]["gateways"] == ["x"]
    assert changed["metadata"]["resourceVersion"] == made["metadata"]["resourceVersion"]
    await api.delete(VIRTUAL_SERVICE, "reviews", dry_run=True)
    assert await api.get(VIRTUAL_SERVICE, "reviews") == made


async def test_status_is_a_path_of_its_own(api: ApiClient) -> None:
    """A person's apply must not overwrite what was observed, nor a status writer the wish."""
    body = {**route(), "status": {"conditions": [{"type": "Ready", "status": "True"}]}}
    assert "status" not in await api.create(body)
    path = f"{VS}/reviews/status"
    observed = {"status": {"conditions": [{"type": "Ready", "status": "True"}]}, "spec": {"hosts": ["changed"]}}
    done = await api.request("PATCH", path, body=observed, content_type="application/merge-patch+json")
    assert done["status"] == observed["status"]
    assert done["spec"]["hosts"] == ["reviews"]
    assert done["metadata"]["generation"] == 1
    whole = {**route(), "status": {}}
    whole["metadata"]["resourceVersion"] = done["metadata"]["resourceVersion"]
    replaced = await api.update(whole)
    assert replaced["status"] == observed["status"]


async def test_absent_namespaces(api: ApiClient) -> None:
    """An object in a namespace that is not there would steer nothing, and be found by nobody."""
    with pytest.raises(NotFound, match='namespaces "nowhere" not found'):
        await api.create(service("cart", "nowhere"))
    with pytest.raises(NotFound, match='namespaces "nowhere" not found'):
        await api.apply(service("cart", "nowhere"))
    names = [one["metadata"]["name"] for one in (await api.list(NAMESPACE))["items"]]
    assert {"default", "tulle-system", "istio-system"} <= set(names)


async def test_deleting_a_namespace_deletes_what_is_in_it(api: ApiClient, served: Running) -> None:
    """Objects of a namespace that is gone would live on unseen; those of others must stay."""
    await api.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}})
    await api.create(service("cart", "shop"))
    await api.create({**route(), "metadata": {"name": "reviews", "namespace": "shop"}})
    kept = await api.create(service("kept"))
    await api.delete(NAMESPACE, "shop")
    left = [one.key for one in (await served.store.list())[0]]
    assert Key("services", "default", "kept") in left
    assert not [key for key in left if key.namespace == "shop"]
    assert [key.name for key in left if key.resource == "_clusterips"] == [kept["spec"]["clusterIP"]]
    with pytest.raises(Refused, match="may not be deleted"):
        await api.delete(NAMESPACE, "tulle-system")


async def test_a_namespace_that_goes_while_it_is_written_to(served: Running) -> None:
    """Whatever the order, nothing is left behind in a namespace that is gone."""
    async with served.client() as api:
        for turn in range(5):
            name = f"n{turn}"
            await api.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
            writes = [api.create(service(f"s{n}", name)) for n in range(10)]
            results = await asyncio.gather(*writes[:5], api.delete(NAMESPACE, name), *writes[5:], return_exceptions=True)
            assert not [one for one in results if isinstance(one, Exception) and not isinstance(one, NotFound)]
            assert not [one for one in (await served.store.list("services"))[0] if one.key.namespace == name]
        assert not (await served.store.list("_clusterips"))[0]


async def test_addresses(api: ApiClient) -> None:
    """Two services with one address would take each other's traffic; one that changes breaks its callers."""
    made = await asyncio.gather(*(api.create(service(f"s{n}")) for n in range(40)))
    addresses = {one["spec"]["clusterIP"] for one in made}
    assert len(addresses) == 40
    assert all(address.startswith("240.240.") for address in addresses)
    first = made[0]
    assert first["spec"]["clusterIPs"] == [first["spec"]["clusterIP"]]
    assert first["spec"]["ports"] == [{"port": 80, "protocol": "TCP", "targetPort": 80}]
    again = await api.update(service("s0", ports=[{"port": 81}]))
    assert again["spec"]["clusterIP"] == first["spec"]["clusterIP"]
    with pytest.raises(BadData, match="does not change"):
        await api.update(service("s0", clusterIP="240.240.9.9"))
    with pytest.raises(BadData, match="another Service has"):
        await api.create(service("thief", clusterIP=first["spec"]["clusterIP"]))
    await api.delete(SERVICE, "s0")
    assert (await api.create(service("s0")))["spec"]["clusterIP"] == first["spec"]["clusterIP"]
    assert (await api.create(service("headless", clusterIP="None")))["spec"]["clusterIP"] == "None"
    alias = await api.create(service("alias", type="ExternalName", externalName="example.com"))
    assert "clusterIP" not in alias["spec"]


async def test_apply(api: ApiClient) -> None:
    """`tulle apply` and `kubectl apply --server-side`: idempotent, minimal, with conflicts told."""
    made = await api.apply(route(weight=5), field_manager="a")
    assert await api.apply(route(weight=5), field_manager="a") == made
    with pytest.raises(WriteConflict, match=r'conflict with "a": \.spec\.http') as conflict:
        await api.apply(route(weight=6), field_manager="b", force=False)
    assert conflict.value.status["details"]["causes"][0]["reason"] == "FieldManagerConflict"
    taken = await api.apply(route(weight=6), field_manager="b")
    assert taken["spec"]["http"][0]["route"][0]["weight"] == 6
    assert taken["metadata"]["generation"] == 2
    with pytest.raises(BadData):
        await api.request("PATCH", f"{VS}/reviews", body=route(), content_type="application/apply-patch+yaml")
    text = "apiVersion: networking.istio.io/v1\nkind: VirtualService\nspec: {gateways: [mesh], hosts: [reviews]}\n"
    import aiohttp

    assert isinstance(api._session, aiohttp.ClientSession)
    headers = {"Content-Type": "application/apply-patch+yaml"}
    async with api._session.patch(f"{api.server}{VS}/reviews?fieldManager=y", data=text, headers=headers) as response:
        assert (await response.json())["spec"]["gateways"] == ["mesh"]


async def test_finalizers_hold_an_object_back(api: ApiClient) -> None:
    """Whoever put a finalizer on an object has work to do before it goes."""
    await api.create({**route(), "metadata": {"name": "reviews", "finalizers": ["x.io/y"]}})
    held = await api.delete(VIRTUAL_SERVICE, "reviews")
    assert held["metadata"]["deletionTimestamp"]
    await api.patch(VIRTUAL_SERVICE, "reviews", {"metadata": {"finalizers": None}})
    with pytest.raises(NotFound):
        await api.get(VIRTUAL_SERVICE, "reviews")


async def test_preconditions_of_a_delete(api: ApiClient) -> None:
    """A delete that means one object must not take its successor of the same name."""
    made = await api.create(route())
    path = f"{VS}/reviews"
    for wrong in ({"uid": "x"}, {"resourceVersion": "1"}):
        with pytest.raises(WriteConflict):
            await api.request("DELETE", path, body={"preconditions": wrong})
    done = await api.request("DELETE", path, body={"preconditions": {"uid": made["metadata"]["uid"]}})
    assert done["details"]["uid"] == made["metadata"]["uid"]


async def test_delete_collection(api: ApiClient) -> None:
    """`kubectl delete -l` takes what is selected, in one namespace, and nothing else."""
    for name in ("a", "b", "c"):
        body = route(name)
        body["metadata"]["labels"] = {"take": "yes" if name != "c" else "no"}
        await api.create(body)
    await api.request("DELETE", VS, query={"labelSelector": "take=yes"})
    assert [one["metadata"]["name"] for one in (await api.list(VIRTUAL_SERVICE))["items"]] == ["c"]
    with pytest.raises(ApiError):
        await api.request("DELETE", "/apis/networking.istio.io/v1/virtualservices")


async def test_lists_in_pages(api: ApiClient) -> None:
    """kubectl lists in pages of 500; a page that repeats or skips hides objects."""
    for n in range(7):
        await api.create(route(f"r{n}"))
    names: list[str] = []
    query = {"limit": "3"}
    while True:
        page = await api.request("GET", VS, query=query)
        names += [one["metadata"]["name"] for one in page["items"]]
        if "continue" not in page["metadata"]:
            break
        query["continue"] = page["metadata"]["continue"]
    assert names == [f"r{n}" for n in range(7)]
    with pytest.raises(BadData):
        await api.request("GET", VS, query={"continue": "bm9uc2Vuc2U="})


async def test_secrets(api: ApiClient) -> None:
    """`stringData` becomes data; an immutable one stays as it is."""
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "stringData": {"a": "b"}, "immutable": True}
    made = await api.create(secret)
    assert made["data"] == {"a": "Yg=="}
    assert "stringData" not in made
    with pytest.raises(BadData, match="immutable"):
        await api.patch(SECRET, "s", {"data": {"a": "Yw=="}})


async def test_tables(api: ApiClient) -> None:
    """`kubectl get` prints what the server's table says."""
    import aiohttp

    await api.create(service("cart"))
    assert isinstance(api._session, aiohttp.ClientSession)
    headers = {"Accept": "application/json;as=Table;v=v1;g=meta.k8s.io"}
    async with api._session.get(f"{api.server}/api/v1/services", headers=headers) as response:
        table = await response.json()
    assert table["kind"] == "Table"
    names = [column["name"] for column in table["columnDefinitions"]]
    assert names == ["Name", "Type", "Cluster-IP", "External-IP", "Port(s)", "Age", "Selector"]
    assert table["rows"][0]["cells"][0] == "cart"
    assert table["rows"][0]["object"]["kind"] == "PartialObjectMetadata"


async def test_what_the_mesh_says() -> None:
    """Its warnings would not reach the person who writes, or would be those of a mesh without the object."""
    seen: list[tuple[str, bool]] = []

    expected: list[str] = []

    class Mesh:
        async def judge(self, kind: Kind, new: Object, revision: int) -> list[str]:
            stored = await served.store.get(Key(kind.resource, new.metadata.namespace, new.metadata.name))
            seen.append((kind.kind, revision > 0 and stored is not None and stored.revision == revision))
            return ['host "nowhere" is not known\nyet']

        def expect(self, key: Key, revision: int, body: dict[str, Any], new: Object) -> None:
            expected.append(key.resource)

    said: list[str] = []
    async with running(MemoryStore(), judge=Mesh()) as served, served.client(warn=said.append) as api:
        await api.create(route(), dry_run=True)
        await api.create(route())
        await api.patch(VIRTUAL_SERVICE, "reviews", {"spec": {"gateways": ["x"]}})
        await api.delete(VIRTUAL_SERVICE, "reviews")
    assert seen == [("VirtualService", False), ("VirtualService", True), ("VirtualService", True)]
    assert said == ['host "nowhere" is not known yet'] * 3
    assert expected == ["virtualservices.networking.istio.io"] * 2, "what is not written is not awaited"
