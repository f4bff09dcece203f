"""Finds this instance's processes in /proc, also after a crash: by pid and start time from a record, or by their environment.

Everything that an agent starts carries `TULLE_INSTANCE=<instance>` in its environment, and may carry `TULLE_ROLE`.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Collection, Iterable

import msgspec

PAUSE = "pause"  # TULLE_ROLE of the processes that only hold namespaces


class Process(msgspec.Struct, frozen=True, order=True):
    """A process that cannot be mistaken for a later one of the same pid. `started`: clock ticks after the machine's start."""

    pid: int
    started: int

    def alive(self) -> bool:
        """Whether it runs (a zombie does not)."""
        return started(self.pid) == self.started

    def send(self, number: signal.Signals) -> None:
        """Signal it, if it still runs and may be signalled."""
        if self.alive():
            try:
                os.kill(self.pid, number)
            except (ProcessLookupError, PermissionError):
                return


def started(pid: int) -> int | None:
    """The start time of a running process, or None."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            state, *fields = file.read().rpartition(b")")[2].split()
    except OSError:
        return None
    return None if state in (b"Z", b"X") else int(fields[18])


def environment(pid: int) -> dict[str, str]:
    """The environment that a process was started with; empty where it may not be read."""
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            pairs = (pair.partition(b"=") for pair in file.read().split(b"\0") if pair)
            return {os.fsdecode(name): os.fsdecode(value) for name, _, value in pairs}
    except OSError:
        return {}


def of_instance(instance: str, *, role: str | None = None) -> list[Process]:
    """The processes of an instance (of one `role`, or of any), without the caller's own."""
    return [
        process
        for process in _all()
        if (found := environment(process.pid)).get("TULLE_INSTANCE") == instance
        and (role is None or found.get("TULLE_ROLE") == role)
    ]


def in_networks(inodes: Collection[int]) -> list[Process]:
    """The processes whose network namespace is one of these, without the caller's own."""
    return [process for process in _all() if network_inode(process.pid) in inodes]


def network_inode(pid: int) -> int | None:
    """What identifies the network namespace of a process, or None where it may not be asked."""
    try:
        return os.stat(f"/proc/{pid}/ns/net").st_ino
    except OSError:
        return None


def _all() -> Iterable[Process]:
    for name in os.listdir("/proc"):
        if name.isdigit() and int(name) != os.getpid() and (time := started(int(name))) is not None:
            yield Process(int(name), time)


async def stop(processes: Collection[Process], *, grace: float = 0.0) -> None:
    """SIGTERM them and, after `grace` seconds, SIGKILL those that are left; returns when all are gone (waits 5 s at most)."""
    loop = asyncio.get_running_loop()
    if grace > 0:
        for process in processes:
            process.send(signal.SIGTERM)
        await _gone(processes, loop.time() + grace)
    for process in processes:
        process.send(signal.SIGKILL)
    await _gone(processes, loop.time() + 5)


async def _gone(processes: Collection[Process], deadline: float) -> None:
    loop, pause = asyncio.get_running_loop(), 0.001
    while any(process.alive() for process in processes) and loop.time() < deadline:
        await asyncio.sleep(pause)
        pause = min(pause * 2, 0.05)
