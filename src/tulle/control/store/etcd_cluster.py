"""A cluster of etcd members as one thing that answers or says why not: endpoints, TLS, fail-over, bounded time.

    EtcdStore ──request──▶ Cluster.call ──▶ the member that answered last; when it fails, the next one

The messages are those that `aetcd` generated, the calls go by `grpc.aio` (docs/decisions/etcd.md says why not by its client).
One channel is in use at a time. Whoever finds that it does not answer drops it, for all: calls on their way are repeated on the
next one.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
import re
from collections.abc import AsyncGenerator, Callable
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import grpc
import msgspec
import structlog

from tulle.kit.errors import Refused, TulleError, Unavailable

DEADLINE = 6.0  # seconds for a whole call, every member tried: longer than an etcd leader change takes
_TRY = 2.0  # seconds for one member
_PAUSE = (0.05, 1.0)  # seconds before the next round of all members: at first, and at most
_DEFAULT_PORT = 2379

# A member that lost its cluster says so, instead of keeping a stream that is silent.
_METADATA = (("hasleader", "true"),)
_OPTIONS: tuple[tuple[str, int], ...] = (
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    ("grpc.keepalive_time_ms", 10_000),  # etcd forbids less than 5 s
    ("grpc.keepalive_timeout_ms", 3_000),
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.enable_http_proxy", 0),
)
_CODE = grpc.StatusCode
_TRANSIENT = (_CODE.UNAVAILABLE, _CODE.DEADLINE_EXCEEDED, _CODE.CANCELLED, _CODE.UNKNOWN, _CODE.INTERNAL, _CODE.ABORTED)

# What gRPC puts before the reason of a failed connection.
_WRAPPED = re.compile(r"^failed to connect to all addresses; last error: \w+: (ipv[46]:\S+: )?")

log = structlog.get_logger("tulle.store")


class Method(NamedTuple):
    """A method of etcd's services, `service/method`, the message that it answers with, and whether it streams."""

    path: str
    answer: Any
    streams: bool = False


class Place(msgspec.Struct, frozen=True):
    """Where a store lies: `endpoints` (`host:port`), the `prefix` of all its keys (ends with a slash), TLS or not."""

    endpoints: tuple[str, ...]
    prefix: str
    tls: bool


class TlsFiles(msgspec.Struct, frozen=True):
    """PEM files as etcd's own flags name them: the `ca` that signed the members, and this client's `cert` and `key`."""

    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None

    def credentials(self) -> grpc.ChannelCredentials:
        """Read anew at every connection, so that renewed files need no restart. Raises `Refused`."""
        if (self.cert is None) != (self.key is None):
            raise Refused("--etcd-cert-file and --etcd-key-file: found one of them, needed both or none")
        root, chain, key = (None if file is None else _read(file) for file in (self.ca, self.cert, self.key))
        return grpc.ssl_channel_credentials(root, key, chain)


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise Refused(f"{file} cannot be read: {error.strerror}") from error


def parse(url: str) -> Place:
    """`etcd://HOST[:PORT][,HOST[:PORT]...][/PREFIX]`, with `etcds` for TLS. Raises `Refused`."""
    parts = urlsplit(url)
    needed = "needed etcd://HOST:PORT[,HOST:PORT...][/PREFIX], or etcds:// for TLS"
    if parts.scheme not in ("etcd", "etcds") or parts.query or parts.fragment or "@" in parts.netloc:
        raise Refused(f"store {url!r}: {needed}")
    endpoints = []
    for one in parts.netloc.split(","):
        host, colon, port = one.rpartition(":") if not one.endswith("]") else (one, "", "")
        if not colon:
            host, port = one, str(_DEFAULT_PORT)
        if not host or not port.isdigit() or not 0 < int(port) <= 65535:
            raise Refused(f"store {url!r}: found the endpoint {one!r}; {needed}")
        endpoints.append(f"{host}:{port}")
    path = parts.path.strip("/") or "tulle"
    return Place(tuple(endpoints), f"/{path}/", parts.scheme == "etcds")


class Answer(TulleError):
    """What etcd itself answered where it said no: gRPC's `status` and its words. Never leaves the store."""

    def __init__(self, status: grpc.StatusCode, words: str) -> None:
        super().__init__(words)
        self.status = status

    @property
    def compacted(self) -> bool:
        """Whether a revision was asked for that is not kept any more."""
        return self.status is _CODE.OUT_OF_RANGE and "compacted" in self.message


class Cluster:
    """Calls to whichever member answers. `trouble` is why none does at the moment, "" where one does."""

    def __init__(self, place: Place, files: TlsFiles) -> None:
        self.place = place
        self.trouble = ""
        self._files = files
        self._order = itertools.cycle(place.endpoints)
        self._endpoint = next(self._order)
        self._channel: Any = None
        self._calls: dict[Method, Any] = {}  # of the channel in use
        self._streams: set[Any] = set()  # of the channel in use
        self._closing: set[asyncio.Task[None]] = set()
        if place.tls:
            files.credentials()  # a file that is not there is a mistake to be told at once

    @property
    def channel(self) -> grpc.aio.Channel:
        """The channel in use."""
        if self._channel is None:
            if self.place.tls:
                credentials = self._files.credentials()
                self._channel = grpc.aio.secure_channel(self._endpoint, credentials, options=_OPTIONS)
            else:
                self._channel = grpc.aio.insecure_channel(self._endpoint, options=_OPTIONS)
        return self._channel

    def drop(self, channel: grpc.aio.Channel, why: str) -> None:
        """That channel's member does not do what it should: everybody goes to the next one. Only the first who says so counts."""
        if channel is not self._channel:
            return
        if not self.trouble:
            log.warning("an etcd member does not answer; trying the next", member=self._endpoint, why=why)
        self.trouble = f"{self._endpoint}: {why}"
        self._channel, self._endpoint = None, next(self._order)
        self._calls.clear()
        for stream in self._streams:
            stream.cancel()  # closing the channel alone does not reach one that has no connection yet
        self._streams.clear()
        task = asyncio.get_running_loop().create_task(channel.close())
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    def well(self) -> None:
        """A member did what it should."""
        if self.trouble:
            log.info("etcd answers", member=self._endpoint)
            self.trouble = ""

    async def call(self, method: Method, request: Any, *, before: float = 0.0) -> tuple[Any, bool]:
        """The answer of one call that may be repeated, and whether it was: then an earlier try may have done it already.

        Raises `Answer` where etcd says no, `Unavailable` when no member has answered by `before` (the loop's time; 0:
        `DEADLINE` from now).
        """
        loop = asyncio.get_running_loop()
        deadline = before or loop.time() + DEADLINE
        repeated = False
        for attempt in itertools.count(1):
            channel = self.channel
            try:
                left = max(0.05, min(_TRY, deadline - loop.time()))
                answer = await self._unary(channel, method)(request, timeout=left, metadata=_METADATA)
            except grpc.aio.AioRpcError as error:
                if error.code() not in _TRANSIENT:
                    self.well()
                    raise Answer(error.code(), error.details() or error.code().name) from error
                self.drop(channel, _words(error))
            except (grpc.aio.UsageError, asyncio.InvalidStateError, asyncio.CancelledError) as error:
                if _cancelled(error):
                    raise
                self.drop(channel, "the connection was given up")  # in most cases somebody else has done so
            else:
                self.well()
                return answer, repeated
            repeated = True
            if attempt % len(self.place.endpoints) == 0:
                await asyncio.sleep(pause(attempt // len(self.place.endpoints)))
            if loop.time() >= deadline:
                raise self.unavailable()
        raise AssertionError("counting ends never")

    def _unary(self, channel: grpc.aio.Channel, method: Method) -> Any:
        made = self._calls.get(method)
        if made is None:
            make = channel.stream_stream if method.streams else channel.unary_unary
            call = _callable(make, method)
            made = self._calls[method] = _once(call) if method.streams else call
        return made

    async def stream(
        self, method: Method, request: Any, opened: Callable[[grpc.aio.Channel], None] = lambda _: None
    ) -> AsyncGenerator[Any, None]:
        """The answers to one request on a stream of its own, until the member ends it: then `Unavailable`, or `Answer`.

        `opened` is called with the channel that it runs on.
        """
        channel = self.channel
        opened(channel)
        call: Any = None
        try:
            call = _callable(channel.stream_stream, method)(_and_no_more(request), metadata=_METADATA)
            self._streams.add(call)
            async for answer in call:
                yield answer
            status, words = await call.code(), await call.details()
        except grpc.aio.AioRpcError as error:
            status, words = error.code(), _words(error)
        except (grpc.aio.UsageError, asyncio.InvalidStateError, asyncio.CancelledError) as error:
            if _cancelled(error):
                raise
            status, words = _CODE.UNAVAILABLE, "the connection was given up"
        finally:
            if call is not None:
                self._streams.discard(call)
                call.cancel()
        if status not in (*_TRANSIENT, _CODE.OK):
            raise Answer(status, words)
        self.drop(channel, words or "the member ended the stream")
        raise self.unavailable()

    def unavailable(self) -> Unavailable:
        """The error of a cluster that does not answer, with the last reason."""
        return Unavailable(
            f"etcd does not answer ({', '.join(self.place.endpoints)}): {self.trouble or 'no member in time'}",
            hint="more than half of its members must run and reach each other; when they do, this mends itself",
        )

    async def close(self) -> None:
        """Hang up."""
        for task in list(self._closing):
            with contextlib.suppress(Exception):
                await task
        if self._channel is not None:
            await self._channel.close()
            self._channel = None


def _callable(make: Callable[..., Any], method: Method) -> Any:
    deserialize = method.answer.FromString
    return make(f"/etcdserverpb.{method.path}", request_serializer=_serialize, response_deserializer=deserialize)


def _once(stream: Any) -> Callable[..., Any]:
    """A streaming method, called for one answer."""

    async def once(request: Any, **options: Any) -> Any:
        call = stream(_and_no_more(request), **options)
        try:
            async for answer in call:
                return answer
            raise asyncio.InvalidStateError("the member ended the stream")
        finally:
            call.cancel()

    return once


def pause(failures: int) -> float:
    """Seconds before another try after so many: twice as long each time, with a spread, so that not everybody comes at once."""
    shortest, longest = _PAUSE
    return random.uniform(0.5, 1.0) * min(longest, shortest * 2.0 ** min(failures, 10))  # noqa: S311 - not a secret


async def _and_no_more(request: Any) -> AsyncGenerator[Any, None]:
    """The requests of a stream that has one: its end would be the stream's end. (A call's `write` hangs where it is cancelled
    before there is a connection.)
    """
    yield request
    await asyncio.Event().wait()


def _serialize(message: Any) -> bytes:
    data: bytes = message.SerializeToString()
    return data


def _cancelled(error: BaseException) -> bool:
    """Whether it is this task that was cancelled, and not only the call that it waits for."""
    task = asyncio.current_task()
    return isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling() > 0


def _words(error: grpc.aio.AioRpcError) -> str:
    if error.code() is _CODE.DEADLINE_EXCEEDED:
        return "no answer in time"
    said: str = error.details() or error.code().name
    return _WRAPPED.sub("", said).removeprefix("etcdserver: ")
