"""`proxy` capture: no privilege at all. The application is told of its proxy by environment; nothing is redirected.

All workloads share the host's network, so ports are allotted: for the sidecar's listeners, and for the application, which is
asked by `PORT` to listen there. Each workload has an address of its own in 127.42.0.0/16 where the platform has all of 127/8
(Linux), else 127.0.0.1. What is allotted stands in `sandboxes/ID.json`, so that a restarted agent uses the same.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from urllib.parse import quote

import msgspec

from tulle.core.model.interception import PREFIX, Interception
from tulle.core.model.workload import Capture, ProxyPorts
from tulle.kit.errors import Refused
from tulle.node import launch, process
from tulle.node import ports as ports_of_host
from tulle.node.network import Sandbox, SocketSpec
from tulle.node.sandbox import listening_ports, receiving_ports

_NETWORK = "127.42"
_LAST = 65000


class ProxyRecord(msgspec.Struct, frozen=True):
    """What was allotted to a workload. `inbound` and `app` map declared ports."""

    id: str
    number: int
    address: str
    proxy: ProxyPorts
    inbound: dict[int, int]
    app: dict[int, int]


class ProxySandbox:
    """A workload in the host's network, with allotted ports."""

    capture = Capture.PROXY
    ipv6 = False
    datagrams = False

    def __init__(self, record: ProxyRecord) -> None:
        self.record = record

    @property
    def id(self) -> str:
        """`namespace/name`."""
        return self.record.id

    @property
    def address(self) -> str:
        """On the loopback interface."""
        return self.record.address

    @property
    def proxy_ports(self) -> ProxyPorts:
        """Allotted."""
        return self.record.proxy

    @property
    def inbound_ports(self) -> Mapping[int, int]:
        """Declared port → the sidecar's port for it, allotted."""
        return self.record.inbound

    @property
    def app_ports(self) -> Mapping[int, int]:
        """Declared port → the application's, allotted."""
        return self.record.app

    def app_environment(self) -> dict[str, str]:
        """The proxy in both spellings (programs differ), what not to ask it for, and `PORT` for the first declared port."""
        proxy = f"http://127.0.0.1:{self.proxy_ports.outbound}"
        direct = "localhost,127.0.0.1,::1"
        environment = {"http_proxy": proxy, "HTTP_PROXY": proxy, "no_proxy": direct, "NO_PROXY": direct}
        if self.record.app:
            environment["PORT"] = str(next(iter(self.record.app.values())))
        return environment

    def command(self, argv: Sequence[str], *, app: bool, uid: int | None = None, gid: int | None = None) -> list[str]:
        """There is nothing to enter, and for an application nothing to take away."""
        if app and uid is None and gid is None:
            return list(argv)
        return launch.command(argv, uid=uid, gid=gid, proxy=not app)

    def holds(self, pid: int) -> bool:
        """See `Sandbox.holds`. Who is that user may start processes in any workload of this agent, and so be any of them."""
        return process.marks(pid, os.geteuid()).get(process.WORKLOAD) == self.id

    async def sockets(self, *wanted: SocketSpec) -> list[socket.socket]:
        """Sockets of the host."""
        made = []
        for one in wanted:
            stream = one.kind == "tcp"
            family = socket.AF_INET6 if ":" in one.host else socket.AF_INET
            made.append(new := socket.socket(family, socket.SOCK_STREAM if stream else socket.SOCK_DGRAM))
            new.setblocking(False)
            if not one.host:
                continue
            new.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1 if stream else 0)
            try:
                new.bind((one.host, one.port))
            except OSError as error:
                for each in made:
                    each.close()
                raise Refused(f"sandbox of {self.id}: {one.kind} {one.host}:{one.port}: {error.strerror}") from error
            if stream:
                new.listen(1024)
        return made

    async def dns_sockets(self) -> list[socket.socket]:
        """None: mesh names are asked of the proxy."""
        return []

    def listening(self, wanted: Collection[int] = ()) -> set[int]:
        """TCP ports with a listener on this host."""
        return listening_ports("self", wanted)

    def receiving(self) -> set[int]:
        """UDP ports that are bound on this host."""
        return receiving_ports("self")

    def alive(self) -> bool:
        """Always: there is nothing that could die."""
        return True


class ProxyGateway(ProxySandbox):
    """A gateway on the host, at the addresses and ports that it is configured with."""

    capture = Capture.NONE

    def holds(self, pid: int) -> bool:
        """Nothing: it has no application."""
        return False

    def app_environment(self) -> dict[str, str]:
        """Nothing."""
        return {}


class ProxyNetwork:
    """Implements `Network` without privileges. `folder` is the agent's."""

    capture = Capture.PROXY
    outside = ""
    relayed = False

    def __init__(self, folder: Path) -> None:
        self._folder = folder / "sandboxes"

    async def open(self) -> None:
        """See `Network.open`."""
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)

    async def create(self, workload: str, ports: Sequence[int] = (), chosen: Interception | None = None) -> Sandbox:
        """See `Network.create`."""
        if chosen is not None:
            raise Refused(
                "capture proxy redirects nothing, so that nothing can be included or excluded",
                hint=f"leave the annotations {PREFIX}* out, or use capture netns or cgroup",
            )
        await self.open()
        records = [record for record in self._records() if record.id != workload]
        numbers = {record.number for record in records}
        number = next((n for n in range(1, _LAST) if n not in numbers), None)
        if number is None:
            raise Refused("every address of 127.42.0.0/16 is taken")
        free = ports_of_host.free(4 + 2 * len(ports), taken={port for record in records for port in _allotted(record)})
        own, inbound, app = free[:4], free[4 : 4 + len(ports)], free[4 + len(ports) :]
        record = ProxyRecord(
            workload,
            number,
            _address(number),
            ProxyPorts(outbound=own[0], inbound=own[1], health=own[2], metrics=own[3]),
            dict(zip(ports, inbound, strict=True)),
            dict(zip(ports, app, strict=True)),
        )
        new = self._path(workload).with_suffix(".new")
        new.write_bytes(msgspec.json.encode(record))
        new.replace(self._path(workload))
        return ProxySandbox(record)

    async def adopt(self, workload: str) -> Sandbox | None:
        """See `Network.adopt`."""
        found = _read(self._path(workload))
        return ProxySandbox(found) if found else None

    def recorded(self) -> list[str]:
        """See `Network.recorded`."""
        return sorted(record.id for record in self._records())

    async def gateway(self, workload: str, ports: Sequence[int] = ()) -> Sandbox:
        """See `Network.gateway`."""
        same = {port: port for port in ports}
        return ProxyGateway(ProxyRecord(workload, 0, "127.0.0.1", ProxyPorts(), same, same))

    async def destroy(self, workload: str) -> None:
        """See `Network.destroy`. Its processes are the caller's to stop: nothing here tells them from others."""
        self._path(workload).unlink(missing_ok=True)

    async def teardown(self) -> None:
        """See `Network.teardown`."""
        for record in self._records():
            await self.destroy(record.id)

    def _path(self, workload: str) -> Path:
        return self._folder / f"{quote(workload, safe='')}.json"

    def _records(self) -> list[ProxyRecord]:
        found = [_read(path) for path in sorted(self._folder.glob("*.json"))]
        return [record for record in found if record is not None]


def _read(path: Path) -> ProxyRecord | None:
    try:
        return msgspec.json.decode(path.read_bytes(), type=ProxyRecord)
    except (OSError, msgspec.DecodeError):
        return None


def _allotted(record: ProxyRecord) -> list[int]:
    own = record.proxy
    return [own.outbound, own.inbound, own.health, own.metrics, *record.inbound.values(), *record.app.values()]


def _address(number: int) -> str:
    own = f"{_NETWORK}.{number >> 8}.{number & 255}"
    return own if ports_of_host.can_bind(own, 0) else "127.0.0.1"
