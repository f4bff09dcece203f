"""Makes and enters network namespaces for `netns.py`: `python -I -S inside.py`, one task a process, JSON in and out.

The agent has threads, and the kernel lets no process with threads enter a user namespace: so each task is a short process of
its own. The tasks (one JSON object on standard input, one on standard output):

- `hold`: a user and a network namespace with the bridge in it, held by a pause process. Without root, once a network.
- `sandbox`: a network namespace held by a pause process, joined to the bridge, with addresses, routes and capture rules.
- `sockets`: sockets of a sandbox's network, handed back over the Unix socket that is file descriptor `channel`.
- `links`: `ip` commands where the bridge lies.

A pause process is `sleep infinity` in a session of its own: it outlives the agent, and is found by pid and start time, or by
its environment. The namespace goes when the pause and everything else in it has gone.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from typing import Any

if not __package__:  # executed as a script, with nothing but the standard library on the path
    sys.path.append(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))

from tulle.node import kernel, launch

_NO_IPV6 = ("default", "eth0")  # `lo` keeps ::1, which applications listen on


class Failed(Exception):
    """A step that did not work, in words for a person."""


def _words(error: OSError | Failed) -> str:
    return error.strerror or str(error) if isinstance(error, OSError) else str(error)


def _run(command: list[str], text: str) -> None:
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise Failed(
            f"{os.path.basename(command[0])}: {done.stderr.strip().splitlines()[0] if done.stderr.strip() else 'failed'}"
        )


def _links(task: dict[str, Any], commands: list[str], *options: str) -> None:
    _run([task["ip"], *options, "-batch", "-"], "".join(f"{command}\n" for command in commands))


def _started(pid: int) -> int:
    with open(f"/proc/{pid}/stat", "rb") as file:
        return int(file.read().rpartition(b")")[2].split()[19])


def _pause(
    task: dict[str, Any], prepare: Callable[[], None], join: Callable[[int], None], finish: Callable[[], None]
) -> dict[str, int]:
    """Fork a pause process: `prepare` in it, `join(its pid)` here, `finish` in it. Any failure ends it and is raised."""
    told, tell = socket.socketpair()
    pid = os.fork()
    if pid == 0:
        told.close()
        try:
            os.setsid()
            prepare()
            tell.send(b"+")
            if tell.recv(1) == b"+":
                finish()
                _become_pause(task, tell)
        except (OSError, Failed) as error:
            tell.send(f"-{_words(error)}".encode())
        os._exit(1)
    tell.close()
    try:
        _expect(told)
        join(pid)
        told.send(b"+")
        _expect(told)
        told.send(b"+")
        if told.recv(1):
            raise Failed("the pause process cannot be executed")
        return {"pid": pid, "started": _started(pid)}
    except BaseException:
        os.kill(pid, 9)
        os.waitpid(pid, 0)
        raise


def _expect(told: socket.socket) -> None:
    if (answer := told.recv(4096))[:1] != b"+":
        raise Failed(answer[1:].decode() or "the pause process ended")


def _become_pause(task: dict[str, Any], tell: socket.socket) -> None:
    kernel.drop_ambient()
    os.chdir("/")
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in range(3):
        os.dup2(null, descriptor)
    tell.send(b"+")
    if tell.recv(1) == b"+":  # this closes on exec: that is how the other side knows that it is done
        try:
            os.execve(task["sleep"], ["sleep", "infinity"], task["environment"])  # noqa: S606 - to become it is the point
        except OSError:
            tell.send(b"-")


def hold(task: dict[str, Any]) -> dict[str, Any]:
    """Make the namespaces that everything of this network lies in, and the bridge."""
    uid, gid = os.geteuid(), os.getegid()

    def prepare() -> None:
        kernel.unshare(kernel.NEWUSER | kernel.NEWNET)
        for name, text in (("setgroups", "deny"), ("uid_map", f"{uid} {uid} 1"), ("gid_map", f"{gid} {gid} 1")):
            with open(f"/proc/self/{name}", "w") as file:
                file.write(text)
        kernel.keep_capabilities(kernel.CAP_NET_ADMIN)
        _links(task, task["links"])

    return _pause(task, prepare, lambda pid: None, lambda: None)


def sandbox(task: dict[str, Any]) -> dict[str, Any]:
    """Make a network namespace, join it to the bridge and load its rules."""

    def finish() -> None:
        for interface in () if task["ipv6"] else _NO_IPV6:
            try:
                with open(f"/proc/sys/net/ipv6/conf/{interface}/disable_ipv6", "w") as file:
                    file.write("1")
            except OSError:  # a read-only /proc/sys, as in containers, or a kernel without IPv6: the rules drop it as well
                pass
        _links(task, task["inner_links"])
        if task["inner_links6"]:
            _links(task, task["inner_links6"], "-6")
        _run([task["nft"], "-f", "-"], task["rules"])

    _enter(task)
    return _pause(
        task,
        lambda: kernel.unshare(kernel.NEWNET),
        lambda pid: _links(task, [command.replace("PID", str(pid)) for command in task["links"]]),
        finish,
    )


def sockets(task: dict[str, Any]) -> dict[str, Any]:
    """Make sockets inside and hand them over, in the order asked for."""
    _enter(task)
    made = []
    for wanted in task["sockets"]:
        stream = wanted["kind"] == "tcp"
        family = socket.AF_INET6 if ":" in wanted["host"] else socket.AF_INET
        one = socket.socket(family, socket.SOCK_STREAM if stream else socket.SOCK_DGRAM)
        one.setblocking(False)
        if wanted["host"]:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1 if stream else 0)
            try:
                one.bind((wanted["host"], wanted["port"]))
            except OSError as error:
                raise Failed(f"{wanted['kind']} {wanted['host']}:{wanted['port']}: {error.strerror}") from error
            if stream:
                one.listen(1024)
        made.append(one)
    with socket.socket(fileno=os.dup(task["channel"])) as channel:
        socket.send_fds(channel, [b"+"], [one.fileno() for one in made])
    return {}


def links(task: dict[str, Any]) -> dict[str, Any]:
    """Run `ip` commands where the bridge lies."""
    _enter(task)
    _links(task, task["links"])
    return {}


def _enter(task: dict[str, Any]) -> None:
    if holder := task.get("holder"):
        try:
            launch.enter_holder(*holder, user=task["user"])
        except (ProcessLookupError, FileNotFoundError) as error:
            raise Failed("the process that held the namespace is gone") from error
        if task["user"]:
            kernel.keep_capabilities(kernel.CAP_NET_ADMIN)


def main() -> int:
    """Do the task on standard input."""
    task = json.load(sys.stdin)
    tasks: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
        "hold": hold, "sandbox": sandbox, "sockets": sockets, "links": links,
    }  # fmt: skip
    try:
        answer = tasks[task["task"]](task)
    except (Failed, OSError) as error:
        answer = {"error": _words(error)}
    json.dump(answer, sys.stdout)
    return 0


if __name__ == "__main__":
    sys.exit(main())
