"""`tulle backup --offline` and `tulle restore`: on the state folder of a control plane that does not run.

The revision of a restored store is above every one that the lost store can have had: whoever watched it (kubectl, nodes, proxies)
is told to list again, and nothing that it saw is taken for newer than what is there now.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from tulle.control.ca import files
from tulle.control.store import backup, schema
from tulle.control.store.backup import Backup
from tulle.control.store.sealed import Keys
from tulle.control.store.sqlite import SqliteStore
from tulle.kit.errors import Refused, Unavailable

STORE = "store.db"
_AUTHORITY = f"ca/{files.NAME}"
_GAP = 1_000_000  # revisions beyond those of the backup, where what the lost store was at is not known,
_RATE = 1000  # and that many more for each second since: faster nobody writes


@dataclass(frozen=True, slots=True)
class Restored:
    """What a restore did: `objects` at `revision`; `aside`, what was there before and is kept; `authority`: it was restored."""

    objects: int
    revision: int
    aside: tuple[Path, ...]
    authority: bool


def authority_files(state: Path, *, wanted: bool) -> Mapping[str, bytes]:
    """The authority's file, for a backup that shall have it. Raises `Refused`, `Corrupt` where it cannot be had."""
    if not wanted:
        return {}
    if files.load(state / "ca") is None:
        raise Refused(f"{state / 'ca'}: there is no certificate authority here", hint="leave out --with-authority")
    return {_AUTHORITY: (state / _AUTHORITY).read_bytes()}


async def offline(state: Path, keys: Keys | None, *, with_authority: bool) -> AsyncGenerator[bytes, None]:
    """The bytes of a backup of a state folder. Raises as opening the store does: also while a control plane runs on it."""
    if not (state / STORE).exists():
        raise Unavailable(f"{state / STORE}: there is no store here", hint="name the folder with --state-dir")
    beside = authority_files(state, wanted=with_authority)
    stored = files.load(state / "ca")
    store = SqliteStore(state / STORE)
    try:
        async for piece in backup.written(store, keys, stored.trust_domain if stored else "", beside):
            yield piece
    finally:
        await store.close()


async def restore(path: Path, state: Path, keys: Keys | None, *, force: bool, now: float | None = None) -> Restored:
    """Restore a backup into a state folder.

    Raises `Corrupt`, `Refused` or `Unavailable`, and has changed nothing then: the backup is damaged or sealed with other keys,
    a control plane runs, or there is a store or another authority and not `force`. `now`: seconds since the epoch.
    """
    now = time.time() if now is None else now
    found = backup.read(path)
    have = keys.ids if keys else ()
    if missing := sorted(set(found.header.keys) - set(have)):
        raise Refused(
            f"{path}: its secrets are sealed with the encryption key {', '.join(missing)}, found {', '.join(have) or 'none'}",
            hint="give the key file of the control plane that wrote it, with --encryption-key-file",
        )
    beside = found.opened(keys) if keys else {}
    store = state / STORE
    lock = schema.lock(store)
    try:
        if store.exists() and not force:
            raise Refused(f"{store}: there is a store already", hint="--force sets it aside")
        mark = datetime.fromtimestamp(now, UTC).strftime("before-%Y%m%dT%H%M%SZ")
        root = beside.get(_AUTHORITY)
        other = root is not None and (state / _AUTHORITY).exists() and (state / _AUTHORITY).read_bytes() != root
        if other and not force:
            raise Refused(f"{state / _AUTHORITY}: there is another authority already", hint="--force sets it aside")
        fresh = store.with_name(f"{STORE}.restoring")
        _clear(fresh)
        try:
            schema.start_at(fresh, _start(found, schema.revision_of(store), now))
            filled = SqliteStore(fresh)
            try:
                revision = await backup.restore(found, filled)
            finally:
                await filled.close()
            aside = [_authority(state, root, mark if other else "")] if root is not None else []
            aside.append(schema.replace(store, fresh, mark))
        finally:
            _clear(fresh)
    finally:
        os.close(lock)
    return Restored(len(found.objects), revision, tuple(kept for kept in aside if kept), root is not None)


def _start(found: Backup, there: int | None, now: float) -> int:
    """The revision to go on from. A store that is there and is further than the backup knows; else there is a gap to be safe."""
    if there is not None and there >= found.header.revision:
        return there
    return found.header.revision + _GAP + int(_RATE * max(0.0, now - found.header.time))


def _authority(state: Path, root: bytes, mark: str) -> Path | None:
    """Write the authority's file; the path of the one that was there, where it was another one (then there is a `mark`)."""
    directory = state / "ca"
    kept = directory.with_name(f"ca.{mark}") if mark else None
    if kept is not None:
        os.rename(directory, kept)
    files.restore(directory, root)
    return kept


def _clear(fresh: Path) -> None:
    for suffix in ("", "-wal", "-shm", "-journal", ".lock"):
        with contextlib.suppress(FileNotFoundError):
            fresh.with_name(fresh.name + suffix).unlink()
