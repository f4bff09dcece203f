"""The etcd servers of the suite: started at the first use, shared by all tests of the process, each test under its own prefix."""

from __future__ import annotations

import atexit
import functools
import itertools
import shutil
import tempfile
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.support.etcd import EtcdCluster
from tulle.control.store.etcd import EtcdStore
from tulle.control.store.etcd_cluster import TlsFiles, parse
from tulle.ports import Event, Stored

UNIT = 0.2  # seconds that stand for one of a test that turns its clock
_numbers = itertools.count()


@functools.cache
def servers(kind: str) -> EtcdCluster:
    """`one`, `tls` (with client certificates) or `three`, running until the process ends."""
    folder = Path(tempfile.mkdtemp(prefix="etcd-"))
    cluster = EtcdCluster(folder, 3 if kind == "three" else 1, tls=kind == "tls")
    atexit.register(shutil.rmtree, folder, True)
    atexit.register(cluster.stop)
    cluster.start()
    return cluster


def make(kind: str, options: Mapping[str, Any]) -> EtcdStore:
    """An empty store."""
    cluster = servers(kind)
    tls = cluster.tls
    files = TlsFiles(tls.ca, tls.client_cert, tls.client_key) if tls else TlsFiles()
    waited = "clock" in options
    rest = {name: value for name, value in options.items() if name != "clock"}
    return _Tested(cluster, parse(cluster.url(f"t{next(_numbers)}")), files, waited, rest)


class _Tested(EtcdStore):
    """The store, on servers where others' leases do not outlive their test, and which forget what the store's log forgets."""

    def __init__(self, cluster: EtcdCluster, place: Any, files: TlsFiles, waited: bool, options: Mapping[str, Any]) -> None:
        super().__init__(place, files, **options)
        self._servers, self._unit, self._short = cluster, UNIT if waited else 1.0, "log" in options
        self._granted: list[int] = []
        self._compacted = 0
        self._ended = False

    async def grant(self, seconds: float) -> int:
        lease = await super().grant(seconds * self._unit)
        self._granted.append(lease)
        return lease

    async def list(
        self, resource: str | None = None, namespace: str | None = None, *, at: int | None = None
    ) -> tuple[Sequence[Stored], int]:
        await self._compact()
        return await super().list(resource, namespace, at=at)

    async def watch(self, since: int, resource: str | None = None) -> AsyncGenerator[Event, None]:
        await self._compact()
        async for event in super().watch(since, resource):
            yield event

    async def _compact(self) -> None:
        """Where a test asks for a short log, etcd is to be as forgetful: else it knows what the log does not."""
        if self._short:
            await self._cache.fresh()
            if self._cache.state.compacted > self._compacted:
                self._compacted = self._cache.state.compacted
                self._servers.compact(self._compacted)

    async def close(self) -> None:
        if not self._ended:
            self._ended = True
            for lease in self._granted:
                await self.revoke(lease)
        await super().close()


class WaitedClock:
    """For leases that run on a clock of their own: turning it is waiting, well short of a lease's end or well past it."""

    def advance(self, seconds: float) -> None:
        """Let so many seconds of the test pass."""
        time.sleep(seconds * UNIT * (0.8 if seconds < 10 else 1.3))
