"""Backups: everything that a store has at one revision, in a file that every store can be restored from.

    store.list() (one moment) ──▶ JSON lines, compressed, with a checksum ──▶ file ──▶ read (verified) ──▶ an empty store

A header line, a line for each object (`[resource, namespace, name, body]`) and each file beside the store
(`{"file": name, "sealed": ...}`), and a last line with their numbers and the SHA-256 of all lines before. What is sealed in the
store is sealed in the backup, and files are sealed for it: a backup opens with the encryption keys only, which are never in it.
Not in it: the history, and what is bound to a lease.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
import zlib
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from tulle.control.store.sealed import Keys, is_secret, sealed_with
from tulle.kit.errors import Corrupt, Refused, Unavailable
from tulle.ports import Delete, Key, Put, Store

VERSION = 1
_PIECE = 256 * 1024  # bytes of lines that are compressed at once, between which others get their turn
_GZIP = 31  # zlib's number for gzip's format
_BATCH = 100  # operations in one transaction: what every store takes


class Header(msgspec.Struct, frozen=True, rename="camel"):
    """What a backup is of: the store's `revision`, when (seconds since the epoch), and the `keys` that its secrets need."""

    version: int
    revision: int
    time: float
    trust_domain: str
    keys: tuple[str, ...]
    tulle: str = "backup"


class Backup(msgspec.Struct, frozen=True):
    """A whole backup that was read and verified; `objects` as JSON, `files` still sealed."""

    header: Header
    objects: Sequence[tuple[Key, bytes]]
    files: Mapping[str, dict[str, Any]]

    def opened(self, keys: Keys) -> Mapping[str, bytes]:
        """The files beside the store. Raises `Refused` where the keys are not those, `Corrupt` where one was changed."""
        return {name: keys.open(_place(name), sealed) for name, sealed in self.files.items()}


async def written(
    store: Store, keys: Keys | None, trust_domain: str, files: Mapping[str, bytes], clock: Callable[[], float] = time.time
) -> AsyncGenerator[bytes, None]:
    """The bytes of a backup of a store (the one inside the sealed one). `files`: what belongs to it and lies beside it."""
    stored, revision = await store.list()
    stored = [one for one in stored if not one.lease]
    used = {sealed_with(one.body) for one in stored if is_secret(one.key)} - {""}
    beside = {}
    if files:
        if keys is None:
            raise Refused("there is no encryption key here to seal the authority with", hint="leave out --with-authority")
        used.add(keys.first)
        beside = {name: keys.seal(_place(name), data) for name, data in files.items()}
    pack, checksum, piece = zlib.compressobj(wbits=_GZIP), hashlib.sha256(), bytearray()
    encode = msgspec.json.encode
    piece += encode(Header(VERSION, revision, clock(), trust_domain, tuple(sorted(used)))) + b"\n"
    for one in stored:
        key = one.key
        piece += encode([key.resource, key.namespace, key.name, msgspec.Raw(one.json)]) + b"\n"
        if len(piece) >= _PIECE:
            checksum.update(piece)
            yield pack.compress(piece)
            piece.clear()
            await asyncio.sleep(0)
    for name, sealed in beside.items():
        piece += encode({"file": name, **sealed}) + b"\n"
    checksum.update(piece)
    piece += encode({"objects": len(stored), "files": len(files), "sha256": checksum.hexdigest()}) + b"\n"
    yield pack.compress(piece) + pack.flush()


def read(path: Path) -> Backup:
    """The backup of a file. Raises `Corrupt` where it is not whole, `Refused` where it is another's or of a newer tulle."""
    try:
        packed = path.read_bytes()
    except OSError as error:
        raise Unavailable(f"{path}: the backup cannot be read: {error.strerror}") from error
    unpack = zlib.decompressobj(wbits=_GZIP)
    try:
        text = unpack.decompress(packed)
    except zlib.error as error:
        raise _corrupt(path, str(error)) from error
    if not unpack.eof or unpack.unused_data:
        raise _corrupt(path, "it is not complete" if not unpack.eof else "something stands after its end")
    first, _, _ = text.partition(b"\n")
    header = _header(path, first)
    start = text.rstrip(b"\n").rfind(b"\n") + 1
    try:
        last = msgspec.json.decode(text[start:], type=_Last)
        objects, files = [], {}
        for line in text[:start].splitlines()[1:]:
            if line.startswith(b"["):
                resource, namespace, name, body = msgspec.json.decode(line, type=tuple[str, str, str, msgspec.Raw])
                msgspec.json.decode(body, type=dict)
                objects.append((Key(resource, namespace, name), bytes(body)))
            else:
                sealed = msgspec.json.decode(line)
                files[str(sealed.pop("file"))] = sealed
    except (msgspec.DecodeError, msgspec.ValidationError, KeyError, AttributeError, UnicodeDecodeError) as error:
        raise _corrupt(path, str(error)) from error
    if last.sha256 != hashlib.sha256(text[:start]).hexdigest():
        raise _corrupt(path, "its checksum is another one")
    if (last.objects, last.files) != (len(objects), len(files)):
        raise _corrupt(path, f"found {len(objects)} objects, needed {last.objects}")
    return Backup(header, objects, files)


async def restore(backup: Backup, store: Store) -> int:
    """Make the store (the one inside the sealed one) hold what the backup has, and nothing else; its revision then.

    Nobody else uses the store. Its history begins anew: what it knew was about other objects.
    """
    await store.forget(float("inf"))
    there, _ = await store.list()
    wanted = {key for key, _ in backup.objects}
    operations: list[Put | Delete] = [Delete(one.key) for one in there if one.key not in wanted]
    operations += [Put(key, msgspec.json.decode(body)) for key, body in backup.objects]
    revision = 0
    for first in range(0, len(operations), _BATCH):
        revision = await store.write(operations[first : first + _BATCH])
    return revision


class _Last(msgspec.Struct):
    objects: int
    files: int
    sha256: str


def _header(path: Path, line: bytes) -> Header:
    try:
        raw = msgspec.json.decode(line, type=dict[str, Any])
    except msgspec.DecodeError:
        raw = {}
    if raw.get("tulle") != "backup":
        raise Refused(f"{path}: this is no backup of tulle's")
    if raw.get("version") != VERSION:
        raise Refused(
            f"{path}: the backup has version {raw.get('version')}; this tulle knows {VERSION}",
            hint="use the tulle that wrote it, or a later one",
        )
    try:
        return msgspec.convert(raw, Header)
    except msgspec.ValidationError as error:
        raise _corrupt(path, str(error)) from error


def _corrupt(path: Path, why: str) -> Corrupt:
    return Corrupt(f"{path}: the backup is damaged: {why}", hint="nothing was restored; use another backup")


def _place(name: str) -> str:
    return f"file/{name}"
