"""What lies where in etcd, all of it under one prefix (`/tulle/` unless told otherwise).

    o/                              the mark: written with every transaction, so its revision is that of the last one
    o/RESOURCE/NAMESPACE/NAME       an object: its JSON
    h/RESOURCE/NAMESPACE/NAME/TIME-ID   a change of the past, compressed: the bodies before and after, and the cause
    f                               up to which revision changes of the past were forgotten

The mark is what makes reads from memory as good as reads from etcd: a reader asks for its revision (one small key, by quorum) and
waits until memory has got there. It is inside the watched range, so that every transaction shows in the watch.
"""

from __future__ import annotations

import os
import zlib
from typing import Any

import msgspec

from tulle.ports import Cause, Change, Key

_TIME = 13  # hexadecimal digits of milliseconds since the epoch: in the order of time


class _Past(msgspec.Struct, frozen=True):
    previous: msgspec.Raw
    body: msgspec.Raw
    cause: Cause


class Layout:
    """The keys under a prefix that ends with a slash."""

    def __init__(self, prefix: str) -> None:
        self.mark = self._objects = f"{prefix}o/".encode()
        self.end = _end(self.mark)
        self._history = f"{prefix}h/".encode()
        self.forgotten = f"{prefix}f".encode()

    def key(self, key: Key) -> bytes:
        """An object's key."""
        return self._objects + f"{key.resource}/{key.namespace}/{key.name}".encode()

    def place(self, key: bytes) -> Key:
        """The object that lies at a key; its name may have slashes."""
        resource, namespace, name = key[len(self._objects) :].decode().split("/", 2)
        return Key(resource, namespace, name)

    def objects(self, resource: str | None, namespace: str | None) -> tuple[bytes, bytes]:
        """The range of a resource's objects, in a namespace where one is given."""
        return _range(self._objects, resource, namespace)

    def new_past(self, key: Key, time: float) -> bytes:
        """A new key for a change that was made at a time."""
        moment = f"{max(0, int(time * 1000)):0{_TIME}x}-{os.urandom(4).hex()}"
        return self._history + f"{key.resource}/{key.namespace}/{key.name}/{moment}".encode()

    def past(self, resource: str | None, namespace: str | None, name: str | None) -> tuple[bytes, bytes]:
        """The range of the history of these."""
        return _range(self._history, resource, namespace, name)

    def place_of_past(self, key: bytes) -> Key:
        """Whose change lies at a key of the history."""
        resource, namespace, name = key[len(self._history) :].rpartition(b"/")[0].decode().split("/", 2)
        return Key(resource, namespace, name)

    @staticmethod
    def time_of_past(key: bytes) -> float:
        """When it was made, in seconds since the epoch."""
        return int(key.rpartition(b"/")[2][:_TIME], 16) / 1000


def encode_past(previous: bytes | None, body: bytes | None, cause: Cause) -> bytes:
    """A change as it is kept. The two bodies have most of their text in common: compressed, the second costs little."""
    raw = _Past(msgspec.Raw(previous or _NONE), msgspec.Raw(body or _NONE), cause)
    return zlib.compress(msgspec.json.encode(raw), 1)


def decode_past(key: Key, revision: int, data: bytes) -> Change:
    """A change from how it is kept."""
    past = msgspec.json.decode(zlib.decompress(data), type=_Past)
    return Change(key=key, revision=revision, previous=_body(past.previous), body=_body(past.body), cause=past.cause)


_NONE = b"null"
_body = msgspec.json.Decoder(dict[str, Any] | None).decode


def _range(start: bytes, *parts: str | None) -> tuple[bytes, bytes]:
    """The keys that begin with the leading parts that are given."""
    for part in parts:
        if part is None:
            break
        start += part.encode() + b"/"
    return start, _end(start)


def _end(prefix: bytes) -> bytes:
    """The first key after all that begin with the prefix, which ends with a slash."""
    return prefix[:-1] + b"0"
