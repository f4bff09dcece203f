"""What of the Gateway API's conformance suite does not pass yet: test → reason, and the checks of it that fail."""

from __future__ import annotations


def _rows(*numbers: int) -> tuple[str, ...]:
    return tuple(f"row {number}" for number in numbers)


NOT_YET: dict[str, tuple[str, tuple[str, ...]]] = {
    "BackendTLSPolicyGRPCRoute": ("HTTP/2 is not negotiated with backends that have TLS", (*_rows(0),)),
    "GatewayInfrastructure": ("nothing is made for a Gateway that labels could be put on", ("labels of what is made",)),
    "GatewayTLSBackendClientCertificate": ("a Gateway shows backends no certificate of its own", (*_rows(0),)),
    "HTTPRouteServiceTypes": (
        "EndpointSlices that are written by hand are not read",
        (*_rows(0, 2),),
    ),
    "UDPRouteInvalidCrossNamespaceBackendRef": ("UDPRoutes are not acted on", ("conditions",)),
    "UDPRouteParentRefAttachAllListeners": (
        "UDPRoutes are not acted on",
        (
            "conditions",
            "UDP 5310",
            "UDP 5311",
            "UDP 5312",
        ),
    ),
    "UDPRouteParentRefPortAndSectionName": (
        "UDPRoutes are not acted on",
        (
            "conditions",
            "UDP 5300",
            "UDP 5301",
            "UDP 5302",
        ),
    ),
    "UDPRoute": (
        "UDPRoutes are not acted on",
        (
            "conditions",
            "UDP 5300",
        ),
    ),
}
