"""How an endpoint of a cluster is chosen: the algorithm, what it hashes, warm-up, places, and endpoints that are left out."""

from __future__ import annotations

import msgspec

from tulle.core.envoy.source import TRUE, seconds, uint32
from tulle.core.model.destination import Destination
from tulle.core.model.traffic import Hash, LoadBalancer, Outlier, Utilization, Warmup
from tulle.pb import pack
from tulle.pb.envoy.config.cluster.v3 import cluster_pb2, outlier_detection_pb2
from tulle.pb.envoy.config.core.v3 import extension_pb2
from tulle.pb.envoy.config.route.v3 import route_components_pb2
from tulle.pb.envoy.extensions.load_balancing_policies.client_side_weighted_round_robin.v3 import (
    client_side_weighted_round_robin_pb2 as utilization_pb2,
)
from tulle.pb.envoy.extensions.load_balancing_policies.common.v3 import common_pb2
from tulle.pb.envoy.extensions.load_balancing_policies.maglev.v3 import maglev_pb2
from tulle.pb.envoy.extensions.load_balancing_policies.ring_hash.v3 import ring_hash_pb2
from tulle.pb.envoy.extensions.load_balancing_policies.wrr_locality.v3 import wrr_locality_pb2
from tulle.pb.envoy.type.v3 import percent_pb2
from tulle.pb.google.protobuf import wrappers_pb2

_Cluster = cluster_pb2.Cluster
_HashPolicy = route_components_pb2.RouteAction.HashPolicy

_POLICIES = {
    LoadBalancer.LEAST_REQUEST: _Cluster.LEAST_REQUEST,
    LoadBalancer.ROUND_ROBIN: _Cluster.ROUND_ROBIN,
    LoadBalancer.RANDOM: _Cluster.RANDOM,
    LoadBalancer.PASSTHROUGH: _Cluster.CLUSTER_PROVIDED,
    LoadBalancer.RING_HASH: _Cluster.RING_HASH,
    LoadBalancer.MAGLEV: _Cluster.MAGLEV,
    LoadBalancer.UTILIZATION: _Cluster.LOAD_BALANCING_POLICY_CONFIG,
}

# Envoy refuses a larger ring, and a Maglev table that is larger or no prime.
_LARGEST = 8 * 1024 * 1024
_LARGEST_TABLE = 5_000_011

# Envoy would hold back for a second what became of an endpoint's health (an ejection, one that is ending) where its cluster had
# changed within the second before, and send requests to it meanwhile. The window is for thousands of active health checks.
_AT_ONCE = seconds(0)
_AS_ENVOY = Utilization()


def balance(cluster: cluster_pb2.Cluster, destination: Destination) -> None:
    """Write the choice of endpoints into a cluster."""
    if not destination.resolution.has_endpoints:
        destination = msgspec.structs.replace(destination, load_balancer=LoadBalancer.PASSTHROUGH, hash=None)
    outlier, hashed = destination.outlier, destination.hash
    # An endpoint that is not ready gets nothing, even where no other is left: the caller hears 503 at once, instead of a
    # request landing in a process that is starting or ending. Only a rule's minHealthPercent says otherwise.
    health = percent_pb2.Percent(value=outlier.minimum_health if outlier else 0)
    cluster.common_lb_config.CopyFrom(_Cluster.CommonLbConfig(healthy_panic_threshold=health, update_merge_window=_AT_ONCE))
    if destination.shared_out and destination.load_balancer is not LoadBalancer.PASSTHROUGH:
        cluster.common_lb_config.locality_weighted_lb_config.SetInParent()
    cluster.lb_policy = _POLICIES[destination.load_balancer]
    if destination.load_balancer is LoadBalancer.RING_HASH and hashed and hashed.size:
        cluster.ring_hash_lb_config.CopyFrom(_ring(hashed.size))
    elif destination.load_balancer is LoadBalancer.MAGLEV and hashed and hashed.size:
        cluster.maglev_lb_config.table_size.CopyFrom(_uint64(_prime(hashed.size)))
    elif destination.load_balancer is LoadBalancer.ROUND_ROBIN and destination.warmup:
        cluster.round_robin_lb_config.slow_start_config.CopyFrom(_slow_start(destination.warmup))
    elif destination.load_balancer is LoadBalancer.LEAST_REQUEST and destination.warmup:
        cluster.least_request_lb_config.slow_start_config.CopyFrom(_slow_start(destination.warmup))
    if destination.load_balancer is LoadBalancer.UTILIZATION:
        _by_utilization(cluster, destination.utilization or _AS_ENVOY, shared_out=destination.shared_out)
    if hashed and not destination.http and destination.load_balancer in (LoadBalancer.RING_HASH, LoadBalancer.MAGLEV):
        _hash_connections(cluster, destination, hashed)
    if outlier:
        cluster.outlier_detection.CopyFrom(_outlier(outlier))


def hash_policy(hashed: Hash) -> route_components_pb2.RouteAction.HashPolicy:
    """What requests are told apart by."""
    if hashed.header:
        return _HashPolicy(header=_HashPolicy.Header(header_name=hashed.header))
    if hashed.query:
        return _HashPolicy(query_parameter=_HashPolicy.QueryParameter(name=hashed.query))
    if hashed.cookie:
        cookie = hashed.cookie
        return _HashPolicy(
            cookie=_HashPolicy.Cookie(
                name=cookie.name,
                path=cookie.path,
                ttl=seconds(cookie.ttl) if cookie.ttl is not None else None,
                attributes=[_HashPolicy.CookieAttribute(name=name, value=value) for name, value in cookie.attributes],
            )
        )
    return _HashPolicy(connection_properties=_HashPolicy.ConnectionProperties(source_ip=True))


def _by_utilization(cluster: cluster_pb2.Cluster, said: Utilization, *, shared_out: bool) -> None:
    policy = utilization_pb2.ClientSideWeightedRoundRobin(
        metric_names_for_computing_utilization=said.metrics,
        error_utilization_penalty=wrappers_pb2.FloatValue(value=said.penalty) if said.penalty else None,
        blackout_period=seconds(said.settling) if said.settling is not None else None,
        weight_expiration_period=seconds(said.expiry) if said.expiry is not None else None,
        weight_update_period=seconds(said.interval) if said.interval is not None else None,
    )
    name = "client_side_weighted_round_robin"
    extension = extension_pb2.TypedExtensionConfig(name=f"envoy.load_balancing_policies.{name}", typed_config=pack(policy))
    if shared_out:
        inner = cluster_pb2.LoadBalancingPolicy(
            policies=[cluster_pb2.LoadBalancingPolicy.Policy(typed_extension_config=extension)]
        )
        places = wrr_locality_pb2.WrrLocality(endpoint_picking_policy=inner)
        name = "envoy.load_balancing_policies.wrr_locality"
        extension = extension_pb2.TypedExtensionConfig(name=name, typed_config=pack(places))
    cluster.load_balancing_policy.policies.add(typed_extension_config=extension)
    cluster.common_lb_config.ClearField("locality_weighted_lb_config")


def _hash_connections(cluster: cluster_pb2.Cluster, destination: Destination, hashed: Hash) -> None:
    """Bytes have no headers: a connection's source is all that it can be told apart by. Only the balancer itself can be told."""
    config = common_pb2.ConsistentHashingLbConfig(hash_policy=[hash_policy(Hash(source_address=True))])
    near = common_pb2.LocalityLbConfig.LocalityWeightedLbConfig() if destination.shared_out else None
    policy: maglev_pb2.Maglev | ring_hash_pb2.RingHash
    if destination.load_balancer is LoadBalancer.MAGLEV:
        size = _uint64(_prime(hashed.size)) if hashed.size else None
        policy = maglev_pb2.Maglev(consistent_hashing_lb_config=config, table_size=size, locality_weighted_lb_config=near)
    else:
        least = _uint64(min(hashed.size, _LARGEST)) if hashed.size else None
        policy = ring_hash_pb2.RingHash(
            consistent_hashing_lb_config=config,
            minimum_ring_size=least,
            maximum_ring_size=_uint64(_LARGEST) if hashed.size else None,
            locality_weighted_lb_config=near,
        )
    name = "maglev" if destination.load_balancer is LoadBalancer.MAGLEV else "ring_hash"
    extension = extension_pb2.TypedExtensionConfig(name=f"envoy.load_balancing_policies.{name}", typed_config=pack(policy))
    cluster.load_balancing_policy.policies.add(typed_extension_config=extension)
    cluster.lb_policy = _Cluster.LOAD_BALANCING_POLICY_CONFIG
    cluster.common_lb_config.ClearField("locality_weighted_lb_config")  # the policy has its own


def _ring(size: int) -> cluster_pb2.Cluster.RingHashLbConfig:
    return _Cluster.RingHashLbConfig(minimum_ring_size=_uint64(min(size, _LARGEST)), maximum_ring_size=_uint64(_LARGEST))


def _prime(size: int) -> int:
    """The smallest prime that is not below `size`, as a Maglev table's size has to be; the largest that Envoy takes, at most."""
    found = min(max(size, 2), _LARGEST_TABLE)
    while any(found % divisor == 0 for divisor in range(2, int(found**0.5) + 1)):
        found += 1
    return found


def _uint64(value: int) -> wrappers_pb2.UInt64Value:
    return wrappers_pb2.UInt64Value(value=value)


def _slow_start(warmup: Warmup) -> cluster_pb2.Cluster.SlowStartConfig:
    config = _Cluster.SlowStartConfig(slow_start_window=seconds(warmup.duration))
    if warmup.minimum is not None:
        config.min_weight_percent.CopyFrom(percent_pb2.Percent(value=warmup.minimum))
    if warmup.aggression:
        config.aggression.default_value = warmup.aggression
        config.aggression.runtime_key = "mesh.slow_start_aggression"
    return config


def _outlier(said: Outlier) -> outlier_detection_pb2.OutlierDetection:
    """Failures in a row are what Istio counts; Envoy's rates where a rule asks for them. One may always be out, however few."""
    message = outlier_detection_pb2.OutlierDetection(enforcing_success_rate=uint32(0), always_eject_one_host=TRUE)
    if said.errors is not None:
        message.consecutive_5xx.CopyFrom(uint32(said.errors))
        message.enforcing_consecutive_5xx.CopyFrom(uint32(100 if said.errors else 0))
    if said.gateway_errors is not None:
        message.consecutive_gateway_failure.CopyFrom(uint32(said.gateway_errors))
        message.enforcing_consecutive_gateway_failure.CopyFrom(uint32(100 if said.gateway_errors else 0))
    if said.interval:
        message.interval.CopyFrom(seconds(said.interval))
    if said.ejection_time:
        message.base_ejection_time.CopyFrom(seconds(said.ejection_time))
        # Envoy's bound of 300 s must not be below the first ejection.
        message.max_ejection_time.CopyFrom(seconds(max(said.ejection_time, 300.0)))
    if said.max_ejected:
        message.max_ejection_percent.CopyFrom(uint32(said.max_ejected))
    if said.split_local:
        message.split_external_local_origin_errors = True
        message.enforcing_local_origin_success_rate.CopyFrom(uint32(0))
        if said.local_failures is not None:
            message.consecutive_local_origin_failure.CopyFrom(uint32(said.local_failures))
            message.enforcing_consecutive_local_origin_failure.CopyFrom(uint32(100 if said.local_failures else 0))
    _rates(message, said)
    return message


def _rates(message: outlier_detection_pb2.OutlierDetection, said: Outlier) -> None:
    if rate := said.success_rate:
        message.enforcing_success_rate.CopyFrom(uint32(100))
        message.success_rate_stdev_factor.CopyFrom(uint32(round(rate.deviations * 1000)))
        message.success_rate_minimum_hosts.CopyFrom(uint32(rate.hosts))
        message.success_rate_request_volume.CopyFrom(uint32(rate.volume))
        if said.split_local:
            message.enforcing_local_origin_success_rate.CopyFrom(uint32(100))
    if percentage := said.failure_percentage:
        message.enforcing_failure_percentage.CopyFrom(uint32(100))
        message.failure_percentage_threshold.CopyFrom(uint32(round(percentage.threshold)))
        message.failure_percentage_minimum_hosts.CopyFrom(uint32(percentage.hosts))
        message.failure_percentage_request_volume.CopyFrom(uint32(percentage.volume))
        if said.split_local:
            message.enforcing_failure_percentage_local_origin.CopyFrom(uint32(100))
