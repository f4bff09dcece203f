"""Lets the host reach a gateway that lies in a user namespace (`Network.relayed`): host port → Unix socket → gateway's port.

Two static TCP proxies, for a Unix socket in the file system is reached from every network namespace:

- outside, an Envoy of its own: `relay_bootstrap(...)` is its whole configuration (a listener a port, one Unix socket each);
- inside, the gateway's own Envoy: `inner_resources(...)` goes into its bootstrap's `static_resources` and passes what arrives on
  the Unix socket to its own listener, which comes by xDS, on the namespace's loopback.

The sockets lie in the node's private runtime folder. The gateway sees every client as 127.0.0.1, as on the host's loopback.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tulle.core.envoy.bootstrap import overload
from tulle.node.budget import Budget

_TCP_PROXY = "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy"
_CONNECT_TIMEOUT = "1s"


def relay_bootstrap(host: str, sockets: Mapping[int, str], *, admin_socket: str, budget: Budget) -> dict[str, Any]:
    """The bootstrap (JSON) of the Envoy outside: binds each port of `sockets` on `host` and passes on to its Unix socket."""
    listeners, clusters = [], []
    for port, path in sockets.items():
        name = f"relay_{port}"
        listeners.append(_listener(name, {"socket_address": {"address": host, "port_value": port}}))
        clusters.append(_cluster(name, {"pipe": {"path": path}}))
    return {
        "node": {"id": "relay", "cluster": "relay"},
        "admin": {"address": {"pipe": {"path": admin_socket, "mode": 0o600}}},
        "static_resources": {"listeners": listeners, "clusters": clusters},
        "overload_manager": overload(budget.heap_bytes, budget.connections),
    }


def inner_resources(sockets: Mapping[int, str]) -> dict[str, Any]:
    """`listeners` and `clusters` for the gateway's bootstrap: each Unix socket of `sockets` → 127.0.0.1 and its port."""
    listeners, clusters = [], []
    for port, path in sockets.items():
        name = f"relayed_{port}"
        listeners.append(_listener(name, {"pipe": {"path": path, "mode": 0o600}}))
        clusters.append(_cluster(name, {"socket_address": {"address": "127.0.0.1", "port_value": port}}))
    return {"listeners": listeners, "clusters": clusters}


def _listener(name: str, address: dict[str, Any]) -> dict[str, Any]:
    proxy = {"@type": _TCP_PROXY, "stat_prefix": name, "cluster": name}
    filters = [{"name": "envoy.filters.network.tcp_proxy", "typed_config": proxy}]
    return {"name": name, "address": address, "filter_chains": [{"filters": filters}]}


def _cluster(name: str, address: dict[str, Any]) -> dict[str, Any]:
    endpoint = {"endpoint": {"address": address}}
    assignment = {"cluster_name": name, "endpoints": [{"lb_endpoints": [endpoint]}]}
    return {"name": name, "type": "STATIC", "connect_timeout": _CONNECT_TIMEOUT, "load_assignment": assignment}
