"""What an Envoy may use up: memory and connections, of what this host or this control group has.

Envoy keeps within it by refusing work (the overload manager of its bootstrap), which is better than to be killed with all that is
under way, or to have every connection but none of the files to answer one.
"""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import msgspec

_MB = 1 << 20
_LEAST_HEAP, _MOST_HEAP = 256 * _MB, 4096 * _MB
_MOST_CONNECTIONS = 100_000
_OTHER_FILES = 500  # listeners, logs, the connections to the agent: what is no connection of a client


class Budget(msgspec.Struct, frozen=True):
    """`heap_bytes` and `connections` (of clients, at once) of one Envoy."""

    heap_bytes: int
    connections: int


def budget(heap_mb: int = 0) -> Budget:
    """Of each Envoy here. `heap_mb` is the operator's word; 0: a quarter of the memory, between 256 MB and 4 GB.

    Half of the files that a process may have open are for clients, for each of their connections may need one to a server. Reads
    /proc and /sys.
    """
    _soft, files = resource.getrlimit(resource.RLIMIT_NOFILE)  # Envoy raises its own to the hard limit
    if files == resource.RLIM_INFINITY:
        files = 1 << 30
    return Budget(
        heap_bytes=heap_mb * _MB if heap_mb else heap_of(memory()),
        connections=max(100, min(_MOST_CONNECTIONS, (files - _OTHER_FILES) // 2)),
    )


def heap_of(memory: int) -> int:
    """The share of `memory` bytes that one Envoy may have."""
    return min(_MOST_HEAP, max(memory // 4, min(_LEAST_HEAP, memory // 2)))


def memory(proc: Path = Path("/proc"), groups: Path = Path("/sys/fs/cgroup")) -> int:
    """Bytes that this process may use: the least of the machine's memory and the limits of its control groups."""
    return min((_of_machine(proc), *_of_groups(proc, groups)))


def _of_machine(proc: Path) -> int:
    for line in (proc / "meminfo").read_text().splitlines():
        if line.startswith("MemTotal:"):
            return int(line.split()[1]) << 10
    return 1 << 30


def _of_groups(proc: Path, groups: Path) -> Iterator[int]:
    """The limits of version 2 (its whole path up to the root) and of version 1."""
    try:
        lines = (proc / "self/cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _number, kinds, path = line.split(":", 2)
        at, name = (groups, "memory.max") if not kinds else (groups / "memory", "memory.limit_in_bytes")
        if kinds and "memory" not in kinds.split(","):
            continue
        folder = at / path.lstrip("/")
        for one in (folder, *folder.parents):
            with suppress(OSError, ValueError):  # "max", or a group that is named from elsewhere than this mount
                yield int((one / name).read_text())
            if one == at:
                break
