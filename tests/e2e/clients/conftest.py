"""A served API with its controllers, for the tests of real clients; and each kubectl of the machine over it.

The API server runs in a thread with a store in SQLite; nothing else of the mesh is needed. Every kubectl of the machine that is
not older than 1.24 is tried: the one that the tests install, and the system's.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.apiserver import running
from tests.support.kubectl import Kubectl, kubectls
from tulle.control.events import Events
from tulle.control.garbage import GarbageCollector
from tulle.control.store.memory import MemoryStore
from tulle.control.store.sqlite import SqliteStore
from tulle.ports import Store


@contextlib.contextmanager
def serving(folder: Path, store: Callable[[], Store]) -> Iterator[Path]:
    """The kubeconfig of an API that is served in a thread."""
    ready, stop = threading.Event(), asyncio.Event()
    loop = asyncio.new_event_loop()

    async def serve() -> None:
        async with running(store()) as served:
            garbage = GarbageCollector(served.store, served.server.objects, Events(served.store, time.time))
            collecting = asyncio.create_task(garbage.run())
            served.write_kubeconfig(folder / "kubeconfig")
            ready.set()
            await stop.wait()
            collecting.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await collecting

    thread = threading.Thread(target=lambda: loop.run_until_complete(serve()))
    thread.start()
    try:
        assert ready.wait(30)
        yield folder / "kubeconfig"
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(30)
        assert not thread.is_alive()
        loop.close()


@pytest.fixture(scope="session")
def kubeconfig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The API that the tests share."""
    folder = tmp_path_factory.mktemp("api")
    with serving(folder, lambda: SqliteStore(folder / "store.db")) as config:
        yield config


@pytest.fixture
def short_log(tmp_path: Path) -> Iterator[Path]:
    """An API that forgets revisions soon."""
    with serving(tmp_path, lambda: MemoryStore(log=10)) as config:
        yield config


@pytest.fixture(params=kubectls() or [""], ids=lambda path: "own" if "venv" in path else path)
def kubectl(request: pytest.FixtureRequest, kubeconfig: Path, tmp_path: Path) -> Iterator[Kubectl]:
    """A kubectl whose default namespace is empty before and after the test."""
    if not request.param:
        pytest.skip("there is no kubectl")
    command = Kubectl(request.param, kubeconfig, tmp_path)
    yield command
    command("delete", "vs,dr,gw,we,pa,svc,sa,cm,secret,httproutes,gtw,roles,rolebindings,events", "--all", "--wait=false")
