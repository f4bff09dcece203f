"""Destinations and a workload's own clusters → Envoy clusters.

Outbound clusters are shared by every proxy; their endpoints are a resource of their own (EDS), so that a changed endpoint is one
small message. Names are Istio's.
"""

from __future__ import annotations

from tulle.core import type_urls
from tulle.core.encoded import Encoded, encode
from tulle.core.envoy import tls
from tulle.core.envoy.source import ADS, UNLIMITED, metadata, seconds, socket, struct
from tulle.core.model.destination import Destination, LoadBalancer, Transport
from tulle.core.model.service import Protocol
from tulle.core.model.workload import Capture, InboundPort, Workload
from tulle.pb import pack
from tulle.pb.envoy.config.cluster.v3 import circuit_breaker_pb2, cluster_pb2
from tulle.pb.envoy.config.core.v3 import protocol_pb2
from tulle.pb.envoy.config.endpoint.v3 import endpoint_components_pb2, endpoint_pb2
from tulle.pb.envoy.extensions.upstreams.http.v3 import http_protocol_options_pb2
from tulle.pb.envoy.type.v3 import percent_pb2

PASSTHROUGH = "PassthroughCluster"
INBOUND_PASSTHROUGH = "InboundPassthroughCluster"
BLACK_HOLE = "BlackHoleCluster"

# Extended CONNECT lets WebSockets cross the HTTP/2 between sidecars.
HTTP2_OPTIONS = protocol_pb2.Http2ProtocolOptions(allow_connect=True)

_Cluster = cluster_pb2.Cluster
_Options = http_protocol_options_pb2.HttpProtocolOptions
_OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
_HTTP1_OPTIONS = protocol_pb2.Http1ProtocolOptions()
_HTTP1 = pack(_Options(explicit_http_config=_Options.ExplicitHttpConfig(http_protocol_options=_HTTP1_OPTIONS)))
_HTTP2 = pack(_Options(explicit_http_config=_Options.ExplicitHttpConfig(http2_protocol_options=HTTP2_OPTIONS)))
_AS_CALLED = pack(
    _Options(
        use_downstream_protocol_config=_Options.UseDownstreamHttpConfig(
            http_protocol_options=_HTTP1_OPTIONS, http2_protocol_options=HTTP2_OPTIONS
        )
    )
)

# Envoy's own limits (1,024 connections, requests and retries) would shed load that nobody asked to shed: as Istio, no limit
# until one is configured.
_NO_LIMITS = circuit_breaker_pb2.CircuitBreakers(
    thresholds=[
        circuit_breaker_pb2.CircuitBreakers.Thresholds(
            max_connections=UNLIMITED,
            max_pending_requests=UNLIMITED,
            max_requests=UNLIMITED,
            max_retries=UNLIMITED,
        )
    ]
)

# An endpoint that is not ready gets nothing, even where no other is left: the caller hears 503 at once, instead of a request
# landing in a process that is starting or ending.
_NEVER_PANIC = _Cluster.CommonLbConfig(healthy_panic_threshold=percent_pb2.Percent(value=0))

_POLICIES = {
    LoadBalancer.LEAST_REQUEST: _Cluster.LEAST_REQUEST,
    LoadBalancer.ROUND_ROBIN: _Cluster.ROUND_ROBIN,
    LoadBalancer.RANDOM: _Cluster.RANDOM,
    LoadBalancer.PASSTHROUGH: _Cluster.CLUSTER_PROVIDED,
}
_BY_METADATA = struct({"tlsMode": "istio"})


def encode_cluster(destination: Destination) -> Encoded:
    """The cluster of a destination; its endpoints are asked for under the same name, except with PASSTHROUGH."""
    key = destination.key
    name = key.cluster
    cluster = _Cluster(
        name=name,
        connect_timeout=seconds(destination.connect_timeout),
        lb_policy=_POLICIES[destination.load_balancer],
        circuit_breakers=_NO_LIMITS,
        common_lb_config=_NEVER_PANIC,
        metadata=metadata({"service": key.hostname, "subset": key.subset}),
    )
    refs: tuple[tuple[str, str], ...] = ()
    if destination.load_balancer is LoadBalancer.PASSTHROUGH:
        cluster.type = _Cluster.ORIGINAL_DST
    else:
        cluster.type = _Cluster.EDS
        cluster.eds_cluster_config.eds_config.CopyFrom(ADS)
        cluster.eds_cluster_config.service_name = name
        refs = ((type_urls.ENDPOINT, name),)
    _protect(cluster, destination)
    return _encode(cluster, refs)


def encode_workload_clusters(workload: Workload) -> tuple[Encoded, ...]:
    """What only this workload's proxy has: its application's ports, and the ways through for what the mesh does not know."""
    clusters = [_encode(_Cluster(name=BLACK_HOLE, type=_Cluster.STATIC, connect_timeout=seconds(10)))]
    if workload.is_gateway:
        return tuple(clusters)
    clusters += [_encode(_application(port)) for port in workload.inbound]
    if workload.capture is not Capture.PROXY:
        clusters += [_encode(_original_destination(PASSTHROUGH)), _encode(_original_destination(INBOUND_PASSTHROUGH))]
    return tuple(clusters)


def inbound_name(port: InboundPort) -> str:
    """`inbound|9080||`."""
    return f"inbound|{port.port}||"


def _protect(cluster: cluster_pb2.Cluster, destination: Destination) -> None:
    """Transport socket and HTTP version.

    Where every endpoint has a sidecar, HTTP always travels as HTTP/2 between the sidecars. A MIXED destination speaks to both
    kinds of endpoints, so it takes the version that the applications themselves speak.
    """
    mesh = destination.transport is Transport.MTLS
    offer: tuple[str, ...]
    if not destination.http:
        offer = tls.OFFER_TCP
    elif mesh or destination.http2:
        offer = tls.OFFER_HTTP2
        cluster.typed_extension_protocol_options[_OPTIONS].CopyFrom(_HTTP2)
    else:
        offer = tls.OFFER_HTTP1
        cluster.typed_extension_protocol_options[_OPTIONS].CopyFrom(_HTTP1)
    if destination.transport is Transport.PLAINTEXT:
        return
    mutual = tls.upstream(destination.key, destination.identities, offer)
    if mesh:
        cluster.transport_socket.CopyFrom(mutual)
        return
    cluster.transport_socket_matches.add(name="tlsMode-istio", match=_BY_METADATA, transport_socket=mutual)
    cluster.transport_socket_matches.add(name="tlsMode-disabled", match=struct({}), transport_socket=tls.PLAINTEXT)


def _application(port: InboundPort) -> cluster_pb2.Cluster:
    cluster = _Cluster(
        name=inbound_name(port),
        type=_Cluster.STATIC,
        connect_timeout=seconds(10),
        circuit_breakers=_NO_LIMITS,
        load_assignment=endpoint_pb2.ClusterLoadAssignment(
            cluster_name=inbound_name(port),
            endpoints=[
                endpoint_components_pb2.LocalityLbEndpoints(
                    lb_endpoints=[
                        endpoint_components_pb2.LbEndpoint(
                            endpoint=endpoint_components_pb2.Endpoint(address=socket("127.0.0.1", port.app_port))
                        )
                    ]
                )
            ],
        ),
    )
    if port.protocol in (Protocol.HTTP2, Protocol.GRPC):
        cluster.typed_extension_protocol_options[_OPTIONS].CopyFrom(_HTTP2)
    return cluster


def _original_destination(name: str) -> cluster_pb2.Cluster:
    """To wherever the connection was going before it was captured."""
    cluster = _Cluster(
        name=name,
        type=_Cluster.ORIGINAL_DST,
        lb_policy=_Cluster.CLUSTER_PROVIDED,
        connect_timeout=seconds(10),
        circuit_breakers=_NO_LIMITS,
    )
    cluster.typed_extension_protocol_options[_OPTIONS].CopyFrom(_AS_CALLED)
    return cluster


def _encode(cluster: cluster_pb2.Cluster, refs: tuple[tuple[str, str], ...] = ()) -> Encoded:
    return encode(type_urls.CLUSTER, cluster.name, cluster.SerializeToString(deterministic=True), refs)
