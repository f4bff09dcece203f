"""A real Envoy on the other end of the stream: what the playbooks assume of it is what it does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from google.protobuf import json_format

from tests.playbook.dialogue import CLUSTER, ENDPOINT, LISTENER, ROUTE, VIRTUAL_HOST, Book
from tests.support.envoy import Proxy, running
from tests.support.mesh import free_port
from tests.support.xds import Watch, listening
from tulle.core.encoded import Encoded, encode
from tulle.core.envoy.bootstrap import Options, bootstrap
from tulle.pb import message_class, pool
from tulle.xds import server as xds_server
from tulle.xds.server import AdsServer, Observer
from tulle.xds.status import Nack

PROXY = "default/x"
ADS = {"ads": {}, "resource_api_version": "V3", "initial_fetch_timeout": "0s"}
HTTP = "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
ROUTER = "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"


def made(type_url: str, name: str, body: dict[str, Any], *refs: tuple[str, str]) -> Encoded:
    message = message_class(type_url.partition("/")[2])()
    json_format.ParseDict(body, message, descriptor_pool=pool())
    return encode(type_url, name, message.SerializeToString(deterministic=True), refs)


def cluster(name: str, timeout: str = "1s") -> Encoded:
    body = {"name": name, "type": "EDS", "connect_timeout": timeout, "eds_cluster_config": {"eds_config": ADS}}
    return made(CLUSTER, name, body, (ENDPOINT, name))


def endpoints(name: str, port: int) -> Encoded:
    address = {"socket_address": {"address": "127.0.0.1", "port_value": port}}
    return made(ENDPOINT, name, {"cluster_name": name, "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address}}]}]})


def listener(name: str, port: int, table_name: str) -> Encoded:
    manager = {
        "@type": HTTP,
        "stat_prefix": name,
        "rds": {"route_config_name": table_name, "config_source": ADS},
        "http_filters": [{"name": "router", "typed_config": {"@type": ROUTER}}],
    }
    body = {
        "name": name,
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": port}},
        "filter_chains": [{"filters": [{"name": "http", "typed_config": manager}]}],
    }
    return made(LISTENER, name, body, (ROUTE, table_name))


def table(name: str) -> Encoded:
    body = {"name": name, "vhds": {"config_source": ADS}, "validate_clusters": False}
    return made(ROUTE, name, body, (VIRTUAL_HOST, name))


def host(table_name: str, name: str, target: str, text: str = "") -> Encoded:
    """A virtual host that sends to a cluster, or answers by itself."""
    route: dict[str, Any] = {"match": {"prefix": "/"}}
    if text:
        route["direct_response"] = {"status": 200, "body": {"inline_string": text}}
    else:
        route["route"] = {"cluster": target}
    full = f"{table_name}/{name}"
    return made(VIRTUAL_HOST, full, {"name": full, "domains": [name], "routes": [route]})


class Notes(Observer):
    def __init__(self) -> None:
        self.watch = Watch()
        self.nacks: list[Nack] = []
        self.streams = 0

    def connected(self, proxy: str, stream: int) -> None:
        self.streams += 1
        self.watch.changed()

    def nacked(self, proxy: str, stream: int, nack: Nack) -> None:
        self.nacks.append(nack)


class Site:
    """A book, its server, and an Envoy that reads it."""

    def __init__(self, book: Book, server: AdsServer, notes: Notes, envoy: Proxy, port: int) -> None:
        self.book, self.server, self.notes, self.envoy, self.port = book, server, notes, envoy, port

    async def tell(self, *resources: Encoded, gone: Sequence[tuple[str, str]] = ()) -> None:
        """Publish, and wait until Envoy has answered all of it."""
        published = self.book.tell(*resources, gone=gone)
        self.server.publish(published)
        assert await self.server.wait_synced(published.revision, 10) == [], self.envoy.log()

    async def get(self, name: str, port: int = 0) -> tuple[int, str]:
        async with (
            aiohttp.ClientSession() as session,
            session.get(f"http://127.0.0.1:{port or self.port}/", headers={"Host": name}) as reply,
        ):
            return reply.status, await reply.text()

    async def warming(self) -> list[str]:
        text = await self.envoy.admin("/stats?filter=warming")
        return [line for line in text.splitlines() if "warming_state" not in line and not line.endswith(": 0")]


def book_at(port: int) -> Book:
    """A listener whose table is empty, and a cluster."""
    book = Book()
    book.tell(cluster("one"), endpoints("one", 1), listener("l", port, "t"), table("t"))
    return book


@asynccontextmanager
async def site(scratch: Path) -> AsyncIterator[Site]:
    port = free_port()
    book, notes = book_at(port), Notes()
    server = AdsServer(book, observer=notes, known=lambda proxy, type_url, name: name != "stuck")
    options = Options(
        node_id=PROXY,
        cluster="x",
        xds_socket=str(scratch / "x.sock"),
        admin_socket=str(scratch / "a.sock"),
        health_port=0,
        metrics_port=0,
    )
    async with listening(server, str(scratch / "x.sock")), running(bootstrap(options), scratch) as envoy:
        # An empty table is answered: without that Envoy, which waits without end, would never get ready.
        await envoy.until("/ready", "LIVE", deadline=10)
        yield Site(book, server, notes, envoy, port)


async def test_virtual_hosts_and_tables_come_and_go(tmp_path: Path) -> None:
    """Would fail if Envoy asked for virtual hosts in another way than the server believes: its tables would stay empty or old."""
    async with site(tmp_path) as it:
        assert (await it.get("a"))[0] == 404
        await it.tell(host("t", "a", "", "first"))
        assert await it.get("a") == (200, "first")
        await it.tell(host("t", "a", "", "second"), host("t", "b", "", "other"))
        assert await it.get("a") == (200, "second")
        port = free_port()
        await it.tell(listener("m", port, "u"), table("u"), host("u", "a", "", "of u"))
        assert await it.get("a", port) == (200, "of u")
        assert await it.get("a") == (200, "second")
        await it.tell(gone=[(VIRTUAL_HOST, "t/b"), (LISTENER, "m")])
        assert (await it.get("b"))[0] == 404
        await it.tell(listener("m", port, "u"), host("u", "a", "", "of u again"))
        await it.envoy.until("/listeners", f"m::127.0.0.1:{port}")
        assert await it.get("a", port) == (200, "of u again")
        assert it.notes.nacks == []


async def test_a_changed_cluster_gets_warm(tmp_path: Path) -> None:
    """Would fail if a changed cluster stayed in warming, with the old one in use for ever, because its endpoints did not come."""
    async with site(tmp_path) as it:
        for number in range(3):
            await it.tell(cluster("one", f"{number + 2}s"), cluster(f"more{number}"), endpoints(f"more{number}", 1))
            assert await it.warming() == []
        assert '"connect_timeout": "4s"' in await it.envoy.admin("/config_dump")


async def test_refused_resources_are_named_and_the_rest_is_taken(tmp_path: Path) -> None:
    """Would fail if one bad cluster or virtual host kept good ones of the same revision from Envoy."""
    async with site(tmp_path) as it:
        bad = made(CLUSTER, "bad", {"name": "bad", "type": "EDS", "connect_timeout": "1s"})
        await it.tell(bad, cluster("good"), endpoints("good", 1), host("t", "a", "", "good"))
        assert [(nack.type_url, nack.names) for nack in it.notes.nacks] == [(CLUSTER, ("bad",))]
        assert await it.get("a") == (200, "good")
        wrong = host("t", "b", "", "x")
        clash = made(VIRTUAL_HOST, "t/c", {"name": "t/c", "domains": ["c", "c"]})
        await it.tell(wrong, clash, host("t", "d", "", "fine"))
        assert [(nack.type_url, nack.names) for nack in it.notes.nacks[1:]] == [(VIRTUAL_HOST, ("t/c",))]
        assert await it.get("d") == (200, "fine")
        (status,) = it.server.proxies()
        assert {name for one in status.types for name in one.refused} == {"bad", "t/c"}
        await it.tell(gone=[(CLUSTER, "bad"), (VIRTUAL_HOST, "t/c")])
        (status,) = it.server.proxies()
        assert {name for one in status.types for name in one.refused} == set()


async def test_envoy_comes_back_with_what_it_has(tmp_path: Path) -> None:
    """Would fail if a restart of the server cost Envoy anything, or changes meanwhile were lost."""
    async with site(tmp_path) as it:
        await it.tell(host("t", "a", "", "old"), host("t", "b", "", "stays"), host("t", "c", "", "goes"))
        await it.server.close()
        it.book.tell(cluster("one", "9s"), host("t", "a", "", "new"), host("t", "d", "", "more"), gone=[(VIRTUAL_HOST, "t/c")])
        await it.notes.watch.until(lambda: it.notes.streams == 2)
        assert await it.server.wait_synced(it.book.revision, 10) == []
        assert [await it.get(name) for name in "abd"] == [(200, "new"), (200, "stays"), (200, "more")]
        assert (await it.get("c"))[0] == 404
        assert await it.warming() == []


async def test_an_envoy_that_holds_back_its_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Would fail if a cluster that never warms (Envoy answers no cluster update until then) stopped routes for good."""
    monkeypatch.setattr(xds_server, "PATIENCE", 0.3)
    async with site(tmp_path) as it:
        # Nobody says anything about this one's endpoints.
        published = it.book.tell(cluster("stuck"), host("t", "a", "", "routes go on"))
        it.server.publish(published)
        await it.envoy.until("/config_dump", "routes go on")
        assert await it.get("a") == (200, "routes go on")
        assert await it.warming() != []
        assert await it.server.wait_synced(published.revision, 0.1) == [PROXY]
        # What else changes goes on too, and the type that was late catches up.
        it.server.publish(it.book.tell(host("t", "a", "", "and on"), endpoints("one", 2), cluster("late"), endpoints("late", 1)))
        await it.envoy.until("/config_dump", "and on")
        published = it.book.tell(endpoints("stuck", 1))
        it.server.publish(published)
        assert await it.server.wait_synced(published.revision, 10) == []
        await it.envoy.until("/clusters", "late::127.0.0.1:1")
        assert await it.warming() == []


async def test_no_request_fails_while_routes_and_clusters_change(tmp_path: Path) -> None:
    """Would fail if a route could arrive before its cluster, or a cluster go before the route to it: a 503 in between."""

    async def hello(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.readuntil(b"\r\n\r\n"):
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")

    application = await asyncio.start_server(hello, "127.0.0.1", 0)
    at = application.sockets[0].getsockname()[1]
    async with site(tmp_path) as it:
        await it.tell(cluster("v0"), endpoints("v0", at), host("t", "a", "v0"))
        await it.envoy.until("/clusters", "v0::127.0.0.1")
        failed: list[Any] = []
        done = asyncio.Event()
        count = 0

        async def load() -> None:
            nonlocal count
            async with aiohttp.ClientSession() as session:
                while not done.is_set():
                    async with session.get(f"http://127.0.0.1:{it.port}/", headers={"Host": "a"}) as reply:
                        count += 1
                        if reply.status != 200:
                            failed.append((reply.status, await reply.text()))

        tasks = [asyncio.create_task(load()) for _ in range(2)]
        for number in range(1, 41):
            old, new = f"v{number - 1}", f"v{number}"
            await it.tell(cluster(new), endpoints(new, at), host("t", "a", new), gone=[(CLUSTER, old), (ENDPOINT, old)])
        done.set()
        await asyncio.gather(*tasks)
        assert failed == []
        assert count > 40
    application.close()
