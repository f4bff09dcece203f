"""A real Envoy under supervision, without a control plane."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tulle.core.envoy.bootstrap import Options, bootstrap
from tulle.node.ads import Feed
from tulle.node.cache import Cache
from tulle.node.envoy import LOG_BYTES, Envoy
from tulle.node.process import INSTANCE, Process, process
from tulle.node.supervision import State
from tulle.xds.client import Upstream

ME = "default/test"
LIMIT = 20.0


class Rig:
    """An Envoy that is served an empty configuration, so that it gets ready."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.moves: list[State] = []
        self.upstream = Upstream(f"unix:{folder}/nobody.sock")
        self.feed = Feed(ME, self.upstream, empty(), folder / "cache.bin", folder / "xds.sock")
        self.envoy = Envoy(ME, folder, folder / "admin.sock", list, {INSTANCE: "test"}, self._moved)
        options = Options(
            node_id=ME,
            cluster="test.default",
            xds_socket=str(folder / "xds.sock"),
            admin_socket=str(folder / "admin.sock"),
            health_port=0,
            metrics_port=0,
        )
        self.envoy.configure(bootstrap(options))

    def _moved(self) -> None:
        if not self.moves or self.moves[-1] is not self.envoy.state:
            self.moves.append(self.envoy.state)

    async def ready(self) -> Process:
        assert await self.envoy.until(State.READY, timeout=LIMIT), self.envoy.last_words()
        assert self.envoy.process is not None
        return self.envoy.process


def empty() -> Cache:
    """A cache to which the control plane has said that there is nothing."""
    from tulle.core import type_urls
    from tulle.node.cache import ALL

    cache = Cache(ME)
    for type_url in (type_urls.CLUSTER, type_urls.LISTENER):
        cache.want(type_url, [ALL])
        cache.take(type_url, "1", [], [])
    return cache


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    made = Rig(tmp_path)
    await made.feed.start()
    yield made
    running = made.envoy.process
    await made.envoy.stop(0)
    assert running is None or not running.alive, "nothing may be left"
    await made.feed.close()
    await made.upstream.close()


async def test_starts_serves_and_goes(rig: Rig) -> None:
    """No workload would come up, or its Envoy would stay when the workload goes."""
    rig.envoy.start()
    running = await rig.ready()
    assert b"default/test" in (await rig.envoy.admin.get("/config_dump"))[1]
    assert (rig.folder / "admin.sock").stat().st_mode & 0o777 == 0o600, "the admin interface is for this user only"
    assert (rig.folder / "xds.sock").stat().st_mode & 0o777 == 0o600
    await rig.envoy.stop(drain=5)
    assert not running.alive
    assert rig.moves == [State.STARTING, State.READY, State.DRAINING, State.STOPPING, State.STOPPED]


async def test_a_crash_is_repaired(rig: Rig) -> None:
    """A sidecar that dies would stay dead."""
    rig.envoy.start()
    first = await rig.ready()
    first.send(signal.SIGKILL)
    assert await rig.envoy.until(State.STARTING, timeout=LIMIT)
    second = await rig.ready()
    assert second != first
    assert rig.envoy.restarts == 1


async def test_a_frozen_envoy_is_killed(rig: Rig) -> None:
    """An Envoy that no longer reacts would keep its workload from going."""
    rig.envoy.start()
    running = await rig.ready()
    running.send(signal.SIGSTOP)
    await rig.envoy.stop(drain=0.1)
    assert not running.alive


async def test_log_level_without_a_restart(rig: Rig) -> None:
    """Looking closer at a misbehaving sidecar would take a restart, after which it behaves."""
    rig.envoy.start()
    running = await rig.ready()
    await rig.envoy.set_level("debug")
    assert b"admin: debug" in await rig.envoy.admin.post("/logging")
    assert (await rig.ready()) == running


async def test_a_log_cannot_fill_the_disk(rig: Rig) -> None:
    """A talkative Envoy would fill the disk, or lose its log while it runs."""
    rig.envoy.start()
    await rig.ready()
    with rig.envoy.log.open("ab") as log:
        log.write(b"old\n" * (LOG_BYTES // 4) + b"new\n" * 100)
    rig.envoy.trim_log()
    assert rig.envoy.log.stat().st_size <= LOG_BYTES // 2
    assert rig.envoy.log.read_bytes().endswith(b"new\n")
    await rig.envoy.set_level("info")
    await rig.envoy.admin.post("/logging?level=debug")
    await rig.envoy.admin.get("/ready")
    data = rig.envoy.log.read_bytes()
    assert b"\0" not in data, "Envoy goes on at the file's new end"


async def test_one_that_cannot_start_backs_off_and_says_why(rig: Rig) -> None:
    """A broken bootstrap would burn a CPU, and nobody would learn the reason."""
    (rig.folder / "bootstrap.json").write_text('{"admin": {"no_such_field": 1}}')
    rig.envoy.start()
    assert await rig.envoy.until(State.WAITING, timeout=LIMIT)
    assert "no_such_field" in rig.envoy.last_words()


async def test_taken_over_after_a_kill(rig: Rig) -> None:
    """An agent that is killed would take its sidecars' supervision with it, or a second Envoy would be started beside the first.

    The first agent is a process of its own, killed with -9; its Envoy goes on, and this process takes it over.
    """
    program = textwrap.dedent(
        """
        import asyncio, sys
        from pathlib import Path
        from tulle.node.envoy import Envoy
        from tulle.node.supervision import State
        async def main(folder):
            envoy = Envoy("default/test", folder, folder / "admin.sock", list, {"TULLE_INSTANCE": "test"}, lambda: None)
            envoy.start()
            assert await envoy.until(State.READY, timeout=20)
            print(envoy.process.pid, flush=True)
            await asyncio.Event().wait()
        asyncio.run(main(Path(sys.argv[1])))
        """
    )
    former = subprocess.Popen([sys.executable, "-c", program, str(rig.folder)], stdout=subprocess.PIPE)
    assert former.stdout is not None
    line = await asyncio.to_thread(former.stdout.readline)
    former.stdout.close()
    running = process(int(line))
    assert running is not None
    os.kill(former.pid, signal.SIGKILL)
    former.wait()
    assert running.alive, "it does not depend on the agent"
    rig.envoy.adopt(running)
    assert await rig.ready() == running
    running.send(signal.SIGKILL)
    assert await rig.envoy.until(State.STARTING, timeout=LIMIT)
    assert await rig.ready() != running
