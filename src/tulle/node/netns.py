"""`netns` capture: a network namespace a workload, joined by a bridge; as root, and without root in one user namespace.

One mechanism for both: namespaces are held by pause processes and made by `inside.py`. As root the bridge lies in the host's
network namespace, in an address range that collides with no route, and a masquerade rule leads out. Without root the bridge lies
in a user and network namespace held by one more pause process, from which nothing leads out.

On disk, in the agent's runtime folder: `network.json`, `numbers.json` and `sandboxes/ID.json` with the pids and start times.
What is not on record (the agent died in between) is found by name (links and table, derived from the instance) and by
environment (processes).
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import shutil
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

import msgspec

from tulle.core.model.interception import Interception
from tulle.core.model.workload import Capture, ProxyPorts
from tulle.kit.errors import Refused, TulleError
from tulle.node import holders, host_network, nftables, process, resolv
from tulle.node.host_network import PRIVATE_RANGES, program
from tulle.node.network import Sandbox
from tulle.node.process import Process
from tulle.node.sandbox import GatewaySandbox, NetnsSandbox, SandboxRecord, perform

_FIRST = 10  # the first workload's number in the range; the bridge has 1
_LAST = 65000

_T = TypeVar("_T", bound=msgspec.Struct)


class Numbers(msgspec.Struct, frozen=True):
    """The number in the address range that each workload has, or had last."""

    of: dict[str, int]


class NetworkRecord(msgspec.Struct, frozen=True):
    """What the sandboxes share: their address range, and the pause process of the user namespace (None as root)."""

    network: str
    outer: Process | None = None


class NetnsNetwork:
    """Implements `Network`. `instance` gives everything its names; `folder` is the agent's and private to it."""

    capture = Capture.NETNS

    def __init__(self, instance: str, folder: Path, *, rootless: bool) -> None:
        self.instance = instance
        self.rootless = rootless
        self._folder = folder
        self._digest = hashlib.blake2s(instance.encode(), digest_size=2).hexdigest()
        self._bridge = f"tulle{self._digest}"
        self._record: NetworkRecord | None = None
        self._used: set[int] = set()
        self._former: dict[str, int] = {}  # the number that a workload has, or had last
        self._next = _FIRST
        self._opening = asyncio.Lock()

    @property
    def outside(self) -> str:
        """See `Network.outside`."""
        if self.rootless:
            return "workloads do not reach addresses beyond this machine: that takes root"
        return "" if host_network.forwards() else "workloads do not reach addresses beyond this machine: net.ipv4.ip_forward is 0"

    @property
    def relayed(self) -> bool:
        """Without root a gateway lies in the user namespace."""
        return self.rootless

    async def open(self) -> None:
        """See `Network.open`."""
        async with self._opening:
            if self._record is not None:
                return
            (self._folder / "sandboxes").mkdir(parents=True, exist_ok=True, mode=0o700)
            found = _read(self._folder / "network.json", NetworkRecord)
            if found is None or (self.rootless and (found.outer is None or not found.outer.alive)):
                await self._clear()
                found = await (self._open_rootless() if self.rootless else self._open_root())
                _write(self._folder / "network.json", found)
            elif not self.rootless and not await host_network.has(self._bridge):
                await self._clear()
                found = await self._open_root(found.network)
                _write(self._folder / "network.json", found)
            self._record = found
            await self._drop_unrecorded()

    async def _open_rootless(self) -> NetworkRecord:
        network = PRIVATE_RANGES[0]
        commands = ["link set lo up", *self._bridge_commands(network)]
        held = await perform("hold", links=commands, ip=program("ip"), sleep=program("sleep"), environment=self._environment())
        return NetworkRecord(str(network), Process(held["pid"], held["started"]))

    async def _open_root(self, wanted: str | None = None) -> NetworkRecord:
        async with host_network.one_at_a_time():
            network = await host_network.free_range(wanted)
            forward = await host_network.forward_before()
            await perform("links", ip=program("ip"), links=self._bridge_commands(network))
            await host_network.mark(self._bridge, self.instance, forward)
            await host_network.load(nftables.host_rules(self._bridge, self._bridge, str(network)))
            await host_network.pass_firewall(self._bridge)
        return NetworkRecord(str(network))

    def _bridge_commands(self, network: IPv4Network) -> list[str]:
        return [
            f"link add name {self._bridge} type bridge",
            f"address add {network[1]}/{network.prefixlen} dev {self._bridge}",
            f"link set {self._bridge} up",
        ]

    async def create(self, workload: str, ports: Sequence[int] = (), chosen: Interception | None = None) -> Sandbox:
        """See `Network.create`."""
        await self.open()
        await self.destroy(workload)
        assert self._record is not None
        network = IPv4Network(self._record.network)
        number = self._allot(workload)
        try:
            address, link = str(network[number]), self._link(number)
            made = await perform(
                "sandbox",
                **self._outer(),
                ip=program("ip"), nft=program("nft"), sleep=program("sleep"),
                environment=self._environment(),
                links=[
                    f"link add name {link} type veth peer name eth0 netns PID",
                    f"link set {link} master {self._bridge} up",
                ],
                inner_links=[
                    "link set lo up",
                    f"link set eth0 address {_hardware_address(network[number])}",
                    f"address add {address}/{network.prefixlen} dev eth0",
                    "link set eth0 up",
                    f"route add default via {network[1]}",
                ],
                rules=nftables.workload_rules(ProxyPorts(), ports, chosen or Interception()),
            )  # fmt: skip
        except BaseException:
            self._used.discard(number)
            raise
        folder = self._folder_of(workload)
        folder.mkdir(mode=0o700, exist_ok=True)
        mounts = resolv.write_coverings(folder, workload.partition("/")[0])
        holder = Process(made["pid"], made["started"])
        record = SandboxRecord(workload, number, address, holder, tuple(ports), tuple(mounts))
        _write(self._path(workload), record)
        return NetnsSandbox(record, user=self.rootless)

    async def adopt(self, workload: str) -> Sandbox | None:
        """See `Network.adopt`."""
        await self.open()
        record = _read(self._path(workload), SandboxRecord)
        if record is None or not record.holder.alive:
            return None
        return NetnsSandbox(record, user=self.rootless)

    def recorded(self) -> list[str]:
        """See `Network.recorded`."""
        return sorted(record.id for record in self._records())

    async def gateway(self, workload: str, ports: Sequence[int] = ()) -> Sandbox:
        """See `Network.gateway`."""
        await self.open()
        assert self._record is not None
        holder = self._record.outer or process.this()
        record = SandboxRecord(workload, 1, str(IPv4Network(self._record.network)[1]), holder, tuple(ports))
        return GatewaySandbox(record, user=self.rootless)

    async def destroy(self, workload: str) -> None:
        """See `Network.destroy`."""
        record = _read(self._path(workload), SandboxRecord)
        if record is not None:
            await self.open()
            await holders.end([record.holder])
            with contextlib.suppress(TulleError):  # the link goes with its namespace; this only makes it sooner
                await perform("links", **self._outer(), ip=program("ip"), links=[f"link delete {self._link(record.number)}"])
            self._used.discard(record.number)
        shutil.rmtree(self._folder_of(workload), ignore_errors=True)
        self._path(workload).unlink(missing_ok=True)

    async def teardown(self) -> None:
        """See `Network.teardown`."""
        async with self._opening:
            await self._clear()
            self._record = None
            self._used.clear()
            self._former.clear()
            shutil.rmtree(self._folder / "sandboxes", ignore_errors=True)
            for name in ("network.json", "numbers.json"):
                (self._folder / name).unlink(missing_ok=True)

    async def _clear(self) -> None:
        """Remove what is there, whether on record or not, but for the records."""
        found = {record.holder for record in self._records()} | set(await asyncio.to_thread(holders.carrying, self.instance))
        if (shared := _read(self._folder / "network.json", NetworkRecord)) and shared.outer:
            found.add(shared.outer)
        await holders.end(found)
        for path in (self._folder / "sandboxes").glob("*.json"):
            path.unlink(missing_ok=True)
        if not self.rootless and host_network.programs():
            async with host_network.one_at_a_time():
                await host_network.clear(self._bridge, self.instance)

    async def _drop_unrecorded(self) -> None:
        """Stop pause processes that a dying agent had no time to write down, and take over the numbers of the others."""
        assert self._record is not None
        records = self._records()
        known = {record.holder for record in records} | {self._record.outer}
        await holders.end([one for one in await asyncio.to_thread(holders.carrying, self.instance) if one not in known])
        self._used = {record.number for record in records}
        kept = _read(self._folder / "numbers.json", Numbers)
        self._former = dict(kept.of) if kept else {}
        last = max({*self._used, *self._former.values()}, default=_LAST)
        self._next = last + 1 if last < _LAST else _FIRST

    def _allot(self, workload: str) -> int:
        """The number that the workload had before: while the control plane is away its callers know no other. Else one that has
        not been used for long: what still knows an address of a dead workload must not meet another.
        """
        own = self._former.get(workload)
        if own is not None and own not in self._used:
            self._used.add(own)
            return own
        for _ in range(_LAST):
            number, self._next = self._next, self._next + 1 if self._next < _LAST else _FIRST
            if number not in self._used:
                self._used.add(number)
                former = {name: held for name, held in self._former.items() if held != number}
                self._former = {**former, workload: number}
                _write(self._folder / "numbers.json", Numbers(self._former))
                return number
        raise Refused("every address of the workloads' network is taken")

    def _link(self, number: int) -> str:
        return f"{self._bridge}-{number}"

    def _outer(self) -> dict[str, Any]:
        outer = self._record.outer if self._record else None
        return {"holder": (outer.pid, outer.started), "user": True} if outer else {}

    def _environment(self) -> dict[str, str]:
        return {process.INSTANCE: self.instance, **holders.ENVIRONMENT}

    def _folder_of(self, workload: str) -> Path:
        return self._folder / "sandboxes" / quote(workload, safe="")

    def _path(self, workload: str) -> Path:
        return self._folder / "sandboxes" / f"{quote(workload, safe='')}.json"

    def _records(self) -> list[SandboxRecord]:
        found = [_read(path, SandboxRecord) for path in (self._folder / "sandboxes").glob("*.json")]
        return [record for record in found if record is not None]


def _hardware_address(address: IPv4Address) -> str:
    """A MAC that goes with the IP address: neighbours remember the pair for a minute, also of a workload that was replaced."""
    return ":".join(f"{byte:02x}" for byte in (0x02, 0x74, *address.packed))


def _read(path: Path, kind: type[_T]) -> _T | None:
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except (OSError, msgspec.DecodeError):
        return None  # as if it had not been written: the search by name and environment finds the rest


def _write(path: Path, record: msgspec.Struct) -> None:
    new = path.with_suffix(".new")
    new.write_bytes(msgspec.json.encode(record))
    new.replace(path)
