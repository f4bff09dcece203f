"""The server around the objects: who gets in, limits, discovery documents, rotation, stopping."""

from __future__ import annotations

import asyncio
import ssl
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from tests.support.apiserver import Ca, Running, running
from tulle.api.registry import KINDS
from tulle.client.errors import ApiError
from tulle.control.apiserver.guard import USER
from tulle.control.asking import IDENTITY
from tulle.control.store.memory import MemoryStore
from tulle.kit.errors import Refused, Unavailable


async def get(served: Running, path: str, context: ssl.SSLContext | None = None, **options: Any) -> tuple[int, Any]:
    async with (
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=context or served.context())) as session,
        session.request(options.pop("method", "GET"), served.url + path, **options) as response,
    ):
        text = await response.text()
        return response.status, (await response.json() if response.content_type == "application/json" else text)


async def test_anonymous_sees_health_and_version_only(served: Running) -> None:
    """Without a certificate nothing of the mesh may be read, and probes must work."""
    for path in ("/healthz", "/readyz", "/livez", "/readyz?verbose", "/version"):
        assert (await get(served, path))[0] == 200, path
    for path in ("/", "/api", "/apis", "/api/v1/services", "/openapi/v2", "/openapi/v3", "/openapi/v3/api/v1", "/apis/nothing"):
        status, body = await get(served, path)
        assert (status, body["reason"]) == (401, "Unauthorized"), path


async def test_certificates_of_others_do_not_get_in(served: Running) -> None:
    """A certificate that another authority made must not even end the handshake."""
    context = served.context()
    Ca.load(context, *Ca().issue("admin", ["system:masters"]))
    with pytest.raises(aiohttp.ClientError):
        await get(served, "/healthz", context)


async def test_sub_applications_get_the_peer() -> None:
    """Join and sign authenticate for themselves: they must learn who asks, and be reachable without a certificate."""

    async def who(request: web.Request) -> web.Response:
        user = request.get(USER)
        return web.json_response([user and user.name, request.get(IDENTITY) or None])

    async def broken(_request: web.Request) -> web.Response:
        raise RuntimeError("a bug")

    extra = web.Application()
    extra.router.add_get("/who", who)
    extra.router.add_get("/broken", broken)
    async with running(open_apps={"/identity/v1": extra}) as served:
        assert await get(served, "/identity/v1/who") == (200, [None, None])
        identity = "spiffe://cluster.local/node/n1"
        assert await get(served, "/identity/v1/who", served.context(uris=[identity])) == (200, ["system:node:n1", identity])
        assert await get(served, "/identity/v1/who", served.context("bob", ["people"])) == (200, ["bob", None])
        assert (await get(served, "/identity/v1/nothing"))[0] == 404
        status, body = await get(served, "/identity/v1/broken")
        assert (status, body["reason"]) == (500, "InternalError")


async def test_limits(served: Running) -> None:
    """Bodies without end, or nested without end, must not take the control plane down."""
    admin = served.context("admin", ["system:masters"])
    path = "/api/v1/namespaces/default/configmaps"
    headers = {"Content-Type": "application/json"}
    status, body = await get(served, path, admin, method="POST", data=b"x" * (4 * 2**20), headers=headers)
    assert (status, body["reason"]) == (413, "RequestEntityTooLarge")
    deep = b'{"metadata":' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    assert (await get(served, path, admin, method="POST", data=deep, headers=headers))[0] == 400
    for data in (b"", b"{", b"\xff\xfe", b'{"a": NaN}'):
        assert (await get(served, path, admin, method="POST", data=data, headers=headers))[0] == 400, data
    assert (await get(served, "/healthz"))[0] == 200


async def test_doubled_fields_are_refused_where_strict(served: Running) -> None:
    """Of a field that stands twice one would be lost without a word."""
    admin = served.context("admin", ["system:masters"])
    data = b'{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"a"},"data":{"k":"1","k":"2"}}'
    path, headers = "/api/v1/namespaces/default/configmaps", {"Content-Type": "application/json"}
    status, body = await get(served, f"{path}?fieldValidation=Strict", admin, method="POST", data=data, headers=headers)
    assert (status, 'duplicate field "data.k"' in body["message"]) == (400, True)
    assert (await get(served, path, admin, method="POST", data=data, headers=headers))[0] == 201


async def test_documents(served: Running) -> None:
    """kubectl knows kinds from discovery and fields from OpenAPI; both must be there for every kind."""
    admin = served.context("admin", ["system:masters"])
    accept = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json"
    status, found = await get(served, "/apis", admin, headers={"Accept": accept})
    assert (status, found["kind"]) == (200, "APIGroupDiscoveryList")
    assert (await get(served, "/apis", admin))[1]["kind"] == "APIGroupList"
    index = (await get(served, "/openapi/v3", admin))[1]["paths"]
    for kind in KINDS:
        for version in kind.versions:
            root = f"apis/{kind.group}/{version}" if kind.group else f"api/{version}"
            assert root in index
    document = (await get(served, index["api/v1"]["serverRelativeURL"], admin))[1]
    assert "/api/v1/namespaces/{namespace}/services/{name}" in document["paths"]
    assert (await get(served, "/openapi/v2", admin))[1]["swagger"] == "2.0"
    assert (await get(served, "/openapi/v3/apis/nothing/v1", admin))[0] == 404
    assert (await get(served, "/", admin))[1]["paths"]


async def test_a_rotated_certificate_is_served_to_new_connections(served: Running) -> None:
    """The control plane's certificate lives for a day; the server must not need a restart for the next."""

    def serial() -> bytes:
        import socket

        host, port = served.url.removeprefix("https://").split(":")
        with socket.create_connection((host, int(port))) as raw, served.context().wrap_socket(raw, server_hostname=host) as tls:
            return tls.getpeercert(binary_form=True) or b""

    before = await asyncio.to_thread(serial)
    pair = served.ca.issue("server", hosts=["127.0.0.1"])
    served.server.reload_tls(lambda context: Ca.load(context, *pair))
    after = await asyncio.to_thread(serial)
    assert before != after
    async with served.client() as api:
        await api.request("GET", "/api/v1/namespaces")


async def test_stopping_ends_watches(served: Running) -> None:
    """A control plane that waits for its watchers to go would never stop."""
    async with served.client() as api:
        assert api._session is not None
        async with api._session.get(f"{served.url}/api/v1/namespaces", params={"watch": "1"}) as response:
            await response.content.readline()
            await asyncio.wait_for(served.server.stop(), 10)
        with pytest.raises((Unavailable, ApiError)):
            await api.request("GET", "/api/v1/namespaces")


async def test_a_store_that_cannot_write_is_503(served: Running) -> None:
    """A full disk must reach the person as a sentence, not as a broken connection."""
    await served.store.close()
    async with served.client() as api:
        body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}}
        with pytest.raises(ApiError, match="the store is closed") as failed:
            await api.request("POST", "/api/v1/namespaces/default/configmaps", body=body)
        assert failed.value.http == 503


async def test_a_port_in_use_is_named() -> None:
    """A person must learn which port is taken."""
    async with running() as first:
        port = int(first.url.rpartition(":")[2])
        from tulle.control.apiserver.server import ApiServer

        second = ApiServer(MemoryStore(), tls=first.ca.server_context())
        with pytest.raises(Refused, match=str(port)):
            await second.start("127.0.0.1", port)
