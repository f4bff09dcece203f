"""Waiting for what comes by itself."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def until(what: str, holds: Callable[[], T], limit: float = 120.0, seen: Callable[[], object] = lambda: "") -> T:
    """Ask until the answer is true, `limit` seconds at most, and return it; `seen` is shown where it never is.

    Between two questions is twice the time that one takes, within bounds: what is waited for needs the machine, too.
    """
    deadline = time.monotonic() + limit
    while True:
        began = time.monotonic()
        if found := holds():
            return found
        now = time.monotonic()
        assert now < deadline, f"not within {limit:g} s: {what} {seen()}"
        time.sleep(min(max(2 * (now - began), 0.05), 0.3))
