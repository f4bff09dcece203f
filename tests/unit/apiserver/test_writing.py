"""Writes over HTTP: options, dry runs, deletes with their policies and preconditions, namespaces that go."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.apiserver import Answer, Raw, Running
from tulle.ports import Key

MAPS = "/api/v1/namespaces/default/configmaps"
SERVICES = "/api/v1/namespaces/default/services"
ROUTES = "/apis/networking.istio.io/v1/namespaces/default/virtualservices"
MERGE, JSON_PATCH, APPLY = "application/merge-patch+json", "application/json-patch+json", "application/apply-patch+yaml"


def config(name: str, **metadata: Any) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, **metadata}, "data": {"a": "b"}}


def route(name: str = "r", **metadata: Any) -> dict[str, Any]:
    spec = {"hosts": [name], "http": [{"route": [{"destination": {"host": name}}]}]}
    return {
        "apiVersion": "networking.istio.io/v1",
        "kind": "VirtualService",
        "metadata": {"name": name, **metadata},
        "spec": spec,
    }


def refused(answer: Answer) -> tuple[int, str]:
    assert answer.body["kind"] == "Status", answer.body
    assert (answer.body["status"], answer.body["code"]) == ("Failure", answer.status)
    return answer.status, answer.body["reason"]


@pytest.mark.parametrize(
    ("method", "query", "field"),
    [
        ("POST", "dryRun=Some", "dryRun"),
        ("POST", "fieldValidation=sometimes", "fieldValidation"),
        ("POST", "fieldManager=" + "x" * 129, "fieldManager"),
        ("POST", "fieldManager=a%0Ab", "fieldManager"),
        ("PATCH", "force=true", "force"),
        ("APPLY", "", "fieldManager"),
    ],
)
async def test_options_that_are_wrong(http: Raw, method: str, query: str, field: str) -> None:
    """An option that is not understood must not be guessed: a dry run that is none changes the mesh."""
    path, type_ = (MAPS, "application/json") if method == "POST" else (f"{MAPS}/a", APPLY if method == "APPLY" else MERGE)
    answer = await http("POST" if method == "POST" else "PATCH", f"{path}?{query}", config("a"), type_)
    assert refused(answer) == (422, "Invalid")
    assert answer.body["details"]["causes"][0]["field"] == field
    assert answer.body["details"]["kind"] == ("CreateOptions" if method == "POST" else "PatchOptions")


async def test_a_dry_run_leaves_nothing(http: Raw, served: Running) -> None:
    """`--dry-run=server` of every verb: no object, no address, no mark, no revision."""
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "cart"},
        "spec": {"ports": [{"port": 80}], "selector": {"app": "cart"}},
    }
    await http("POST", MAPS, config("held", finalizers=["example.com/x"]))
    await http("POST", "/api/v1/namespaces", {"metadata": {"name": "shop"}})

    async def everything() -> list[Any]:
        return [(one.key, one.revision, one.json) for one in (await served.store.list())[0]]

    before = await everything()
    for method, path, body, type_ in (
        ("POST", SERVICES, service, "application/json"),
        ("PATCH", f"{SERVICES}/cart", service, APPLY),
        ("PUT", f"{SERVICES}/cart", service, "application/json"),
        ("PUT", f"{MAPS}/held", config("held"), "application/json"),
        ("PATCH", f"{MAPS}/held", {"data": {"c": "d"}}, MERGE),
        ("DELETE", f"{MAPS}/held", None, ""),
        ("DELETE", MAPS, None, ""),
        ("DELETE", "/api/v1/namespaces/shop", None, ""),
    ):
        answer = await http(method, f"{path}?dryRun=All&fieldManager=x", body, type_)
        assert answer.status in (200, 201), (method, path, answer.body)
    in_body = await http("DELETE", f"{MAPS}/held", {"kind": "DeleteOptions", "apiVersion": "v1", "dryRun": ["All"]})
    assert in_body.status == 200
    assert await everything() == before


async def test_preconditions_of_a_delete(http: Raw) -> None:
    """A controller that means the object it saw must not delete its successor."""
    made = (await http("POST", MAPS, config("a"))).body["metadata"]
    for wanted in ({"uid": "another"}, {"resourceVersion": "1"}):
        answer = await http("DELETE", f"{MAPS}/a", {"preconditions": wanted})
        assert refused(answer) == (409, "Conflict")
        assert "Precondition failed" in answer.body["message"]
    done = await http("DELETE", f"{MAPS}/a", {"preconditions": {"uid": made["uid"], "resourceVersion": made["resourceVersion"]}})
    assert (done.status, done.body["status"], done.body["details"]["uid"]) == (200, "Success", made["uid"])
    assert refused(await http("DELETE", f"{MAPS}/a")) == (404, "NotFound")


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"propagationPolicy": "Sometimes"}, (422, "Invalid")),
        ({"propagationPolicy": "Orphan", "orphanDependents": True}, (422, "Invalid")),
        ({"dryRun": ["Some"]}, (422, "Invalid")),
        ({"gracePeriodSeconds": "x"}, (400, "BadRequest")),
        ({"preconditions": []}, (400, "BadRequest")),
        ({"preconditions": {"uid": 3}}, (400, "BadRequest")),
        ({"orphanDependents": 3}, (400, "BadRequest")),
        ({"kind": "ConfigMap"}, (400, "BadRequest")),
        ([], (400, "BadRequest")),
    ],
)
async def test_delete_options_that_are_wrong(http: Raw, body: Any, expected: tuple[int, str]) -> None:
    """A delete that is read wrongly takes more than was meant."""
    await http("POST", MAPS, config("a"))
    assert refused(await http("DELETE", f"{MAPS}/a", body)) == expected
    assert (await http("GET", f"{MAPS}/a")).status == 200


async def test_finalizers_hold_an_object(http: Raw) -> None:
    """A controller must have its time to clean up, and nobody may make it wait anew."""
    await http("POST", ROUTES, route(finalizers=["example.com/a", "example.com/b"]))
    going = await http("DELETE", f"{ROUTES}/r")
    metadata = going.body["metadata"]
    assert (going.status, metadata["deletionGracePeriodSeconds"], metadata["generation"]) == (200, 0, 2)
    assert metadata["deletionTimestamp"].endswith("Z")
    assert (await http("DELETE", f"{ROUTES}/r")).body["metadata"] == metadata
    again = await http("POST", ROUTES, route())
    assert refused(again) == (409, "AlreadyExists")
    assert "object is being deleted" in again.body["message"]
    more = await http("PATCH", f"{ROUTES}/r", {"metadata": {"finalizers": ["example.com/a", "example.com/c"]}}, MERGE)
    assert refused(more) == (422, "Invalid")
    fewer = await http("PATCH", f"{ROUTES}/r", {"metadata": {"finalizers": ["example.com/a"]}}, MERGE)
    assert fewer.body["metadata"]["deletionTimestamp"] == metadata["deletionTimestamp"]
    assert (await http("PATCH", f"{ROUTES}/r", {"metadata": {"finalizers": None}}, MERGE)).status == 200
    assert (await http("GET", f"{ROUTES}/r")).status == 404


@pytest.mark.parametrize(
    ("options", "finalizer", "status"),
    [
        ({"propagationPolicy": "Foreground"}, "foregroundDeletion", 202),
        ({"propagationPolicy": "Orphan"}, "orphan", 200),
        ({"orphanDependents": True}, "orphan", 200),
    ],
)
async def test_policies_hold_the_owner(http: Raw, options: dict[str, Any], finalizer: str, status: int) -> None:
    """The garbage collector reads from the finalizer what is to become of the dependents."""
    await http("POST", MAPS, config("a"))
    query = "&".join(f"{key}={str(value).lower() if value is True else value}" for key, value in options.items())
    for answer in (await http("DELETE", f"{MAPS}/a", options), await http("DELETE", f"{MAPS}/a?{query}")):
        assert (answer.status, answer.body["metadata"]["finalizers"]) == (status, [finalizer])
    assert (await http("DELETE", f"{MAPS}/a", {"propagationPolicy": "Background"})).body["status"] == "Success"


async def test_deletecollection_deletes_what_is_selected(http: Raw) -> None:
    """`kubectl delete -l` takes these and no others, and the answer lists them."""
    for name in ("a", "b", "c"):
        await http("POST", MAPS, config(name, labels={"keep": "yes" if name == "b" else "no"}))
    gone = await http("DELETE", f"{MAPS}?labelSelector=keep%3Dno")
    assert [item["metadata"]["name"] for item in gone.body["items"]] == ["a", "c"]
    assert [item["metadata"]["name"] for item in (await http("GET", MAPS)).body["items"]] == ["b"]


async def test_a_namespace_waits_for_what_is_held(http: Raw, served: Running) -> None:
    """A finalizer in a namespace holds the namespace: what its controller has to clean up is not forgotten."""
    await http("POST", "/api/v1/namespaces", {"metadata": {"name": "shop"}})
    maps = "/api/v1/namespaces/shop/configmaps"
    await http("POST", maps, config("free"))
    await http("POST", maps, config("held", finalizers=["example.com/x"]))
    going = await http("DELETE", "/api/v1/namespaces/shop")
    assert going.body["status"]["phase"] == "Terminating"
    assert (await http("GET", f"{maps}/free")).status == 404
    assert (await http("GET", f"{maps}/held")).body["metadata"]["deletionTimestamp"]
    told = (await http("GET", "/api/v1/namespaces/shop")).body["status"]["conditions"][0]
    assert (told["type"], "example.com/x" in told["message"]) == ("NamespaceContentRemaining", True)
    new = await http("POST", maps, config("new"))
    assert refused(new) == (403, "Forbidden")
    assert new.body["details"]["causes"][0]["reason"] == "NamespaceTerminating"
    await http("PATCH", f"{maps}/held", {"metadata": {"finalizers": []}}, MERGE)
    assert (await http("DELETE", "/api/v1/namespaces/shop")).body["status"] == "Success"
    assert await served.store.get(Key("namespaces", "", "shop")) is None


async def test_put_makes_only_what_kubernetes_makes(http: Raw) -> None:
    """`kubectl replace` of what is not there is an error, but for the few kinds whose controllers rely on it."""
    assert refused(await http("PUT", f"{MAPS}/a", config("a"))) == (404, "NotFound")
    assert refused(await http("PUT", f"{ROUTES}/r", route(resourceVersion="1"))) == (404, "NotFound")
    lease = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": "l"}, "spec": {}}
    assert (await http("PUT", "/apis/coordination.k8s.io/v1/namespaces/default/leases/l", lease)).status == 201


async def test_generations_count_where_kubernetes_counts(http: Raw) -> None:
    """Tools compare `generation` with `observedGeneration`; Kubernetes' oldest kinds have neither."""
    assert "generation" not in (await http("POST", MAPS, config("a"))).body["metadata"]
    assert (await http("POST", ROUTES, route(generation=7))).body["metadata"]["generation"] == 1


async def test_strict_validation_names_every_field(http: Raw) -> None:
    """`kubectl apply` is strict: 400 as in Kubernetes, with all unknown fields, and what is needed instead."""
    bad = route()
    bad["spec"] |= {"htp": [], "hosst": []}
    answer = await http("POST", f"{ROUTES}?fieldValidation=Strict", bad)
    assert refused(answer) == (400, "BadRequest")
    assert 'strict decoding error: unknown field "spec.htp", unknown field "spec.hosst"' in answer.body["message"]
    assert "did you mean" in answer.body["message"]
    doubled = b'{"metadata":{"name":"d","labels":{"x":"1","x":"2"}},"data":{"k":"1"},"data":{"k":"2"}}'
    answer = await http("POST", f"{MAPS}?fieldValidation=Strict", doubled)
    assert 'duplicate field "metadata.labels.x", duplicate field "data"' in answer.body["message"]
    warned = await http("POST", MAPS, doubled)
    assert warned.warnings == [
        '299 - "duplicate field \\"metadata.labels.x\\""',
        '299 - "duplicate field \\"data\\""',
    ]
    assert warned.body["data"] == {"k": "2"}
    ignored = await http("PUT", f"{MAPS}/d?fieldValidation=Ignore", doubled)
    assert (ignored.status, ignored.warnings) == (200, [])


async def test_warnings_are_bounded(http: Raw) -> None:
    """Clients refuse answers with headers without end, and then the write looks as if it had failed."""
    bad = route()
    bad["spec"] |= {f"unknown{number}{'x' * 60}": 1 for number in range(400)}
    answer = await http("POST", ROUTES, bad)
    assert answer.status == 201
    assert 0 < sum(map(len, answer.warnings)) < 6000


async def test_json_patches_are_bounded(http: Raw) -> None:
    """A small patch must not make a large object, nor take the server's time."""
    await http("POST", MAPS, config("a"))
    many = [{"op": "test", "path": "/data/a", "value": "b"}] * 10_001
    answer = await http("PATCH", f"{MAPS}/a", many, JSON_PATCH)
    assert refused(answer) == (413, "RequestEntityTooLarge")
    assert "10000" in answer.body["message"]
    bomb: list[Any] = [{"op": "add", "path": "/data/x", "value": "x" * 1000}]
    bomb += [{"op": "copy", "from": "/data", "path": f"/data/{number}"} for number in range(40)]
    answer = await http("PATCH", f"{MAPS}/a", bomb, JSON_PATCH)
    assert refused(answer) == (422, "Invalid")
    assert "copies" in answer.body["message"]


async def test_a_patch_of_the_name_is_refused(http: Raw) -> None:
    """An object that changes its name would be another."""
    await http("POST", MAPS, config("a"))
    answer = await http("PATCH", f"{MAPS}/a", [{"op": "replace", "path": "/metadata/name", "value": "b"}], JSON_PATCH)
    assert refused(answer) == (400, "BadRequest")


async def test_status_apply_has_managers_of_its_own(http: Raw) -> None:
    """A controller that applies status shares the object with the person who applies the rest, without conflicts."""
    await http("PATCH", f"{ROUTES}/r?fieldManager=person", route(), APPLY)
    status = {"conditions": [{"type": "Ready", "status": "True"}]}
    observed = {**route(labels={"not": "taken"}), "status": status}
    observed["spec"] = {"hosts": ["ignored"]}
    done = await http("PATCH", f"{ROUTES}/r/status?fieldManager=controller", observed, APPLY)
    assert (done.status, done.body["status"], done.body["spec"]["hosts"]) == (200, status, ["r"])
    assert "labels" not in done.body["metadata"]
    managers = {entry["manager"]: entry for entry in done.body["metadata"]["managedFields"]}
    assert managers["controller"]["subresource"] == "status"
    assert list(managers["controller"]["fieldsV1"]) == ["f:status"]
    assert list(managers["person"]["fieldsV1"]) == ["f:spec"]
    other = {**observed, "status": {"conditions": [{"type": "Ready", "status": "False"}]}}
    conflict = await http("PATCH", f"{ROUTES}/r/status?fieldManager=other", other, APPLY)
    assert refused(conflict) == (409, "Conflict")
    assert 'conflict with "controller" with subresource "status": .status.conditions' in conflict.body["message"]
    again = await http("PATCH", f"{ROUTES}/r?fieldManager=person", route(), APPLY)
    assert again.body["status"] == status


async def test_apply_of_a_list_that_names_an_item_twice(http: Raw) -> None:
    """One of the two would be lost without a word."""
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "cart"},
        "spec": {"ports": [{"port": 80, "name": "a"}, {"port": 80, "protocol": "TCP", "name": "b"}]},
    }
    answer = await http("PATCH", f"{SERVICES}/cart?fieldManager=x", service, APPLY)
    assert refused(answer) == (400, "BadRequest")
    assert '.spec.ports: duplicate entries for key [port=80,protocol="TCP"]' in answer.body["message"]


async def test_apply_with_a_uid_makes_nothing_new(http: Raw) -> None:
    """A controller that means an object which is gone must not make another."""
    answer = await http("PATCH", f"{MAPS}/a?fieldManager=x", config("a", uid="gone"), APPLY)
    assert refused(answer) == (409, "Conflict")
