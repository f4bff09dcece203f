"""HTTP/2 frame by frame: header lists as they are given, with whatever is wrong in them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import ConnectionTerminated, DataReceived, ResponseReceived, StreamEnded, StreamReset
from hpack import Encoder
from hyperframe.frame import ContinuationFrame, DataFrame, HeadersFrame

Headers = Sequence[tuple[str, str]]

_LARGEST = 16_384  # bytes of a frame


class Frames:
    """One connection with prior knowledge. What is sent is made here; what comes is read by h2."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._connection = H2Connection(H2Configuration(header_encoding="latin-1", validate_inbound_headers=False))
        self._encoder = Encoder()
        self._next = 1

    @classmethod
    async def connected(cls, port: int) -> Frames:
        """To a port of this machine, with what both sides say at first."""
        made = cls(*await asyncio.open_connection("127.0.0.1", port))
        made._connection.initiate_connection()
        made._flush()
        return made

    async def close(self) -> None:
        """The end."""
        self._writer.close()

    def _flush(self) -> None:
        self._writer.write(self._connection.data_to_send())

    async def ask(self, headers: Headers, body: bytes = b"") -> tuple[int, str]:
        """The status of the answer (0: the stream or the connection was reset) and its body."""
        stream, self._next = self._next, self._next + 2
        # h2 has to know the stream whose frames it will read; the frames themselves are ours.
        honest = [(":method", "GET"), (":path", "/"), (":scheme", "http"), (":authority", "x")]
        self._connection.send_headers(stream, honest, end_stream=True)
        self._connection.data_to_send()
        block = self._encoder.encode([(name.encode("latin-1"), value.encode("latin-1"), True) for name, value in headers])
        self._writer.write(_frames(stream, block, end=not body))
        if body:
            data = DataFrame(stream, body)
            data.flags.add("END_STREAM")
            self._writer.write(data.serialize())
        try:
            return await self._answer(stream)
        except ConnectionError:
            return 0, ""

    async def _answer(self, stream: int) -> tuple[int, str]:
        status, body = 0, b""
        async with asyncio.timeout(10):
            while data := await self._reader.read(65536):
                for event in self._connection.receive_data(data):
                    if isinstance(event, ConnectionTerminated) or (isinstance(event, StreamReset) and event.stream_id == stream):
                        early = isinstance(event, StreamReset) and event.error_code is ErrorCodes.NO_ERROR
                        return (status if early else 0), body.decode("latin-1")
                    if isinstance(event, ResponseReceived) and event.stream_id == stream:
                        status = int({str(name): str(value) for name, value in event.headers or []}[":status"])
                    if isinstance(event, DataReceived) and event.stream_id == stream:
                        body += event.data or b""
                        self._connection.acknowledge_received_data(event.flow_controlled_length or 0, stream)
                    if isinstance(event, StreamEnded) and event.stream_id == stream:
                        self._flush()
                        return status, body.decode("latin-1")
                self._flush()
        return 0, ""


def _frames(stream: int, block: bytes, end: bool) -> bytes:
    first = HeadersFrame(stream, block[:_LARGEST])
    if end:
        first.flags.add("END_STREAM")
    rest = [ContinuationFrame(stream, block[at : at + _LARGEST]) for at in range(_LARGEST, len(block), _LARGEST)]
    (rest[-1] if rest else first).flags.add("END_HEADERS")
    return b"".join(one.serialize() for one in (first, *rest))
