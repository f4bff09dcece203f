"""What each proxy takes: CPU and memory, as nodes report it. Kept of those of now; bounded."""

from __future__ import annotations

import math
from collections.abc import Iterable

import msgspec

from tulle.core.model.calls import Use

PATH = "/telemetry/proxies"
MOST = 20_000  # proxies
_GONE = 300.0  # seconds without a word after which one is not there any more
_LONGEST = 256  # characters of a name


class Taken(msgspec.Struct, frozen=True, omit_defaults=True):
    """Of one proxy: `cores` of CPU since the report before (None: that was its first), `memory` in bytes, as of `told` (seconds
    since the epoch).
    """

    proxy: str
    told: float
    cores: float | None = None
    memory: float | None = None
    restarts: int = 0
    version: str = ""


class Uses:
    """What this control plane was told."""

    def __init__(self) -> None:
        self._last: dict[str, tuple[Use, Taken]] = {}

    def add(self, now: float, told: Iterable[Use]) -> None:
        """What a node says of its proxies; what cannot be is left out."""
        for use in told:
            if not _sane(use):
                continue
            before = self._last.pop(use.workload, None)
            cores = None
            if before is not None and use.cpu is not None and before[0].cpu is not None and now > before[1].told:
                # A proxy that has taken less than before has begun anew.
                cores = round(max(0.0, use.cpu - before[0].cpu) / (now - before[1].told), 4) if use.cpu >= before[0].cpu else None
            self._last[use.workload] = use, Taken(use.workload, now, cores, use.memory, use.restarts, use.version)
        while len(self._last) > MOST:
            del self._last[next(iter(self._last))]

    def now(self, now: float, namespace: str = "") -> list[Taken]:
        """Those that were told of lately."""
        for workload in [one for one, (_use, taken) in self._last.items() if taken.told < now - _GONE]:
            del self._last[workload]
        return [taken for _use, taken in self._last.values() if not namespace or taken.proxy.startswith(f"{namespace}/")]


def _sane(use: Use) -> bool:
    return (
        len(use.workload) <= _LONGEST
        and len(use.version) <= _LONGEST
        and 0 <= use.restarts < 1 << 32
        and all(one is None or (math.isfinite(one) and 0 <= one < 1e15) for one in (use.cpu, use.memory))
    )
