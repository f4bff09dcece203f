"""Type URLs, and the order in which make-before-break sends them."""

from __future__ import annotations

CLUSTER = "type.googleapis.com/envoy.config.cluster.v3.Cluster"
ENDPOINT = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment"
LISTENER = "type.googleapis.com/envoy.config.listener.v3.Listener"
ROUTE = "type.googleapis.com/envoy.config.route.v3.RouteConfiguration"
VIRTUAL_HOST = "type.googleapis.com/envoy.config.route.v3.VirtualHost"
EXTENSION = "type.googleapis.com/envoy.config.core.v3.TypedExtensionConfig"  # of a filter
SECRET = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret"  # noqa: S105 - a type, not a secret

# tulle's own, between control plane and node only: the value is JSON of `core.model.name.Name`.
NAME = "type.googleapis.com/tulle.dev.v1.Name"

# Additions and changes go in this order, removals in the reverse: whatever points to a thing comes after it.
ORDER = (SECRET, CLUSTER, ENDPOINT, LISTENER, EXTENSION, ROUTE, VIRTUAL_HOST, NAME)

SHORT = {
    CLUSTER: "CDS",
    ENDPOINT: "EDS",
    LISTENER: "LDS",
    EXTENSION: "ECDS",
    ROUTE: "RDS",
    VIRTUAL_HOST: "VHDS",
    SECRET: "SDS",
    NAME: "NDS",
}
