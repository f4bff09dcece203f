"""What proxies take, as nodes tell it."""

from __future__ import annotations

import math

from tulle.control.telemetry.uses import MOST, Uses
from tulle.core.model.calls import Use


def test_cpu_between_two_reports() -> None:
    """Broken: people could not tell which proxy is busy, or would be shown what one took since it was started."""
    uses = Uses()
    uses.add(100.0, [Use("default/a", 50.0, 60e6, 1, "1.40.0")])
    assert [(one.proxy, one.cores, one.memory, one.restarts) for one in uses.now(100.0)] == [("default/a", None, 60e6, 1)]
    uses.add(115.0, [Use("default/a", 53.0, 61e6, 1, "1.40.0")])
    assert [one.cores for one in uses.now(115.0)] == [0.2]
    uses.add(130.0, [Use("default/a", 0.5, 40e6, 2, "1.40.0")])
    assert [(one.cores, one.restarts) for one in uses.now(130.0)] == [(None, 2)], "it was started again"


def test_who_is_gone_is_forgotten() -> None:
    """Broken: proxies that ended long ago would be shown for ever, and fill the memory."""
    uses = Uses()
    uses.add(100.0, [Use("default/a"), Use("shop/b")])
    assert [one.proxy for one in uses.now(100.0, "shop")] == ["shop/b"]
    assert uses.now(1000.0) == []
    uses.add(1000.0, [Use(f"default/{number}") for number in range(MOST + 10)])
    assert len(uses.now(1000.0)) == MOST


def test_garbage() -> None:
    """Broken: a broken node would spoil what others are shown."""
    uses = Uses()
    bad = [Use("x" * 300), Use("default/a", math.nan), Use("default/a", 1.0, -1.0), Use("default/a", restarts=-1)]
    uses.add(100.0, [*bad, Use("default/a", version="v" * 300)])
    assert uses.now(100.0) == []
