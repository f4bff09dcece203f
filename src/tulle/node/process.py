"""Processes that this agent may not be the parent of: named by pid and start time, watched by pidfd, found by what they carry."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import msgspec

INSTANCE = "TULLE_INSTANCE"  # in the environment of everything that an agent starts, and of what that starts
WORKLOAD = "TULLE_WORKLOAD"  # beside it in applications: `namespace/name`
PROXY = "TULLE_PROXY"  # beside it in an Envoy: whose it is


class Process(msgspec.Struct, frozen=True):
    """A process, and no later one with the same pid: `started` is its start in clock ticks since boot."""

    pid: int
    started: int

    @property
    def alive(self) -> bool:
        """Whether it still runs (a zombie does not)."""
        return started(self.pid) == self.started

    def send(self, number: int) -> bool:
        """Send a signal to exactly this process; False where it has ended."""
        try:
            descriptor = os.pidfd_open(self.pid)
        except OSError:
            return False
        try:
            if not self.alive:
                return False
            signal.pidfd_send_signal(descriptor, number)
        except ProcessLookupError:
            return False
        finally:
            os.close(descriptor)
        return True

    async def ended(self) -> None:
        """Return once it has ended. Works for children and strangers alike; reaps nothing."""
        try:
            descriptor = os.pidfd_open(self.pid)
        except OSError:
            return
        loop = asyncio.get_running_loop()
        over = loop.create_future()

        def readable() -> None:
            loop.remove_reader(descriptor)
            if not over.done():
                over.set_result(None)

        try:
            if not self.alive:
                return
            loop.add_reader(descriptor, readable)
            await over
        finally:
            loop.remove_reader(descriptor)
            os.close(descriptor)


def started(pid: int) -> int | None:
    """The start time of a pid in clock ticks since boot, or None where nothing runs under it."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    fields = stat.rpartition(")")[2].split()  # the command's name may hold anything, also spaces and brackets
    return None if fields[0] in "ZX" else int(fields[19])


def process(pid: int) -> Process | None:
    """The process that runs under a pid now."""
    start = started(pid)
    return None if start is None else Process(pid=pid, started=start)


def this() -> Process:
    """The calling process."""
    found = process(os.getpid())
    assert found is not None
    return found


def carrying(instance: str, workload: str | None = None) -> list[Process]:
    """The processes whose environment has this instance (and workload). Reads /proc: call it from a thread."""
    return [it for it, marks in _marked(instance) if workload is None or marks.get(WORKLOAD) == workload]


def proxies(instance: str) -> list[tuple[str, Process]]:
    """The Envoys of this instance, with the workload of each. Reads /proc: call it from a thread."""
    return [(marks[PROXY], it) for it, marks in _marked(instance) if PROXY in marks]


def marks(pid: int, uid: int) -> dict[str, str]:
    """What a process of this user says of itself; nothing of one that ended, or is another's."""
    try:
        return _marks(pid) if os.stat(f"/proc/{pid}").st_uid == uid else {}
    except OSError:
        return {}


def _marks(pid: int) -> dict[str, str]:
    pairs = Path(f"/proc/{pid}/environ").read_bytes().decode(errors="replace").split("\0")
    return {name: value for name, _, value in (it.partition("=") for it in pairs) if name.startswith("TULLE_")}


def _marked(instance: str) -> Iterator[tuple[Process, dict[str, str]]]:
    for entry in os.listdir("/proc"):
        if not entry.isdigit() or int(entry) == os.getpid():
            continue
        with contextlib.suppress(OSError):  # ended meanwhile, or another user's
            if _marks(int(entry)).get(INSTANCE) != instance or (it := process(int(entry))) is None:
                continue
            # Asked again, now that it has a name: the pid may have become another's in between.
            if (found := _marks(int(entry))).get(INSTANCE) == instance:
                yield it, found


async def end(processes: list[Process], grace: float) -> None:
    """SIGTERM to all, `grace` seconds for them to end, then SIGKILL to those that have not."""
    waiting = [asyncio.ensure_future(it.ended()) for it in processes if it.send(signal.SIGTERM)]
    if not waiting:
        return
    await asyncio.wait(waiting, timeout=grace)
    for it in processes:
        it.send(signal.SIGKILL)
    await asyncio.wait(waiting, timeout=grace)
    for task in waiting:
        task.cancel()
