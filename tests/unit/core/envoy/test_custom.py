"""AuthorizationPolicy with the action CUSTOM as a real Envoy keeps it: who is asked, what he is told, what his word does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.support.authorizer import ASKED, SPEAKS, authorizing
from tests.support.guarded import Guarded, guarded, guarded_gateway, policy
from tests.support.mesh import free_port
from tests.unit.core.compile.mesh import obj
from tests.unit.core.envoy.test_tokens import OURS, bearer, believes
from tulle.api.object import Object

FRIEND = "authorization: Bearer friend"
A, FRIENDS = (f"spiffe://cluster.local/ns/default/sa/{name}" for name in ("a", "friend"))


def asks(name: str, *operations: dict[str, Any], namespace: str = "default", **more: Any) -> Object:
    """A policy that asks a provider for these operations (none named: for all)."""
    rule: dict[str, Any] = {"to": [{"operation": one} for one in operations]} if operations else {}
    spec = {"action": "CUSTOM", "provider": {"name": name}, "rules": [{**rule, **more}]}
    return policy(f"asks-{name}", spec, namespace)


class Authorizers:
    """Where the authorizer is, and the MeshConfig that says so."""

    def __init__(self) -> None:
        self.http, self.grpc = free_port(), free_port()

    def objects(self, http: dict[str, Any] | None = None, grpc: dict[str, Any] | None = None) -> list[Object]:
        """Its service, and the providers `http` and `grpc`, and `away`, which nobody is."""
        ports = [
            {"number": self.http, "name": "http", "protocol": "HTTP"},
            {"number": self.grpc, "name": "g", "protocol": "GRPC"},
        ]
        entry = {"hosts": ["authz.local"], "ports": ports, "resolution": "STATIC", "endpoints": [{"address": "127.0.0.1"}]}
        asked: list[dict[str, Any]] = [
            {"name": "http", "envoyExtAuthzHttp": {"service": "authz.local", "port": self.http, **(http or {})}},
            {"name": "grpc", "envoyExtAuthzGrpc": {"service": "authz.local", "port": self.grpc, **(grpc or {})}},
            {"name": "away", "envoyExtAuthzHttp": {"service": "nobody.local", "port": 80}},
        ]
        metadata = {"name": "authz", "namespace": "tulle-system"}
        return [
            obj({"apiVersion": "networking.istio.io/v1", "kind": "ServiceEntry", "metadata": metadata, "spec": entry}),
            obj(
                {
                    "apiVersion": "tulle.dev/v1alpha1",
                    "kind": "MeshConfig",
                    "metadata": {"name": "mesh"},
                    "spec": {"extensionProviders": asked},
                }
            ),
        ]


async def whole(web: Guarded, path: str, *lines: str, identity: str = "", method: str = "GET", body: str = "") -> tuple[int, str]:
    """The status, and all of the answer."""
    head = (f"{method} {path} HTTP/1.1", "host: web", *lines, *((f"content-length: {len(body)}",) if body else ()))
    status, answer = await web.raw(("\r\n".join((*head, "", "")) + body).encode(), identity)
    return status, answer.decode()


def told(answer: str) -> dict[str, Any]:
    """What the authorizer was told."""
    line = next(one for one in answer.splitlines() if one.lower().startswith("x-told: "))
    said: dict[str, Any] = json.loads(line[8:])
    return said


async def test_asked_where_rules_match(tmp_path: Path) -> None:
    """Broken: requests would pass that the authorizer refuses, he be asked about everything, or be overruled."""
    where = Authorizers()
    async with authorizing(where.http, where.grpc), guarded(tmp_path) as web:
        for name in ("http", "grpc"):
            only = asks(name, {"paths": ["/admin*"]})
            await web.apply(*where.objects({"headersToUpstreamOnAllow": ["x-told"]}), only)
            ASKED.clear()
            assert [await web.get(path, A) for path in ("/", "/x/admin", "/admin", "//admin", "/%2fadmin")] == [
                200,
                200,
                *[401] * 3,
            ]
            assert len(ASKED) == 3
            assert {one.split()[0] for one in ASKED} == {name}
            assert await web.get("/admin", A, 0, FRIEND) == 200
            await web.apply(*where.objects(), only, policy("no", {"action": "DENY", "rules": [{}]}))
            assert [await web.get("/admin", A, 0, *lines) for lines in ([], [FRIEND])] == [401, 403], "his word comes first"
            await web.apply(*where.objects(), only, policy("nothing", {}))
            assert await web.get("/admin", A, 0, FRIEND) == 403, "who is not allowed otherwise"
        await web.apply(*where.objects(), asks("http", {"paths": ["/a"]}), asks("grpc", {"paths": ["/a", "/b"]}))
        ASKED.clear()
        assert await web.get("/a", A, 0, FRIEND) == 200
        assert [one.split()[0] for one in ASKED] == ["grpc", "http"], "both are asked"
        assert await web.get("/b", A) == 401


async def test_nobody_to_ask(tmp_path: Path) -> None:
    """Broken: an authorizer that is away, or none at all, would open what it guards; or close what is to be open."""
    where = Authorizers()
    async with guarded(tmp_path) as web:
        for name in ("away", "unknown"):
            await web.apply(*where.objects(), asks(name, {"paths": ["/admin"]}))
            assert [await web.get(path, A) for path in ("/", "/admin")] == [200, 403], name
            assert await web.get("/", A, web.tcp) == 0, name
        for name in ("http", "grpc"):
            for said, expected in (({}, 403), ({"statusOnError": "503"}, 503), ({"failOpen": True}, 200)):
                more = {"timeout": "0.3s", **said}
                await web.apply(*where.objects(more, more), asks(name))
                assert await web.get("/", A) == expected, (name, said)
                if name == "grpc":
                    assert await web.get("/", A, web.tcp) == (200 if "failOpen" in said else 0), said
        async with authorizing(where.http, where.grpc):
            SPEAKS.clear()
            try:
                await web.apply(*where.objects({"timeout": "0.2s"}), asks("http"))
                assert await web.get("/", A, 0, FRIEND) == 403, "who takes too long has not allowed it"
            finally:
                SPEAKS.set()


async def test_connections(tmp_path: Path) -> None:
    """Broken: bytes would pass that the authorizer refuses; or one that knows HTTP alone would be taken for one who agrees."""
    where = Authorizers()
    async with authorizing(where.http, where.grpc), guarded(tmp_path) as web:
        await web.apply(*where.objects(), asks("grpc"))
        assert [await web.get("/", who, web.tcp) for who in (FRIENDS, A, "")] == [200, 0, 0]
        await web.apply(*where.objects(), asks("grpc", {"ports": ["1"]}))
        assert await web.get("/", A, web.tcp) == 200
        await web.apply(*where.objects(), asks("grpc", {"paths": ["/x"]}))
        assert [await web.get("/", who, web.tcp) for who in (FRIENDS, A)] == [200, 0], "nobody can tell their path"
        await web.apply(*where.objects(), asks("http"))
        assert await web.get("/", FRIENDS, web.tcp) == 0


async def test_what_is_told_and_taken(tmp_path: Path) -> None:
    """Broken: an authorizer would not learn what it judges, or learn secrets; or its answer not reach whom it is for."""
    where = Authorizers()
    async with authorizing(where.http, where.grpc), guarded(tmp_path) as web:
        said = {
            "pathPrefix": "/check/",
            "includeRequestHeadersInCheck": ["X-Team", "x-ext-*", "*-id"],
            "includeAdditionalHeadersInCheck": {"x-mesh": "tulle", "x-who": "%DOWNSTREAM_PEER_URI_SAN%", "x-percent": "100%"},
            "includeRequestBodyInCheck": {"maxRequestBytes": 4, "allowPartialMessage": True},
            "headersToUpstreamOnAllow": ["x-told", "x-us*"],
            "headersToDownstreamOnAllow": ["x-user"],
            "headersToDownstreamOnDeny": ["www-authenticate"],
        }
        await web.apply(*where.objects(said), asks("http"))
        lines = (FRIEND, "x-team: a", "x-ext-b: b", "trace-id: 1", "x-secret: s")
        status, answer = await whole(web, "/a?b=c", *lines, identity=A, method="POST", body="body!!")
        assert status == 200
        seen = told(answer)
        assert (seen["path"], seen["body"]) == ("/check/a?b=c", "body")
        assert {"x-team", "x-ext-b", "trace-id", "authorization", "x-mesh", "x-who", "x-percent"} <= set(seen["headers"])
        assert "x-secret" not in seen["headers"]
        head, _blank, application = answer.partition("\r\n\r\n")
        assert "x-user: kate" in head
        assert "x-user: kate" in application
        assert "x-other" not in application, "what nobody named stays behind"
        status, answer = await whole(web, "/", identity=A)
        assert (status, "www-authenticate: Bearer" in answer, "x-other" in answer) == (401, True, False)
        await web.apply(*where.objects({"includeRequestBodyInCheck": {"maxRequestBytes": 4}}), asks("http"))
        assert (await whole(web, "/", FRIEND, identity=A, method="POST", body="body!!"))[0] == 413


async def test_connect_has_no_body(tmp_path: Path) -> None:
    """Broken: an authorizer that wants bodies would never be asked of CONNECT: its bytes come only once it is answered."""
    where = Authorizers()
    wants = {"includeRequestBodyInCheck": {"maxRequestBytes": 4, "allowPartialMessage": True}}
    async with authorizing(where.http, where.grpc), guarded(tmp_path) as web:
        await web.apply(*where.objects(grpc=wants), asks("grpc"))
        for lines, expected in (((), 401), ((FRIEND,), 200)):
            head = ("CONNECT web:80 HTTP/1.1", "host: web:80", *lines, "", "")
            assert (await web.raw("\r\n".join(head).encode(), A))[0] == expected
        status, answer = await whole(web, "/", FRIEND, identity=A, method="POST", body="body!!")
        assert (status, told(answer)["body"]) == (200, "body")


async def test_before_and_behind_tokens(tmp_path: Path) -> None:
    """Broken: who logs people in could bring no token, or policies that look at tokens would ask nobody."""
    where = Authorizers()
    async with authorizing(where.http, where.grpc), guarded(tmp_path) as web:
        await web.apply(*where.objects(), believes({}), asks("http"))
        ASKED.clear()
        assert await web.get("/", A, 0, bearer("nonsense")) == 401
        assert len(ASKED) == 1, "asked first, as in Istio"
        claim: dict[str, Any] = {"when": [{"key": "request.auth.claims[groups]", "values": ["risky"]}]}
        await web.apply(*where.objects(), believes({}), asks("grpc", **claim))
        ASKED.clear()
        assert await web.get("/", A, 0, bearer("nonsense")) == 401
        assert await web.get("/", A, 0, bearer(OURS.token(groups=["safe"]))) == 200
        assert ASKED == []
        assert await web.get("/", A, 0, bearer(OURS.token(groups=["risky"]))) == 401
        assert len(ASKED) == 1


async def test_at_a_gateway(tmp_path: Path) -> None:
    """Broken: what comes from outside would pass without the word of the one who is asked at sidecars."""
    where = Authorizers()
    async with authorizing(where.http, where.grpc), guarded_gateway(tmp_path) as gate:
        for name in ("http", "grpc"):
            await gate.apply(*where.objects(), asks(name, {"hosts": ["shop.example"]}, namespace="tulle-system"))
            for port, caller in ((gate.http, ""), (gate.tcp, A)):
                answers = [
                    await gate.get("/", caller, port, *lines, host=host)
                    for host, lines in (
                        ("other.example", []),
                        ("shop.example", []),
                        ("SHOP.example.:80", []),
                        ("shop.example", [FRIEND]),
                    )
                ]
                assert answers == [200, 401, 401, 200], (name, port)
