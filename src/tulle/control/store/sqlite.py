"""The store of a single control plane: one SQLite file that an acknowledged write never leaves again.

One thread owns the connection. It takes all writes that wait, checks and applies each under its own revision, commits them
together (WAL, `synchronous=FULL`: on disk before the acknowledgement) and hands the records back to the event loop, where
they become visible. Reads and watches are served from memory and never wait for the disk.
"""

from __future__ import annotations

import asyncio
import queue
import sqlite3
import threading
from collections.abc import AsyncGenerator, MutableSequence, Sequence
from pathlib import Path
from typing import NamedTuple

from tulle.control.store import schema
from tulle.control.store.history import Record, State, check, check_distinct, encode_body
from tulle.kit.errors import Corrupt, TulleError, Unavailable
from tulle.ports import Conflict, Delete, Event, Key, Put, Stored

_BATCH = 1000  # writes in one commit, at most


class _Write(NamedTuple):
    """A transaction on its way to the disk: `operations` with their bodies already encoded."""

    operations: Sequence[tuple[Put | Delete, bytes | None]]
    loop: asyncio.AbstractEventLoop
    done: asyncio.Future[int]


_Answer = tuple[_Write, int | Exception]


class SqliteStore:
    """`ports.Store` in the file `path`, which only one process may have open.

    Opening (here, synchronously) makes the file where there is none, checks it where there is one, and raises `Corrupt`,
    `Refused` or `Unavailable`; a file that fails the check is left as it is. `history`: how many changes stay available for
    watches, also across restarts.
    """

    def __init__(self, path: Path | str, *, history: int = 5000) -> None:
        self._path = Path(path)
        self._database = schema.open_database(self._path)
        self._state = State(history)
        try:
            objects, records, revision, compacted = schema.load(self._database, self._path)
        except TulleError:
            self._database.close()
            raise
        self._state.load(objects, records, revision, compacted)
        self._on_disk = revision  # the writer's own count: memory follows it through the event loop
        self._pruned = compacted
        self._broken: TulleError | None = None
        self._queue: queue.SimpleQueue[_Write | None] = queue.SimpleQueue()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="store-writer", daemon=True)
        self._thread.start()

    async def get(self, key: Key) -> Stored | None:
        """The object, or None."""
        return self._state.get(key)

    async def list(self, resource: str | None = None, namespace: str | None = None) -> tuple[Sequence[Stored], int]:
        """The objects, sorted by key, and the revision at which this list holds."""
        return self._state.list(resource, namespace)

    async def write(self, operations: Sequence[Put | Delete]) -> int:
        """All operations at one new revision, or none: raises `Conflict`. It is on disk when this returns.

        Raises `Unavailable` where the disk is full or fails; nothing was written then, and the next write is tried anew.
        """
        if self._closed:
            raise Unavailable("the store is closed")
        check_distinct(operations)
        loop = asyncio.get_running_loop()
        encoded = [(one, encode_body(one.body) if isinstance(one, Put) else None) for one in operations]
        write = _Write(encoded, loop, loop.create_future())
        self._queue.put(write)
        return await write.done

    def watch(self, since: int, resource: str | None = None) -> AsyncGenerator[Event, None]:
        """Every event after revision `since`, in order, without end; raises `Compacted`."""
        return self._state.watch(since, resource)

    async def close(self) -> None:
        """Finish the writes that wait, fold the log into the file, and let go of it."""
        if not self._closed:
            self._closed = True
            self._queue.put(None)
            await asyncio.to_thread(self._thread.join)
            await asyncio.sleep(0)  # the last batch's records, which the thread has just handed over
            self._state.close()

    # The writer thread: everything below runs there and nowhere else.

    def _run(self) -> None:
        open_ = True
        while open_:
            batch: MutableSequence[_Write] = []
            try:
                item = self._queue.get()
                while True:
                    if item is None:
                        open_ = False
                        break
                    batch.append(item)
                    if len(batch) >= _BATCH:
                        break
                    item = self._queue.get_nowait()
            except queue.Empty:
                pass
            if batch:
                self._commit(batch)
        self._database.close()

    def _commit(self, batch: Sequence[_Write]) -> None:
        """One database transaction for the whole batch; a conflict fails its own write only."""
        answers: MutableSequence[_Answer] = []
        records: MutableSequence[Record] = []
        try:
            if self._broken:
                raise self._broken
            self._database.execute("BEGIN IMMEDIATE")
            revision = self._on_disk
            for write in batch:
                try:
                    made = self._execute(write, revision + 1)
                except Conflict as conflict:
                    answers.append((write, conflict))
                    continue
                if made:
                    revision += 1
                records.extend(made)
                answers.append((write, revision))
            compacted = self._state.compacted
            if compacted > self._pruned:
                schema.forget(self._database, compacted)
            if records:
                schema.set_revision(self._database, revision)
            self._database.execute("COMMIT")
            self._on_disk, self._pruned = revision, compacted
        except (sqlite3.Error, TulleError) as error:
            records = []
            failure = error if isinstance(error, TulleError) else self._failed(error)
            answers = [(write, failure) for write in batch]
        except Exception as bug:  # a mistake of ours: its callers get it, and nobody else waits for ever
            self._database.rollback()
            records, answers = [], [(write, bug) for write in batch]
        self._hand_over(answers, records)

    def _execute(self, write: _Write, revision: int) -> Sequence[Record]:
        """The records of one write; every expectation is checked before the first row changes."""
        found = [schema.find(self._database, operation.key) for operation, _ in write.operations]
        for (operation, _), row in zip(write.operations, found, strict=True):
            check(operation, row.revision if row else 0)
        records = [
            Record(operation.key, revision, body, row.body if row else None)
            for (operation, body), row in zip(write.operations, found, strict=True)
            if body is not None or row
        ]
        schema.save(self._database, records)
        return records

    def _failed(self, error: sqlite3.Error) -> TulleError:
        """Roll back, and make sure that the file still is where memory believes it to be."""
        try:
            if self._database.in_transaction:
                self._database.execute("ROLLBACK")
            self._database.close()
            self._database = schema.open_database(self._path)
            revision = schema.revision(self._database)
        except (sqlite3.Error, TulleError) as again:
            # Not fatal yet: a disk that came back is used again, for the file is opened anew at the next failure.
            return Unavailable(f"the store {self._path} cannot be written: {again}", hint=_HINT)
        if revision != self._on_disk:
            self._broken = Corrupt(
                f"the store {self._path} is at revision {revision} where {self._on_disk} was expected after a failed write",
                hint="restart the control plane: it reads the file anew",
            )
            return self._broken
        if getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_FULL:
            return Unavailable(f"the disk is full: the store {self._path} did not take the write", hint=_HINT)
        return Unavailable(f"the store {self._path} cannot be written: {error}", hint=_HINT)

    def _hand_over(self, answers: Sequence[_Answer], records: Sequence[Record]) -> None:
        """Make the batch visible on the event loop, then answer its writers, so that each reads what it wrote."""

        def visible() -> None:
            self._state.apply(records)
            for write, answer in answers:
                if write.done.done():
                    continue  # its caller was cancelled; the write holds all the same
                if isinstance(answer, Exception):
                    write.done.set_exception(answer)
                else:
                    write.done.set_result(answer)

        try:
            answers[0][0].loop.call_soon_threadsafe(visible)
        except RuntimeError:
            return  # the loop is closed, nobody waits; the file has what was committed


_HINT = "free some space (nothing that was acknowledged is lost), then repeat the change"
