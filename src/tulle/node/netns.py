"""`netns` capture: a network namespace a workload, joined by a bridge; as root, and without root in one user namespace.

One mechanism for both: namespaces are held by pause processes and made by `inside.py`. As root the bridge lies in the host's
network namespace, in an address range that collides with no route, and a masquerade rule leads out. Without root the bridge lies
in a user and network namespace held by one more pause process, from which nothing leads out.

Workloads have IPv6 among themselves, and for services with such an address, from a range that follows from the other one. Nothing
leads out by it: a host that forwards IPv6 ignores router advertisements, and so would lose its own way out.

On disk, in the agent's runtime folder: `network.json`, `numbers.json` and `sandboxes/ID.json` with the pids and start times.
What is not on record (the agent died in between) is found by name (links and table, derived from the instance) and by
environment (processes).
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import shutil
from collections.abc import Awaitable, Callable, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Network
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

import msgspec

from tulle.core.model.interception import Interception
from tulle.core.model.workload import Capture, ProxyPorts
from tulle.kit.errors import Refused, TulleError, Unavailable
from tulle.node import holders, host_network, nftables, process, resolv
from tulle.node.host_network import PRIVATE_RANGES, program
from tulle.node.network import Sandbox
from tulle.node.process import Process
from tulle.node.sandbox import GatewaySandbox, NetnsSandbox, SandboxRecord, perform

_FIRST = 10  # the first workload's number in the range; the bridge has 1
_LAST = 65000
# Where workloads go by IPv6: local addresses, as services have them. To all others there is no way, and no program tries.
_LOCAL = "fc00::/7"

_T = TypeVar("_T", bound=msgspec.Struct)


class Numbers(msgspec.Struct, frozen=True):
    """The number in the address range that each workload has, or had last."""

    of: dict[str, int]


class NetworkRecord(msgspec.Struct, frozen=True):
    """What the sandboxes share: their address ranges, and the pause process of the user namespace (None as root)."""

    network: str
    outer: Process | None = None
    network6: str = ""


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
        self._datagrams = True  # until a sandbox could not be made so

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
        network6 = _range_of_six(network)
        commands = ["link set lo up", *self._bridge_commands(network, network6)]
        held = await perform("hold", links=commands, ip=program("ip"), sleep=program("sleep"), environment=self._environment())
        return NetworkRecord(str(network), Process(held["pid"], held["started"]), network6)

    async def _open_root(self, wanted: str | None = None) -> NetworkRecord:
        async with host_network.one_at_a_time():
            network = await host_network.free_range(wanted)
            network6 = _range_of_six(network)
            forward = await host_network.forward_before()
            await perform("links", ip=program("ip"), links=self._bridge_commands(network, network6))
            await host_network.mark(self._bridge, self.instance, forward)
            await host_network.load(nftables.host_rules(self._bridge, self._bridge, str(network)))
            await host_network.pass_firewall(self._bridge)
        return NetworkRecord(str(network), network6=network6)

    def _bridge_commands(self, network: IPv4Network, network6: str) -> list[str]:
        # Without an address of its own a bridge has that of one of its ports, and another where a workload comes or goes: all
        # the others would reach nothing beyond for the seconds until their kernels ask again.
        return [
            f"link add name {self._bridge} address {_hardware_address(network[1])} type bridge",
            f"address add {network[1]}/{network.prefixlen} dev {self._bridge}",
            *([f"address add {IPv6Network(network6)[1]}/64 dev {self._bridge} nodad"] if network6 else []),
            f"link set {self._bridge} up",
        ]

    async def create(self, workload: str, ports: Sequence[int] = (), chosen: Interception | None = None) -> Sandbox:
        """See `Network.create`."""
        await self.open()
        await self.destroy(workload)
        assert self._record is not None
        network = IPv4Network(self._record.network)
        network6 = IPv6Network(self._record.network6) if self._record.network6 else None
        number = self._allot(workload)
        try:
            address, link = str(network[number]), self._link(number)
            address6 = str(network6[number]) if network6 else ""
            links = [
                f"link add name {link} type veth peer name eth0 netns PID",
                f"link set {link} master {self._bridge} up",
            ]
            inner_links = [
                "link set lo up",
                f"link set eth0 address {_hardware_address(network[number])}",
                f"address add {address}/{network.prefixlen} dev eth0",
                *([f"address add {address6}/64 dev eth0 nodad"] if network6 else []),
                "link set eth0 up",
                f"route add default via {network[1]}",
                *([f"route add {_LOCAL} via {network6[1]}"] if network6 else []),
            ]

            async def make(datagrams: bool) -> dict[str, Any]:
                return await perform(
                    "sandbox",
                    **self._outer(),
                    ip=program("ip"), nft=program("nft"), sleep=program("sleep"),
                    environment=self._environment(),
                    ipv6=bool(network6),
                    links=links,
                    inner_links=[*inner_links, *(nftables.datagram_routes(address) if datagrams else ())],
                    inner_links6=nftables.datagram_routes(address6) if datagrams and address6 else [],
                    rules=nftables.workload_rules(
                        ProxyPorts(), ports, chosen or Interception(), ipv6=bool(network6), datagrams=datagrams
                    ),
                )  # fmt: skip

            made = await self._with_datagrams(make)
        except BaseException:
            self._used.discard(number)
            raise
        folder = self._folder_of(workload)
        folder.mkdir(mode=0o700, exist_ok=True)
        mounts = resolv.write_coverings(folder, workload.partition("/")[0])
        holder = Process(made["pid"], made["started"])
        record = SandboxRecord(workload, number, address, holder, tuple(ports), tuple(mounts), address6, self._datagrams)
        _write(self._path(workload), record)
        return NetnsSandbox(record, user=self.rootless)

    async def _with_datagrams(self, make: Callable[[bool], Awaitable[dict[str, Any]]]) -> dict[str, Any]:
        """A sandbox that captures UDP to virtual addresses; without that where the kernel lacks it (`socket` in rules, rules of
        routes), for then nothing else works less.
        """
        if self._datagrams:
            try:
                return await make(True)
            except Unavailable:
                made = await make(False)
                self._datagrams = False
                return made
        return await make(False)

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


def _range_of_six(network: IPv4Network) -> str:
    """The addresses of IPv6 beside a range; "" where this host has none to give. The same range, the same addresses."""
    return f"fd74:756c:{network.network_address.packed[1]:x}::/64" if host_network.gives_ipv6() else ""


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
