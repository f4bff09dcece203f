"""Processes by pid and start time."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys

from tulle.node.process import INSTANCE, PROXY, WORKLOAD, Process, carrying, end, process, proxies, this


def sleeper(**environment: str) -> subprocess.Popen[bytes]:
    """A process that does nothing; it has executed (and so has its environment) when this returns."""
    program = [sys.executable, "-c", "import time; print(flush=True); time.sleep(600)"]
    child = subprocess.Popen(program, env={**os.environ, **environment}, stdout=subprocess.PIPE)
    assert child.stdout is not None
    child.stdout.readline()
    child.stdout.close()
    return child


def test_a_pid_that_came_back_is_another() -> None:
    """A signal would hit, or an owner be seen in, a stranger that has got the pid of the dead."""
    me = this()
    assert me.alive
    assert not Process(me.pid, me.started - 1).alive
    assert not Process(me.pid, me.started - 1).send(signal.SIGKILL)


async def test_the_end_is_seen_at_once() -> None:
    """An Envoy's crash would be noticed late, or never where it is not this process's child."""
    child = sleeper()
    running = process(child.pid)
    assert running is not None
    waiting = asyncio.create_task(running.ended())
    await asyncio.sleep(0)
    assert not waiting.done()
    child.kill()
    async with asyncio.timeout(5):
        await waiting
    assert not running.alive, "a zombie is not alive"
    child.wait()
    async with asyncio.timeout(5):
        await running.ended()


def test_found_by_what_they_carry() -> None:
    """What a kill -9 of the agent left would stay for ever, or something that is not ours be stopped."""
    instance = f"test-{os.getpid()}"
    app = sleeper(**{INSTANCE: instance, WORKLOAD: "default/a"})
    proxy = sleeper(**{INSTANCE: instance, PROXY: "default/a"})
    other = sleeper(**{INSTANCE: instance + "0", WORKLOAD: "default/a"})
    try:
        assert {it.pid for it in carrying(instance)} == {app.pid, proxy.pid}
        assert [it.pid for it in carrying(instance, "default/a")] == [app.pid]
        assert [(workload, it.pid) for workload, it in proxies(instance)] == [("default/a", proxy.pid)]
    finally:
        for child in (app, proxy, other):
            child.kill()
            child.wait()


async def test_the_stubborn_are_killed() -> None:
    """An application that ignores SIGTERM would keep a workload from going."""
    program = "import signal, time; signal.signal(15, signal.SIG_IGN); print(flush=True); time.sleep(600)"
    child = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE)
    assert child.stdout is not None
    child.stdout.readline()
    child.stdout.close()
    running = process(child.pid)
    assert running is not None
    await end([running], grace=0.2)
    assert child.wait(timeout=5) == -signal.SIGKILL
