"""`tulle node`: the node agent, wired.

    preflight ─▶ network ─▶ identity (disk, or join) ─▶ workloads of the last agent ─▶ node.sock ─▶ ready

SIGTERM ends the agent and nothing else: sidecars and applications go on, and the next agent takes them over; so an upgrade of the
agent costs no request. With `teardown` (and by `NodeClient.shutdown(teardown=True)`, as `tulle demo down` does) everything goes.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import signal
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import structlog

from tulle.app import collector, logs, preflight, rights
from tulle.app.certificate import is_any
from tulle.app.notify import notify
from tulle.kit import paths
from tulle.kit.errors import Refused, Unavailable
from tulle.node import capture
from tulle.node.agent import Agent, Api, check_level, make_private
from tulle.node.attestation import Entries
from tulle.node.budget import budget
from tulle.node.bundles import TrustBundles
from tulle.node.calls.recorder import BUDGET, Recorder
from tulle.node.cgroup import own_address
from tulle.node.gateways import Gateways
from tulle.node.host_identities import HostIdentities
from tulle.node.identity import DEFAULT_KEY_TYPE, Identity, IdentityClient, Kept, follow_roots, retry_delay
from tulle.node.jwt_svids import JwtSvids
from tulle.node.local_api import LocalApi, answers
from tulle.node.logs.looks import Looking
from tulle.node.metrics.host import AUTO, OFF, HostMetrics
from tulle.node.metrics.limits import LimitReporter
from tulle.node.metrics.report import Reporter
from tulle.node.news import News
from tulle.node.resolver import Resolver
from tulle.node.shared import Node
from tulle.node.span_report import SpanReporter
from tulle.node.spans import Buffer
from tulle.node.workload import Workload
from tulle.node.workload_api import SOCKET, WorkloadApi
from tulle.xds.client import Upstream

log = structlog.get_logger("tulle.node")

_SOCKET_PATH = 107  # bytes, the kernel's limit
_LONGEST_NAME = "w/0123456789/admin.sock"


@dataclass(frozen=True, slots=True)
class NodeSettings:
    """`tulle node`. Addresses are `host:port`, of several control planes by commas: the first that answers.

    `token` (or the content of `token_file`) is needed for the first start only. `capture`: auto, netns, cgroup or proxy.
    `address` is where others reach this host's workloads in `cgroup` capture ("": that of the way to other hosts).
    `instance` is what everything that the node starts carries in TULLE_INSTANCE ("": made from the runtime folder).
    `gateways`: whether it starts the gateway workloads that Gateway objects ask for. `key_type`: of the keys made here.
    `root_file`: the roots to trust where `token` is a Kubernetes service account's, which does not say them.
    `entries_file` says which processes of this host have which identities (None: only those of workloads have one).
    `metrics_address` is where Prometheus reads what proxies count (`auto`: 127.0.0.1:15020, or a free port; `off`: nowhere).
    `report_interval` is how often (s) the control plane is told what was counted, `record_budget` how many single calls a second
    are looked at (0: none).
    `log_level` is the agent's, `envoy_log_level` Envoy's at its start. `envoy_heap_mb` is the memory that each Envoy keeps within
    by refusing work (0: a quarter of what there is), `access_log_mb` what is kept of each workload's access logs. `teardown`:
    remove all workloads at the end.
    """

    name: str = field(default_factory=lambda: socket.gethostname().partition(".")[0].lower())
    api_address: str = "127.0.0.1:15080"
    xds_address: str = "127.0.0.1:15012"
    token: str = ""
    token_file: Path | None = None
    state_dir: Path = field(default_factory=lambda: paths.state_dir() / "node")
    runtime_dir: Path = field(default_factory=paths.runtime_dir)
    capture: str = "auto"
    address: str = ""
    instance: str = ""
    gateways: bool = False
    key_type: str = DEFAULT_KEY_TYPE
    root_file: Path | None = None
    log_level: str = "info"
    envoy_log_level: str = "warning"
    metrics_address: str = AUTO
    report_interval: float = 15.0
    record_budget: float = BUDGET
    envoy_heap_mb: int = 0
    access_log_mb: int = 50
    entries_file: Path | None = None
    teardown: bool = False

    @property
    def socket(self) -> Path:
        """The local API."""
        return self.runtime_dir / "node.sock"


def instance_of(settings: NodeSettings) -> str:
    """What everything that the node starts carries in TULLE_INSTANCE."""
    return settings.instance or "node-" + hashlib.sha256(str(settings.runtime_dir).encode()).hexdigest()[:8]


class NodeAgent:
    """The running agent: `async with NodeAgent(settings) as node` serves; `stopped` ends when somebody asked it to."""

    def __init__(self, settings: NodeSettings) -> None:
        self.settings = settings
        self.stopped = asyncio.Event()
        self._stack = contextlib.AsyncExitStack()
        self._torn_down = False
        self._news = News()
        self._workloads: Callable[[], Mapping[str, Workload]] = dict  # none yet

    async def __aenter__(self) -> NodeAgent:
        try:
            await self._start()
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        if self.settings.teardown and not self._torn_down:
            await self.agent.teardown()
        await self._stack.aclose()

    async def _start(self) -> None:
        settings = self.settings
        _preflight(settings)
        instance = instance_of(settings)
        entries = await asyncio.to_thread(Entries, settings.entries_file)
        envoy, (network, reason) = await asyncio.gather(
            asyncio.to_thread(preflight.check_envoy),
            capture.choose(settings.capture, instance=instance, folder=settings.runtime_dir / "node", address=settings.address),
        )
        await network.open()

        self._identities = IdentityClient(settings.api_address, settings.key_type, _roots(settings))
        self._own = Kept(settings.state_dir / "identity.json", self._ask_identity, self._use_identity)
        self._upstream = Upstream(settings.xds_address)
        self._stack.push_async_callback(self._upstream.close)
        self._api = Api(settings.api_address)
        self._stack.push_async_callback(self._api.close)
        await self._first_identity()

        recorder = Recorder(settings.name, settings.record_budget, settings.report_interval)
        node = Node(
            name=settings.name,
            instance=instance,
            state_dir=settings.state_dir,
            runtime_dir=settings.runtime_dir,
            log_level=settings.envoy_log_level,
            budget=budget(settings.envoy_heap_mb),
            access_log_bytes=settings.access_log_mb << 20,
            network=network,
            resolver=Resolver(settings.runtime_dir, instance),
            upstream=self._upstream,
            identities=self._identities,
            own=self._own,
            api=self._api.client,
            news=self._news,
            spans=Buffer(),
            metrics=await self._serve_metrics(),
            recorder=recorder,
        )
        self.agent = Agent(node, reason, envoy, settings.api_address)
        self._workloads = lambda: self.agent.workloads
        self._stack.push_async_callback(self.agent.close)
        await self.agent.start()
        workloads = self.agent.workloads.values
        reporter = Reporter(settings.name, workloads, self._api.client, settings.report_interval, envoy)
        following = follow_roots(self._identities, self._own, self._trust)
        spans = SpanReporter(settings.name, node.spans, self._api.client)
        work = {
            "renew the node's certificate": self._own.run(),
            "follow the roots": following,
            "report": reporter.run(),
            "report limits": LimitReporter(settings.name, workloads, self._api.client).run(),
            "report spans": spans.run(),
            "record calls": recorder.run(workloads, self._api.client),
            "looks": Looking(settings.name, self.agent.workloads.get, self._api.client).run(),
        }
        if settings.gateways:
            work["gateways"] = Gateways(self.agent, self._api.client).run()
        for name, task in work.items():
            self._stack.callback(asyncio.create_task(task, name=name).cancel)
        await self._serve_workloads(entries)
        local = LocalApi(self.agent, settings.socket, self._stop, entries)
        await local.start()
        self._stack.push_async_callback(local.close)
        log.info("node agent ready", name=settings.name, socket=str(settings.socket), capture=reason)

    async def _serve_metrics(self) -> str:
        """Where Prometheus is to read; "" for nowhere."""
        if self.settings.metrics_address == OFF:
            return ""
        metrics = HostMetrics(self.settings.metrics_address, lambda: self._workloads())
        await metrics.start()
        self._stack.push_async_callback(metrics.close)
        host = self.settings.metrics_address.rpartition(":")[0].strip("[]") or "127.0.0.1"
        if is_any(host):
            host = self.settings.address or own_address()
        return f"[{host}]:{metrics.port}" if ":" in host else f"{host}:{metrics.port}"

    async def _serve_workloads(self, entries: Entries) -> None:
        """The Workload API, and the trust bundles that it gives."""
        settings = self.settings
        bundles = TrustBundles(settings.state_dir / "bundles.json", self._own, self._identities, self._news.tell)
        await asyncio.to_thread(bundles.load)
        asking = asyncio.create_task(bundles.run(), name="trust bundles")
        self._stack.callback(asking.cancel)
        self._hosts = hosts = HostIdentities(
            entries,
            lambda: self.agent.workloads,
            self._own,
            self._identities,
            settings.state_dir / "identities",
            self._news,
        )
        self._stack.push_async_callback(hosts.close)
        tokens = JwtSvids(self._own, self._identities)
        inner = settings.runtime_dir / "w" / "svid.sock"
        api = WorkloadApi(settings.runtime_dir / SOCKET, inner, hosts.entitled, bundles, tokens, self._news)
        await api.start()
        self._stack.push_async_callback(api.close)

    async def _trust(self, bundle: str, signs: str) -> None:
        """The roots of now, and what signs: for the node itself and all that it has identities for."""
        await self.agent.trust(bundle, signs)
        await self._hosts.trust(bundle, signs)

    def _stop(self, teardown: bool) -> None:
        self._torn_down = teardown
        self.stopped.set()

    # The node's own identity.

    async def _first_identity(self) -> None:
        """From disk, or by joining; waits for a control plane that is away. Raises `Refused` where it will not have us."""
        found = await asyncio.to_thread(Identity.load, self._own.path)
        if found is not None and not found.name.endswith(f"/node/{self.settings.name}"):
            log.warning("the identity on disk is of another node; joining anew", found=found.name)
            await asyncio.to_thread(self._own.path.unlink)
        attempt = 0
        while True:
            try:
                await self._own.open()
                return
            except Unavailable as error:
                attempt += 1
                delay = min(retry_delay(attempt, 80.0), 10.0)
                log.warning("cannot join yet; trying again", error=error.message, again_in=delay)
                await asyncio.sleep(delay)

    async def _ask_identity(self) -> Identity:
        own = self._own.current
        if own is not None and own.valid(_now()):
            return await self._identities.sign(own, own.name)
        return await self._identities.join(await asyncio.to_thread(_token, self.settings), self.settings.name)

    def _use_identity(self, own: Identity) -> None:
        self._upstream.use(own.bundle.encode(), own.key.encode(), own.chain.encode())
        self._api.use(own)


def _now() -> float:
    import time

    return time.time()


def _token(settings: NodeSettings) -> str:
    if settings.token:
        return settings.token
    hint = "make one with `tulle token create` and pass it by --token-file"
    if settings.token_file is None:
        raise Refused(f"node {settings.name} has no certificate, and no join token was given", hint=hint)
    try:
        return settings.token_file.read_text().strip()
    except OSError as error:
        raise Refused(f"join token {settings.token_file}: {error.strerror}", hint=hint) from error


def _roots(settings: NodeSettings) -> str:
    """Whom to trust at the first contact, where that is not in the token."""
    try:
        return settings.root_file.read_text() if settings.root_file else ""
    except (OSError, UnicodeDecodeError) as error:
        raise Refused(f"--root-file {settings.root_file} cannot be read") from error


def _preflight(settings: NodeSettings) -> None:
    """What can be known of the settings before anything is tried; raises `Refused`."""
    check_level(settings.envoy_log_level)
    longest = len(os.fsencode(settings.runtime_dir / _LONGEST_NAME))
    if longest > _SOCKET_PATH:
        raise Refused(
            f"the runtime folder's path is too long for Unix sockets: found {longest} bytes, needed at most {_SOCKET_PATH}",
            hint="choose a shorter one with --runtime-dir",
        )
    make_private(settings.state_dir)
    # Applications of any user have to get to the Workload API's socket; what else lies there is for nobody but us.
    make_private(settings.runtime_dir, mode=0o711)
    if answers(settings.socket):
        raise Refused(f"{settings.socket}: another node agent is running", hint="stop it, or choose another --runtime-dir")


async def serve(settings: NodeSettings) -> None:
    """Run until SIGTERM, SIGINT, or a shutdown through the local API; raises `TulleError` where it cannot start."""
    loop = asyncio.get_running_loop()
    asked = asyncio.Event()
    me = asyncio.current_task()
    assert me is not None
    starting = True

    def stop() -> None:
        asked.set()
        if starting:
            me.cancel()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    try:
        async with NodeAgent(settings) as node:
            starting = False
            collector.started()
            notify("READY=1")
            print(f"tulle node {settings.name} ready: {settings.socket}", flush=True)
            waiting = [asyncio.ensure_future(asked.wait()), asyncio.ensure_future(node.stopped.wait())]
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            for task in waiting:
                task.cancel()
            notify("STOPPING=1")
    except asyncio.CancelledError:
        if not asked.is_set():
            raise
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)


def run_node(settings: NodeSettings) -> None:
    """The program; returns after SIGTERM."""
    logs.configure(settings.log_level)
    rights.of_node()
    os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")  # this process starts others, and none of them uses its channels
    asyncio.run(serve(settings))
