"""Connections: how many there may be, how slow and how long-winded a client may be before it is a request.

    listener ──accept──▶ Connections (counts by address) ──TLS──▶ Connection (aiohttp's, with clocks and sizes)

What a connection knows is kept on it: the user of its certificate, and whether it has shown one at all.
"""

from __future__ import annotations

import asyncio
import errno
import json
import resource
import socket
import ssl
import time
from collections import Counter, OrderedDict
from typing import Any, cast

import structlog
from aiohttp import web

from tulle.control.apiserver.auth import User
from tulle.control.apiserver.errors import Denial, bad_request, too_large
from tulle.control.apiserver.limits import Limits
from tulle.kit.errors import Refused

log = structlog.get_logger("tulle.apiserver")

_FULL = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
_SAID, _MOST_SAID = 60.0, 1000  # seconds after which the same is said again of an address; how many are remembered
_PAUSE = 0.5  # seconds before a machine that is out of descriptors is asked for another connection
_REASONS = {400: "Bad Request", 408: "Request Timeout", 414: "URI Too Long", 431: "Request Header Fields Too Large"}
_END = b"\r\n\r\n"


class _Silent:
    """For aiohttp's own words on broken requests: they quote what was sent, and that may be a token."""

    def debug(self, *_: Any, **__: Any) -> None:
        """Nothing."""

    info = warning = error = exception = debug


class Connection(web.RequestHandler):
    """One client. `holder`: the user of its certificate, until when (s since the epoch), and its serial number: `authn.py`."""

    __slots__ = (
        "_body",
        "_book",
        "_head",
        "_line",
        "_seen",
        "_slow",
        "_tail",
        "_unread",
        "_whole",
        "_wire",
        "address",
        "holder",
        "watcher",
    )

    def __init__(self, server: web.Server, book: Connections, address: str, loop: asyncio.AbstractEventLoop) -> None:
        limits = book.limits
        super().__init__(
            server,
            loop=loop,
            keepalive_timeout=limits.idle_seconds,
            access_log=None,  # type: ignore[arg-type]  # what aiohttp itself passes where there is none
            logger=_Silent(),  # type: ignore[arg-type]
            max_line_size=limits.url + 64,
            max_field_size=limits.head,
            lingering_time=1.0,
        )
        self._book = book
        self.address = address
        self.holder: tuple[User | None, float, str] | None = None
        self.watcher: asyncio.Task[Any] | None = None  # what only sends, and would not notice that nobody is there
        self._wire: asyncio.Transport | None = None  # aiohttp forgets its own before the last bytes are out
        self._body: Any = None  # of the request that is being answered
        self._head = 0  # bytes of the request that is being read
        self._line = False  # whether its first line is in
        self._whole = False  # whether its head is
        self._tail = b""
        self._seen = False  # whether anything came at all
        self._slow: asyncio.TimerHandle | None = None
        self._unread: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The handshake is over."""
        super().connection_made(transport)
        self._wire = cast(asyncio.Transport, transport)
        self._book.opened(self, known=bool(transport.get_extra_info("peercert")))
        self._wait_for_head()

    def connection_lost(self, exc: BaseException | None) -> None:
        """Over."""
        self._stop(self._slow)
        self._stop(self._unread)
        self._book.lost(self)
        super().connection_lost(exc)
        if self.watcher is not None:
            self.watcher.cancel()

    @property
    def limits(self) -> Limits:
        """What holds for it."""
        return self._book.limits

    @property
    def opened(self) -> bool:
        """Whether its handshake was ever over."""
        return self._wire is not None

    def began(self, request: web.BaseRequest) -> None:
        """The handler has a request of this connection."""
        self._stop(self._slow)
        self._slow, self._body = None, request.content
        self._head, self._line, self._whole, self._tail = 0, False, False, b""

    def known(self) -> None:
        """It has shown who it is."""
        self._book.known(self)

    def data_received(self, data: bytes) -> None:
        """Bytes of a head are counted; those of a body are the handler's to count."""
        self._seen = True
        # None at all: aiohttp has its parser go on with what it kept, while a request is read and answered. No head has begun.
        if data and not self._whole and (self._body is None or self._body.is_eof()):
            self._body = None
            if (refusal := self._too_long(data)) is not None:
                self._refuse(refusal)
                return
            if not self._whole and self._slow is None:
                self._wait_for_head()
        super().data_received(data)

    def _too_long(self, data: bytes) -> Denial | None:
        limits = self.limits
        if not self._line:
            end = data.find(b"\n")
            self._line = end >= 0
            if self._head + (end if self._line else len(data)) > limits.url:
                return Denial(414, "RequestURITooLong", f"the URL is longer than {limits.url} bytes")
        joined = self._tail + data
        end = joined.find(_END)
        if end >= 0:
            self._whole = True
            self._stop(self._slow)
            self._slow = None
            self._head += max(0, end - len(self._tail))
        else:
            self._head += len(data)
            self._tail = joined[-3:]
        if self._head > limits.head:
            return Denial(431, "RequestHeaderFieldsTooLarge", f"the headers are longer than {limits.head} bytes")
        return None

    def pause_writing(self) -> None:
        """The client does not read what is sent: it may do so for a while."""
        super().pause_writing()
        self._stop(self._unread)
        self._unread = self._loop.call_later(self.limits.write_seconds, self.abort)

    def resume_writing(self) -> None:
        """It reads."""
        super().resume_writing()
        self._stop(self._unread)
        self._unread = None

    def handle_error(
        self, request: web.BaseRequest, status: int = 500, exc: BaseException | None = None, message: str | None = None
    ) -> web.StreamResponse:
        """A request that cannot be read, in Kubernetes' words and without its own."""
        if request.writer.output_size > 0:
            raise ConnectionError("an answer was under way")
        denial = (
            bad_request("the request is not HTTP/1.1") if status < 500 else Denial(status, "InternalError", "the server failed")
        )
        response = web.Response(body=json.dumps(denial.body).encode(), status=status, content_type="application/json")
        response.force_close()
        return response

    def abort(self) -> None:
        """End it at once."""
        if self._wire is not None:
            self._wire.abort()

    def _wait_for_head(self) -> None:
        self._slow = self._loop.call_later(self.limits.head_seconds, self._too_slow)

    def _too_slow(self) -> None:
        self._slow = None
        if self._seen:
            self._refuse(Denial(408, "Timeout", f"the headers did not come within {self.limits.head_seconds:g} seconds"))
        else:
            self.abort()

    def _refuse(self, denial: Denial) -> None:
        """Say it past the handler, which has no request yet, and close."""
        transport = self.transport
        if transport is None:
            return
        body = json.dumps(denial.body).encode()
        head = f"HTTP/1.1 {denial.http} {_REASONS[denial.http]}\r\nContent-Type: application/json\r\n"
        transport.write(f"{head}Content-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode() + body)
        self.force_close()

    @staticmethod
    def _stop(timer: asyncio.TimerHandle | None) -> None:
        if timer is not None:
            timer.cancel()


async def read_body(request: web.Request) -> bytes:
    """The whole body. Raises a `Denial`: 413 (one that says so beforehand is not read at all), or 408 where it is too slow."""
    connection = request.protocol
    assert isinstance(connection, Connection)
    limits = connection.limits
    if (request.content_length or 0) > limits.body:
        raise too_large(limits.body)
    if request.content.is_eof():  # it came with the head: nothing to wait for
        return await request.read()
    try:
        async with asyncio.timeout(limits.body_seconds):
            return await request.read()
    except TimeoutError as error:
        raise Denial(408, "Timeout", f"the body did not come within {limits.body_seconds:g} seconds") from error


class Connections:
    """All connections of a listener: accepts them, counts them, and lets those go that are too many."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.count = 0
        # The store, the xDS server and the disk need descriptors too, whatever comes from outside.
        descriptors = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        few = descriptors != resource.RLIM_INFINITY
        self.most = min(limits.connections, descriptors * 3 // 4) if few else limits.connections
        self.most_of_address = min(limits.connections_per_address, self.most // 2)
        self.refused = 0  # client certificates that were not good
        self._said: dict[tuple[str, str], float] = {}
        self._by_address: Counter[str] = Counter()
        self._strangers: OrderedDict[Connection, None] = OrderedDict()  # the oldest first
        self._socket: socket.socket | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    def listen(self, host: str, port: int, server: web.Server, tls: ssl.SSLContext) -> int:
        """Accept from now on; the port that is bound. Raises `Refused` where it cannot be."""
        try:
            self._socket = socket.create_server(
                (host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET, backlog=512
            )
        except OSError as error:
            raise Refused(f"the API server cannot listen on {host}:{port}: {error.strerror}") from error
        self._socket.setblocking(False)
        self._start(self._accept(self._socket, server, tls))
        bound: int = self._socket.getsockname()[1]
        return bound

    async def close(self) -> None:
        """Accept no more. Idempotent; what is open stays."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _start(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _accept(self, listener: socket.socket, server: web.Server, tls: ssl.SSLContext) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                accepted, peer = await loop.sock_accept(listener)
            except OSError as error:
                if error.errno in _FULL:
                    log.warning("no further connection can be taken", error=error.strerror)
                    await asyncio.sleep(_PAUSE)
                continue  # the client went away again
            address = str(peer[0])
            if self.count >= self.most or self._by_address[address] >= self.most_of_address:
                accepted.close()
                continue
            self.count += 1
            self._by_address[address] += 1
            self._start(self._shake_hands(accepted, address, server, tls))

    async def _shake_hands(self, accepted: socket.socket, address: str, server: web.Server, tls: ssl.SSLContext) -> None:
        loop = asyncio.get_running_loop()
        made: list[Connection] = []

        def factory() -> Connection:
            made.append(Connection(server, self, address, loop))
            return made[0]

        try:
            await loop.connect_accepted_socket(factory, accepted, ssl=tls, ssl_handshake_timeout=self.limits.handshake_seconds)
        except (OSError, asyncio.CancelledError, TimeoutError) as error:
            if isinstance(error, ssl.SSLCertVerificationError):
                self._refused(address, error.verify_message)
            accepted.close()
            if not made or not made[0].opened:  # else `lost` gives it back
                self._give_back(address)
            if isinstance(error, asyncio.CancelledError):
                raise

    def _refused(self, address: str, why: str) -> None:
        """A client has shown a certificate that is not good: counted, and said once in a while."""
        self.refused += 1
        now = time.monotonic()
        if now - self._said.get((address, why), -_SAID) >= _SAID:
            if len(self._said) >= _MOST_SAID:
                self._said.clear()
            self._said[address, why] = now
            log.warning("a client certificate is refused", address=address, why=why, refused=self.refused)

    def opened(self, connection: Connection, *, known: bool) -> None:
        """A handshake is over; `known`: with a certificate."""
        if not known:
            self._strangers[connection] = None
            if len(self._strangers) > self.limits.strangers:
                oldest, _ = self._strangers.popitem(last=False)
                oldest.abort()

    def known(self, connection: Connection) -> None:
        """A connection has shown who it is."""
        self._strangers.pop(connection, None)

    def lost(self, connection: Connection) -> None:
        """A connection is over."""
        self._strangers.pop(connection, None)
        self._give_back(connection.address)

    def _give_back(self, address: str) -> None:
        self.count -= 1
        self._by_address[address] -= 1
        if self._by_address[address] <= 0:
            del self._by_address[address]
