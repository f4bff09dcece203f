"""Between the control plane and one Envoy: what Envoy asks for is asked for above, what comes goes to the cache and to Envoy.

An answer goes up when Envoy has given it.

    control plane ◀──AdsClient── Feed ──AdsServer──▶ Envoy (a Unix socket that only this user may open)
                                  │
                                Cache (disk)      names ──▶ DNS

The names of the mesh (`type_urls.NAME`) are asked for by the node itself, for its DNS; no Envoy knows that type.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable, Coroutine, Mapping, Sequence
from pathlib import Path
from typing import Any

import grpc
import msgspec
import structlog

from tulle.core import type_urls
from tulle.core.encoded import Encoded, Published
from tulle.core.envoy.secrets import encode_bundle, encode_certificate
from tulle.core.envoy.tls import CERTIFICATE, ROOTS
from tulle.core.model.name import Name
from tulle.kit.errors import Refused
from tulle.node import file_secrets
from tulle.node.cache import ALL, UPSTREAM, Cache, write_private
from tulle.node.file_secrets import PREFIX
from tulle.node.identity import Identity
from tulle.xds.client import AdsClient, Response, Upstream
from tulle.xds.server import OPTIONS, AdsServer, Observer
from tulle.xds.status import Nack

log = structlog.get_logger("tulle.node")

HOLD = 2.0  # seconds that a taken-over Envoy keeps what it has while the control plane is asked first
_LAZY = 0.2  # seconds between an acknowledgement and the cache on disk; what comes meanwhile is written with it
_FILES = 5.0  # seconds between two looks at the files that certificates are read from
_STAGED = 5.0  # seconds that a response waits for what it refers to
_STALE = 10.0  # seconds that an Envoy has, after it connected, to ask again for what its predecessor asked for

_OF_EVERY_PROXY = (type_urls.CLUSTER, type_urls.LISTENER, type_urls.VIRTUAL_HOST, type_urls.NAME)
_AHEAD = (type_urls.ENDPOINT, type_urls.EXTENSION, type_urls.ROUTE)  # what is asked for because something refers to it


class Feed:
    """Everything between one Envoy and the control plane.

    `names` is called with the whole table of names at each change; `beside` is what else is served on the socket.
    """

    def __init__(
        self,
        proxy: str,
        upstream: Upstream,
        cache: Cache,
        file: Path,
        socket: Path,
        names: Callable[[Mapping[str, Name]], None] = lambda names: None,
        beside: Sequence[grpc.GenericRpcHandler] = (),
    ) -> None:
        self.proxy, self.cache, self.file, self.socket = proxy, cache, file, socket
        self._names, self._beside = names, beside
        self._server = AdsServer(
            cache,
            authorize=self._authorize,
            observer=_FromEnvoy(self),
            known=lambda _proxy, type_url, name: cache.known(type_url, name),
        )
        self._client = AdsClient(upstream, proxy, self._deliver, cache.versions, self._upstream_changed)
        self._grpc: grpc.aio.Server | None = None
        self._own: tuple[Encoded, ...] = ()
        self._files: dict[str, Encoded] = {}
        self._asked_files = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._saving: asyncio.TimerHandle | None = None
        self._closing = False
        self._write = asyncio.Lock()
        self._staged: list[Response] = []
        self._streams: dict[int, dict[str, set[str]]] = {}  # what each of Envoy's streams asked for
        self.refusals: dict[str, str] = {}  # type → Envoy's words

    @property
    def connected(self) -> bool:
        """Whether the control plane is being heard."""
        return self._client.connected

    async def start(self, hold: bool = False) -> None:
        """Listen for Envoy and go to the control plane. `hold`: an Envoy is running that may know more than the cache does."""
        cache = self.cache
        for type_url in _OF_EVERY_PROXY:
            cache.want(type_url, [ALL])  # asked for before Envoy does: they are there when it comes
        cache.want(type_urls.SECRET, [ROOTS])
        for type_url, names in cache.wanted.items():
            self._client.want(type_url, sorted(names))
        if hold and cache.complete:
            cache.held = True
            asyncio.get_running_loop().call_later(HOLD, self._release)
        self._tell_names()
        self.socket.unlink(missing_ok=True)
        self._grpc = grpc.aio.server(options=OPTIONS)
        self._grpc.add_generic_rpc_handlers((*self._server.handlers, *self._beside))
        self._grpc.add_insecure_port(f"unix:{self.socket}")
        await self._grpc.start()
        os.chmod(self.socket, 0o600)
        self._task(self._client.run())
        self._task(self._read_files())

    async def close(self) -> None:
        """Hang up on both sides and write what was acknowledged."""
        self._closing = True
        if self._saving is not None:
            self._saving.cancel()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.close()
        if self._grpc is not None:
            await self._grpc.stop(None)
        with contextlib.suppress(OSError):
            self.socket.unlink(missing_ok=True)
        await self._save()

    def use(self, identity: Identity) -> None:
        """The workload's certificate from now on; connections that stand keep the one that they were made with."""
        chain = encode_certificate(CERTIFICATE, identity.chain.encode(), identity.key.encode())
        self._own = (chain, encode_bundle(ROOTS, identity.bundle.encode()))
        self._publish_secrets()

    def _publish_secrets(self) -> None:
        self._server.publish(self._secrets())

    def _secrets(self) -> Published:
        """What is this node's own. The roots that came with the certificate stand in until the control plane tells of them."""
        told = ROOTS in self.cache.table(UPSTREAM, type_urls.SECRET)
        own = (one for one in self._own if not told or one.name != ROOTS)
        return self.cache.secrets((*own, *self._files.values()))

    async def _read_files(self) -> None:
        """Certificates in files of this host that Envoy asks for, and again whenever the files change."""
        stamps: dict[str, tuple[int, ...]] = {}
        while True:
            self._asked_files.clear()  # before the look: who asks from here on is heard by the next one
            names = {name for it in self._streams.values() for name in it.get(type_urls.SECRET, ()) if name.startswith(PREFIX)}
            now = await asyncio.to_thread(file_secrets.stamps, names) if names else {}
            if now != stamps:
                stamps = now
                self._files = await asyncio.to_thread(file_secrets.read_secrets, sorted(names))
                self._publish_secrets()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_FILES if names else None):
                    await self._asked_files.wait()

    # From above.

    def _deliver(self, response: Response) -> None:
        """Apply a response once all that it refers to is here.

        Envoy answers no cluster update while a cluster warms, and a cluster warms until its endpoints come: it must find them
        here when it asks, for the control plane waits for its answer meanwhile. So this node asks for them itself.
        """
        self._staged.append(response)
        missing = self._missing(response)
        if not missing:
            self._apply(response)
            return
        for type_url, names in missing.items():
            self._want(type_url, sorted(names - self.cache.wanted.get(type_url, set())), ())
        asyncio.get_running_loop().call_later(_STAGED, self._apply, response)

    def _missing(self, response: Response) -> dict[str, set[str]]:
        """What a response's resources refer to and the control plane has not told yet, by type."""
        found: dict[str, set[str]] = {}
        for resource in response.resources:
            for type_url, name in resource.refs:
                if type_url in _AHEAD and not self.cache.known(type_url, name):
                    found.setdefault(type_url, set()).add(name)
        return found

    def _apply(self, response: Response) -> None:
        if response not in self._staged:
            return
        self._staged.remove(response)
        published = self.cache.take(response.type_url, response.nonce, response.resources, response.removed)
        if response.type_url == type_urls.SECRET:
            self._secrets()  # nothing is published of it: what takes the place of the roots is
        self._server.publish(published)
        if response.type_url == type_urls.NAME:
            self._tell_names()
        names = {*(resource.name for resource in response.resources), *response.removed}
        if not self._concerns_envoy(response.type_url, names):
            self._settle(self.cache.acknowledged(self.cache.revision, response.type_url))
        if self.cache.held and response.type_url == type_urls.LISTENER:
            self._release()
        for staged in self._staged[:]:
            if not self._missing(staged):
                self._apply(staged)

    def _concerns_envoy(self, type_url: str, names: set[str]) -> bool:
        """Whether Envoy is to answer for a response. It cannot for what it has not asked for; it will for these two."""
        if type_url in (type_urls.CLUSTER, type_urls.LISTENER):
            return True
        return any(names & asked or ALL in asked for it in self._streams.values() if (asked := it.get(type_url, set())))

    def _release(self) -> None:
        if self.cache.held:
            self._server.publish(self.cache.release())

    def _upstream_changed(self, connected: bool) -> None:
        self._staged.clear()  # sent again by the next stream
        if not self._closing:
            log.info("control plane reached" if connected else "control plane lost", workload=self.proxy)

    def _tell_names(self) -> None:
        table = self.cache.table("upstream", type_urls.NAME)
        self._names({name: msgspec.json.decode(it.value, type=Name) for name, it in table.items()})

    # From below.

    def _authorize(self, _peer: str | None, proxy: str) -> None:
        if proxy != self.proxy:
            raise Refused(f"this socket is for {self.proxy}")

    @property
    def has_envoy(self) -> bool:
        """Whether Envoy has a stream here."""
        return bool(self._streams)

    def came(self, stream: int) -> None:
        """Envoy connected. It will ask again for what it wants; what it does not ask for soon, nobody wants any more."""
        self._streams[stream] = {}
        asyncio.get_running_loop().call_later(_STALE, self._forget_stale, stream)

    def went(self, stream: int) -> None:
        """Envoy is gone. What it asked for stays asked for: it comes back."""
        self._streams.pop(stream, None)

    def asked(self, stream: int, type_url: str, subscribe: Sequence[str], unsubscribe: Sequence[str]) -> None:
        """Ask above for what is new, and let go of what Envoy let go of."""
        mine = self._streams.setdefault(stream, {}).setdefault(type_url, set())
        mine.update(subscribe)
        mine.difference_update(unsubscribe)
        if type_url == type_urls.SECRET:  # its own certificate is this node's; roots and a gateway's others come from above
            if any(name.startswith(PREFIX) for name in subscribe):
                self._asked_files.set()
            subscribe, unsubscribe = (
                [name for name in names if name not in (CERTIFICATE, ROOTS) and not name.startswith(PREFIX)]
                for names in (subscribe, unsubscribe)
            )
        known = self.cache.wanted.get(type_url, set())
        new = [name for name in subscribe if name not in known]
        self._want(type_url, new, [name for name in unsubscribe if name in known])

    def took(self, revision: int, type_url: str | None) -> None:
        """Envoy has acknowledged a type (None: everything) up to a revision of the cache."""
        if type_url is not None:
            self.refusals.pop(type_url, None)
        self._settle(self.cache.acknowledged(revision, type_url))

    def refused(self, nack: Nack) -> None:
        """Envoy does not take it: the control plane is to hear why, and the disk keeps what was taken before."""
        self.refusals[nack.type_url] = nack.message
        for nonce in self.cache.refused(nack.revision, nack.type_url, nack.names):
            self._client.nack(nonce, nack.message)

    def _settle(self, nonces: Sequence[str]) -> None:
        for nonce in nonces:
            self._client.ack(nonce)
        if nonces:
            self._save_soon()

    def _want(self, type_url: str, subscribe: Sequence[str], unsubscribe: Sequence[str]) -> None:
        if not subscribe and not unsubscribe:
            return
        self.cache.want(type_url, subscribe, unsubscribe)
        self._client.want(type_url, subscribe, unsubscribe)
        self._save_soon()

    def _forget_stale(self, stream: int) -> None:
        if stream not in self._streams:
            return
        referred = self.cache.referred()
        for type_url, names in list(self.cache.wanted.items()):
            asked = set().union(*(it.get(type_url, set()) for it in self._streams.values()))
            awaited = set().union(*(self._missing(response).get(type_url, set()) for response in self._staged))
            self._want(type_url, (), sorted(names - asked - awaited - referred.get(type_url, set()) - {ALL, ROOTS}))

    # The disk.

    def _save_soon(self) -> None:
        if self._saving is None:
            self._saving = asyncio.get_running_loop().call_later(_LAZY, self._begin_save)

    def _begin_save(self) -> None:
        self._saving = None
        self._task(self._save())

    async def _save(self) -> None:
        async with self._write:  # one after the other, so that the newest is what stays
            try:
                await asyncio.to_thread(write_private, self.file, self.cache.snapshot())
            except OSError as error:
                log.warning("the configuration cache was not written", path=str(self.file), error=str(error))

    def _task(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("configuration stream of a workload failed", workload=self.proxy, exc_info=error)


class _FromEnvoy(Observer):
    """What the ADS server tells, in the feed's words."""

    def __init__(self, feed: Feed) -> None:
        self._feed = feed

    def connected(self, proxy: str, stream: int) -> None:
        self._feed.came(stream)

    def disconnected(self, proxy: str, stream: int) -> None:
        self._feed.went(stream)

    def subscribed(self, proxy: str, stream: int, type_url: str, subscribe: Sequence[str], unsubscribe: Sequence[str]) -> None:
        self._feed.asked(stream, type_url, subscribe, unsubscribe)

    def acked(self, proxy: str, stream: int, type_url: str, revision: int) -> None:
        self._feed.took(revision, type_url)

    def nacked(self, proxy: str, stream: int, nack: Nack) -> None:
        self._feed.refused(nack)

    def synced(self, proxy: str, stream: int, revision: int) -> None:
        self._feed.took(revision, None)
