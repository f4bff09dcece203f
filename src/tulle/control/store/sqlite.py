"""The store of a single control plane: one SQLite file that an acknowledged write never leaves again.

One thread owns the connection. It takes all work that waits, does each write under its own revision, commits them together
(WAL, `synchronous=FULL`: on disk before the acknowledgement) and hands the records back to the event loop, where they become
visible. Reads and watches are served from memory and never wait for the disk; the history is on disk only, and is read through
a connection of its own.
"""

from __future__ import annotations

import asyncio
import os
import queue
import sqlite3
import threading
from collections.abc import AsyncGenerator, Callable, MutableSequence, Sequence
from pathlib import Path
from typing import NamedTuple

from tulle.control.store import history, schema
from tulle.control.store.leases import Leases
from tulle.control.store.sqlite_transaction import Ahead, Transaction
from tulle.control.store.state import Record, State, check, check_distinct, encode_body, recorded
from tulle.kit.errors import Corrupt, TulleError, Unavailable
from tulle.ports import Cause, Change, Clock, Compacted, Conflict, Delete, Event, Key, Put, Stored

_BATCH = 1000  # pieces of work in one commit, at most


class _Made(NamedTuple):
    """What a piece of work changed: `records`; `noted`, by how many changes the history grew; `answer`, None: its revision."""

    records: Sequence[Record]
    noted: int = 0
    answer: int | None = None


_Run = Callable[[Transaction, int], _Made]


class _Work(NamedTuple):
    """A piece of work on its way to the disk: `run` does it inside a transaction, at the revision that it is given."""

    run: _Run
    loop: asyncio.AbstractEventLoop
    done: asyncio.Future[int]


_Answer = tuple[_Work, int | Exception]


class SqliteStore:
    """`ports.Store` in the file `path`, which only one process may have open.

    Opening (here, synchronously) makes the file where there is none, checks and migrates it where there is one, and raises
    `Corrupt`, `Refused` or `Unavailable`; a file that fails the check is left as it is. `log`: how many changes stay available
    for watches and snapshots, also across restarts; `kept`: how many the history has at most, about; `clock` counts the leases,
    which end with the process.
    """

    def __init__(self, path: Path | str, *, log: int = 5000, kept: int = history.COUNT, clock: Clock | None = None) -> None:
        self._path = Path(path)
        self._lock = schema.lock(self._path)
        self._state = State(log)
        try:
            self._database = schema.open_database(self._path)
            try:
                schema.end_leases(self._database)
                objects, records, revision, compacted = schema.load(self._database, self._path)
                self._noted = schema.history_count(self._database)
            except sqlite3.Error as error:
                self._database.close()
                raise schema.wrapped(self._path, error) from error
            except TulleError:
                self._database.close()
                raise
        except BaseException:
            os.close(self._lock)
            raise
        self._state.load(objects, records, revision, compacted)
        self._ahead = Ahead(self._state)
        self._kept = kept
        self._reader: sqlite3.Connection | None = None
        self._reading = threading.Lock()
        self._leases = Leases(self._end, clock)
        self._on_disk = revision  # the writer's own count: memory follows it through the event loop
        self._compacted = compacted
        self._broken: TulleError | None = None
        self._queue: queue.SimpleQueue[_Work | None] = queue.SimpleQueue()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="store-writer", daemon=True)
        self._thread.start()

    async def get(self, key: Key) -> Stored | None:
        """The object, or None."""
        return self._state.get(key)

    async def list(
        self, resource: str | None = None, namespace: str | None = None, *, at: int | None = None
    ) -> tuple[Sequence[Stored], int]:
        """The objects, sorted by key, and the revision at which this list holds; raises `Compacted`, `Future`."""
        return self._state.list(resource, namespace, at)

    async def write(self, operations: Sequence[Put | Delete], cause: Cause | None = None) -> int:
        """All operations at one new revision, or none: raises `Conflict`, `LeaseLost`. It is on disk when this returns.

        Raises `Unavailable` where the disk is full or fails; nothing was written then, and the next write is tried anew.
        """
        check_distinct(operations)
        self._leases.check(operations)
        encoded = [(one, encode_body(one.body) if isinstance(one, Put) else None) for one in operations]
        return await self._work(lambda transaction, revision: _write(transaction, revision, encoded, cause))

    def watch(self, since: int, resource: str | None = None) -> AsyncGenerator[Event, None]:
        """Every event after revision `since`, in order, without end; raises `Compacted`."""
        return self._state.watch(since, resource)

    async def history(
        self,
        *,
        resource: str | None = None,
        namespace: str | None = None,
        name: str | None = None,
        since: int = 0,
        limit: int = 0,
    ) -> Sequence[Change]:
        """The changes with a cause, the newest first; raises `Compacted` where `since` is older than what is kept."""

        def read() -> tuple[Sequence[Change], int]:
            with self._reading:
                if self._closed:
                    raise Unavailable("the store is closed")
                try:
                    if self._reader is None:
                        self._reader = schema.open_reader(self._path)
                    return schema.read_history(self._reader, resource, namespace, name, since, limit)
                except sqlite3.Error as error:
                    raise schema.wrapped(self._path, error) from error

        found, forgotten = await asyncio.to_thread(read)
        if 0 < since < forgotten:
            raise Compacted(since, forgotten)
        return found

    async def forget(self, before: float) -> int:
        """Drop the history of before that time; how many changes that were."""

        def run(transaction: Transaction, _revision: int) -> _Made:
            gone = schema.forget(transaction.flush(), before)
            return _Made((), -gone, gone)

        return await self._work(run)

    async def grant(self, seconds: float) -> int:
        """A new lease."""
        return await self._leases.grant(seconds)

    async def renew(self, lease: int) -> None:
        """Keep the lease alive. Raises `LeaseLost`."""
        await self._leases.renew(lease)

    async def revoke(self, lease: int) -> None:
        """End the lease and delete what is bound to it."""
        await self._leases.revoke(lease)

    async def close(self) -> None:
        """Finish the writes that wait, fold the log into the file, and let go of it."""
        if not self._closed:
            self._closed = True
            await self._leases.close()
            self._queue.put(None)
            await asyncio.to_thread(self._release)
            await asyncio.sleep(0)  # the last batch's records, which the thread has just handed over
            self._state.close()

    def _release(self) -> None:
        with self._reading:
            if self._reader is not None:
                self._reader.close()
        self._thread.join()
        os.close(self._lock)

    async def _end(self, lease: int) -> None:
        def run(transaction: Transaction, revision: int) -> _Made:
            keys = schema.bound(transaction.flush(), lease)
            records = [recorded(key, revision, None, transaction.find(key)) for key in keys]
            transaction.save(records)
            return _Made(records)

        await self._work(run)

    async def _work(self, run: _Run) -> int:
        if self._closed:
            raise Unavailable("the store is closed")
        loop = asyncio.get_running_loop()
        work = _Work(run, loop, loop.create_future())
        self._queue.put(work)
        return await work.done

    # The writer thread: everything below runs there and nowhere else.

    def _run(self) -> None:
        open_ = True
        while open_:
            batch: MutableSequence[_Work] = []
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

    def _commit(self, batch: Sequence[_Work]) -> None:
        """One database transaction for the whole batch; a conflict fails its own write only."""
        answers: MutableSequence[_Answer] = []
        records: MutableSequence[Record] = []
        try:
            if self._broken:
                raise self._broken
            revision, noted = self._on_disk, self._noted
            transaction = Transaction(self._database, self._ahead)
            for work in batch:
                try:
                    made = work.run(transaction, revision + 1)
                except Conflict as conflict:
                    answers.append((work, conflict))
                    continue
                if made.records:
                    revision += 1
                records.extend(made.records)
                noted += made.noted
                answers.append((work, revision if made.answer is None else made.answer))
            compacted = self._state.compacted
            if compacted > self._compacted:
                schema.compact(transaction.flush(), compacted)
            if noted > self._kept + self._kept // 4:
                noted -= schema.forget_surplus(transaction.flush(), self._kept)
            transaction.commit()
            self._on_disk, self._compacted, self._noted = revision, compacted, noted
            self._ahead.committed(records)
        except (sqlite3.Error, TulleError) as error:
            records = []
            failure = error if isinstance(error, TulleError) else self._failed(error)
            answers = [(work, failure) for work in batch]
        except Exception as bug:  # a mistake of ours: its callers get it, and nobody else waits for ever
            self._database.rollback()
            records, answers = [], [(work, bug) for work in batch]
        self._hand_over(answers, records)

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
            self._ahead.visible(records)
            for work, answer in answers:
                if work.done.done():
                    continue  # its caller was cancelled; the write holds all the same
                if isinstance(answer, Exception):
                    work.done.set_exception(answer)
                else:
                    work.done.set_result(answer)

        try:
            answers[0][0].loop.call_soon_threadsafe(visible)
        except RuntimeError:
            return  # the loop is closed, nobody waits; the file has what was committed


def _write(
    transaction: Transaction, revision: int, operations: Sequence[tuple[Put | Delete, bytes | None]], cause: Cause | None
) -> _Made:
    """One write; every expectation is checked before the first row changes."""
    found = [transaction.find(operation.key) for operation, _ in operations]
    for (operation, _), row in zip(operations, found, strict=True):
        check(operation, row.revision if row else 0)
    records = [
        recorded(operation.key, revision, body, row, operation.lease if isinstance(operation, Put) else 0)
        for (operation, body), row in zip(operations, found, strict=True)
        if body is not None or row
    ]
    return _Made(records, transaction.save(records, cause))


_HINT = "free some space (nothing that was acknowledged is lost), then repeat the change"
