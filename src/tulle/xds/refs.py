"""What a resource that came over the wire refers to: `Encoded.refs` is not part of the protocol, so a node reads it off again."""

from __future__ import annotations

from google.protobuf.message import DecodeError

from tulle.core.envoy.discovery import asked_for
from tulle.core.type_urls import CLUSTER, ENDPOINT, LISTENER, ROUTE, VIRTUAL_HOST
from tulle.pb.envoy.config.cluster.v3 import cluster_pb2
from tulle.pb.envoy.config.listener.v3 import listener_pb2
from tulle.pb.envoy.config.route.v3 import route_pb2


def refs_of(type_url: str, value: bytes) -> tuple[tuple[str, str], ...]:
    """The (type URL, name) pairs that a proxy will ask for because of this message: a cluster's endpoints, a listener's route
    tables and filters, a table's virtual hosts. Empty for other types, and for what does not parse: Envoy will say so.
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
        return asked_for(listener_pb2.Listener.FromString(value))
    elif type_url == ROUTE:
        table = route_pb2.RouteConfiguration.FromString(value)
        if table.HasField("vhds"):
            return ((VIRTUAL_HOST, table.name),)
    return ()
