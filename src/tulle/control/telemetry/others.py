"""How one control plane asks the others what they were told (`app/peers.py`)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

# What the other control planes answer at a path of `/tulle/v1`; one that does not answer is left out.
Others = Callable[[str, Mapping[str, str]], Awaitable[Sequence[Any]]]


async def nobody(_path: str, _query: Mapping[str, str]) -> Sequence[Any]:
    """There is no other control plane."""
    return ()
