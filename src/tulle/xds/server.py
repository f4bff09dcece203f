"""The ADS server: between the control plane and its nodes over mutual TLS, between a node and its Envoys over Unix sockets.

The shell of `stream.py`: reads requests, feeds them in, writes what comes out, and counts who is in sync. Requests and
responses are raw bytes to gRPC (no serialisers), so that shared resources are never serialised again.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import grpc
import structlog
from google.protobuf.message import DecodeError

from tulle.core.encoded import Published, Source
from tulle.core.type_urls import SHORT
from tulle.kit.errors import Refused as NotPermitted
from tulle.xds import sotw
from tulle.xds.events import Acked, Action, Changed, Event, Overdue, Refused, Settled, Subscribed, Synced
from tulle.xds.messages import Request, Send, parse_request
from tulle.xds.sotw import SotwRequest, SotwSend, SotwStream
from tulle.xds.status import Nack, Progress, ProxyStatus
from tulle.xds.stream import DeltaStream

SERVICE = "envoy.service.discovery.v3.AggregatedDiscoveryService"

# For `grpc.aio.server(options=OPTIONS)`. A port in use is an error, not shared; a peer that vanished is noticed in 40 s.
OPTIONS: tuple[tuple[str, int], ...] = (
    ("grpc.so_reuseport", 0),
    ("grpc.max_receive_message_length", 64 << 20),
    ("grpc.max_send_message_length", -1),
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
    ("grpc.http2.max_ping_strikes", 0),
)

# How long (s) a proxy that comes back may take to say all that it has and wants, before anything of it is removed.
RETURN = 1.0

# How long (s) a proxy may take to answer, or to subscribe to what its resources refer to, before the rest is sent anyway.
PATIENCE = 5.0

_log = structlog.get_logger(__name__)

REFUSAL = "proxy refused configuration"  # in the log of whoever hears a NACK

_Parse = Callable[[bytes], "tuple[str, Request | SotwRequest]"]


class Observer:
    """What a server tells whoever wants to know; every method does nothing unless overridden. Called in the event loop,
    from inside the stream: return quickly, do not raise, do not call `publish` (schedule it).

    `stream` numbers the streams of a server: a proxy that reconnects has a new one, and the old may end after the new began.
    """

    def connected(self, proxy: str, stream: int) -> None:
        """The proxy's first request came and was authorized."""

    def disconnected(self, proxy: str, stream: int) -> None:
        """The stream ended."""

    def subscribed(self, proxy: str, stream: int, type_url: str, subscribe: Sequence[str], unsubscribe: Sequence[str]) -> None:
        """The proxy changed what it wants of a type. `*` is all of it (also where the proxy used the older form)."""

    def sent(self, proxy: str, stream: int, type_url: str, revision: int) -> None:
        """A response of a type, made at `revision`, is on its way to the proxy."""

    def acked(self, proxy: str, stream: int, type_url: str, revision: int) -> None:
        """The proxy acknowledged the response of a type that was made at `revision`."""

    def nacked(self, proxy: str, stream: int, nack: Nack) -> None:
        """The proxy refused a response."""

    def synced(self, proxy: str, stream: int, revision: int) -> None:
        """All that the source had for this proxy at `revision` is answered."""


class _Peer(NamedTuple):
    """Who speaks: the SPIFFE ID of the certificate (None: there is none), and its serial number in hex."""

    identity: str | None
    serial: str


class _Session:
    """One stream: the protocol, and what waits to be written."""

    def __init__(self, number: int, proxy: str, peer: _Peer, connected: float, protocol: DeltaStream | SotwStream) -> None:
        self.number, self.proxy, self.connected, self.protocol = number, proxy, connected, protocol
        self.peer, self.serial = peer.identity or "", peer.serial
        self.outbox: deque[Send | SotwSend] = deque()
        self.wake = asyncio.Event()
        self.timer: asyncio.TimerHandle | None = None
        self.settling: asyncio.TimerHandle | None = None
        self.task = asyncio.current_task()
        self.closing = False


class _Waiter:
    """A `wait_synced` call: the sessions that are behind, and the revision that the source itself has yet to reach."""

    def __init__(self, revision: int) -> None:
        self.revision = revision
        self.behind: set[_Session] = set()
        self.done = asyncio.Event()


class AdsServer:
    """Serves a `Source` to any number of proxies by delta ADS, and by state-of-the-world ADS to those that speak only that.

    `authorize(peer, proxy)` is asked when a stream begins, when its proxy becomes known, and when the proxy's own object changes,
    with the peer's SPIFFE ID (None over a Unix socket) and the `node.id` that it claims; it raises `kit.errors.Refused` to close
    the stream. `revoked(peer, serial)` says whether a peer, or its certificate (serial number in hex), is nobody any more: such a
    stream does not begin, and `end_revoked` ends those that stand. `known(proxy, type_url, name)` tells whether the absence
    of a name (or of everything: `*`, or of a table's virtual hosts: its name) from the source is a fact; while it returns False
    the proxy is told nothing of it, until a `publish` that names it (as None where it does not exist) makes it asked again.
    Default: absence is a fact. `clock` gives seconds since the epoch.
    """

    def __init__(
        self,
        source: Source,
        authorize: Callable[[str | None, str], None] = lambda peer, proxy: None,
        observer: Observer | None = None,
        known: Callable[[str, str, str], bool] = lambda proxy, type_url, name: True,
        clock: Callable[[], float] = time.time,
        revoked: Callable[[str, str], bool] = lambda peer, serial: False,
    ) -> None:
        self._source = source
        self._revoked = revoked
        self._authorize = authorize
        self._observer = observer or Observer()
        self._known = known
        self._clock = clock
        self._sessions: dict[int, _Session] = {}
        self._numbers = 0
        self._waiters: set[_Waiter] = set()
        self.refused = 0  # streams that were not begun, or ended, because of who asked

    @property
    def handlers(self) -> tuple[grpc.GenericRpcHandler, ...]:
        """For `grpc.aio.Server.add_generic_rpc_handlers`. Make that server with `options=xds.server.OPTIONS`."""
        methods = {
            "DeltaAggregatedResources": grpc.stream_stream_rpc_method_handler(self._delta),
            "StreamAggregatedResources": grpc.stream_stream_rpc_method_handler(self._sotw),
        }
        return (grpc.method_handlers_generic_handler(SERVICE, methods),)

    def publish(self, published: Published) -> None:
        """The source moved: call directly after the commit that moved it, without an `await` between. Per stream only the
        changed names of its layers are looked at. Synchronous; the responses go out when the loop runs on.
        """
        event = Changed(published)
        for session in list(self._sessions.values()):
            if self._may_go_on(session, published):
                self._feed(session, event)
            else:
                _end(session)
        for waiter in list(self._waiters):
            self._settle(waiter)

    def proxies(self) -> list[ProxyStatus]:
        """Every connected stream, sorted by proxy."""
        return [
            ProxyStatus(
                proxy=session.proxy,
                peer=session.peer,
                connected=session.connected,
                synced=session.protocol.synced,
                held=session.protocol.held,
                types=session.protocol.status(),
            )
            for session in sorted(self._sessions.values(), key=lambda session: (session.proxy, session.number))
        ]

    @property
    def queued(self) -> int:
        """Responses that wait to be written."""
        return sum(len(session.outbox) for session in self._sessions.values())

    @property
    def waiting(self) -> int:
        """Connected proxies that have not acknowledged all of the source's revision."""
        now = self._source.revision
        return sum(1 for session in self._sessions.values() if not session.protocol.held and _behind(session, now))

    def holding(self, type_url: str, name: str) -> dict[str, str]:
        """The version of a resource that each connected proxy has said it took, by its newest stream; "" where of none."""
        newest = {session.proxy: session for _number, session in sorted(self._sessions.items())}
        return {proxy: session.protocol.has(type_url, name) for proxy, session in newest.items()}

    def progress(self) -> list[Progress]:
        """How far every connected proxy that the source knows is, by its newest stream; quicker than `proxies`."""
        newest = {session.proxy: session for _number, session in sorted(self._sessions.items())}
        return [
            Progress(session.proxy, session.protocol.synced, session.protocol.refused)
            for session in newest.values()
            if not session.protocol.held
        ]

    async def wait_synced(self, revision: int, timeout: float) -> list[str]:
        """Wait until every connected proxy that the source knows has answered all of `revision`; the ids of those that
        have not after `timeout` seconds (empty: all have). Waits for the source to get to `revision` first: where it does
        not, every connected proxy is behind.
        """
        waiter = _Waiter(revision)
        waiter.behind = {session for session in self._sessions.values() if _behind(session, revision)}
        self._waiters.add(waiter)
        try:
            self._settle(waiter)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(timeout):
                    await waiter.done.wait()
        finally:
            self._waiters.discard(waiter)
        return [] if waiter.done.is_set() else sorted({session.proxy for session in waiter.behind})

    def end_revoked(self) -> None:
        """End the streams of peers that are nobody any more."""
        for session in self._sessions.values():
            if session.peer and self._revoked(session.peer, session.serial):
                self._say_refused(session.proxy, session.peer, f"its certificate {session.serial} is revoked, or its identity")
                _end(session)

    async def close(self) -> None:
        """End every stream; the peers may come back at once, so stop listening too where that is not wanted."""
        sessions = list(self._sessions.values())
        for session in sessions:
            _end(session)
        await asyncio.gather(*(session.task for session in sessions if session.task is not None), return_exceptions=True)

    # A stream's life

    async def _delta(self, _requests: Any, context: Any) -> None:
        await self._serve(context, parse_request, lambda proxy: DeltaStream(self._source, proxy, self._known))

    async def _sotw(self, _requests: Any, context: Any) -> None:
        await self._serve(context, sotw.parse_request, lambda proxy: SotwStream(self._source, proxy))

    async def _serve(self, context: Any, parse: _Parse, start: Callable[[str], DeltaStream | SotwStream]) -> None:
        data = await context.read()
        if data is grpc.aio.EOF:
            return
        proxy, request = await _parsed(context, parse, data)
        peer = await self._admit(context, proxy)
        await context.send_initial_metadata(())  # the proxy knows that it is heard, also where there is nothing to tell it
        self._numbers += 1
        session = _Session(self._numbers, proxy, peer, self._clock(), start(proxy))
        self._sessions[session.number] = session
        for waiter in self._waiters:
            if _behind(session, waiter.revision):
                waiter.behind.add(session)
        _log.debug("proxy connected", proxy=proxy, peer=peer.identity, stream=session.number)
        writer = asyncio.create_task(self._write(session, context))
        try:
            self._observer.connected(proxy, session.number)
            self._feed(session, request)
            while not writer.done() and (data := await context.read()) is not grpc.aio.EOF:
                _, request = await _parsed(context, parse, data)
                self._feed(session, request)
        except asyncio.CancelledError:
            if not session.closing:
                raise
            # A handler that is just cancelled leaves the peer with a stream that is silent for ever.
            context.set_code(grpc.StatusCode.UNAVAILABLE)
            context.set_details("the server is closing")
        finally:
            writer.cancel()
            for timer in (session.timer, session.settling):
                if timer is not None:
                    timer.cancel()
            del self._sessions[session.number]
            for waiter in list(self._waiters):
                waiter.behind.discard(session)
                self._settle(waiter)
            _log.debug("proxy disconnected", proxy=proxy, stream=session.number)
            self._observer.disconnected(proxy, session.number)

    async def _admit(self, context: Any, proxy: str) -> _Peer:
        """The peer, once it may speak for this proxy; ends the stream otherwise."""
        auth = context.auth_context()
        peer, serial = peer_identity(auth), peer_serial(auth)
        try:
            if not proxy:
                raise NotPermitted("the first request of a stream has to name its proxy in node.id")
            if peer is None and auth.get("transport_security_type") == [b"ssl"]:
                raise NotPermitted("the client certificate has no SPIFFE ID, or more than one")
            if peer is not None and self._revoked(peer, serial):
                raise NotPermitted(f"{peer}, or its certificate {serial}, is revoked")
            self._authorize(peer, proxy)
        except NotPermitted as refusal:
            self._say_refused(proxy, peer, refusal.message)
            await context.abort(grpc.StatusCode.PERMISSION_DENIED, refusal.message)
        return _Peer(peer, serial)

    def _say_refused(self, proxy: str, peer: str | None, why: str) -> None:
        self.refused += 1
        _log.warning("proxy refused", proxy=proxy, peer=peer, why=why, refused=self.refused)

    async def _write(self, session: _Session, context: Any) -> None:
        # What went wrong with a write shows in the reader too, which ends the stream.
        with contextlib.suppress(grpc.aio.BaseError, grpc.aio.UsageError, asyncio.InvalidStateError):
            while True:
                await session.wake.wait()
                session.wake.clear()
                while session.outbox:
                    await context.write(session.outbox.popleft().payload)

    # What happens in it

    def _may_go_on(self, session: _Session, published: Published) -> bool:
        """Whether a peer may still have a proxy that it asked for before anybody knew it, or that may be another's by now."""
        if not session.protocol.held and session.proxy not in published.proxies:
            return True
        try:
            self._authorize(session.peer or None, session.proxy)
        except NotPermitted as refusal:
            self._say_refused(session.proxy, session.peer, refusal.message)
            return False
        return True

    def _feed(self, session: _Session, event: Event | SotwRequest) -> None:
        protocol: Any = session.protocol  # each is fed what its own parser made
        for action in protocol.feed(event):
            self._act(session, action)
        if session.outbox:
            session.wake.set()
        if protocol.recovering and session.settling is None:
            session.settling = asyncio.get_running_loop().call_later(RETURN, self._feed, session, Settled())
        if session.timer is not None and (not isinstance(event, Changed) or not protocol.outstanding):
            session.timer.cancel()
            session.timer = None
        if session.timer is None and protocol.outstanding:
            session.timer = asyncio.get_running_loop().call_later(PATIENCE, self._overdue, session)

    def _overdue(self, session: _Session) -> None:
        session.timer = None
        types = [SHORT[type_url] for type_url in session.protocol.outstanding]
        _log.info("proxy does not answer, or does not ask for what it was pointed at", proxy=session.proxy, types=types)
        self._feed(session, Overdue())

    def _act(self, session: _Session, action: Action | SotwSend) -> None:
        match action:
            case Send() | SotwSend():
                session.outbox.append(action)
                self._observer.sent(session.proxy, session.number, action.type_url, action.revision)
            case Acked(type_url, revision):
                self._observer.acked(session.proxy, session.number, type_url, revision)
            case Refused(nack):
                short = SHORT.get(nack.type_url, nack.type_url)
                _log.warning(REFUSAL, proxy=session.proxy, type=short, names=nack.names, why=nack.message)
                self._observer.nacked(session.proxy, session.number, nack)
            case Subscribed(type_url, subscribe, unsubscribe):
                self._observer.subscribed(session.proxy, session.number, type_url, subscribe, unsubscribe)
            case Synced(revision):
                self._observer.synced(session.proxy, session.number, revision)
                for waiter in list(self._waiters):
                    if not _behind(session, waiter.revision):
                        waiter.behind.discard(session)
                        if not waiter.behind:
                            self._settle(waiter)

    def _settle(self, waiter: _Waiter) -> None:
        if self._source.revision >= waiter.revision:
            # Proxies may have become known, or unknown, since.
            waiter.behind = {session for session in waiter.behind if not session.protocol.held}
            if not waiter.behind:
                waiter.done.set()


def _end(session: _Session) -> None:
    session.closing = True
    if session.task is not None:
        session.task.cancel()


def _behind(session: _Session, revision: int) -> bool:
    return session.protocol.synced < revision


async def _parsed(context: Any, parse: _Parse, data: bytes) -> tuple[str, Request | SotwRequest]:
    try:
        return parse(data)
    except (DecodeError, UnicodeDecodeError) as error:
        await context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"not a discovery request: {error}")
        raise


def peer_serial(auth: Mapping[str, Sequence[bytes]]) -> str:
    """The serial number of a gRPC peer's certificate, in hex; "" where it has shown none."""
    shown = auth.get("x509_pem_cert")
    if not shown:
        return ""
    from cryptography import x509  # a node's own server has no certificates to look at

    return f"{x509.load_pem_x509_certificate(shown[0]).serial_number:x}"


def peer_identity(auth: Mapping[str, Sequence[bytes]]) -> str | None:
    """The one SPIFFE ID among the subject alternative names of a gRPC peer's certificate, or None."""
    names = [name.decode(errors="replace") for name in auth.get("x509_subject_alternative_name", ())]
    ids = [name for name in names if name.startswith("spiffe://")]
    return ids[0] if len(ids) == 1 else None
