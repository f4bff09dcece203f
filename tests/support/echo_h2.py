"""HTTP/2 of the echo server, with prior knowledge or by ALPN. Bodies are small: they fit the peer's first window."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived, RequestReceived, StreamEnded, StreamReset
from h2.exceptions import ProtocolError

from tests.support.echo_tls import details

if TYPE_CHECKING:
    from tests.support.echo import Echo, Request, Response


class Http2(asyncio.Protocol):
    """One connection."""

    def __init__(self, echo: Echo) -> None:
        self.echo = echo
        self.connection = H2Connection(H2Configuration(client_side=False, header_encoding="utf-8"))
        self.requests: dict[int, Request] = {}
        self.tasks: dict[int, asyncio.Task[None]] = {}
        self.transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client."""
        self.transport = transport
        self.connection.initiate_connection()
        self._flush()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nobody is there to be answered."""
        for task in self.tasks.values():
            task.cancel()

    def data_received(self, data: bytes) -> None:
        """Frames."""
        try:
            events = self.connection.receive_data(data)
        except ProtocolError:
            self._flush()
            self.transport.close()
            return
        for event in events:
            if isinstance(event, RequestReceived):
                self.requests[event.stream_id] = self._request(event.headers or [])
            elif isinstance(event, DataReceived):
                self.connection.acknowledge_received_data(event.flow_controlled_length or 0, event.stream_id)
            elif isinstance(event, StreamEnded):
                number = event.stream_id
                self.tasks[number] = asyncio.ensure_future(self._serve(number, self.requests.pop(number)))
            elif isinstance(event, StreamReset) and event.stream_id in self.tasks:
                self.tasks.pop(event.stream_id).cancel()
        self._flush()

    def _request(self, pairs: list[Any]) -> Request:
        from tests.support.echo import Request, canonical

        pseudo: dict[str, str] = {}
        headers: dict[str, list[str]] = {}
        for name, value in pairs:
            if name.startswith(":"):
                pseudo[name] = value
            else:
                headers.setdefault(canonical(name), []).append(value)
        tls = details(self.transport.get_extra_info("ssl_object"))
        return Request(pseudo.get(":path", ""), pseudo.get(":authority", ""), pseudo[":method"], "HTTP/2.0", headers, tls)

    async def _serve(self, stream: int, request: Request) -> None:
        answer = await self.echo.answer(request)
        self.tasks.pop(stream, None)
        if not answer.status:
            self.transport.abort()
        elif not self.transport.is_closing():
            self._send(stream, answer)

    def _send(self, stream: int, answer: Response) -> None:
        headers = [(":status", str(answer.status)), *((name.lower(), value) for name, value in answer.headers)]
        whole = not answer.body and not answer.trailers
        self.connection.send_headers(stream, headers, end_stream=whole)
        size = self.connection.max_outbound_frame_size
        for start in range(0, len(answer.body), size):
            piece = answer.body[start : start + size]
            last = start + size >= len(answer.body) and not answer.trailers
            self.connection.send_data(stream, piece, end_stream=last)
        if answer.trailers:
            self.connection.send_headers(stream, list(answer.trailers), end_stream=True)
        self._flush()

    def _flush(self) -> None:
        if data := self.connection.data_to_send():
            self.transport.write(data)
