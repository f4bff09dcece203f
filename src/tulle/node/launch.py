"""Starts a program inside a sandbox: `python -I -S launch.py [OPTION...] -- PROGRAM ARGS...`; `command` writes it.

Enters the sandbox's namespaces, covers what the application must see differently (`/etc/resolv.conf`), takes on its user, and
executes the program in this same process: pid, exit code, signals, terminal, working folder, environment and open files are
the program's. The options hold no secret: an argument list can be read by everybody.

It starts in front of every program, so it imports next to nothing: even `json`, `typing` and `signal` would double its time.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import NoReturn

if not __package__:  # executed as a script, with nothing but the standard library on the path
    sys.path.append(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))

from tulle.node import kernel  # noqa: E402 - only now can it be found

# A gateway may be to serve port 443.
_OF_PROXIES = (kernel.CAP_NET_ADMIN, kernel.CAP_NET_BIND_SERVICE)
# With these an application that runs as root could leave its namespace, change what is captured, or look into its proxy.
_UNDOING = (
    kernel.CAP_NET_ADMIN,
    kernel.CAP_SYS_ADMIN,
    kernel.CAP_SYS_PTRACE,
    kernel.CAP_SYS_MODULE,
    kernel.CAP_SYS_RAWIO,
    kernel.CAP_DAC_READ_SEARCH,
    kernel.CAP_PERFMON,
    kernel.CAP_BPF,
)

GONE = 125  # as `env`, `nice` and `docker run` have it: the failure is ours, not the program's
CANNOT_RUN = 126
NOT_FOUND = 127


def command(
    argv: Sequence[str],
    *,
    holder: tuple[int, int] | None = None,
    user: bool = False,
    mounts: Sequence[tuple[str, str]] = (),
    uid: int | None = None,
    gid: int | None = None,
    privileged: bool = False,
    proxy: bool = False,
    cgroup: str = "",
) -> list[str]:
    """The command that runs `argv` so.

    `holder`: pid and start time of the pause process that holds the network namespace; `user`: enter its user namespace too.
    `mounts`: (source, target) pairs to bind; a target that does not exist is left out. `uid`, `gid`: whom to become.
    `privileged`: keep CAP_NET_ADMIN, which a proxy needs to mark its sockets. `proxy`: it is one, and gets nothing else; any
    other program keeps what it has but for what would undo the capture. `cgroup`: the control group to enter.
    """
    options = [
        *(["--holder", f"{holder[0]}:{holder[1]}"] if holder else []),
        *(["--user"] if user else []),
        *(["--cgroup", cgroup] if cgroup else []),
        *(word for source, target in mounts for word in ("--mount", source, target)),
        *([] if uid is None else ["--uid", str(uid)]),
        *([] if gid is None else ["--gid", str(gid)]),
        *(["--privileged"] if privileged else []),
        *(["--proxy"] if proxy else []),
    ]
    return [sys.executable, "-I", "-S", __file__, *options, "--", *argv]


def enter_holder(pid: int, started: int, *, user: bool) -> None:
    """Enter the namespaces that a pause process holds; raises ProcessLookupError where it is not the same process any more."""
    if user:
        kernel.enter(f"/proc/{pid}/ns/user", kernel.NEWUSER)
    kernel.enter(f"/proc/{pid}/ns/net", kernel.NEWNET)
    with open(f"/proc/{pid}/stat", "rb") as file:  # asked last: what was entered before was then the right one
        state, *fields = file.read().rpartition(b")")[2].split()
    if state in (b"Z", b"X") or int(fields[18]) != started:
        raise ProcessLookupError(f"process {pid} is not the one that held the sandbox")


def _join(cgroup: str) -> None:
    with open(f"{cgroup}/cgroup.procs", "w") as file:
        file.write("0")


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


def _prepare(options: list[str]) -> None:
    """Do what the options that `command` wrote ask for, in the order in which it is possible."""
    words = iter(options)
    user = privileged = proxy = False
    holder = ""
    mounts: list[tuple[str, str]] = []
    become: dict[str, int] = {}
    for word in words:
        if word == "--holder":
            holder = next(words)
        elif word == "--mount":
            mounts.append((next(words), next(words)))
        elif word in ("--uid", "--gid"):
            become[word] = int(next(words))
        elif word == "--cgroup":
            _join(next(words))  # first of all: a socket belongs to the group in which it is made
        else:
            user |= word == "--user"
            privileged |= word == "--privileged"
            proxy |= word == "--proxy"
    if holder:
        pid, _, started = holder.partition(":")
        enter_holder(int(pid), int(started), user=user)
    if mounts:
        _cover(mounts)
    everything = range(kernel.MOST)
    kernel.bound(_OF_PROXIES if proxy else [one for one in everything if one not in _UNDOING])
    if privileged and become.get("--uid"):
        kernel.keep_over_setuid()
    _become(become.get("--uid"), become.get("--gid"))
    if privileged:
        kernel.keep_capabilities(kernel.CAP_NET_ADMIN)
    else:
        kernel.drop_ambient()
    if proxy:
        kernel.no_new_privileges()


def _execute(argv: list[str], environment: dict[bytes, bytes]) -> NoReturn:
    """As `os.execvpe`, which imports a module first: as another user by now, this process may not be able to read any."""
    name = os.fsencode(argv[0])
    failure: OSError | None = None
    folders = [b""] if b"/" in name else environment.get(b"PATH", b"/usr/local/bin:/usr/bin:/bin").split(b":")
    for folder in folders:
        path = os.path.join(folder, name)
        try:
            os.execve(path, argv, environment)  # noqa: S606 - to become the program is what this is for
        except OSError as error:
            if os.path.exists(path) and failure is None:
                failure = error  # said only if no other folder has one that can be run
    raise failure or FileNotFoundError(argv[0])


def main() -> int:
    """Become the program, or say why not."""
    kernel.reset_signals()
    split = sys.argv.index("--")
    argv = sys.argv[split + 1 :]
    try:
        environment = _initial_environment()
        _prepare(sys.argv[1:split])
    except OSError as error:
        print(f"tulle: {argv[0]} was not started, for its sandbox cannot be entered: {error}", file=sys.stderr)
        return GONE
    try:
        _execute(argv, environment)
    except FileNotFoundError:
        print(f"tulle: {argv[0]}: not found", file=sys.stderr)
        return NOT_FOUND
    except OSError as error:
        print(f"tulle: {argv[0]}: {error.strerror}", file=sys.stderr)
        return CANNOT_RUN


if __name__ == "__main__":
    sys.exit(main())
