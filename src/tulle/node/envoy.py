"""One Envoy: the shell around `supervision.py`. Starts it in its sandbox, watches and drains it, asks it over its admin socket.

It is not tied to the agent's life: it runs on when the agent ends, and the next agent adopts it by pid and start time. Hot
restart is off, so that there is no shared memory and no base id to collide or to be left behind.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import aiohttp
import msgspec
import structlog

from tulle.client.node_api import DRAIN
from tulle.kit.errors import Unavailable
from tulle.node import supervision
from tulle.node.cache import write_private
from tulle.node.process import Process, process
from tulle.node.supervision import State, Supervision
from tulle.pb.binary import envoy_path

log = structlog.get_logger("tulle.node")

LEVELS = ("trace", "debug", "info", "warning", "error", "critical", "off")
LOG_BYTES = 4 << 20  # of Envoy's own log; half of it is kept when it is full
_INBOUND = ("http.inbound", "tcp.inbound")  # names of statistics of what comes into the workload, in lower case
_FLUSH = 1000  # milliseconds that a line of an access log waits, at most, to be written
_POLL = 0.02  # seconds between two looks at an Envoy that starts or drains


# What Envoy runs with, endpoints too.
CONFIG_DUMP = "/config_dump?include_eds"


class Admin:
    """Envoy's administration over its Unix socket. Raises `Unavailable` where Envoy does not answer."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._session: aiohttp.ClientSession | None = None

    async def get(self, path: str) -> tuple[int, bytes]:
        """Status and body."""
        return await self._ask("GET", path)

    async def post(self, path: str) -> bytes:
        """The body of a command's answer; `Unavailable` where it was refused."""
        status, body = await self._ask("POST", path)
        if status != 200:
            raise Unavailable(f"Envoy answered {path} with status {status}")
        return body

    async def live(self) -> bool:
        """Whether every listener that Envoy waited for is there."""
        try:
            return (await self.get("/ready"))[0] == 200
        except Unavailable:
            return False

    async def busy(self, *, inbound: bool = False) -> int:
        """Requests under way, and connections where there are no requests (TCP); `inbound`: only those into the workload."""
        _, body = await self.get("/stats?format=json&filter=(^http%5C..*downstream_rq_active$%7C^tcp%5C..*downstream_cx_active$)")
        stats = msgspec.json.decode(body, type=dict[str, list[dict[str, Any]]])["stats"]
        return sum(
            int(it.get("value", 0))
            for it in stats
            if not (name := it.get("name", "")).startswith(("http.admin.", "http.health.", "http.metrics."))
            and (not inbound or name.lower().startswith(_INBOUND))
        )

    async def close(self) -> None:
        """Let go of the socket."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def __aenter__(self) -> Admin:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.close()

    async def _ask(self, method: str, path: str) -> tuple[int, bytes]:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.UnixConnector(str(self.path)), timeout=aiohttp.ClientTimeout(total=20, connect=2)
            )
        try:
            from yarl import URL

            async with self._session.request(method, URL(f"http://envoy{path}", encoded=True)) as response:
                return response.status, await response.read()
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise Unavailable(f"Envoy's admin socket {self.path} does not answer") from error


class Envoy:
    """One supervised Envoy. `changed` is called after every step of its life, in the event loop.

    `folder` keeps its bootstrap and log; `admin` is its admin socket. `command` puts its argument list into the sandbox.
    """

    def __init__(
        self,
        name: str,
        folder: Path,
        admin: Path,
        command: Callable[[Sequence[str]], list[str]],
        environment: Mapping[str, str],
        changed: Callable[[], None],
        policy: supervision.Policy | None = None,
    ) -> None:
        self.name, self.folder = name, folder
        self.admin = Admin(admin)
        self.process: Process | None = None
        self.level = "warning"
        self.drain = DRAIN  # seconds: also what connections have whose listener is changed
        self._command, self._environment, self._changed = command, dict(environment), changed
        self._life = Supervision(policy)
        self._spawning = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._watching: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._moved = asyncio.Event()

    @property
    def state(self) -> State:
        """Where it is."""
        return self._life.state

    @property
    def answers(self) -> bool:
        """Whether there is an Envoy to ask: not one that has ended, whose administration nobody would let go of again."""
        return self.state in (State.STARTING, State.READY, State.DRAINING)

    @property
    def restarts(self) -> int:
        """How often it was started again after ending by itself."""
        return self._life.restarts

    @property
    def log(self) -> Path:
        """What it writes to standard output and standard error."""
        return self.folder / "envoy.log"

    def configure(self, bootstrap: Mapping[str, Any]) -> None:
        """Write the bootstrap that the next start reads. Blocks shortly."""
        write_private(self.folder / "bootstrap.json", msgspec.json.encode(bootstrap))

    def start(self) -> None:
        """From now on it is to run."""
        self._feed(supervision.Start())

    def adopt(self, running: Process) -> None:
        """Take over what an earlier agent started; if it has ended meanwhile that is a crash like any other."""
        self.process = running
        self._feed(supervision.Adopt())
        self._spawn_task(self._watch_end(running, None))

    async def until(self, *states: State, timeout: float) -> bool:
        """Wait until it is in one of the states; False where it is not within `timeout` seconds."""
        try:
            async with asyncio.timeout(timeout):
                while self.state not in states:
                    self._moved.clear()
                    await self._moved.wait()
        except TimeoutError:
            return False
        return True

    async def stop(self, drain: float) -> None:
        """Drain for at most so many seconds, then end it, whatever that takes."""
        self._feed(supervision.Drain(drain))
        await self.until(State.STOPPED, timeout=drain + 3 * self._life.policy.terminate + 5)
        await self.close()

    async def close(self) -> None:
        """Let go of it without touching it: it runs on, for the next agent."""
        if self._timer is not None:
            self._timer.cancel()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.admin.close()

    async def set_level(self, level: str) -> None:
        """Envoy's log level, at once and for later starts."""
        self.level = level
        await self.admin.post(f"/logging?level={level}")

    def trim_log(self) -> None:
        """Keep the log's size bounded: when it is full its newer half stays. Blocks shortly."""
        with contextlib.suppress(FileNotFoundError):
            if self.log.stat().st_size <= LOG_BYTES:
                return
            with self.log.open("r+b") as file:  # Envoy appends to this very file, so it is cut in place
                file.seek(-LOG_BYTES // 2, os.SEEK_END)
                kept = file.read()
                file.seek(0)
                file.truncate()
                file.write(kept[kept.find(b"\n") + 1 :])

    def last_words(self) -> str:
        """The last error in its log, for the sentence that says why it does not come up."""
        try:
            with self.log.open("rb") as file:
                file.seek(max(0, self.log.stat().st_size - 8192))
                lines = file.read().decode(errors="replace").splitlines()
        except OSError:
            return ""
        wrong = [line for line in lines if "[critical]" in line or "[error]" in line]
        return (wrong or lines or [""])[-1].strip()

    # Events in, actions out.

    def _feed(self, event: supervision.Event) -> None:
        before = self.state
        for action in self._life.feed(event, time.monotonic()):
            self._do(action)
        if self.state is not before:
            self._moved.set()
            self._changed()

    def _do(self, action: supervision.Action) -> None:
        match action:
            case supervision.Spawn():
                self._spawn_task(self._spawn())
            case supervision.Watch():
                self._cancel_watching()
                self._watching = self._spawn_task(self._watch_ready())
            case supervision.BeginDrain():
                self._cancel_watching()
                self._watching = self._spawn_task(self._drain())
            case supervision.Terminate():
                self._cancel_watching()
                self._signal(signal.SIGTERM)
            case supervision.Kill():
                self._signal(signal.SIGKILL)
            case supervision.Wake(at):
                if self._timer is not None:
                    self._timer.cancel()
                delay = max(0.0, at - time.monotonic())
                self._timer = asyncio.get_running_loop().call_later(delay, self._feed, supervision.Elapsed())
            case supervision.Crashed(status, count, delay):
                self._cancel_watching()
                log.warning(
                    "Envoy ended by itself",
                    workload=self.name,
                    status=status,
                    times=count,
                    again_in=delay,
                    said=self.last_words(),
                )
            case supervision.Gone():
                self._cancel_watching()
                self.process = None

    def _spawn_task(self, work: Any) -> asyncio.Task[None]:
        task: asyncio.Task[None] = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _cancel_watching(self) -> None:
        if self._watching is not None:
            self._watching.cancel()
            self._watching = None

    def _signal(self, number: int) -> None:
        if self.process is not None:
            self.process.send(number)  # where it has ended just now, that news is on its way
        elif not self._spawning:
            self._feed(supervision.Exited(None))

    async def _spawn(self) -> None:
        argv: list[str] = [
            str(envoy_path()),
            "--config-path",
            str(self.folder / "bootstrap.json"),
            "--concurrency",
            "1",
            "--disable-hot-restart",
            "--log-level",
            self.level,
            "--drain-time-s",
            str(max(1, math.ceil(self.drain))),
            "--drain-strategy",
            "immediate",
            "--file-flush-interval-msec",
            str(_FLUSH),
        ]
        self._spawning = True
        try:
            child = await asyncio.to_thread(self._start, self._command(argv))
        except OSError as error:
            log.error("Envoy could not be started", workload=self.name, error=str(error))
            self._spawning = False
            self._feed(supervision.Exited(127))
            return
        self.process = process(child.pid)
        self._spawning = False
        self._changed()
        if self.state is State.STOPPING:  # no longer wanted by the time it had started
            self._signal(signal.SIGKILL)
        await self._watch_end(self.process, child)

    def _start(self, argv: Sequence[str]) -> subprocess.Popen[bytes]:
        # A socket that a killed Envoy left is in the way of the next.
        self.admin.path.unlink(missing_ok=True)
        descriptor = os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            return subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=descriptor,
                stderr=descriptor,
                env=self._environment,
                cwd=self.folder,  # where its access logs are, which only this user may read
                umask=0o077,
                start_new_session=True,  # the terminal's signals are for the agent
            )
        finally:
            os.close(descriptor)

    async def _watch_end(self, running: Process | None, child: subprocess.Popen[bytes] | None) -> None:
        if running is not None:
            await running.ended()
        status = None
        if child is not None:
            status = child.wait()  # it has ended: this only reaps it
        await self.admin.close()  # its connections went with the process
        self.process = None
        self._feed(supervision.Exited(status))

    async def _watch_ready(self) -> None:
        while not await self.admin.live():  # noqa: ASYNC110 - Envoy tells nobody; it has to be asked
            await asyncio.sleep(_POLL)
        self._watching = None
        self._feed(supervision.Live())

    async def quiet(self, seconds: float) -> None:
        """Connections to it are told to end; return when nothing that came in is under way, or so many seconds are over."""
        with contextlib.suppress(TimeoutError, Unavailable):
            async with asyncio.timeout(seconds):
                await self._until_quiet(inbound=True)

    async def _until_quiet(self, *, inbound: bool = False) -> None:
        await self.admin.post("/healthcheck/fail")
        await self.admin.post("/drain_listeners?graceful&inboundonly")
        quiet = 0
        while quiet < 2:
            await asyncio.sleep(5 * _POLL)
            quiet = quiet + 1 if await self.admin.busy(inbound=inbound) == 0 else 0

    async def _drain(self) -> None:
        try:
            await self._until_quiet()
        except Unavailable:
            return  # it is ending, or it hangs: the drain's own time ends that
        self._watching = None
        self._feed(supervision.Idle())
