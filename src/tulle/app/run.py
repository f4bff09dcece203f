"""`tulle run` and `tulle exec`: a process in the mesh, through the node agent of this host.

The agent makes the sandbox and the sidecar; the application itself is a child of the caller, so that its terminal, its standard
streams, its signals and its exit code are what they would be without a mesh. The demo starts its sample through `start` as well.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import pwd
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO

import msgspec

from tulle.app.notify import notify
from tulle.app.private_node import node_agent
from tulle.client.node_api import DRAIN, NodeClient, NodeError, Owner, WorkloadSpec, WorkloadStatus
from tulle.kit.errors import TulleError, Unavailable
from tulle.node.process import this

_FOR_US = {"NOTIFY_SOCKET"}  # systemd takes messages of its main process only, and that is not the application
Stream = int | IO[bytes] | None

FORWARDED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)
ENDING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)  # before these, callers are told to go elsewhere
_TOLD = 2.0  # seconds at most until callers know
FROM_TERMINAL = (signal.SIGINT, signal.SIGQUIT)  # a terminal sends these to the application too


class App:
    """A running application and its place in the mesh. Made by `start`."""

    def __init__(
        self, status: WorkloadStatus, child: asyncio.subprocess.Process, socket: Path | None, drain: float = DRAIN
    ) -> None:
        self.status = status
        self.child = child
        self._socket = socket
        self._leave = _TOLD + drain
        self._withdrawn: asyncio.Task[None] | None = None
        self._leaving = False

    @property
    def id(self) -> str:
        """`namespace/name`."""
        return self.status.id

    @property
    def pid(self) -> int:
        """The application's process."""
        return self.child.pid

    async def wait(self) -> int:
        """Until the application has ended and its proxy has drained and gone; the exit code as a shell has it (128+n)."""
        code = await self.child.wait()
        await self._remove()
        return code if code >= 0 else 128 - code

    def send(self, number: int) -> None:
        """Signal the application. Before the first that ends it, callers are told and what is under way ends."""
        if number not in ENDING or self._leaving:
            self._deliver(number)
            return
        self._leaving = True
        self._withdrawn = asyncio.ensure_future(self._withdraw_then(number))

    async def stop(self, grace: float = 10.0) -> int:
        """Leave the mesh in good order: callers are told, what is under way ends, SIGTERM, `grace` seconds, SIGKILL.

        The exit code as `wait` has it.
        """
        self.send(signal.SIGTERM)
        try:
            async with asyncio.timeout(self._leave + grace):
                await self.child.wait()
        except TimeoutError:
            self._deliver(signal.SIGKILL)
        return await self.wait()

    def _deliver(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            self.child.send_signal(number)

    async def _withdraw_then(self, number: int) -> None:
        with contextlib.suppress(TulleError, TimeoutError):
            async with asyncio.timeout(self._leave), NodeClient(self._socket) as node:
                await node.withdraw(self.id, timeout=self._leave)
        self._deliver(number)

    async def _remove(self) -> None:
        """An agent that is away for a moment is waited for; one that stays away sees when it returns that the owner is gone."""
        if self._withdrawn is not None:
            self._withdrawn.cancel()
        for attempt in range(5):
            try:
                async with NodeClient(self._socket) as node:
                    await node.remove(self.id, timeout=60 + self._leave)
                return
            except Unavailable:
                await asyncio.sleep(0.2 * 2**attempt)
            except NodeError:
                return


async def start(
    spec: WorkloadSpec,
    argv: Sequence[str],
    *,
    env: Mapping[str, str] | None = None,
    cwd: str = "",
    stdin: Stream = None,
    stdout: Stream = None,
    stderr: Stream = None,
    new_session: bool = False,
    socket: Path | None = None,
    timeout: float = 30.0,
    uid: int | None = None,
    gid: int | None = None,
) -> App:
    """Put a workload in the mesh and, once its proxy serves, start its application inside.

    The calling process owns the workload: when it dies, however it dies, the agent clears both away. `env` is the environment
    (default: this process's); `socket` the agent's (default: the host's); `uid` and `gid`, as root, whom to run as. Raises
    `Unavailable` where no agent answers, `NodeError` where it cannot, `TulleError` where the command does not start. Many may run
    in one process.
    """
    owner = this()
    owned = msgspec.structs.replace(spec, owner=Owner(owner.pid, owner.started))
    async with NodeClient(socket) as node:
        status = await node.add(owned, timeout=timeout)
        try:
            command = await node.command(spec.id, argv, os.environ if env is None else env, uid=uid, gid=gid)
            child = await asyncio.create_subprocess_exec(
                *command.argv,
                env=command.env,
                cwd=cwd or None,
                stdin=stdin,
                stdout=stdout,
                stderr=stderr,
                start_new_session=new_session,
            )
        except BaseException as error:
            with contextlib.suppress(TulleError):
                await node.remove(spec.id, drain=False)
            if isinstance(error, OSError):
                raise TulleError(f"{argv[0]}: {error.strerror or error}") from error
            raise
    return App(status, child, socket, spec.drain)


async def run_workload(
    spec: WorkloadSpec, argv: Sequence[str], *, socket: Path | None = None, user: pwd.struct_passwd | None = None
) -> int:
    """`tulle run`: start it, pass signals on, and return its exit code (128+n where signal n ended it).

    `user`: as root, whom to run it as, in an environment as of a login. Systemd hears when it has started. Where no agent runs on
    this machine, one is started for it (`private_node.py`).
    """
    async with node_agent(socket) as agent:
        environment = {name: value for name, value in os.environ.items() if name not in _FOR_US}
        if user is not None:
            environment |= {"HOME": user.pw_dir, "USER": user.pw_name, "LOGNAME": user.pw_name, "SHELL": user.pw_shell}
        uid, gid = (user.pw_uid, user.pw_gid) if user else (None, None)
        app = await start(spec, argv, env=environment, socket=agent, uid=uid, gid=gid)
        notify("READY=1")
        with _signals(app.send):
            return await app.wait()


async def exec_in(workload: str, argv: Sequence[str], *, socket: Path | None = None) -> int:
    """`tulle exec`: a command in the network of a workload (NAME or NAMESPACE/NAME), on this terminal; returns its exit code."""
    where = workload if "/" in workload else f"default/{workload}"
    async with NodeClient(socket) as node:
        command = await node.command(where, argv, os.environ)
    try:
        child = await asyncio.create_subprocess_exec(*command.argv, env=command.env)
    except OSError as error:
        raise TulleError(f"{argv[0]}: {error.strerror or error}") from error

    def deliver(number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            child.send_signal(number)

    with _signals(deliver):
        code = await child.wait()
    return code if code >= 0 else 128 - code


@contextlib.contextmanager
def _signals(deliver: Callable[[int], None]) -> Iterator[None]:
    """Pass signals on, except those that the terminal has sent to the application already."""
    loop = asyncio.get_running_loop()
    shared = sys.stdin.isatty() and os.tcgetpgrp(sys.stdin.fileno()) == os.getpgrp()
    for number in FORWARDED:
        if shared and number in FROM_TERMINAL:
            loop.add_signal_handler(number, lambda: None)
        else:
            loop.add_signal_handler(number, deliver, number)
    try:
        yield
    finally:
        for number in FORWARDED:
            loop.remove_signal_handler(number)
