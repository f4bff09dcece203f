"""`tulle` commands that do not start from nothing: a process that has everything imported is forked for each.

What a command does is the same, from its arguments and environment to its exit status; the second of work that Python needs to
import what it takes is spent once: the end-to-end tests run a thousand of them. The programs of a mesh, and what tests start in
the background, start as users start them (`TULLE`); and that commands do so is for `tests/unit/cli`.

    tests ──a line of JSON, files for the three streams──▶ server ──fork──▶ command
          ◀────────────── pid, then exit status ──────────
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import pkgutil
import select
import socket
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import IO, Any

_PACKAGES = ("tulle.cli", "tulle.client", "tulle.core.analyze", "tulle.core.compile", "tulle.core.evaluate", "tulle.core.rollout")
_MODULES = ("aiohttp", "yaml", "tulle.app.run", "tulle.app.logs", "tulle.node.capture", "tulle.node.network")


@dataclass
class Ran:
    """A finished command."""

    code: int
    out: str
    err: str

    @property
    def text(self) -> str:
        """Both streams, for messages."""
        return self.out + self.err

    @property
    def completed(self) -> subprocess.CompletedProcess[str]:
        """The same as `subprocess.run` has it."""
        return subprocess.CompletedProcess("", self.code, self.out, self.err)


def run(argv: list[str], env: Mapping[str, str], *, stdin: str | None = None, timeout: float = 120) -> Ran:
    """Run a command to its end."""
    done = subprocess.run(argv, env=dict(env), input=stdin, capture_output=True, text=True, timeout=timeout, check=False)
    return Ran(done.returncode, done.stdout, done.stderr)


def tulle(arguments: Sequence[str], env: Mapping[str, str], *, stdin: str | None = None, timeout: float = 120) -> Ran:
    """Run a `tulle` command to its end. Raises `subprocess.TimeoutExpired`, as `run` does, once it is killed."""
    with contextlib.ExitStack() as stack:
        files = [stack.enter_context(tempfile.TemporaryFile("w+", encoding="utf-8")) for _ in range(4)]
        request, given, out, err = files
        json.dump({"argv": list(arguments), "env": dict(env), "cwd": os.getcwd()}, request)
        given.write(stdin or "")
        for file in (request, given):
            file.flush()
            file.seek(0)
        mine, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with mine:
            with theirs:
                _server().ask([*(file.fileno() for file in files), theirs.fileno()])
            mine.settimeout(timeout)
            pid = int(mine.recv(64))
            try:
                status = os.waitstatus_to_exitcode(int(mine.recv(64)))
            except TimeoutError:
                os.kill(pid, 9)
                raise subprocess.TimeoutExpired(["tulle", *arguments], timeout) from None
        return Ran(status, _whole(out), _whole(err))


def _whole(file: IO[str]) -> str:
    file.seek(0)
    return file.read()


class _Server:
    """The process that is forked. It ends with this one."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            number = theirs.fileno()
            argv = [sys.executable, "-m", __name__, str(number)]
            root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
            subprocess.Popen(argv, pass_fds=[number], cwd=root, start_new_session=True, stdin=subprocess.DEVNULL)

    def ask(self, files: list[int]) -> None:
        with self._lock:
            socket.send_fds(self._socket, [b"x"], files)


@cache
def _server() -> _Server:
    return _Server()


def _serve(control: socket.socket) -> dict[str, Any] | None:
    """Fork for every request until nobody can send another: None then, and in a forked process what it is asked to be."""
    poll = select.poll()
    poll.register(control, select.POLLIN)
    children: dict[int, tuple[int, socket.socket]] = {}  # by the descriptor that tells of their end
    while True:
        for ready, _events in poll.poll():
            if ready in children:
                pid, asked = children.pop(ready)
                poll.unregister(ready)
                os.close(ready)
                with asked, contextlib.suppress(OSError):
                    asked.send(str(os.waitpid(pid, 0)[1]).encode())
                continue
            _word, files, _flags, _address = socket.recv_fds(control, 1, 5)
            if not files:
                return None
            request, *streams, answer = files
            if (pid := os.fork()) == 0:
                control.close()
                for descriptor, (_pid, other) in children.items():
                    os.close(descriptor)
                    other.close()
                os.close(answer)
                return _become(request, streams)
            asked = socket.socket(fileno=answer)
            with contextlib.suppress(OSError):
                asked.send(str(pid).encode())
            for number in (request, *streams):
                os.close(number)
            end = os.pidfd_open(pid)
            children[end] = pid, asked
            poll.register(end, select.POLLIN)


def _become(request: int, streams: list[int]) -> dict[str, Any]:
    with os.fdopen(request, encoding="utf-8") as file:
        wanted: dict[str, Any] = json.load(file)
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", encoding="utf-8", errors="backslashreplace", buffering=1, closefd=False)  # noqa: SIM115
    os.chdir(wanted["cwd"])
    os.environ.clear()
    os.environ.update(wanted["env"])
    return wanted


def _main() -> None:
    for name in _PACKAGES:
        package = importlib.import_module(name)
        for found in pkgutil.walk_packages(package.__path__, f"{name}."):
            importlib.import_module(found.name)
    for name in _MODULES:
        importlib.import_module(name)
    gc.collect()
    gc.freeze()
    wanted = _serve(socket.socket(fileno=int(sys.argv[1])))
    if wanted is None:
        return
    from tulle.cli.main import run as command

    status = 1
    try:
        status = command(wanted["argv"])
    except SystemExit as error:
        status = error.code if isinstance(error.code, int) else int(error.code is not None)
    except BaseException:
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)  # nobody waits for what is left to be taken apart


if __name__ == "__main__":
    _main()
