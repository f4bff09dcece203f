"""Access logs on disk: Envoy writes them in its working folder, the node keeps them private and bounded.

A file that is full is renamed, and Envoy is told (`/reopen_logs`, over its admin socket) to begin another of the old name. Until
it has, it writes on in the renamed one: no line is lost, none is cut. Of renamed files the oldest go.

    access.log  ◀── Envoy        access.log.1  access.log.2 ...  older and older
"""

from __future__ import annotations

import contextlib
import itertools
from pathlib import Path

import structlog

from tulle.kit.errors import Unavailable
from tulle.node.envoy import Admin

log = structlog.get_logger("tulle.node")

KEPT = 5  # files of a log, the one that is written included


class LogFiles:
    """The logs of one workload in its `folder`. `most` is the bytes of each of them altogether."""

    def __init__(self, workload: str, folder: Path, most: int) -> None:
        self.workload, self.folder, self._full = workload, folder, max(most // KEPT, 1)
        self._untold = False  # whether something was renamed, and Envoy does not know
        self._deaf = False  # it did not answer, and that was said

    def logs(self) -> list[str]:
        """The names of those that are written now."""
        return [path.name for path in self.folder.glob("*.log") if path.name != "envoy.log"]

    def turn(self) -> bool:
        """Rename what is full; whether Envoy is to be told. Blocks shortly."""
        for name in self.logs():
            try:
                if (self.folder / name).stat().st_size >= self._full:
                    self._rename(name)
                    self._untold = True
            except OSError as error:
                log.warning("an access log was not rotated", workload=self.workload, file=name, error=str(error))
        return self._untold

    async def reopened(self, admin: Admin) -> None:
        """Tell Envoy. Where it does not answer it is told the next time; until then there is no file that could be full."""
        try:
            await admin.post("/reopen_logs")
        except Unavailable as error:
            if not self._deaf:
                why = error.message
                log.warning("Envoy was not told that its logs were rotated; it will be", workload=self.workload, error=why)
            self._deaf = True
            return
        self._untold = self._deaf = False

    def _rename(self, name: str) -> None:
        old = [self.folder / f"{name}.{number}" for number in range(KEPT - 1, 0, -1)]
        for after, before in itertools.pairwise(old):
            with contextlib.suppress(FileNotFoundError):
                before.replace(after)
        (self.folder / name).replace(old[-1])


def generations(folder: Path, name: str) -> list[Path]:
    """The files of a log, the oldest first."""
    found = [folder / f"{name}.{number}" for number in range(KEPT - 1, 0, -1)] + [folder / name]
    return [path for path in found if path.exists()]
