"""Istio's kinds, with upstream's fields; one module a kind or two that belong together."""

from tulle.api.istio.destination_rule import DestinationRule
from tulle.api.istio.entries import ServiceEntry, WorkloadEntry
from tulle.api.istio.gateway import Gateway
from tulle.api.istio.peer_authentication import PeerAuthentication
from tulle.api.istio.virtual_service import VirtualService

__all__ = ["DestinationRule", "Gateway", "PeerAuthentication", "ServiceEntry", "VirtualService", "WorkloadEntry"]
