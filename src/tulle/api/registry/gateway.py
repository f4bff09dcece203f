"""The Gateway API's kinds."""

from __future__ import annotations

from tulle.api.columns import ACCEPTED, ADDRESSES, PARENTS, POLICY_TARGETS, PROGRAMMED, WEIGHTS, condition, each, field
from tulle.api.kind import Kind

GATEWAY_API = "gateway.networking.k8s.io"

_GATEWAY = ("gateway-api",)

KINDS: tuple[Kind, ...] = (
    Kind(
        GATEWAY_API,
        ("v1", "v1beta1"),
        "GatewayClass",
        "gatewayclasses",
        "tulle.api.gateway:GatewayClass",
        namespaced=False,
        short_names=("gc",),
        categories=_GATEWAY,
        columns=(
            field("Controller", "spec.controllerName"),
            condition("Accepted", "Accepted"),
            field("Description", "spec.description", wide=True),
        ),
    ),
    Kind(
        GATEWAY_API,
        ("v1", "v1beta1"),
        "Gateway",
        "gateways",
        "tulle.api.gateway:Gateway",
        short_names=("gtw",),
        categories=_GATEWAY,
        columns=(
            field("Class", "spec.gatewayClassName"),
            ADDRESSES,
            condition("Accepted", "Accepted"),
            PROGRAMMED,
        ),
    ),
    Kind(
        GATEWAY_API,
        ("v1", "v1beta1"),
        "HTTPRoute",
        "httproutes",
        "tulle.api.gateway:HTTPRoute",
        categories=_GATEWAY,
        columns=(field("Hostnames", "spec.hostnames"), PARENTS, ACCEPTED, WEIGHTS),
    ),
    Kind(
        GATEWAY_API,
        ("v1beta1", "v1"),
        "ReferenceGrant",
        "referencegrants",
        "tulle.api.gateway:ReferenceGrant",
        short_names=("refgrant",),
        categories=_GATEWAY,
        columns=(each("From", "spec.from.*.namespace"), each("To", "spec.to.*.kind")),
    ),
    Kind(
        GATEWAY_API,
        ("v1",),
        "GRPCRoute",
        "grpcroutes",
        "tulle.api.gateway:GRPCRoute",
        categories=_GATEWAY,
        columns=(field("Hostnames", "spec.hostnames"), PARENTS, ACCEPTED, WEIGHTS),
    ),
    Kind(
        GATEWAY_API,
        ("v1", "v1alpha3", "v1alpha2"),
        "TLSRoute",
        "tlsroutes",
        "tulle.api.gateway:TLSRoute",
        tighter={"v1": "tulle.api.gateway:TLSRouteV1", "v1alpha3": "tulle.api.gateway:TLSRouteV1"},
        categories=_GATEWAY,
        columns=(PARENTS, ACCEPTED, WEIGHTS),
    ),
    Kind(
        GATEWAY_API,
        ("v1", "v1alpha2"),
        "TCPRoute",
        "tcproutes",
        "tulle.api.gateway:TCPRoute",
        tighter={"v1": "tulle.api.gateway:TCPRouteV1"},
        categories=_GATEWAY,
        columns=(PARENTS, ACCEPTED, WEIGHTS),
    ),
    Kind(
        GATEWAY_API,
        ("v1", "v1alpha2"),
        "UDPRoute",
        "udproutes",
        "tulle.api.gateway:UDPRoute",
        tighter={"v1": "tulle.api.gateway:UDPRouteV1"},
        categories=_GATEWAY,
        columns=(PARENTS, ACCEPTED, WEIGHTS),
    ),
    Kind(
        GATEWAY_API,
        ("v1", "v1alpha3"),
        "BackendTLSPolicy",
        "backendtlspolicies",
        "tulle.api.gateway:BackendTLSPolicy",
        short_names=("btlspolicy",),
        categories=_GATEWAY,
        columns=(POLICY_TARGETS, ACCEPTED, field("Hostname", "spec.validation.hostname", wide=True)),
    ),
    Kind(
        GATEWAY_API,
        ("v1",),
        "ListenerSet",
        "listenersets",
        "tulle.api.gateway:ListenerSet",
        short_names=("lset",),
        categories=_GATEWAY,
        columns=(
            field("Parent", "spec.parentRef.name"),
            condition("Accepted", "Accepted"),
            PROGRAMMED,
        ),
    ),
)
