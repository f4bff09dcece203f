"""WorkloadGroup: a template for WorkloadEntries that register themselves."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from tulle.api.istio.entries import WorkloadEntrySpec
from tulle.api.istio.status import IstioStatus
from tulle.api.object import Fault, Object, Ruled, Schema
from tulle.api.rules import at_most_one
from tulle.api.values import Many, Map, UInt32, Words

Count = Annotated[int, Field(ge=0, le=2**31 - 1, json_schema_extra={"format": "int32"})]
_HEADER = "^[-_A-Za-z0-9]+$"


class GroupMetadata(Schema):
    """Labels and annotations of the entries."""

    labels: Annotated[Map[str], Field(max_length=256)] = Field(default_factory=dict)
    annotations: Annotated[Map[str], Field(max_length=256)] = Field(default_factory=dict)


class ProbeHeader(Schema):
    """A header of the probe's request."""

    name: Annotated[str, Field(pattern=_HEADER), Words('a header name of letters, digits, "-" and "_"')] | None = None
    value: str = ""


class _OnPort(Ruled):
    """A probe of a port."""

    port: UInt32

    def faults(self) -> Iterator[Fault]:
        """A port number."""
        if not 1 <= self.port <= 65535:
            yield Fault(("port",), f"found {self.port}; needed a port from 1 to 65535")


class HTTPProbe(_OnPort):
    """Healthy where a GET answers 200 to 399."""

    path: str = ""
    host: str = ""
    scheme: str = ""
    http_headers: Many[ProbeHeader] = ()

    def faults(self) -> Iterator[Fault]:
        """A port number and a scheme."""
        yield from super().faults()
        if self.scheme not in ("", "HTTP", "HTTPS"):
            yield Fault(("scheme",), f'found "{self.scheme}"; needed HTTP or HTTPS', "BadEnum")


class TCPProbe(_OnPort):
    """Healthy where a connection opens."""

    host: str = ""


class ExecProbe(Schema):
    """Healthy where a command exits with 0."""

    command: Many[Annotated[str, Field(min_length=1)]]


class GRPCProbe(Ruled):
    """Healthy where gRPC's health service says so."""

    service: str = ""
    port: UInt32 | None = None

    def faults(self) -> Iterator[Fault]:
        """A port number."""
        if self.port is not None and not 1 <= self.port <= 65535:
            yield Fault(("port",), f"found {self.port}; needed a port from 1 to 65535")


class ReadinessProbe(Ruled):
    """When an entry is ready."""

    initial_delay_seconds: Count = 0
    timeout_seconds: Count = 0
    period_seconds: Count = 0
    success_threshold: Count = 0
    failure_threshold: Count = 0
    http_get: HTTPProbe | None = None
    tcp_socket: TCPProbe | None = None
    exec: ExecProbe | None = None
    grpc: GRPCProbe | None = None

    def faults(self) -> Iterator[Fault]:
        """One kind of probe."""
        yield from at_most_one(self, "httpGet", "tcpSocket", "exec", "grpc")


class TemplateSpec(WorkloadEntrySpec):
    """An entry's fields but for its address, which it brings along."""

    def needs_address(self) -> bool:
        """No: each entry has its own."""
        return False


class WorkloadGroupSpec(Schema):
    """What the entries have in common."""

    metadata: GroupMetadata | None = None
    template: TemplateSpec
    probe: ReadinessProbe | None = None


class WorkloadGroup(Object):
    """Istio's WorkloadGroup."""

    kind: Literal["WorkloadGroup"] = "WorkloadGroup"
    spec: WorkloadGroupSpec
    status: IstioStatus | None = None
