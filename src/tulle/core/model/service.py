"""Services: what a caller names, and the ports it finds there."""

from __future__ import annotations

from enum import StrEnum

import msgspec


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


class ServicePort(msgspec.Struct, frozen=True, omit_defaults=True):
    """A port of a service. `target` is the port number, or the port's name, at the endpoints."""

    number: int
    name: str = ""
    protocol: Protocol = Protocol.AUTO
    target: int | str = 0


class Service(msgspec.Struct, frozen=True, omit_defaults=True):
    """A service as callers see it. `hostname` is the full name; `address` the virtual IP ("" where it has none)."""

    hostname: str
    name: str
    namespace: str
    address: str = ""
    ports: tuple[ServicePort, ...] = ()

    def port(self, number: int) -> ServicePort | None:
        """The port with that number, or None."""
        return next((port for port in self.ports if port.number == number), None)
