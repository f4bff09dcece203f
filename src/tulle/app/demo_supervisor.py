"""The process that keeps the demo: starts control plane, node, gateway and sample in order, and restarts what dies.

`python -m tulle.app.demo_supervisor SETTINGS` (JSON). It tells what it does in `demo_state.py`'s file; `demo.py` reads it there.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import aiohttp
import msgspec

from tulle.app import bookinfo, demo_state, run
from tulle.app.settings import DemoSettings
from tulle.client.node_api import NodeClient
from tulle.core.model.workload import Capture
from tulle.kit import paths
from tulle.kit.errors import TulleError

_CONTROL_PLANE, _NODE, _INGRESS, _SERVING = "control plane", "node agent", "ingress gateway", "serving"


class _Program:
    """`tulle control-plane` or `tulle node`, started again when it ends."""

    def __init__(self, name: str, argv: Sequence[str], log: Path) -> None:
        self.name, self.argv, self.log = name, argv, log
        self.child: asyncio.subprocess.Process | None = None
        self.ready = asyncio.Event()

    async def start(self) -> asyncio.subprocess.Process:
        with self.log.open("ab") as log:
            return await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "tulle",
                *self.argv,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    async def keep(self) -> None:
        """Start it, and again with a pause after each end, growing while it does not last."""
        pause = 0.5
        while True:
            began = time.monotonic()
            self.child = await self.start()
            await self.child.wait()
            pause = 0.5 if time.monotonic() - began > 10 else min(pause * 2, 10)
            print(f"{self.name} ended with status {self.child.returncode}; starting it again in {pause:g} s", flush=True)
            await asyncio.sleep(pause)

    async def stop(self, grace: float) -> None:
        if self.child is None or self.child.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            self.child.terminate()
            try:
                async with asyncio.timeout(grace):
                    await self.child.wait()
            except TimeoutError:
                self.child.kill()

    def last_words(self) -> str:
        """The end of its log, for the sentence that says why it did not come up."""
        lines = self.log.read_text(errors="replace").splitlines() if self.log.exists() else []
        return "\n".join(lines[-6:])


class _Supervisor:
    def __init__(self, settings: DemoSettings) -> None:
        self.settings = settings
        self.state_dir, self.runtime_dir = paths.demo_state_dir(), paths.demo_runtime_dir()
        self.socket = self.runtime_dir / "node.sock"
        self.kubeconfig = self.state_dir / "kubeconfig"
        self.cast = bookinfo.parts()
        names = [_CONTROL_PLANE, _NODE, _INGRESS, *(part.spec.name for part in self.cast), _SERVING]
        self.state = demo_state.new(names)
        self.state.api = f"https://127.0.0.1:{settings.api_port}"
        self.began = time.monotonic()
        self.tasks: list[asyncio.Task[Any]] = []
        self.apps: dict[str, run.App] = {}
        self.stopping = False
        api, xds = f"127.0.0.1:{settings.api_port}", f"127.0.0.1:{settings.xds_port}"
        self.token_file = self.state_dir / "join-token"
        self.control_plane = _Program(
            _CONTROL_PLANE,
            [
                "control-plane",
                f"--state-dir={self.state_dir}",
                f"--api-address={api}",
                f"--xds-address={xds}",
                "--trace-sampling=100",
            ],
            self.state_dir / "control-plane.log",
        )
        self.node = _Program(
            _NODE,
            [
                "node",
                "--name=demo",
                "--gateways",
                f"--api-address={api}",
                f"--xds-address={xds}",
                f"--token-file={self.token_file}",
                f"--state-dir={self.state_dir / 'node'}",
                f"--runtime-dir={self.runtime_dir}",
                f"--capture={settings.capture}",
                f"--instance={demo_state.instance()}",
            ],
            self.state_dir / "node.log",
        )

    def tell(self, step: str, state: str, detail: str = "") -> None:
        """Record what happened, for those who watch."""
        row = self.state.step(step)
        row.state, row.detail = state, detail
        demo_state.write(self.state)

    async def start(self) -> None:
        """Everything in order; raises `TulleError` with the reason of the first part that does not come up."""
        demo_state.write(self.state)
        self.tell(_CONTROL_PLANE, "starting")
        self.tasks.append(asyncio.create_task(self.control_plane.keep()))
        await self._until(self._control_plane_ready, self.control_plane)
        self.tell(_CONTROL_PLANE, "ready", self.state.api)
        from tulle.client.api import ApiClient

        async with ApiClient.from_kubeconfig(self.kubeconfig) as api:
            self.tell(_NODE, "starting")
            answer = await api.request("POST", "/tulle/v1/tokens", body={"allow": ["*/*"], "lifetime": 600})
            self.token_file.touch(mode=0o600)
            self.token_file.write_text(answer["token"])
            self.tasks.append(asyncio.create_task(self.node.keep()))
            await asyncio.gather(self._apply(api), self._until(self._node_ready, self.node))
            self.tell(_NODE, "ready", self.state.capture_reason)
            await asyncio.gather(self._start_ingress(), *(self._start_part(part) for part in self.cast))
            self.tell(_SERVING, "starting")
            # Whoever asks earlier is told 503, rightly: the first thing that people would see on the page is a mesh that failed.
            await self._until(self._parts_listen, self.node)
            await api.request("GET", "/tulle/v1/synced", query={"timeout": "20"}, timeout=30)
        await self._until(self._page_serves, None)
        self.state.ingress = f"http://127.0.0.1:{self.settings.ingress_port}/productpage"
        self.state.seconds = time.monotonic() - self.began
        self.state.ready = True
        self.tell(_SERVING, "ready", self.state.ingress)

    async def _until(self, ready: Any, program: _Program | None, limit: float = 60.0) -> None:
        """Ask until it is so; a program that ends meanwhile, or never answers, is the reason of the failure."""
        deadline = time.monotonic() + limit
        while not await ready():
            ended = program is not None and program.child is not None and program.child.returncode is not None
            if ended or time.monotonic() > deadline:
                name = program.name if program else "the product page"
                raise TulleError(f"{name} did not come up", hint=program.last_words() if program else self.node.last_words())
            await asyncio.sleep(0.03)

    async def _control_plane_ready(self) -> bool:
        if not self.kubeconfig.exists():
            return False
        from tulle.client.api import ApiClient

        try:
            async with ApiClient.from_kubeconfig(self.kubeconfig) as api:
                await api.request("GET", "/tulle/v1/status")
        except TulleError:
            return False
        return True

    async def _node_ready(self) -> bool:
        try:
            async with NodeClient(self.socket) as node:
                status = await node.status()
        except TulleError:
            return False
        self.state.capture, self.state.capture_reason = status.capture, status.capture_reason
        if status.capture == Capture.CGROUP:
            self.cast = bookinfo.parts(apart=True)
        return status.connected

    async def _apply(self, api: Any) -> None:
        """The demo's own objects; those of a namespace that is not there yet do not exist in it."""
        from tulle.api.documents import read_documents

        file = bookinfo.samples_dir() / "bookinfo" / "bookinfo.yaml"
        documents, problems = read_documents(file.read_bytes(), str(file))
        if problems:
            raise TulleError(str(problems[0]))
        await api.apply(bookinfo.ingress_service(self.settings.ingress_port), field_manager="tulle")
        for document in documents:
            await api.apply(document.raw, field_manager="tulle")

    async def _start_ingress(self) -> None:
        self.tell(_INGRESS, "starting")
        async with NodeClient(self.socket) as node:
            from tulle.client.node_api import Owner
            from tulle.node.process import this

            owner = this()
            spec = bookinfo.ingress(self.settings.ingress_port)
            await node.add(msgspec.structs.replace(spec, owner=Owner(owner.pid, owner.started)))
        self.tell(_INGRESS, "ready", f"127.0.0.1:{self.settings.ingress_port}")

    async def _start_part(self, part: bookinfo.Part) -> None:
        self.tell(part.spec.name, "starting")
        app = await self._run(part)
        self.tell(part.spec.name, "ready", f"{app.status.address}  {app.status.identity}")
        self.tasks.append(asyncio.create_task(self._keep(part, app)))

    async def _run(self, part: bookinfo.Part) -> run.App:
        search = [str(bookinfo.samples_dir()), *filter(None, [os.environ.get("PYTHONPATH")])]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(search), "PYTHONDONTWRITEBYTECODE": "1"}
        with (self.state_dir / f"{part.spec.name}.log").open("ab") as log:
            app = await run.start(
                part.spec,
                part.argv,
                env=environment,
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                new_session=True,
                socket=self.socket,
            )
        self.apps[part.spec.name] = app
        self.state.pids[part.spec.name] = app.pid
        return app

    async def _keep(self, part: bookinfo.Part, app: run.App) -> None:
        """A workload that ends is started again, as an orchestrator would."""
        while not self.stopping:
            code = await app.wait()
            if self.stopping:
                return
            self.tell(part.spec.name, "starting", f"ended with status {code}; starting it again")
            while True:
                await asyncio.sleep(0.5)
                try:
                    app = await self._run(part)
                except TulleError as error:
                    self.tell(part.spec.name, "failed", error.message)
                    continue
                break
            self.tell(part.spec.name, "ready", f"{app.status.address}  {app.status.identity}")

    async def _parts_listen(self) -> bool:
        async with NodeClient(self.socket) as node:
            return all(one.ready for one in (await node.status()).workloads)

    async def _page_serves(self) -> bool:
        """The whole path answers: gateway, productpage, and every version of reviews behind it, with both halves of the page."""
        base = f"http://127.0.0.1:{self.settings.ingress_port}"
        try:
            async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=5)) as session:
                for path in ("/productpage", "/api/v1/products/0", "/api/v1/products/0/reviews", "/api/v1/products/0/ratings"):
                    async with session.get(base + path) as response:
                        text = await response.text()
                        if response.status != 200 or "currently unavailable" in text:
                            return False
        except (aiohttp.ClientError, TimeoutError):
            return False
        return True

    async def load(self) -> None:
        """A steady trickle of page views through the ingress, for people who want something to look at."""
        url = f"http://127.0.0.1:{self.settings.ingress_port}/productpage"
        pending: set[asyncio.Task[None]] = set()
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=10)) as session:

            async def view() -> None:
                with contextlib.suppress(aiohttp.ClientError, TimeoutError):
                    async with session.get(url) as response:
                        await response.read()

            due = time.monotonic()
            while True:
                due += 1 / self.settings.load
                await asyncio.sleep(max(0, due - time.monotonic()))
                if len(pending) < 200:
                    task = asyncio.create_task(view())
                    pending.add(task)
                    task.add_done_callback(pending.discard)

    async def stop(self) -> None:
        """Applications first, then the node with its namespaces, then the control plane."""
        self.stopping = True
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        with contextlib.suppress(TulleError, TimeoutError, OSError):
            async with asyncio.timeout(20), NodeClient(self.socket) as node:
                await node.shutdown(teardown=True)
        await self.node.stop(5)
        await self.control_plane.stop(5)


async def supervise(settings: DemoSettings) -> int:
    """Run until SIGTERM; exit status 1 where the start failed (the reason is in the state file)."""
    loop = asyncio.get_running_loop()
    asked = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, asked.set)
    loop.add_signal_handler(signal.SIGHUP, lambda: None)
    supervisor = _Supervisor(settings)
    starting = asyncio.create_task(supervisor.start())
    stop = asyncio.create_task(asked.wait())
    status = 0
    try:
        await asyncio.wait((starting, stop), return_when=asyncio.FIRST_COMPLETED)
        if starting.done():
            try:
                starting.result()
            except TulleError as error:
                supervisor.state.error, supervisor.state.hint, status = error.message, error.hint, 1
                demo_state.write(supervisor.state)
            else:
                if settings.load > 0:
                    supervisor.tasks.append(asyncio.create_task(supervisor.load()))
                await stop
    finally:
        starting.cancel()
        await supervisor.stop()
    return status


def main() -> int:
    """The process."""
    import uvloop

    return uvloop.run(supervise(msgspec.json.decode(sys.argv[1], type=DemoSettings)))


if __name__ == "__main__":
    sys.exit(main())
