"""One workload of this node, from the request to put it in the mesh until nothing of it is left.

    sandbox ─┬─ identity ──▶ Feed (ADS, SDS) ◀── Envoy
             ├─ registration (WorkloadEntry)   ◀── readiness of the application
             └─ DNS                                 owner: its end is the workload's end

What the next agent needs to take it over is in `record.py`'s file; keys and configuration are in files beside it.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import shutil
from collections.abc import Callable, Coroutine, Mapping, Sequence
from pathlib import Path
from typing import Any

import structlog

from tulle.client.node_api import Command, Kind, WorkloadSpec, WorkloadStatus
from tulle.core import type_urls
from tulle.core.model import interception
from tulle.core.model.canonical import app_of, is_peer, peer, version_of
from tulle.core.model.interception import Interception
from tulle.core.model.name import Name
from tulle.core.model.workload import Capture
from tulle.kit.errors import TulleError, Unavailable
from tulle.node import application, health, objects
from tulle.node.ads import Feed
from tulle.node.cache import ALL, Cache
from tulle.node.envoy import CONFIG_DUMP, Envoy
from tulle.node.identity import Identity, Kept
from tulle.node.limiter import Limiter
from tulle.node.logs.files import LogFiles
from tulle.node.logs.tap import Tap
from tulle.node.metrics.endpoint import METRICS_SOCKET, MetricsEndpoint
from tulle.node.metrics.standard import UNKNOWN, Who
from tulle.node.network import Sandbox
from tulle.node.objects import Place
from tulle.node.ports import check_free
from tulle.node.process import INSTANCE, PROXY, WORKLOAD, Process, carrying, end
from tulle.node.record import FILE, Record, RecordFile
from tulle.node.registration import Registration
from tulle.node.shared import Node
from tulle.node.sidecar import Sidecar
from tulle.node.spans import Intake, environment
from tulle.node.supervision import State
from tulle.node.workload_api import SOCKET

log = structlog.get_logger("tulle.node")

START_LIMIT = 25.0  # seconds for a proxy to serve
_LOOK = 0.01  # seconds between two looks at what is still missing
ENDPOINT = "SPIFFE_ENDPOINT_SOCKET"  # where applications look for the Workload API


class Workload:
    """One of them. `gone` is called when its owner has ended, so that the agent removes it."""

    def __init__(self, node: Node, record: Record, gone: Callable[[Workload], None]) -> None:
        self.node, self.record, self._gone = node, record, gone
        self.error = ""
        self.withdrawn = False
        spec = record.spec
        self.folder = node.folder(spec.id)
        short = hashlib.sha256(spec.id.encode()).hexdigest()[:10]  # a socket's path has 107 bytes at most
        self._sockets = node.runtime_dir / "w" / short
        self.tap = Tap()
        self.limiter = Limiter(node.upstream, spec.id)
        self.log_files = LogFiles(spec.id, self.folder, node.access_log_bytes)
        self.feed = Feed(
            spec.id,
            node.upstream,
            Cache.load(spec.id, self.folder / "cache.bin"),
            self.folder / "cache.bin",
            self._sockets / "xds.sock",
            self._tell_names,
            (
                *Intake(self.described, node.spans).handlers,
                node.recorder.handler(self.described),
                *self.tap.handlers,
                *self.limiter.handlers,
            ),
        )
        self.metrics = MetricsEndpoint(
            self._sockets / METRICS_SOCKET,
            lambda: self.envoy.admin if self.envoy and self.envoy.answers else None,
            self.described,
            self._application_metrics,
        )
        self.identity = Kept(self.folder / "identity.json", self._ask_identity, self._use_identity)
        self.readiness = health.Readiness(record.ready)
        self.sandbox: Sandbox | None = None
        self.sidecar: Sidecar | None = None
        self.registration: Registration | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._file = RecordFile(self.folder, record)

    @property
    def id(self) -> str:
        """`namespace/name`."""
        return self.record.spec.id

    @property
    def spec(self) -> WorkloadSpec:
        """What was asked for."""
        return self.record.spec

    @property
    def envoy(self) -> Envoy | None:
        """Its Envoy, from the moment that there is a place for it."""
        return self.sidecar.envoy if self.sidecar else None

    @property
    def spiffe(self) -> str:
        """Its identity."""
        own = self.node.own.current
        domain = own.trust_domain if own else "cluster.local"
        return f"spiffe://{domain}/ns/{self.spec.namespace}/sa/{self.spec.service_account}"

    @property
    def who(self) -> str:
        """What others' metrics say of it; "" where labels are such that a certificate cannot say it."""
        labels = objects.labels(self.spec)
        said = peer(self.id, app_of(labels), version_of(labels))
        return said if is_peer(said) else ""

    @property
    def log_folder(self) -> Path:
        """Where its access logs are."""
        return self.folder

    async def config(self) -> bytes:
        """What its Envoy runs with, as JSON; Envoy leaves private keys out. Raises `Unavailable`."""
        if self.envoy is None:
            raise Unavailable(f"{self.id} has no Envoy yet")
        status, body = await self.envoy.admin.get(CONFIG_DUMP)
        if status != 200:
            raise Unavailable(f"Envoy answered {CONFIG_DUMP} with status {status}")
        return body

    async def turn_logs(self) -> None:
        """Rotate those of its access logs that are full."""
        envoy = self.envoy
        if await asyncio.to_thread(self.log_files.turn) and envoy is not None and envoy.answers:
            await self.log_files.reopened(envoy.admin)

    def status(self) -> WorkloadStatus:
        """As it is now."""
        box, envoy, registration, identity = self.sandbox, self.envoy, self.registration, self.identity.current
        return WorkloadStatus(
            id=self.id,
            kind=self.spec.kind,
            state=envoy.state.value if envoy else State.NEW.value,
            ready=self.readiness.ready and not self.withdrawn and registration is not None and registration.known,
            address=box.address if box else "",
            capture=box.capture.value if box else "",
            identity=identity.name if identity else "",
            service=self.spec.service,
            version=self.spec.version,
            envoy_pid=envoy.process.pid if envoy and envoy.process else 0,
            restarts=envoy.restarts if envoy else 0,
            registered=registration.registered if registration else False,
            expires=identity.not_after if identity else 0.0,
            error=self.error or (registration.error if registration else "") or self.identity.error,
            env=box.app_environment() if box else {},
            app_ports=dict(box.app_ports) if box else {},
        )

    # Coming up

    async def bring_up(self) -> None:
        """From nothing to a proxy that serves; raises `TulleError` with the reason where it does not, and leaves nothing then."""
        try:
            await self._write_record()
            self._sockets.mkdir(parents=True, exist_ok=True, mode=0o700)
            async with asyncio.timeout(START_LIMIT):
                await self.feed.start()
                await self.metrics.start()
                signing = asyncio.create_task(self.identity.open(self.spiffe))
                try:
                    await self._place(await self._make_sandbox())
                    assert self.sidecar is not None
                    self.sidecar.start()
                    await signing
                finally:
                    signing.cancel()
                await self._until_serving()
        except Unavailable as error:
            await self.take_down(drain=0)
            raise self._unknown_here(error) from error
        except TimeoutError:
            reason = self._why_not()
            await self.take_down(drain=0)
            raise Unavailable(f"the proxy of {self.id} did not serve within {START_LIMIT:g} s: {reason}") from None
        except BaseException:
            await asyncio.shield(self.take_down(drain=0))
            raise
        self._settle_in()

    async def adopt(self) -> bool:
        """Take over what an earlier agent left; False where its sandbox is gone, so that there is nothing to take over."""
        box = await self._adopt_sandbox()
        if box is None:
            return False
        self._sockets.mkdir(parents=True, exist_ok=True, mode=0o700)
        await self.feed.start(hold=self.record.envoy is not None and self.record.envoy.alive)
        await self.metrics.start()
        with contextlib.suppress(TulleError):  # renewed in the background, as ever
            await self.identity.open(self.spiffe)
        await self._place(box, adopted=True)
        assert self.sidecar is not None
        self.sidecar.start(self.record.envoy, self.record.relay)
        self._settle_in()
        return True

    async def _make_sandbox(self) -> Sandbox:
        ports = [port.bound for port in self.spec.ports]
        if self.spec.kind is Kind.GATEWAY:
            for port in ports:
                check_free(port)
            return await self.node.network.gateway(self.id, ports)
        chosen, _mistakes = interception.read(self.spec.annotations)  # refused by the agent before it comes here
        return await self.node.network.create(self.id, ports, None if chosen == Interception() else chosen)

    async def _adopt_sandbox(self) -> Sandbox | None:
        if self.spec.kind is Kind.GATEWAY:
            return await self.node.network.gateway(self.id, [port.bound for port in self.spec.ports])
        box = await self.node.network.adopt(self.id)
        return box if box is not None and box.alive() else None

    async def _place(self, box: Sandbox, adopted: bool = False) -> None:
        """What depends on where it is: its entry in the mesh, its DNS, its Envoy."""
        self.sandbox = box
        place = Place(
            capture=box.capture,
            address=box.address,
            proxy_ports=box.proxy_ports,
            inbound_ports=dict(box.inbound_ports),
            app_ports=dict(box.app_ports),
            ipv6=box.ipv6,
            metrics=self.node.metrics,
            datagrams=box.datagrams,
        )
        self.registration = Registration(self.node.api, self.spec, place, self.node.name)
        if adopted:
            self.registration.adopted(self.readiness.ready)
        self._task(self.registration.run())
        if box.capture in (Capture.NETNS, Capture.CGROUP):
            await self.node.resolver.serve(self.id, self.spec.namespace, box.dns_sockets)
        self.sidecar = Sidecar(
            self.spec,
            box,
            node=self.node.name,
            budget=self.node.budget,
            relayed=self.spec.kind is Kind.GATEWAY and self.node.network.relayed,
            folder=self.folder,
            sockets=self._sockets,
            environment={INSTANCE: self.node.instance, PROXY: self.id, **environment(self.described())},
            level=self.node.log_level,
            changed=self._envoy_changed,
        )

    async def _until_serving(self) -> None:
        """Envoy has all it asked for, and the mesh's names are known. Ends early where waiting cannot help."""
        assert self.sidecar is not None
        assert self.registration is not None
        envoy = self.sidecar.envoy
        while True:
            if await self.sidecar.serves(timeout=_LOOK):
                if self.feed.cache.known(type_urls.NAME, ALL) or not self.feed.connected:
                    return
                await asyncio.sleep(_LOOK)
            known = self.feed.cache.complete
            if self.registration.refused or (self.registration.error and not self.feed.connected and not known):
                raise Unavailable(self._why_not())
            if envoy.state is State.WAITING and envoy.restarts >= 4:
                raise Unavailable(f"Envoy of {self.id} does not start: {envoy.last_words()}")

    def _why_not(self) -> str:
        """The reason that is nearest to the cause."""
        if self.registration is not None and self.registration.error:
            return self.registration.error
        if self.identity.current is None:
            return self.identity.error or "it has no certificate yet"
        if self.feed.refusals:
            return "Envoy refuses its configuration: " + "; ".join(self.feed.refusals.values())
        if not self.feed.connected:
            return "the control plane does not answer on its xDS port"
        return (self.envoy.last_words() if self.envoy else "") or "its configuration has not come"

    def _unknown_here(self, error: Unavailable) -> Unavailable:
        """Why it does not start without a control plane, where another might."""
        if self.feed.cache.complete or self.feed.connected:
            return error
        return Unavailable(f"{error.message}, and {self.id} has not run on this node before", hint=error.hint)

    def _settle_in(self) -> None:
        """It serves: watch the application and the owner, keep the certificate."""
        self._task(self.identity.run())
        self._task(self._watch_application())
        if self.spec.owner is not None:
            self._task(self._watch_owner(Process(self.spec.owner.pid, self.spec.owner.started)))
        self._save_record()

    async def _watch_application(self) -> None:
        assert self.sandbox is not None
        await application.watch(self.spec, self.sandbox, self.readiness, self._application_changed)

    def _application_changed(self, ready: bool) -> None:
        if self.registration is not None and not self.withdrawn:
            self.registration.tell(ready)
        self.record.ready = ready
        self._save_record()

    async def _watch_owner(self, owner: Process) -> None:
        await owner.ended()
        log.info("the owner of a workload has ended", workload=self.id, pid=owner.pid)
        self._gone(self)

    def _envoy_changed(self) -> None:
        if self.sidecar is not None and (self.record.envoy, self.record.relay) != self.sidecar.processes:
            self.record.envoy, self.record.relay = self.sidecar.processes
            self._save_record()

    # Going away

    async def withdraw(self) -> None:
        """Callers are to go elsewhere, and what is under way for them ends; it goes on serving those who do not know yet."""
        self.withdrawn = True
        if self.registration is not None:
            await self.registration.withdraw(forget=False)
        if self.sidecar is not None:
            await self.sidecar.quiet(self.spec.drain)

    async def take_down(self, drain: float) -> bool:
        """Out of the mesh, drained, stopped, cleared away. Does not raise: what is in the way is logged.

        False where the API server could not be told: its entry is still to be deleted.
        """
        self.withdrawn = True
        told = self.registration is None or await self.registration.withdraw(forget=True, spread=drain > 0)
        if self.sidecar is not None:
            await self.sidecar.stop(drain)
        await end(await asyncio.to_thread(carrying, self.node.instance, self.id), grace=2.0)
        await self.close()
        await self.node.resolver.forget(self.id)
        try:
            await self.node.network.destroy(self.id)
        except (TulleError, OSError) as error:
            log.warning("a sandbox was not removed", workload=self.id, error=str(error))
        for file in (FILE, "bootstrap.json"):  # configuration and identity stay: it may come again
            (self.folder / file).unlink(missing_ok=True)
        await asyncio.to_thread(shutil.rmtree, self._sockets, ignore_errors=True)
        return told

    async def close(self) -> None:
        """Let go without touching what runs, for the next agent."""
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self.sidecar is not None:
            await self.sidecar.close()
        await self.metrics.close()
        await self.feed.close()
        await self.limiter.close()

    # Small things

    def command(
        self, argv: Sequence[str], environment: Mapping[str, str], *, uid: int | None = None, gid: int | None = None
    ) -> Command:
        """How to start something beside (or as) its application."""
        if self.sandbox is None or not self.sandbox.alive():
            raise Unavailable(f"the sandbox of {self.id} is gone")
        own = {INSTANCE: self.node.instance, WORKLOAD: self.id}
        api = {ENDPOINT: f"unix://{self.node.runtime_dir / SOCKET}"}
        full = {**api, **self.sandbox.app_environment(), **environment, **own}
        return Command(argv=tuple(self.sandbox.command(argv, app=True, uid=uid, gid=gid)), env=full)

    def _use_identity(self, identity: Identity) -> None:
        self.feed.use(identity)
        self.node.news.tell()

    def described(self) -> Who:
        """What its own metrics say of it."""
        labels = objects.labels(self.spec)
        app, version = app_of(labels), version_of(labels)
        return Who(self.spec.name, self.spec.namespace, app or self.spec.name, version or UNKNOWN, self.spiffe)

    async def _application_metrics(self) -> str:
        return await application.metrics(self.spec, self.sandbox)

    async def _ask_identity(self) -> Identity:
        own = self.node.own.current
        if own is None:
            raise Unavailable("this node has no certificate yet")
        return await self.node.identities.sign(own, self.spiffe, self.who)

    def _tell_names(self, names: Mapping[str, Name]) -> None:
        if names:
            captured = self.sandbox is not None and self.sandbox.datagrams
            table = {one.hostname: (captured and one.datagrams) or one.addresses for one in names.values()}
            self._task(self.node.resolver.publish(self.id, table))

    def _save_record(self) -> None:
        self._task(self._write_record())

    async def _write_record(self) -> None:
        try:
            await self._file.write()
        except OSError as error:
            log.error("a workload's record was not written", workload=self.id, error=str(error))
            self.error = f"{self._file.path}: {error.strerror}"

    def _task(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self.error = f"internal error: {error!r}"
            log.error("a part of a workload failed", workload=self.id, exc_info=error)
