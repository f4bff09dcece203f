"""What a resource that came over the wire refers to: `Encoded.refs` is not part of the protocol, so a node reads it off again."""

from __future__ import annotations

from google.protobuf.message import DecodeError

from tulle.core.type_urls import CLUSTER, ENDPOINT, LISTENER, ROUTE, VIRTUAL_HOST
from tulle.pb.envoy.config.cluster.v3 import cluster_pb2
from tulle.pb.envoy.config.listener.v3 import listener_pb2
from tulle.pb.envoy.config.route.v3 import route_pb2
from tulle.pb.envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2 as http_pb2

_HTTP = http_pb2.HttpConnectionManager.DESCRIPTOR.full_name


def refs_of(type_url: str, value: bytes) -> tuple[tuple[str, str], ...]:
    """The (type URL, name) pairs that a proxy will ask for because of this message: a cluster's endpoints, a listener's route
    tables, a table's virtual hosts. Empty for other types, and for what does not parse: Envoy will say so.
    """
    try:
        return _refs(type_url, value)
    except DecodeError:
        return ()


def _refs(type_url: str, value: bytes) -> tuple[tuple[str, str], ...]:
    if type_url == CLUSTER:
        cluster = cluster_pb2.Cluster.FromString(value)
        if cluster.type == cluster_pb2.Cluster.EDS:
            return ((ENDPOINT, cluster.eds_cluster_config.service_name or cluster.name),)
    elif type_url == LISTENER:
        return tuple((ROUTE, name) for name in _tables(listener_pb2.Listener.FromString(value)))
    elif type_url == ROUTE:
        table = route_pb2.RouteConfiguration.FromString(value)
        if table.HasField("vhds"):
            return ((VIRTUAL_HOST, table.name),)
    return ()


def _tables(listener: listener_pb2.Listener) -> list[str]:
    found: dict[str, None] = {}
    for chain in (*listener.filter_chains, listener.default_filter_chain):
        for filter_ in chain.filters:
            if filter_.typed_config.type_url.endswith("/" + _HTTP):
                manager = http_pb2.HttpConnectionManager.FromString(filter_.typed_config.value)
                if manager.HasField("rds"):
                    found[manager.rds.route_config_name] = None
    return list(found)
