"""Tells the mesh of one workload: keeps its WorkloadEntry, and what belongs to it, in the API server as they should be.

What should be is set here at once and written as soon as the API server takes it: a control plane that is away delays what its
callers see, and nothing on this node.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from functools import cache
from typing import TYPE_CHECKING, Any

import structlog

from tulle.client.api import ApiClient
from tulle.client.errors import AlreadyExists, NotFound, WriteConflict
from tulle.client.node_api import WorkloadSpec
from tulle.core.model.workload import Capture
from tulle.kit.errors import Refused, TulleError, Unavailable
from tulle.node import objects
from tulle.node.objects import Body, Place

if TYPE_CHECKING:
    from tulle.api.object import Kind

log = structlog.get_logger("tulle.node")

_MANAGER = "tulle-node"
_FIRST_PAUSE, _LONGEST_PAUSE = 0.2, 10.0
SPREAD = 2.0  # seconds at most that a withdrawal may take to reach all callers


@cache
def _kind(group: str, name: str) -> Kind:
    from tulle.api.registry import kind_for

    found = kind_for(group, name)
    assert found is not None, f"{name} is not registered"
    return found


class Registration:
    """One workload's objects. `api` gives the client (it changes with the node's certificate), `node` is this node's name."""

    def __init__(self, api: Callable[[], Awaitable[ApiClient]], spec: WorkloadSpec, place: Place, node: str) -> None:
        self.spec, self.place, self.node = spec, place, node
        self.error = ""
        self.refused = False  # the error will not go away by itself
        self._api = api
        self._wanted: bool | None = False  # the readiness to tell; None: withdrawn
        self._written: bool | None = None
        self._turn = asyncio.Event()
        self._settled = asyncio.Event()

    @property
    def registered(self) -> bool:
        """Whether the API server has the WorkloadEntry."""
        return self._written is not None

    @property
    def known(self) -> bool:
        """Whether the API server has what was told last."""
        return self._settled.is_set()

    def tell(self, ready: bool | None) -> None:
        """The application is ready, or not, or (None) the workload is to be forgotten."""
        self._wanted = ready
        self._settled.clear()
        self._turn.set()

    def adopted(self, ready: bool) -> None:
        """An earlier agent has written it, as far as this one knows."""
        self._wanted = self._written = ready

    async def settled(self, timeout: float) -> bool:
        """Wait until what was told last is written; False where it is not by then."""
        try:
            async with asyncio.timeout(timeout):
                await self._settled.wait()
        except TimeoutError:
            return False
        return True

    async def withdraw(self, forget: bool, spread: bool = True) -> bool:
        """Tell callers to go elsewhere (`forget`: and delete the entry), and return when they know, or `SPREAD` is over.

        Without `spread` it returns when the API server knows. False where that did not take it in that time.
        """
        self.tell(None if forget else False)
        try:
            async with asyncio.timeout(SPREAD):
                await self._settled.wait()
                if not spread or not self.spec.ports:  # then nobody calls it
                    return True
                with contextlib.suppress(TulleError):
                    await (await self._api()).request("GET", "/tulle/v1/synced", query={"timeout": str(SPREAD)}, timeout=SPREAD)
        except TimeoutError:
            return self._settled.is_set()
        return True

    async def run(self) -> None:
        """Write, and try again, until cancelled."""
        pause = _FIRST_PAUSE
        while True:
            wanted = self._wanted
            try:
                await self._write(wanted)
            except (Unavailable, WriteConflict) as error:
                self._failed(error)
            except TulleError as error:
                self.refused = True
                self._failed(error)
                pause = _LONGEST_PAUSE
            else:
                self._written, self.error, self.refused, pause = wanted, "", False, _FIRST_PAUSE
                if wanted == self._wanted:
                    self._settled.set()
                    await self._turn.wait()
                self._turn.clear()
                continue
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._turn.wait()
            self._turn.clear()
            pause = min(pause * 2, _LONGEST_PAUSE)

    def _failed(self, error: TulleError) -> None:
        if error.message != self.error:
            log.warning("registration not written; trying again", workload=self.spec.id, error=error.message)
        self.error = error.message

    async def _write(self, ready: bool | None) -> None:
        api = await self._api()
        kind = _kind("networking.istio.io", "WorkloadEntry")
        if ready is None:
            await self._forget(api, kind)
        elif self._written is None:
            await self._introduce(api, kind, ready)
        elif ready != self._written:
            patch = {"metadata": {"annotations": {objects.READY: "true" if ready else "false"}}}
            try:
                await api.patch(kind, self.spec.name, patch, self.spec.namespace, field_manager=_MANAGER)
            except NotFound:  # somebody deleted it while its workload runs
                await self._introduce(api, kind, ready)

    async def _introduce(self, api: ApiClient, kind: Kind, ready: bool) -> None:
        """Everything that the workload needs, and last its entry: the mesh hears of it once it can be complete."""
        spec = self.spec
        await self._ensure(api, objects.service_account(spec))
        if spec.service:
            await self._ensure_service(api)
        services: list[Body] = (await api.list(_kind("", "Service"), spec.namespace))["items"] if self._differs else []
        entry = objects.workload_entry(spec, self.place, self.node, ready, services)
        try:
            await api.create(entry, field_manager=_MANAGER)
            return
        except AlreadyExists:
            standing = await api.get(kind, spec.name, spec.namespace)
        owner = standing["metadata"].get("annotations", {}).get(objects.NODE)
        if owner != self.node:
            by = f"runs on node {owner}" if owner else "was written by hand"
            raise Refused(f"WorkloadEntry {spec.id} is there already: it {by}", hint="choose another name with --name")
        entry["metadata"]["resourceVersion"] = standing["metadata"]["resourceVersion"]
        await api.update(entry, field_manager=_MANAGER)

    @property
    def _differs(self) -> bool:
        """Whether ports have to be said under the names that Services give them, for they are not what these say."""
        if self.place.capture is Capture.CGROUP:
            return any(port.target for port in self.spec.ports)
        return any(outer != inner for outer, inner in self.place.inbound_ports.items())

    async def _ensure(self, api: ApiClient, body: Body) -> None:
        """Make it where it is not there; its namespace too."""
        try:
            await api.create(body, field_manager=_MANAGER)
        except AlreadyExists:
            return
        except NotFound:
            with contextlib.suppress(AlreadyExists):
                await api.create(objects.namespace(self.spec), field_manager=_MANAGER)
            with contextlib.suppress(AlreadyExists):
                await api.create(body, field_manager=_MANAGER)

    async def _ensure_service(self, api: ApiClient) -> None:
        """A Service where none stands. One that a node made gets the ports that it lacks; a person's is left as it is."""
        spec, kind = self.spec, _kind("", "Service")
        if not spec.ports:
            return
        try:
            await api.create(objects.service(spec), field_manager=_MANAGER)
            return
        except AlreadyExists:
            standing = await api.get(kind, spec.service, spec.namespace)
        lacking = objects.missing_ports(standing, spec)
        if lacking and objects.OWNED in standing["metadata"].get("annotations", {}):
            standing["spec"]["ports"] = [*standing["spec"].get("ports", []), *lacking]
            await api.update(standing, field_manager=_MANAGER)

    async def _forget(self, api: ApiClient, kind: Kind) -> None:
        """Delete the entry if it is this node's, and with the last workload the Service that was made for it."""
        spec = self.spec
        try:
            standing = await api.get(kind, spec.name, spec.namespace)
        except NotFound:
            return
        if standing["metadata"].get("annotations", {}).get(objects.NODE) != self.node:
            return
        with contextlib.suppress(NotFound):
            await api.delete(kind, spec.name, spec.namespace)
        if not spec.service:
            return
        with contextlib.suppress(NotFound):
            service = await api.get(_kind("", "Service"), spec.service, spec.namespace)
            if objects.OWNED not in service["metadata"].get("annotations", {}):
                return
            entries: list[dict[str, Any]] = (await api.list(kind, spec.namespace))["items"]
            if not any(objects.selects(service, entry) for entry in entries):
                await api.delete(_kind("", "Service"), spec.service, spec.namespace)
