"""The workloads' DNS in a process of its own: a real one, real sockets, kill -9."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import dns.message
import pytest

from tulle.node.process import carrying, end
from tulle.node.resolver import Resolver

NAME = "reviews.default.svc.cluster.local"


class Place:
    """Where a workload's DNS would be captured to: a UDP port that is bound again by whoever asks for it."""

    def __init__(self) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]

    async def sockets(self) -> Sequence[socket.socket]:
        made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        made.setblocking(False)
        made.bind(("127.0.0.1", self.port))
        return [made]

    async def ask(self, name: str = "reviews") -> list[str]:
        """The addresses; asked again until there is an answer, as a C library would."""
        query = dns.message.make_query(name, "A")
        loop = asyncio.get_running_loop()
        deadline = loop.time() + 20
        while loop.time() < deadline:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
                asking.setblocking(False)
                asking.connect(("127.0.0.1", self.port))
                try:
                    await loop.sock_sendall(asking, query.to_wire())
                    async with asyncio.timeout(0.2):
                        answer = dns.message.from_wire(await loop.sock_recv(asking, 4096))
                except (OSError, TimeoutError):
                    await asyncio.sleep(0.02)
                    continue
                return sorted(str(item) for rrset in answer.answer for item in rrset)
        raise AssertionError("nobody answers")


class Rig:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.instance = f"dns-{os.getpid()}-{folder.name}"
        self.resolver = Resolver(folder, self.instance)

    def pids(self) -> set[int]:
        return {it.pid for it in carrying(self.instance)}


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    with tempfile.TemporaryDirectory(prefix="tn-") as folder:
        made = Rig(Path(folder))
        yield made
        await made.resolver.close(end=True)
        await end(carrying(made.instance), grace=2)


async def test_answers_and_ends(rig: Rig) -> None:
    """Mesh names would not resolve, or the process stay behind when the node is torn down."""
    place = Place()
    await rig.resolver.publish("default/a", {NAME: ["240.240.0.7"]})
    await rig.resolver.serve("default/a", "default", place.sockets)
    assert await place.ask() == ["240.240.0.7"]
    await rig.resolver.publish("default/a", {NAME: ["240.240.0.8"]})
    assert await place.ask() == ["240.240.0.8"]
    (process,) = carrying(rig.instance)
    await rig.resolver.close(end=True)
    async with asyncio.timeout(10):
        await process.ended()


async def test_a_namespace_of_its_own(rig: Rig) -> None:
    """A short name would mean the service of another namespace."""
    one, two = Place(), Place()
    await rig.resolver.publish("default/a", {NAME: ["240.240.0.7"], "reviews.shop.svc.cluster.local": ["240.240.0.9"]})
    await rig.resolver.publish("shop/a", {NAME: ["240.240.0.7"], "reviews.shop.svc.cluster.local": ["240.240.0.9"]})
    await rig.resolver.serve("default/a", "default", one.sockets)
    await rig.resolver.serve("shop/a", "shop", two.sockets)
    assert await one.ask() == ["240.240.0.7"]
    assert await two.ask() == ["240.240.0.9"]
    assert len(rig.pids()) == 1, "one process for all"


async def test_it_is_started_again(rig: Rig) -> None:
    """After a crash no workload of the node would resolve a name any more."""
    place = Place()
    await rig.resolver.publish("default/a", {NAME: ["240.240.0.7"]})
    await rig.resolver.serve("default/a", "default", place.sockets)
    (first,) = rig.pids()
    os.kill(first, signal.SIGKILL)
    assert await place.ask() == ["240.240.0.7"]
    assert first not in rig.pids()


async def test_it_outlives_its_agent_and_is_found_again(rig: Rig) -> None:
    """Requests would fail while the agent is away, since applications look names up all the time."""
    place = Place()
    program = textwrap.dedent(
        f"""
        import asyncio, socket
        from pathlib import Path
        from tulle.node.resolver import Resolver
        async def sockets():
            made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            made.setblocking(False)
            made.bind(("127.0.0.1", {place.port}))
            return [made]
        async def main():
            resolver = Resolver(Path({str(rig.folder)!r}), {rig.instance!r})
            await resolver.publish("default/a", {{{NAME!r}: ["240.240.0.7"]}})
            await resolver.serve("default/a", "default", sockets)
            print("on", flush=True)
            await asyncio.Event().wait()
        asyncio.run(main())
        """
    )
    agent = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE)
    assert agent.stdout is not None
    assert await asyncio.to_thread(agent.stdout.readline) == b"on\n"
    agent.kill()
    agent.wait()
    agent.stdout.close()
    assert await place.ask() == ["240.240.0.7"]
    (process,) = rig.pids()
    await rig.resolver.serve("default/a", "default", place.sockets)
    assert rig.pids() == {process}, "the same one goes on, with the same sockets"
    assert await place.ask() == ["240.240.0.7"], "and with the names that it has, until there are others"
    await rig.resolver.publish("default/a", {NAME: ["240.240.0.8"]})
    assert await place.ask() == ["240.240.0.8"]


async def test_each_has_the_names_that_it_was_told(rig: Rig) -> None:
    """Broken: what a Sidecar leaves out would resolve because a neighbour knows it, or no longer do so for the neighbour."""
    one, two = Place(), Place()
    await rig.resolver.publish("default/a", {NAME: ["240.240.0.7"]})
    await rig.resolver.publish("default/b", {"details.default.svc.cluster.local": ["240.240.0.9"]})
    await rig.resolver.serve("default/a", "default", one.sockets)
    await rig.resolver.serve("default/b", "default", two.sockets)
    assert [await place.ask() for place in (one, two)] == [["240.240.0.7"], []]
    assert [await place.ask("details") for place in (one, two)] == [[], ["240.240.0.9"]]
    await rig.resolver.publish("default/b", {NAME: ["240.240.0.7"]})
    assert [await place.ask() for place in (one, two)] == [["240.240.0.7"], ["240.240.0.7"]]
    await rig.resolver.forget("default/b")
    assert await one.ask() == ["240.240.0.7"]
