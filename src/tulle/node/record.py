"""What the next agent has to know of a workload to take it over: `record.json`, beside its keys and its configuration."""

from __future__ import annotations

import asyncio
from pathlib import Path

import msgspec

from tulle.client.node_api import WorkloadSpec
from tulle.node.cache import write_private
from tulle.node.process import Process

FILE = "record.json"


class Record(msgspec.Struct, omit_defaults=True):
    """One workload: what was asked for, the processes that serve it, and whether its application was ready."""

    spec: WorkloadSpec
    envoy: Process | None = None
    relay: Process | None = None
    ready: bool = False


class RecordFile:
    """Where a record is kept. Writes come one after the other: the last one is of the record as it is last."""

    def __init__(self, folder: Path, record: Record) -> None:
        self.path = folder / FILE
        self._record = record
        self._writing = asyncio.Lock()

    async def write(self) -> None:
        """The record as it is now. Raises `OSError`."""
        async with self._writing:
            await asyncio.to_thread(write_private, self.path, msgspec.json.encode(self._record))
