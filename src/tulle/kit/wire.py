"""Protobuf's wire format, as far as messages are put together, or read, without their classes.

Resources are serialised once and go into many envelopes; bodies of other people's messages are read by field number.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

_LONGEST = 63  # bits; a number has ten bytes at most


def varint(number: int) -> bytes:
    """A number that is not negative."""
    if number < 0x80:
        return bytes((number,))
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def tag(number: int, wire: int) -> bytes:
    """What stands before the value of field `number`: 0 varint, 1 eight bytes, 2 length-delimited."""
    return varint(number << 3 | wire)


def field(number: int, payload: bytes) -> bytes:
    """A length-delimited field (a message, text, bytes), so that bytes made earlier are not parsed again."""
    return varint(number << 3 | 2) + varint(len(payload)) + payload


def read_varint(data: bytes, at: int) -> tuple[int, int]:
    """The number at an offset, and the offset behind it. ValueError where it is too long, IndexError where it is cut off."""
    shift = number = 0
    while True:
        byte = data[at]
        at += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return number, at
        shift += 7
        if shift > _LONGEST:
            raise ValueError("a number is too long")


def fields(data: Any) -> Iterator[tuple[int, Any]]:
    """The fields of a message in order: numbers as int, everything of a length as bytes. ValueError, IndexError or TypeError
    where it is malformed, or not bytes at all.
    """
    at, end = 0, len(data)
    while at < end:
        head, at = read_varint(data, at)
        value, at = read_varint(data, at)
        match head & 7:
            case 0:
                yield head >> 3, value
            case 2:
                if at + value > end:
                    raise ValueError("it ends too early")
                yield head >> 3, data[at : at + value]
                at += value
            case other:
                raise ValueError(f"wire type {other}")
