"""Endpoints of a destination → one ClusterLoadAssignment: the resource that changes most, and touches nothing else."""

from __future__ import annotations

from tulle.core import type_urls
from tulle.core.encoded import Encoded, encode
from tulle.core.envoy.source import NAMESPACE, fitting, pipe, socket, struct, uint32
from tulle.core.envoy.telemetry import PEER
from tulle.core.model.canonical import peer
from tulle.core.model.destination import Endpoint, EndpointSet, Locality
from tulle.pb.envoy.config.core.v3 import address_pb2, base_pb2, health_check_pb2
from tulle.pb.envoy.config.endpoint.v3 import endpoint_components_pb2, endpoint_pb2

_UNIX = "unix://"
_TLS = struct({"tlsMode": "istio"})


def encode_endpoints(endpoints: EndpointSet) -> Encoded:
    """Grouped by priority and locality; those that are not healthy are marked so, and get no traffic (see `balancing`)."""
    name = endpoints.key.cluster
    return encode(type_urls.ENDPOINT, name, assignment(endpoints).SerializeToString(deterministic=True))


def assignment(endpoints: EndpointSet) -> endpoint_pb2.ClusterLoadAssignment:
    """The message, which clusters that find their endpoints by DNS have inside."""
    groups: dict[tuple[int, Locality], list[Endpoint]] = {}
    for endpoint in endpoints.endpoints:
        groups.setdefault((endpoint.priority, endpoint.locality), []).append(endpoint)
    shares = dict(zip(dict(endpoints.shares), fitting([weight for _where, weight in endpoints.shares]), strict=True))
    return endpoint_pb2.ClusterLoadAssignment(
        cluster_name=endpoints.key.cluster,
        endpoints=[
            endpoint_components_pb2.LocalityLbEndpoints(
                locality=_locality(locality),
                lb_endpoints=list(map(_endpoint, group, fitting([max(one.weight, 1) for one in group]))),
                priority=priority,
                load_balancing_weight=uint32(shares[locality]) if shares else None,
            )
            for (priority, locality), group in sorted(groups.items())
        ],
    )


def _endpoint(endpoint: Endpoint, weight: int) -> endpoint_components_pb2.LbEndpoint:
    metadata = {}
    if endpoint.mtls:
        metadata["envoy.transport_socket_match"] = _TLS
    if endpoint.workload:
        metadata[NAMESPACE] = struct({PEER: peer(endpoint.workload, endpoint.app, endpoint.version)})
    return endpoint_components_pb2.LbEndpoint(
        endpoint=endpoint_components_pb2.Endpoint(address=_address(endpoint)),
        health_status=health_check_pb2.HEALTHY if endpoint.healthy else health_check_pb2.UNHEALTHY,
        load_balancing_weight=uint32(weight),
        metadata=base_pb2.Metadata(filter_metadata=metadata) if metadata else None,
    )


def _address(endpoint: Endpoint) -> address_pb2.Address:
    if endpoint.address.startswith(_UNIX):
        return pipe(endpoint.address.removeprefix(_UNIX))
    return socket(endpoint.address, endpoint.port)


def _locality(locality: Locality) -> base_pb2.Locality | None:
    if locality == Locality():
        return None
    return base_pb2.Locality(region=locality.region, zone=locality.zone, sub_zone=locality.subzone)
