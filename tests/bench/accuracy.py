"""How exactly a limit that replicas have together is held: three replicas of reviews, eight clients, 100 a second allowed.

Real sidecars and a real h2load; what passed in each second is read from its log.
"""

from __future__ import annotations

import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec

from tests.support.limited import URL, Limited, load_command
from tests.support.mesh import Mesh

LIMIT = 100
OFFERED = 10 * LIMIT
SECONDS = 30
_WARM = 3  # seconds in which full buckets end, and shares come


class Accuracy(msgspec.Struct):
    """Requests a second that passed where `LIMIT` may, over `SECONDS`; `failed`: a second, of exact ones that nobody counted.

    `moved`: from three seconds on after all load went to another replica. `small`: what passed of 20 a second of a small client
    beside one that sends `OFFERED`, both with keys. `burst`: the most in a second after five of silence, with a burst of 50.
    """

    shares: float
    exact: float
    failed: float
    moved: float
    small: float
    burst: float


class _Bench(Limited):
    def timeline(self, rate: float, seconds: int, **headers: str) -> Timeline:
        """A load that goes on beside what comes next."""
        log = self.mesh.home / f"load-{rate:g}-{'-'.join(headers.values())}.log"
        log.unlink(missing_ok=True)
        flags = {name.replace("_", "-"): value for name, value in headers.items()}
        argv = [*load_command(rate, headers=flags), "-D", str(seconds), f"--log-file={log}", URL]
        child = subprocess.Popen([*self.mesh.command, "exec", "curl", "--", *argv], env=self.mesh.env, stdout=subprocess.DEVNULL)
        return Timeline(child, log)


class Timeline:
    """What came of each request, and when that was (s since the epoch)."""

    def __init__(self, child: subprocess.Popen[bytes], log: Path) -> None:
        self.child, self.log = child, log

    def rows(self) -> list[tuple[float, str]]:
        """Once it is over."""
        self.child.wait()
        lines = (line.split() for line in self.log.read_text().splitlines())
        return sorted(((int(at) + int(took)) / 1e6, status) for at, status, took in lines)

    def passed(self, start: float, seconds: float, statuses: str = "2") -> float:
        """How many a second, from so many seconds after the first answer on."""
        rows = self.rows()
        first = rows[0][0] + start
        return sum(first <= at < first + seconds and status.startswith(statuses) for at, status in rows) / seconds


def measure() -> Accuracy:
    """One after the other, in one mesh."""
    mesh = Mesh()
    try:
        mesh.up()
        bench = _Bench(mesh)
        rule: dict[str, Any] = {"name": "all", "limit": LIMIT}
        bench.limit(rule)
        shares = bench.timeline(OFFERED, SECONDS + _WARM).passed(_WARM, SECONDS)
        moved = _moved(bench)
        bench.limit({**rule, "burst": 50})
        bench.load(1, 5, 0)
        rows = bench.timeline(OFFERED, 2).rows()
        passed = [at for at, status in rows if status == "200"]
        burst = float(max(sum(at <= one < at + 1 for one in passed) for at in passed[:200]))
        bench.limit({**rule, "key": {"type": "Header", "header": "x-client"}})
        with ThreadPoolExecutor() as pool:
            large = pool.submit(bench.timeline(OFFERED, 15, x_client="large").passed, _WARM, 10)
            small = bench.timeline(20, 15, x_client="small").passed(_WARM, 10)
            large.result()
        bench.limit({**rule, "precision": "exact", "onFailure": "deny"})
        asked = bench.timeline(OFFERED, SECONDS + _WARM)
        return Accuracy(shares, asked.passed(_WARM, SECONDS), asked.passed(_WARM, SECONDS, "5"), moved, small, burst)
    finally:
        mesh.remove()


def _moved(bench: _Bench) -> float:
    """All of the load to one replica, then all of it to another."""
    bench.only("v1")
    load = bench.timeline(OFFERED, 30)
    bench.load(1, 8, 0)
    bench.only("v2")
    now = time.time()
    rows = load.rows()
    end = rows[-1][0]
    passed = sum(now + 3 <= at < end and status == "200" for at, status in rows) / (end - now - 3)
    bench.everywhere()
    return passed
