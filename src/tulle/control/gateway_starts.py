"""Keeps a Lease for each Gateway that a node is to start a gateway workload for, and takes it away when nobody is to.

    pipeline ──▶ wake ──▶ `core.compile.gateway_starts` ──▶ Lease `NAME-tulle` ◀── nodes (`node/gateways.py`)

A controller: it runs on one control plane at a time. What a node has written into a Lease stays.
"""

from __future__ import annotations

import asyncio

import structlog

from tulle.api.registry import kind_for
from tulle.control.apiserver.deletion import Deletion
from tulle.control.apiserver.errors import Denial
from tulle.control.apiserver.objects import Objects
from tulle.control.apiserver.target import Target, Writing
from tulle.core.compile.gateway_starts import ADDRESSES, FOR, PORTS, Start, gateway_starts
from tulle.core.compile.workload_notes import NODE
from tulle.core.pipeline import Pipeline
from tulle.kit.errors import TulleError
from tulle.ports import Stored

log = structlog.get_logger("tulle.gateways")

MANAGER = "tulle-gateways"
LEASES = "leases.coordination.k8s.io"
_WRITING = Writing(MANAGER, force=True)
_PATIENCE = 1.0  # seconds before what could not be written is tried again

Place = tuple[str, str]  # namespace, name


class GatewayStarter:
    """`run` until cancelled."""

    def __init__(self, objects: Objects, pipeline: Pipeline) -> None:
        self.objects, self.pipeline = objects, pipeline
        self._wake = asyncio.Event()

    def published(self) -> None:
        """The pipeline took something in. Returns at once."""
        self._wake.set()

    async def run(self) -> None:
        """What the store has is looked at once, and whenever something else is wanted than the time before."""
        settled: dict[Place, tuple[str, Start]] | None = None
        while True:
            self._wake.clear()
            starts = self.pipeline.flow.get(gateway_starts, None) or {}
            wanted = {(key[0], one.workload): (key[1], one) for key, one in starts.items()}
            if wanted != settled:
                settled = wanted if await self._settle(wanted) else None
                if settled is None:
                    asyncio.get_running_loop().call_later(_PATIENCE, self._wake.set)
            await self._wake.wait()

    async def _settle(self, wanted: dict[Place, tuple[str, Start]]) -> bool:
        """Whether all of it stands now, and nothing else."""
        try:
            stored, _revision = await self.objects.store.list(LEASES)
            there = {(one.key.namespace, one.key.name): one for one in stored}
            for place in wanted.keys() | {place for place, one in there.items() if _label(one)}:
                await self._one(place, wanted.get(place), there.get(place))
        except (Denial, TulleError) as error:
            log.warning("a Gateway's lease could not be written; trying again", why=str(error))
            return False
        return True

    async def _one(self, place: Place, wanted: tuple[str, Start] | None, stored: Stored | None) -> None:
        kind = kind_for("coordination.k8s.io", "Lease")
        assert kind is not None
        target = Target(kind, kind.versions[0], *place)
        if wanted is None:
            await self.objects.delete(target, Deletion(), _WRITING)
            return
        if stored is not None and not _label(stored):
            log.warning("a Lease that is not the mesh's has the name of a Gateway's workload", lease="/".join(place))
            return
        gateway, start = wanted
        notes = {NODE: start.node, PORTS: ",".join(map(str, start.ports)), ADDRESSES: ",".join(start.addresses)}
        metadata = {
            "name": place[1],
            "namespace": place[0],
            "labels": {FOR: gateway},
            "annotations": {name: value for name, value in notes.items() if value},
        }
        await self.objects.apply(target, {"apiVersion": target.api_version, "kind": kind.kind, "metadata": metadata}, _WRITING)


def _label(stored: Stored) -> str:
    return str((stored.body["metadata"].get("labels") or {}).get(FOR, ""))
