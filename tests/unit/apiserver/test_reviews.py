"""Reviews: the server's answers to who may what and who is who."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.apiserver import Running
from tests.support.asking import Person, binding, grant, role, rule

ACCESS = "/apis/authorization.k8s.io/v1"
SELF, ANY = f"{ACCESS}/selfsubjectaccessreviews", f"{ACCESS}/subjectaccessreviews"
LOCAL = f"{ACCESS}/namespaces/default/localsubjectaccessreviews"


def resource(verb: str, plural: str, namespace: str = "", group: str = "", **more: str) -> dict[str, Any]:
    return {"resourceAttributes": {"verb": verb, "resource": plural, "namespace": namespace, "group": group} | more}


async def test_may_i(served: Running) -> None:
    """`kubectl auth can-i` must say what a request would meet, for resources, names, subresources and paths."""
    await grant(
        served,
        role("r", rule("get", "core", "services"), rule("get", "core", "secrets", "a"), rule("update", "core", "*/status")),
        binding("r", "r", "User/alice", namespace="default"),
        role("p", rule("get", paths="/tulle/v1/status")),
        binding("p", "p", "User/alice"),
    )
    questions = [
        (resource("get", "services", "default"), True),
        (resource("get", "services"), False),
        (resource("get", "services", "other"), False),
        (resource("*", "services", "default"), False),
        (resource("get", "secrets", "default", name="a"), True),
        (resource("get", "secrets", "default"), False),
        (resource("update", "services", "default", subresource="status"), True),
        (resource("update", "services", "default"), False),
        ({"nonResourceAttributes": {"verb": "get", "path": "/tulle/v1/status"}}, True),
        ({"nonResourceAttributes": {"verb": "post", "path": "/tulle/v1/status"}}, False),
        ({"nonResourceAttributes": {"verb": "get", "path": "/api"}}, True),
    ]
    async with Person(served, "alice") as alice, Person(served, "admin", "system:masters") as admin:
        for spec, expected in questions:
            status, review = await alice.ask("POST", SELF, {"spec": spec})
            assert (status, review["status"]["allowed"]) == (201, expected), spec
            assert review["spec"] == spec
            if expected:
                assert "RBAC: allowed by" in review["status"]["reason"]
            other = {**spec, "user": "alice", "groups": ["system:authenticated"]}
            assert (await admin.ask("POST", ANY, {"spec": other}))[1]["status"]["allowed"] is expected
        assert (await admin.ask("POST", SELF, {"spec": resource("escalate", "clusterroles")}))[1]["status"]["allowed"] is True


async def test_who_may_ask_for_others(served: Running) -> None:
    """Who may what is itself worth knowing: for others only who may create such a review asks."""
    await grant(
        served,
        role("local", rule("create", "authorization.k8s.io", "localsubjectaccessreviews")),
        binding("l", "local", "User/lea", namespace="default"),
    )
    spec = {**resource("get", "secrets", "default"), "groups": ["system:masters"]}
    async with (
        Person(served, "alice") as alice,
        Person(served, "axel", "tulle:auditors") as auditor,
        Person(served, "lea") as lea,
    ):
        assert await alice.status("POST", ANY, {"spec": spec}) == 403
        assert await alice.status("POST", LOCAL, {"spec": spec}) == 403
        assert (await auditor.ask("POST", ANY, {"spec": spec}))[1]["status"]["allowed"] is True
        assert await lea.status("POST", ANY, {"spec": spec}) == 403
        assert (await lea.ask("POST", LOCAL, {"spec": spec}))[1]["status"]["allowed"] is True
        elsewhere = {**resource("get", "secrets", "kube-system"), "user": "x"}
        assert await lea.status("POST", LOCAL, {"spec": elsewhere}) == 422
        assert await lea.status("POST", LOCAL.replace("default", "kube-system"), {"spec": elsewhere}) == 403


async def test_all_that_i_may(served: Running) -> None:
    """`kubectl auth can-i --list`."""
    await grant(served, role("r", rule("get list", "core", "services")), binding("r", "r", "User/alice", namespace="default"))
    path = f"{ACCESS}/selfsubjectrulesreviews"
    async with Person(served, "alice") as alice:
        _, here = await alice.ask("POST", path, {"spec": {"namespace": "default"}})
        _, there = await alice.ask("POST", path, {"spec": {"namespace": "other"}})
        mine = {"verbs": ["get", "list"], "apiGroups": [""], "resources": ["services"]}
        assert mine in here["status"]["resourceRules"]
        assert mine not in there["status"]["resourceRules"]
        assert here["status"]["incomplete"] is False
        assert {"verbs": ["get"], "nonResourceURLs": ["/healthz", "/livez", "/readyz", "/version", "/version/"]} in here[
            "status"
        ]["nonResourceRules"]
        assert await alice.status("POST", path, {"spec": {}}) == 422


@pytest.mark.parametrize(
    ("path", "body", "expected"),
    [
        (SELF, {"spec": {}}, 422),
        (SELF, {}, 422),
        (SELF, [], 400),
        (SELF, {"kind": "Service", "spec": {}}, 400),
        (SELF, {"apiVersion": "authorization.k8s.io/v2", "spec": {}}, 400),
        (SELF, {"spec": {"resourceAttributes": {"verb": 1}}}, 422),
        (SELF, {"spec": {**resource("get", "x"), "nonResourceAttributes": {"path": "/", "verb": "get"}}}, 422),
        (ANY, {"spec": resource("get", "x")}, 422),
        (f"{SELF}?fieldValidation=Strict", {"spec": resource("get", "x"), "later": 1}, 201),
    ],
)
async def test_bad_reviews(served: Running, path: str, body: Any, expected: int) -> None:
    """A review that cannot be read must not be answered as if it could."""
    async with Person(served, "admin", "system:masters") as admin:
        assert await admin.status("POST", path, body) == expected


async def test_reviews_are_asked_and_not_kept(served: Running) -> None:
    """They are in discovery with the verb create alone, described in OpenAPI, and leave nothing in the store."""
    async with Person(served, "admin", "system:masters") as admin:
        _, before = await served.store.list()
        await admin.ask("POST", SELF, {"spec": resource("get", "services")})
        assert (await served.store.list())[1] == before
        _, found = await admin.ask("GET", ACCESS)
        assert {one["name"]: one["verbs"] for one in found["resources"]} == {
            name: ["create"]
            for name in (
                "selfsubjectaccessreviews",
                "subjectaccessreviews",
                "localsubjectaccessreviews",
                "selfsubjectrulesreviews",
            )
        }
        _, core = await admin.ask("GET", "/api/v1")
        token = next(one for one in core["resources"] if one["name"] == "serviceaccounts/token")
        assert (token["kind"], token["group"], token["verbs"]) == ("TokenRequest", "authentication.k8s.io", ["create"])
        for method in ("GET", "PUT", "PATCH", "DELETE"):
            assert await admin.status(method, SELF) == 405
        assert await admin.status("POST", SELF.replace("v1", "v1beta1"), {}) == 404
        _, document = await admin.ask("GET", "/openapi/v3/apis/authorization.k8s.io/v1")
        assert list(document["paths"][SELF]) == ["post"]
