"""What `/tulle/v1` shows and does: the running mesh as the control plane's parts know it, and the other control planes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

import tulle
from tulle.api.kind import Kind
from tulle.api.object import Object
from tulle.api.registry import kind_for
from tulle.app.backup import authority_files
from tulle.app.stores import is_shared
from tulle.control.store.backup import written
from tulle.core import type_urls
from tulle.core.analyze.finding import Finding, finding
from tulle.core.analyze.inputs import Scope
from tulle.core.describe import Description, Heard, describe, heard
from tulle.core.doors import Door, door
from tulle.core.envoy.tls import ROOTS
from tulle.core.secured import addresses_of
from tulle.kit.problem import Severity
from tulle.ports import Key

if TYPE_CHECKING:
    from tulle.app.control_plane import ControlPlane

_JUDGED = 5.0  # seconds that a write waits, at most, for what the mesh has to say of it
_SLICE = 100  # objects that are judged in one go: some 20 ms


class RunningMesh:
    """`mesh_api.Mesh` of a control plane."""

    def __init__(self, plane: ControlPlane) -> None:
        self._plane = plane

    def status(self) -> dict[str, Any]:
        """Version, revision, trust domain, how many proxies; who leads, which control planes there are, whose figures."""
        plane = self._plane
        members = sorted([plane.member, *(plane.members.others.values() if plane.members else ())], key=lambda one: one.name)
        return {
            "version": tulle.__version__,
            "revision": plane.pipeline.revision,
            "trustDomain": plane.settings.trust_domain,
            "started": plane.started,
            "proxies": len(plane.ads.proxies()),
            "xdsAddress": plane.settings.xds_address,
            "name": plane.member.name,
            "leader": plane.leader.holder,
            "controlPlanes": [msgspec.to_builtins(one) for one in members],
            "figures": {"prometheus": plane.prometheus.shown if plane.prometheus else "", "notice": plane.figures_notice},
        }

    async def proxies(self, here: bool) -> Sequence[Any]:
        """Every connected proxy: of this control plane, and of all unless only those `here` are asked for."""
        roots = self._plane.ads.holding(type_urls.SECRET, ROOTS)
        said = {"controlPlane": self._plane.member.name}
        own = [{**msgspec.to_builtins(one), **said, "roots": roots.get(one.proxy, "")} for one in self._plane.ads.proxies()]
        return own if here or self._plane.peers is None else [*own, *await self._plane.peers.proxies()]

    async def judge(self, kind: Kind, new: Object, revision: int) -> list[str]:
        """What the mesh has against an object, for `kubectl` to show: it is written all the same."""
        if not kind.group or kind.kind == "WorkloadEntry":
            return []
        key = (new.metadata.namespace, new.metadata.name)
        analysis = self._plane.pipeline.analysis
        analysis.at(Scope(time.time(), live=True))
        if revision:
            if not await self._plane.feed.reached(revision, _JUDGED):
                return []  # it stands in the object's status as soon as the mesh has come that far
            problems = analysis.of(kind.resource, key)
        else:
            problems = analysis.alone(kind.resource, key, new)
        found = (finding(problem) for problem in problems)
        return [f"[{one.code}] {one.path}: {one.message}" for one in found if one.severity is not Severity.INFO]

    def expect(self, key: Key, revision: int, body: dict[str, Any], new: Object) -> None:
        """An object that was written, decoded."""
        self._plane.feed.expect(key, revision, body, new)

    async def findings(self) -> list[Finding]:
        """What the analysis has to say of the objects as they are."""
        await self._judge()
        found = [finding(one) for problems in self._plane.pipeline.analysis.found().values() for one in problems]
        return [*found, *await self._plane.ca.late()]

    async def findings_with(self, objects: Sequence[Object]) -> list[Finding]:
        """What it would say of these objects if they were written, and what they would newly make wrong elsewhere."""
        await self._judge()
        changes = {}
        for one in objects:
            kind = kind_for(one.ref.group, one.kind)
            assert kind is not None
            changes[kind.resource, (one.metadata.namespace, one.metadata.name)] = one
        return [finding(problem) for problem in self._plane.pipeline.analysis.trial(changes)]

    async def _judge(self) -> None:
        """Bring the analysis up to what is written, in slices between which others get their turn."""
        await self._plane.feed.reached(await self.revision())
        analysis = self._plane.pipeline.analysis
        analysis.at(Scope(time.time(), live=True))
        more = True
        while more:
            more = analysis.settle(_SLICE)
            await asyncio.sleep(0)

    async def describe(self, host: str, namespace: str) -> Description:
        """What is said of a host and what comes of it, as of what is written now."""
        await self._plane.feed.reached(await self.revision())
        return describe(self._plane.pipeline, host, namespace)

    async def heard(self, proxy: str, authority: str, port: int) -> Heard | None:
        """Where a proxy looks for the routes of a request."""
        await self._plane.feed.reached(await self.revision())
        return heard(self._plane.pipeline, proxy, authority, port)

    async def door(self, workload: str, port: int, host: str) -> Door | None:
        """What stands before a workload at a port."""
        await self._plane.feed.reached(await self.revision())
        return door(self._plane.pipeline, workload, port, host)

    async def revision(self) -> int:
        """The store's newest revision."""
        return (await self._plane.store.list("namespaces"))[1]

    async def wait_synced(self, revision: int, timeout: float, here: bool) -> list[str]:
        """The proxies that are behind after that long: of this control plane, and of all unless only those `here` count."""
        own = self._plane.ads.wait_synced(revision, timeout)
        if here or self._plane.peers is None:
            return await own
        behind, others = await asyncio.gather(own, self._plane.peers.behind(revision, timeout))
        return [*behind, *others]

    def backup(self, with_authority: bool) -> AsyncGenerator[bytes, None]:
        """The bytes of a backup. A shared authority lies in the store, and so is in every backup, sealed."""
        settings = self._plane.settings
        beside = authority_files(settings.state_dir, self._plane.keys, wanted=with_authority and not is_shared(settings))
        return written(self._plane.store.inside, self._plane.keys, settings.trust_domain, beside)

    def runs(self, workload: str) -> str | None:
        """The node that runs a workload, "" where none does; None where there is no such workload."""
        found = self._plane.pipeline.workload(workload)
        return None if found is None else found.node

    def addresses(self, account: str) -> tuple[str, ...]:
        """The addresses of the workloads of a service account."""
        return addresses_of(self._plane.pipeline, account)

    async def elsewhere(self, path: str, query: Mapping[str, str]) -> AsyncGenerator[bytes, None]:
        """What that control plane answers with which the node is connected."""
        if self._plane.peers is not None:
            async for piece in self._plane.peers.follow(path, query):
                yield piece

    async def create_token(self, allow: tuple[str, ...], lifetime: float, node: str) -> str:
        """A join token for a node that may have the identities `allow`."""
        return await self._plane.ca.tokens.create(allow, lifetime, node)
