"""How Envoy finds a cluster's endpoints: told by the mesh (EDS), asked of DNS, or wherever the caller was going.

Of a cluster that is whatever host a call names (`Resolution.DYNAMIC`), the route or the filter chain says the host and the port
(`named_host`, `server_name`): by Host alone a caller would choose the port, too.
"""

from __future__ import annotations

from functools import lru_cache

from tulle.core import type_urls
from tulle.core.envoy.endpoints import assignment
from tulle.core.envoy.source import ADS
from tulle.core.model.destination import Destination, EndpointSet
from tulle.core.model.service import Resolution
from tulle.core.model.traffic import LoadBalancer
from tulle.pb import pack
from tulle.pb.envoy.config.cluster.v3 import cluster_pb2
from tulle.pb.envoy.config.core.v3 import base_pb2, substitution_format_string_pb2
from tulle.pb.envoy.config.listener.v3 import listener_components_pb2
from tulle.pb.envoy.extensions.clusters.common.dns.v3 import dns_pb2
from tulle.pb.envoy.extensions.clusters.dns.v3 import dns_cluster_pb2
from tulle.pb.envoy.extensions.clusters.dynamic_forward_proxy.v3 import cluster_pb2 as forward_pb2
from tulle.pb.envoy.extensions.common.dynamic_forward_proxy.v3 import dns_cache_pb2
from tulle.pb.envoy.extensions.filters.common.set_filter_state.v3 import value_pb2
from tulle.pb.envoy.extensions.filters.http.set_filter_state.v3 import set_filter_state_pb2
from tulle.pb.envoy.extensions.filters.network.sni_dynamic_forward_proxy.v3 import sni_dynamic_forward_proxy_pb2 as sni_pb2
from tulle.pb.google.protobuf import any_pb2

_Cluster = cluster_pb2.Cluster

# Workloads and their networks are of IPv4: an address of the other kind could not be reached.
_FAMILY = dns_pb2.V4_ONLY

# One for all, for Envoy wants equal settings under one name.
_CACHE = dns_cache_pb2.DnsCacheConfig(name="dynamic", dns_lookup_family=cluster_pb2.Cluster.V4_ONLY)
# HTTP's Host without the port that may stand there.
_HOST = "%CEL(re.extract(request.host, '^(.*?)(:[0-9]+)?$', '\\\\1'))%"
NAMED_HOST = "envoy.filters.http.set_filter_state"


def find_endpoints(cluster: cluster_pb2.Cluster, destination: Destination) -> tuple[tuple[str, str], ...]:
    """Set how the endpoints are found; the resources that have to come for it."""
    if destination.resolution is Resolution.DYNAMIC:
        # The balancer looks the host up itself. What its certificate has to be for is said where TLS is (`speaking`).
        named = forward_pb2.ClusterConfig(dns_cache_config=_CACHE, allow_insecure_cluster_options=True)
        cluster.cluster_type.name = "envoy.clusters.dynamic_forward_proxy"
        cluster.cluster_type.typed_config.CopyFrom(pack(named))
        return ()
    if destination.resolution is Resolution.ORIGINAL or destination.load_balancer is LoadBalancer.PASSTHROUGH:
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


@lru_cache(maxsize=64)
def named_host(port: int) -> any_pb2.Any:
    """For a route to such a cluster: the configuration of the filter `NAMED_HOST`, by which the host is reached at `port`."""
    states = [_state("envoy.upstream.dynamic_host", _HOST), _state("envoy.upstream.dynamic_port", str(port))]
    packed: any_pb2.Any = pack(set_filter_state_pb2.Config(on_request_headers=states))
    return packed


def _state(key: str, text: str) -> value_pb2.FilterStateValue:
    source = base_pb2.DataSource(inline_string=text)
    said = substitution_format_string_pb2.SubstitutionFormatString(text_format_source=source)
    return value_pb2.FilterStateValue(object_key=key, format_string=said)


@lru_cache(maxsize=64)
def server_name(port: int) -> listener_components_pb2.Filter:
    """For a chain with such a cluster: the filter by which the host that TLS names is reached at `port`."""
    config = sni_pb2.FilterConfig(dns_cache_config=_CACHE, port_value=port)
    return listener_components_pb2.Filter(name="envoy.filters.network.sni_dynamic_forward_proxy", typed_config=pack(config))
