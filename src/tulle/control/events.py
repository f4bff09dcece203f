"""Kubernetes Events: what happened to an object, for `kubectl describe` and `kubectl events`.

    events = Events(store, time.time)
    await events.record(body, "Warning", "OwnerRefInvalidNamespace", "the owner is in another namespace")

The same again within an hour raises the count of the one that is there. `run` sweeps what is older than an hour.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import uuid
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, Literal

import structlog

from tulle.control.apiserver.table import timestamp
from tulle.kit.errors import TulleError
from tulle.ports import Conflict, Delete, Key, Put, Store, Stored

log = structlog.get_logger("tulle.events")

Raw = dict[str, Any]

_RESOURCE, _NAMESPACES = "events", "namespaces"
_LIFETIME = 3600.0  # seconds after it last happened
_SWEEP = 60.0  # seconds between sweeps
_RETRIES = 5
_BATCH = 500  # deletes in one transaction
_LONGEST_NAME, _LONGEST_MESSAGE = 253, 1024  # characters


class Events:
    """Writes Events into a store. `now`: seconds since the epoch. `component`: who reports."""

    def __init__(self, store: Store, now: Callable[[], float], component: str = "tulle") -> None:
        self.store, self.now, self.component = store, now, component

    async def record(self, about: Mapping[str, Any], kind: Literal["Normal", "Warning"], reason: str, message: str) -> None:
        """Note that something happened to the object `about` (its body).

        An Event is a note: where its namespace is gone or going nothing is written, and a store that fails is only logged.
        """
        metadata = about["metadata"]
        namespace = str(metadata.get("namespace") or "default")
        message = message[:_LONGEST_MESSAGE]
        same = json.dumps([about["kind"], metadata.get("uid"), kind, reason, message, self.component])
        digest = hashlib.sha256(same.encode(errors="replace")).hexdigest()[:16]
        key = Key(_RESOURCE, namespace, f"{str(metadata['name'])[: _LONGEST_NAME - 17]}.{digest}")
        try:
            for _ in range(_RETRIES):
                space = await self.store.get(Key(_NAMESPACES, "", namespace))
                if space is None or space.body["metadata"].get("deletionTimestamp"):
                    return
                stored = await self.store.get(key)
                body = self._again(stored) if stored is not None and not self._is_old(stored.body) else None
                if body is None:
                    body = self._first(about, key, kind, reason, message)
                try:
                    await self.store.write([Put(key, body, expect=stored.revision if stored else 0)])
                except Conflict:
                    continue
                return
        except TulleError as error:
            log.warning("an event is lost", about=metadata["name"], reason=reason, error=error.message)

    def _first(self, about: Mapping[str, Any], key: Key, kind: str, reason: str, message: str) -> Raw:
        metadata, now = about["metadata"], timestamp(self.now())
        involved = {"apiVersion": about["apiVersion"], "kind": about["kind"], "name": metadata["name"]}
        involved |= {field: metadata[field] for field in ("namespace", "uid", "resourceVersion") if metadata.get(field)}
        return {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": key.name, "namespace": key.namespace, "uid": str(uuid.uuid4()), "creationTimestamp": now},
            "involvedObject": involved,
            "type": kind,
            "reason": reason,
            "message": message,
            "source": {"component": self.component},
            "reportingComponent": self.component,
            "firstTimestamp": now,
            "lastTimestamp": now,
            "count": 1,
        }

    def _again(self, stored: Stored) -> Raw:
        body = stored.body
        return {**body, "count": int(body.get("count") or 0) + 1, "lastTimestamp": timestamp(self.now())}

    def _is_old(self, body: Mapping[str, Any]) -> bool:
        return self.now() - _last(body) > _LIFETIME

    async def sweep(self) -> int:
        """Delete the Events that are older than an hour; how many."""
        old = [one for one in (await self.store.list(_RESOURCE))[0] if self._is_old(one.body)]
        gone = 0
        for first in range(0, len(old), _BATCH):
            batch = [Delete(one.key, expect=one.revision) for one in old[first : first + _BATCH]]
            try:
                await self.store.write(batch)
            except Conflict:
                continue  # one of them has just happened again; the others wait for the next sweep
            gone += len(batch)
        return gone

    async def run(self) -> None:
        """Sweep now and then, until cancelled."""
        while True:
            try:
                await self.sweep()
            except TulleError as error:
                log.warning("events are not swept", error=error.message)
            await asyncio.sleep(_SWEEP)


def _last(body: Mapping[str, Any]) -> float:
    """When it happened last, in seconds since the epoch; 0 where it does not say."""
    series = body.get("series")
    times = [
        series.get("lastObservedTime") if isinstance(series, Mapping) else None,
        *(body.get(field) for field in ("lastTimestamp", "eventTime", "firstTimestamp")),
        body["metadata"].get("creationTimestamp"),
    ]
    for text in times:
        if isinstance(text, str):
            with contextlib.suppress(ValueError):
                return datetime.fromisoformat(text).timestamp()
    return 0.0
