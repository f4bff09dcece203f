"""The Python `kubernetes` client, typed and dynamic, with its watch: what operators and pipelines in Python use."""

# The client's own annotations are few, and call every field optional.
# mypy: disable-error-code="no-untyped-call,union-attr,index,call-overload,arg-type,attr-defined"

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from kubernetes import client, config, dynamic, watch
from kubernetes.client.exceptions import ApiException

pytestmark = pytest.mark.e2e

GROUP, VERSION, ROUTES = "networking.istio.io", "v1", "virtualservices"


def route(name: str, *hosts: str, **metadata: Any) -> dict[str, Any]:
    spec = {"hosts": list(hosts or (name,)), "http": [{"route": [{"destination": {"host": name}}]}]}
    return {
        "apiVersion": f"{GROUP}/{VERSION}",
        "kind": "VirtualService",
        "metadata": {"name": name, **metadata},
        "spec": spec,
    }


def config_map(name: str, **labels: str) -> client.V1ConfigMap:
    return client.V1ConfigMap(metadata=client.V1ObjectMeta(name=name, labels=labels), data={"a": "b"})


@pytest.fixture
def api(kubeconfig: Path) -> Iterator[client.ApiClient]:
    """A client whose default namespace is empty afterwards."""
    with config.new_client_from_config(str(kubeconfig)) as one:
        yield one
        core, custom = client.CoreV1Api(one), client.CustomObjectsApi(one)
        core.delete_collection_namespaced_config_map("default")
        custom.delete_collection_namespaced_custom_object(GROUP, VERSION, "default", ROUTES)
        for service in core.list_namespaced_service("default").items:
            core.delete_namespaced_service(service.metadata.name, "default")


@pytest.fixture
def core(api: client.ApiClient) -> client.CoreV1Api:
    return client.CoreV1Api(api)


@pytest.fixture
def custom(api: client.ApiClient) -> client.CustomObjectsApi:
    return client.CustomObjectsApi(api)


def test_typed_objects(core: client.CoreV1Api) -> None:
    """Create, read, list in pages, replace with its conflict, the three patches, delete with a precondition."""
    made = core.create_namespaced_config_map("default", config_map("a", app="x"))
    assert made.metadata.uid
    for name in ("b", "c"):
        core.create_namespaced_config_map("default", config_map(name))
    first = core.list_namespaced_config_map("default", limit=2)
    rest = core.list_namespaced_config_map("default", limit=2, _continue=first.metadata._continue)
    assert [one.metadata.name for one in (*first.items, *rest.items)] == ["a", "b", "c"]
    assert first.metadata.remaining_item_count == 1
    assert [one.metadata.name for one in core.list_namespaced_config_map("default", label_selector="app in (x)").items] == ["a"]
    patched = core.patch_namespaced_config_map("a", "default", {"data": {"c": "d"}})
    assert patched.data == {"a": "b", "c": "d"}
    patched = core.patch_namespaced_config_map("a", "default", [{"op": "remove", "path": "/data/a"}])
    assert patched.data == {"c": "d"}
    made.data = {"late": "yes"}
    with pytest.raises(ApiException) as late:
        core.replace_namespaced_config_map("a", "default", made)
    assert (late.value.status, late.value.reason) == (409, "Conflict")
    another = client.V1DeleteOptions(preconditions=client.V1Preconditions(uid="x"))
    with pytest.raises(ApiException) as other:
        core.delete_namespaced_config_map("a", "default", body=another)
    assert other.value.status == 409
    assert core.delete_namespaced_config_map("a", "default")["status"] == "Success"
    with pytest.raises(ApiException) as gone:
        core.read_namespaced_config_map("a", "default")
    assert gone.value.status == 404


def test_services_and_namespaces(core: client.CoreV1Api) -> None:
    """The kinds that the mesh itself reads, through their typed models."""
    spec = client.V1ServiceSpec(selector={"app": "cart"}, ports=[client.V1ServicePort(port=80, name="http")])
    made = core.create_namespaced_service("default", client.V1Service(metadata=client.V1ObjectMeta(name="cart"), spec=spec))
    assert made.spec.cluster_ip.startswith("240.240.")
    assert made.spec.ports[0].target_port == 80
    space = core.create_namespace(client.V1Namespace(metadata=client.V1ObjectMeta(generate_name="shop-")))
    assert space.status.phase == "Active"
    core.delete_namespace(space.metadata.name)
    assert core.delete_namespaced_service("cart", "default").spec.cluster_ip == made.spec.cluster_ip
    assert space.metadata.name not in [one.metadata.name for one in core.list_namespace().items]


def test_custom_objects(custom: client.CustomObjectsApi) -> None:
    """Istio's kinds as most Python programs write them, with their status and their refusals."""
    at = (GROUP, VERSION, "default", ROUTES)
    custom.create_namespaced_custom_object(*at, route("reviews"))
    status = {"status": {"conditions": [{"type": "Ready", "status": "True"}]}, "spec": {"hosts": ["ignored"]}}
    changed = custom.patch_namespaced_custom_object_status(*at, "reviews", status)
    assert (changed["status"], changed["spec"]["hosts"]) == (status["status"], ["reviews"])
    found = custom.get_namespaced_custom_object(*at, "reviews")
    found["spec"]["hosts"] = ["reviews", "ratings"]
    assert custom.replace_namespaced_custom_object(*at, "reviews", found)["metadata"]["generation"] == 2
    with pytest.raises(ApiException) as wrong:
        custom.create_namespaced_custom_object(*at, {**route("bad"), "spec": {"hosts": 3}})
    assert wrong.value.status == 422
    assert "needed a list" in str(wrong.value.body)
    assert len(custom.list_cluster_custom_object(GROUP, VERSION, ROUTES)["items"]) == 1
    custom.delete_namespaced_custom_object(*at, "reviews", propagation_policy="Foreground")


def test_a_watch_and_its_resume(core: client.CoreV1Api) -> None:
    """Added, modified, deleted; a watch from the last version seen goes on without a gap."""
    listed = core.list_namespaced_config_map("default").metadata.resource_version
    core.create_namespaced_config_map("default", config_map("a"))
    core.patch_namespaced_config_map("a", "default", {"data": {"n": "1"}})
    events = watch.Watch()
    seen = []
    for event in events.stream(core.list_namespaced_config_map, "default", resource_version=listed, timeout_seconds=20):
        seen.append((event["type"], event["object"].metadata.name))
        if len(seen) == 2:
            events.stop()
    assert seen == [("ADDED", "a"), ("MODIFIED", "a")]
    since = events.resource_version
    core.delete_namespaced_config_map("a", "default")
    again = watch.Watch()
    for event in again.stream(core.list_namespaced_config_map, "default", resource_version=since, timeout_seconds=20):
        assert (event["type"], event["object"].metadata.name) == ("DELETED", "a")
        again.stop()


def test_a_watch_sees_what_happens_later(core: client.CoreV1Api, custom: client.CustomObjectsApi) -> None:
    """A controller's loop: it waits, somebody writes, it acts."""
    started, seen = threading.Event(), []

    def follow() -> None:
        events = watch.Watch()
        version = custom.list_namespaced_custom_object(GROUP, VERSION, "default", ROUTES)["metadata"]["resourceVersion"]
        started.set()
        for event in events.stream(
            custom.list_namespaced_custom_object, GROUP, VERSION, "default", ROUTES, resource_version=version, timeout_seconds=20
        ):
            seen.append(event["object"]["metadata"]["name"])
            if event["type"] == "DELETED":
                events.stop()

    controller = threading.Thread(target=follow)
    controller.start()
    assert started.wait(20)
    custom.create_namespaced_custom_object(GROUP, VERSION, "default", ROUTES, route("reviews"))
    custom.delete_namespaced_custom_object(GROUP, VERSION, "default", ROUTES, "reviews")
    controller.join(30)
    assert seen == ["reviews", "reviews"]


def test_a_version_that_is_gone_is_410_for_the_watch(short_log: Path) -> None:
    """After long the client is told to list again, in the form in which it looks for it."""
    with config.new_client_from_config(str(short_log)) as one:
        core = client.CoreV1Api(one)
        core.create_namespaced_config_map("default", config_map("a"))
        for number in range(30):
            core.patch_namespaced_config_map("a", "default", {"data": {"n": str(number)}})
        with pytest.raises(ApiException) as gone:
            for _ in watch.Watch().stream(core.list_namespaced_config_map, "default", resource_version="1", timeout_seconds=5):
                pass
        assert gone.value.status == 410
        assert "Expired" in str(gone.value.reason)
        with pytest.raises(ApiException) as listed:
            core.list_namespaced_config_map("default", resource_version="1", resource_version_match="Exact")
        assert listed.value.status == 410
        # What every informer does then.
        newest = core.list_namespaced_config_map("default").metadata.resource_version
        core.delete_namespaced_config_map("a", "default")
        events = watch.Watch()
        for event in events.stream(core.list_namespaced_config_map, "default", resource_version=newest, timeout_seconds=20):
            assert event["type"] == "DELETED"
            events.stop()


def test_the_dynamic_client(api: client.ApiClient) -> None:
    """It knows kinds from discovery alone; server-side apply with its conflict."""
    found = dynamic.DynamicClient(api)
    routes = found.resources.get(api_version=f"{GROUP}/{VERSION}", kind="VirtualService")
    assert routes.short_names == ["vs"]
    body = route("reviews")
    made = routes.server_side_apply(body=body, name="reviews", namespace="default", field_manager="one")
    assert made.metadata.managedFields[0].manager == "one"
    with pytest.raises(dynamic.exceptions.ConflictError):
        routes.server_side_apply(body=route("reviews", "other"), name="reviews", namespace="default", field_manager="two")
    routes.server_side_apply(
        body=route("reviews", "other"), name="reviews", namespace="default", field_manager="two", force_conflicts=True
    )
    assert routes.get(name="reviews", namespace="default").spec.hosts == ["other"]
    maps = found.resources.get(api_version="v1", kind="ConfigMap")
    maps.create(body={"metadata": {"name": "a"}, "data": {"x": "y"}}, namespace="default")
    assert [one.metadata.name for one in maps.get(namespace="default").items] == ["a"]
    for event in maps.watch(namespace="default", timeout=5):
        assert (event["type"], event["object"].metadata.name) == ("ADDED", "a")
        break
    maps.delete(name="a", namespace="default")
    routes.delete(namespace="default", label_selector="app=none")
    assert routes.get(name="reviews", namespace="default")
    routes.delete(name="reviews", namespace="default")
    with pytest.raises(dynamic.exceptions.NotFoundError):
        routes.get(name="reviews", namespace="default")
