"""A network namespace as a `Sandbox`; and `perform`, the one way in which the agent has things done inside (see `inside.py`)."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import product
from typing import Any

import msgspec

from tulle.core.model.workload import Capture, ProxyPorts
from tulle.kit.errors import Refused, Unavailable
from tulle.node import inside, launch
from tulle.node.network import DNS_PORT, PROXY_DNS_PORT, SocketSpec
from tulle.node.process import Process

_LISTEN = "0A"  # a TCP socket's state in /proc/net/tcp
_LINE = 150  # bytes of a line there: as much as one read may make the kernel look up


class SandboxRecord(msgspec.Struct, frozen=True):
    """What must be known to find a sandbox again. `number` is its place in the network's address ranges."""

    id: str
    number: int
    address: str
    holder: Process
    ports: tuple[int, ...] = ()
    mounts: tuple[tuple[str, str], ...] = ()
    address6: str = ""
    datagrams: bool = False


async def perform(task: str, **fields: Any) -> dict[str, Any]:
    """Have `inside.py` do a task; raises `Unavailable` with its words where it fails."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-I", "-S", inside.__file__,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,  # a Ctrl-C in the agent's terminal is not for it
        pass_fds=[fields["channel"]] if "channel" in fields else [],
    )  # fmt: skip
    out, err = await process.communicate(json.dumps({"task": task, **fields}).encode())
    if process.returncode != 0:
        raise Unavailable(f"the namespace task {task} failed: {err.decode(errors='replace').strip()[-500:]}")
    answer: dict[str, Any] = json.loads(out)
    if "error" in answer:
        raise Unavailable(answer["error"])
    return answer


def listening_ports(pid: int | str, wanted: Collection[int] = ()) -> set[int]:
    """TCP ports with a listener in the network namespace of a process (`self`: in ours).

    With `wanted` it stops once these are found. The kernel lists listeners first and then walks its whole table of
    connections, which is 4 ms of CPU however few there are; read line by line, what is wanted costs 20 microseconds.
    """
    found: set[int] = set()
    for table in ("tcp", "tcp6"):
        try:
            descriptor = os.open(f"/proc/{pid}/net/{table}", os.O_RDONLY)
        except OSError:
            continue
        try:
            for fields in _rows(descriptor):
                if fields[3] != _LISTEN:
                    break
                found.add(int(fields[1].rpartition(":")[2], 16))
                if wanted and found.issuperset(wanted):
                    return found
        finally:
            os.close(descriptor)
    return found


def receiving_ports(pid: int | str) -> set[int]:
    """UDP ports that are bound in the network namespace of a process (`self`: in ours) and not connected."""
    found: set[int] = set()
    for table in ("udp", "udp6"):
        try:
            with open(f"/proc/{pid}/net/{table}", encoding="ascii") as file:
                lines = file.read().splitlines()[1:]
        except OSError:
            continue
        for _number, local, remote, *_more in map(str.split, lines):
            if int(remote.rpartition(":")[2], 16) == 0:
                found.add(int(local.rpartition(":")[2], 16))
    return found


def _rows(descriptor: int) -> Iterator[list[str]]:
    """The lines of a table of sockets, read no further than they are asked for."""
    held = b""
    heading = True
    while data := os.read(descriptor, _LINE):
        *lines, held = (held + data).split(b"\n")
        for line in lines:
            if not heading:
                yield line.decode().split()
            heading = False


def _namespace(pid: int) -> str:
    """The network namespace of a process, "" where it cannot be seen."""
    try:
        return os.readlink(f"/proc/{pid}/ns/net")
    except OSError:
        return ""


class NetnsSandbox:
    """A workload's network namespace, held by a pause process. `user`: it lies in a user namespace."""

    capture = Capture.NETNS

    def __init__(self, record: SandboxRecord, *, user: bool) -> None:
        self.record = record
        self.ipv6 = bool(record.address6)
        self.datagrams = record.datagrams
        self._user = user

    @property
    def id(self) -> str:
        """`namespace/name`."""
        return self.record.id

    @property
    def address(self) -> str:
        """On the network's bridge."""
        return self.record.address

    @property
    def proxy_ports(self) -> ProxyPorts:
        """Istio's numbers: the namespace is the workload's own."""
        return ProxyPorts()

    @property
    def inbound_ports(self) -> Mapping[int, int]:
        """The declared ports themselves."""
        return {port: port for port in self.record.ports}

    @property
    def app_ports(self) -> Mapping[int, int]:
        """The declared ports themselves."""
        return self.inbound_ports

    def app_environment(self) -> dict[str, str]:
        """`PORT`, the first declared one."""
        return {"PORT": str(self.record.ports[0])} if self.record.ports else {}

    def command(self, argv: Sequence[str], *, app: bool, uid: int | None = None, gid: int | None = None) -> list[str]:
        """See `Sandbox.command`."""
        holder = (self.record.holder.pid, self.record.holder.started)
        mounts = self.record.mounts if app else ()
        return launch.command(
            argv, holder=holder, user=self._user, mounts=mounts, uid=uid, gid=gid, privileged=not app, proxy=not app
        )

    async def sockets(self, *wanted: SocketSpec) -> list[socket.socket]:
        """See `Sandbox.sockets`."""
        ours, theirs = socket.socketpair()
        with ours, theirs:
            try:
                holder = (self.record.holder.pid, self.record.holder.started)
                specs = [msgspec.to_builtins(one) for one in wanted]
                await perform("sockets", holder=holder, user=self._user, channel=theirs.fileno(), sockets=specs)
            except Unavailable as error:
                if not self.alive():
                    raise Unavailable(f"the sandbox of {self.id} is gone") from error
                raise Refused(f"sandbox of {self.id}: {error.message}") from error
            _, descriptors, _, _ = socket.recv_fds(ours, 1, len(wanted))
        made = [socket.socket(fileno=descriptor) for descriptor in descriptors]
        for one in made:
            one.setblocking(False)
        return made

    async def dns_sockets(self) -> list[socket.socket]:
        """See `Sandbox.dns_sockets`."""
        places = [("127.0.0.1", DNS_PORT), ("127.0.0.1", PROXY_DNS_PORT), *([("::1", DNS_PORT)] if self.ipv6 else [])]
        return await self.sockets(*(SocketSpec(kind, host, port) for (host, port), kind in product(places, ("udp", "tcp"))))

    def listening(self, wanted: Collection[int] = ()) -> set[int]:
        """See `Sandbox.listening`."""
        return listening_ports(self.record.holder.pid, wanted) if self.alive() else set()

    def receiving(self) -> set[int]:
        """See `Sandbox.receiving`."""
        return receiving_ports(self.record.holder.pid) if self.alive() else set()

    def holds(self, pid: int) -> bool:
        """See `Sandbox.holds`: by its network namespace."""
        return self.alive() and (inside := _namespace(pid)) != "" and inside == _namespace(self.record.holder.pid)

    def alive(self) -> bool:
        """Whether the process that holds it still runs."""
        return self.record.holder.alive


class GatewaySandbox(NetnsSandbox):
    """The place for a gateway: where the bridge lies. As root that is the host itself, so that commands stay as they are."""

    capture = Capture.NONE

    def command(self, argv: Sequence[str], *, app: bool, uid: int | None = None, gid: int | None = None) -> list[str]:
        """See `Sandbox.command`."""
        if self._user:
            return super().command(argv, app=app, uid=uid, gid=gid)
        if app and uid is None and gid is None:
            return list(argv)
        return launch.command(argv, uid=uid, gid=gid, privileged=not app, proxy=not app)

    def holds(self, pid: int) -> bool:
        """Nothing: it has no application, and its namespace is that of others too."""
        return False

    async def dns_sockets(self) -> list[socket.socket]:
        """None: a gateway's DNS is the host's."""
        return []
