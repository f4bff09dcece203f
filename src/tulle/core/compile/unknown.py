"""Where what the mesh does not know goes, for those who follow a Sidecar: to an egress proxy, or where it was going."""

from __future__ import annotations

from tulle.api.istio import Sidecar
from tulle.core.compile import backends
from tulle.core.flow import Fetch
from tulle.core.model.destination import DestinationKey
from tulle.kit.problem import Problem


def egress_proxy(fetch: Fetch, row: Sidecar | None) -> DestinationKey | None:
    """Where those who follow a Sidecar send what the mesh does not know; None: where it was going."""
    found = egress_proxy_found(fetch, row)
    if isinstance(found, Problem):
        # Nothing gets past a proxy that is not there.
        return DestinationKey("nowhere.invalid", 0)
    return found


def egress_proxy_found(fetch: Fetch, row: Sidecar | None) -> backends.Found | None:
    """The same, or what is wrong with it."""
    said = row.spec.outbound_traffic_policy if row else None
    if row is None or said is None or said.egress_proxy is None or said.mode != "ALLOW_ANY":
        return None
    proxy = said.egress_proxy
    number = proxy.port.number if proxy.port else None
    return backends.find(fetch, row.ref, "spec.outboundTrafficPolicy.egressProxy", proxy.host, number, proxy.subset, 0)
