"""Where tests/property/test_silence.py asks less: what speaks for more, kinds that hide others, fields that say nothing."""

from __future__ import annotations

Place = tuple[str | int, ...]

# Warnings about one field that say that all beside it is without effect.
SPEAKS_FOR: list[tuple[str, Place]] = [
    ("networking.istio.io Gateway", ("tls",)),
    ("networking.istio.io Gateway", ("port", "protocol")),
    ("gateway.networking.k8s.io Gateway", ("protocol",)),
    ("gateway.networking.k8s.io Gateway", ("type",)),
]
# What is left out beside a kind, for it would hide what is tried. (Nor is there another kind of the same name: two Gateways take
# one port from each other.)
APART = {"HTTPRoute": ("VirtualService",), "DestinationRule": ("BackendTLSPolicy",)}
# Fields that say nothing to a mesh, each with the reason.
MEANINGLESS: dict[tuple[str, str], str] = {
    ("DestinationRule", "tunnel.protocol"): "has an effect; the schema does not say its words, so no other is found",
    ("DestinationRule", "zoneAwareLbSetting.minClusterSize"): "counts where there are more instances: see test_zones.py",
    ("RateLimit", "targetRefs.[].group"): "says only which kind of that name is meant",
    ("RateLimit", "targetRefs.[].kind"): "has an effect; no other object is found by chance",
    ("Sidecar", "port.name"): "a listener's name is for people",
    ("Telemetry", "tracing.[].enableIstioTags"): "of spans for collectors: tests/golden/telemetry-traces",
    ("MeshConfig", "opentelemetry.service"): "a Telemetry has to name the provider: tests/golden/telemetry-traces",
    ("MeshConfig", "opentelemetry.port"): "a Telemetry has to name the provider: tests/golden/telemetry-traces",
    ("MeshConfig", "opentelemetry.timeout"): "a Telemetry has to name the provider: tests/golden/telemetry-traces",
    ("MeshConfig", "opentelemetry.maxTagLength"): "a Telemetry has to name the provider: tests/golden/telemetry-traces",
    ("MeshConfig", "opentelemetry.http.path"): "a Telemetry has to name the provider: tests/golden/telemetry-traces",
    ("MeshConfig", "opentelemetry.http.timeout"): "a Telemetry has to name the provider: tests/golden/telemetry-traces",
    ("MeshConfig", "federatedTrustDomains.[].trustDomainBundle"): "the control plane reads it: tests/e2e/test_federation.py",
    ("MeshConfig", "federatedTrustDomains.[].bundleEndpoint.url"): "the control plane asks there",
    ("MeshConfig", "federatedTrustDomains.[].bundleEndpoint.profile"): "how it knows who answers",
    ("MeshConfig", "federatedTrustDomains.[].bundleEndpoint.caCertificates"): "how it knows who answers",
    ("MeshConfig", "federatedTrustDomains.[].bundleEndpoint.spiffeId: no document"): "how it knows who answers",
    ("Sidecar", "egress.[].port.protocol"): "services say what is spoken at their ports",
    (
        "Gateway",
        "selector.matchExpressions.[].operator",
    ): "has an effect; the schema does not say its words, so no other is found",
    ("HTTPRoute", "externalAuth.protocol"): "names the field beside it, which has the effect",
    ("Gateway", "infrastructure.labels"): "the control plane writes them: tests/unit/control/test_infrastructure.py",
    ("Gateway", "infrastructure.annotations"): "the control plane writes them, too",
    ("HTTPRoute", "requestRedirect.path.type"): "names the field beside it, which has the effect",
    ("HTTPRoute", "urlRewrite.path.type"): "names the field beside it, which has the effect",
    ("GRPCRoute", "sessionPersistence.type"): "names the field beside it, which has the effect",
    ("HTTPRoute", "sessionPersistence.type"): "names the field beside it, which has the effect",
    ("AuthorizationPolicy", "when.[].key"): "has an effect; no other key is found by chance",
    ("AuthorizationPolicy", "targetRef.namespace: no document"): "no other than the policy's own is taken",
    ("AuthorizationPolicy", "targetRefs.[].namespace"): "no other than the policy's own is taken",
    ("Telemetry", "targetRef.namespace: no document"): "no other than the policy's own is taken",
    ("Telemetry", "targetRefs.[].namespace"): "no other than the policy's own is taken",
    ("Telemetry", "tagOverrides.{}.operation"): "REMOVE has an effect, and takes no value: see test_telemetry.py",
    ("RequestAuthentication", "targetRef.namespace: no document"): "no other than the policy's own is taken",
    ("RequestAuthentication", "targetRefs.[].namespace"): "no other than the policy's own is taken",
    ("RequestAuthentication", "jwtRules.[].jwksUri"): "has an effect: keys are fetched from there, which nobody does here",
    ("RequestAuthentication", "jwtRules.[].jwks_uri"): "has an effect: keys are fetched from there, which nobody does here",
    ("RequestAuthentication", "jwtRules.[].timeout"): "has an effect: how long fetching may take",
    ("BackendTLSPolicy", "subjectAltNames.[].type"): "says only which of hostname and uri is written",
    (
        "ListenerSet",
        "selector.matchExpressions.[].operator",
    ): "has an effect; the schema does not say its words, so no other is found",
    ("Gateway", "servers.[].port.protocol"): "has an effect; the schema does not say its words, so no other is found",
    ("Gateway", "servers.[].name"): "a name for people",
    ("Gateway", "tls.httpsRedirect"): "has an effect; beside HTTP no other value is taken",
    ("Gateway", "tls.verifyCertificateHash"): "has an effect; no right hash is found by chance",
    ("Gateway", "tls.verifyCertificateSpki"): "has an effect; no right hash is found by chance",
    ("Service", "ipFamilies"): "the API server allots addresses by it: tests/unit/apiserver/test_families.py",
    ("Service", "ipFamilyPolicy"): "the API server allots addresses by it, too",
    ("Service", "externalName"): "belongs to the type ExternalName, of which a warning speaks",
    ("Service", "allocateLoadBalancerNodePorts"): "belongs to the type LoadBalancer, of which a warning speaks",
    ("Service", "sessionAffinityConfig.clientIP.timeoutSeconds"): "belongs to sessionAffinity, of which a warning speaks",
}
