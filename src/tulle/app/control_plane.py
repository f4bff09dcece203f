"""`tulle control-plane`: store, authority, pipeline, API server and xDS server, wired.

    API server ──▶ store ──watch──▶ Feed: decode → Pipeline.commit → AdsServer.publish
                     └──lease──▶ Leader: status, garbage, events, history

Several of them may share a store: each serves everything, one of them leads.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import grpc
import structlog
from aiohttp import web

import tulle
from tulle.app import collector
from tulle.app.administrator import keep, write_kubeconfig
from tulle.app.ca import MeshAuthority, token_reviewer
from tulle.app.certificate import ServerCertificate, reached, split_address
from tulle.app.controllers import controllers
from tulle.app.feed import Feed
from tulle.app.mesh import RunningMesh
from tulle.app.oidc import oidc_issuer
from tulle.app.peers import Peers
from tulle.app.plane_metrics import metrics_of_plane
from tulle.app.rate_limits import RateLimits
from tulle.app.recording import Recording
from tulle.app.settings import ControlPlaneSettings
from tulle.app.stores import is_shared, open_store, when_there
from tulle.control.apiserver.objects import Objects
from tulle.control.apiserver.server import ApiServer
from tulle.control.asking import IDENTITY
from tulle.control.backup_api import add_backup
from tulle.control.bundle_endpoint import BundleEndpoint, WebCertificate
from tulle.control.ca.bundles import Bundles
from tulle.control.ca.http import COUNTS, identity_app
from tulle.control.ca.http import PREFIX as IDENTITY_PREFIX
from tulle.control.ca.identity import node_of
from tulle.control.ca.jwt_keys import JwtKeys
from tulle.control.ca.workload_http import add_workload_identity
from tulle.control.ca_api import add_ca
from tulle.control.events import Events
from tulle.control.federation import Federation, add_federation
from tulle.control.gateway_starts import GatewayStarter
from tulle.control.health import Health
from tulle.control.history_api import add_history
from tulle.control.infrastructure import InfrastructureWriter
from tulle.control.key_sets import KeySets
from tulle.control.leader import Leader
from tulle.control.looks import Board
from tulle.control.looks_api import add_looks
from tulle.control.members import Member, Members
from tulle.control.mesh_api import mesh_api
from tulle.control.metrics import metrics_app
from tulle.control.progress import SharedProgress
from tulle.control.prometheus_api import add_prometheus
from tulle.control.revocations_api import add_revocations
from tulle.control.rollouts.controller import Rollouts
from tulle.control.rollouts.gathering import PATH as ROLLED
from tulle.control.rollouts.gathering import Gathering, Tail
from tulle.control.status import StatusWriter
from tulle.control.telemetry.api import Telemetry
from tulle.control.telemetry.everywhere import Everywhere, Source
from tulle.control.telemetry.others import nobody
from tulle.control.telemetry.prometheus import Access, FromPrometheus, Prometheus
from tulle.control.telemetry.tally import Tallies
from tulle.control.telemetry.traces import Traces
from tulle.control.telemetry.traces_api import add_traces
from tulle.control.telemetry.window import Window
from tulle.control.ui import page
from tulle.control.ui.live import State, add_live
from tulle.core.compile.telemetry_taken import taken_away
from tulle.core.encoded import Published
from tulle.core.inventory import inventory
from tulle.core.pipeline import Pipeline
from tulle.core.secured import security
from tulle.core.trust_bundle import TrustBundle
from tulle.kit.errors import Refused, Unavailable
from tulle.ports import Key
from tulle.xds.server import OPTIONS, AdsServer

log = structlog.get_logger("tulle.control-plane")

_READY = 2.0  # seconds in which a store has to answer, for a control plane to be ready


class ControlPlane:
    """The running control plane: `async with ControlPlane(settings)` serves; `failed` ends with the first task that dies."""

    def __init__(self, settings: ControlPlaneSettings) -> None:
        self.settings = settings
        self.started = time.time()
        self.status_writer: StatusWriter
        self.infrastructure_writer: InfrastructureWriter
        self.gateway_starter: GatewayStarter
        self._stack = contextlib.AsyncExitStack()
        self._tasks: list[asyncio.Task[Any]] = []
        self._foreign: Mapping[str, str] = {}
        self._beside: set[asyncio.Task[Any]] = set()
        self.prometheus: FromPrometheus | None = None

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
        self.ca = await MeshAuthority.open(settings, self.store, self.keys)
        await self._open_bundles()
        self.pipeline = Pipeline(settings.trust_domain, trace_sampling=settings.trace_sampling)
        self.pipeline.take_roots(self.ca.signer.bundle)
        await when_there(settings, self.ca.revocations.load)
        self.pipeline.take_revoked(self.ca.revoked)
        self.health = Health(self._moved)
        self.ads = AdsServer(
            self.pipeline,
            authorize=self._authorize,
            observer=self.health,
            revoked=self.ca.revocations.is_revoked,
        )
        self.events = Events(self.store, time.time)
        self.tallies = Tallies()
        self.certificate = await ServerCertificate.open(self.ca.signer, settings)
        self._know_the_others()
        file = None if settings.store.startswith("memory:") else settings.state_dir / "calls.db"
        self.recording = Recording(self.store, self.pipeline, file, self.started, self.peers, settings.calls_window)
        await self.recording.load()
        self._stack.push_async_callback(self.recording.close)
        self.limits = RateLimits(
            self.pipeline,
            settings.ratelimit_redis,
            self.peers,
            self._publish,
            lambda: self.leader.leads,
            self._authorize,
            self.ca.revocations.is_revoked,
        )
        self._stack.push_async_callback(self.limits.close)
        self._make_api()
        await when_there(settings, self.api.prepare)
        self.key_sets = KeySets(self.pipeline, self._publish)
        self.federation = Federation(self.store, lambda: self.pipeline.federated, self._believe)
        self.feed = Feed(self.store, self.pipeline, self._publish, self.status_writer.overwritten)
        revision = await when_there(settings, self.feed.load)
        await self.federation.begin()
        query = self.prometheus.numbers if self.prometheus else None
        gathering = Gathering(self.tallies, self.peers, time.time) if self.peers else None
        self.rollouts = Rollouts(
            self.api.objects, self.pipeline, self.events, self.tallies, time.time, query, self.told, gathering
        )
        writers = self.status_writer, self.infrastructure_writer, self.gateway_starter, self.rollouts
        work = controllers(self.store, self.api.objects, self.events, *writers, settings.history)
        self.leader = Leader(self.store, self.member.name, work, began=self.progress.want if self.progress else None)
        await self._serve()
        await self._administrator()
        self._run("feed", self.feed.run(revision))
        self._run("leader", self.leader.run())
        self._run("key sets", self.key_sets.run())
        self._run("federation", self.federation.run())
        self._run("certificate", self.certificate.run())
        self._run("recorded calls", self.recording.run())
        self._run("rate limits", self.limits.run())
        self._run("kubeconfig", keep(self._administrator))
        for name, task in self.ca.tasks(lambda: self._soon(self._new_roots()), self._revoked).items():
            self._run(name, task)
        if self.members is not None and self.progress is not None:
            self._run("members", self.members.run())
            self._run("progress", self.progress.run())

    async def _open_bundles(self) -> None:
        """The keys of JWT-SVIDs, and with the roots the bundle by which all are checked."""
        settings = self.settings
        self.jwt_keys = await when_there(
            settings, lambda: JwtKeys.open(self.store, settings.trust_domain, lifetime=settings.jwt_lifetime)
        )
        self.bundles = Bundles(self.store, self.ca.signer, self.jwt_keys, lambda: settings.bundle_refresh)
        await when_there(settings, self.bundles.settle)
        self._run("keys of tokens", self.jwt_keys.run(self.bundles.look))
        self._run("trust bundles", self.bundles.run())

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
        self.told: Callable[[], Any] = self.ads.progress
        if is_shared(settings):
            self.members = Members(self.store, self.member, lambda: self._soon(self._administrator()))
            self.peers = Peers(self.members, self.ca.signer)
            self._stack.push_async_callback(self.peers.close)
            self.told = self.progress = SharedProgress(self.store, self.pipeline, self.ads.progress, name, self._others_moved)
        self.status_writer = StatusWriter(self.store, self.pipeline, self.told, time.time, self.events)
        objects = Objects(self.store, time.time)
        self.infrastructure_writer = InfrastructureWriter(objects, self.pipeline)
        self.gateway_starter = GatewayStarter(objects, self.pipeline)

    def _reporter(self, request: web.Request) -> str:
        """The node that asks; "" where it is a person."""
        return node_of(request.get(IDENTITY, ""), self.settings.trust_domain)

    def _state(self, window: Window) -> State:
        """By what the page knows that it should look again."""
        revision, proxies = self.pipeline.revision, self.ads.progress()
        synced = sum(one.count for one in proxies if one.synced >= revision)
        return State(revision, window.last, sum(one.count for one in proxies), synced, self.figures_notice)

    @property
    def figures_notice(self) -> str:
        """What people are to know of what is shown: "" while all is well."""
        return "; ".join(filter(None, (self.prometheus.notice if self.prometheus else "", self.recording.notice)))

    def _source(self, everywhere: Everywhere) -> Source:
        """Where figures come from."""
        settings = self.settings
        if not settings.prometheus_url:
            return everywhere
        access = Access(settings.prometheus_url, settings.prometheus_token_file, settings.prometheus_ca_file)
        self.prometheus = FromPrometheus(
            Prometheus(access), everywhere, taken=lambda: self.pipeline.flow.get(taken_away, None) or ""
        )
        self._stack.push_async_callback(self.prometheus.close)
        return self.prometheus

    def _make_api(self) -> None:
        settings = self.settings
        mesh = RunningMesh(self)
        self.ca.wire(self.pipeline, lambda: mesh.proxies(here=False), self._new_roots)
        app = mesh_api(mesh)
        add_history(app, lambda: self.api.objects)
        add_backup(app, mesh.backup)
        add_ca(app, self.ca)
        add_revocations(app, self.ca.revocations, settings.trust_domain, self.ca.ledger.all)
        window, tail = Window(time.time(), settings.metrics_window), Tail()
        self.telemetry = Telemetry(
            window,
            self._reporter,
            partial(security, self.pipeline),
            partial(inventory, self.pipeline),
            counted=(self.recording.kept.count, self.tallies.add, tail.add),
            others=self.peers.answers if self.peers else nobody,
            source=self._source,
        )
        self.telemetry.add(app)
        app.router.add_post(ROLLED, tail.answer)
        self.recording.add(app, self._reporter)
        self.limits.add(app, self._reporter, self.telemetry.calls)
        add_live(app, lambda: self._state(window))
        self.traces = Traces(time.time())
        add_traces(app, self.traces, self._reporter, self.peers.answers if self.peers else nobody)
        add_prometheus(app, self._entries, self._planes)
        add_looks(app, Board(), mesh, self._reporter)
        add_federation(app, lambda: self.federation, lambda: self.bundles.own)
        issuer = oidc_issuer(settings)
        if issuer is not None:
            self._run("oidc", issuer.run())
        life = settings.certificate_lifetime
        ca = self.ca
        identity = identity_app(
            ca.signer,
            self.ca.tokens,
            self.store,
            life,
            ledger=ca.ledger,
            revocations=ca.revocations,
            kubernetes=token_reviewer(settings),
        )
        add_workload_identity(identity, self.jwt_keys, self.bundles, self.ca.nodes)
        self.api = ApiServer(
            self.store,
            tls=self.certificate.tls,
            trust_domain=settings.trust_domain,
            judge=mesh,
            foreign=issuer,
            identities=self.ca.nodes.identities,
            extra_apps={"/tulle/v1": app, "/metrics": metrics_app(lambda: metrics_of_plane(self, identity[COUNTS]))},
            open_apps={IDENTITY_PREFIX: identity, page.PREFIX: page.page_app()},
            ready=self._ready,
            revoked=self.ca.revocations.is_revoked,
        )

    async def _serve(self) -> None:
        settings = self.settings
        self.server = grpc.aio.server(options=OPTIONS)
        self.server.add_generic_rpc_handlers((*self.ads.handlers, *self.limits.handlers))
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
        if settings.bundle_endpoint:
            await self._serve_bundle(settings.bundle_endpoint)

    async def _serve_bundle(self, address: str) -> None:
        """The bundle for other trust domains: https_web with a certificate that was given, https_spiffe with the own one."""
        certificate, key = self.settings.bundle_endpoint_cert_file, self.settings.bundle_endpoint_key_file
        tls = self.certificate.tls
        if certificate is not None and key is not None:
            given = WebCertificate(certificate, key)
            self._run("certificate of the bundle endpoint", given.run())
            tls = given.tls
        endpoint = BundleEndpoint(lambda: self.bundles.own)
        await endpoint.start(*split_address(address), tls)
        self._stack.push_async_callback(endpoint.stop)

    def _run(self, name: str, work: Any) -> None:
        self._tasks.append(asyncio.create_task(work, name=name))

    async def close(self) -> None:
        """Stop serving, then flush. Idempotent."""
        tasks = [*self._tasks, *self._beside]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._stack.aclose()

    async def failed(self) -> None:
        """Wait for the first task that ends, which none should, and raise what it died of."""
        done, _ = await asyncio.wait(self._tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()

    # What one part tells another.

    def _publish(self, published: Published) -> None:
        self.health.published(published.revision)
        self.ads.publish(published)
        self.status_writer.published()
        self.limits.published()
        self.key_sets.look()
        self.federation.look()
        self.bundles.use(self.bundles.foreign, self.pipeline.trust_domains[1:])
        self.infrastructure_writer.published()
        self.gateway_starter.published()
        if self.progress is not None:
            self.progress.told()
        collector.settle()

    def _moved(self) -> None:
        """A proxy came, went, acknowledged or refused something."""
        self._others_moved()
        if self.progress is not None:
            self.progress.told()

    def _others_moved(self) -> None:
        """The same, of another control plane's."""
        self.status_writer.proxies_moved()
        self.rollouts.proxies_moved()

    async def _new_roots(self) -> None:
        """Something else signs, or is trusted: here, or because another control plane has seen to it."""
        published = self.pipeline.take_roots(self.ca.signer.bundle, self._foreign)
        self._publish(published)
        self.bundles.look()
        await self.certificate.renew()
        await self._administrator()

    def _revoked(self) -> None:
        """Somebody has lost an identity, or got it back."""
        self._publish(self.pipeline.take_revoked(self.ca.revoked))
        self.ads.end_revoked()

    def _believe(self, bundles: Mapping[str, TrustBundle]) -> None:
        """The bundle of another trust domain is another."""
        self._foreign = {name: bundle.pem for name, bundle in bundles.items()}
        self.bundles.use(bundles, self.bundles.aliases)
        self._publish(self.pipeline.take_roots(self.ca.signer.bundle, self._foreign))

    def _soon(self, work: Any) -> None:
        """Do it when this is over; what goes wrong is in the log."""
        task = asyncio.ensure_future(work)
        self._beside.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._beside.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("a task failed", exc_info=error)

    async def _entries(self) -> list[Mapping[str, Any]]:
        return [stored.body for stored in (await self.store.list("workloadentries.networking.istio.io"))[0]]

    def _planes(self) -> Mapping[str, str]:
        """The addresses of all control planes' APIs, by name."""
        return {one.name: one.api for one in (self.member, *(self.members.others.values() if self.members else ()))}

    async def _ready(self) -> str:
        """Why this control plane cannot do all of its work at the moment: "" where it can."""
        try:
            async with asyncio.timeout(_READY):
                await self.store.get(Key("namespaces", "", "default"))
        except Unavailable as error:
            return error.message
        except TimeoutError:
            return "the store does not answer"
        return self.ca.near_end()

    async def _administrator(self) -> None:
        """The administrator's kubeconfig here, with all others as further contexts."""
        await write_kubeconfig(self.settings, self.ca.signer, self.members.others.values() if self.members else ())

    def _authorize(self, peer: str | None, proxy: str) -> None:
        """A node may ask for the proxies that it runs, and for no other; raises `Refused`."""
        prefix = f"spiffe://{self.settings.trust_domain}/node/"
        if peer is None or not peer.startswith(prefix):
            raise Refused(f"{peer} is not a node of this mesh")
        workload = self.pipeline.workload(proxy)
        if workload is not None and workload.node != peer.removeprefix(prefix):
            raise Refused(f"{proxy} runs on node {workload.node or 'nowhere'}, not on {peer.removeprefix(prefix)}")
