"""`tulle control-plane`: store, authority, pipeline, API server and xDS server, wired.

    API server ──▶ store ──watch──▶ Feed: decode → Pipeline.commit → AdsServer.publish
                     └──lease──▶ Leader: status, garbage, events, history

Several of them may share a store: each serves everything, one of them leads.
"""

from __future__ import annotations

import asyncio
import contextlib
import resource
import signal
import socket
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc
import structlog

import tulle
from tulle.app import collector, logs, preflight
from tulle.app.certificate import ServerCertificate, is_any, reached, split_address
from tulle.app.controllers import Moves, controllers
from tulle.app.feed import Feed
from tulle.app.mesh import RunningMesh
from tulle.app.notify import notify
from tulle.app.oidc import oidc_issuer
from tulle.app.peers import Peers
from tulle.app.settings import ControlPlaneSettings
from tulle.app.stores import is_shared, open_store, when_there
from tulle.client import kubeconfig
from tulle.control.apiserver.server import ApiServer
from tulle.control.backup_api import add_backup
from tulle.control.ca.authority import Authority
from tulle.control.ca.http import PREFIX as IDENTITY_PREFIX
from tulle.control.ca.http import identity_app
from tulle.control.ca.nodes import Nodes
from tulle.control.ca.shared import SharedAuthority
from tulle.control.ca.tokens import JoinTokens
from tulle.control.events import Events
from tulle.control.history_api import add_history
from tulle.control.leader import Leader
from tulle.control.members import Member, Members
from tulle.control.mesh_api import mesh_api
from tulle.control.progress import SharedProgress
from tulle.control.status import StatusWriter
from tulle.core.encoded import Published
from tulle.core.pipeline import Pipeline
from tulle.kit.errors import Refused, Unavailable
from tulle.ports import Key
from tulle.xds.server import OPTIONS, AdsServer

log = structlog.get_logger("tulle.control-plane")

_CLIENT_LIFETIME = 365 * 24 * 3600.0  # the local administrator's own kubeconfig; made anew at every start
_READY = 2.0  # seconds in which a store has to answer, for a control plane to be ready


class ControlPlane:
    """The running control plane: `async with ControlPlane(settings)` serves; `failed` ends with the first task that dies."""

    def __init__(self, settings: ControlPlaneSettings) -> None:
        self.settings = settings
        self.started = time.time()
        self.status_writer: StatusWriter
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
        self.store, self.keys = open_store(settings)
        self._stack.push_async_callback(self.store.close)
        await when_there(settings, self.store.reseal)
        await self._open_authority()
        self.tokens = JoinTokens(self.store, lambda: self.authority.pin)
        self.pipeline = Pipeline(trust_domain=settings.trust_domain)
        self.ads = AdsServer(self.pipeline, authorize=self._authorize, observer=Moves(self._moved))
        self.events = Events(self.store, time.time)
        self.certificate = ServerCertificate(self.authority, settings)
        self._know_the_others()
        self._make_api()
        await when_there(settings, self.api.prepare)
        self.feed = Feed(self.store, self.pipeline, self._publish, self.status_writer.overwritten)
        revision = await when_there(settings, self.feed.load)
        work = controllers(self.store, self.api.objects, self.events, self.status_writer, settings.history)
        self.leader = Leader(self.store, self.member.name, work, began=self.progress.want if self.progress else None)
        await self._serve()
        self._write_kubeconfig()
        self._run("feed", self.feed.run(revision))
        self._run("leader", self.leader.run())
        self._run("certificate", self.certificate.run())
        if self.members is not None and self.progress is not None:
            self._run("members", self.members.run())
            self._run("progress", self.progress.run())

    async def _open_authority(self) -> None:
        """The authority: in the state folder, or shared through the store."""
        settings = self.settings
        if not is_shared(settings):
            self.authority = Authority.open(settings.state_dir / "ca", settings.trust_domain)
            return
        shared = await when_there(settings, lambda: SharedAuthority.open(self.store, settings.trust_domain))
        self.authority = shared.authority
        self._run("authority", shared.run(self._new_roots))

    def _know_the_others(self) -> None:
        """Who this one is; and where the store is shared, who and how far the others are."""
        settings = self.settings
        host = socket.gethostname()
        port = split_address(settings.api_address)[1]
        name = settings.name or (host if port == 15080 else f"{host}-{port}")
        api, xds = (reached(address, settings, host) for address in (settings.api_address, settings.xds_address))
        self.member = Member(name, api, xds, tulle.__version__, self.started)
        self.members: Members | None = None
        self.progress: SharedProgress | None = None
        self.peers: Peers | None = None
        told: Callable[[], Any] = self.ads.progress
        if is_shared(settings):
            self.members = Members(self.store, self.member, self._write_kubeconfig)
            self.peers = Peers(self.members, self.authority)
            self._stack.push_async_callback(self.peers.close)
            told = self.progress = SharedProgress(self.store, self.pipeline, self.ads.progress, name, self._others_moved)
        self.status_writer = StatusWriter(self.store, self.pipeline, told, time.time, self.events)

    def _make_api(self) -> None:
        settings = self.settings
        mesh = RunningMesh(self)
        app = mesh_api(mesh)
        add_history(app, lambda: self.api.objects)
        add_backup(app, mesh.backup)
        issuer = oidc_issuer(settings)
        if issuer is not None:
            self._run("oidc", issuer.run())
        self.api = ApiServer(
            self.store,
            tls=self.certificate.tls,
            trust_domain=settings.trust_domain,
            judge=mesh,
            foreign=issuer,
            identities=Nodes(self.store).identities,
            extra_apps={"/tulle/v1": app},
            open_apps={
                IDENTITY_PREFIX: identity_app(self.authority, self.tokens, self.store, settings.certificate_lifetime),
            },
            ready=self._ready,
        )

    async def _serve(self) -> None:
        settings = self.settings
        self.server = grpc.aio.server(options=OPTIONS)
        self.server.add_generic_rpc_handlers(self.ads.handlers)
        host, port = split_address(settings.xds_address)
        try:
            self.server.add_secure_port(f"{host}:{port}", self.certificate.credentials.grpc)
        except RuntimeError as error:
            raise Refused(f"port {port} (xDS server) cannot be bound on {host}") from error
        await self.server.start()
        self._stack.push_async_callback(self.server.stop, 0.2)
        self._stack.push_async_callback(self.ads.close)
        host, port = split_address(settings.api_address)
        await self.api.start(host, port)
        self._stack.push_async_callback(self.api.stop)

    def _run(self, name: str, work: Any) -> None:
        self._tasks.append(asyncio.create_task(work, name=name))

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

    # What one part tells another.

    def _publish(self, published: Published) -> None:
        self.ads.publish(published)
        self.status_writer.published()
        if self.progress is not None:
            self.progress.told()

    def _moved(self) -> None:
        """A proxy came, went, acknowledged or refused something."""
        self.status_writer.proxies_moved()
        if self.progress is not None:
            self.progress.told()

    def _others_moved(self) -> None:
        """Another control plane has told how far its proxies are."""
        self.status_writer.proxies_moved()

    def _new_roots(self) -> None:
        """Another control plane has rotated the roots."""
        self.certificate.renew()
        self._write_kubeconfig()

    async def _ready(self) -> str:
        """Why this control plane cannot do all of its work at the moment: "" where it can."""
        try:
            async with asyncio.timeout(_READY):
                await self.store.get(Key("namespaces", "", "default"))
        except Unavailable as error:
            return error.message
        except TimeoutError:
            return "the store does not answer"
        return ""

    def _write_kubeconfig(self) -> None:
        """For the administrator here: with this control plane, and all others as further contexts."""
        person = self.authority.issue_client("tulle-admin", ["system:masters"], _CLIENT_LIFETIME)
        host, port = split_address(self.settings.api_address)
        host = "127.0.0.1" if is_any(host) else host
        kubeconfig.write(
            self.settings.state_dir / "kubeconfig",
            server=f"https://{host}:{port}",
            ca=self.authority.bundle,
            certificate=person.chain,
            key=person.key,
            others={one.name: f"https://{one.api}" for one in (self.members.others.values() if self.members else ())},
        )

    def _authorize(self, peer: str | None, proxy: str) -> None:
        """A node may ask for the proxies that it runs, and for no other; raises `Refused`."""
        prefix = f"spiffe://{self.settings.trust_domain}/node/"
        if peer is None or not peer.startswith(prefix):
            raise Refused(f"{peer} is not a node of this mesh")
        workload = self.pipeline.workload(proxy)
        if workload is not None and workload.node != peer.removeprefix(prefix):
            raise Refused(f"{proxy} runs on node {workload.node or 'nowhere'}, not on {peer.removeprefix(prefix)}")


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
    async with _signals() as asked:
        plane = ControlPlane(settings)
        stop = asyncio.ensure_future(asked.wait())
        starting = asyncio.ensure_future(plane.__aenter__())
        await asyncio.wait((stop, starting), return_when=asyncio.FIRST_COMPLETED)
        if not starting.done():  # it waits for a store that is away
            starting.cancel()
            await asyncio.gather(starting, return_exceptions=True)
            return
        try:
            starting.result()
            log.info(
                "control plane ready",
                name=plane.member.name,
                api=settings.api_address,
                xds=settings.xds_address,
                revision=plane.pipeline.revision,
            )
            notify("READY=1\nSTATUS=")
            failed = asyncio.ensure_future(plane.failed())
            await asyncio.wait((stop, failed), return_when=asyncio.FIRST_COMPLETED)
            notify("STOPPING=1")
            stop.cancel()
            if failed.done():
                failed.result()
            failed.cancel()
        finally:
            await plane.close()


def run_control_plane(settings: ControlPlaneSettings) -> None:
    """The program; returns after SIGTERM."""
    import uvloop

    logs.configure(settings.log_level)
    # Every client and every node is a descriptor; the soft limit is there for programs that use select().
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    uvloop.run(serve(settings))
