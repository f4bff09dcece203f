"""01xx: an object names another that is not there, or may not be named."""

from __future__ import annotations

from tulle.core.analyze.codes.code import error, warning

CODES = (
    error(
        "TUL0101",
        "HostNotFound BackendNotFound",
        "The Service that is named does not exist",
        "A route, a DestinationRule or a parent names a host that is no Service of the mesh. Requests for it are answered"
        " 503 (500 for a backend of the Gateway API).",
        "correct the name, or apply the Service first; a Service of another namespace is named with it: reviews.shop",
        istio="IST0101",
    ),
    warning(
        "TUL0102",
        "HostNotFound",
        "Nobody calls this host through the mesh",
        "A VirtualService is for a host that is no Service. Its rules have no effect until there is one.",
        "correct the host, or apply the Service",
        istio="IST0101",
    ),
    error(
        "TUL0103",
        "SubsetNotFound",
        "The subset that is named is not defined",
        "A route sends to a subset that no DestinationRule of the host defines. Requests for it are answered 503.",
        "add the subset to the host's DestinationRule, and apply that first",
        istio="IST0101",
    ),
    error(
        "TUL0104",
        "PortNotFound",
        "The port that is named is not one of the Service",
        "A route or a parent names a port that the Service does not have.",
        "use one of the Service's ports (spec.ports[].port, not targetPort)",
        istio="IST0101",
    ),
    error(
        "TUL0105",
        "PortRequired",
        "A port must be named",
        "The Service has several ports and the route does not say which. Nothing can be sent.",
        "write destination.port.number",
        istio="IST0112",
    ),
    error(
        "TUL0106",
        "GatewayNotFound",
        "The Gateway that is named does not exist",
        "A VirtualService or a route is for a Gateway that is not there, or that is of the other API. It has no effect there.",
        "correct the name; one of another namespace is named namespace/name. VirtualServices attach to Gateways of "
        "networking.istio.io, HTTPRoutes to those of gateway.networking.k8s.io",
        istio="IST0101",
    ),
    error(
        "TUL0107",
        "NoMatchingParent",
        "The Gateway has no such listener",
        "A route names a listener (sectionName) or a port that its Gateway does not have. It has no effect there.",
        "use the name or the port of a listener of the Gateway",
    ),
    error(
        "TUL0108",
        "InvalidKind",
        "This kind cannot be referred to here",
        "A parent must be a Gateway or a Service, a backend a Service.",
        "name an object of a kind that can stand here",
    ),
    error(
        "TUL0109",
        "RefNotPermitted",
        "The other namespace does not permit the reference",
        "Of the Gateway API, an object of another namespace may only be named where a ReferenceGrant there allows it.",
        "apply a ReferenceGrant in the namespace of what is named",
    ),
    warning(
        "TUL0110",
        "SecretNotFound InvalidCertificateRef",
        "The Secret or ConfigMap with the certificates does not exist",
        "A Gateway, a DestinationRule or a BackendTLSPolicy names a Secret or ConfigMap that is not there. TLS cannot be "
        "served until it is.",
        "apply it: Istio's Gateways look in the namespace of the gateway workload, all others in their own",
        istio="IST0101 IST0161",
    ),
    warning(
        "TUL0111",
        "ProviderNotFound",
        "The provider that is named is not defined",
        "An AuthorizationPolicy (action CUSTOM) or a Telemetry names a provider that no MeshConfig defines.",
        "add it to extensionProviders of the MeshConfig",
        istio="IST0101 IST0157",
    ),
    error(
        "TUL0112",
        "NamespaceNotFound",
        "The namespace does not exist",
        "An object can only be written into a namespace that is there.",
        "apply the Namespace too (in the same files is enough), or name another with -n",
    ),
    warning(
        "TUL0113",
        "TargetNotFound",
        "What the policy is for does not exist",
        "A targetRef names a Gateway, a Service, a ServiceEntry or a route that is not in the policy's namespace. The policy has "
        "no effect.",
        "correct the name, or move the policy into the namespace of its target",
    ),
    warning(
        "TUL0114",
        "NoParent",
        "The route is attached to nothing",
        "A route without parentRefs has no effect.",
        "name a Gateway, or a Service for the mesh, in spec.parentRefs",
    ),
    warning(
        "TUL0115",
        "ClassNotFound",
        "No such GatewayClass",
        "A Gateway is of a class that nobody serves: neither `tulle` or `istio`, which the mesh does, nor one with a "
        "GatewayClass.",
        "use gatewayClassName: tulle",
    ),
    error(
        "TUL0116",
        "UnsupportedProtocol",
        "The backend speaks what this route cannot",
        "The port of the Service is declared as TLS, and the routes of this kind speak HTTP to their backends.",
        "name a port of HTTP",
    ),
    error(
        "TUL0117",
        "DelegateNotFound",
        "The delegate does not exist",
        "A rule stands for the rules of another VirtualService that is not there, is not exported to this namespace, or has "
        "hosts of its own. Requests for which the rule holds go on to the next one.",
        "correct delegate.name and delegate.namespace; a delegate has http rules and no hosts",
    ),
    error(
        "TUL0118",
        "DelegateCycle",
        "Delegates that lead back to where they came from",
        "A VirtualService delegates, over others or at once, to itself. The rule that closes the circle has no effect.",
        "let one of them have the routes",
    ),
    error(
        "TUL0119",
        "NotExported",
        "The Service is not exported to this namespace",
        "A route sends to a Service or a host whose exportTo leaves out the route's namespace. Proxies there are not sent it: "
        "requests are answered 503 (500 for a backend of the Gateway API).",
        "name the namespace in the ServiceEntry's spec.exportTo, or in the Service's annotation networking.istio.io/exportTo",
        istio="IST0101",
    ),
)
