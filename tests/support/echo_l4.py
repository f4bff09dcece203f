"""Echo without HTTP: lines of TCP, and datagrams that are DNS questions."""

from __future__ import annotations

import asyncio
import json
import struct
from typing import TYPE_CHECKING, Any

from tests.support.echo_tls import details

if TYPE_CHECKING:
    from tests.support.echo import Pod

_ANSWER = 0x8400  # an authoritative answer without an error


class Lines(asyncio.Protocol):
    """Every line is answered with one of JSON: the line as `request`, the pod, TLS details."""

    def __init__(self, pod: Pod) -> None:
        self.pod, self.rest = pod, b""
        self.transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client."""
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        """Some of its words."""
        *lines, self.rest = (self.rest + data).split(b"\n")
        for line in lines:
            said: dict[str, Any] = {"request": line.decode(errors="replace").rstrip("\r")}
            said |= {"namespace": self.pod.namespace, "service": self.pod.service, "pod": self.pod.name}
            if tls := details(self.transport.get_extra_info("ssl_object")):
                said["tls"] = tls
            self.transport.write(json.dumps(said).encode() + b"\n")


class Datagrams(asyncio.DatagramProtocol):
    """A question is answered with itself, a TXT record that names the pod, and no error."""

    def __init__(self, pod: Pod) -> None:
        self.pod = pod
        self.transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The socket is there."""
        self.transport = transport

    def datagram_received(self, data: bytes, addr: Any) -> None:
        """A question."""
        end = data.find(b"\0", 12) + 5
        if end < 17 or len(data) < end:
            return
        name = self.pod.name.encode()
        text = bytes([len(name)]) + name
        record = struct.pack("!HHHIH", 0xC00C, 16, 1, 0, len(text)) + text
        self.transport.sendto(data[:2] + struct.pack("!HHHHH", _ANSWER, 1, 1, 0, 0) + data[12:end] + record, addr)


def question(name: str, number: int) -> bytes:
    """A DNS question for the TXT records of a name."""
    labels = b"".join(bytes([len(part)]) + part.encode() for part in name.strip(".").split("."))
    return struct.pack("!HHHHHH", number, 0x0100, 1, 0, 0, 0) + labels + b"\0" + struct.pack("!HH", 16, 1)


def answered(data: bytes, number: int) -> str | None:
    """The pod that an answer names; None where it is none to the question of that number."""
    if len(data) < 12 or struct.unpack("!HH", data[:4]) != (number, _ANSWER):
        return None
    end = data.find(b"\0", 12) + 5
    length = data[end + 12]
    return data[end + 13 : end + 13 + length].decode()
