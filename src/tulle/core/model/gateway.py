"""Gateways: the ports that a gateway workload binds, and what becomes of the connections to each, told apart by server name."""

from __future__ import annotations

import msgspec

from tulle.core.model.authorization import OPEN_TO_STRANGERS, Guard
from tulle.core.model.destination import DestinationKey
from tulle.core.model.rate_limit import ConnectionCounter, Counter
from tulle.core.model.route import RouteTableKey, WeightedDestination
from tulle.core.model.tcp_route import PLAIN, Carriage, TcpRoute
from tulle.core.model.telemetry import STANDARD, Telemetry


class SecretRef(msgspec.Struct, frozen=True, order=True, omit_defaults=True):
    """What a secret of a gateway is made of: `objects` are (kind, namespace, name) of Secrets and ConfigMaps.

    `authorities`: the certificates in all of them that clients are checked with; else the certificate of the one, and its key.
    The kind "File" is a path on the gateway's host, which its node reads: a certificate and its key, or authorities and what they
    revoked.
    """

    objects: tuple[tuple[str, str, str], ...]
    authorities: bool = False

    @property
    def resource(self) -> str:
        """The name by which Envoy asks for it, in Istio's form: `kubernetes://shop/cert`, `kubernetes://shop/cert-cacert`."""
        if self.is_file:
            return f"file-{'root' if self.authorities else 'cert'}:{'~'.join(path for _kind, _none, path in self.objects)}"
        names = (f"{'' if kind == 'Secret' else f'{kind}:'}{namespace}/{name}" for kind, namespace, name in self.objects)
        return f"kubernetes://{','.join(names)}{'-cacert' if self.authorities else ''}"

    @property
    def is_file(self) -> bool:
        """Whether the gateway's node has it, and not the mesh."""
        return self.objects[0][0] == "File"


class ServerTls(msgspec.Struct, frozen=True, order=True, omit_defaults=True):
    """TLS that ends at the gateway: with which `certificates`, and the `authorities` of the clients' (None: they show none).

    `mesh`: the workload's own certificate, and clients of the mesh only. `require`: no connection without a client's
    certificate; `fallback`: any certificate will do, and none. `minimum` and `maximum` are `TLSv1_0` to `TLSv1_3`, "" for
    Envoy's own. `alpn` is what is spoken inside.
    """

    certificates: tuple[SecretRef, ...] = ()
    authorities: SecretRef | None = None
    mesh: bool = False
    require: bool = False
    fallback: bool = False
    names: tuple[str, ...] = ()  # that a client's certificate must have one of
    spki: tuple[str, ...] = ()
    hashes: tuple[str, ...] = ()
    minimum: str = ""
    maximum: str = ""
    ciphers: tuple[str, ...] = ()
    curves: tuple[str, ...] = ()
    alpn: tuple[str, ...] = ("h2", "http/1.1")

    @property
    def secrets(self) -> tuple[SecretRef, ...]:
        """The secrets of the mesh that it needs."""
        found = (*self.certificates, *((self.authorities,) if self.authorities else ()))
        return tuple(ref for ref in found if not ref.is_file)


class GatewayChain(msgspec.Struct, frozen=True, omit_defaults=True):
    """Connections of a port: TLS for certain server `names` (none: for any other), or what is not TLS.

    `encrypted`: the chain is for TLS; without `tls` it is passed through as it is. `http3` is the port at which clients may come
    again by HTTP/3, 0 where they may not. They go to the routes of `table`, or where
    that is None to `destinations` by weight; without any they are closed.
    """

    names: tuple[str, ...] = ()
    encrypted: bool = False
    tls: ServerTls | None = None
    table: RouteTableKey | None = None
    destinations: tuple[WeightedDestination, ...] = ()
    carriage: Carriage = PLAIN
    guard: Guard = OPEN_TO_STRANGERS
    http3: int = 0
    telemetry: Telemetry = STANDARD
    counter: Counter | None = None  # of requests, by limits of the Gateway
    connections: tuple[ConnectionCounter, ...] = ()


class GatewayListener(msgspec.Struct, frozen=True, omit_defaults=True):
    """A bound port of a gateway and what is behind it.

    `routes` forward what no chain has: TLS by server name as it comes, and TCP. A connection that nothing is for is closed.
    """

    port: int
    chains: tuple[GatewayChain, ...] = ()
    address: str = "0.0.0.0"  # noqa: S104 - a gateway is there to be reached
    routes: tuple[TcpRoute, ...] = ()
    guard: Guard = OPEN_TO_STRANGERS  # of `routes`
    telemetry: Telemetry = STANDARD  # of `routes`
    connections: tuple[ConnectionCounter, ...] = ()  # of `routes`

    @property
    def guards(self) -> tuple[Guard, ...]:
        """What stands before what is behind the port, each once."""
        return tuple(dict.fromkeys((*((self.guard,) if self.routes else ()), *(chain.guard for chain in self.chains))))

    @property
    def tables(self) -> tuple[RouteTableKey, ...]:
        """The route tables behind the port."""
        return tuple(chain.table for chain in self.chains if chain.table is not None)

    @property
    def secrets(self) -> tuple[SecretRef, ...]:
        """The secrets of the mesh that its TLS needs, each once."""
        return tuple(dict.fromkeys(ref for chain in self.chains if chain.tls is not None for ref in chain.tls.secrets))


class UdpListener(msgspec.Struct, frozen=True, omit_defaults=True):
    """A UDP port that a gateway binds, or a sidecar at a virtual `address`, and the destination of its own for its datagrams."""

    port: int
    destination: DestinationKey
    address: str = "0.0.0.0"  # noqa: S104 - a gateway is there to be reached


class GatewaySecret(msgspec.Struct, frozen=True, omit_defaults=True):
    """A secret of a gateway: what it is made of, and fingerprints of what is in that. Never the content."""

    ref: SecretRef
    fingerprints: tuple[str, ...]
