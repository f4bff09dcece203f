"""What proxies have counted of rate limits, as nodes report it."""

from __future__ import annotations

import msgspec


class LimitCount(msgspec.Struct, frozen=True, array_like=True):
    """Of a rule (`Limit.id`) at a proxy (`namespace/name`): how many `passed`, how many were `over` the limit, and how many of
    these were `refused` (in shadow mode none is).
    """

    proxy: str
    rule: str
    passed: int = 0
    over: int = 0
    refused: int = 0


class LimitReport(msgspec.Struct, frozen=True):
    """What the `proxies` of a `node` counted in the last `seconds`. Of a rule without a row they counted nothing."""

    node: str
    seconds: float
    proxies: tuple[str, ...] = ()
    rows: tuple[LimitCount, ...] = ()
