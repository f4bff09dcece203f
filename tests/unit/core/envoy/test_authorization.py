"""AuthorizationPolicy as a real Envoy keeps it, asked by raw requests: what passes, and what cannot be gone around."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path
from typing import Any

from tests.support.guarded import Guarded, guarded, guarded_gateway, policy
from tests.unit.core.compile.mesh import obj
from tests.unit.core.envoy.test_tokens import refusals
from tulle.core.evaluate.request import Request, normalized
from tulle.core.model.edge import Paths

A = "spiffe://cluster.local/ns/default/sa/a"
B = "spiffe://cluster.local/ns/other/sa/b"
NOBODY = ""
CALLERS = (A, B, NOBODY)


def rule(source: dict[str, Any] | None = None, operation: dict[str, Any] | None = None, **when: list[str]) -> dict[str, Any]:
    made: dict[str, Any] = {}
    if source:
        made["from"] = [{"source": source}]
    if operation:
        made["to"] = [{"operation": operation}]
    if when:
        made["when"] = [{"key": key, "values": values} for key, values in when.items()]
    return made


def deny(operation: dict[str, Any], **when: list[str]) -> Any:
    return policy("no", {"action": "DENY", "rules": [rule(None, operation, **when)]})


async def seen(web: Guarded, port: int = 0) -> list[bool]:
    """Who of the callers gets an answer."""
    return [await web.get("/", caller, port) == 200 for caller in CALLERS]


async def test_who(tmp_path: Path) -> None:
    """Broken: strangers would be served, or those shut out who may call."""
    async with guarded(tmp_path) as web:
        assert await seen(web) == [True, True, True]
        for source, expected in (
            ({"principals": ["cluster.local/ns/default/sa/a"]}, [True, False, False]),
            ({"principals": ["*"]}, [True, True, False]),
            ({"principals": ["*/sa/b"]}, [False, True, False]),
            ({"notPrincipals": ["cluster.local/ns/default/*"]}, [False, True, True]),
            ({"namespaces": ["oth*"]}, [False, True, False]),
            ({"serviceAccounts": ["a", "other/c"]}, [True, False, False]),
            ({"trustDomains": ["cluster.local"], "notNamespaces": ["default"]}, [False, True, False]),
            ({"ipBlocks": ["127.0.0.0/8"]}, [True, True, True]),
            ({"notIpBlocks": ["127.0.0.1"]}, [False, False, False]),
        ):
            await web.apply(policy("only", {"rules": [rule(source)]}))
            assert await seen(web) == expected, source
            assert await seen(web, web.tcp) == expected, source


async def test_the_first_and_the_last_on_a_connection_that_stands(tmp_path: Path) -> None:
    """Broken: who has a connection would go on after everything was shut, or be shut out after the end of the last policy."""
    async with guarded(tmp_path) as web:
        reader, writer = await asyncio.open_connection("127.0.0.1", web.http)
        raw_reader, raw_writer = await asyncio.open_connection("127.0.0.1", web.tcp)

        async def ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> int:
            writer.write(b"GET / HTTP/1.1\r\nhost: web\r\n\r\n")
            head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)
            await reader.readexactly(int(re.findall(rb"content-length: (\d+)", head)[0]))
            return int(head.split(b" ")[1])

        seen = [await ask(reader, writer)]
        assert await ask(raw_reader, raw_writer) == 200
        metadata = {"name": "tokens", "namespace": "default"}
        spec = {"jwtRules": [{"issuer": "who@example", "jwks": '{"keys": []}'}]}
        token = obj({"apiVersion": "security.istio.io/v1", "kind": "RequestAuthentication", "metadata": metadata, "spec": spec})
        for objects in ((policy("nothing", {}),), (policy("nothing", {}), policy("all", {"rules": [{}]})), (token,), ()):
            await web.apply(*objects)
            seen.append(await ask(reader, writer))
        assert seen == [200, 403, 200, 200, 200]
        assert await ask(raw_reader, raw_writer) == 200, "bytes are judged once, when a connection begins"
        assert "listener_modified: 0" in await web.proxy.admin("/stats?filter=listener_manager.listener_modified")
        writer.close()
        raw_writer.close()


async def test_the_order_and_the_empty(tmp_path: Path) -> None:
    """Broken: a DENY could be overruled, an empty policy would mean its opposite, or a trial would do something."""
    async with guarded(tmp_path) as web:
        everything = policy("all", {"rules": [{}]})
        for objects, expected in (
            ([policy("nothing", {})], [False, False, False]),
            ([policy("nothing", {}, "tulle-system")], [False, False, False]),
            ([policy("nothing", {}, "other")], [True, True, True]),
            ([policy("nothing", {}), everything], [True, True, True]),
            ([policy("none", {"action": "DENY"})], [True, True, True]),
            ([everything, policy("no", {"action": "DENY", "rules": [rule({"namespaces": ["other"]})]})], [True, False, True]),
            ([policy("audit", {"action": "AUDIT", "rules": [{}]})], [True, True, True]),
            ([policy("trial", {}, dry_run="true")], [True, True, True]),
            ([everything, policy("trial", {"action": "DENY", "rules": [{}]}, dry_run="true")], [True, True, True]),
            ([policy("elsewhere", {"selector": {"matchLabels": {"app": "other"}}})], [True, True, True]),
            ([policy("here", {"selector": {"matchLabels": {"app": "web"}}})], [False, False, False]),
            ([policy("service", {"targetRefs": [{"kind": "Service", "name": "web"}]})], [False, False, False]),
            ([policy("service", {"targetRefs": [{"kind": "Service", "name": "other"}]})], [True, True, True]),
            ([policy("custom", {"action": "CUSTOM", "provider": {"name": "x"}, "rules": [{}]})], [False, False, False]),
        ):
            await web.apply(*objects)
            assert await seen(web) == expected, objects
            assert await seen(web, web.tcp) == expected, objects
        await web.apply(everything, policy("trial", {"action": "DENY", "rules": [{}]}, dry_run="true"))
        await web.get()
        await web.apply(policy("no", {"action": "DENY", "rules": [rule({"namespaces": ["other"]})]}))
        await web.get("/a?secret", B)
        (line,) = (json.loads(one) for one in await refusals(web, 1, '"path":"/a"'))
        assert line["caller"] == B
        assert line["why"] == "rbac_access_denied_matched_policy[ns[default]-policy[no]-rule[0]]"
        assert "istio_dry_run_deny.shadow_denied" in await web.proxy.admin("/stats?filter=shadow_denied")


async def test_fields_of_http_at_tcp(tmp_path: Path) -> None:
    """Broken: a path that was to be denied would be open to whoever speaks something else."""
    async with guarded(tmp_path) as web:
        await web.apply(deny({"paths": ["/admin"]}))
        assert (await web.get("/", A), await web.get("/", A, web.tcp)) == (200, 0)
        await web.apply(policy("get", {"rules": [rule(None, {"methods": ["GET"]})]}))
        assert (await web.get("/", A), await web.get("/", A, web.tcp)) == (200, 0)
        some = {"rules": [rule(None, {"paths": ["/x"]}), rule({"namespaces": ["default"]})]}
        await web.apply(policy("some", some))
        assert [await web.get("/", who, web.tcp) for who in CALLERS] == [200, 0, 0], (
            "the rule that asks for nothing of HTTP holds"
        )
        await web.apply(deny({"ports": [str(web.tcp)]}))
        assert (await web.get("/", A), await web.get("/", A, web.tcp)) == (200, 0)


ADMIN = (
    *("/admin", "/admin/x", "//admin", "///admin", "/./admin", "/x/../admin", "/x/%2e%2e/admin", "/%2E/admin", "/%61dmin"),
    *(
        "/%2fadmin",
        "/%5Cadmin",
        "/x/..%2fadmin",
        "/x/..%5cadmin",
        "/x/%2e%2e%2fadmin",
        "/x/%2f../admin",
        "/admin?x=1",
        "/admin%2fx",
    ),
    *("http://web/admin", "http://web//admin"),
)
HOSTS = ("admin.web", "ADMIN.web", "admin.web.", "admin.web:80", "admin.web.:80", "a.in.web", "A.In.web:1", "x@admin.web")


async def test_no_way_around(tmp_path: Path) -> None:
    """Broken: what is denied would be had by writing it in another way."""
    async with guarded(tmp_path) as web:
        await web.apply(deny({"paths": ["/admin*"]}))
        assert {path: await web.get(path, A) for path in ADMIN} == dict.fromkeys(ADMIN, 403)
        assert [await web.get(path, A) for path in ("/", "/x", "/x/admin", "/x//y", "/a%2fb")] == [200] * 5
        await web.apply(policy("most", {"rules": [rule(None, {"notPaths": ["/admin*"]})]}))
        assert {path: await web.get(path, A) for path in ADMIN} == dict.fromkeys(ADMIN, 403)
        await web.apply(policy("public", {"rules": [rule(None, {"paths": ["/public/*", "/x/{*}/y", "/z/{**}"]})]}))
        assert [await web.get(path, A) for path in ("/public/a", "/x/1/y", "/z/1/2")] == [200] * 3
        closed = ("/public/../admin", "/public/..%2fadmin", "/public/%2e%2e%2fadmin", "/x/1/2/y", "/x//y", "/public")
        assert {path: await web.get(path, A) for path in closed} == dict.fromkeys(closed, 403)
        await web.apply(deny({"hosts": ["admin.web", "*.in.web"]}))
        assert {host: await web.get("/", A, host=host) for host in HOSTS} == dict.fromkeys(HOSTS, 403)
        assert await web.get("http://admin.web/", A) == 403
        assert [
            await web.get("/", A, 0, f"host: {two}", host=one) for one, two in (("web", "admin.web"), ("admin.web", "web"))
        ] == [403] * 2
        assert await web.get("/", A) == 200
        await web.apply(policy("one", {"rules": [rule(None, {"hosts": ["*.web"]})]}))
        assert [await web.get("/", A, host=host) for host in ("a.web", "a.web:80", "evil,a.web", "evil@a.web", "a.web.evil")] == [
            *(200, 200),
            *(403, 403, 403),
        ]


async def test_headers(tmp_path: Path) -> None:
    """Broken: a header would be hidden behind another of its name, or under a name that an application takes for it."""
    async with guarded(tmp_path) as web:
        role = "request.headers[X-Role]"
        await web.apply(policy("no", {"action": "DENY", "rules": [rule(None, None, **{role: ["admin"]})]}))
        for lines in (
            ["x-role: admin"],
            ["X-ROLE: admin"],
            ["x-role: a", "x-role: admin"],
            ["x-role: a, admin"],
            ["x-role: admin,b"],
        ):
            assert await web.get("/", A, 0, *lines) == 403, lines
        assert await web.get("/", A, 0, "x-role: administrator") == 200
        _status, answer = await web.raw(b"GET / HTTP/1.1\r\nhost: web\r\nx_role: admin\r\n\r\n", A)
        assert b"x-forwarded-client-cert" in answer, "the application is reached"
        assert b"x_role" not in answer
        await web.apply(policy("yes", {"rules": [rule(None, {"methods": ["GET"]}, **{role: ["admin"]})]}))
        assert [await web.get("/", A, 0, *lines) for lines in (["x-role: admin"], ["x-role: user"], [])] == [200, 403, 403]
        assert await web.get("/", A, 0, "x-role: admin", "content-length: 0", method="POST") == 403


async def test_a_change_needs_no_new_connection(tmp_path: Path) -> None:
    """Broken: who is shut out would go on over the connection that stands."""
    async with guarded(tmp_path) as web:
        await web.apply(policy("no", {"action": "DENY", "rules": [rule(None, {"paths": ["/a"]})]}))
        before = web.pipeline.listened("default/web")
        reader, writer = await asyncio.open_connection("127.0.0.1", web.http)
        answers = []
        for paths in (["/a"], ["/b"]):
            await web.apply(policy("no", {"action": "DENY", "rules": [rule(None, {"paths": paths})]}))
            await web.proxy.until("/config_dump?resource=ecds_filters", f"+{paths[0][1:]}(?:;")
            writer.write(b"GET /b HTTP/1.1\r\nhost: web\r\n\r\n")
            head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)
            length = next(int(line[15:]) for line in head.split(b"\r\n") if line.startswith(b"content-length:"))
            await reader.readexactly(length)
            answers.append(head.split(b" ")[1])
        writer.close()
        assert answers == [b"200", b"403"]
        assert web.pipeline.listened("default/web") == before


async def test_at_a_gateway(tmp_path: Path) -> None:
    """Broken: an egress gateway would let anybody out, or an upgrade pass by its policies."""
    large = obj(
        {
            "apiVersion": "tulle.dev/v1alpha1",
            "kind": "MeshConfig",
            "metadata": {"name": "mesh"},
            "spec": {"defaultConfig": {"requestLimits": {"maxRequestBytes": 1000}}},
        }
    )
    upgrade = (
        "connection: Upgrade",
        "upgrade: websocket",
        "sec-websocket-version: 13",
        "sec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==",
    )
    async with guarded_gateway(tmp_path) as gate:
        assert await gate.get("/", "", gate.http) == 200
        for beside in ([], [large]):
            only = rule({"principals": ["cluster.local/ns/default/sa/a"]}, {"hosts": ["api.example"]})
            await gate.apply(*beside, policy("out", {"rules": [only]}, "tulle-system"))
            for caller, host, expected in ((A, "api.example", 200), (A, "other.example", 403), (B, "api.example", 403)):
                assert await gate.get("/", caller, gate.tcp, host=host) == expected, (caller, host)
                if expected == 403:
                    assert await gate.get("/", caller, gate.tcp, *upgrade, host=host) == 403, (caller, host)
            assert await gate.get("/", "", gate.http, host="api.example") == 403, "who is unknown there"
            assert await gate.get("/", "", gate.http, *upgrade, host="api.example") == 403
        reference = {"targetRefs": [{"group": "networking.istio.io", "kind": "Gateway", "name": "gate"}]}
        await gate.apply(
            policy("all", {**reference, "action": "DENY", "rules": [rule(None, {"ports": [str(gate.http)]})]}, "tulle-system")
        )
        assert (await gate.get("/", "", gate.http), await gate.get("/", A, gate.tcp)) == (403, 200)
        claims = b"x-forwarded-client-cert: URI=root\r\nx_forwarded_client_cert: URI=root\r\nx-envoy-original-path: root\r\n"
        _status, got = await gate.raw(b"GET / HTTP/1.1\r\nhost: x\r\n" + claims + b"\r\n", A, gate.tcp)
        assert b"200 OK" in got
        assert b"root" not in got


async def test_the_form_of_paths(tmp_path: Path) -> None:
    """Broken: a mesh that says how it reads paths would compare, or pass on, others; or `authz check` think of others."""
    asked = ("//a", "/a//b", "/a%2fb", "/a%2f%2Fb", "/x/../a", "/x%2f..%2fa", "/a%5cb", "/%61")
    async with guarded(tmp_path) as web:
        for form in Paths:
            spec = {"pathNormalization": {"normalization": form.value}}
            mesh = obj({"apiVersion": "tulle.dev/v1alpha1", "kind": "MeshConfig", "metadata": {"name": "mesh"}, "spec": spec})
            await web.apply(mesh)
            for path in asked:
                _status, answer = await web.raw(f"GET {path} HTTP/1.1\r\nhost: web\r\n\r\n".encode(), A)
                seen = answer.partition(b"\r\n\r\n")[2].split(b" ")[1].decode()
                assert seen == normalized(Request("web", path=path), form).path, (form, path)
            await web.apply(mesh, deny({"paths": ["/a/b"]}))
            assert await web.get("/a//b", A) == 403, form
