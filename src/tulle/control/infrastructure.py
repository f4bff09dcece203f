"""Gateways' `spec.infrastructure`: its labels and annotations, put on what was made for that Gateway alone.

    pipeline ──▶ wake ──▶ `core.compile.infrastructure` ──▶ server-side apply, as `tulle-gateways`

A controller: it runs on one control plane at a time. Server-side apply knows which labels it put there, so that one that the
Gateway no longer has goes, and those of the node and of people stay.
"""

from __future__ import annotations

import asyncio

import structlog

from tulle.api.registry import kind_for
from tulle.control.apiserver.errors import Denial
from tulle.control.apiserver.objects import Objects
from tulle.control.apiserver.target import Target, Writing
from tulle.core.compile.infrastructure import Infrastructure, infrastructure
from tulle.core.pipeline import Pipeline
from tulle.kit.errors import TulleError

log = structlog.get_logger("tulle.gateways")

MANAGER = "tulle-gateways"
_WRITING = Writing(MANAGER, force=True)
_PATIENCE = 1.0  # seconds before what could not be written is tried again


class InfrastructureWriter:
    """`run` until cancelled."""

    def __init__(self, objects: Objects, pipeline: Pipeline) -> None:
        self.objects, self.pipeline = objects, pipeline
        self._wake = asyncio.Event()

    def published(self) -> None:
        """The pipeline took something in. Returns at once."""
        self._wake.set()

    async def run(self) -> None:
        """Look at every workload, and its Service, once, then at what becomes another."""
        seen: dict[tuple[str, tuple[str, str]], Infrastructure] = {}  # what was last written, or found to stand
        while True:
            self._wake.clear()
            wanted = self.pipeline.flow.get(infrastructure, None) or {}
            written = {
                key for key, one in wanted.items() if (one.stands and seen.get(key) == one) or await self._write(*key, one)
            }
            seen = {key: wanted[key] for key in written}
            if len(written) < len(wanted):
                asyncio.get_running_loop().call_later(_PATIENCE, self._wake.set)
            await self._wake.wait()

    async def _write(self, name: str, key: tuple[str, str], one: Infrastructure) -> bool:
        """Whether it is there now."""
        kind = kind_for("" if name == "Service" else "networking.istio.io", name)
        assert kind is not None
        target = Target(kind, kind.versions[0], *key)
        stored = await self.objects.store.get(target.key)
        if stored is None:
            return True  # its end is on the way
        metadata = stored.body["metadata"]
        ours = any(entry.get("manager") == MANAGER for entry in metadata.get("managedFields") or ())
        if not (one.labels or one.annotations or ours):
            return True
        body = {
            "apiVersion": target.api_version,
            "kind": kind.kind,
            "metadata": {
                "name": key[1],
                "namespace": key[0],
                "uid": metadata["uid"],  # not another of that name, nor a new one
                "labels": one.labels,
                "annotations": one.annotations,
            },
        }
        try:
            await self.objects.apply(target, body, _WRITING)
        except (Denial, TulleError) as error:
            log.warning("labels of a Gateway could not be written; trying again", kind=name, name="/".join(key), why=str(error))
            return False
        return True
