"""The Gateway API's kinds, with upstream's fields of the standard and the experimental channel."""

from tulle.api.gateway.backend_tls import BackendTLSPolicy
from tulle.api.gateway.gateway import Gateway, GatewayClass, ListenerSet, ReferenceGrant
from tulle.api.gateway.http_route import HTTPRoute
from tulle.api.gateway.routes import GRPCRoute, TCPRoute, TCPRouteV1, TLSRoute, TLSRouteV1, UDPRoute, UDPRouteV1

__all__ = [
    "BackendTLSPolicy",
    "GRPCRoute",
    "Gateway",
    "GatewayClass",
    "HTTPRoute",
    "ListenerSet",
    "ReferenceGrant",
    "TCPRoute",
    "TCPRouteV1",
    "TLSRoute",
    "TLSRouteV1",
    "UDPRoute",
    "UDPRouteV1",
]
