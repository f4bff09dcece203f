"""04xx: gateways."""

from __future__ import annotations

from tulle.core.analyze.codes.code import warning

CODES = (
    warning(
        "TUL0401",
        "NoGatewayWorkload",
        "No gateway workload serves this Gateway",
        "A Gateway is only a description: a gateway workload with the labels that it selects (for the Gateway API istio: "
        "ingressgateway) binds its ports.",
        "start one, or correct the selector",
        istio="IST0101",
    ),
    warning(
        "TUL0402",
        "Conflict",
        "Another Gateway has this port and host",
        "Two Gateways on the same gateway workloads have the same host on the same port. What is attached to either is "
        "served there, and which TLS settings hold depends on their age.",
        "keep the host and port in one Gateway, or select other workloads",
        kinds="Gateway",
        istio="IST0145",
    ),
    warning(
        "TUL0403",
        "ProtocolConflict HostnameConflict",
        "Two listeners of the Gateway exclude each other",
        "Listeners on one port have one protocol, and a hostname each. Of those that exclude each other none is served.",
        "give them different ports or hostnames",
        istio="IST0145",
    ),
    warning(
        "TUL0404",
        "InvalidParameters UnsupportedAddress",
        "Nothing of the Gateway is served",
        "The Gateway asks for parameters, or for an address that is no IP address, which the mesh cannot give.",
        "remove what the message names",
    ),
    warning(
        "TUL0405",
        "InvalidRouteKinds",
        "The listener does not take these kinds of routes",
        "allowedRoutes names a kind of routes that a listener of this protocol cannot take.",
        "name only kinds that it takes, or leave allowedRoutes.kinds out",
    ),
    warning(
        "TUL0406",
        "QuicNotServed",
        "HTTP/3 is asked for where it cannot be spoken",
        "HTTP/3 is TLS 1.3 over UDP: it needs a listener of protocol HTTPS whose TLS ends at the gateway. Envoy asks no client "
        "for a certificate over it, and nobody speaks the PROXY protocol before it.",
        "serve it by another Gateway, or leave the annotation out",
    ),
)
