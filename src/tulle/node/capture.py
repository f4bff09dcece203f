"""Picks the strongest way to capture traffic that works here, by trying, and says why (`network.py` has the ways)."""

from __future__ import annotations

from pathlib import Path

from tulle.kit.errors import Refused
from tulle.node.network import Network


async def choose(capture: str, *, instance: str, folder: Path) -> tuple[Network, str]:
    """The network for `auto`, `netns` or `proxy`, and the reason in a sentence.

    `instance` names this agent (`TULLE_INSTANCE` of everything it starts); `folder` (made 0700 where absent) keeps the records.
    Raises `Refused` where what was asked for by name is not possible, with what to do; for `cgroup` always, for now.
    """
    raise Refused(f"capture {capture!r} is not built yet")
