"""Destinations and a workload's own clusters → Envoy clusters.

Outbound clusters are shared by every proxy; their endpoints are a resource of their own (EDS), so that a changed endpoint is one
small message. Names are Istio's.
"""

from __future__ import annotations

from tulle.core import type_urls
from tulle.core.encoded import Encoded, encode
from tulle.core.envoy import tls
from tulle.core.envoy.balancing import balance
from tulle.core.envoy.checking import check
from tulle.core.envoy.finding import find_endpoints
from tulle.core.envoy.limits import NO_LIMITS, limit
from tulle.core.envoy.origination import originate
from tulle.core.envoy.source import metadata, pipe, seconds, socket, struct, uint32
from tulle.core.envoy.speaking import AS_CALLED, OPTIONS, speak, spoken_to_application
from tulle.core.model.authorization import NOWHERE
from tulle.core.model.destination import Destination, Transport
from tulle.core.model.traffic import Tls
from tulle.core.model.workload import Capture, InboundPort, Workload
from tulle.pb.envoy.config.cluster.v3 import circuit_breaker_pb2, cluster_pb2
from tulle.pb.envoy.config.endpoint.v3 import endpoint_components_pb2, endpoint_pb2

PASSTHROUGH = "PassthroughCluster"
INBOUND_PASSTHROUGH = "InboundPassthroughCluster"
BLACK_HOLE = "BlackHoleCluster"

_Cluster = cluster_pb2.Cluster

_BY_METADATA = struct({"tlsMode": "istio"})


def encode_cluster(destination: Destination) -> Encoded:
    """The cluster of a destination."""
    key = destination.key
    name = key.cluster
    cluster = _Cluster(
        name=name,
        connect_timeout=seconds(destination.connect_timeout),
        metadata=metadata({"service": key.hostname, "subset": key.subset}),
    )
    refs = find_endpoints(cluster, destination)
    balance(cluster, destination)
    limit(cluster, destination.connections, destination.requests)
    _protect(cluster, destination)
    check(cluster, destination)
    return _encode(cluster, refs)


def encode_workload_clusters(workload: Workload) -> tuple[Encoded, ...]:
    """What only this workload's proxy has: its application's ports, and the ways through for what the mesh does not know."""
    clusters = [_encode(_Cluster(name=BLACK_HOLE, type=_Cluster.STATIC, connect_timeout=seconds(10))), _encode(_nowhere())]
    if workload.is_gateway:
        return tuple(clusters)
    clusters += [_encode(_application(port)) for port in workload.inbound]
    if workload.capture is not Capture.PROXY:
        clusters += [_encode(_original_destination(PASSTHROUGH)), _encode(_original_destination(INBOUND_PASSTHROUGH))]
    return tuple(clusters)


def inbound_name(port: InboundPort) -> str:
    """`inbound|9080||`."""
    return f"inbound|{port.port}||"


def _nowhere() -> cluster_pb2.Cluster:
    """One endpoint, for whose connections nobody may wait: the wish for one fails at once (see `early`)."""
    endpoint = endpoint_components_pb2.LbEndpoint(endpoint=endpoint_components_pb2.Endpoint(address=pipe("/dev/null")))
    there = endpoint_components_pb2.LocalityLbEndpoints(lb_endpoints=[endpoint])
    none = circuit_breaker_pb2.CircuitBreakers.Thresholds(max_pending_requests=uint32(0))
    return _Cluster(
        name=NOWHERE,
        type=_Cluster.STATIC,
        connect_timeout=seconds(1),
        load_assignment=endpoint_pb2.ClusterLoadAssignment(cluster_name=NOWHERE, endpoints=[there]),
        circuit_breakers=circuit_breaker_pb2.CircuitBreakers(thresholds=[none]),
    )


def _protect(cluster: cluster_pb2.Cluster, destination: Destination) -> None:
    """Transport socket and HTTP version."""
    mesh = destination.transport is Transport.MTLS
    offer = speak(cluster, destination)
    if destination.transport is Transport.PLAINTEXT:
        if destination.proxy_protocol:
            cluster.transport_socket.CopyFrom(tls.announced(destination.proxy_protocol, tls.PLAINTEXT))
        return
    if destination.transport is Transport.TLS:
        inner = originate(destination.tls or Tls(), destination, offer)
        cluster.transport_socket.CopyFrom(tls.announced(destination.proxy_protocol, inner))
        return
    mutual = tls.upstream(destination.sni or destination.key.server_name, destination.identities, offer, destination.handshake)
    if mesh:
        cluster.transport_socket.CopyFrom(tls.announced(destination.proxy_protocol, mutual))
        return
    matches = (("istio", _BY_METADATA, mutual), ("disabled", struct({}), tls.PLAINTEXT))
    for mode, match, socket_ in matches:
        wrapped = tls.announced(destination.proxy_protocol, socket_)
        cluster.transport_socket_matches.add(name=f"tlsMode-{mode}", match=match, transport_socket=wrapped)


def _application(port: InboundPort) -> cluster_pb2.Cluster:
    cluster = _Cluster(
        name=inbound_name(port),
        type=_Cluster.STATIC,
        connect_timeout=seconds(port.connect_timeout),
        load_assignment=endpoint_pb2.ClusterLoadAssignment(
            cluster_name=inbound_name(port),
            endpoints=[
                endpoint_components_pb2.LocalityLbEndpoints(
                    lb_endpoints=[
                        endpoint_components_pb2.LbEndpoint(
                            endpoint=endpoint_components_pb2.Endpoint(
                                address=pipe(port.path) if port.path else socket(port.host, port.app_port)
                            )
                        )
                    ]
                )
            ],
        ),
    )
    limit(cluster, port.connections, port.requests)
    if options := spoken_to_application(port):
        cluster.typed_extension_protocol_options[OPTIONS].CopyFrom(options)
    return cluster


def _original_destination(name: str) -> cluster_pb2.Cluster:
    """To wherever the connection was going before it was captured."""
    cluster = _Cluster(
        name=name,
        type=_Cluster.ORIGINAL_DST,
        lb_policy=_Cluster.CLUSTER_PROVIDED,
        connect_timeout=seconds(10),
        circuit_breakers=NO_LIMITS,
    )
    cluster.typed_extension_protocol_options[OPTIONS].CopyFrom(AS_CALLED)
    return cluster


def _encode(cluster: cluster_pb2.Cluster, refs: tuple[tuple[str, str], ...] = ()) -> Encoded:
    return encode(type_urls.CLUSTER, cluster.name, cluster.SerializeToString(deterministic=True), refs)
