"""The objects as they come in: one input table a kind that the mesh acts on, keyed by (namespace, name), with indexes.

Indexes are what keeps a change small: a Service's routes depend on "VirtualServices for this host", its endpoints on
"WorkloadEntries of this namespace with this label". What is not about the mesh (status, resource versions) is stripped before.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Mapping
from ipaddress import ip_network
from typing import Any

import msgspec

from tulle.api.endpoint_slice import EndpointSlice
from tulle.api.gateway import (
    BackendTLSPolicy,
    Gateway,
    GatewayClass,
    GRPCRoute,
    HTTPRoute,
    ListenerSet,
    ReferenceGrant,
    TCPRoute,
    TLSRoute,
    UDPRoute,
)
from tulle.api.gateway.shared import GROUP_NAME, ParentRef
from tulle.api.istio import (
    AuthorizationPolicy,
    DestinationRule,
    PeerAuthentication,
    RequestAuthentication,
    ServiceEntry,
    Sidecar,
    Telemetry,
    VirtualService,
    WorkloadEntry,
    WorkloadGroup,
)
from tulle.api.istio import Gateway as IstioGateway
from tulle.api.istio.destination_rule import PortTrafficPolicy, TrafficPolicy
from tulle.api.istio.targets import TargetRef
from tulle.api.istio.virtual_service import HTTPMatchRequest, L4MatchAttributes, TLSMatchAttributes
from tulle.api.kubernetes import ConfigMap, Namespace, Secret, Service
from tulle.api.lease import Lease
from tulle.api.object import Object
from tulle.api.own import MeshConfig, RateLimit
from tulle.core.compile.certificates import Certificates, certificates_in
from tulle.core.compile.claims import Claim, claim
from tulle.core.compile.hostname import Key, entry_key, meanings
from tulle.core.compile.workload_notes import CAPTURE, DATAGRAMS, IPV6, has_proxy, has_sidecar, is_gateway, labels_of
from tulle.core.flow import Fetch, Input
from tulle.core.model.workload import Capture

Route = HTTPRoute | GRPCRoute | TLSRoute | TCPRoute | UDPRoute

SERVICE_NAME = "kubernetes.io/service-name"  # a label

# Where a workload stands, as Kubernetes and Istio label it.
REGION = "topology.kubernetes.io/region"
ZONE = "topology.kubernetes.io/zone"
SUBZONE = "topology.istio.io/subzone"
NETWORK = "topology.istio.io/network"

MESH = "mesh"  # the word in `gateways` that means the sidecars


class Settings(msgspec.Struct, frozen=True):
    """What holds for the whole mesh. Of several `root_namespaces` (one thing's names), the first that says something counts.

    `trace_sampling` is the percentage of traces that begin where no Telemetry says one; 0: nothing is traced there.
    """

    trust_domain: str = "cluster.local"
    root_namespaces: tuple[str, ...] = ("tulle-system", "istio-system")
    trace_sampling: float = 0.0


def chosen_label(selector: Mapping[str, str]) -> tuple[str, str] | None:
    """The label of a selector by which it is looked up; the others are compared afterwards."""
    if not selector:
        return None
    key = "app" if "app" in selector else min(selector)
    return key, selector[key]


def selects(selector: Mapping[str, str], labels: Mapping[str, str]) -> bool:
    """Whether all of the selector's labels are there."""
    return all(labels.get(key) == value for key, value in selector.items())


def _workload_labels(key: Key, row: WorkloadEntry) -> Iterator[Hashable]:
    for label, value in labels_of(row).items():
        yield key[0], label, value


def _workload_role(_key: Key, row: WorkloadEntry) -> list[Hashable]:
    if is_gateway(row):
        return ["gateway"]
    if not has_sidecar(row):
        return []
    if row.metadata.annotations.get(CAPTURE) == Capture.PROXY:
        return ["sidecar", "forward proxy"]
    has = {"IPv6": IPV6, "datagrams": DATAGRAMS}
    return ["sidecar", *(word for word, note in has.items() if row.metadata.annotations.get(note) == "true")]


def _slice_service(key: Key, row: EndpointSlice) -> list[Hashable]:
    name = row.metadata.labels.get(SERVICE_NAME)
    return [(key[0], name)] if name else []


def _service_selector(key: Key, row: Service) -> list[Hashable]:
    chosen = chosen_label(row.spec.selector)
    return [(key[0], *chosen)] if chosen else []


def in_mesh(rule: VirtualService) -> bool:
    """Whether a VirtualService is for the sidecars (too)."""
    return not rule.spec.gateways or MESH in rule.spec.gateways


def gateway_key(name: str, namespace: str) -> Key:
    """The Gateway that a VirtualService of `namespace` names: `name`, `namespace/name`, or Istio's older full host name."""
    before, slash, after = name.rpartition("/")
    if slash:
        return before, after
    if "." in name:
        parts = name.split(".")
        return parts[1], parts[0]
    return namespace, name


def _mesh_hosts(hosts: Iterable[str], namespace: str) -> set[Hashable]:
    found: set[Hashable] = set()
    for host in hosts:
        found |= {"*"} if host.startswith("*") else set(meanings(host, namespace))
    return found


def _virtual_service_hosts(key: Key, row: VirtualService) -> Iterable[Hashable]:
    return _mesh_hosts(row.spec.hosts, key[0]) if in_mesh(row) else ()


def _virtual_service_tcp_hosts(key: Key, row: VirtualService) -> Iterable[Hashable]:
    return _virtual_service_hosts(key, row) if row.spec.tls or row.spec.tcp else ()


def _virtual_service_gateways(key: Key, row: VirtualService) -> Iterator[Hashable]:
    for name in row.spec.gateways:
        if name != MESH:
            yield gateway_key(name, key[0])


def caller_matches(row: VirtualService) -> Iterator[HTTPMatchRequest | TLSMatchAttributes | L4MatchAttributes]:
    """All matches of a VirtualService, each of which may ask who calls."""
    for rules in (row.spec.http, row.spec.tls, row.spec.tcp):
        for rule in rules:
            yield from rule.match


def _by_labels(_key: Key, row: VirtualService) -> list[Hashable]:
    """Whether a rule asks who the caller is."""
    return [True] if any(one.source_labels for one in caller_matches(row)) else []


def _virtual_service_gateway_hosts(key: Key, row: VirtualService) -> Iterator[Hashable]:
    for gateway in _virtual_service_gateways(key, row):
        yield from ((gateway, host) for host in row.spec.hosts)


def _servers(_key: Key, row: IstioGateway) -> Iterator[Hashable]:
    """Port and host of each server, whatever namespaces it is for."""
    for server in row.spec.servers:
        yield from ((server.port.number, host.rpartition("/")[2]) for host in server.hosts)


def parent_key(parent: ParentRef, namespace: str) -> tuple[str, str, str, str]:
    """(group, kind, namespace, name) of a route's parent."""
    return parent.group, parent.kind, parent.namespace or namespace, parent.name


def _route_parent_hosts(key: Key, row: HTTPRoute | GRPCRoute) -> Iterator[Hashable]:
    for parent in row.spec.parent_refs:
        yield from ((*parent_key(parent, key[0]), host) for host in row.spec.hostnames or ("*",))


def _route_parents(key: Key, row: Route) -> Iterator[Hashable]:
    for parent in row.spec.parent_refs:
        yield parent_key(parent, key[0])


def _route_backends(key: Key, row: Route) -> Iterator[Hashable]:
    for rule in row.spec.rules:
        for backend in rule.backend_refs:
            if (backend.group, backend.kind) == ("", "Service"):
                yield backend.namespace or key[0], backend.name


def _policy_targets(key: Key, row: BackendTLSPolicy) -> Iterator[Hashable]:
    for target in row.spec.target_refs:
        if (target.group, target.kind) == ("", "Service"):
            yield key[0], target.name


def targets_of(row: AuthorizationPolicy | RequestAuthentication | Telemetry) -> tuple[TargetRef, ...]:
    """What a policy refers to."""
    return (*((row.spec.target_ref,) if row.spec.target_ref else ()), *(row.spec.target_refs or ()))


def _guarded(key: Key, row: AuthorizationPolicy | RequestAuthentication | Telemetry) -> Iterator[Hashable]:
    """What a policy is for: (group, kind, namespace, name) of objects, a (namespace, label, value), or all of a (namespace,)."""
    targets = targets_of(row)
    yield from ((one.group, one.kind, key[0], one.name) for one in targets)
    if not targets:
        chosen = chosen_label(row.spec.selector.match_labels) if row.spec.selector else None
        yield (key[0], *chosen) if chosen else (key[0],)


def _limited(key: Key, row: RateLimit) -> Iterator[Hashable]:
    """What a RateLimit is for, as `_guarded` has it."""
    yield from ((one.group, one.kind, key[0], one.name) for one in row.spec.target_refs or ())
    if row.spec.selector is not None:
        chosen = chosen_label(row.spec.selector.match_labels)
        yield (key[0], *chosen) if chosen else (key[0],)


def _set_parent(key: Key, row: ListenerSet) -> list[Hashable]:
    parent = row.spec.parent_ref
    is_gateway_ = (parent.group, parent.kind) == (GROUP_NAME, "Gateway")
    return [(parent.namespace or key[0], parent.name)] if is_gateway_ else []


TCP = ("", "TCP", "MONGO", "REDIS", "MYSQL")  # protocols of a ServiceEntry's ports whose connections name no host


def _entry_tcp(_key: Key, row: ServiceEntry) -> Iterator[Hashable]:
    """The ports to which all connections are the ServiceEntry's: with another resolution it would get an address."""
    if not row.spec.addresses and row.spec.resolution == "NONE":
        yield from (port.number for port in row.spec.ports if port.protocol.upper() in TCP)


def _policies(row: DestinationRule) -> list[TrafficPolicy | PortTrafficPolicy]:
    """All policies that a rule has: its own, those of its subsets, those of their ports."""
    policies = [one for one in (row.spec.traffic_policy, *(part.traffic_policy for part in row.spec.subsets)) if one]
    return [*policies, *(port for one in policies for port in one.port_level_settings)]


def _local(_key: Key, row: DestinationRule) -> list[Hashable]:
    """Whether a rule can make endpoints depend on where callers stand: it says so, or how endpoints fail."""
    settings = _policies(row)
    balancers = [one.load_balancer for one in settings if one.load_balancer]
    near = (one.locality_lb_setting or one.zone_aware_lb_setting for one in balancers)
    return [True] if any(one.outlier_detection for one in settings) or any(near) else []


def _credential(_key: Key, row: DestinationRule) -> list[Hashable]:
    """Whether a rule names a Secret for TLS."""
    return [True] if any(one.tls and one.tls.credential_name for one in _policies(row)) else []


def network_of(address: str) -> str:
    """An address, or a network by its first one: `10.1.2.3/8` is `10.0.0.0/8`."""
    return str(ip_network(address, strict=False)) if "/" in address else address


def _entry_selector(key: Key, row: ServiceEntry) -> list[Hashable]:
    chosen = chosen_label(row.spec.workload_selector.labels) if row.spec.workload_selector else None
    return [(key[0], *chosen)] if chosen else []


namespaces: Input[Key, Namespace] = Input("namespaces")
services: Input[Key, Service] = Input(
    "services",
    namespace=lambda key, _row: [key[0]],
    selector=_service_selector,
    address=lambda _key, row: list(dict.fromkeys((row.spec.cluster_ip, *row.spec.cluster_ips))),
)
endpoint_slices: Input[Key, EndpointSlice] = Input("endpoint_slices", service=_slice_service)
workload_entries: Input[Key, WorkloadEntry] = Input(
    "workload_entries",
    label=_workload_labels,
    role=_workload_role,
    namespace=lambda key, _row: [key[0]],
    address=lambda key, row: [(key[0], row.spec.address)],
    outside=lambda key, row: [] if has_proxy(row) else [key[0], ""],  # "": of all namespaces
    networked=lambda _key, row: [True] if row.spec.network or NETWORK in row.spec.labels else [],
)
virtual_services: Input[Key, VirtualService] = Input(
    "virtual_services",
    host=_virtual_service_hosts,
    tcp_host=_virtual_service_tcp_hosts,
    gateway=_virtual_service_gateways,
    gateway_host=_virtual_service_gateway_hosts,
    by_labels=_by_labels,
)
destination_rules: Input[Key, DestinationRule] = Input(
    "destination_rules",
    host=lambda key, row: _mesh_hosts([row.spec.host], key[0]),
    local=_local,
    namespace=lambda key, _row: [key[0]],
    credential=_credential,
    exported=lambda _key, row: [word for word in row.spec.export_to if word not in ("*", ".", "~")],
    selects=lambda _key, row: [True] if row.spec.workload_selector else [],
)
service_entries: Input[Key, ServiceEntry] = Input(
    "service_entries",
    host=lambda key, row: {entry_key(host, key[0]) for host in row.spec.hosts},
    address=lambda _key, row: {network_of(address) for address in row.spec.addresses},
    selector=_entry_selector,
    tcp=_entry_tcp,
    networked=lambda _key, row: [True] if any(one.network or NETWORK in one.labels for one in row.spec.endpoints) else [],
)
workload_groups: Input[Key, WorkloadGroup] = Input("workload_groups")
sidecars: Input[Key, Sidecar] = Input("sidecars", namespace=lambda key, _row: [key[0]])
mesh_configs: Input[Key, MeshConfig] = Input("mesh_configs")
istio_gateways: Input[Key, IstioGateway] = Input("istio_gateways", namespace=lambda key, _row: [key[0]], server=_servers)
peer_authentications: Input[Key, PeerAuthentication] = Input("peer_authentications", namespace=lambda key, _row: [key[0]])
authorization_policies: Input[Key, AuthorizationPolicy] = Input(
    "authorization_policies", namespace=lambda key, _row: [key[0]], target=_guarded
)
request_authentications: Input[Key, RequestAuthentication] = Input(
    "request_authentications", namespace=lambda key, _row: [key[0]], target=_guarded
)
rate_limits: Input[Key, RateLimit] = Input("rate_limits", target=_limited)
telemetries: Input[Key, Telemetry] = Input("telemetries", namespace=lambda key, _row: [key[0]], target=_guarded)
gateways: Input[Key, Gateway] = Input(
    "gateways",
    namespace=lambda key, _row: [key[0]],
    listener=lambda _key, row: [(one.port, one.hostname or "*") for one in row.spec.listeners],
)
gateway_classes: Input[Key, GatewayClass] = Input("gateway_classes")
listener_sets: Input[Key, ListenerSet] = Input("listener_sets", gateway=_set_parent)
http_routes: Input[Key, HTTPRoute] = Input(
    "http_routes", parent=_route_parents, parent_host=_route_parent_hosts, backend=_route_backends
)
grpc_routes: Input[Key, GRPCRoute] = Input(
    "grpc_routes", parent=_route_parents, parent_host=_route_parent_hosts, backend=_route_backends
)
tls_routes: Input[Key, TLSRoute] = Input("tls_routes", parent=_route_parents, backend=_route_backends)
tcp_routes: Input[Key, TCPRoute] = Input("tcp_routes", parent=_route_parents, backend=_route_backends)
udp_routes: Input[Key, UDPRoute] = Input("udp_routes", parent=_route_parents, backend=_route_backends)
backend_tls_policies: Input[Key, BackendTLSPolicy] = Input("backend_tls_policies", target=_policy_targets)
reference_grants: Input[Key, ReferenceGrant] = Input("reference_grants", namespace=lambda key, _row: [key[0]])
secrets: Input[Key, Certificates] = Input("secrets")
config_maps: Input[Key, Certificates] = Input("config_maps")
leases: Input[Key, Claim] = Input("leases")
settings: Input[str, Settings] = Input("settings")

# The kinds of routes of the Gateway API.
ROUTES: Mapping[str, Input[Key, Any]] = {
    "HTTPRoute": http_routes,
    "GRPCRoute": grpc_routes,
    "TLSRoute": tls_routes,
    "TCPRoute": tcp_routes,
    "UDPRoute": udp_routes,
}

# By `plural.group`, as the store and the registry name them. Other kinds do not concern the model.
INPUTS: Mapping[str, Input[Key, Any]] = {
    "namespaces": namespaces,
    "services": services,
    "endpointslices.discovery.k8s.io": endpoint_slices,
    "workloadentries.networking.istio.io": workload_entries,
    "virtualservices.networking.istio.io": virtual_services,
    "destinationrules.networking.istio.io": destination_rules,
    "serviceentries.networking.istio.io": service_entries,
    "workloadgroups.networking.istio.io": workload_groups,
    "sidecars.networking.istio.io": sidecars,
    "meshconfigs.tulle.dev": mesh_configs,
    "ratelimits.tulle.dev": rate_limits,
    "gateways.networking.istio.io": istio_gateways,
    "peerauthentications.security.istio.io": peer_authentications,
    "authorizationpolicies.security.istio.io": authorization_policies,
    "requestauthentications.security.istio.io": request_authentications,
    "telemetries.telemetry.istio.io": telemetries,
    "gateways.gateway.networking.k8s.io": gateways,
    "gatewayclasses.gateway.networking.k8s.io": gateway_classes,
    "listenersets.gateway.networking.k8s.io": listener_sets,
    "httproutes.gateway.networking.k8s.io": http_routes,
    "grpcroutes.gateway.networking.k8s.io": grpc_routes,
    "tlsroutes.gateway.networking.k8s.io": tls_routes,
    "tcproutes.gateway.networking.k8s.io": tcp_routes,
    "udproutes.gateway.networking.k8s.io": udp_routes,
    "backendtlspolicies.gateway.networking.k8s.io": backend_tls_policies,
    "secrets": secrets,
    "configmaps": config_maps,
    "referencegrants.gateway.networking.k8s.io": reference_grants,
    "leases.coordination.k8s.io": leases,
}


def settled(fetch: Fetch) -> Settings:
    """The mesh's settings."""
    return fetch(settings, "") or Settings()


def bare(object_: Object) -> Object:
    """The object without what the model never reads, so that a written status or a new resource version changes nothing."""
    metadata = object_.metadata.model_copy(
        update={
            "uid": "",
            "resource_version": "",
            "generation": 0,
            "managed_fields": (),
            "owner_references": (),
            "finalizers": (),
            "self_link": "",
            "generate_name": "",
        }
    )
    status = {"status": None} if "status" in type(object_).model_fields else {}
    return object_.model_copy(update={**status, "metadata": metadata})


def row_of(object_: Object) -> Any:
    """What an object is in its input. Of Secrets and ConfigMaps only certificates and their keys are kept (`Material`)."""
    if isinstance(object_, Secret):
        return certificates_in(object_.data, object_.string_data)
    if isinstance(object_, ConfigMap):
        return certificates_in({}, object_.data)
    if isinstance(object_, Lease):
        return claim(object_)
    return bare(object_)


def age(object_: Object) -> tuple[str, str, str]:
    """Sorts the oldest first, then by namespace and name: who wins where only one can. What is not yet stored is the youngest."""
    metadata = object_.metadata
    return metadata.creation_timestamp or "~", metadata.namespace, metadata.name


def visible(export_to: tuple[str, ...], namespace: str, viewer: str) -> bool:
    """Whether an object of `namespace` with Istio's `exportTo` counts for callers in `viewer`."""
    if not export_to:
        return True
    return any(word == "*" or word == viewer or (word == "." and viewer == namespace) for word in export_to)
