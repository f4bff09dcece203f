"""Reads an access log as it is written, over its rotations: every line once, in order, none of them cut.

Blocks as files do: to be called in a thread. Nothing is kept in memory but the end of a line that is not whole yet.
"""

from __future__ import annotations

import os
from collections import deque
from pathlib import Path
from types import TracebackType

from tulle.node.logs.files import generations

LONGEST = 256 << 10  # bytes of a line; the rest of a longer one is left out
_PIECE = 256 << 10  # bytes that are read at once
_LOOKS = 5  # at files that are being renamed


class Follower:
    """`lines()` gives what came since the last time. `lost`: how often files had gone before they were read."""

    def __init__(self, folder: Path, name: str) -> None:
        self._folder, self._name = folder, name
        self._file: int | None = None
        self._rest = b""
        self.position = 0  # bytes that were read altogether
        self.lost = 0

    def __enter__(self) -> Follower:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._close()

    def last(self, count: int) -> list[str]:
        """The last lines that are there; what comes later is for `lines`."""
        kept: deque[str] = deque(maxlen=count)
        files = generations(self._folder, self._name)
        # From the newest file back until there are enough lines, then forwards.
        found, first = 0, len(files)
        while first > 0 and found <= count:
            first -= 1
            found += _count(files[first])
        self._open(files[first] if files else None)
        while piece := self.lines():
            kept.extend(piece)
        return list(kept)

    def lines(self) -> list[str]:
        """What is new, up to some hundred KB; empty where nothing is."""
        if self._file is None:
            files = generations(self._folder, self._name)
            self._open(files[0] if files else None)
        while self._file is not None:
            if data := os.read(self._file, _PIECE):
                self.position += len(data)
                *whole, self._rest = (self._rest + data).split(b"\n")
                self._rest = self._rest[:LONGEST]
                if whole:
                    return [line[:LONGEST].decode(errors="replace") for line in whole if line]
            elif not self._next():
                break
        return []

    def _next(self) -> bool:
        """Go on with the file that came after this one, where that is written already: then nothing more comes here."""
        assert self._file is not None
        mine = _identity(os.fstat(self._file))
        for _ in range(_LOOKS):
            there = [(path, stat) for path in generations(self._folder, self._name) if (stat := _stat(path)) is not None]
            places = [at for at, (_path, stat) in enumerate(there) if _identity(stat) == mine]
            if not places:
                continue  # renamed while this was looking
            after = there[places[0] + 1 :]
            if not any(stat.st_size for _path, stat in after):
                return False
            if os.fstat(self._file).st_size > os.lseek(self._file, 0, os.SEEK_CUR):
                return True  # something came before the next file was begun
            if self._open(after[0][0], _identity(after[0][1])):
                return True
        self.lost += 1
        files = generations(self._folder, self._name)
        return self._open(files[0] if files else None)

    def _open(self, path: Path | None, identity: tuple[int, int] | None = None) -> bool:
        """Begin with a file, where it is (still) the one that is meant."""
        try:
            file = os.open(path, os.O_RDONLY | os.O_CLOEXEC) if path is not None else None
        except FileNotFoundError:  # renamed just now
            file = None
        if file is not None and identity is not None and _identity(os.fstat(file)) != identity:
            os.close(file)
            return False
        if file is None and identity is not None:
            return False
        self._close()
        self._file, self._rest = file, b""
        return file is not None

    def _close(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None


def _identity(stat: os.stat_result) -> tuple[int, int]:
    return stat.st_dev, stat.st_ino


def _stat(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except FileNotFoundError:
        return None


def _count(path: Path) -> int:
    """The lines of a file."""
    count = 0
    try:
        with path.open("rb") as file:
            while piece := file.read(1 << 20):
                count += piece.count(b"\n")
    except FileNotFoundError:
        return 0
    return count
