"""`tulle control-plane`: store, authority, pipeline, API server and xDS server, wired.

    API server ──▶ store ──watch──▶ Feed: decode → Pipeline.commit → AdsServer.publish

A model revision is the store's revision: what `kubectl` shows as `resourceVersion` is what `tulle wait --revision` waits for.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import signal
import socket
import ssl
import tempfile
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import grpc
import structlog

import tulle
from tulle.api.decode import decode
from tulle.api.kind import Kind
from tulle.api.object import Object
from tulle.api.registry import kind_for, kind_of_resource
from tulle.app import collector, logs, preflight
from tulle.app.backup import STORE, authority_files
from tulle.app.notify import notify
from tulle.app.oidc import oidc_issuer
from tulle.app.settings import ControlPlaneSettings
from tulle.client import kubeconfig
from tulle.control.apiserver.server import ApiServer
from tulle.control.backup_api import add_backup
from tulle.control.ca.authority import Authority, KeyPair
from tulle.control.ca.http import PREFIX as IDENTITY_PREFIX
from tulle.control.ca.http import identity_app
from tulle.control.ca.nodes import Nodes
from tulle.control.ca.tokens import JoinTokens
from tulle.control.events import Events
from tulle.control.garbage import GarbageCollector
from tulle.control.history_api import add_history
from tulle.control.mesh_api import mesh_api
from tulle.control.status import StatusWriter
from tulle.control.store.backup import written
from tulle.control.store.history import HistoryKeeper
from tulle.control.store.sealed import VARIABLE, Keys, SealedStore
from tulle.control.store.sqlite import SqliteStore
from tulle.core.analyze import Finding, Scope, finding
from tulle.core.encoded import Published
from tulle.core.pipeline import Pipeline
from tulle.kit.errors import Refused
from tulle.kit.problem import Severity
from tulle.ports import Event, Key, Store
from tulle.xds.credentials import ServerCredentials
from tulle.xds.server import OPTIONS, AdsServer, Observer
from tulle.xds.status import Nack, ProxyStatus

log = structlog.get_logger("tulle.control-plane")

_SERVER_LIFETIME = 24 * 3600.0
_CLIENT_LIFETIME = 365 * 24 * 3600.0  # the local administrator's own kubeconfig; made anew at every start
_SLICE = 100  # objects that are judged in one go: some 20 ms
_JUDGED = 5.0  # seconds that a write waits, at most, for what the mesh has to say of it
_BATCH = 10_000  # events in one commit, at most: a bound for memory, never reached by hand


class Feed:
    """Keeps the pipeline at the store's revision, and tells the xDS server of every step.

    Events that are there already go into one commit; a lone change is not delayed. What is only a status is compiled by nobody:
    `overwritten` hears of it.
    """

    def __init__(
        self,
        store: Store,
        pipeline: Pipeline,
        publish: Callable[[Any], None],
        overwritten: Callable[[Sequence[Key]], None] = lambda keys: None,
    ) -> None:
        self.store, self.pipeline, self.publish, self.overwritten = store, pipeline, publish, overwritten
        self._waiting: asyncio.Queue[Event] = asyncio.Queue()
        self._stepped = asyncio.Event()

    async def reached(self, revision: int) -> None:
        """Wait until the pipeline shows a revision of the store."""
        while self.pipeline.revision < revision:
            await self._stepped.wait()

    async def load(self) -> int:
        """Everything that is stored, as one commit; the revision that it shows."""
        stored, revision = await self.store.list()
        self._commit({item.key: item.body for item in stored}, revision)
        return revision

    async def run(self, since: int) -> None:
        """Follow the store until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._read(since))
            group.create_task(self._work())

    async def _read(self, since: int) -> None:
        async for event in self.store.watch(since):
            self._waiting.put_nowait(event)

    async def _work(self) -> None:
        while True:
            event = await self._waiting.get()
            events = [event]
            while not self._waiting.empty() and len(events) < _BATCH:
                events.append(self._waiting.get_nowait())
            bodies: dict[Key, dict[str, Any] | None] = {}
            statuses: list[Key] = []
            for one in events:
                if only_status(one):
                    statuses.append(one.key)
                else:
                    bodies[one.key] = one.body
            self._commit(bodies, events[-1].revision)
            self.overwritten(statuses)

    def _commit(self, bodies: Mapping[Key, dict[str, Any] | None], revision: int) -> None:
        changes = {}
        for key, body in bodies.items():
            if kind_of_resource(key.resource) is not None:
                changes[key.resource, key.namespace, key.name] = _typed(key, body)
        self.publish(self.pipeline.commit(changes, revision))
        self._stepped.set()
        self._stepped = asyncio.Event()


def only_status(event: Event) -> bool:
    """Whether an event changed nothing of an object but its status (and who wrote which field)."""
    if event.body is None or event.previous is None:
        return False
    return _without_status(event.body) == _without_status(event.previous)


def _without_status(body: Mapping[str, Any]) -> dict[str, Any]:
    metadata = {key: value for key, value in body.get("metadata", {}).items() if key not in ("managedFields", "resourceVersion")}
    return {**body, "metadata": metadata, "status": None}


def _typed(key: Key, body: dict[str, Any] | None) -> Object | None:
    """The stored object, decoded. One that a former version stored and this one cannot read is left out, and said."""
    if body is None:
        return None
    # The mesh never acts on a status, so that none can keep it from acting.
    decoded, problems = decode({field: value for field, value in body.items() if field != "status"})
    if decoded is None:
        log.error("a stored object cannot be read; it is left out", object=str(key), problems=[str(it) for it in problems])
    return decoded


class _Moves(Observer):
    """Tells that a proxy moved: that is all that the status writer has to hear."""

    def __init__(self, moved: Callable[[], None]) -> None:
        self._moved = moved

    def connected(self, proxy: str, stream: int) -> None:
        """It came."""
        self._moved()

    def disconnected(self, proxy: str, stream: int) -> None:
        """It went."""
        self._moved()

    def nacked(self, proxy: str, stream: int, nack: Nack) -> None:
        """It refused something."""
        self._moved()

    def synced(self, proxy: str, stream: int, revision: int) -> None:
        """It has acknowledged everything."""
        self._moved()


class ControlPlane:
    """The running control plane: `async with ControlPlane(settings)` serves; `failed` ends with the first task that dies."""

    def __init__(self, settings: ControlPlaneSettings) -> None:
        self.settings = settings
        self.started = time.time()
        self._stack = contextlib.AsyncExitStack()
        self._tasks: list[asyncio.Task[Any]] = []

    async def __aenter__(self) -> ControlPlane:
        try:
            with collector.loading():
                await self._start()
        except BaseException:
            await self.close()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def _start(self) -> None:
        settings = self.settings
        settings.state_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.keys = Keys.choose(None, os.environ.get(VARIABLE, ""), settings.state_dir)
        self.store = SealedStore(SqliteStore(settings.state_dir / STORE), self.keys)
        self._stack.push_async_callback(self.store.close)
        await self.store.reseal()
        self.authority = Authority.open(settings.state_dir / "ca", settings.trust_domain)
        self.tokens = JoinTokens(self.store, lambda: self.authority.pin)
        self.pipeline = Pipeline(trust_domain=settings.trust_domain)
        moves = _Moves(lambda: self.status_writer.proxies_moved())
        self.ads = AdsServer(self.pipeline, authorize=self._authorize, observer=moves)
        self.events = Events(self.store, time.time)
        self.status_writer = StatusWriter(self.store, self.pipeline, self.ads.progress, time.time, self.events)
        self.certificate = self._issue()

        self.tls = _tls_context(self.certificate, self.authority.bundle)
        mesh = mesh_api(self)
        add_history(mesh, lambda: self.api.objects)
        add_backup(mesh, self.backup)
        issuer = oidc_issuer(settings)
        if issuer is not None:
            self._tasks.append(asyncio.create_task(issuer.run(), name="oidc"))
        self.api = ApiServer(
            self.store,
            tls=self.tls,
            trust_domain=settings.trust_domain,
            judge=self._judge_write,
            foreign=issuer,
            identities=Nodes(self.store).identities,
            extra_apps={"/tulle/v1": mesh},
            open_apps={
                IDENTITY_PREFIX: identity_app(self.authority, self.tokens, self.store, settings.certificate_lifetime),
            },
        )
        await self.api.prepare()
        self.feed = Feed(self.store, self.pipeline, self._publish, self.status_writer.overwritten)
        revision = await self.feed.load()
        self._tasks.append(asyncio.create_task(self.feed.run(revision), name="feed"))
        garbage = GarbageCollector(self.store, self.api.objects, self.events)
        self._tasks.append(asyncio.create_task(self.events.run(), name="events"))
        self._tasks.append(asyncio.create_task(garbage.run(), name="garbage"))
        self._tasks.append(asyncio.create_task(self.status_writer.run(), name="status"))
        self._tasks.append(asyncio.create_task(HistoryKeeper(self.store, settings.history).run(), name="history"))

        self.server = grpc.aio.server(options=OPTIONS)
        self.server.add_generic_rpc_handlers(self.ads.handlers)
        self.credentials = ServerCredentials(self.certificate.key, self.certificate.chain, self.authority.bundle)
        host, port = split_address(settings.xds_address)
        try:
            self.server.add_secure_port(f"{host}:{port}", self.credentials.grpc)
        except RuntimeError as error:
            raise Refused(f"port {port} (xDS server) cannot be bound on {host}") from error
        await self.server.start()
        self._stack.push_async_callback(self.server.stop, 0.2)
        self._stack.push_async_callback(self.ads.close)

        host, port = split_address(settings.api_address)
        await self.api.start(host, port)
        self._stack.push_async_callback(self.api.stop)
        self._write_kubeconfig()
        self._tasks.append(asyncio.create_task(self._rotate(), name="rotate"))

    async def close(self) -> None:
        """Stop serving, then flush. Idempotent."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._stack.aclose()

    async def failed(self) -> None:
        """Wait for the first task that ends, which none should, and raise what it died of."""
        done, _ = await asyncio.wait(self._tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()

    def _publish(self, published: Published) -> None:
        self.ads.publish(published)
        self.status_writer.published()

    def _issue(self) -> KeyPair:
        names = {"localhost", "127.0.0.1", "::1", socket.gethostname(), "tulle.tulle-system.svc", *self.settings.advertise}
        for address in (self.settings.api_address, self.settings.xds_address):
            host = split_address(address)[0]
            if host not in ("0.0.0.0", "::"):  # noqa: S104 - compared, not bound
                names.add(host)
        identity = f"spiffe://{self.settings.trust_domain}/ns/tulle-system/sa/control-plane"
        return self.authority.issue_server(sorted(names), _SERVER_LIFETIME, identity)

    async def _rotate(self) -> None:
        """A new server certificate at half-life; connections that stand are not touched."""
        while True:
            await asyncio.sleep(_SERVER_LIFETIME / 2)
            self.certificate = self._issue()
            _load(self.tls, self.certificate)
            self.credentials.use(self.certificate.key, self.certificate.chain, self.authority.bundle)

    def _write_kubeconfig(self) -> None:
        person = self.authority.issue_client("tulle-admin", ["system:masters"], _CLIENT_LIFETIME)
        host, port = split_address(self.settings.api_address)
        host = "127.0.0.1" if host in ("0.0.0.0", "::", "") else host  # noqa: S104 - compared, not bound
        kubeconfig.write(
            self.settings.state_dir / "kubeconfig",
            server=f"https://{host}:{port}",
            ca=self.authority.bundle,
            certificate=person.chain,
            key=person.key,
        )

    def _authorize(self, peer: str | None, proxy: str) -> None:
        """A node may ask for the proxies that it runs, and for no other; raises `Refused`."""
        prefix = f"spiffe://{self.settings.trust_domain}/node/"
        if peer is None or not peer.startswith(prefix):
            raise Refused(f"{peer} is not a node of this mesh")
        workload = self.pipeline.workload(proxy)
        if workload is not None and workload.node != peer.removeprefix(prefix):
            raise Refused(f"{proxy} runs on node {workload.node or 'nowhere'}, not on {peer.removeprefix(prefix)}")

    async def _judge_write(self, kind: Kind, new: Object, revision: int) -> list[str]:
        """What the mesh has against an object, for `kubectl` to show: it is written all the same."""
        if not kind.group or kind.kind == "WorkloadEntry":
            return []
        key = (new.metadata.namespace, new.metadata.name)
        self.pipeline.analysis.at(Scope(time.time(), live=True))
        if revision:
            try:
                async with asyncio.timeout(_JUDGED):
                    await self.feed.reached(revision)
            except TimeoutError:
                return []  # it stands in the object's status as soon as the mesh has come that far
            problems = self.pipeline.analysis.of(kind.resource, key)
        else:
            problems = self.pipeline.analysis.alone(kind.resource, key, new)
        found = (finding(problem) for problem in problems)
        return [f"[{one.code}] {one.path}: {one.message}" for one in found if one.severity is not Severity.INFO]

    # What /tulle/v1 shows.

    def status(self) -> dict[str, Any]:
        """Version, revision, trust domain, how many proxies."""
        return {
            "version": tulle.__version__,
            "revision": self.pipeline.revision,
            "trustDomain": self.settings.trust_domain,
            "started": self.started,
            "proxies": len(self.ads.proxies()),
            "xdsAddress": self.settings.xds_address,
        }

    def proxies(self) -> Sequence[ProxyStatus]:
        """Every connected proxy."""
        return self.ads.proxies()

    async def findings(self) -> list[Finding]:
        """What the analysis has to say of the objects as they are."""
        await self._judge()
        return [finding(one) for problems in self.pipeline.analysis.found().values() for one in problems]

    async def findings_with(self, objects: Sequence[Object]) -> list[Finding]:
        """What it would say of these objects if they were written, and what they would newly make wrong elsewhere."""
        await self._judge()
        changes = {}
        for one in objects:
            kind = kind_for(one.ref.group, one.kind)
            assert kind is not None
            changes[kind.resource, (one.metadata.namespace, one.metadata.name)] = one
        return [finding(problem) for problem in self.pipeline.analysis.trial(changes)]

    async def _judge(self) -> None:
        """Bring the analysis up to what is written, in slices between which others get their turn."""
        await self.feed.reached(await self.revision())
        self.pipeline.analysis.at(Scope(time.time(), live=True))
        more = True
        while more:
            more = self.pipeline.analysis.settle(_SLICE)
            await asyncio.sleep(0)

    async def revision(self) -> int:
        """The store's newest revision."""
        return (await self.store.list("namespaces"))[1]

    async def wait_synced(self, revision: int, timeout: float) -> list[str]:
        """The proxies that are behind after that long."""
        return await self.ads.wait_synced(revision, timeout)

    def backup(self, with_authority: bool) -> AsyncGenerator[bytes, None]:
        """The bytes of a backup."""
        beside = authority_files(self.settings.state_dir, wanted=with_authority)
        return written(self.store.inside, self.keys, self.settings.trust_domain, beside)

    async def create_token(self, allow: tuple[str, ...], lifetime: float) -> str:
        """A join token for a node that may have the identities `allow`."""
        return await self.tokens.create(allow, lifetime)


def split_address(address: str) -> tuple[str, int]:
    """`host:port`, `[v6]:port` or `:port`; raises `Refused` where it is none."""
    host, _, port = address.rpartition(":")
    if not port.isdigit() or not 0 <= int(port) <= 65535:
        raise Refused(f"address {address!r}: needed host:port")
    return host.strip("[]") or "0.0.0.0", int(port)  # noqa: S104 - what `:port` means everywhere


def _tls_context(certificate: KeyPair, bundle: bytes) -> ssl.SSLContext:
    """TLS 1.2 and later; a client certificate is checked where one comes, and what needs one says so itself."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.verify_mode = ssl.CERT_OPTIONAL
    context.load_verify_locations(cadata=bundle.decode())
    context.set_alpn_protocols(["http/1.1"])
    _load(context, certificate)
    return context


def _load(context: ssl.SSLContext, certificate: KeyPair) -> None:
    """The `ssl` module reads keys from files only: one that nobody else can open, and that is gone at once."""
    descriptor, name = tempfile.mkstemp(prefix="tulle-")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(certificate.key + certificate.chain)
        context.load_cert_chain(name)
    finally:
        Path(name).unlink()


@contextlib.asynccontextmanager
async def _signals() -> AsyncIterator[asyncio.Event]:
    loop = asyncio.get_running_loop()
    asked = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, asked.set)
    try:
        yield asked
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)


async def serve(settings: ControlPlaneSettings) -> None:
    """Run until SIGTERM; raises `TulleError` where it cannot start, and what a task died of."""
    for address, name in ((settings.api_address, "API server"), (settings.xds_address, "xDS server")):
        preflight.check_port(*split_address(address), name)
    async with _signals() as asked, ControlPlane(settings) as plane:
        log.info("control plane ready", api=settings.api_address, xds=settings.xds_address, revision=plane.pipeline.revision)
        notify("READY=1")
        stop = asyncio.ensure_future(asked.wait())
        failed = asyncio.ensure_future(plane.failed())
        await asyncio.wait((stop, failed), return_when=asyncio.FIRST_COMPLETED)
        notify("STOPPING=1")
        stop.cancel()
        if failed.done():
            failed.result()
        failed.cancel()


def run_control_plane(settings: ControlPlaneSettings) -> None:
    """The program; returns after SIGTERM."""
    import uvloop

    logs.configure(settings.log_level)
    # Every client and every node is a descriptor; the soft limit is there for programs that use select().
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    uvloop.run(serve(settings))
