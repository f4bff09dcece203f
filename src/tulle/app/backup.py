"""`tulle backup --offline` and `tulle restore`: on the state folder of a control plane that does not run, or into etcd.

The revision of a restored store is above every one that the lost store can have had: whoever watched it (kubectl, nodes, proxies)
is told to list again, and nothing that it saw is taken for newer than what is there now. An etcd counts its own revisions; those
of a new cluster begin low, and whoever saw higher ones is told that they are of the future, and lists again too.

Where control planes share a store the authority is a record of it, else a file of the state folder: a backup of the one is
restored into the other, which is also how a mesh moves from SQLite to etcd.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from tulle.app.settings import ControlPlaneSettings
from tulle.app.stores import STORE, open_store
from tulle.control import members
from tulle.control.ca import files, shared
from tulle.control.store import backup, schema
from tulle.control.store.backup import Backup
from tulle.control.store.sealed import Keys, SealedStore
from tulle.control.store.sqlite import SqliteStore
from tulle.kit.errors import Refused, TulleError, Unavailable
from tulle.ports import Delete, Put

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


def authority_files(state: Path, keys: Keys | None, *, wanted: bool) -> Mapping[str, bytes]:
    """The authority's file, for a backup that shall have it. Raises `Refused`, `Corrupt` where it cannot be had."""
    if not wanted:
        return {}
    stored = files.load(state / "ca", keys)
    if stored is None:
        raise Refused(f"{state / 'ca'}: there is no certificate authority here", hint="leave out --with-authority")
    return {_AUTHORITY: msgspec.json.encode(stored)}


async def offline(state: Path, keys: Keys | None, *, with_authority: bool) -> AsyncGenerator[bytes, None]:
    """The bytes of a backup of a state folder. Raises as opening the store does: also while a control plane runs on it."""
    if not (state / STORE).exists():
        raise Unavailable(f"{state / STORE}: there is no store here", hint="name the folder with --state-dir")
    beside = authority_files(state, keys, wanted=with_authority)
    stored = files.load(state / "ca", keys)
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
    found, beside = _readable(path, keys)
    store = state / STORE
    lock = schema.lock(store)
    try:
        if store.exists() and not force:
            raise Refused(f"{store}: there is a store already", hint="--force sets it aside")
        mark = _mark(now)
        root = beside.get(_AUTHORITY)
        other = root is not None and (state / _AUTHORITY).exists() and not _is_same(state, root, keys)
        if other and not force:
            raise Refused(f"{state / _AUTHORITY}: there is another authority already", hint="--force sets it aside")
        fresh = store.with_name(f"{STORE}.restoring")
        _clear(fresh)
        try:
            schema.start_at(fresh, _start(found, schema.revision_of(store), now))
            filled = SqliteStore(fresh)
            try:
                revision = await backup.restore(found, filled)
                if root is None and keys is not None and (own := await SealedStore(filled, keys).get(shared.KEY)):
                    root = msgspec.json.encode(own.body)
                    revision = await filled.write([Delete(shared.KEY)])
            finally:
                await filled.close()
            aside = [_authority(state, root, keys, mark if other else "")] if root is not None else []
            aside.append(schema.replace(store, fresh, mark))
        finally:
            _clear(fresh)
    finally:
        os.close(lock)
    return Restored(len(found.objects), revision, tuple(kept for kept in aside if kept), root is not None)


async def restore_shared(path: Path, settings: ControlPlaneSettings, *, force: bool, now: float | None = None) -> Restored:
    """Restore a backup into the store that control planes share. Raises as `restore` does; what was there is kept as a backup."""
    now = time.time() if now is None else now
    store, keys = open_store(settings)
    try:
        found, beside = _readable(path, keys)
        there, _ = await store.inside.list()
        if running := [one.key.name for one in there if one.key.resource == members.RESOURCE]:
            raise Refused(f"{settings.store}: a control plane runs on it: {', '.join(running)}", hint="stop all of them first")
        if there and not force:
            raise Refused(
                f"{settings.store}: there is something in it already", hint="--force replaces it, and keeps a backup of it"
            )
        aside: tuple[Path, ...] = ()
        if there:
            aside = (path.with_name(f"{path.name}.{_mark(now)}"),)
            with open(os.open(aside[0], os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:  # noqa: ASYNC230
                async for piece in backup.written(store.inside, keys, found.header.trust_domain, {}):
                    file.write(piece)
                file.flush()
                os.fsync(file.fileno())
        revision = await backup.restore(found, store.inside)
        if (root := beside.get(_AUTHORITY)) is not None:
            revision = await store.write([Put(shared.KEY, msgspec.json.decode(root))])
        authority = await store.get(shared.KEY) is not None
    finally:
        await store.close()
    return Restored(len(found.objects), revision, aside, authority)


def _readable(path: Path, keys: Keys | None) -> tuple[Backup, Mapping[str, bytes]]:
    """A backup that can be opened with these keys, and its files beside the store."""
    found = backup.read(path)
    have = keys.ids if keys else ()
    if missing := sorted(set(found.header.keys) - set(have)):
        raise Refused(
            f"{path}: its secrets are sealed with the encryption key {', '.join(missing)}, found {', '.join(have) or 'none'}",
            hint="give the key file of the control plane that wrote it, with --encryption-key-file",
        )
    return found, found.opened(keys) if keys else {}


def _mark(now: float) -> str:
    return datetime.fromtimestamp(now, UTC).strftime("before-%Y%m%dT%H%M%SZ")


def _start(found: Backup, there: int | None, now: float) -> int:
    """The revision to go on from. A store that is there and is further than the backup knows; else there is a gap to be safe."""
    if there is not None and there >= found.header.revision:
        return there
    return found.header.revision + _GAP + int(_RATE * max(0.0, now - found.header.time))


def _is_same(state: Path, root: bytes, keys: Keys | None) -> bool:
    """Whether the authority that is there is that of a backup. One that cannot be read is another."""
    try:
        return files.load(state / "ca", keys) == msgspec.json.decode(root, type=files.StoredRoots)
    except (TulleError, msgspec.DecodeError):
        return False


def _authority(state: Path, root: bytes, keys: Keys | None, mark: str) -> Path | None:
    """Write the authority's file; the path of the one that was there, where it was another one (then there is a `mark`)."""
    directory = state / "ca"
    kept = directory.with_name(f"ca.{mark}") if mark else None
    if kept is not None:
        os.rename(directory, kept)
    files.restore(directory, root, keys)
    return kept


def _clear(fresh: Path) -> None:
    for suffix in ("", "-wal", "-shm", "-journal", ".lock"):
        with contextlib.suppress(FileNotFoundError):
            fresh.with_name(fresh.name + suffix).unlink()
