"""A client of HTTP/3, from aioquic: one connection, and what its certificate was."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from aioquic.asyncio.client import connect
from aioquic.asyncio.protocol import QuicConnectionProtocol
from aioquic.h3.connection import H3_ALPN, H3Connection
from aioquic.h3.events import DataReceived, H3Event, HeadersReceived
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.events import ConnectionTerminated, QuicEvent


class Http3(QuicConnectionProtocol):
    """One connection; requests on it may be at once."""

    def __init__(self, *arguments: Any, **more: Any) -> None:
        super().__init__(*arguments, **more)
        self._http = H3Connection(self._quic)
        self._answers: dict[int, tuple[dict[str, str], bytearray, asyncio.Future[None]]] = {}

    @property
    def serial(self) -> str:
        """The number of the certificate that the server showed, as Python's ssl writes it."""
        certificate = self._quic.tls._peer_certificate
        assert certificate is not None
        return f"{certificate.serial_number:X}"

    async def get(self, host: str, path: str, **more: str) -> tuple[dict[str, str], bytes]:
        """The headers (with `:status`) and the body of the answer; ConnectionError where the connection ends before."""
        stream = self._quic.get_next_available_stream_id()
        headers = {":method": "GET", ":scheme": "https", ":authority": host, ":path": path, **more}
        answer: tuple[dict[str, str], bytearray, asyncio.Future[None]] = (
            {},
            bytearray(),
            asyncio.get_running_loop().create_future(),
        )
        self._answers[stream] = answer
        self._http.send_headers(stream, [(name.encode(), value.encode()) for name, value in headers.items()], end_stream=True)
        self.transmit()
        await asyncio.wait_for(answer[2], 20)
        return answer[0], bytes(answer[1])

    def quic_event_received(self, event: QuicEvent) -> None:
        """What came."""
        if isinstance(event, ConnectionTerminated):
            for _headers, _body, done in self._answers.values():
                if not done.done():
                    done.set_exception(ConnectionError(event.reason_phrase))
        for found in self._http.handle_event(event):
            self._take(found)

    def _take(self, event: H3Event) -> None:
        if not isinstance(event, HeadersReceived | DataReceived):
            return
        headers, body, done = self._answers[event.stream_id]
        if isinstance(event, HeadersReceived):
            headers |= {name.decode(): value.decode() for name, value in event.headers}
        else:
            body += event.data
        if event.stream_ended and not done.done():
            done.set_result(None)


@asynccontextmanager
async def http3(port: int, host: str, roots: bytes, silence: float = 60.0) -> AsyncIterator[Http3]:
    """A connection to a port of this host, for a server name whose certificate has to be by these roots.

    ConnectionError where there is none, or where nothing comes for `silence` seconds.
    """
    configuration = QuicConfiguration(is_client=True, alpn_protocols=H3_ALPN, server_name=host, idle_timeout=silence)
    configuration.load_verify_locations(cadata=roots)
    async with asyncio.timeout(30), connect("127.0.0.1", port, configuration=configuration, create_protocol=Http3) as client:
        assert isinstance(client, Http3)
        yield client
