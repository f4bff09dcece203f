"""The server as an attacker meets it: what means one thing to one reader and another to the next."""

from __future__ import annotations

import asyncio
import datetime
import json
import shutil
import ssl
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from tests.support.apiserver import Ca, Running, running
from tests.support.asking import Person, binding, grant, role, rule
from tests.support.wire import wire
from tulle.control.apiserver.errors import Denial
from tulle.control.apiserver.gate import is_open, plain_path
from tulle.control.apiserver.guard import USER

MAPS = "/api/v1/namespaces/default/configmaps"
SECRETS = "/api/v1/namespaces/default/secrets"


@pytest.mark.parametrize(
    "path",
    [
        "//api/v1/services",
        "/api//v1/services",
        "/healthz/../api/v1/services",
        "/healthz/%2e%2e/api/v1/services",
        "/healthz/%2E./api/v1/services",
        "/healthz/./x",
        "/healthz%2f..%2fapi/v1/services",
        "/healthz/..%2fapi",
        "/api/v1%2Fservices",
        "/api/v1/namespaces/default/secrets%2fx",
        "/api/v1/namespaces/default%5csecrets",
        "/api/v1/namespaces/default\\secrets",
        "/api/v1/services%00",
        "/api/v1/services%0d%0aX:y",
        "/%252e%252e/api",
        "/api/v1/%ff",
        "api/v1/services",
        "",
    ],
)
def test_paths_that_are_not_plain_are_refused(path: str) -> None:
    """Where the check and the handler read different paths, the check is of no use."""
    with pytest.raises(Denial) as denial:
        plain_path(path)
    assert denial.value.http == 400


def test_plain_paths() -> None:
    """Names of roles have colons, and clients write some characters as escapes."""
    assert plain_path("/apis/rbac.authorization.k8s.io/v1/clusterroles/system:node") == (
        "/apis/rbac.authorization.k8s.io/v1/clusterroles/system:node"
    )
    assert plain_path("/api/%61bc%3Ad/") == "/api/abc:d/"
    assert [is_open(one) for one in ("/healthz", "/readyz/x", "/version", "/livez")] == [True] * 4
    closed = ("/healthzx", "/versionx", "/version/x", "/", "/api", "/openapi/v2", "/Healthz", "/tulle/v1/status")
    assert not any(is_open(one) for one in closed)


async def test_nobody_gets_in_by_a_path(served: Running) -> None:
    """Asked with bytes, as no client would: without a certificate nothing but health and version is ever answered."""
    for path in (
        "/healthz/../api/v1/services",
        "/healthz%2f..%2fapi/v1/services",
        "//api/v1/services",
        "/api/v1/services/",
        "/API/v1/services",
        "/api/v1/services;x=/healthz",
        "/api/v1/services?/healthz",
        "/api/v1/services#/healthz",
        "https://x/api/v1/services",
        "https://x/healthz/../api",
        "http://user:password@x/api",
        "/openapi/v3/../../healthz",
        "/tulle/v1/status",
        "/tulle/v1/apitokens",
        "/tulle%2fv1%2fapitokens",
        "*",
        "x:443",
    ):
        for method in ("GET", "HEAD", "POST", "OPTIONS", "CONNECT", "TRACE", "PROPFIND"):
            async with wire(served) as raw:
                await raw.send(f"{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
                answer = await raw.read()
                assert answer.split()[1] in (b"400", b"401", b"404", b"405"), (method, path, answer[:200])
                assert b"ServiceList" not in answer


async def test_methods_and_hosts_are_what_they_are(served: Running) -> None:
    """No header turns a read into a write, and none of a proxy's headers makes a user."""
    await grant(served, role("r", rule("get list", "core", "configmaps")), binding("r", "r", "User/alice"))
    async with Person(served, "admin", "system:masters") as admin, Person(served, "alice") as alice, Person(served) as nobody:
        await admin.ask("POST", MAPS, {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}})
        for header in ("X-HTTP-Method-Override", "X-HTTP-Method", "X-Method-Override"):
            for value in ("DELETE", "PUT", "PATCH"):
                assert await alice.status("GET", f"{MAPS}/a", headers={header: value}) == 200
                assert await alice.status("POST", f"{MAPS}/a", {}, headers={header: value}) in (403, 405)
        assert await alice.status("GET", f"{MAPS}/a?_method=DELETE&method=DELETE") == 200
        assert await admin.status("GET", f"{MAPS}/a") == 200
        for headers in (
            {"X-Remote-User": "admin", "X-Remote-Group": "system:masters"},
            {"X-Forwarded-User": "admin", "X-Forwarded-For": "127.0.0.1"},
            {
                "X-Forwarded-Client-Cert": "By=spiffe://cluster.local/x;URI=spiffe://cluster.local/node/n1",
                "X-SSL-Client-Verify": "SUCCESS",
            },
            {"Impersonate-User": "admin", "Impersonate-Group": "system:masters"},
            {"X-Original-URL": "/healthz", "X-Rewrite-URL": "/healthz"},
            {"Host": "localhost"},
        ):
            assert await nobody.status("GET", MAPS, headers=headers) == 401, headers
            assert await alice.status("GET", SECRETS, headers=headers) == 403, headers


async def test_smuggled_requests(served: Running) -> None:
    """Two readers of one connection must agree where a request ends: what can be read twice is refused, and never run."""
    made = f"POST {MAPS} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    body = json.dumps({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "smuggled"}})
    inner = f"{made}Content-Length: {len(body)}\r\n\r\n{body}"
    head = f"POST {MAPS} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    chunked = f"{len(inner):x}\r\n{inner}\r\n0\r\n\r\n"
    context = served.context("admin", ["system:masters"])
    for attack in (
        f"{head}Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{inner}",
        f"{head}Transfer-Encoding: chunked\r\nContent-Length: {len(chunked)}\r\n\r\n0\r\n\r\n{inner}",
        f"{head}Content-Length: 0\r\nContent-Length: {len(inner)}\r\n\r\n{inner}",
        f"{head}Content-Length: 0, 5\r\n\r\n{inner}",
        f"{head}Content-Length: +0\r\n\r\n{inner}",
        f"{head}Content-Length: -1\r\n\r\n{inner}",
        f"{head}Content-Length : 0\r\n\r\n{inner}",
        f"{head}Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n{inner}",
        f"{head}Transfer-Encoding: identity, chunked, identity\r\n\r\n0\r\n\r\n{inner}",
        f"{head}Transfer-Encoding: chunked\r\nTransfer-Encoding: x\r\n\r\n0\r\n\r\n{inner}",
        f"{head}Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n{inner}",
        f"{head}X: a\r\n Content-Length: 0\r\n\r\n{inner}",
        f"{head}Transfer-Encoding: chunked\r\n\r\n0x0\r\n\r\n{inner}",
        f"{head}Transfer-Encoding: chunked\r\n\r\n-1\r\n\r\n{inner}",
        f"GET /healthz HTTP/1.1\nHost: x\n\n{inner}",
        f"GET /healthz HTTP/0.9\r\n\r\n{inner}",
        f"GET /healthz HTTP/1.1\r\nHost: x\r\nHost: y\r\n\x00: z\r\n\r\n{inner}",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ):
        async with wire(served, context) as raw:
            await raw.send(attack)
            answer = await raw.read(b"\r\n\r\n", seconds=5)
            assert b" 201 " not in answer, attack
    async with Person(served, context=context) as admin:
        assert await admin.status("GET", f"{MAPS}/smuggled") == 404
    async with wire(served, context) as raw:  # the control: what was to be smuggled is a good request
        await raw.send(f"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n{inner}")
        assert b" 201 " in await raw.read(b"smuggled")


async def test_names_are_not_taken_for_others(served: Running) -> None:
    """Namespaces and names in other letters, or with more in them, are other names, or none."""
    await grant(served, role("r", rule("*", "core", "configmaps")), binding("r", "r", "User/alice", namespace="default"))
    async with Person(served, "alice") as alice:
        assert await alice.status("GET", MAPS) == 200
        for other in ("Default", "DEFAULT", "default%20", "default.", "kube-system", "default%09", "*", ""):
            path = f"/api/v1/namespaces/{other}/configmaps"
            assert await alice.status("GET", path) in (400, 403, 404), other
        body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a", "namespace": "kube-system"}}
        assert await alice.status("POST", MAPS, body) == 400
        body["metadata"] = {"name": "../../kube-system/configmaps/x"}
        assert await alice.status("POST", MAPS, body) == 422


async def test_no_read_is_more_than_its_right(served: Running) -> None:
    """`get` is no `list`, `list` no `watch`, and no form of an answer shows more than another."""
    await grant(
        served,
        role("g", rule("get", "core", "secrets")),
        binding("g", "g", "User/gabi"),
        role("l", rule("list", "core", "secrets")),
        binding("l", "l", "User/leo"),
    )
    table = {"Accept": "application/json;as=Table;v=v1;g=meta.k8s.io"}
    partial = {"Accept": "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io"}
    async with Person(served, "gabi") as gabi, Person(served, "leo") as leo:
        for headers in ({}, table, partial):
            assert await gabi.status("GET", SECRETS, headers=headers) == 403
            assert await gabi.status("GET", "/api/v1/secrets", headers=headers) == 403
            assert await gabi.status("GET", f"{SECRETS}?watch=1", headers=headers) == 403
            assert await gabi.status("GET", f"{SECRETS}/x?watch=1", headers=headers) == 403
            assert await leo.status("GET", SECRETS, headers=headers) == 200
            assert await leo.status("GET", f"{SECRETS}?watch=1&timeoutSeconds=1", headers=headers) == 403
            assert await leo.status("GET", f"{SECRETS}?watch=True&timeoutSeconds=1", headers=headers) in (200, 403)
            assert await leo.status("GET", f"{SECRETS}/x", headers=headers) == 403
        # `True` is no watch to some readers: then it is the list, which comes to its end.
        async with leo.session.get(f"{served.url}{SECRETS}?watch=True") as response:
            assert response.status == 403 or (await response.json())["kind"] == "SecretList"


def _certificate(
    ca: Ca, subject: list[tuple[Any, str]], uris: list[str], *, days: float = 1.0, signer: Ca | None = None
) -> ssl.SSLContext:
    """A client whose certificate says what the test wants it to say."""
    signer = signer or ca
    now = datetime.datetime.now(datetime.UTC)
    key = ec.generate_private_key(ec.SECP256R1())
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(oid, value) for oid, value in subject]))
        .issuer_name(signer.name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=2))
        .not_valid_after(now + datetime.timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.key.public_key()), critical=False)
    )
    if uris:
        names = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(uri) for uri in uris])
        builder = builder.add_extension(names, critical=False)
    pem = builder.sign(signer.key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    secret = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata=ca.pem.decode())
    Ca.load(context, pem, secret)
    return context


_MASTER = [(NameOID.ORGANIZATION_NAME, "system:masters"), (NameOID.COMMON_NAME, "admin")]


@pytest.mark.parametrize(
    ("subject", "uris", "expected"),
    [
        (_MASTER, [], 200),  # the control: this is what the others are not
        (_MASTER, ["spiffe://cluster.local/ns/default/sa/x"], 403),
        (_MASTER, ["spiffe://other.domain/ns/default/sa/x"], 401),
        (_MASTER, ["SPIFFE://cluster.local/ns/default/sa/x"], 401),
        (_MASTER, ["spiffe://cluster.local/ns/default/sa/x", "spiffe://cluster.local/node/n"], 401),
        (_MASTER, ["https://example.com/"], 401),
        (_MASTER, ["spiffe://cluster.local/"], 401),
        (_MASTER, ["spiffe://cluster.local/ns/default/sa/x/node/n"], 401),
        ([*_MASTER, (NameOID.COMMON_NAME, "alice")], [], 401),
        ([(NameOID.ORGANIZATION_NAME, "people, O=system:masters"), (NameOID.COMMON_NAME, "alice")], [], 403),
        ([(NameOID.COMMON_NAME, "alice/O=system:masters")], [], 403),
        ([(NameOID.ORGANIZATION_NAME, "system:masters\x00"), (NameOID.COMMON_NAME, "alice")], [], 401),
        ([(NameOID.ORGANIZATION_NAME, "system:masters "), (NameOID.COMMON_NAME, "alice")], [], 403),
        ([(NameOID.ORGANIZATIONAL_UNIT_NAME, "system:masters"), (NameOID.COMMON_NAME, "alice")], [], 403),
        ([(NameOID.ORGANIZATION_NAME, "system:masters")], [], 401),
    ],
)
async def test_what_a_certificate_says(served: Running, subject: list[tuple[Any, str]], uris: list[str], expected: int) -> None:
    """Names in a subject never make more of a workload than it is, and no trick in one makes a master."""
    async with Person(served, context=_certificate(served.ca, subject, uris)) as person:
        assert await person.status("GET", SECRETS) == expected


async def test_certificates_that_are_over_or_foreign(served: Running) -> None:
    """An expired one, and one of another authority of the same name, do not pass the handshake."""
    for context in (
        _certificate(served.ca, _MASTER, [], days=-1),
        _certificate(served.ca, _MASTER, [], signer=Ca()),
    ):
        async with Person(served, context=context) as person:
            with pytest.raises(aiohttp.ClientError):
                await person.status("GET", "/healthz")


async def test_a_certificate_that_ends_while_its_connection_lives(served: Running) -> None:
    """A connection that is kept open must not keep a user alive who no longer is one."""
    async with Person(served, context=_certificate(served.ca, _MASTER, [], days=0.5)) as person:
        assert await person.status("GET", SECRETS) == 200
        clock = served.server.authenticator._clock
        served.server.authenticator._clock = lambda: clock() + 24 * 3600
        status, body = await person.ask("GET", SECRETS)
        assert (status, "expired" in body["message"]) == (401, True)


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl's s_client")
async def test_no_second_handshake(served: Running) -> None:
    """Renegotiation costs the server more than the client, and has been a way to slip bytes into another's request."""
    assert served.server._tls.options & ssl.OP_NO_RENEGOTIATION
    host, port = served.url.removeprefix("https://").split(":")
    client = await asyncio.create_subprocess_exec(
        *("openssl", "s_client", "-connect", f"{host}:{port}", "-tls1_2"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    assert client.stdin is not None
    assert client.stdout is not None
    got = b""
    async with asyncio.timeout(20):
        while b"---\n" not in got.partition(b"Verify return code")[2]:
            more = await client.stdout.read(4096)
            assert more, got
            got += more
        client.stdin.write(b"R\n")  # s_client's command for a new handshake
        await client.stdin.drain()
        rest = await client.stdout.read()
    await client.wait()
    assert b"no renegotiation" in rest or b"error" in rest, rest


async def test_sub_applications_are_closed_by_default() -> None:
    """A page that somebody mounts and forgets to protect is nobody's until a role grants it."""

    async def page(request: web.Request) -> web.Response:
        return web.Response(text=request[USER].name)

    extra = web.Application()
    extra.router.add_get("/page", page)
    extra.router.add_post("/page", page)
    async with running(extra_apps={"/tulle/v1": extra}) as served:
        await grant(served, role("p", rule("get", paths="/tulle/v1/page")), binding("p", "p", "User/paul"))
        async with Person(served) as nobody, Person(served, "alice") as alice, Person(served, "paul") as paul:
            assert await nobody.status("GET", "/tulle/v1/page") == 401
            assert await alice.status("GET", "/tulle/v1/page") == 403
            assert await paul.ask("GET", "/tulle/v1/page") == (200, "paul")
            assert await paul.status("POST", "/tulle/v1/page") == 403
            assert await paul.status("GET", "/tulle/v1/page/") == 403
            assert await paul.status("GET", "/tulle/v1/pages") == 403
