"""The Gateway API's kinds, with upstream's fields of the standard and the experimental channel."""

from tulle.api.gateway.gateway import Gateway, GatewayClass, ReferenceGrant
from tulle.api.gateway.http_route import HTTPRoute

__all__ = ["Gateway", "GatewayClass", "HTTPRoute", "ReferenceGrant"]
