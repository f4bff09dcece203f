"""Istio's kinds."""

from __future__ import annotations

from tulle.api.columns import SELECTOR, WEIGHTS, each, field
from tulle.api.kind import Kind

NETWORKING = "networking.istio.io"
SECURITY = "security.istio.io"
TELEMETRY = "telemetry.istio.io"

_VERSIONS = ("v1", "v1beta1", "v1alpha3")
_ISTIO_NETWORKING = ("istio-io", "networking-istio-io")
_ISTIO_SECURITY = ("istio-io", "security-istio-io")

KINDS: tuple[Kind, ...] = (
    Kind(
        NETWORKING,
        _VERSIONS,
        "VirtualService",
        "virtualservices",
        "tulle.api.istio:VirtualService",
        short_names=("vs",),
        categories=_ISTIO_NETWORKING,
        columns=(field("Gateways", "spec.gateways"), field("Hosts", "spec.hosts"), WEIGHTS),
    ),
    Kind(
        NETWORKING,
        _VERSIONS,
        "DestinationRule",
        "destinationrules",
        "tulle.api.istio:DestinationRule",
        short_names=("dr",),
        categories=_ISTIO_NETWORKING,
        columns=(field("Host", "spec.host"), each("Subsets", "spec.subsets.*.name", wide=True)),
    ),
    Kind(
        NETWORKING,
        _VERSIONS,
        "Gateway",
        "gateways",
        "tulle.api.istio:Gateway",
        short_names=("gw",),
        categories=_ISTIO_NETWORKING,
        columns=(
            each("Hosts", "spec.servers.*.hosts.*"),
            each("Ports", "spec.servers.*.port.number"),
            field("Selector", "spec.selector", wide=True),
        ),
    ),
    Kind(
        NETWORKING,
        _VERSIONS,
        "ServiceEntry",
        "serviceentries",
        "tulle.api.istio:ServiceEntry",
        short_names=("se",),
        categories=_ISTIO_NETWORKING,
        columns=(field("Hosts", "spec.hosts"), field("Location", "spec.location"), field("Resolution", "spec.resolution")),
    ),
    Kind(
        NETWORKING,
        _VERSIONS,
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
        columns=(field("Mode", "spec.mtls.mode"), SELECTOR),
    ),
    Kind(
        NETWORKING,
        _VERSIONS,
        "WorkloadGroup",
        "workloadgroups",
        "tulle.api.istio:WorkloadGroup",
        short_names=("wg",),
        categories=_ISTIO_NETWORKING,
        columns=(field("Account", "spec.template.serviceAccount"), field("Labels", "spec.template.labels", wide=True)),
    ),
    Kind(
        NETWORKING,
        _VERSIONS,
        "Sidecar",
        "sidecars",
        "tulle.api.istio:Sidecar",
        categories=_ISTIO_NETWORKING,
        columns=(field("Selector", "spec.workloadSelector.labels"), each("Egress", "spec.egress.*.hosts.*", wide=True)),
    ),
    Kind(
        NETWORKING,
        ("v1beta1",),
        "ProxyConfig",
        "proxyconfigs",
        "tulle.api.istio:ProxyConfig",
        categories=_ISTIO_NETWORKING,
        columns=(field("Selector", "spec.selector.matchLabels"),),
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
        columns=(field("Action", "spec.action"), SELECTOR),
    ),
    Kind(
        SECURITY,
        ("v1", "v1beta1"),
        "RequestAuthentication",
        "requestauthentications",
        "tulle.api.istio:RequestAuthentication",
        short_names=("ra",),
        categories=_ISTIO_SECURITY,
        columns=(each("Issuers", "spec.jwtRules.*.issuer"), SELECTOR),
    ),
    Kind(
        TELEMETRY,
        ("v1", "v1alpha1"),
        "Telemetry",
        "telemetries",
        "tulle.api.istio:Telemetry",
        short_names=("telemetry",),
        categories=("istio-io", "telemetry-istio-io"),
        columns=(SELECTOR,),
    ),
)
