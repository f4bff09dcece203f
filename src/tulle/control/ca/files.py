"""The authority's one file: `roots.json` (0600), replaced as a whole or not at all. Roots and their keys live nowhere else.

It is sealed with the keys that the store's secrets are sealed with; one from before there were any is read, and sealed at once.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Any, Protocol

import msgspec

from tulle.kit.errors import Corrupt, Refused

NAME = "roots.json"
_PLACE = f"ca/{NAME}"


class Seal(Protocol):
    """What seals the file (`control.store.sealed.Keys`)."""

    first: str

    def seal(self, place: str, plain: bytes) -> dict[str, Any]:
        """A body that only these keys open, and only at this place."""
        ...

    def open(self, place: str, sealed: dict[str, Any]) -> bytes:
        """What was sealed; raises `Refused` or `Corrupt`."""
        ...


class StoredRoot(msgspec.Struct, frozen=True, omit_defaults=True):
    """What signs, as kept: PEM `certificate` and `key`, its place in the rotation, and since when (seconds since the epoch).

    Where `certificate` is no root itself: `chain` are the certificates between it and `roots`, which peers trust.
    """

    slot: str  # "active", "next" or "retiring"
    since: float
    certificate: str
    key: str
    chain: str = ""
    roots: str = ""

    def __repr__(self) -> str:
        """Without the key: this may end up in a traceback."""
        return f"StoredRoot(slot={self.slot!r})"


class StoredRoots(msgspec.Struct, frozen=True, omit_defaults=True):
    """The whole file. `request` is the key of a signing request whose certificate has not been imported yet."""

    version: int
    trust_domain: str
    roots: list[StoredRoot]
    request: str = ""

    def __repr__(self) -> str:
        """Without the keys."""
        return f"StoredRoots({self.roots!r})"


def load(directory: Path, seal: Seal | None = None) -> StoredRoots | None:
    """What is kept; None where nothing ever was. Raises `Corrupt` where it cannot be read, `Refused` where others may."""
    data = plain(directory, seal)
    if data is None:
        return None
    try:
        stored = msgspec.json.decode(data, type=StoredRoots)
    except (msgspec.DecodeError, UnicodeDecodeError):
        # Neither the cause nor the data: it may hold the key.
        raise corrupt(directory, "it is not the JSON that was written") from None
    if stored.version != 1:
        raise corrupt(directory, f"found version {stored.version}, needed 1")
    return stored


def plain(directory: Path, seal: Seal | None = None) -> bytes | None:
    """The file's content, opened; raises as `load` does. What is not sealed with the newest key is sealed now."""
    data = _read(directory)
    if data is None:
        return None
    try:
        body = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise corrupt(directory, "it is not the JSON that was written") from None
    sealed = body.get("sealed") if isinstance(body, dict) else None
    if sealed is None:
        if seal is not None:
            restore(directory, data, seal)
        return data
    if seal is None:
        raise corrupt(directory, "it is sealed, and no encryption key was given")
    opened = seal.open(_PLACE, body)
    if sealed.get("key") != seal.first:
        restore(directory, opened, seal)
    return opened


def _read(directory: Path) -> bytes | None:
    path = directory / NAME
    try:
        data = path.read_bytes()
        mode = path.stat().st_mode & 0o777
    except FileNotFoundError:
        if directory.is_dir() and any(directory.iterdir()):
            raise Corrupt(
                f"{directory}: the certificate authority's {NAME} is missing, but other files are there",
                hint=f"restore {NAME} from a backup; to start over with a new root, move the folder away",
            ) from None
        return None
    except OSError as error:
        raise Refused(f"{path}: the certificate authority's key cannot be read: {error.strerror}") from error
    if mode & 0o077:
        raise Refused(f"{path}: found mode {mode:04o}, needed 0600: others could read the root's key", hint=f"chmod 600 {path}")
    return data


def corrupt(directory: Path, why: str) -> Corrupt:
    """The error of a file that is there and cannot be used."""
    return Corrupt(
        f"{directory / NAME}: the certificate authority cannot use its root: {why}",
        hint="restore the file from a backup; to start over with a new root, move the folder away (every node must join again)",
    )


def save(directory: Path, stored: StoredRoots, seal: Seal | None = None) -> None:
    """Write the file so that a crash leaves the old one or the new one. Raises `Refused` where the disk does not take it."""
    restore(directory, msgspec.json.encode(stored), seal)


def restore(directory: Path, data: bytes, seal: Seal | None = None) -> None:
    """As `save`, the content as it was in a backup."""
    if seal is not None:
        data = msgspec.json.encode(seal.seal(_PLACE, data))
    path = directory / NAME
    fresh = directory / f".{NAME}.new"
    try:
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(file.fileno(), 0o600)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(path)
        _sync(directory)
    except OSError as error:
        with contextlib.suppress(OSError):
            fresh.unlink()
        raise Refused(f"{path}: the certificate authority's key cannot be kept: {error.strerror}") from error


def _sync(directory: Path) -> None:
    """Make the renamed entry itself durable."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
