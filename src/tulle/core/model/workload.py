"""Workloads: the processes that have a sidecar, and gateways; what their listeners need to know."""

from __future__ import annotations

from enum import StrEnum

import msgspec

from tulle.core.model.authorization import OPEN, Guard
from tulle.core.model.destination import DestinationKey
from tulle.core.model.edge import ENVOYS_LIMITS, NOBODY_IN_FRONT, Edge, Limits
from tulle.core.model.gateway import GatewayListener, SecretRef, ServerTls, UdpListener
from tulle.core.model.handshake import USUAL, Handshake
from tulle.core.model.rate_limit import ConnectionCounter, Counter
from tulle.core.model.route import RouteTableKey
from tulle.core.model.service import Protocol
from tulle.core.model.tcp_route import PLAIN, Carriage, TcpRoute
from tulle.core.model.telemetry import STANDARD, STANDARD_SIDES, Sides, Telemetry
from tulle.core.model.traffic import ANY_CONNECTIONS, ANY_REQUESTS, Connections, Requests


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


class InboundPort(msgspec.Struct, frozen=True, omit_defaults=True):
    """A port on which a workload is called.

    `port` is what callers reach (before any redirect), `app_port` where the application listens on 127.0.0.1. In NETNS
    capture they are the same. `host` is another address where the application listens, `path` a Unix socket instead. `at` is the
    only address of the workload for which this is, `bind` one at which the sidecar listens beside what is captured. `tls` is
    spoken with callers from outside the mesh, and plaintext is not then. `connections`, `requests` and `carriage` are bounds of
    what goes to the application. `service` is the host name of the one by which it is called there.
    """

    port: int
    app_port: int
    protocol: Protocol = Protocol.AUTO
    mtls: MtlsMode = MtlsMode.PERMISSIVE
    guard: Guard = OPEN
    connections: Connections = ANY_CONNECTIONS
    requests: Requests = ANY_REQUESTS
    carriage: Carriage = PLAIN
    connect_timeout: float = 10.0
    host: str = "127.0.0.1"
    path: str = ""
    at: str = ""
    bind: str = ""
    tls: ServerTls | None = None
    service: str = ""
    telemetry: Telemetry = STANDARD
    counter: Counter | None = None
    connection_counters: tuple[ConnectionCounter, ...] = ()


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
    `tls`: it was declared as TLS, so that the client speaks first, however long that takes. `named_at`: as of a
    `WeightedDestination`.
    """

    address: str
    port: int
    destination: DestinationKey
    sniffed: bool = False
    routes: tuple[TcpRoute, ...] = ()
    names: tuple[str, ...] = ()
    tls: bool = False
    carriage: Carriage = PLAIN
    named_at: int = 0


class EgressListener(msgspec.Struct, frozen=True, omit_defaults=True):
    """Where an application calls its sidecar outright: an `address` (or `unix://` and a path) of its own, as its Sidecar says.

    HTTP has the routes of `table`; with `forward` it names any host, as to a proxy. Else, or (`sniffed`) where it is no HTTP, a
    call goes to one of `tcp`. `captured`: nothing is bound, and calls come there by capture.
    """

    address: str
    port: int = 0
    table: RouteTableKey | None = None
    forward: bool = False
    sniffed: bool = False
    tcp: tuple[OutboundTcp, ...] = ()
    captured: bool = False


class Outbound(msgspec.Struct, frozen=True, omit_defaults=True):
    """What the sidecars of one namespace may call: HTTP by route table (one a port), TCP by address. Shared by them all.

    `sniffed` are the tables of ports where only services without a virtual IP may speak HTTP, which nobody declared: what is
    not HTTP goes where it was going. `labels` are those of its tables. With `registry_only` nothing else may be called;
    else it goes to `unknown`, or (None) where it was going.
    """

    namespace: str
    http: tuple[RouteTableKey, ...] = ()
    tcp: tuple[OutboundTcp, ...] = ()
    sniffed: tuple[RouteTableKey, ...] = ()
    labels: tuple[tuple[str, str], ...] = ()
    registry_only: bool = False
    unknown: DestinationKey | None = None
    limits: Limits = ENVOYS_LIMITS
    telemetry: Telemetry = STANDARD


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
    udp: tuple[UdpListener, ...] = ()  # of a gateway
    registry_only: bool = False  # it calls nothing that the mesh does not know
    unknown: DestinationKey | None = None  # where else that goes; None: where it was going
    callers: tuple[tuple[str, str], ...] = ()  # the labels for which it has route tables of its own: see RouteTableKey
    limits: Limits = ENVOYS_LIMITS  # of the requests that its proxy takes for itself
    edge: Edge = NOBODY_IN_FRONT  # of a gateway
    handshake: Handshake = USUAL  # of mutual TLS with its callers
    guard: Guard = OPEN  # of a sidecar, for ports that no service declares
    egress: tuple[EgressListener, ...] = ()
    cut: int = 0  # another number ends the connections that stand, of callers from the mesh
    telemetry: Sides = STANDARD_SIDES  # of its own calls, and of those it gets at ports that no service declares
    believes: tuple[str, ...] = ()  # how the SPIFFE IDs begin that may come in by mutual TLS, beside its own trust domain's

    @property
    def trust_domain(self) -> str:
        """Its own."""
        return self.identity.removeprefix("spiffe://").partition("/")[0]

    @property
    def accepts(self) -> tuple[str, ...]:
        """How the SPIFFE IDs begin that may come in by mutual TLS: of its own trust domain those of workloads, not of nodes."""
        return (f"spiffe://{self.trust_domain}/ns/", *self.believes)

    @property
    def guards(self) -> tuple[Guard, ...]:
        """What stands before all that it is called at, each once."""
        if self.is_gateway:
            return tuple(dict.fromkeys(one for listener in self.listeners for one in listener.guards))
        places = ((self.guard, self.mtls, None), *((port.guard, port.mtls, port.tls) for port in self.inbound))
        mutual = (guard for guard, mode, _tls in places if mode is not MtlsMode.DISABLE)
        others = (guard.outside for guard, mode, tls in places if mode is not MtlsMode.STRICT or tls)
        return tuple(dict.fromkeys((*mutual, *others)))

    @property
    def counters(self) -> tuple[Counter, ...]:
        """Where its proxy counts requests, each once."""
        chains = (chain.counter for listener in self.listeners for chain in listener.chains)
        return tuple(dict.fromkeys(one for one in (*chains, *(port.counter for port in self.inbound)) if one))

    @property
    def secrets(self) -> tuple[SecretRef, ...]:
        """The secrets of the mesh that its listeners need, each once."""
        found = [one for listener in self.listeners for one in listener.secrets]
        found += [one for port in self.inbound if port.tls for one in port.tls.secrets]
        return tuple(dict.fromkeys(found))

    @property
    def is_gateway(self) -> bool:
        """Whether this is an ingress or egress gateway instead of a sidecar."""
        return self.capture is Capture.NONE
