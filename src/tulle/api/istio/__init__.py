"""Istio's kinds, with upstream's fields; one module a kind or two that belong together."""

from tulle.api.istio.authorization import AuthorizationPolicy, RequestAuthentication
from tulle.api.istio.destination_rule import DestinationRule
from tulle.api.istio.entries import ServiceEntry, WorkloadEntry
from tulle.api.istio.gateway import Gateway
from tulle.api.istio.peer_authentication import PeerAuthentication
from tulle.api.istio.sidecar import ProxyConfig, Sidecar
from tulle.api.istio.telemetry import Telemetry
from tulle.api.istio.virtual_service import VirtualService
from tulle.api.istio.workload_group import WorkloadGroup

__all__ = [
    "AuthorizationPolicy",
    "DestinationRule",
    "Gateway",
    "PeerAuthentication",
    "ProxyConfig",
    "RequestAuthentication",
    "ServiceEntry",
    "Sidecar",
    "Telemetry",
    "VirtualService",
    "WorkloadEntry",
    "WorkloadGroup",
]
