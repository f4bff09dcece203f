"""What a listener makes a proxy ask for."""

from __future__ import annotations

from collections.abc import Iterator

from tulle.core.type_urls import EXTENSION, ROUTE
from tulle.pb.envoy.config.listener.v3 import listener_pb2
from tulle.pb.envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2

_Manager = http_connection_manager_pb2.HttpConnectionManager
_HTTP = f"/{_Manager.DESCRIPTOR.full_name}"


def asked_for(listener: listener_pb2.Listener) -> tuple[tuple[str, str], ...]:
    """The (type URL, name) of its route tables and of those of its filters that come as resources, each once."""
    return tuple(dict.fromkeys(_asked_for(listener)))


def _asked_for(listener: listener_pb2.Listener) -> Iterator[tuple[str, str]]:
    for chain in (*listener.filter_chains, listener.default_filter_chain):
        for filter_ in chain.filters:
            if filter_.HasField("config_discovery"):
                yield EXTENSION, filter_.name
            if filter_.typed_config.type_url.endswith(_HTTP):
                manager = _Manager.FromString(filter_.typed_config.value)
                if manager.HasField("rds"):
                    yield ROUTE, manager.rds.route_config_name
                yield from ((EXTENSION, one.name) for one in manager.http_filters if one.HasField("config_discovery"))
