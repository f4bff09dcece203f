"""Secrets at rest: a store over a store, which sees what is secret only as AES-256-GCM.

    API server ──▶ SealedStore ──sealed bodies──▶ SqliteStore, etcd: objects, log, history, backup

Sealed are Secrets, and all that the mesh notes for itself (`_` resources: tokens, keys): whoever adds such a record need not
think of it. A sealed body is tied to its place: moved to another name it does not open. What was written before there was a key
is read as it is; `reseal` brings everything under the first key.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import hashlib
import os
import re
import secrets
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path
from typing import Any

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from tulle.control.metrics import Timings
from tulle.kit.errors import Corrupt, Refused
from tulle.ports import Cause, Change, Conflict, Delete, Event, Key, LeaseLost, Put, Store, Stored

VARIABLE = "TULLE_ENCRYPTION_KEY"
FILE = "encryption.key"  # in the state folder, where none is given
_SIZE = 32  # bytes
_BOUNDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0)  # seconds
_NONCE = 12  # bytes; random: good for 2**32 bodies under one key


class Keys:
    """The encryption keys: the first one seals, all of them open. In no log, error or `repr`."""

    def __init__(self, keys: Sequence[bytes]) -> None:
        """`keys`: of 32 bytes each, at least one."""
        self._ciphers = {_identity(key): AESGCM(key) for key in keys}
        self.first = next(iter(self._ciphers))

    @property
    def ids(self) -> Sequence[str]:
        """What the keys are called in what they sealed: the start of a hash."""
        return list(self._ciphers)

    @classmethod
    def parse(cls, text: str, where: str) -> Keys:
        """Keys as text: base64, between them white space or commas; a line may be a comment (`#`). Raises `Refused`.

        `where` says where the text is from; the text itself is never in the message.
        """
        words = re.sub(r"(?m)^\s*#.*$", "", text).replace(",", " ").split()
        keys = []
        for number, word in enumerate(words, 1):
            try:
                key = base64.b64decode(word, validate=True)
            except binascii.Error:
                key = b""
            if len(key) != _SIZE:
                raise Refused(
                    f"{where}: key {number} is none: needed the base64 of {_SIZE} bytes", hint="make one: openssl rand -base64 32"
                )
            keys.append(key)
        if not keys:
            raise Refused(f"{where}: found no key, needed one or more", hint="make one: openssl rand -base64 32")
        return cls(keys)

    @classmethod
    def read(cls, path: Path) -> Keys:
        """The keys of a file. Raises `Refused` where it cannot be read, or others may read it."""
        try:
            mode = path.stat().st_mode & 0o777
            text = path.read_text("ascii")
        except (OSError, UnicodeDecodeError) as error:
            why = error.strerror if isinstance(error, OSError) else "it is not text"
            raise Refused(f"{path}: the encryption key cannot be read: {why}") from None
        if mode & 0o077:
            raise Refused(f"{path}: found mode {mode:04o}, needed 0600: others could read the key", hint=f"chmod 600 {path}")
        return cls.parse(text, str(path))

    @classmethod
    def of_folder(cls, folder: Path) -> Keys:
        """The keys of a state folder, in `encryption.key` (0600): made where there is no such file yet. Raises `Refused`."""
        path = folder / FILE
        if not path.exists():
            text = f"# tulle: opens the secrets in the store; keep a copy, but not beside backups\n{_made()}\n"
            fresh = path.with_name(f".{path.name}.new")
            try:
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="ascii") as file:
                    file.write(text)
                    file.flush()
                    os.fsync(file.fileno())
                fresh.rename(path)
                descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
                try:
                    os.fsync(descriptor)
                finally:
                    os.close(descriptor)
            except OSError as error:
                raise Refused(f"{path}: the encryption key cannot be kept: {error.strerror}") from error
        return cls.read(path)

    @classmethod
    def choose(cls, file: Path | None, text: str, folder: Path) -> Keys:
        """The keys of a file where one is named, else of a variable's text where it has one, else of the state folder.

        Raises `Refused`.
        """
        if file is not None:
            return cls.read(file)
        return cls.parse(text, VARIABLE) if text else cls.of_folder(folder)

    def seal(self, place: str, plain: bytes) -> dict[str, Any]:
        """A body that only these keys open, and only at this place."""
        nonce = secrets.token_bytes(_NONCE)
        data = self._ciphers[self.first].encrypt(nonce, plain, place.encode())
        return {"sealed": {"key": self.first, "data": base64.b64encode(nonce + data).decode()}}

    def open(self, place: str, sealed: dict[str, Any]) -> bytes:
        """What was sealed. Raises `Refused` where its key is not among these, `Corrupt` where it was changed or moved."""
        inside = sealed["sealed"]
        cipher = self._ciphers.get(inside["key"])
        if cipher is None:
            raise Refused(
                f"{place} is sealed with the encryption key {inside['key']}, found {', '.join(self._ciphers)}",
                hint=f"add that key, after the first one, to the key file or {VARIABLE}",
            )
        data = base64.b64decode(inside["data"])
        try:
            return cipher.decrypt(data[:_NONCE], data[_NONCE:], place.encode())
        except InvalidTag:
            raise Corrupt(f"{place} does not open: it was changed, or moved there from elsewhere") from None


def _identity(key: bytes) -> str:
    return hashlib.sha256(b"tulle encryption key\0" + key).hexdigest()[:8]


def _made() -> str:
    return base64.b64encode(secrets.token_bytes(_SIZE)).decode()


def is_secret(key: Key) -> bool:
    """Whether what lies there is sealed."""
    return key.resource == "secrets" or key.resource.startswith("_")


def sealed_with(body: dict[str, Any]) -> str:
    """The key that a stored body is sealed with; "" where it is not sealed."""
    inside = body.get("sealed") if len(body) == 1 else None
    return str(inside["key"]) if isinstance(inside, dict) and inside.keys() == {"key", "data"} else ""


class SealedStore:
    """`ports.Store` over another one, which is `inside`. `timings` tell how long that takes."""

    def __init__(self, inside: Store, keys: Keys) -> None:
        self.inside, self._keys = inside, keys
        self.timings = Timings("operation", _BOUNDS)

    async def get(self, key: Key) -> Stored | None:
        """The object, or None."""
        with self.timings.of("get"):
            stored = await self.inside.get(key)
        return stored and self._opened(stored)

    async def list(
        self, resource: str | None = None, namespace: str | None = None, *, at: int | None = None
    ) -> tuple[Sequence[Stored], int]:
        """The objects, sorted by key, and the revision at which this list holds; raises `Compacted`, `Future`."""
        with self.timings.of("list"):
            found, revision = await self.inside.list(resource, namespace, at=at)
        return [self._opened(stored) for stored in found], revision

    async def write(self, operations: Sequence[Put | Delete], cause: Cause | None = None) -> int:
        """All operations at one new revision, or none: raises `Conflict`, `LeaseLost`."""
        closed = [self._closed(operation) for operation in operations]
        with self.timings.of("write"):
            return await self.inside.write(closed, cause)

    async def watch(self, since: int, resource: str | None = None) -> AsyncGenerator[Event, None]:
        """Every event after revision `since`, in order, without end; raises `Compacted`."""
        async with contextlib.aclosing(self.inside.watch(since, resource)) as events:
            async for event in events:
                if is_secret(event.key):
                    yield Event(
                        event.key, event.revision, self._body(event.key, event.body), self._body(event.key, event.previous)
                    )
                else:
                    yield event

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
        found = await self.inside.history(resource=resource, namespace=namespace, name=name, since=since, limit=limit)
        return [self._changed(change) if is_secret(change.key) else change for change in found]

    async def forget(self, before: float) -> int:
        """Drop the history of before that time; how many changes that were."""
        return await self.inside.forget(before)

    async def grant(self, seconds: float) -> int:
        """A new lease."""
        return await self.inside.grant(seconds)

    async def renew(self, lease: int) -> None:
        """Keep the lease alive. Raises `LeaseLost`."""
        await self.inside.renew(lease)

    async def revoke(self, lease: int) -> None:
        """End the lease and delete what is bound to it."""
        await self.inside.revoke(lease)

    async def close(self) -> None:
        """Close the store inside."""
        await self.inside.close()

    async def reseal(self) -> int:
        """Bring what is not sealed, or with another key, under the first one; how many objects that were.

        The history stays as it is: its keys are needed until it is forgotten.
        """
        changed = 0
        for stored in (await self.inside.list())[0]:
            if is_secret(stored.key) and sealed_with(stored.body) != self._keys.first:
                plain = self._opened(stored).body
                with contextlib.suppress(Conflict, LeaseLost):  # written or gone meanwhile: so much the better
                    await self.write([Put(stored.key, plain, stored.revision, stored.lease)])
                    changed += 1
        return changed

    def _closed(self, operation: Put | Delete) -> Put | Delete:
        if isinstance(operation, Delete) or not is_secret(operation.key):
            return operation
        body = self._keys.seal(_place(operation.key), msgspec.json.encode(operation.body))
        return Put(operation.key, body, operation.expect, operation.lease)

    def _opened(self, stored: Stored) -> Stored:
        if not is_secret(stored.key) or not sealed_with(stored.body):
            return stored
        return Stored(stored.key, self._keys.open(_place(stored.key), stored.body), stored.revision, stored.lease)

    def _body(self, key: Key, body: dict[str, Any] | None) -> dict[str, Any] | bytes | None:
        return self._keys.open(_place(key), body) if body is not None and sealed_with(body) else body

    def _changed(self, change: Change) -> Change:
        opened = Event(change.key, change.revision, self._body(change.key, change.body), self._body(change.key, change.previous))
        return Change(change.key, change.revision, opened.previous, opened.body, change.cause)


def _place(key: Key) -> str:
    return f"{key.resource}/{key.namespace}/{key.name}"
