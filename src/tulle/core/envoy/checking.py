"""Active health checks: what a caller's Envoy asks each endpoint of a cluster."""

from __future__ import annotations

from tulle.core.envoy.source import seconds, uint32
from tulle.core.envoy.speaking import OPTIONS
from tulle.core.model.destination import Destination
from tulle.core.model.traffic import HealthCheck, LoadBalancer
from tulle.pb.envoy.config.cluster.v3 import cluster_pb2
from tulle.pb.envoy.config.core.v3 import health_check_pb2
from tulle.pb.envoy.extensions.upstreams.http.v3 import http_protocol_options_pb2
from tulle.pb.envoy.type.v3 import http_pb2, range_pb2

_Check = health_check_pb2.HealthCheck


def check(cluster: cluster_pb2.Cluster, destination: Destination) -> None:
    """Write the check into a cluster that has the options of HTTP already: it is asked in the version that they say."""
    said = destination.check
    if said is None or not destination.resolution.has_endpoints or destination.load_balancer is LoadBalancer.PASSTHROUGH:
        return
    options = http_protocol_options_pb2.HttpProtocolOptions()
    if OPTIONS in cluster.typed_extension_protocol_options:
        cluster.typed_extension_protocol_options[OPTIONS].Unpack(options)
    http2 = options.explicit_http_config.HasField("http2_protocol_options")
    if said.grpc is not None and not http2:
        return  # Envoy would refuse the cluster
    message = _Check(
        timeout=seconds(said.timeout),
        interval=seconds(said.interval),
        # Envoy's own minute would keep an endpoint that nobody calls in a state of long ago.
        no_traffic_interval=seconds(said.interval),
        unhealthy_threshold=uint32(said.unhealthy_after),
        healthy_threshold=uint32(said.healthy_after),
    )
    _ask(message, said, destination.key.hostname, http2=http2)
    cluster.health_checks.append(message)
    # An endpoint that goes from the list goes at once, as without a check.
    cluster.ignore_health_on_host_removal = True


def _ask(message: health_check_pb2.HealthCheck, said: HealthCheck, hostname: str, *, http2: bool) -> None:
    if said.grpc is not None:
        message.grpc_health_check.service_name = said.grpc
        message.grpc_health_check.authority = hostname
    elif said.path:
        message.http_health_check.path = said.path
        message.http_health_check.host = said.host or hostname
        message.http_health_check.codec_client_type = http_pb2.HTTP2 if http2 else http_pb2.HTTP1
        message.http_health_check.expected_statuses.extend(range_pb2.Int64Range(start=one, end=one + 1) for one in said.statuses)
    else:
        message.tcp_health_check.SetInParent()
