"""How traffic gets into the sidecars: the `Network` that the node agent creates each workload's `Sandbox` in.

    capture.choose("auto", ...) → Network ──create("default/reviews-v1")→ Sandbox ──command(argv)→ a process inside it

`capture.choose` picks one: `netns.py` implements it with network namespaces (as root, and inside one user namespace without),
`cgroup.py` with control groups in the host's own network (as root), `proxy.py` without any privilege. A `Network` belongs to one
instance of the agent and keeps its records in that agent's folder: an agent that comes back calls `open()` and `adopt()`, and
`teardown()` removes everything, also after a `kill -9` of anything.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Protocol

import msgspec

from tulle.core.model.interception import Interception
from tulle.core.model.workload import Capture, ProxyPorts

PROXY_MARK = 1337  # the socket mark of a proxy's own connections, exempt from capture
DNS_PORT = 15053
MERGED_METRICS = 15020  # Istio's metrics of a workload, and its application's
PROXY_DNS_PORT = 15054  # where the proxy asks for names of the world outside
PASSTHROUGH_SOURCE = "127.0.0.6"  # what a proxy binds to where it connects to its own application by the workload's address


class SocketSpec(msgspec.Struct, frozen=True):
    """A socket to be made inside a sandbox: `kind` is `tcp` or `udp`; bound to `host`:`port` (and listening, if tcp).

    With an empty `host` it is left unbound, for the caller to connect.
    """

    kind: str
    host: str = ""
    port: int = 0


class Sandbox(Protocol):
    """Where one workload's application and proxy run."""

    @property
    def id(self) -> str:
        """`namespace/name`."""
        ...

    @property
    def capture(self) -> Capture:
        """NETNS, CGROUP, PROXY, or NONE for a gateway."""
        ...

    @property
    def address(self) -> str:
        """The IP address by which other workloads reach it: the WorkloadEntry's `spec.address`."""
        ...

    @property
    def proxy_ports(self) -> ProxyPorts:
        """The sidecar's own ports, Istio's numbers unless the network namespace is shared (`cgroup` and `proxy`)."""
        ...

    @property
    def ipv6(self) -> bool:
        """Whether its network has IPv6 that is captured; elsewhere there is none for it."""
        ...

    @property
    def datagrams(self) -> bool:
        """Whether UDP to virtual addresses is captured."""
        ...

    @property
    def inbound_ports(self) -> Mapping[int, int]:
        """Declared port → port on `address` where callers reach the sidecar. The same number but in `proxy`."""
        ...

    @property
    def app_ports(self) -> Mapping[int, int]:
        """Declared port → port where the application has to listen. The same number but in `proxy`."""
        ...

    def app_environment(self) -> dict[str, str]:
        """What the application is to be given beside its own environment (which wins): `PORT`, and `http_proxy` in `proxy`."""
        ...

    def command(self, argv: Sequence[str], *, app: bool, uid: int | None = None, gid: int | None = None) -> list[str]:
        """The argument list that runs `argv` inside; start it with the environment and the folder that `argv` is to have.

        The process that is started becomes the program (`exec`): its pid, exit code, signals, terminal and open files are the
        program's. `app`: an application (the workload's `resolv.conf`, no privileges of ours); otherwise a proxy, which may set
        socket marks. `uid`, `gid`: as root only, whom to run it as. Exit code 125: the sandbox is gone; 126, 127: `argv[0]`
        cannot be run, is not found.
        """
        ...

    async def sockets(self, *wanted: SocketSpec) -> list[socket.socket]:
        """Sockets of this sandbox's network, non-blocking, to be used (and closed) by the caller's process.

        Raises `Unavailable` where the sandbox is gone, `Refused` where an address is taken.
        """
        ...

    async def dns_sockets(self) -> list[socket.socket]:
        """UDP and listening TCP sockets where captured DNS and the proxy's own arrive, for `DnsServer.serve`; none in `proxy`."""
        ...

    def listening(self, wanted: Collection[int] = ()) -> set[int]:
        """TCP ports on which something listens inside (in `proxy`: on this machine's loopback): the application's readiness.

        With `wanted`, the search ends when these are found, and others may be missing in the answer.
        """
        ...

    def receiving(self) -> set[int]:
        """UDP ports that are bound inside, to take datagrams of whoever sends them."""
        ...

    def holds(self, pid: int) -> bool:
        """Whether a process runs inside, as the kernel says.

        In `proxy`, where the kernel knows of no inside: whether it is of this agent's own user and says that it was started so.
        """
        ...

    def alive(self) -> bool:
        """Whether it still stands."""
        ...


class Network(Protocol):
    """The sandboxes of one node agent. Methods may be called concurrently."""

    @property
    def capture(self) -> Capture:
        """NETNS, CGROUP or PROXY: the `tulle.dev/capture` of its workloads."""
        ...

    @property
    def outside(self) -> str:
        """Empty where sandboxes reach addresses beyond this machine, otherwise the reason why they do not, as a sentence."""
        ...

    async def open(self) -> None:
        """Make what the sandboxes share (bridge, user namespace), or take over what a former agent left. Idempotent."""
        ...

    async def create(self, workload: str, ports: Sequence[int] = (), chosen: Interception | None = None) -> Sandbox:
        """A sandbox for the workload `namespace/name`, whose application declares `ports`; replaces one that stands.

        `chosen` says what of its traffic is captured; nothing is in `proxy`, where it must be None.

        Raises `Refused` with what is missing.
        """
        ...

    async def adopt(self, workload: str) -> Sandbox | None:
        """The sandbox of that id that a former agent left, if it still stands."""
        ...

    def recorded(self) -> list[str]:
        """Ids of the sandboxes on record, also of those that died."""
        ...

    async def gateway(self, workload: str, ports: Sequence[int] = ()) -> Sandbox:
        """The place for a gateway, from which workloads are reached: capture NONE, no namespace of its own; made anew each time.

        Where `relayed` is true its ports are not reachable from the host: see `relay.py`.
        """
        ...

    @property
    def relayed(self) -> bool:
        """Whether a gateway's listeners lie in a user namespace, so that the host needs a relay to reach them."""
        ...

    async def destroy(self, workload: str) -> None:
        """Remove the sandbox and stop what still runs in it. Idempotent."""
        ...

    async def teardown(self) -> None:
        """Remove every sandbox, what they share and the records; nothing that is not this instance's. Idempotent."""
        ...


async def teardown_instance(instance: str, folder: Path) -> None:
    """Remove what any network of an instance left in the kernel, and its records in `folder`: for when there is no agent."""
    from tulle.node.cgroup import CgroupNetwork  # they implement what stands above
    from tulle.node.netns import NetnsNetwork
    from tulle.node.proxy import ProxyNetwork

    await NetnsNetwork(instance, folder, rootless=os.geteuid() != 0).teardown()
    if os.geteuid() == 0:
        await CgroupNetwork(instance, folder).teardown()
    await ProxyNetwork(folder).teardown()
