"""The node agent: its workloads, from those that an earlier agent left to those that are asked for now.

It can be killed at any moment: Envoys, sandboxes and applications go on, and the next agent takes them over from the records on
disk. Only `teardown` ends them. What the API server could not be told of a removal is told when it answers again.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shutil
import signal
import time
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import msgspec
import structlog

import tulle
from tulle.client.api import ApiClient
from tulle.client.node_api import Kind, NodeStatus, WorkloadSpec
from tulle.core.model import interception
from tulle.core.model.workload import Capture
from tulle.kit.errors import BadData, Refused, TulleError
from tulle.kit.problem import Problem, Ref
from tulle.node import identity
from tulle.node.cache import write_private
from tulle.node.envoy import LEVELS
from tulle.node.groups import in_group
from tulle.node.identity import Identity
from tulle.node.objects import Place
from tulle.node.process import Process, proxies
from tulle.node.record import FILE, Record
from tulle.node.registration import Registration
from tulle.node.shared import Node
from tulle.node.workload import Workload

log = structlog.get_logger("tulle.node")

_NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_API_TIMEOUT = 10.0
_KEPT = 3 * 24 * 3600.0  # seconds: by then its certificate has expired
_ROTATION = 1.0  # seconds between two looks at the sizes of access logs
_MAINTENANCE = 30.0  # seconds between two looks at the logs' sizes


class NotFound(TulleError):
    """No workload of that name is on this node."""

    code = "not-found"


class Agent:
    """The workloads of a node. `capture_reason` is why it captures as it does, `envoy` Envoy's version, for people."""

    def __init__(self, node: Node, capture_reason: str, envoy: str, control_plane: str) -> None:
        self.node = node
        self.workloads: dict[str, Workload] = {}
        self.ending = False  # everything is being taken away
        self._reason, self._envoy, self._control_plane = capture_reason, envoy, control_plane
        self._turns: dict[str, asyncio.Lock] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._farewells: dict[str, asyncio.Task[None]] = {}

    async def start(self) -> None:
        """Take over what is there, and clear away what cannot be."""
        for folder in (self.node.state_dir / "workloads", self.node.runtime_dir / "w"):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        records = await asyncio.to_thread(self._records)
        known = {envoy for record in records for envoy in (record.envoy, record.relay)}
        for workload, envoy in await asyncio.to_thread(proxies, self.node.instance):
            if envoy not in known:  # started by an agent that had no time to write it down
                log.warning("stopping an Envoy that no record names", workload=workload, pid=envoy.pid)
                envoy.send(signal.SIGKILL)
        await asyncio.gather(*(self._take_over(record) for record in records))
        for id_ in set(self.node.network.recorded()) - set(self.workloads):
            await self.node.network.destroy(id_)
        for file in sorted((self.node.state_dir / "workloads").glob("*/farewell.json")):
            with contextlib.suppress(OSError, msgspec.DecodeError):
                self._say_farewell(msgspec.json.decode(file.read_bytes(), type=WorkloadSpec))
        await asyncio.to_thread(self._forget_old)
        self._task(self._maintain())
        self._task(self._turn_logs())

    def _forget_old(self) -> None:
        """Remove what is kept of workloads that may come again, once they have not for so long that it is of no use."""
        for folder in (self.node.state_dir / "workloads").iterdir():
            stays = any((folder / name).exists() for name in (FILE, "farewell.json"))
            if not stays and time.time() - folder.stat().st_mtime > _KEPT:
                shutil.rmtree(folder, ignore_errors=True)

    def _records(self) -> list[Record]:
        found = []
        for file in sorted((self.node.state_dir / "workloads").glob(f"*/{FILE}")):
            try:
                found.append(msgspec.json.decode(file.read_bytes(), type=Record))
            except (OSError, msgspec.DecodeError) as error:
                log.warning("a workload's record cannot be read; leaving it out", path=str(file), error=str(error))
        return found

    async def _take_over(self, record: Record) -> None:
        owner = record.spec.owner
        workload = self.workloads[record.spec.id] = Workload(self.node, record, self._owner_gone)
        async with self._turn(workload.id):
            try:
                if (owner is None or Process(owner.pid, owner.started).alive) and await workload.adopt():
                    log.info("took over", workload=workload.id, envoy=record.envoy.pid if record.envoy else 0)
                    return
            except TulleError as error:
                log.error("could not take over", workload=workload.id, error=error.message)
            log.info("clearing away what is left of a workload", workload=workload.id)
            del self.workloads[workload.id]
            for envoy in (record.envoy, record.relay):
                if envoy is not None:
                    envoy.send(signal.SIGKILL)
            await self._finish(workload, drain=0)

    async def add(self, spec: WorkloadSpec) -> Workload:
        """Put a workload in the mesh; returns when its proxy serves. Raises `TulleError` with the reason where it cannot."""
        self._check(spec)
        if spec.group:
            spec = in_group(spec, await self._group(spec))
            self._check(spec)
        async with self._turn(spec.id):
            if self.ending:
                raise Refused(f"node {self.node.name} is taking its workloads away")
            standing = self.workloads.get(spec.id)
            if standing is not None:
                if standing.spec == spec:
                    return standing
                owner = standing.spec.owner
                if owner is None or Process(owner.pid, owner.started).alive:
                    by = f" (pid {owner.pid})" if owner else ""
                    raise Refused(f"workload {spec.id} runs here already{by}", hint="choose another name with --name")
                await self._remove(standing, drain=0)
            await self._cancel_farewell(spec.id)
            workload = Workload(self.node, Record(spec=spec), self._owner_gone)
            self.workloads[spec.id] = workload
            try:
                await workload.bring_up()
            except BaseException:
                self.workloads.pop(spec.id, None)
                raise
            return workload

    async def _group(self, spec: WorkloadSpec) -> dict[str, Any]:
        """The WorkloadGroup of a workload; raises `NotFound` where there is none."""
        from tulle.api.registry import kind_for

        kind = kind_for("networking.istio.io", "WorkloadGroup")
        assert kind is not None
        found: dict[str, Any] = await (await self.node.api()).get(kind, spec.group, spec.namespace)
        return found

    def get(self, id_: str) -> Workload:
        """A workload by `namespace/name`; raises `NotFound`."""
        try:
            return self.workloads[id_]
        except KeyError:
            there = ", ".join(sorted(self.workloads)) or "none"
            raise NotFound(f"no workload {id_} on node {self.node.name}; there: {there}") from None

    async def remove(self, id_: str, drain: bool = True) -> None:
        """Take it out of the mesh and clear it away. Idempotent."""
        async with self._turn(id_):
            if (workload := self.workloads.get(id_)) is not None:
                await self._remove(workload, workload.spec.drain if drain else 0.0)

    async def _remove(self, workload: Workload, drain: float) -> None:
        await self._finish(workload, drain)
        self.workloads.pop(workload.id, None)

    async def _finish(self, workload: Workload, drain: float) -> None:
        if workload.registration is None:  # not taken over, but perhaps registered by an earlier agent
            self._say_farewell(workload.spec)
        if not await workload.take_down(drain):
            self._say_farewell(workload.spec)

    async def teardown(self) -> None:
        """Remove every workload and everything that they share."""
        self.ending = True
        await asyncio.gather(*(self.remove(id_, drain=False) for id_ in list(self.workloads)))
        await self.close()
        await self.node.resolver.close(end=True)
        await self.node.network.teardown()
        with contextlib.suppress(OSError):  # farewells that could not be said are in the state folder
            (self.node.runtime_dir / "w").rmdir()

    async def close(self) -> None:
        """Stop being the agent, and leave everything running for the next."""
        for task in (*self._tasks, *self._farewells.values()):
            task.cancel()
        await asyncio.gather(*self._tasks, *self._farewells.values(), return_exceptions=True)
        await asyncio.gather(*(workload.close() for workload in self.workloads.values()))
        await self.node.resolver.close(end=False)

    def status(self) -> NodeStatus:
        """The agent and its workloads."""
        own = self.node.own.current
        workloads = [self.workloads[id_] for id_ in sorted(self.workloads)]
        return NodeStatus(
            name=self.node.name,
            pid=os.getpid(),
            version=tulle.__version__,
            instance=self.node.instance,
            envoy=self._envoy,
            trust_domain=own.trust_domain if own else "",
            capture=self.node.network.capture.value,
            capture_reason=self._reason,
            control_plane=self._control_plane,
            connected=own is not None and all(it.feed.connected for it in workloads),
            workloads=tuple(workload.status() for workload in workloads),
        )

    async def trust(self, bundle: str, signs: str) -> None:
        """The roots of now, and what signs: for the node itself and all that it runs."""
        for one in (self.node.own, *(workload.identity for workload in self.workloads.values())):
            await one.trust(bundle, signs)

    # What is refused before anything starts.

    def _check(self, spec: WorkloadSpec) -> None:
        problems = []
        ref = Ref("Workload", spec.namespace, spec.name)

        def name(path: str, value: str) -> None:
            if not _NAME.fullmatch(value):
                needed = "needed 1 to 63 of a-z, 0-9 and -, with a letter or digit at both ends"
                problems.append(Problem(ref, path, "InvalidName", f"found {value!r}, {needed}"))

        name("name", spec.name)
        name("namespace", spec.namespace)
        name("serviceAccount", spec.service_account)
        if spec.service:
            name("service", spec.service)
        if spec.group:
            name("group", spec.group)
        problems += [
            Problem(ref, f"annotations[{key}]", "Reserved", "is the node's own to write; leave it out")
            for key in spec.annotations
            if key.startswith("tulle.dev/")
        ]
        problems += [
            Problem(ref, f"annotations[{mistake.annotation}]", "BadAnnotation", mistake.message)
            for mistake in interception.read(spec.annotations)[1]
        ]
        seen: set[int] = set()
        for index, port in enumerate(spec.ports):
            problems += [
                Problem(ref, f"ports[{index}]", "InvalidPort", f"found {number}, needed 1 to 65535")
                for number in {port.number, port.bound}
                if not 0 < number < 65536
            ]
            if port.number in seen:
                problems.append(Problem(ref, f"ports[{index}]", "Duplicate", f"port {port.number} is given twice"))
            seen.add(port.number)
        if problems:
            raise BadData(problems)
        capture, here = spec.capture, self.node.network.capture
        if spec.kind is Kind.SIDECAR and capture not in ("auto", here.value):
            raise Refused(
                f"capture {capture} was asked for, and node {self.node.name} captures by {here.value}: {self._reason}",
                hint=f"leave it out, or start a node with --capture {capture}",
            )
        if spec.kind is Kind.GATEWAY and capture not in ("auto", Capture.NONE.value):
            raise Refused(f"a gateway captures nothing: found capture {capture}, needed none")

    # What goes on beside.

    def _owner_gone(self, workload: Workload) -> None:
        if self.workloads.get(workload.id) is workload:
            self._task(self.remove(workload.id, drain=False))

    def _say_farewell(self, spec: WorkloadSpec) -> None:
        """Keep trying to delete what the API server has of a workload that is no more."""
        if spec.id not in self._farewells:
            self._farewells[spec.id] = asyncio.ensure_future(self._farewell(spec))

    async def _farewell(self, spec: WorkloadSpec) -> None:
        file = self.node.folder(spec.id) / "farewell.json"
        await asyncio.to_thread(write_private, file, msgspec.json.encode(spec))
        registration = Registration(self.node.api, spec, Place(capture=Capture.NONE, address=""), self.node.name)
        registration.tell(None)
        writing = asyncio.ensure_future(registration.run())
        try:
            while not await registration.settled(3600.0):
                pass
        finally:
            writing.cancel()
        file.unlink(missing_ok=True)
        self._farewells.pop(spec.id, None)

    async def _cancel_farewell(self, id_: str) -> None:
        if (task := self._farewells.pop(id_, None)) is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        (self.node.folder(id_) / "farewell.json").unlink(missing_ok=True)

    async def _maintain(self) -> None:
        while True:
            await asyncio.sleep(_MAINTENANCE)
            with contextlib.suppress(TulleError, OSError):  # somebody may have flushed the rules of `cgroup` capture
                await self.node.network.open()
            for workload in list(self.workloads.values()):
                if workload.envoy is not None:
                    await asyncio.to_thread(workload.envoy.trim_log)

    async def _turn_logs(self) -> None:
        """Keep access logs within their bounds, also where they grow quickly."""
        while True:
            await asyncio.sleep(_ROTATION)
            for workload in list(self.workloads.values()):
                await workload.turn_logs()

    def _turn(self, id_: str) -> asyncio.Lock:
        return self._turns.setdefault(id_, asyncio.Lock())

    def _task(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("a task of the agent failed", exc_info=error)


def check_level(level: str) -> None:
    """Raise `Refused` where Envoy has no such log level."""
    if level not in LEVELS:
        raise Refused(f"log level: found {level!r}, needed one of {', '.join(LEVELS)}")


class Api:
    """The API server as this node, with the certificate that it has now: a renewed one gets a new client.

    `address` is `host:port`, or several of them by commas.
    """

    def __init__(self, address: str) -> None:
        self._servers = [f"https://{one.strip()}" for one in address.split(",")]
        self._own: Identity | None = None
        self._client: ApiClient | None = None
        self._old: list[ApiClient] = []

    def use(self, own: Identity) -> None:
        """Present this certificate from now on; requests under way end with the one that they began with."""
        self._own = own
        if self._client is not None:
            self._old.append(self._client)
            self._client = None

    async def client(self) -> ApiClient:
        """The client of now."""
        assert self._own is not None, "no certificate yet"
        if self._client is None:
            first, *others = self._servers
            tls = identity.context(self._own)
            self._client = await ApiClient(first, tls, timeout=_API_TIMEOUT, others=others).__aenter__()
            if self._old:
                asyncio.get_running_loop().call_later(2 * _API_TIMEOUT, self._close_old, self._old.pop())
        return self._client

    def _close_old(self, old: ApiClient) -> None:
        self._closing = asyncio.ensure_future(old.close())

    async def close(self) -> None:
        """Let go of all connections."""
        if self._client is not None:
            await self._client.close()


def make_private(folder: Path, mode: int = 0o700) -> None:
    """A folder that only this user may enter (or, with another mode, look into); raises `Refused` where it is another's."""
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        stat = folder.stat()
    except OSError as error:
        raise Refused(f"{folder}: {error.strerror}", hint="choose another folder with --state-dir or --runtime-dir") from error
    if stat.st_uid != os.geteuid():
        raise Refused(f"{folder} belongs to another user (uid {stat.st_uid})", hint="choose another folder")
    folder.chmod(mode)
