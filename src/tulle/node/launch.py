"""Starts a program inside a sandbox: `python -I -S launch.py SPEC PROGRAM ARGS...`.

Enters the sandbox's namespaces, covers what the application must see differently (`/etc/resolv.conf`), takes on its user, and
executes the program in this same process: pid, exit code, signals, terminal, working folder, environment and open files are
the program's. SPEC is JSON (`Spec`) and holds no secret: an argument list can be read by everybody.

Only the standard library, and little of it, for it starts in front of every program.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from typing import TypedDict

if not __package__:  # executed as a script, with nothing but the standard library on the path
    sys.path.append(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))

from tulle.node import kernel

GONE = 125  # as `env`, `nice` and `docker run` have it: the failure is ours, not the program's
CANNOT_RUN = 126
NOT_FOUND = 127


class Spec(TypedDict, total=False):
    """How to start a program. Nothing of it is required.

    `holder`: pid and start time of the pause process that holds the namespaces; `user`: whether its user namespace is to be
    entered too. `mounts`: [source, target] pairs to bind; a target that does not exist is left out. `uid`, `gid`: whom to
    become. `privileged`: keep CAP_NET_ADMIN, which a proxy needs to mark its sockets.
    """

    holder: tuple[int, int]
    user: bool
    mounts: list[tuple[str, str]]
    uid: int
    gid: int
    privileged: bool


def enter_holder(pid: int, started: int, *, user: bool) -> None:
    """Enter the namespaces that a pause process holds; raises ProcessLookupError where it is not the same process any more."""
    if user:
        kernel.enter(f"/proc/{pid}/ns/user", kernel.NEWUSER)
    kernel.enter(f"/proc/{pid}/ns/net", kernel.NEWNET)
    with open(f"/proc/{pid}/stat", "rb") as file:  # asked last: what was entered before was then the right one
        state, *fields = file.read().rpartition(b")")[2].split()
    if state in (b"Z", b"X") or int(fields[18]) != started:
        raise ProcessLookupError(f"process {pid} is not the one that held the sandbox")


def _cover(mounts: list[tuple[str, str]]) -> None:
    kernel.unshare(kernel.NEWNS)
    kernel.mount("none", "/", kernel.MS_REC | kernel.MS_SLAVE)
    for source, target in mounts:
        if os.path.exists(target):  # without a resolv.conf the C library asks 127.0.0.1, which is what is wanted here
            kernel.mount(source, target, kernel.MS_BIND)


def _become(uid: int | None, gid: int | None) -> None:
    if gid is not None:
        os.setgroups([gid])
        os.setresgid(gid, gid, gid)
    if uid is not None:
        os.setresuid(uid, uid, uid)


def _initial_environment() -> dict[bytes, bytes]:
    """The environment as it was given, without what Python's start-up adds for its own locale."""
    with open("/proc/self/environ", "rb") as file:
        return {name: value for name, equals, value in (pair.partition(b"=") for pair in file.read().split(b"\0")) if equals}


def main() -> int:
    """Become the program, or say why not."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    for ignored_by_python in (signal.SIGPIPE, signal.SIGXFSZ):  # an ignored signal stays ignored in the program
        signal.signal(ignored_by_python, signal.SIG_DFL)
    spec: Spec = json.loads(sys.argv[1])
    argv = sys.argv[2:]
    try:
        environment = _initial_environment()
        if "holder" in spec:
            enter_holder(*spec["holder"], user=spec.get("user", False))
        if mounts := spec.get("mounts"):
            _cover(mounts)
        if spec.get("privileged") and spec.get("uid"):
            kernel.keep_over_setuid()
        _become(spec.get("uid"), spec.get("gid"))
        if spec.get("privileged"):
            kernel.keep_capabilities(kernel.CAP_NET_ADMIN)
        else:
            kernel.drop_ambient()
    except OSError as error:
        print(f"tulle: {argv[0]} was not started, for its sandbox cannot be entered: {error}", file=sys.stderr)
        return GONE
    try:
        os.execvpe(argv[0], argv, environment)  # noqa: S606 - to become the program is what this is for
    except FileNotFoundError:
        print(f"tulle: {argv[0]}: not found", file=sys.stderr)
        return NOT_FOUND
    except OSError as error:
        print(f"tulle: {argv[0]}: {error.strerror}", file=sys.stderr)
        return CANNOT_RUN


if __name__ == "__main__":
    sys.exit(main())
