"""Sidecar and ProxyConfig: what a workload's proxy is told, and how it is started."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from tulle.api.istio.destination_rule import ConnectionPool
from tulle.api.istio.entries import LabelSelector
from tulle.api.istio.gateway import PROTOCOLS, ServerTLS
from tulle.api.istio.hosts import host_fault, is_ip
from tulle.api.istio.http import Destination
from tulle.api.istio.shared import WorkloadSelector
from tulle.api.istio.status import IstioStatus
from tulle.api.object import Fault, Object, Ruled, Schema
from tulle.api.rules import distinct
from tulle.api.values import Many, Map, Nullable, UInt32

_UNIX = "unix://"
_LONGEST_PATH = 107  # Linux takes no longer one
CaptureMode = Literal["DEFAULT", "IPTABLES", "NONE"]


def _path(address: str) -> str:
    """The path (or `@` and the name) of a Unix socket; "" where that cannot be one."""
    path = address.removeprefix(_UNIX)
    return path if path[:1] in ("/", "@") and 1 < len(path.encode()) <= _LONGEST_PATH and "\0" not in path else ""


class SidecarPort(Ruled):
    """A port of a listener."""

    number: UInt32 = 0
    protocol: str = ""
    name: str = ""
    target_port: UInt32 | None = None  # older; not read

    def faults(self) -> Iterator[Fault]:
        """A port number (0 with a Unix socket) and a known protocol."""
        if self.number > 65535:
            yield Fault(("number",), f"found {self.number}; needed a port from 1 to 65535")
        if self.protocol and self.protocol.upper() not in PROTOCOLS:
            yield Fault(("protocol",), f'found "{self.protocol}"; needed one of {", ".join(PROTOCOLS)}', "BadEnum")


class IngressListener(Ruled):
    """A port on which the workload is called."""

    port: SidecarPort
    bind: str = ""
    capture_mode: CaptureMode = "DEFAULT"
    default_endpoint: str = ""
    tls: ServerTLS | None = None
    connection_pool: ConnectionPool | None = None

    def faults(self) -> Iterator[Fault]:
        """A port of the workload behind it."""
        if not 1 <= self.port.number <= 65535:
            yield Fault(("port", "number"), f"found {self.port.number}; needed a port from 1 to 65535")
        endpoint = self.default_endpoint
        if endpoint and not endpoint.startswith(("127.0.0.1:", "0.0.0.0:", "[::1]:", "[::]:", "unix://")):
            message = f'found "{endpoint}"; needed 127.0.0.1:PORT, 0.0.0.0:PORT, [::1]:PORT, [::]:PORT or unix://PATH'
            yield Fault(("defaultEndpoint",), message)
        elif endpoint and not endpoint.startswith(_UNIX):
            port = endpoint.rpartition(":")[2]
            if not (port.isascii() and port.isdigit() and 1 <= int(port[:6]) <= 65535):
                yield Fault(("defaultEndpoint",), f'found "{port}" as its port; needed a port from 1 to 65535')
        elif endpoint.startswith(_UNIX) and not _path(endpoint):
            yield Fault(("defaultEndpoint",), f'found "{endpoint}"; needed unix:// and an absolute path, or unix://@NAME')
        if self.bind and not is_ip(self.bind):
            yield Fault(("bind",), f'found "{self.bind}"; needed an IP address')


class EgressListener(Ruled):
    """What the workload may call: `namespace/host`, where both may be `*`."""

    port: SidecarPort | None = None
    bind: str = ""
    capture_mode: CaptureMode = "DEFAULT"
    hosts: Many[str]

    def faults(self) -> Iterator[Fault]:
        """Hosts with their namespaces; an address, and a port where that has one."""
        number = self.port.number if self.port else None
        if self.bind.startswith(_UNIX):
            if not _path(self.bind):
                yield Fault(("bind",), f'found "{self.bind}"; needed unix:// and an absolute path, or unix://@NAME')
            if number != 0:
                yield Fault(("port", "number"), f"found {number} with a Unix socket; needed 0")
            if self.capture_mode == "IPTABLES":
                yield Fault(("captureMode",), "found IPTABLES with a Unix socket; needed DEFAULT or NONE")
        elif self.bind and not is_ip(self.bind):
            yield Fault(("bind",), f'found "{self.bind}"; needed an IP address, or unix:// and a path')
        elif number == 0:
            yield Fault(("port", "number"), "found 0; needed a port from 1 to 65535, or a Unix socket in bind")
        if not self.hosts:
            yield Fault(("hosts",), 'found none; needed at least one "namespace/host"', "Required")
        for index, host in enumerate(self.hosts):
            namespace, slash, name = host.partition("/")
            if not slash or not namespace:
                yield Fault(
                    ("hosts", index), f'found "{host}"; needed "namespace/host", such as "./*" or "*/reviews.example.com"'
                )
            else:
                yield from host_fault(name, "hosts", index)


class OutboundTrafficPolicy(Schema):
    """What happens to calls of names that the mesh does not know."""

    mode: Literal["REGISTRY_ONLY", "ALLOW_ANY"] = "REGISTRY_ONLY"
    egress_proxy: Destination | None = None


class SidecarSpec(Ruled):
    """What the proxies of the selected workloads are told."""

    workload_selector: LabelSelector | None = None
    ingress: Many[IngressListener] = ()
    egress: Many[EgressListener] = ()
    outbound_traffic_policy: OutboundTrafficPolicy | None = None
    inbound_connection_pool: ConnectionPool | None = None

    def faults(self) -> Iterator[Fault]:
        """Each inbound port once; one listener for the rest of what is called."""
        yield from distinct(self.ingress, lambda listener: listener.port.number, ("ingress",), "port")
        anywhere = [index for index, listener in enumerate(self.egress) if listener.port is None]
        for index in anywhere:
            if index != len(self.egress) - 1:
                message = "found a listener without a port before others; needed it last, and only one"
                yield Fault(("egress", index), message)


class Sidecar(Object):
    """Istio's Sidecar."""

    kind: Literal["Sidecar"] = "Sidecar"
    spec: SidecarSpec = Field(default_factory=SidecarSpec)
    status: IstioStatus | None = None


class ProxyImage(Schema):
    """Which image a proxy runs; of no meaning outside containers."""

    image_type: str = ""


class ProxyConfigSpec(Schema):
    """How the proxies of the selected workloads are started."""

    selector: WorkloadSelector | None = None
    concurrency: Nullable[Annotated[int, Field(ge=0, le=2**31 - 1, json_schema_extra={"format": "int32"})]] = None
    environment_variables: Map[Annotated[str, Field(max_length=2048)]] = Field(default_factory=dict)
    image: ProxyImage | None = None


class ProxyConfig(Object):
    """Istio's ProxyConfig."""

    kind: Literal["ProxyConfig"] = "ProxyConfig"
    spec: ProxyConfigSpec = Field(default_factory=ProxyConfigSpec)
    status: IstioStatus | None = None
