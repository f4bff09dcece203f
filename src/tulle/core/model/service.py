"""Services: what a caller names, and the ports it finds there."""

from __future__ import annotations

from enum import StrEnum

import msgspec

from tulle.kit.problem import Ref


class Protocol(StrEnum):
    """What is spoken on a port, from `appProtocol` or the port's name. AUTO: undeclared."""

    HTTP = "http"
    HTTP2 = "http2"
    GRPC = "grpc"
    TCP = "tcp"
    TLS = "tls"
    AUTO = "auto"

    @property
    def is_http(self) -> bool:
        """Whether HTTP routes apply to the port."""
        return self in (Protocol.HTTP, Protocol.HTTP2, Protocol.GRPC)

    @property
    def may_be_http(self) -> bool:
        """Whether HTTP routes apply to what is spoken there or to a part of it: an undeclared port is sniffed."""
        return self.is_http or self is Protocol.AUTO


# Istio's words for the protocols of ports in its own kinds; all others are TCP.
PROTOCOLS = {
    "HTTP": Protocol.HTTP,
    "HTTP2": Protocol.HTTP2,
    "GRPC": Protocol.GRPC,
    "GRPC-WEB": Protocol.HTTP,
    "HTTPS": Protocol.TLS,
    "TLS": Protocol.TLS,
    "": Protocol.AUTO,
}


class Resolution(StrEnum):
    """How a caller's proxy finds the endpoints of a service.

    KNOWN: the mesh knows their addresses. DNS: the proxy asks DNS for the endpoints' names and uses all addresses. LOGICAL_DNS:
    the same, and each new connection takes the address that is answered then. ORIGINAL: wherever the caller was going. DYNAMIC:
    the proxy asks DNS for the host that each call names, in HTTP's Host or in TLS.
    """

    KNOWN = "known"
    DNS = "dns"
    LOGICAL_DNS = "logical_dns"
    ORIGINAL = "original"
    DYNAMIC = "dynamic"

    @property
    def has_endpoints(self) -> bool:
        """Whether there are endpoints to choose from; else a call itself says where it goes."""
        return self not in (Resolution.ORIGINAL, Resolution.DYNAMIC)


class ServicePort(msgspec.Struct, frozen=True, omit_defaults=True):
    """A port of a service. `target` is the port number, or the port's name, at the endpoints."""

    number: int
    name: str = ""
    protocol: Protocol = Protocol.AUTO
    target: int | str = 0


class Service(msgspec.Struct, frozen=True, omit_defaults=True):
    """A service as callers see it. `hostname` is the full name; `address` the virtual IP ("" where it has none).

    A host of a ServiceEntry has that object's name in `entry`, and may have `networks` that stand for it beside an address.
    `export_to`: the namespaces that see it ("*": all; none written: all). `subject_alt_names`: whom its endpoints must prove to
    be. `address6` is its virtual IP of the other family. `udp` are its ports for datagrams.
    """

    hostname: str
    name: str
    namespace: str
    address: str = ""
    ports: tuple[ServicePort, ...] = ()
    entry: str = ""
    external: bool = False
    resolution: Resolution = Resolution.KNOWN
    networks: tuple[str, ...] = ()
    export_to: tuple[str, ...] = ()
    subject_alt_names: tuple[str, ...] = ()
    address6: str = ""
    udp: tuple[ServicePort, ...] = ()

    @property
    def ref(self) -> Ref:
        """The object that it is."""
        if self.entry:
            return Ref(kind="ServiceEntry", namespace=self.namespace, name=self.entry, group="networking.istio.io")
        return Ref(kind="Service", namespace=self.namespace, name=self.name)

    def seen_from(self, namespace: str) -> bool:
        """Whether callers in a namespace see it."""
        words = self.export_to
        return not words or "*" in words or namespace in words or ("." in words and namespace == self.namespace)

    def port(self, number: int) -> ServicePort | None:
        """The port with that number, or None."""
        return next((port for port in self.ports if port.number == number), None)

    def datagrams(self, number: int) -> ServicePort | None:
        """The UDP port with that number, or None."""
        return next((port for port in self.udp if port.number == number), None)

    def named_at(self, number: int) -> int:
        """Where the host that a call names is reached (`WeightedDestination.named_at`), for the port with that number."""
        port = self.port(number) if self.resolution is Resolution.DYNAMIC else None
        return port.target if port and isinstance(port.target, int) else 0
