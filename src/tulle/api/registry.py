"""Every kind that is served, one record each. The API server, the decoder, OpenAPI and the command line read only this."""

from __future__ import annotations

from tulle.api.columns import ADDRESSES, DATA, EVENT_OBJECT, PHASE, PORTS, VIRTUAL_IP, WEIGHTS, condition, field
from tulle.api.kind import Kind

NETWORKING = "networking.istio.io"
SECURITY = "security.istio.io"
TELEMETRY = "telemetry.istio.io"
GATEWAY_API = "gateway.networking.k8s.io"

_ISTIO_VERSIONS = ("v1", "v1beta1", "v1alpha3")
_ISTIO_NETWORKING = ("istio-io", "networking-istio-io")
_ISTIO_SECURITY = ("istio-io", "security-istio-io")
_GATEWAY = ("gateway-api",)

KINDS: tuple[Kind, ...] = (
    Kind(
        "",
        ("v1",),
        "Namespace",
        "namespaces",
        "tulle.api.kubernetes:Namespace",
        namespaced=False,
        short_names=("ns",),
        columns=(PHASE,),
        names="label",
    ),
    Kind(
        "",
        ("v1",),
        "Service",
        "services",
        "tulle.api.kubernetes:Service",
        short_names=("svc",),
        categories=("all",),
        columns=(
            field("Type", "spec.type"),
            VIRTUAL_IP,
            PORTS,
            field("Selector", "spec.selector", wide=True),
        ),
        names="rfc1035",
    ),
    Kind("", ("v1",), "ServiceAccount", "serviceaccounts", "tulle.api.kubernetes:ServiceAccount", short_names=("sa",)),
    Kind("", ("v1",), "Secret", "secrets", "tulle.api.kubernetes:Secret", columns=(field("Type", "type"), DATA)),
    Kind("", ("v1",), "ConfigMap", "configmaps", "tulle.api.kubernetes:ConfigMap", short_names=("cm",), columns=(DATA,)),
    Kind(
        "",
        ("v1",),
        "Event",
        "events",
        "tulle.api.kubernetes:Event",
        short_names=("ev",),
        columns=(field("Type", "type"), field("Reason", "reason"), EVENT_OBJECT, field("Message", "message")),
    ),
    Kind(
        NETWORKING,
        _ISTIO_VERSIONS,
        "VirtualService",
        "virtualservices",
        "tulle.api.istio:VirtualService",
        short_names=("vs",),
        categories=_ISTIO_NETWORKING,
        columns=(field("Gateways", "spec.gateways"), field("Hosts", "spec.hosts"), WEIGHTS),
    ),
    Kind(
        NETWORKING,
        _ISTIO_VERSIONS,
        "DestinationRule",
        "destinationrules",
        "tulle.api.istio:DestinationRule",
        short_names=("dr",),
        categories=_ISTIO_NETWORKING,
        columns=(field("Host", "spec.host"),),
    ),
    Kind(
        NETWORKING,
        _ISTIO_VERSIONS,
        "Gateway",
        "gateways",
        "tulle.api.istio:Gateway",
        short_names=("gw",),
        categories=_ISTIO_NETWORKING,
        columns=(field("Selector", "spec.selector", wide=True),),
    ),
    Kind(
        NETWORKING,
        _ISTIO_VERSIONS,
        "ServiceEntry",
        "serviceentries",
        "tulle.api.istio:ServiceEntry",
        short_names=("se",),
        categories=_ISTIO_NETWORKING,
        columns=(field("Hosts", "spec.hosts"), field("Location", "spec.location"), field("Resolution", "spec.resolution")),
        acted_on=False,
    ),
    Kind(
        NETWORKING,
        _ISTIO_VERSIONS,
        "WorkloadEntry",
        "workloadentries",
        "tulle.api.istio:WorkloadEntry",
        short_names=("we",),
        categories=_ISTIO_NETWORKING,
        columns=(field("Address", "spec.address"), field("Labels", "spec.labels", wide=True)),
    ),
    Kind(
        SECURITY,
        ("v1", "v1beta1"),
        "PeerAuthentication",
        "peerauthentications",
        "tulle.api.istio:PeerAuthentication",
        short_names=("pa",),
        categories=_ISTIO_SECURITY,
        columns=(field("Mode", "spec.mtls.mode"),),
    ),
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
        columns=(field("Class", "spec.gatewayClassName"), ADDRESSES, condition("Programmed", "Programmed")),
    ),
    Kind(
        GATEWAY_API,
        ("v1", "v1beta1"),
        "HTTPRoute",
        "httproutes",
        "tulle.api.gateway:HTTPRoute",
        categories=_GATEWAY,
        columns=(field("Hostnames", "spec.hostnames"), WEIGHTS),
    ),
    Kind(
        GATEWAY_API,
        ("v1beta1", "v1"),
        "ReferenceGrant",
        "referencegrants",
        "tulle.api.gateway:ReferenceGrant",
        short_names=("refgrant",),
        categories=_GATEWAY,
    ),
    Kind(
        NETWORKING,
        _ISTIO_VERSIONS,
        "WorkloadGroup",
        "workloadgroups",
        "tulle.api.istio:WorkloadGroup",
        short_names=("wg",),
        categories=_ISTIO_NETWORKING,
        acted_on=False,
    ),
    Kind(
        NETWORKING,
        _ISTIO_VERSIONS,
        "Sidecar",
        "sidecars",
        "tulle.api.istio:Sidecar",
        categories=_ISTIO_NETWORKING,
        acted_on=False,
    ),
    Kind(
        NETWORKING,
        ("v1beta1",),
        "ProxyConfig",
        "proxyconfigs",
        "tulle.api.istio:ProxyConfig",
        categories=_ISTIO_NETWORKING,
        acted_on=False,
    ),
    Kind(
        SECURITY,
        ("v1", "v1beta1"),
        "AuthorizationPolicy",
        "authorizationpolicies",
        "tulle.api.istio:AuthorizationPolicy",
        short_names=("ap",),
        categories=_ISTIO_SECURITY,
        columns=(field("Action", "spec.action"),),
        acted_on=False,
    ),
    Kind(
        SECURITY,
        ("v1", "v1beta1"),
        "RequestAuthentication",
        "requestauthentications",
        "tulle.api.istio:RequestAuthentication",
        short_names=("ra",),
        categories=_ISTIO_SECURITY,
        acted_on=False,
    ),
    Kind(
        TELEMETRY,
        ("v1", "v1alpha1"),
        "Telemetry",
        "telemetries",
        "tulle.api.istio:Telemetry",
        short_names=("telemetry",),
        categories=("istio-io", "telemetry-istio-io"),
        acted_on=False,
    ),
    Kind(
        GATEWAY_API,
        ("v1",),
        "GRPCRoute",
        "grpcroutes",
        "tulle.api.gateway:GRPCRoute",
        categories=_GATEWAY,
        columns=(field("Hostnames", "spec.hostnames"), WEIGHTS),
        acted_on=False,
    ),
    Kind(
        GATEWAY_API,
        ("v1", "v1alpha3", "v1alpha2"),
        "TLSRoute",
        "tlsroutes",
        "tulle.api.gateway:TLSRoute",
        categories=_GATEWAY,
        columns=(WEIGHTS,),
        acted_on=False,
    ),
    Kind(
        GATEWAY_API,
        ("v1", "v1alpha2"),
        "TCPRoute",
        "tcproutes",
        "tulle.api.gateway:TCPRoute",
        categories=_GATEWAY,
        columns=(WEIGHTS,),
        acted_on=False,
    ),
    Kind(
        GATEWAY_API,
        ("v1", "v1alpha2"),
        "UDPRoute",
        "udproutes",
        "tulle.api.gateway:UDPRoute",
        categories=_GATEWAY,
        columns=(WEIGHTS,),
        acted_on=False,
    ),
    Kind(
        GATEWAY_API,
        ("v1", "v1alpha3"),
        "BackendTLSPolicy",
        "backendtlspolicies",
        "tulle.api.gateway:BackendTLSPolicy",
        short_names=("btlspolicy",),
        categories=_GATEWAY,
        acted_on=False,
    ),
    Kind(
        GATEWAY_API,
        ("v1",),
        "ListenerSet",
        "listenersets",
        "tulle.api.gateway:ListenerSet",
        short_names=("lset",),
        categories=_GATEWAY,
        columns=(condition("Accepted", "Accepted"), condition("Programmed", "Programmed")),
        acted_on=False,
    ),
)

_BY_KIND = {(kind.group, kind.kind): kind for kind in KINDS}
_BY_RESOURCE = {kind.resource: kind for kind in KINDS}


def kind_for(group: str, kind: str) -> Kind | None:
    """The kind of that API group ("" for the core) and name, or None."""
    return _BY_KIND.get((group, kind))


def kind_of_resource(resource: str) -> Kind | None:
    """The kind of a resource as kubectl prints it (`virtualservices.networking.istio.io`, `services`), or None."""
    return _BY_RESOURCE.get(resource)
