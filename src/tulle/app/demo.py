"""`tulle demo up`, `status`, `down`: the person's side of the demo.

The demo itself is kept by a supervisor process of its own (`demo_supervisor.py`), so that it outlives the shell that started
it; this module starts it, shows what it says of itself, and clears everything away, also after a kill -9 of anything.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import msgspec

from tulle.app import demo_state, preflight
from tulle.app.demo_state import DemoState
from tulle.app.settings import DemoSettings
from tulle.kit import paths
from tulle.kit.errors import Refused, TulleError
from tulle.node import capture, process

Show = Callable[[DemoState], None]
_START_LIMIT = 120.0  # seconds; the first start on a slow machine, with cold caches


async def up(settings: DemoSettings, show: Show) -> DemoState:
    """Start the demo and return once everything serves; `show` is called with every change on the way.

    Raises `Refused` where a demo runs already, a port is taken or a privilege is missing (before anything is started), and
    `TulleError` with the reason where a part did not come up; nothing is left behind then.
    """
    _refuse_second()
    preflight.check_envoy()
    for name, port in (("ingress", settings.ingress_port), ("API server", settings.api_port), ("xDS server", settings.xds_port)):
        preflight.check_port("127.0.0.1", port, name)
    if settings.capture != "auto":
        await _check_capture(settings.capture)
    await _clear()
    runtime, state_dir = paths.demo_runtime_dir(), paths.demo_state_dir()
    for folder in (runtime, state_dir):
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    log = (state_dir / "supervisor.log").open("ab")
    environment = {**os.environ, process.INSTANCE: demo_state.instance(), "GRPC_ENABLE_FORK_SUPPORT": "0"}
    with log:
        child = subprocess.Popen(  # noqa: ASYNC220 - it outlives this loop
            [sys.executable, "-m", "tulle.app.demo_supervisor", msgspec.json.encode(settings).decode()],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=environment,
            start_new_session=True,
        )
    try:
        return await _watch(child, show)
    except BaseException as error:
        kept = await asyncio.to_thread(_keep_logs)
        await asyncio.shield(down())
        if isinstance(error, TulleError):
            error.hint = "\n".join(filter(None, [error.hint, f"all logs: {kept}"]))
        raise


def _keep_logs() -> Path:
    """The logs of a start that failed, in a folder that outlives it; those of the failure before are replaced."""
    kept = paths.state_dir() / "demo-failed"
    shutil.rmtree(kept, ignore_errors=True)
    shutil.copytree(paths.demo_state_dir(), kept, ignore=_only_logs, ignore_dangling_symlinks=True, dirs_exist_ok=True)
    return kept


def _only_logs(folder: str, names: list[str]) -> list[str]:
    return [name for name in names if (not name.endswith(".log") and not (Path(folder) / name).is_dir()) or name == "ca"]


async def _watch(child: subprocess.Popen[bytes], show: Show) -> DemoState:
    """Follow the supervisor's state until it is ready; raises `TulleError` where it failed or ended."""
    deadline = asyncio.get_running_loop().time() + _START_LIMIT
    while asyncio.get_running_loop().time() < deadline:
        state = demo_state.read()
        if state is not None:
            show(state)
            if state.error:
                raise TulleError(state.error, hint=state.hint)
            if state.ready:
                return state
        if child.poll() is not None:
            tail = _tail()
            raise TulleError(f"the demo's supervisor ended with status {child.returncode}", hint=tail)
        await asyncio.sleep(0.05)
    raise TulleError(f"the demo was not ready within {_START_LIMIT:g} s", hint=_tail())


def _tail() -> str:
    log = paths.demo_state_dir() / "supervisor.log"
    lines = log.read_text(errors="replace").splitlines() if log.exists() else []
    return "\n".join(["its last words:", *lines[-8:]]) if lines else f"see {log}"


async def _check_capture(wanted: str) -> None:
    """Try what was asked for by name; raises `Refused` with what is missing."""
    with tempfile.TemporaryDirectory(prefix="tulle-") as folder:
        await capture.choose(wanted, instance=demo_state.instance(), folder=Path(folder))


def _refuse_second() -> None:
    """Two demos would trample each other: say what runs."""
    state = demo_state.read()
    if state is not None and state.supervisor.alive:
        where = state.ingress or "still starting"
        raise Refused(
            f"a demo is running already: {where}, supervisor pid {state.supervisor.pid}",
            hint="`tulle demo status` shows it, `tulle demo down` stops it",
        )


async def stay(show: Show) -> None:
    """Until interrupted (SIGINT, SIGTERM) or until the demo ends by itself, then take it down: `demo up` without --detach."""
    loop = asyncio.get_running_loop()
    over = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, over.set)
    state = demo_state.read()
    if state is not None:
        ended = asyncio.ensure_future(state.supervisor.ended())
        asked = asyncio.ensure_future(over.wait())
        await asyncio.wait((ended, asked), return_when=asyncio.FIRST_COMPLETED)
        ended.cancel()
        asked.cancel()
    await down()


def status() -> DemoState | None:
    """The demo as its supervisor last told; None where there is none. A supervisor that died shows in `error`."""
    state = demo_state.read()
    if state is not None and not state.supervisor.alive and not state.error:
        state.error = f"the demo's supervisor (pid {state.supervisor.pid}) is gone"
        state.hint = "`tulle demo down` clears away what it left"
        state.ready = False
    return state


async def down() -> bool:
    """Stop everything and remove every trace; True where there was something. Idempotent."""
    state = demo_state.read()
    had = state is not None or bool(await asyncio.to_thread(process.carrying, demo_state.instance()))
    if state is not None and state.supervisor.send(signal.SIGTERM):
        try:
            async with asyncio.timeout(30):
                await state.supervisor.ended()
        except TimeoutError:
            state.supervisor.send(signal.SIGKILL)
    await _clear()
    return had


async def _clear() -> None:
    """Remove what a demo may have left: processes by what they carry, then network, then folders."""
    from tulle.node.network import teardown_instance

    own = demo_state.instance()
    await process.end(await asyncio.to_thread(process.carrying, own), grace=3)
    await teardown_instance(own, paths.demo_runtime_dir() / "node")
    for folder in (paths.demo_runtime_dir(), paths.demo_state_dir()):
        await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)
