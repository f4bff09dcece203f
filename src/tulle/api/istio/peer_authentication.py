"""PeerAuthentication: whether workloads accept plaintext, mutual TLS or both."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from tulle.api.istio.shared import WorkloadSelector
from tulle.api.istio.status import IstioStatus
from tulle.api.object import Fault, Object, Ruled, Schema
from tulle.api.values import Map


class MutualTLS(Schema):
    """UNSET inherits from the namespace or the mesh."""

    mode: Literal["UNSET", "DISABLE", "PERMISSIVE", "STRICT"] = "UNSET"


class PeerAuthenticationSpec(Ruled):
    """The mode of the selected workloads (all of the namespace without a selector, the whole mesh in the root namespace)."""

    selector: WorkloadSelector | None = None
    mtls: MutualTLS | None = None
    port_level_mtls: Annotated[Map[MutualTLS], Field(min_length=1)] | None = None

    def faults(self) -> Iterator[Fault]:
        """Ports only for selected workloads."""
        if self.port_level_mtls is None:
            return
        if self.selector is None or not self.selector.match_labels:
            yield Fault(("portLevelMtls",), "found it without selector.matchLabels; needed a selector of workloads", "Required")
        for port in self.port_level_mtls:
            if not port.isdecimal() or not 1 <= int(port[:6]) <= 65535:
                yield Fault(("portLevelMtls", port), f'found "{port}"; needed a port from 1 to 65535')


class PeerAuthentication(Object):
    """Istio's PeerAuthentication."""

    kind: Literal["PeerAuthentication"] = "PeerAuthentication"
    spec: PeerAuthenticationSpec = Field(default_factory=PeerAuthenticationSpec)
    status: IstioStatus | None = None
