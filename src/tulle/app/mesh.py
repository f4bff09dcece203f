"""What `/tulle/v1` shows and does: the running mesh as the control plane's parts know it, and the other control planes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

import tulle
from tulle.api.kind import Kind
from tulle.api.object import Object
from tulle.api.registry import kind_for
from tulle.app.backup import authority_files
from tulle.app.stores import is_shared
from tulle.control.store.backup import written
from tulle.core.analyze import Finding, Scope, finding
from tulle.core.describe import Description, Heard, describe, heard
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
        """Version, revision, trust domain, how many proxies; who leads, and which control planes there are."""
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
        }

    async def proxies(self, here: bool) -> Sequence[Any]:
        """Every connected proxy: of this control plane, and of all unless only those `here` are asked for."""
        own = [{**msgspec.to_builtins(one), "controlPlane": self._plane.member.name} for one in self._plane.ads.proxies()]
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

    def expect(self, key: Key, body: dict[str, Any], new: Object) -> None:
        """An object that is about to be written, decoded."""
        self._plane.feed.expect(key, body, new)

    async def findings(self) -> list[Finding]:
        """What the analysis has to say of the objects as they are."""
        await self._judge()
        return [finding(one) for problems in self._plane.pipeline.analysis.found().values() for one in problems]

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
        beside = authority_files(settings.state_dir, wanted=with_authority and not is_shared(settings))
        return written(self._plane.store.inside, self._plane.keys, settings.trust_domain, beside)

    async def create_token(self, allow: tuple[str, ...], lifetime: float) -> str:
        """A join token for a node that may have the identities `allow`."""
        return await self._plane.tokens.create(allow, lifetime)
