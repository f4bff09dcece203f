"""Access logs of a real Envoy: rotated while it writes, and on a disk that is full."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.support.envoy import running
from tests.support.logged import Asked, logged
from tulle.core.envoy.access_log import of_requests
from tulle.core.model.telemetry import AccessLog
from tulle.node.envoy import Admin
from tulle.node.logs.files import LogFiles, generations
from tulle.node.logs.follow import Follower
from tulle.node.logs.lines import seen

LOG = AccessLog("envoy", path="/dev/stdout")
COUNT = 3000


async def test_a_rotation_under_load_loses_no_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Broken: lines would be lost or cut in two at the moment when a file is full, and a follower would not see all."""
    monkeypatch.chdir(tmp_path)  # where Envoy's paths begin
    made, port = logged(tmp_path, of_requests([LOG]))
    files = LogFiles("d/w", tmp_path, 5 * 100_000)
    shown: list[str] = []
    async with running(made, tmp_path) as proxy, Admin(tmp_path / "admin.sock") as admin:
        await proxy.until("/ready", "LIVE")
        asked = Asked(proxy, port)
        load = asyncio.gather(*(asked.ask(*(f"/{n}?x=secret" for n in range(first, COUNT, 8))) for first in range(8)))
        with Follower(tmp_path, "access.log") as reader:
            async with asyncio.timeout(60):
                while len(shown) < COUNT:
                    shown += reader.lines()
                    if files.turn():
                        await files.reopened(admin)
                    await asyncio.sleep(0.01)
            assert reader.lost == 0
        await load
    found = [seen(line) for line in shown]
    assert sorted(int(one.path[1:]) for one in found if one is not None) == list(range(COUNT))
    assert len(generations(tmp_path, "access.log")) > 2
    assert "secret" not in "".join(shown)


async def test_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Broken: requests would wait for, or fail with, a disk that has no room; or nobody would know that lines are missing."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "access.log").symlink_to("/dev/full")
    made, port = logged(tmp_path, of_requests([LOG]))
    async with running(made, tmp_path) as proxy:
        await proxy.until("/ready", "LIVE")
        asked = Asked(proxy, port)
        assert await asked.ask(*["/"] * 100) == [200] * 100
        async with asyncio.timeout(20):
            while not await asked.stat("filesystem.write_failed"):  # noqa: ASYNC110 - Envoy tells nobody
                await asyncio.sleep(0.05)
        assert await asked.ask(*["/"] * 100) == [200] * 100
