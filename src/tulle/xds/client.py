"""The upstream side in a node: one delta ADS stream for each of its proxies, all over one channel to the control plane.

What arrives goes to the node's cache, and from there by `server.py` to the proxy's Envoy; a response is answered upstream only
when the node says so, which it does when Envoy itself has answered.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import grpc
import msgspec
import structlog

from tulle.core.type_urls import ORDER
from tulle.pb.envoy.service.discovery.v3 import discovery_pb2
from tulle.pb.google.rpc import status_pb2
from tulle.xds.credentials import SERVER_NAME
from tulle.xds.messages import Response, parse_response
from tulle.xds.server import SERVICE

_log = structlog.get_logger(__name__)

_OPTIONS: tuple[tuple[str, int | str], ...] = (
    ("grpc.max_receive_message_length", -1),
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.min_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    ("grpc.use_local_subchannel_pool", 1),
)
_INVALID_ARGUMENT = 3
_STAY = 60.0  # seconds that the other streams of a channel may go on, where only some of them have failed
_BACKOFF = (0.2, 1.0)  # seconds
_CALL = f"/{SERVICE}/DeltaAggregatedResources"

__all__ = ["AdsClient", "Response", "Upstream"]


class Upstream:
    """The channel that the clients of a node share. `target` is `host:port` or `unix:/path`, or several of them, by commas.

    Of several the first is taken, and the next when that one does not answer any more.
    """

    def __init__(self, target: str) -> None:
        self._targets = [one.strip() for one in target.split(",")]
        self._credentials: grpc.ChannelCredentials | None = None
        self._channel: grpc.aio.Channel | None = None
        self._old: set[asyncio.Task[None]] = set()
        self.moved = asyncio.Event()

    @property
    def channel(self) -> grpc.aio.Channel:
        """The channel with the newest credentials."""
        if self._channel is None:
            if self._credentials is None:
                self._channel = grpc.aio.insecure_channel(self.target, options=_OPTIONS)
            else:
                options = (*_OPTIONS, ("grpc.ssl_target_name_override", SERVER_NAME))
                self._channel = grpc.aio.secure_channel(self.target, self._credentials, options=options)
        return self._channel

    @property
    def target(self) -> str:
        """Where the channel leads."""
        return self._targets[0]

    def failed(self, channel: grpc.aio.Channel) -> None:
        """A stream of that channel ended because nobody answers there: the next ones go elsewhere, if there is an elsewhere."""
        if channel is self._channel and len(self._targets) > 1:
            self._targets.append(self._targets.pop(0))
            self._drop(_STAY)

    def use(self, root_pem: bytes, key_pem: bytes, chain_pem: bytes) -> None:
        """TLS with these credentials (`root_pem` the bundle to trust) from now on; running streams move over at once. Without
        a call the channel has no TLS (Unix sockets).
        """
        self._credentials = grpc.ssl_channel_credentials(root_pem, key_pem, chain_pem)
        self._drop(5.0)
        self.moved.set()
        self.moved = asyncio.Event()

    def _drop(self, grace: float) -> None:
        """Make a new channel at the next use; what runs on the old one has that many seconds."""
        old, self._channel = self._channel, None
        if old is not None:
            task = asyncio.get_running_loop().create_task(old.close(grace=grace))
            self._old.add(task)
            task.add_done_callback(self._old.discard)

    async def close(self) -> None:
        """Close the channel; stop the clients first."""
        for task in list(self._old):
            task.cancel()
        await asyncio.gather(*self._old, return_exceptions=True)
        if self._channel is not None:
            await self._channel.close()
            self._channel = None


class AdsClient:
    """One proxy's stream to the control plane.

    `deliver(response)` is called in the event loop for each response. `versions(type_url)` is asked at every connect for what
    the node holds (name → version) of a type, so that only what differs is sent. `changed(connected)` tells of the stream's ups
    and downs. `run()` keeps a stream open, with back-off, until cancelled.
    """

    def __init__(
        self,
        upstream: Upstream,
        proxy: str,
        deliver: Callable[[Response], None],
        versions: Callable[[str], Mapping[str, str]] = lambda type_url: {},
        changed: Callable[[bool], None] = lambda connected: None,
    ) -> None:
        self._upstream = upstream
        self._proxy = proxy
        self._deliver = deliver
        self._versions = versions
        self._changed = changed
        self._wanted: dict[str, dict[str, None]] = {}  # type → names, in the order of asking
        self._wants = asyncio.Event()
        self._stream = 0  # counts the streams: a nonce is only good on its own
        self._requests: asyncio.Queue[bytes] | None = None  # of the open stream
        self._begun: set[str] = set()  # types that were asked for on the open stream
        self._unanswered: dict[str, str] = {}  # nonce → type, on the open stream
        self._connected = False
        self._complaint = ""

    @property
    def connected(self) -> bool:
        """Whether a stream is open that the control plane has admitted."""
        return self._connected

    def want(self, type_url: str, subscribe: Sequence[str] = (), unsubscribe: Sequence[str] = ()) -> None:
        """Change what this proxy is subscribed to (`*`: all of the type), now and after every reconnect. Before `run` too.

        Names that are subscribed already are asked for again on the open stream: the control plane sends them anew.
        """
        names = self._wanted.setdefault(type_url, {})
        gone = [name for name in unsubscribe if name in names and name not in subscribe]
        for name in gone:
            del names[name]
        names.update(dict.fromkeys(subscribe))
        if names:
            self._wants.set()
        if subscribe or gone:
            self._ask(type_url, subscribe, gone)

    def ack(self, nonce: str) -> None:
        """Tell the control plane that the proxy took the response; a nonce of an earlier stream is ignored."""
        if (type_url := self._unanswered.pop(nonce, None)) is not None:
            self._send(discovery_pb2.DeltaDiscoveryRequest(type_url=type_url, response_nonce=nonce.partition(".")[2]))

    def nack(self, nonce: str, message: str) -> None:
        """Tell the control plane that the proxy refused the response, with its words."""
        if (type_url := self._unanswered.pop(nonce, None)) is not None:
            answer = discovery_pb2.DeltaDiscoveryRequest(type_url=type_url, response_nonce=nonce.partition(".")[2])
            answer.error_detail.CopyFrom(status_pb2.Status(code=_INVALID_ARGUMENT, message=message))
            self._send(answer)

    async def run(self) -> None:
        """Connect, exchange, reconnect (jittered back-off of 0.2 to 1 s), until cancelled. Waits for the first `want`."""
        failures = 0
        while True:
            await self._wants.wait()
            moved = self._upstream.moved
            stream = asyncio.create_task(self._exchange())
            elsewhere = asyncio.create_task(moved.wait())
            try:
                await asyncio.wait((stream, elsewhere), return_when=asyncio.FIRST_COMPLETED)
                failures = 0 if self._connected else failures + 1
                if stream.done() and not stream.cancelled() and stream.exception() is None and stream.result() is not None:
                    self._upstream.failed(stream.result())
            finally:
                stream.cancel()
                elsewhere.cancel()
                results = await asyncio.gather(stream, elsewhere, return_exceptions=True)
                self._ended()
            if isinstance(results[0], Exception):
                raise results[0]
            if not moved.is_set():
                shortest, longest = _BACKOFF
                spread = min(shortest * 2 ** min(failures, 4), longest)
                await asyncio.sleep(random.uniform(shortest, spread))  # noqa: S311 - not a secret

    async def _exchange(self) -> grpc.aio.Channel | None:
        """One stream, from its first requests to its end; its channel, where nobody answers there any more."""
        channel = self._upstream.channel
        call = channel.stream_stream(_CALL)()
        code = grpc.StatusCode.OK
        self._stream += 1
        requests: asyncio.Queue[bytes] = asyncio.Queue()
        self._requests = requests
        for type_url in sorted(self._wanted, key=_order):
            if names := tuple(self._wanted[type_url]):
                self._ask(type_url, names)
        writer = asyncio.create_task(self._write(call, requests))
        heard = asyncio.create_task(self._heard(call))
        try:
            while (data := await call.read()) is not grpc.aio.EOF:
                response = parse_response(data)
                self._answered()
                nonce = f"{self._stream}.{response.nonce}"
                self._unanswered[nonce] = response.type_url
                self._deliver(msgspec.structs.replace(response, nonce=nonce))
            code = await call.code()
            self._complain(code, await call.details())
        except grpc.aio.AioRpcError as error:
            code = error.code()
            self._complain(code, error.details())
        finally:
            writer.cancel()
            heard.cancel()
            call.cancel()
        return channel if code is grpc.StatusCode.UNAVAILABLE else None

    async def _heard(self, call: Any) -> None:
        """The control plane admits the stream: it may have nothing to tell that this node does not have."""
        await call.initial_metadata()
        if not call.done():
            self._answered()

    def _answered(self) -> None:
        if not self._connected:
            self._connected, self._complaint = True, ""
            self._changed(True)

    async def _write(self, call: Any, requests: asyncio.Queue[bytes]) -> None:
        # Where a write fails the read fails too, and says why.
        with contextlib.suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
            while True:
                await call.write(await requests.get())

    def _ended(self) -> None:
        self._requests = None
        self._begun.clear()
        self._unanswered.clear()
        if self._connected:
            self._connected = False
            self._changed(False)

    def _complain(self, code: grpc.StatusCode, details: str | None) -> None:
        """Log why a stream ended, once for each reason."""
        complaint = f"{code.name}: {details or 'ended'}"
        if complaint != self._complaint:
            self._complaint = complaint
            _log.warning("no stream to the control plane", proxy=self._proxy, why=complaint)

    def _ask(self, type_url: str, subscribe: Sequence[str], unsubscribe: Sequence[str] = ()) -> None:
        if self._requests is None:
            return
        request = discovery_pb2.DeltaDiscoveryRequest(
            type_url=type_url, resource_names_subscribe=subscribe, resource_names_unsubscribe=unsubscribe
        )
        if not self._begun:
            request.node.id = self._proxy
        if type_url not in self._begun:
            self._begun.add(type_url)
            request.initial_resource_versions.update(self._versions(type_url))
        self._send(request)

    def _send(self, request: discovery_pb2.DeltaDiscoveryRequest) -> None:
        if self._requests is not None:
            self._requests.put_nowait(request.SerializeToString())


def _order(type_url: str) -> int:
    return ORDER.index(type_url) if type_url in ORDER else len(ORDER)
