"""`cgroup` capture: workloads in the host's own network, told by their control groups. As root, without network namespaces.

    /sys/fs/cgroup/tulle-DIGEST/10/app      a workload's process tree: what it opens, and what arrives for it, is captured
    /sys/fs/cgroup/tulle-DIGEST/10/proxy    its Envoy, exempt

A workload is reached at the host's address and at the ports that its application binds, so workloads of different hosts call
each other without anything between. Ports are the host's: of two workloads only one can have a number. The rules lie in one
table (`cgroup_rules.py`) and belong to no process: they hold while no agent runs, and go with `teardown`.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import shutil
import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

import msgspec

from tulle.core.model.interception import Interception
from tulle.core.model.workload import Capture, ProxyPorts
from tulle.kit.errors import Refused, TulleError
from tulle.node import cgroup_rules, cgroups, host_network, launch, ports, resolv
from tulle.node.network import Sandbox, SocketSpec
from tulle.node.proxy import ProxyRecord, ProxySandbox
from tulle.node.sandbox import listening_ports
from tulle.node.selection import VIRTUAL, VIRTUAL_SIX

_FIRST = 10  # as in `netns`: a workload's number
_SOMEWHERE = {socket.AF_INET: "192.0.2.1", socket.AF_INET6: "2001:db8::1"}


class CgroupRecord(msgspec.Struct, frozen=True):
    """What was allotted to a workload, and what of its traffic is captured."""

    id: str
    number: int
    address: str
    proxy: ProxyPorts
    dns: int
    ports: tuple[int, ...]
    chosen: Interception = Interception()
    mounts: tuple[tuple[str, str], ...] = ()
    ipv6: bool = False

    @property
    def all_ports(self) -> list[int]:
        """Those of the host that are its own."""
        return [self.proxy.outbound, self.proxy.inbound, self.proxy.health, self.proxy.metrics, self.dns, *self.ports]


class CgroupSandbox(ProxySandbox):
    """A workload in the host's network. `folder` is its control group."""

    capture = Capture.CGROUP

    def __init__(self, record: CgroupRecord, folder: Path) -> None:
        same = {port: port for port in record.ports}
        super().__init__(ProxyRecord(record.id, record.number, record.address, record.proxy, same, same))
        self.allotted = record
        self.folder = folder
        self.ipv6 = record.ipv6

    def app_environment(self) -> dict[str, str]:
        """`PORT`, the first declared one."""
        return {"PORT": str(self.allotted.ports[0])} if self.allotted.ports else {}

    def command(self, argv: Sequence[str], *, app: bool, uid: int | None = None, gid: int | None = None) -> list[str]:
        """See `Sandbox.command`."""
        group = str(self.folder / ("app" if app else "proxy"))
        return launch.command(argv, cgroup=group, mounts=self.allotted.mounts if app else (), uid=uid, gid=gid, proxy=not app)

    async def dns_sockets(self) -> list[socket.socket]:
        """On the port of the host's loopback to which the workload's DNS is redirected."""
        hosts = ("127.0.0.1", "::1") if self.ipv6 else ("127.0.0.1",)
        return await self.sockets(*(SocketSpec(kind, host, self.allotted.dns) for host in hosts for kind in ("udp", "tcp")))

    def holds(self, pid: int) -> bool:
        """See `Sandbox.holds`: by its control group."""
        return cgroups.contains(self.folder / "app", pid)

    def alive(self) -> bool:
        """Whether its control groups stand; they go when somebody removes them, or with the host's boot."""
        return all((self.folder / name).is_dir() for name in ("app", "proxy"))


class CgroupGateway(ProxySandbox):
    """A gateway on the host, at the addresses and ports that it is configured with."""

    capture = Capture.NONE

    def holds(self, pid: int) -> bool:
        """Nothing: it has no application."""
        return False

    def app_environment(self) -> dict[str, str]:
        """Nothing."""
        return {}


class CgroupNetwork:
    """Implements `Network`. `folder` is the agent's; `address` is where others reach this host ("": found out)."""

    capture = Capture.CGROUP
    outside = ""
    relayed = False

    def __init__(self, instance: str, folder: Path, address: str = "") -> None:
        self.instance = instance
        digest = hashlib.blake2s(instance.encode(), digest_size=4).hexdigest()
        self.table = f"tulle-{digest}"
        self._metric = int(digest, 16) % 1_000_000 + 1_000_000  # tells this instance's route from others'
        self._folder = folder / "cgroup"
        self._address = address
        self._turn = asyncio.Lock()

    async def open(self) -> None:
        """See `Network.open`. Loads the rules anew: somebody may have flushed the host's."""
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        async with self._turn:
            await self._load()
            await host_network.reach(VIRTUAL, self._metric)
            if host_network.has_ipv6():
                await host_network.reach(VIRTUAL_SIX, self._metric)

    async def create(self, workload: str, ports_: Sequence[int] = (), chosen: Interception | None = None) -> Sandbox:
        """See `Network.create`."""
        await self.destroy(workload)
        async with self._turn:
            records = self._records()
            self._check(ports_, records)
            numbers = {record.number for record in records}
            number = next(n for n in range(_FIRST, _FIRST + len(numbers) + 1) if n not in numbers)
            taken = {port for record in records for port in record.all_ports} | set(ports_)
            outbound, inbound, health, metrics, dns = await asyncio.to_thread(ports.free, 5, taken)
            covering = self._path(workload).with_suffix("")
            covering.mkdir(parents=True, exist_ok=True, mode=0o755)
            record = CgroupRecord(
                id=workload,
                number=number,
                address=self._address or own_address(),
                proxy=ProxyPorts(outbound=outbound, inbound=inbound, health=health, metrics=metrics),
                dns=dns,
                ports=tuple(ports_),
                chosen=chosen or Interception(),
                ipv6=host_network.has_ipv6(),
                mounts=tuple(resolv.write_coverings(covering, workload.partition("/")[0])),
            )
            box = CgroupSandbox(record, self._group(number))
            cgroups.make(box.folder / "app", box.folder / "proxy")
            new = self._path(workload).with_suffix(".new")
            new.write_bytes(msgspec.json.encode(record))
            new.replace(self._path(workload))
            try:
                await self._load()
            except BaseException:
                self._path(workload).unlink(missing_ok=True)
                with contextlib.suppress(TulleError):
                    await cgroups.remove(box.folder)
                raise
            return box

    async def adopt(self, workload: str) -> Sandbox | None:
        """See `Network.adopt`."""
        record = _read(self._path(workload))
        if record is None:
            return None
        box = CgroupSandbox(record, self._group(record.number))
        return box if box.alive() else None

    def recorded(self) -> list[str]:
        """See `Network.recorded`."""
        return sorted(record.id for record in self._records())

    async def gateway(self, workload: str, ports_: Sequence[int] = ()) -> Sandbox:
        """See `Network.gateway`."""
        same = {port: port for port in ports_}
        return CgroupGateway(ProxyRecord(workload, 0, self._address or own_address(), ProxyPorts(), same, same))

    async def destroy(self, workload: str) -> None:
        """See `Network.destroy`. Its processes end before its rules go: none of them ever runs uncaptured."""
        record = _read(self._path(workload))
        async with self._turn:
            if record is not None:
                await cgroups.remove(self._group(record.number))
                self._path(workload).unlink(missing_ok=True)
                await self._load()
        shutil.rmtree(self._path(workload).with_suffix(""), ignore_errors=True)

    async def teardown(self) -> None:
        """See `Network.teardown`."""
        async with self._turn:
            with contextlib.suppress(Refused):  # without cgroup v2 there can be no group of ours
                await cgroups.remove(self._root())
            if host_network.programs():
                async with host_network.one_at_a_time():
                    await host_network.load(cgroup_rules.gone(self.table))
                await host_network.unreach(VIRTUAL, self._metric)
                await host_network.unreach(VIRTUAL_SIX, self._metric)
            shutil.rmtree(self._folder, ignore_errors=True)

    async def _load(self) -> None:
        """Replace the rules by those of the workloads on record whose groups stand."""
        mounted = cgroups.hierarchy()
        captured = [
            cgroup_rules.Captured(
                number=record.number,
                application=cgroups.in_rules(group / "app"),
                proxy=cgroups.in_rules(group / "proxy"),
                declared=record.ports,
                outbound=record.proxy.outbound,
                inbound=record.proxy.inbound,
                dns=record.dns,
                chosen=record.chosen,
                ipv6=record.ipv6,
            )
            for record in self._records()
            if CgroupSandbox(record, group := self._group(record.number)).alive()
        ]
        text = cgroup_rules.rules(self.table, cgroups.level(self._group(_FIRST) / "app", mounted), captured)
        async with host_network.one_at_a_time():
            await host_network.load(text)

    def _check(self, wanted: Sequence[int], records: Sequence[CgroupRecord]) -> None:
        """Raise `Refused` where a declared port is another's: its connections would be caught, and two cannot bind it."""
        listening = listening_ports("self")
        for port in wanted:
            owner = next((record.id for record in records if port in record.ports), "")
            whose = (
                f"workload {owner}" if owner else "a program of this host that is not in the mesh" if port in listening else ""
            )
            if whose:
                raise Refused(
                    f"port {port} is that of {whose}, and in capture cgroup all workloads share the host's ports",
                    hint=f"let the application bind another one, such as {port + 1}: --port {port}:PROTOCOL:{port + 1}",
                )

    def _root(self) -> Path:
        return cgroups.hierarchy() / self.table

    def _group(self, number: int) -> Path:
        return self._root() / str(number)

    def _path(self, workload: str) -> Path:
        return self._folder / f"{quote(workload, safe='')}.json"

    def _records(self) -> list[CgroupRecord]:
        found = [_read(path) for path in sorted(self._folder.glob("*.json"))]
        return [record for record in found if record is not None]


def own_address() -> str:
    """The address from which this host reaches others, IPv4 before IPv6; raises `Refused` where it has none."""
    for family, somewhere in _SOMEWHERE.items():
        with contextlib.suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((somewhere, 9))  # nothing is sent: only the way there is asked for
            found = str(probe.getsockname()[0])
            if not found.startswith(("127.", "fe80:")) and found != "::1":
                return found
    raise Refused("this host has no address at which its workloads could be reached", hint="give one with --address")


async def tried(network: CgroupNetwork) -> None:
    """See whether a connection is really captured; raises what is in the way. Leaves nothing."""
    try:
        await network.open()
        box = await network.create("probe/probe")
        (arriving,) = await box.sockets(SocketSpec("tcp", "127.0.0.1", box.proxy_ports.outbound))
        with arriving:
            code = f"import socket; socket.create_connection(({VIRTUAL[:-5] + '.1'!r}, 9), 3)"
            calling = await asyncio.create_subprocess_exec(
                *box.command([sys.executable, "-I", "-S", "-c", code], app=True),
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.PIPE,
            )
            _, said = await calling.communicate()
        if calling.returncode != 0:
            raise Refused(f"a connection was not captured: {said.decode(errors='replace').strip().rpartition(chr(10))[2]}")
    finally:
        await network.teardown()


def _read(path: Path) -> CgroupRecord | None:
    try:
        return msgspec.json.decode(path.read_bytes(), type=CgroupRecord)
    except (OSError, msgspec.DecodeError):
        return None
