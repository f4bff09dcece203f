"""What of the Gateway API's conformance suite does not pass yet: test → reason, and the checks of it that fail."""

from __future__ import annotations


def _rows(*numbers: int) -> tuple[str, ...]:
    return tuple(f"row {number}" for number in numbers)


NOT_YET: dict[str, tuple[str, tuple[str, ...]]] = {
    "BackendTLSPolicyGRPCRoute": ("BackendTLSPolicies for GRPCRoutes", ("conditions", *_rows(0, 1))),
    "BackendTLSPolicyTLSRouteTerminate": (
        "BackendTLSPolicies are not acted on",
        (
            "conditions",
            "TLS 0 to tls.example.com",
        ),
    ),
    "GatewayInfrastructure": ("nothing is made for a Gateway that labels could be put on", ("labels of what is made",)),
    "GatewayTLSBackendClientCertificate": ("BackendTLSPolicies are not acted on", (*_rows(0),)),
    "HTTPRouteServiceTypes": (
        "EndpointSlices of ones own are not read; the API refuses loopback addresses in them",
        (*_rows(0, 2),),
    ),
    "ListenerSetAllowedRoutesSupportedKinds": ("ListenerSets are not acted on", ("conditions",)),
    "TCPRouteInvalidBackendRefNonexistent": ("TCPRoutes at gateways are not acted on", ("conditions",)),
    "TCPRouteMultipleRoutesAttachment": (
        "TCPRoutes at gateways are not acted on",
        (
            "conditions",
            "TCP 9310",
            "the older route wins",
        ),
    ),
    "TCPRouteParentRefAttachAll": (
        "TCPRoutes at gateways are not acted on",
        (
            "conditions",
            "TCP 9310",
            "TCP 9311",
            "TCP 9312",
            "TCP 9313",
        ),
    ),
    "TCPRouteParentRefPortAndSectionName": (
        "TCPRoutes at gateways are not acted on",
        (
            "conditions",
            "TCP 9300",
            "TCP 9301",
            "TCP 9302",
        ),
    ),
    "TCPRouteWeightedRouting": (
        "TCPRoutes at gateways are not acted on",
        (
            "conditions",
            "shares",
        ),
    ),
    "TLSRouteInvalidBackendRefNonexistent": ("TLSRoutes at gateways are not acted on", ("conditions",)),
    "TLSRouteInvalidBackendRefUnknownKind": ("TLSRoutes at gateways are not acted on", ("conditions",)),
    "TLSRouteInvalidNoMatchingListenerHostname": ("TLSRoutes at gateways are not acted on", ("conditions",)),
    "TLSRouteInvalidReferenceGrant": ("TLSRoutes at gateways are not acted on", ("conditions",)),
    "TLSRouteListenerTerminateSupportedKinds": ("TLSRoutes at gateways are not acted on", ("conditions",)),
    "TLSRouteMixedTerminationSameNamespace": (
        "TLSRoutes at gateways are not acted on",
        (
            "conditions",
            "TLS 0 to abc.example.com",
            "TLS 1 to tls.example.com",
        ),
    ),
    "TLSRouteSimpleSameNamespace": (
        "TLSRoutes at gateways are not acted on",
        (
            "conditions",
            "TLS 0 to abc.example.com",
        ),
    ),
    "TLSRouteTerminateSimpleSameNamespace": (
        "TLSRoutes at gateways are not acted on",
        (
            "conditions",
            "TLS 0 to tls.example.com",
        ),
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
