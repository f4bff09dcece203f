"""Recorded calls on disk, so that a restart does not forget them: a file of their own, a hundred shapes in a row.

Not in the store of the objects: that is in memory, with a log of all changes, and each change of it is everybody's business. A
file that cannot be read is put aside, and one that cannot be written costs nothing but what a restart forgets.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import msgspec
import structlog

from tulle.control.telemetry.recorded import Kept, Tally, covered
from tulle.core.model.recorded import Coverage, Record, Recorded, Rows, Shape
from tulle.core.recorded.folding import merged

log = structlog.get_logger(__name__)

_EVERY = 60.0  # seconds between two writes
_SCHEMA = """
PRAGMA auto_vacuum = FULL;
PRAGMA journal_mode = WAL;
PRAGMA synchronous = NORMAL;
CREATE TABLE IF NOT EXISTS calls (day INTEGER, number INTEGER, body BLOB, PRIMARY KEY (day, number)) WITHOUT ROWID;
"""


class Chunk(msgspec.Struct, frozen=True, array_like=True):
    """A row of the file: some shapes of a day, and (in the first) what was counted by service."""

    rows: Rows = ()
    counted: dict[str, Tally] = {}


class Keeping:
    """Writes what `kept` has to the `file`; None: nowhere."""

    def __init__(self, file: Path | None, kept: Kept) -> None:
        self._file, self._kept = file, kept
        self._turn = asyncio.Lock()
        self.failed = 0  # times that it could not be written
        self.why = ""  # why it could not be the last time

    @property
    def notice(self) -> str:
        """What people are to know: "" while all is written."""
        if not self.why:
            return ""
        return f"recorded calls cannot be written to {self._file} ({self.why}): a restart of the control plane would forget them"

    async def load(self) -> None:
        """What an earlier control plane has written."""
        if self._file is None:
            return
        found = await asyncio.to_thread(self._read, self._file)
        for day, chunk in found:
            self._kept.put(day, chunk.rows, chunk.counted)
        self._kept.began_earlier(min((record.first for _day, chunk in found for _shape, record in chunk.rows), default=None))

    def _read(self, file: Path) -> list[tuple[float, Chunk]]:
        try:
            with _opened(file) as database:
                rows = database.execute("SELECT day, body FROM calls ORDER BY day, number").fetchall()
            return [(float(day), msgspec.msgpack.decode(body, type=Chunk)) for day, body in rows]
        except (sqlite3.Error, OSError, msgspec.DecodeError) as error:
            log.warning("recorded calls cannot be read; starting without", path=str(file), why=str(error))
            with contextlib.suppress(OSError):
                file.replace(file.with_suffix(".damaged"))
            return []

    async def run(self) -> None:
        """Write until cancelled."""
        while True:
            await asyncio.sleep(_EVERY)
            await self.write()

    async def write(self) -> None:
        """What changed, and what is to be forgotten."""
        if self._file is None:
            return
        async with self._turn:
            changes = [(day, number, Chunk(tuple(rows), dict(counted))) for day, number, rows, counted in self._kept.changes()]
            gone = self._kept.forgotten()
            try:
                await asyncio.to_thread(self._write, self._file, changes, gone)
                self.why = ""
            except (sqlite3.Error, OSError) as error:
                self.failed += 1
                self.why = str(error)
                log.warning("recorded calls cannot be written; they will be", path=str(self._file), why=str(error))
                self._kept.unwritten([(day, number) for day, number, _chunk in changes], gone)

    @staticmethod
    def _write(file: Path, changes: Sequence[tuple[float, int, Chunk]], gone: Sequence[float]) -> None:
        with _opened(file) as database:
            database.executemany("DELETE FROM calls WHERE day = ?", [(int(day),) for day in gone])
            database.executemany(
                "INSERT OR REPLACE INTO calls VALUES (?, ?, ?)",
                [(int(day), number, msgspec.msgpack.encode(chunk)) for day, number, chunk in changes],
            )
            database.commit()


@contextlib.contextmanager
def _opened(file: Path) -> Iterator[sqlite3.Connection]:
    if not file.exists():
        os.close(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))
    database = sqlite3.connect(file, timeout=5)
    try:
        database.executescript(_SCHEMA)
        yield database
    finally:
        database.close()


def together(parts: Sequence[Recorded]) -> Recorded:
    """What several control planes know, as one."""
    rows: dict[Shape, Record] = {}
    coverage: dict[str, Coverage] = {}
    for part in parts:
        for shape, record in part.rows:
            there = rows.get(shape)
            rows[shape] = record if there is None else merged(there, record)
        _cover(coverage, part.coverage)
    return Recorded(
        min(part.begins for part in parts),
        tuple(rows.items()),
        coverage,
        sum(part.dropped for part in parts),
        min(part.covers for part in parts),
        tuple(sorted({name for part in parts for name in part.services})),
    )


def _cover(into: dict[str, Coverage], more: Mapping[str, Coverage]) -> None:
    for name, one in more.items():
        into[name] = covered(into.get(name, Coverage()), one)
