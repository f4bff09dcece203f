"""Bearer tokens: of service accounts and of named users; what is kept of them, and when they end."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.support.apiserver import Running, running
from tests.support.asking import Person, binding, grant, role, rule
from tulle.client.api import ApiClient
from tulle.client.kubeconfig import Kubeconfig, read, with_token
from tulle.control.apiserver.guard import USER
from tulle.control.apiserver.tokens import RESOURCE, ApiTokens, Bound
from tulle.control.asking import IDENTITY
from tulle.control.store.memory import MemoryStore
from tulle.ports import Delete, Key, Put

ACCOUNTS = "/api/v1/namespaces/default/serviceaccounts"
WHOAMI = "/apis/authentication.k8s.io/v1/selfsubjectreviews"


class Clock:
    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


async def test_only_a_hash_is_kept() -> None:
    """Who reads the store (a backup, a disk) must not become its users."""
    store, clock = MemoryStore(), Clock()
    tokens = ApiTokens(store, clock)
    token, number, _ = await tokens.create("alice", ("people",), 60, "admin")
    found, _ = await store.list(RESOURCE)
    kept = json.dumps([one.body for one in found])
    assert token.split(".")[2] not in kept
    assert (found[0].key.name, found[0].body["user"]) == (number, "alice")
    redeemed = await tokens.redeem(token)
    assert redeemed is not None
    assert redeemed[0].name == "alice"
    assert redeemed[0].groups == ("people", "system:authenticated")


async def test_tokens_end() -> None:
    """By their time, by a revocation, with the object that they are bound to: and then for good."""
    store, clock = MemoryStore(), Clock()
    tokens = ApiTokens(store, clock)
    account = Key("serviceaccounts", "default", "robot")
    await store.write([Put(account, {"metadata": {"uid": "u1"}})])
    bound = [Bound("serviceaccounts", "default", "robot", "u1")]
    timed, _, _ = await tokens.create("a", (), 60, "x")
    revoked, number, _ = await tokens.create("b", (), 600, "x")
    held, _, _ = await tokens.create("c", (), 600, "x", bound=bound)
    assert [await tokens.redeem(one) is not None for one in (timed, revoked, held)] == [True, True, True]
    clock.now += 60
    assert await tokens.redeem(timed) is None
    assert await tokens.revoke(number)
    assert not await tokens.revoke(number)
    assert await tokens.redeem(revoked) is None
    await store.write([Put(account, {"metadata": {"uid": "u1", "deletionTimestamp": "now"}})])
    assert await tokens.redeem(held) is None
    await store.write([Delete(account)])
    assert await tokens.redeem(held) is None
    await store.write([Put(account, {"metadata": {"uid": "u2"}})])  # another of the same name
    assert await tokens.redeem(held) is None
    assert await tokens.list() == []
    await tokens.sweep()
    assert not (await store.list(RESOURCE))[0]


async def test_what_is_no_token_is_nobodys() -> None:
    """Anything but the very token that was made must be refused."""
    tokens = ApiTokens(MemoryStore(), Clock())
    token, number, _ = await tokens.create("alice", (), 60, "x")
    other, _, _ = await tokens.create("bob", (), 60, "x")
    secret = token.split(".")[2]
    for wrong in (
        "",
        token + "x",
        token[:-1],
        token.upper(),
        f"tulle-api.{number}.{'A' * 43}",
        f"tulle-api.{'0' * 16}.{secret}",
        f"tulle-api.{other.split('.')[1]}.{secret}",
        f"tulle.{number}.{secret}",
        f"{token}\n",
    ):
        assert await tokens.redeem(wrong) is None, wrong
    assert await tokens.redeem(token, ("elsewhere",)) is None


async def test_a_service_account_with_its_token(served: Running) -> None:
    """`kubectl create token` gives what the service account may, until it is deleted."""
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "robot"}}
    async with Person(served, "admin", "system:masters") as admin:
        assert (await admin.ask("POST", f"{ACCOUNTS}/robot/token", {}))[0] == 404
        assert await admin.status("POST", ACCOUNTS, account) == 201
        status, made = await admin.ask("POST", f"{ACCOUNTS}/robot/token", {"spec": {"expirationSeconds": 600}})
        assert (status, made["kind"], made["apiVersion"]) == (201, "TokenRequest", "authentication.k8s.io/v1")
        assert made["metadata"]["name"] == "robot"
        status, short = await admin.ask("POST", f"{ACCOUNTS}/robot/token", {"spec": {"expirationSeconds": 599}})
        assert (status, "less than 10 minutes" in short["message"]) == (422, True)
        status, dry = await admin.ask("POST", f"{ACCOUNTS}/robot/token?dryRun=All", {})
        assert (status, "token" in dry["status"]) == (201, False)
        async with Person(served, token=made["status"]["token"]) as robot:
            assert await robot.status("GET", "/api/v1/services") == 403
            status, me = await robot.ask("POST", WHOAMI, {})
            info = me["status"]["userInfo"]
            assert info["username"] == "system:serviceaccount:default:robot"
            assert info["groups"] == ["system:serviceaccounts", "system:serviceaccounts:default", "system:authenticated"]
            await grant(served, role("r", rule("list", "core", "services")), binding("r", "r", "default/robot"))
            assert await robot.status("GET", "/api/v1/services") == 200
            assert await admin.status("DELETE", f"{ACCOUNTS}/robot") == 200
            assert await robot.status("GET", "/api/v1/services") == 401
            assert await admin.status("POST", ACCOUNTS, account) == 201
            assert await robot.status("GET", "/api/v1/services") == 401


async def test_bound_to_a_secret(served: Running) -> None:
    """A token that is bound to a Secret ends with it."""
    secrets = "/api/v1/namespaces/default/secrets"
    async with Person(served, "admin", "system:masters") as admin:
        await admin.ask("POST", ACCOUNTS, {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "robot"}})
        body: dict[str, Any] = {"spec": {"boundObjectRef": {"kind": "Secret", "apiVersion": "v1", "name": "s"}}}
        assert (await admin.ask("POST", f"{ACCOUNTS}/robot/token", body))[0] == 404
        await admin.ask("POST", secrets, {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}})
        assert (await admin.ask("POST", f"{ACCOUNTS}/robot/token", {"spec": {"boundObjectRef": {"kind": "Pod", "name": "s"}}}))[
            0
        ] == 422
        body["spec"]["boundObjectRef"]["uid"] = "another"
        assert (await admin.ask("POST", f"{ACCOUNTS}/robot/token", body))[0] == 409
        del body["spec"]["boundObjectRef"]["uid"]
        _, made = await admin.ask("POST", f"{ACCOUNTS}/robot/token", body)
        async with Person(served, token=made["status"]["token"]) as robot:
            assert await robot.status("POST", WHOAMI, {}) == 201
            await admin.ask("DELETE", f"{secrets}/s")
            assert await robot.status("POST", WHOAMI, {}) == 401


async def test_tokens_of_named_users(served: Running) -> None:
    """`tulle apitoken`: made by who may act as that user, listed without the token, and over when revoked."""
    path = "/tulle/v1/apitokens"
    wanted = {"user": "vera", "groups": ["tulle:viewers"], "lifetime": 3600}
    async with Person(served, "admin", "system:masters") as admin, Person(served, "ada", "tulle:admins") as ada:
        status, made = await admin.ask("POST", path, wanted)
        assert (status, made["user"], made["author"]) == (201, "vera", "admin")
        async with Person(served, token=made["token"]) as vera:
            assert await vera.status("GET", "/api/v1/services") == 200
            assert await vera.status("GET", "/api/v1/secrets") == 403
            assert await vera.status("GET", path) == 403
            status, found = await ada.ask("GET", path)
            assert (status, [one["id"] for one in found["tokens"]]) == (200, [made["id"]])
            assert made["token"].split(".")[2] not in json.dumps(found)
            # An administrator of the mesh may not make himself one of the server by a token.
            for other in (wanted, {"user": "ada", "groups": ["system:masters"]}):
                status, refused = await ada.ask("POST", path, other)
                assert (status, "cannot impersonate" in refused["message"]) == (403, True)
            assert await ada.status("DELETE", f"{path}/{made['id']}") == 200
            assert await vera.status("GET", "/api/v1/services") == 401
            assert await ada.status("DELETE", f"{path}/{made['id']}") == 404
        wrong: list[Any] = [
            {"user": ""},
            {"user": "a\nb"},
            {"user": "a", "lifetime": 0},
            {"user": "a", "lifetime": 1e9},
            {"usr": "a"},
            [],
        ]
        for bad in wrong:
            assert await admin.status("POST", path, bad) == 400, bad


async def test_bearer_headers(served: Running) -> None:
    """A header that two readers may read differently, and a token anywhere else than in it, let nobody in."""
    async with Person(served, "admin", "system:masters") as admin:
        _, made = await admin.ask("POST", "/tulle/v1/apitokens", {"user": "root", "groups": ["system:masters"]})
    token = made["token"]
    async with Person(served) as anyone:
        for said in (f"Bearer {token}", f"bearer {token}", f"BEARER  {token} "):
            assert await anyone.status("GET", "/api", headers={"Authorization": said}) == 200, said
        for said in (
            "Bearer",
            "Bearer x",
            token,
            f"Basic {token}",
            f"Bearer {token} {token}",
            f"Bearer {token},",
            f"Bearer {token}é",
        ):
            assert await anyone.status("GET", "/api", headers={"Authorization": said}) == 401, said
            assert await anyone.status("GET", "/healthz", headers={"Authorization": said}) == 401, said
        twice = [("Authorization", f"Bearer {token}"), ("Authorization", "Bearer x")]
        assert await anyone.status("GET", "/api", headers=twice) == 401
        assert await anyone.status("GET", "/api", headers=twice[::-1]) == 401
        for query in (f"access_token={token}", f"token={token}", f"authorization=Bearer%20{token}"):
            assert await anyone.status("GET", f"/api?{query}") == 401
        assert await anyone.status("GET", "/api", cookies={"token": token}) == 401
        assert await anyone.status("GET", "/api", headers={"Proxy-Authorization": f"Bearer {token}"}) == 401
    # As with Kubernetes, a certificate is looked at first, and then alone.
    async with Person(served, "alice", token=token) as alice:
        _, me = await alice.ask("POST", WHOAMI, {})
        assert me["status"]["userInfo"]["username"] == "alice"


async def test_token_review(served: Running) -> None:
    """Another server asks whose a token is; who may not ask learns nothing, and nobody is told the token again."""
    path = "/apis/authentication.k8s.io/v1/tokenreviews"
    await grant(served, binding("d", "system:auth-delegator", "User/gate"))
    async with (
        Person(served, "admin", "system:masters") as admin,
        Person(served, "gate") as gate,
        Person(served, "alice") as alice,
    ):
        _, made = await admin.ask("POST", "/tulle/v1/apitokens", {"user": "vera", "groups": ["a"]})
        body = {"spec": {"token": made["token"]}}
        status, review = await gate.ask("POST", path, body)
        assert (status, review["status"]["authenticated"], review["status"]["user"]["username"]) == (201, True, "vera")
        assert review["status"]["audiences"] == ["tulle"]
        assert made["token"] not in json.dumps(review)
        _, review = await gate.ask("POST", path, {"spec": {"token": made["token"], "audiences": ["other"]}})
        assert review["status"]["authenticated"] is False
        _, review = await gate.ask("POST", path, {"spec": {"token": "x"}})
        assert review["status"]["authenticated"] is False
        assert await alice.status("POST", path, body) == 403


async def test_the_client_uses_a_token(served: Running, tmp_path: Any) -> None:
    """`tulle apitoken create -o kubeconfig` gives a file that `tulle` and kubectl take."""
    async with Person(served, "admin", "system:masters") as admin:
        _, made = await admin.ask("POST", "/tulle/v1/apitokens", {"user": "vera", "groups": ["tulle:viewers"]})
    config = Kubeconfig(served.url, served.ca.pem, b"", b"")
    (tmp_path / "vera").write_text(with_token(config, made["token"], "vera"))
    async with ApiClient.from_kubeconfig(tmp_path / "vera") as api:
        assert (await api.request("GET", "/api/v1/services"))["kind"] == "ServiceList"
    assert made["token"] not in repr(read(tmp_path / "vera"))
    (tmp_path / "token").write_text(made["token"] + "\n")
    text = (tmp_path / "vera").read_text().replace(f'token: "{made["token"]}"', "tokenFile: token")
    (tmp_path / "file").write_text(text)
    async with ApiClient.from_kubeconfig(tmp_path / "file") as api:
        assert (await api.request("GET", "/api/v1/services"))["kind"] == "ServiceList"


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"Impersonate-User": "bob"}, ("bob", ["system:authenticated"])),
        ({"Impersonate-User": "bob", "Impersonate-Group": "people"}, ("bob", ["people", "system:authenticated"])),
        (
            {"Impersonate-User": "system:serviceaccount:a:b"},
            ("system:serviceaccount:a:b", ["system:serviceaccounts", "system:serviceaccounts:a", "system:authenticated"]),
        ),
        ({"Impersonate-User": "carl"}, 403),
        ({"Impersonate-User": "bob", "Impersonate-Group": "system:masters"}, 403),
        ({"Impersonate-User": "bob", "Impersonate-Uid": "1"}, ("bob", ["system:authenticated"])),
        ({"Impersonate-User": "bob", "Impersonate-Uid": "2"}, 403),
        ({"Impersonate-User": "bob", "Impersonate-Extra-scopes": "view"}, ("bob", ["system:authenticated"])),
        ({"Impersonate-User": "bob", "Impersonate-Extra-Scopes": "all"}, 403),
        ({"Impersonate-Group": "people"}, 400),
        ({"Impersonate-Extra-scopes": "view"}, 400),
        ({"Impersonate-User": ""}, 400),
    ],
)
async def test_impersonation(served: Running, headers: dict[str, str], expected: Any) -> None:
    """`kubectl --as` needs the right on everything that the other user has; half a wish is an error, not the caller himself."""
    await grant(
        served,
        role(
            "as",
            rule("impersonate", "core", "users", "bob"),
            rule("impersonate", "core", "groups", "people"),
            rule("impersonate", "core", "serviceaccounts"),
            rule("impersonate", "authentication.k8s.io", "uids", "1"),
            rule("impersonate", "authentication.k8s.io", "userextras/scopes", "view"),
        ),
        binding("as", "as", "User/alice"),
    )
    async with Person(served, "alice") as alice:
        status, me = await alice.ask("POST", WHOAMI, {}, headers=headers)
        if isinstance(expected, int):
            assert status == expected
        else:
            info = me["status"]["userInfo"]
            assert (info["username"], info["groups"]) == expected
            assert bool(info.get("uid")) is ("Impersonate-Uid" in headers)
            assert bool(info.get("extra")) is any("Extra" in name for name in headers)


async def test_who_acts_as_another_has_the_others_rights_alone() -> None:
    """Not the sum of both; and not the caller's certificate, with which a node would get others' certificates."""
    from aiohttp import web

    async def who(request: web.Request) -> web.Response:
        return web.json_response([request[USER].name, request[USER].author, request[IDENTITY] or None])

    extra = web.Application()
    extra.router.add_get("/who", who)
    async with running(open_apps={"/identity/v1": extra}) as served:
        await grant(served, role("as", rule("impersonate", "core", "users")), binding("as", "as", "Group/system:nodes"))
        async with Person(served, uris=["spiffe://cluster.local/node/n1"]) as node:
            as_bob = {"Impersonate-User": "bob"}
            assert await node.ask("GET", "/identity/v1/who", headers=as_bob) == (200, ["bob", "bob (by system:node:n1)", None])
            assert await node.status("GET", "/api/v1/services") == 200
            assert await node.status("GET", "/api/v1/services", headers=as_bob) == 403
