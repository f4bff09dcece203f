"""The pause processes that hold namespaces: found by environment after a crash, and ended with all that lives in them."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Collection

from tulle.node import process
from tulle.node.process import Process

ENVIRONMENT = {"TULLE_ROLE": "pause"}  # beside the instance, in a pause process's environment


def carrying(instance: str) -> list[Process]:
    """The pause processes of an instance. Reads /proc: call it from a thread."""
    mark = b"TULLE_ROLE=pause"
    return [one for one in process.carrying(instance) if mark in _environment(one.pid)]


def _environment(pid: int) -> list[bytes]:
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            return file.read().split(b"\0")
    except OSError:
        return []


def inhabitants(holders: Collection[Process]) -> set[Process]:
    """The holders that still run and whatever else runs in their networks, which would keep these. Call it from a thread."""
    alive = {holder for holder in holders if holder.alive}
    networks = {_network(holder.pid) for holder in alive} - {None, _network(os.getpid())}
    if not networks:
        return alive
    found = (process.process(int(entry)) for entry in os.listdir("/proc") if entry.isdigit() and _network(int(entry)) in networks)
    # Asked again of what has a name now: the pid may have become another's in between.
    return alive | {one for one in found if one is not None and one.pid != os.getpid() and _network(one.pid) in networks}


def _network(pid: int) -> int | None:
    """What identifies the network namespace of a process, or None where it may not be asked."""
    try:
        return os.stat(f"/proc/{pid}/ns/net").st_ino
    except OSError:
        return None


async def end(holders: Collection[Process]) -> None:
    """Kill the holders and what runs in their networks; returns when all are gone, after 5 s at the latest."""
    condemned = await asyncio.to_thread(inhabitants, holders)
    waiting = [asyncio.ensure_future(one.ended()) for one in condemned if one.send(signal.SIGKILL)]
    if not waiting:
        return
    _, late = await asyncio.wait(waiting, timeout=5)
    for task in late:
        task.cancel()
