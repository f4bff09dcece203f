"""When an application counts as ready."""

from __future__ import annotations

import asyncio
import contextlib
import queue
import socket
from collections.abc import Collection

from tulle.node.health import FAST, GONE_FOR, PATIENCE, SLOW, Readiness, watch
from tulle.node.sandbox import listening_ports, receiving_ports


def test_ready_at_the_first_look() -> None:
    """A started application would wait for its callers longer than it must."""
    readiness = Readiness()
    assert not readiness.look(False, 0.0)
    assert readiness.look(True, 0.1)
    assert readiness.ready


def test_a_gap_is_not_told() -> None:
    """A quick restart of an application would travel through the whole mesh twice."""
    readiness = Readiness(ready=True)
    assert not readiness.look(False, 10.0)
    assert not readiness.look(False, 10.0 + GONE_FOR / 2)
    assert not readiness.look(True, 10.0 + GONE_FOR)
    assert not readiness.look(False, 20.0), "the gap before does not count"
    assert readiness.look(False, 20.0 + GONE_FOR)
    assert not readiness.ready


def test_looks_often_only_while_it_helps() -> None:
    """An idle node would burn CPU, or a starting application be noticed late."""
    readiness = Readiness()
    readiness.look(False, 0.0)
    assert readiness.pause(1.0) == FAST
    assert readiness.pause(PATIENCE + 1) == SLOW, "an application that does not come"
    readiness.look(True, PATIENCE + 2)
    assert readiness.pause(PATIENCE + 2) == SLOW


async def test_a_real_listener_is_seen() -> None:
    """No application would ever become ready, or an application with one of two ports would."""
    told: asyncio.Queue[bool] = asyncio.Queue()
    looks: queue.SimpleQueue[set[int]] = queue.SimpleQueue()

    def listening(wanted: Collection[int]) -> set[int]:
        found = listening_ports("self", wanted)
        looks.put(found)
        return found

    with socket.socket() as first, socket.socket(socket.AF_INET6) as second:
        first.bind(("127.0.0.1", 0))
        second.bind(("::1", 0))
        ports = {first.getsockname()[1], second.getsockname()[1]}
        watching = asyncio.create_task(watch(ports, listening, told.put_nowait, Readiness()))
        first.listen()
        while len(await asyncio.to_thread(looks.get) & ports) < 1:
            pass
        assert told.empty(), "one of two is not enough"
        second.listen()
        async with asyncio.timeout(5):
            assert await told.get()
    async with asyncio.timeout(GONE_FOR + 5):
        assert not await told.get()
    watching.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await watching


def test_what_is_wanted_is_found_without_reading_on() -> None:
    """A host with a hundred workloads would spend half a core on looking for listeners that it has already seen."""
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as two:
        ports = {one.getsockname()[1], two.getsockname()[1]}
        assert ports <= listening_ports("self")
        assert ports <= listening_ports("self", ports)
        assert not listening_ports("self", {1}) >= {1}
        with socket.create_connection(one.getsockname()):
            assert ports <= listening_ports("self", ports | {1})


async def test_without_ports_it_is_ready() -> None:
    """A workload that only calls would never count as ready."""
    told: list[bool] = []
    await watch((), set, told.append, Readiness())
    assert told == [True]


async def test_udp_ports_are_bound_and_not_listened_on() -> None:
    """Broken: a workload that takes datagrams would never be ready, or be so for its proxy's sockets or its own questions."""
    told: asyncio.Queue[bool] = asyncio.Queue()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one, socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as two:
        one.bind(("127.0.0.1", 0))
        two.bind(("::1", 0))
        bound = {one.getsockname()[1], two.getsockname()[1]}
        watching = asyncio.create_task(watch((), set, told.put_nowait, Readiness(), bound, lambda: receiving_ports("self")))
        try:
            assert await told.get()
        finally:
            watching.cancel()
        one.connect(("127.0.0.1", 9))
        assert receiving_ports("self") & bound == {two.getsockname()[1]}
