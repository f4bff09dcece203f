"""What a WorkloadEntry says beside its fields: the mesh's annotations and labels (docs/architecture.md, "Workloads")."""

from __future__ import annotations

from typing import TypeVar

import msgspec

from tulle.api.istio import WorkloadEntry
from tulle.core.model.workload import Capture

T = TypeVar("T")

NODE = "tulle.dev/node"
CAPTURE = "tulle.dev/capture"
READY = "tulle.dev/ready"
MTLS = "tulle.dev/mtls"
TLS_MODE = "security.istio.io/tlsMode"  # a label
PROXY_PORTS = "tulle.dev/proxy-ports"
APP_PORTS = "tulle.dev/app-ports"
IPV6 = "tulle.dev/ipv6"
DATAGRAMS = "tulle.dev/datagrams"


def labels_of(entry: WorkloadEntry) -> dict[str, str]:
    """A workload's labels: those of its spec over those of the object."""
    return {**entry.metadata.labels, **entry.spec.labels}


def has_sidecar(entry: WorkloadEntry) -> bool:
    """Whether mutual TLS is answered there: said outright, or because a node runs it. A gateway's callers are no mesh."""
    notes = entry.metadata.annotations
    if is_gateway(entry):
        return False
    if said := notes.get(MTLS):
        return said == "true"
    return NODE in notes


def is_gateway(entry: WorkloadEntry) -> bool:
    """Whether the workload is an ingress or egress gateway."""
    return entry.metadata.annotations.get(CAPTURE) == Capture.NONE


def has_proxy(entry: WorkloadEntry) -> bool:
    """Whether an Envoy there asks for its configuration."""
    return is_gateway(entry) or has_sidecar(entry)


def json_note(entry: WorkloadEntry, note: str, shape: type[T]) -> T | None:
    """An annotation that is JSON of that shape; None where it is absent or something else."""
    try:
        return msgspec.json.decode(entry.metadata.annotations.get(note, ""), type=shape)
    except msgspec.MsgspecError:
        return None


def app_ports(entry: WorkloadEntry) -> dict[int, int]:
    """The application's ports by those that callers reach, where they differ."""
    return json_note(entry, APP_PORTS, dict[int, int]) or {}
