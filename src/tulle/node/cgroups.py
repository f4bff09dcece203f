"""Control groups (v2): made, entered, emptied and removed. `cgroup` capture tells by them whose a connection is.

They lie directly under the root of the hierarchy, as Docker's and crun's do: what runs in the mesh may come from any service or
session of the host, and what lies in none of these groups is never touched.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import signal
from pathlib import Path

from tulle.kit.errors import Refused, Unavailable
from tulle.node.process import process

_ROOT = Path("/sys/fs/cgroup")  # where nftables looks for the paths in its rules
_MOUNTS = Path("/proc/self/mountinfo")
_GONE_WITHIN = 5.0  # seconds


def hierarchy(mounts: str | None = None, root: Path = _ROOT) -> Path:
    """Where cgroup v2 is mounted; raises `Refused` where it is not, or where nftables would not find it."""
    found = []
    for line in (mounts if mounts is not None else _MOUNTS.read_text()).splitlines():
        before, _, after = line.partition(" - ")
        if after.startswith("cgroup2 "):
            found.append(Path(re.sub(r"\\([0-7]{3})", lambda code: chr(int(code[1], 8)), before.split()[4])))
    for folder in found:
        if folder.is_relative_to(root):
            return folder
    if found:
        raise Refused(f"cgroup v2 is mounted at {found[0]}, where nftables does not look", hint=f"mount it under {root}")
    raise Refused("cgroup v2 is not mounted", hint=f"as root: mount -t cgroup2 none {root}/unified")


def in_rules(folder: Path, root: Path = _ROOT) -> str:
    """A group as nftables names it."""
    return str(folder.relative_to(root))


def level(folder: Path, mounted: Path) -> int:
    """How deep a group lies."""
    return len(folder.relative_to(mounted).parts)


def make(*folders: Path) -> None:
    """Make groups that may be there already."""
    try:
        for folder in folders:
            folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise Refused(f"{error.filename}: a control group cannot be made: {error.strerror}", hint="run as root") from error


def members(folder: Path) -> list[int]:
    """The processes in a group and the groups below it."""
    found = []
    for file in (folder / "cgroup.procs", *folder.glob("**/cgroup.procs")):
        with contextlib.suppress(OSError):  # went meanwhile
            found += [int(line) for line in file.read_text().split()]
    return sorted(set(found))


def contains(folder: Path, pid: int) -> bool:
    """Whether a process is in a group or in one below it."""
    try:
        lines = Path(f"/proc/{pid}/cgroup").read_text().splitlines()
        mounted = hierarchy()
    except (OSError, Refused):
        return False
    return any((mounted / line[3:].lstrip("/")).is_relative_to(folder) for line in lines if line.startswith("0::"))


def kill(folder: Path) -> None:
    """SIGKILL to all in a group and below, also to what they start meanwhile where the kernel knows how (Linux 5.14)."""
    try:
        (folder / "cgroup.kill").write_text("1")
    except OSError:
        found = [process(pid) for pid in members(folder)]
        still = set(members(folder))  # asked again of what has a name now: a pid may have become another's in between
        for one in found:
            if one is not None and one.pid in still:
                with contextlib.suppress(PermissionError):
                    one.send(signal.SIGKILL)


async def remove(folder: Path) -> None:
    """End what runs in a group and below, and remove all of it. Idempotent; raises `Unavailable` where something stays."""
    try:
        async with asyncio.timeout(_GONE_WITHIN):
            while not _try_remove(folder):
                kill(folder)
                await asyncio.sleep(0.01)
    except TimeoutError:
        left = ", ".join(map(str, members(folder))) or "none"
        raise Unavailable(f"the control group {folder} cannot be removed; processes in it: {left}") from None


def _try_remove(folder: Path) -> bool:
    """Remove the groups from the innermost outwards; False where one is not empty yet."""
    try:
        for inner in sorted((path for path in folder.glob("**/") if path.is_dir()), key=lambda path: -len(path.parts)):
            inner.rmdir()
        if folder.is_dir():
            folder.rmdir()
    except FileNotFoundError:
        return not folder.is_dir()
    except OSError:
        return False
    return True
