"""How Envoy finds a cluster's endpoints: told by the mesh (EDS), asked of DNS, or wherever the caller was going."""

from __future__ import annotations

from tulle.core import type_urls
from tulle.core.envoy.endpoints import assignment
from tulle.core.envoy.source import ADS
from tulle.core.model.destination import Destination, EndpointSet
from tulle.core.model.service import Resolution
from tulle.core.model.traffic import LoadBalancer
from tulle.pb import pack
from tulle.pb.envoy.config.cluster.v3 import cluster_pb2
from tulle.pb.envoy.extensions.clusters.common.dns.v3 import dns_pb2
from tulle.pb.envoy.extensions.clusters.dns.v3 import dns_cluster_pb2

_Cluster = cluster_pb2.Cluster

# Workloads and their networks are of IPv4: an address of the other kind could not be reached.
_FAMILY = dns_pb2.V4_ONLY


def find_endpoints(cluster: cluster_pb2.Cluster, destination: Destination) -> tuple[tuple[str, str], ...]:
    """Set how the endpoints are found; the resources that have to come for it."""
    if destination.load_balancer is LoadBalancer.PASSTHROUGH:
        cluster.type = _Cluster.ORIGINAL_DST
        return ()
    if destination.resolution is Resolution.KNOWN:
        cluster.type = _Cluster.EDS
        cluster.eds_cluster_config.eds_config.CopyFrom(ADS)
        cluster.eds_cluster_config.service_name = cluster.name
        return ((type_urls.ENDPOINT, cluster.name),)
    found = dns_cluster_pb2.DnsCluster(
        respect_dns_ttl=True,
        dns_lookup_family=_FAMILY,
        # One endpoint that is somewhere else for each new connection, and whose old ones stay; it takes just one name.
        all_addresses_in_single_endpoint=destination.resolution is Resolution.LOGICAL_DNS and len(destination.endpoints) == 1,
    )
    cluster.cluster_type.name = "envoy.clusters.dns"
    cluster.cluster_type.typed_config.CopyFrom(pack(found))
    cluster.load_assignment.CopyFrom(assignment(EndpointSet(destination.key, destination.endpoints)))
    return ()
