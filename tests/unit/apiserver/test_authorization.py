"""Who may what, asked over HTTP: roles, bindings, escalation, nodes, shipped roles, aggregation."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.apiserver import Running, running
from tests.support.asking import RBAC, Person, binding, grant, path_of, role, rule
from tulle.api.registry import KINDS
from tulle.control.apiserver.auth import Attributes, User
from tulle.control.apiserver.authorizer import RbacAuthorizer
from tulle.control.apiserver.rbac import CLUSTER_ROLES
from tulle.control.apiserver.roles import AUTOUPDATE, reconcile, shipped
from tulle.control.store.memory import MemoryStore
from tulle.kit.errors import Unavailable
from tulle.ports import Key, Put

SECRETS = "/api/v1/namespaces/default/secrets"
ROUTES = "/apis/networking.istio.io/v1/namespaces/default/virtualservices"
ENTRIES = "/apis/networking.istio.io/v1/namespaces/default/workloadentries"


def route(name: str) -> dict[str, Any]:
    spec = {"hosts": ["a"], "http": [{"route": [{"destination": {"host": "a"}}]}]}
    return {"apiVersion": "networking.istio.io/v1", "kind": "VirtualService", "metadata": {"name": name}, "spec": spec}


def secret(name: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "data": {"k": "eA=="}}


async def test_nothing_is_allowed_that_no_role_grants(served: Running) -> None:
    """A person with a certificate and no role sees discovery and nothing of the mesh, and learns which right is lacking."""
    async with Person(served, "alice", "people") as alice:
        for path in ("/api", "/apis", "/api/v1", "/openapi/v3", "/openapi/v2", "/version", "/"):
            assert await alice.status("GET", path) == 200, path
        for kind in KINDS:
            root = f"/apis/{kind.group}" if kind.group else "/api"
            assert await alice.status("GET", f"{root}/{kind.versions[0]}/{kind.plural}") == 403, kind
        status, body = await alice.ask("GET", SECRETS)
        assert (status, body["reason"]) == (403, "Forbidden")
        assert body["message"] == (
            'secrets "" is forbidden: User "alice" cannot list resource "secrets" in API group "" in the namespace "default"'
        )
        assert body["details"]["kind"] == "secrets"
        assert await alice.status("POST", SECRETS, secret("a")) == 403
        status, body = await alice.ask("GET", "/tulle/v1/status")
        assert (status, body["message"]) == (403, 'User "alice" cannot get path "/tulle/v1/status"')


async def test_shipped_roles_do_what_they_say(served: Running) -> None:
    """Four roles for four sorts of people: each may its own, and none may more."""
    await grant(
        served,
        binding("a", "admin", "User/ada"),
        binding("o", "operator", "User/otto"),
        binding("v", "viewer", "User/vera"),
    )
    async with Person(served, "admin", "system:masters") as masters:
        await masters.ask("POST", SECRETS, secret("s"))
        await masters.ask("POST", ROUTES, route("r"))
    read = ("GET", f"{ROUTES}/r")
    write = ("PATCH", f"{ROUTES}/r?fieldManager=x")
    secrets = ("GET", f"{SECRETS}/s")
    roles = ("GET", f"/apis/{RBAC}/v1/clusterroles")
    accounts = ("DELETE", "/api/v1/namespaces/default/serviceaccounts/x")
    policies = ("DELETE", "/apis/security.istio.io/v1/namespaces/default/peerauthentications/x")
    entries = ("DELETE", f"{ENTRIES}/x")
    may = {
        ("ada", ()): (read, write, secrets, roles, accounts, policies, entries),
        ("otto", ()): (read, write),
        ("vera", ()): (read,),
        ("axel", ("tulle:auditors",)): (read, roles),
        ("olga", ("tulle:operators",)): (read, write),
    }
    for (name, groups), allowed in may.items():
        async with Person(served, name, *groups) as person:
            for method, path in (read, write, secrets, roles, accounts, policies, entries):
                options: dict[str, Any] = {}
                if method == "PATCH":
                    options = {"data": "{}", "headers": {"Content-Type": "application/merge-patch+json"}}
                status = await person.status(method, path, **options)
                assert (status != 403) is ((method, path) in allowed), (name, method, path, status)
            assert await person.status("GET", "/tulle/v1/nothing") == (404 if name in ("ada", "axel") else 403)


async def test_a_right_holds_from_the_binding_to_its_end(served: Running) -> None:
    """A right that outlives its binding is nobody's to take away."""
    await grant(
        served, role("reader", rule("get list", "core", "secrets")), binding("b", "reader", "User/alice", namespace="default")
    )
    async with Person(served, "alice") as alice, Person(served, "admin", "system:masters") as admin:
        assert await alice.status("GET", SECRETS) == 200
        assert await alice.status("GET", "/api/v1/secrets") == 403
        assert await alice.status("GET", "/api/v1/namespaces/kube-system/secrets") == 403
        # A watch is a right of its own, however it is asked for.
        for query in ("watch=1", "watch=true", "watch=true&watch=false"):
            assert await alice.status("GET", f"{SECRETS}?{query}&timeoutSeconds=1") in (403, 400), query
        assert await admin.status("DELETE", f"/apis/{RBAC}/v1/namespaces/default/rolebindings/b") == 200
        while await alice.status("GET", SECRETS) != 403:
            pass


async def test_names_of_resources(served: Running) -> None:
    """A right on one Secret must not show another: not by a list, not by a watch, not by a create."""
    await grant(
        served,
        role("one", rule("get list watch create update delete deletecollection", "core", "secrets", "a")),
        binding("one", "one", "User/alice", namespace="default"),
    )
    async with Person(served, "admin", "system:masters") as admin, Person(served, "alice") as alice:
        for name in ("a", "b"):
            assert await admin.status("POST", SECRETS, secret(name)) == 201
        assert await alice.status("GET", f"{SECRETS}/a") == 200
        assert await alice.status("GET", f"{SECRETS}/b") == 403
        assert await alice.status("GET", SECRETS) == 403
        status, found = await alice.ask("GET", f"{SECRETS}?fieldSelector=metadata.name%3Da")
        assert (status, [one["metadata"]["name"] for one in found["items"]]) == (200, ["a"])
        for selector in ("metadata.name%3Db", "metadata.name!%3Da", "type%3DOpaque", "metadata.name%3Db,metadata.name%3Da"):
            status, found = await alice.ask("GET", f"{SECRETS}?fieldSelector={selector}")
            assert status == 403 or not found["items"], selector
        assert await alice.status("POST", SECRETS, secret("c")) == 403
        assert await alice.status("DELETE", SECRETS) == 403
        assert await alice.status("DELETE", f"{SECRETS}?fieldSelector=metadata.name%3Da") == 200
        assert await admin.status("GET", f"{SECRETS}/a") == 404
        assert await admin.status("GET", f"{SECRETS}/b") == 200


async def test_an_apply_that_creates_needs_the_right_to_create(served: Running) -> None:
    """With `patch` alone nobody may make objects."""
    await grant(served, role("p", rule("patch", "networking.istio.io", "virtualservices")), binding("p", "p", "User/alice"))
    options: dict[str, Any] = {"headers": {"Content-Type": "application/apply-patch+yaml"}}
    async with Person(served, "alice") as alice:
        status, body = await alice.ask("PATCH", f"{ROUTES}/r?fieldManager=x", route("r"), **options)
        assert (status, "cannot create" in body["message"]) == (403, True)
        async with Person(served, "admin", "system:masters") as admin:
            assert await admin.status("POST", ROUTES, route("r")) == 201
        assert await alice.status("PATCH", f"{ROUTES}/r?fieldManager=x&force=true", route("r"), **options) == 200


async def test_nobody_grants_what_he_has_not(served: Running) -> None:
    """Who may write roles and bindings may not become an administrator by it; `escalate` and `bind` say who may."""
    kinds = "roles rolebindings clusterroles clusterrolebindings"
    verbs = "get list create update patch delete"
    await grant(
        served,
        role("writer", rule(verbs, RBAC, kinds), rule("get", "core", "services")),
        binding("w", "writer", "User/eve"),
        role("escalator", rule(f"{verbs} escalate", RBAC, "clusterroles", "mine"), rule("create", RBAC, "clusterroles")),
        binding("e", "escalator", "User/max"),
        role("binder", rule("create", RBAC, "clusterrolebindings"), rule("bind", RBAC, "clusterroles", "viewer")),
        binding("bi", "binder", "User/bea"),
    )
    wide, narrow = rule("*", "*", "*"), rule("get", "core", "services")
    async with Person(served, "eve") as eve, Person(served, "max") as max_, Person(served, "bea") as bea:
        for body in (
            role("x", wide),
            role("x", rule("get", "core", "secrets"), namespace="default"),
            role("x", aggregationRule={"clusterRoleSelectors": [{"matchLabels": {"a": "b"}}]}),
            binding("x", "cluster-admin", "User/eve"),
            binding("x", "admin", "User/eve", namespace="default"),
            binding("x", "escalator", "User/eve"),
        ):
            status, answer = await eve.ask("POST", path_of(body), body)
            assert (status, answer["reason"]) == (403, "Forbidden"), body
            assert "eve" in answer["message"]
        assert await eve.status("POST", path_of(role("x")), role("x", narrow)) == 201
        # Not in steps either: by an update, by a patch, by an apply, by a label that another role gathers.
        assert await eve.status("PUT", path_of(role("x"), named=True), role("x", wide)) == 403
        for kind, data in (
            ("application/merge-patch+json", {"rules": [wide]}),
            ("application/json-patch+json", [{"op": "add", "path": "/rules/-", "value": wide}]),
            ("application/apply-patch+yaml", role("x", wide)),
        ):
            options: dict[str, Any] = {"headers": {"Content-Type": kind}}
            path = f"{path_of(role('x'), named=True)}?fieldManager=y" + ("&force=true" if "apply" in kind else "")
            assert await eve.status("PATCH", path, data, **options) == 403, kind
        assert (
            await eve.status("PUT", path_of(role("writer"), named=True), role("writer", rule(verbs, RBAC, kinds), narrow)) == 200
        )
        assert await eve.status("PUT", path_of(role("viewer"), named=True), role("viewer", narrow)) == 200
        bound = binding("x", "x", "User/eve")
        assert await eve.status("POST", path_of(bound), bound) == 201
        status, answer = await eve.ask("PUT", path_of(bound, named=True), binding("x", "cluster-admin", "User/eve"))
        assert (status, "cannot change roleRef" in answer["message"]) == (422, True)
        missing = binding("y", "nothing", "User/eve")
        assert await eve.status("POST", path_of(missing), missing) == 404
        assert await max_.status("POST", path_of(role("mine")), role("mine", wide)) == 403  # a create has no name yet
        assert await eve.status("POST", path_of(role("mine")), role("mine", narrow)) == 201
        assert await max_.status("PUT", path_of(role("mine"), named=True), role("mine", wide)) == 200
        assert await max_.status("PUT", path_of(role("x"), named=True), role("x", wide)) == 403
        seen = binding("z", "viewer", "User/bea")
        assert await bea.status("POST", path_of(seen), seen) == 201
        more = binding("z2", "admin", "User/bea")
        assert await bea.status("POST", path_of(more), more) == 403


async def test_an_administrator_of_the_mesh_is_none_of_the_server(served: Running) -> None:
    """`admin` gives away what it has, and neither makes itself `cluster-admin` nor acts as another."""
    await grant(served, binding("a", "admin", "User/ada"))
    async with Person(served, "ada") as ada:
        given = binding("x", "operator", "User/otto")
        assert await ada.status("POST", path_of(given), given) == 201
        for body in (binding("y", "cluster-admin", "User/ada"), role("z", rule("impersonate", "core", "users"))):
            assert await ada.status("POST", path_of(body), body) == 403
        assert await ada.status("GET", SECRETS, headers={"Impersonate-User": "x"}) == 403


async def test_a_node_writes_its_own(served: Running) -> None:
    """A node that is broken into must not take over other nodes' workloads, or people's Services."""

    def entry(name: str, node: str | None) -> dict[str, Any]:
        metadata: dict[str, Any] = {"name": name} | ({"annotations": {"tulle.dev/node": node}} if node else {})
        return {
            "apiVersion": "networking.istio.io/v1",
            "kind": "WorkloadEntry",
            "metadata": metadata,
            "spec": {"address": "10.0.0.1"},
        }

    def service(name: str, made: bool) -> dict[str, Any]:
        metadata: dict[str, Any] = {"name": name} | ({"annotations": {"tulle.dev/made-by-node": "true"}} if made else {})
        return {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": {"ports": [{"port": 80}]}}

    async def replaced(person: Person, body: dict[str, Any]) -> int:
        path = f"{ENTRIES}/{body['metadata']['name']}"
        _, standing = await person.ask("GET", path)
        body["metadata"]["resourceVersion"] = standing["metadata"]["resourceVersion"]
        return await person.status("PUT", path, body)

    services = "/api/v1/namespaces/default/services"
    merge: dict[str, Any] = {"headers": {"Content-Type": "application/merge-patch+json"}}
    n1, n2 = ["spiffe://cluster.local/node/n1"], ["spiffe://cluster.local/node/n2"]
    async with (
        Person(served, uris=n1) as one,
        Person(served, uris=n2) as two,
        Person(served, "admin", "system:masters") as admin,
    ):
        assert await one.status("POST", ENTRIES, entry("w1", "n1")) == 201
        assert await two.status("POST", ENTRIES, entry("w2", "n2")) == 201
        assert await admin.status("POST", ENTRIES, entry("hand", None)) == 201
        ready = {"metadata": {"annotations": {"tulle.dev/ready": "true"}}}
        assert await one.status("PATCH", f"{ENTRIES}/w1", ready, **merge) == 200
        status, body = await one.ask("PATCH", f"{ENTRIES}/w2", ready, **merge)
        assert (status, "node n1 may write its own WorkloadEntries only" in body["message"]) == (403, True)
        assert await one.status("POST", ENTRIES, entry("w3", "n2")) == 403
        assert await one.status("POST", ENTRIES, entry("w3", None)) == 403
        for name in ("w2", "hand"):
            assert await replaced(one, entry(name, "n1")) == 403  # taken over
            assert await one.status("DELETE", f"{ENTRIES}/{name}") == 403
        assert await replaced(one, entry("w1", "n2")) == 403  # given away
        assert await replaced(one, entry("w1", "n1")) == 200
        assert await one.status("DELETE", ENTRIES) == 403  # all at once
        options: dict[str, Any] = {"headers": {"Content-Type": "application/apply-patch+yaml"}}
        assert await one.status("PATCH", f"{ENTRIES}/w2?fieldManager=x&force=true", entry("w2", "n1"), **options) == 403
        assert await one.status("DELETE", f"{ENTRIES}/w1") == 200
        assert await admin.status("GET", f"{ENTRIES}/w2") == 200

        assert await one.status("POST", services, service("mine", True)) == 201
        assert await two.status("GET", f"{services}/mine") == 200
        assert await two.status("DELETE", f"{services}/mine") == 200  # with the last workload, whichever node's it was
        assert await admin.status("POST", services, service("cart", False)) == 201
        assert await one.status("PUT", f"{services}/cart", service("cart", True)) == 403
        assert await one.status("DELETE", f"{services}/cart") == 403
        assert await one.status("POST", services, service("other", False)) == 403
        account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "robot"}}
        assert await one.status("POST", "/api/v1/namespaces/default/serviceaccounts", account) == 201
        for method, path in (
            ("GET", SECRETS),
            ("GET", ROUTES),
            ("DELETE", "/api/v1/namespaces/default/serviceaccounts/robot"),
            ("GET", "/tulle/v1/proxies"),
            ("POST", "/tulle/v1/tokens"),
            ("GET", f"/apis/{RBAC}/v1/clusterroles"),
        ):
            assert await one.status(method, path, {} if method == "POST" else None) == 403, path
        assert await one.status("GET", "/tulle/v1/synced") == 404  # allowed, and not mounted here


async def test_a_node_writes_what_its_join_token_names() -> None:
    """A node that joined for one team must not put workloads of its own behind another team's Services."""

    async def identities(node: str) -> tuple[str, ...] | None:
        return {"n1": ("default/web*", "shop-*/*"), "n2": ("*/*",)}.get(node)

    def entry(node: str, account: str) -> dict[str, Any]:
        metadata: dict[str, Any] = {"generateName": "w-", "annotations": {"tulle.dev/node": node}}
        spec = {"address": "10.0.0.1"} | ({"serviceAccount": account} if account else {})
        return {"apiVersion": "networking.istio.io/v1", "kind": "WorkloadEntry", "metadata": metadata, "spec": spec}

    async with running(identities=identities) as served, Person(served, "admin", "system:masters") as admin:
        for name in ("shop-a", "bank"):
            await admin.ask("POST", "/api/v1/namespaces", {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
        made = {"tulle.dev/made-by-node": "true"}
        for node, namespace, account, expected in (
            ("n1", "default", "web", 201),
            ("n1", "default", "web-2", 201),
            ("n1", "default", "api", 403),
            ("n1", "default", "", 403),
            ("n1", "shop-a", "anything", 201),
            ("n1", "bank", "web", 403),
            ("n2", "bank", "", 201),
            ("unknown", "default", "web", 403),
        ):
            async with Person(served, uris=[f"spiffe://cluster.local/node/{node}"]) as person:
                status, body = await person.ask("POST", ENTRIES.replace("default", namespace), entry(node, account))
                assert status == expected, (node, namespace, account, body)
                if account and expected == 201:
                    path = f"{ENTRIES.replace('default', namespace)}/{body['metadata']['name']}"
                    merge: dict[str, Any] = {"headers": {"Content-Type": "application/merge-patch+json"}}
                    changed = await person.status("PATCH", path, {"spec": {"serviceAccount": "root"}}, **merge)
                    assert changed == (403 if namespace == "default" else 200)
                    assert await person.status("DELETE", path) == 200
                robot = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": account or "default-2"}}
                got = await person.status("POST", f"/api/v1/namespaces/{namespace}/serviceaccounts", robot)
                assert (got == 403) is (expected == 403), (node, namespace, account)
        async with Person(served, uris=["spiffe://cluster.local/node/n1"]) as one:
            for namespace, expected in (("shop-a", 201), ("bank", 403)):
                service = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s", "annotations": made}}
                path = f"/api/v1/namespaces/{namespace}/services"
                assert await one.status("POST", path, service | {"spec": {"ports": [{"port": 80}]}}) == expected


async def test_workloads_are_their_service_accounts(served: Running) -> None:
    """A workload's certificate is its service account's: it opens what is bound to that, and nothing by a name in its subject."""
    account = ["spiffe://cluster.local/ns/default/sa/robot"]
    async with Person(served, "admin", "system:masters", uris=account) as robot:
        assert await robot.status("GET", SECRETS) == 403
        await grant(served, role("r", rule("list", "core", "secrets")), binding("r", "r", "default/robot"))
        assert await robot.status("GET", SECRETS) == 200
    async with Person(served, uris=["spiffe://other.domain/ns/default/sa/robot"]) as foreign:
        assert await foreign.status("GET", SECRETS) == 401


async def test_shipped_objects_mend_themselves_and_keep_what_people_add() -> None:
    """A release that needs a new right gets it; a person's own addition, and a role that is left alone on purpose, stay."""
    store = MemoryStore()
    await reconcile(store, KINDS, 0.0)
    _, first = await store.list()
    await reconcile(store, KINDS, 1.0)
    assert (await store.list())[1] == first, "nothing lacked, and something was written"

    async def change(name: str, **fields: Any) -> None:
        stored = await store.get(Key(CLUSTER_ROLES, "", name))
        assert stored is not None
        await store.write([Put(stored.key, {**stored.body, **fields})])

    own = rule("get", "example.com", "things")
    await change("viewer", rules=[own])
    stored = await store.get(Key(CLUSTER_ROLES, "", "operator"))
    assert stored is not None
    alone = {**stored.body["metadata"], "annotations": {AUTOUPDATE: "false"}}
    await change("operator", rules=[], metadata=alone)
    await reconcile(store, KINDS, 2.0)
    authorizer = RbacAuthorizer(store)
    await authorizer.load()
    vera, otto = User("v", ("tulle:viewers",)), User("o", ("tulle:operators",))
    asked = Attributes("list", "networking.istio.io", "virtualservices")
    assert (await authorizer.allowed(vera, asked)).allowed
    assert (await authorizer.allowed(vera, Attributes("get", "example.com", "things", name="x"))).allowed
    assert not (await authorizer.allowed(otto, asked)).allowed


def test_every_kind_is_somebodys() -> None:
    """A kind that is added must be readable by viewers and auditors without a further line, and a Secret by neither."""
    bodies = shipped(KINDS)
    for name in ("viewer", "auditor"):
        rules = bodies[Key(CLUSTER_ROLES, "", name)]["rules"]
        for kind in KINDS:
            readable = any(
                kind.group in one.get("apiGroups", ()) and kind.plural in one["resources"] and "list" in one["verbs"]
                for one in rules
            )
            assert readable is (kind.plural != "secrets" and (name == "auditor" or kind.group != RBAC)), (name, kind)
        assert not any("*" in one.get("resources", ()) for one in rules)


async def test_aggregated_roles_show_their_rules(served: Running) -> None:
    """`kubectl get clusterrole -o yaml` shows what an aggregated role grants; it follows the roles that it is made of."""
    gathered = {
        "clusterRoleSelectors": [{"matchLabels": {"to": "all"}}, {"matchExpressions": [{"key": "also", "operator": "Exists"}]}]
    }
    first = role("first", rule("get", "core", "secrets"))
    first["metadata"]["labels"] = {"to": "all"}
    async with Person(served, "admin", "system:masters") as admin, Person(served, "alice") as alice:
        await grant(served, role("whole", aggregationRule=gathered), first, binding("w", "whole", "User/alice"))

        async def rules(count: int) -> list[Any]:
            while True:
                _, found = await admin.ask("GET", path_of(role("whole"), named=True))
                if len(found.get("rules") or []) == count:
                    return list(found.get("rules") or [])

        assert await rules(1) == [rule("get", "core", "secrets")]
        second = role("second", rule("list", "core", "secrets"))
        second["metadata"]["labels"] = {"also": ""}
        await grant(served, second)
        await rules(2)
        while await alice.status("GET", SECRETS) != 200:
            pass
        await admin.ask("DELETE", path_of(second, named=True))
        await rules(1)


async def test_before_the_roles_are_read_nobody_gets_in() -> None:
    """A server that answers while it does not know yet who may what must refuse."""
    authorizer = RbacAuthorizer(MemoryStore())
    with pytest.raises(Unavailable):
        await authorizer.allowed(User("alice"), Attributes("get", "", "services"))
    assert (await authorizer.allowed(User("root", ("system:masters",)), Attributes("get", "", "services"))).allowed


async def test_the_table_survives_a_compacted_watch() -> None:
    """A busy store forgets events: what was missed meanwhile must be read, not guessed."""
    async with running(MemoryStore(log=10)) as served, Person(served, "alice") as alice:
        assert await alice.status("GET", SECRETS) == 403
        for body in (role("r", rule("list", "core", "secrets")), binding("r", "r", "User/alice")):
            await served.store.write([Put(Key(f"{body['kind'].lower()}s.{RBAC}", "", "r"), body)])
        for number in range(60):  # the server's watch has no turn in between
            await served.store.write([Put(Key("configmaps", "default", f"c{number}"), {"metadata": {"name": f"c{number}"}})])
        while await alice.status("GET", SECRETS) != 200:
            pass
