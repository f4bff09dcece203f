"""Workloads: the processes that have a sidecar, and gateways; what their listeners need to know."""

from __future__ import annotations

from enum import StrEnum

import msgspec

from tulle.core.model.destination import DestinationKey
from tulle.core.model.gateway import GatewayListener
from tulle.core.model.route import RouteTableKey
from tulle.core.model.service import Protocol
from tulle.core.model.tcp_route import TcpRoute


class Capture(StrEnum):
    """How traffic gets into the sidecar.

    NETNS: a network namespace of the workload's own, nftables redirects to 15001 and 15006. CGROUP: one process tree of the
    host's namespace. PROXY: the app is given `http_proxy`. NONE: a gateway; nothing is captured.
    """

    NETNS = "netns"
    CGROUP = "cgroup"
    PROXY = "proxy"
    NONE = "none"


class MtlsMode(StrEnum):
    """PeerAuthentication's modes after inheritance."""

    STRICT = "STRICT"
    PERMISSIVE = "PERMISSIVE"
    DISABLE = "DISABLE"


class InboundPort(msgspec.Struct, frozen=True, order=True, omit_defaults=True):
    """A port on which a workload is called.

    `port` is what callers reach (before any redirect), `app_port` where the application listens on 127.0.0.1. In NETNS
    capture they are the same.
    """

    port: int
    app_port: int
    protocol: Protocol = Protocol.AUTO
    mtls: MtlsMode = MtlsMode.PERMISSIVE


class ProxyPorts(msgspec.Struct, frozen=True, omit_defaults=True):
    """The sidecar's own ports; Istio's numbers unless several workloads share one network namespace."""

    outbound: int = 15001
    inbound: int = 15006
    health: int = 15021
    metrics: int = 15090


class OutboundTcp(msgspec.Struct, frozen=True, omit_defaults=True):
    """A service's port that a sidecar knows by the virtual `address`: its bytes go where `routes` say, else to `destination`.

    `sniffed`: nobody said what is spoken there. HTTP is told from the rest and has routes: those of the port's table. The
    address may be a network; without one the server `names` of TLS tell the service, and without these it has all of the port.
    `tls`: it was declared as TLS, so that the client speaks first, however long that takes. `told`: as of a `TcpRoute`.
    """

    address: str
    port: int
    destination: DestinationKey
    sniffed: bool = False
    routes: tuple[TcpRoute, ...] = ()
    names: tuple[str, ...] = ()
    tls: bool = False
    told: bool = False


class Outbound(msgspec.Struct, frozen=True, omit_defaults=True):
    """What the sidecars of one namespace may call: HTTP by route table (one a port), TCP by address. Shared by them all.

    `sniffed` are the tables of ports where only services without a virtual IP may speak HTTP, which nobody declared: what is
    not HTTP goes where it was going. `labels` are those of its tables. With `registry_only` nothing else may be called.
    """

    namespace: str
    http: tuple[RouteTableKey, ...] = ()
    tcp: tuple[OutboundTcp, ...] = ()
    sniffed: tuple[RouteTableKey, ...] = ()
    labels: tuple[tuple[str, str], ...] = ()
    registry_only: bool = False


class Workload(msgspec.Struct, frozen=True, omit_defaults=True):
    """A process with its proxy. `id` is `namespace/name`, `identity` its SPIFFE ID, `node` the host agent that runs it."""

    id: str
    namespace: str
    name: str
    identity: str
    address: str
    node: str = ""
    labels: dict[str, str] = {}
    capture: Capture = Capture.NETNS
    ports: ProxyPorts = ProxyPorts()
    mtls: MtlsMode = MtlsMode.PERMISSIVE  # for ports that no service declares
    inbound: tuple[InboundPort, ...] = ()
    ipv6: bool = False  # its network has IPv6, and what comes that way is captured too
    listeners: tuple[GatewayListener, ...] = ()  # of a gateway
    registry_only: bool = False  # it calls nothing that the mesh does not know
    callers: tuple[tuple[str, str], ...] = ()  # the labels for which it has route tables of its own: see RouteTableKey

    @property
    def is_gateway(self) -> bool:
        """Whether this is an ingress or egress gateway instead of a sidecar."""
        return self.capture is Capture.NONE
