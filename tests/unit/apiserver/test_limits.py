"""Limits of the public face, with real sockets: what is too much, too long, too slow, and that others do not suffer from it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import resource
import ssl
from typing import Any

import aiohttp
import pytest

from tests.support.apiserver import Running, running
from tests.support.asking import Person
from tests.support.wire import wire
from tulle.control.apiserver.connections import Connections
from tulle.control.apiserver.errors import Denial
from tulle.control.apiserver.limits import Limits, Rates, Shares

MAPS = "/api/v1/namespaces/default/configmaps"


def admin(served: Running) -> ssl.SSLContext:
    return served.context("admin", ["system:masters"])


def status(answer: bytes) -> tuple[int, str]:
    """Status and reason of a raw answer that is Kubernetes' `Status`."""
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split()[1]), json.loads(body)["reason"]


async def gone(served: Running, left: int = 0) -> None:
    """Wait until the server has no more than so many connections."""
    while served.server.connections.count > left:
        await asyncio.wait([asyncio.ensure_future(asyncio.sleep(0))])


async def test_headers_that_come_too_slowly() -> None:
    """Slowloris: a client that dribbles its headers, or sends nothing at all, holds a connection for seconds and no longer."""
    async with running(limits=Limits(head_seconds=0.3)) as served:
        async with wire(served) as slow:
            await slow.send("GET /healthz HTTP/1.1\r\nHost: x\r\n")

            async def dribble() -> None:
                for number in range(1000):
                    await slow.send(f"X-{number}: y\r\n")
                    await asyncio.sleep(0.02)

            dribbling = asyncio.create_task(dribble())
            answer = await slow.read()
            dribbling.cancel()
            assert status(answer) == (408, "Timeout")
            assert b"Connection: close" in answer
        async with wire(served) as silent:
            assert await silent.read() == b""
        # Also on a connection that has been used, and not on one that is only idle.
        async with wire(served, admin(served)) as second:
            await second.send("GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
            assert b"200 OK" in await second.read(b"ok")
            await asyncio.sleep(0.5)
            await second.send("GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
            assert b"200 OK" in await second.read(b"ok")
            await second.send("GET /healthz HTTP/1.1\r\n")
            assert status(await second.read()) == (408, "Timeout")


async def test_a_connection_that_has_written_may_be_idle() -> None:
    """Broken: a kept connection that has sent a body is told 408 and cut off, seconds later, for a head that it owes nobody."""
    async with running(limits=Limits(head_seconds=0.3)) as served, wire(served, admin(served)) as one:
        made = json.dumps({"metadata": {"name": "c"}})
        await one.send(
            f"POST {MAPS} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(made)}\r\n\r\n{made}"
        )
        assert b"201 Created" in await one.read(b"managedFields")
        await asyncio.sleep(0.5)
        await one.send("GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        assert b"HTTP/1.1 200" in await one.read(b"\r\n\r\nok")


async def test_a_body_that_comes_too_slowly() -> None:
    """A client that promises a body and does not send it, on any path that takes one."""
    async with running(limits=Limits(body_seconds=0.3)) as served:
        for path in (MAPS, "/tulle/v1/apitokens", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"):
            async with wire(served, admin(served)) as slow:
                head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
                await slow.send(f"{head}Content-Length: 100\r\n\r\n{{")
                assert status(await slow.read(b'"code":408')) == (408, "Timeout"), path
            async with wire(served, admin(served)) as slow:
                await slow.send(f"{head}Transfer-Encoding: chunked\r\n\r\n1\r\n{{\r\n")
                assert status(await slow.read(b'"code":408')) == (408, "Timeout"), path


async def test_bodies_that_are_too_large() -> None:
    """413 for one that says so before it is sent, and for one that does not say; nothing of either is kept."""
    async with running() as served:
        async with wire(served, admin(served)) as large:
            head = f"POST {MAPS} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            await large.send(f"{head}Content-Length: {100 * 2**20}\r\n\r\n")
            assert status(await large.read(b'"code":413')) == (413, "RequestEntityTooLarge")
        async with Person(served, context=admin(served)) as person:

            async def endless() -> Any:
                while True:
                    yield b"x" * 65536

            try:
                got = await person.status("POST", MAPS, data=endless(), headers={"Content-Type": "application/json"})
            except aiohttp.ClientError:  # it closed while the client still sent
                got = 413
            assert got == 413
            assert await person.status("GET", MAPS) == 200


async def test_urls_and_headers_that_are_too_long() -> None:
    """414 and 431; up to there both are taken: a selector, or a token with many groups, is long."""
    async with running(limits=Limits(url=4096, head=16384)) as served:
        for send, expected in (
            (f"GET /healthz?{'x' * 4000} HTTP/1.1\r\nHost: x\r\n\r\n", 200),
            (f"GET /healthz?{'x' * 5000} HTTP/1.1\r\nHost: x\r\n\r\n", 414),
            (f"GET /healthz?{'x' * 200_000}", 414),
            (f"GET /healthz HTTP/1.1\r\nHost: x\r\nX: {'y' * 12000}\r\n\r\n", 200),
            (f"GET /healthz HTTP/1.1\r\nHost: x\r\nX: {'y' * 17000}\r\n\r\n", 431),
            ("GET /healthz HTTP/1.1\r\nHost: x\r\n" + "".join(f"X-{n}: {'y' * 200}\r\n" for n in range(100)) + "\r\n", 431),
            (f"GET /healthz HTTP/1.1\r\nHost: x\r\nX: {'y' * 100_000}", 431),
        ):
            async with wire(served) as one:
                await one.send(send)
                answer = await one.read(b"\r\n\r\nok")
                assert int(answer.split()[1]) == expected, send[:40]
        # What is long only because several requests came at once is none of it.
        async with wire(served) as many:
            await many.send("GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n" * 1000)
            got = b""
            while got.count(b"200 OK") < 1000:
                got += await many.read(b"200 OK")


async def test_json_that_is_too_deep(served: Running) -> None:
    """400, in every form in which an object can come: a deep one would take the server's stack, at every read again."""
    gateway = "/apis/gateway.networking.k8s.io/v1/gatewayclasses"
    json_, merge, steps = "application/json", "application/merge-patch+json", "application/json-patch+json"

    def nested(depth: int) -> bytes:
        return b'{"status":{"a":' + b'{"a":' * depth + b"1" + b"}" * depth + b"}}"

    async with Person(served, context=admin(served)) as person:
        body = {"apiVersion": "gateway.networking.k8s.io/v1", "kind": "GatewayClass", "metadata": {"name": "c"}}
        assert await person.status("POST", gateway, body | {"spec": {"controllerName": "a.b/c"}}) == 201
        for depth in (300, 1_000, 100_000, 400_000):
            for method, path, kind in (
                ("POST", gateway, json_),
                ("PUT", f"{gateway}/c", json_),
                ("PATCH", f"{gateway}/c/status?fieldManager=x", merge),
                ("PATCH", f"{gateway}/c/status?fieldManager=x", "application/apply-patch+yaml"),
                ("PATCH", f"{gateway}/c/status?fieldManager=x", steps),
            ):
                data = nested(depth)
                if kind == steps:
                    data = b'[{"op":"add","path":"/status","value":' + data + b"}]"
                status_, answer = await person.ask(method, path, data=data, headers={"Content-Type": kind})
                assert (status_, "nest" in answer["message"]) == (400, True), (depth, method, kind)
        # What stands in a text opens no level, and texts may be as long as they like.
        maps = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"k": '[{"\\' * 1000}}
        assert await person.status("POST", MAPS, maps) == 201


async def test_a_burst_of_one_user_is_slowed() -> None:
    """429 with Retry-After, as Kubernetes' clients understand it, for that user alone; health checks and masters go on."""
    async with (
        running(limits=Limits(rate=5.0)) as served,
        Person(served, "eve") as eve,
        Person(served, "bob") as bob,
        Person(served, "root", "system:masters") as root,
        Person(served) as probe,
    ):
        seen = []
        for _ in range(20):
            async with eve.session.get(f"{served.url}/api") as response:
                seen.append(response.status)
                if response.status == 429:
                    body = await response.json()
                    assert response.headers["Retry-After"] == "1"
                    assert (body["reason"], body["details"]["retryAfterSeconds"]) == ("TooManyRequests", 1)
        assert seen[:10] == [200] * 10
        assert seen[-1] == 429
        assert await bob.status("GET", "/api") == 200
        assert [await root.status("GET", "/api") for _ in range(30)] == [200] * 30
        assert [await probe.status("GET", "/healthz") for _ in range(30)] == [200] * 30
        # Who is nobody is counted by his address; and a master who acts as another is that other.
        assert 429 in [await probe.status("GET", "/api") for _ in range(20)]
        as_eve = {"Impersonate-User": "eve"}
        assert 429 in [await root.status("GET", "/api", headers=as_eve) for _ in range(20)]


async def test_requests_at_once() -> None:
    """A user who lets his requests wait (bodies that do not come) fills his own share and nobody else's."""
    async with running(limits=Limits(at_once=3)) as served:
        await served.store.list()
        path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
        head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        head += "Content-Length: 100\r\nExpect: 100-continue\r\n\r\n"
        context = served.context("eve")
        async with wire(served, context) as one, wire(served, context) as two, wire(served, context) as three:
            for slow in (one, two, three):
                await slow.send(head)
                assert b"100 Continue" in await slow.read(b"Continue")
            async with Person(served, "eve") as eve, Person(served, "bob") as bob:
                got, body = await eve.ask("GET", "/api")
                while got == 200:  # the three are not all with the handler yet
                    got, body = await eve.ask("GET", "/api")
                assert (got, body["reason"]) == (429, "TooManyRequests")
                assert await bob.status("GET", "/api") == 200
                one.writer.transport.abort()
                while await eve.status("GET", "/api") != 200:
                    pass


async def test_the_number_of_watches() -> None:
    """429 for the watch that is one too many, of a user and in all; one that ends makes room."""
    async with (
        running(limits=Limits(watches=2, watches_in_all=4)) as served,
        Person(served, "v", "tulle:viewers") as first,
        Person(served, "w", "tulle:viewers") as second,
        Person(served, "root", "system:masters") as root,
    ):
        path = f"{served.url}{MAPS}?watch=true"

        async def watch(person: Person) -> aiohttp.ClientResponse:
            return await person.session.get(path)

        held = [await watch(person) for person in (first, first, second, root)]
        assert [one.status for one in held] == [200] * 4
        full = await watch(first)
        assert (full.status, (await full.json())["reason"]) == (429, "TooManyRequests")
        in_all = await watch(root)
        assert in_all.status == 429
        assert await first.status("GET", MAPS) == 200
        held[0].close()
        while (again := await watch(first)).status != 200:
            again.close()
        for one in (*held, again):
            one.close()


async def test_a_client_that_does_not_read_is_cut() -> None:
    """A watch, or a large answer, that nobody reads must not fill the server's memory."""
    async with running(limits=Limits(write_seconds=0.3)) as served, Person(served, context=admin(served)) as person:
        async with wire(served, admin(served), receive_buffer=4096) as deaf:
            await deaf.send(f"GET {MAPS}?watch=true HTTP/1.1\r\nHost: x\r\n\r\n")
            while not served.server.routes.watches:
                await person.status("GET", "/healthz")
            big = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "big"}, "data": {"k": "x" * 500_000}}
            assert await person.status("POST", MAPS, big) == 201
            number = 0
            async with asyncio.timeout(20):
                while served.server.routes.watches:
                    number += 1
                    patch = {"metadata": {"annotations": {"n": str(number)}}}
                    headers = {"Content-Type": "application/merge-patch+json"}
                    await person.ask("PATCH", f"{MAPS}/big", patch, headers=headers)
        assert await person.status("GET", MAPS) == 200


async def test_connections_of_one_address() -> None:
    """One address must not take all descriptors: the connection that is one too many is closed, and one that ends makes room."""
    async with running(limits=Limits(connections_per_address=3)) as served:
        context = admin(served)
        async with wire(served, context) as one, wire(served, context) as two, wire(served, context):
            assert served.server.connections.count == 3
            with pytest.raises(OSError):
                async with wire(served, context):
                    pass
            await two.send("GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            assert b"200 OK" in await two.read()
            await one.send("GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
            assert b"200 OK" in await one.read(b"ok")
            await gone(served, 2)
            async with wire(served, context) as five:
                await five.send("GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
                assert b"200 OK" in await five.read(b"ok")


def test_descriptors_are_left_for_the_rest() -> None:
    """Clients, and those of one address, must never take the last descriptor: the store needs some too."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (400, hard))
    try:
        connections = Connections(Limits())
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert (connections.most, connections.most_of_address) == (300, 150)


async def test_strangers_make_room() -> None:
    """Connections that show nobody are let go, the oldest first; those of users stay."""
    async with (
        running(limits=Limits(strangers=2)) as served,
        wire(served, admin(served)) as user,
        wire(served) as oldest,
        wire(served) as other,
        wire(served) as newest,
    ):
        assert await oldest.read() == b""
        for one in (user, other, newest):
            await one.send("GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
            assert b"200 OK" in await one.read(b"ok")


async def test_a_handshake_that_does_not_come() -> None:
    """A TCP connection without TLS holds a descriptor for seconds and no longer."""
    async with running(limits=Limits(handshake_seconds=0.3)) as served:
        host, port = served.url.removeprefix("https://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        async with asyncio.timeout(10):
            assert await reader.read() == b""
            await gone(served)
        writer.close()
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")  # no TLS at all
        async with asyncio.timeout(10):
            with contextlib.suppress(ConnectionError):
                assert b"HTTP" not in await reader.read()
            await gone(served)
        writer.close()


def test_rates() -> None:
    """A burst of twice the rate, then the rate; who was quiet has his burst again; names do not pile up."""
    rates = Rates(10)
    assert [rates.wait("a", 0.0) for _ in range(20)] == [0.0] * 20
    assert rates.wait("a", 0.0) == pytest.approx(0.1)
    assert rates.wait("b", 0.0) == 0
    assert rates.wait("a", 0.1) == 0
    assert rates.wait("a", 0.1) > 0
    assert rates.wait("a", 0.15, take=False) == pytest.approx(0.05)
    assert [rates.wait("a", 100.0) for _ in range(20)] == [0.0] * 20
    for number in range(20_000):
        rates.wait(str(number), 200.0)
    assert len(rates._buckets) <= 10_000


def test_shares() -> None:
    """What is given back can be had again, also after an error; the total holds for the exempt too."""
    shares = Shares(1, 2, "things")
    with shares.hold("a", False):
        with pytest.raises(Denial), shares.hold("a", False):
            pass
        with shares.hold("a", True), pytest.raises(Denial), shares.hold("root", True):
            pass
    with pytest.raises(ValueError), shares.hold("a", False):
        raise ValueError
    assert shares.count == 0
    with shares.hold("a", False):
        pass
