"""UDP ports of gateways and of sidecars → listeners that pass datagrams on.

A sidecar listens at the virtual addresses of services, and for their ports at others (`DATAGRAM_PORTS`), to which the node sends
what is for them. The addresses lie on no interface: the sockets are transparent, so that it may answer as such an address. So are
those towards endpoints, with the application's own address as their source: the node's rules tell the proxy's datagrams from the
application's by nothing else.
"""

from __future__ import annotations

from tulle.core import type_urls
from tulle.core.encoded import Encoded, encode
from tulle.core.envoy.source import TRUE, datagrams
from tulle.core.model.gateway import UdpListener
from tulle.core.networks import DATAGRAM_PORTS
from tulle.pb import pack
from tulle.pb.envoy.config.core.v3 import base_pb2
from tulle.pb.envoy.config.listener.v3 import listener_components_pb2, listener_pb2
from tulle.pb.envoy.extensions.filters.udp.udp_proxy.v3 import route_pb2, udp_proxy_pb2
from tulle.pb.xds.core.v3 import extension_pb2
from tulle.pb.xds.type.matcher.v3 import matcher_pb2


def encode_gateway_udp(one: UdpListener) -> Encoded:
    """A UDP port of a gateway."""
    return _encode(_listener(one, udp_proxy_pb2.UdpProxyConfig()))


def encode_outbound_udp(rows: tuple[UdpListener, ...]) -> tuple[Encoded, ...]:
    """The UDP ports of services at which the sidecars of a namespace listen."""
    return tuple(_encode(_transparent(one)) for one in rows)


def _transparent(one: UdpListener) -> listener_pb2.Listener:
    listener = _listener(one, udp_proxy_pb2.UdpProxyConfig(use_original_src_ip=True))
    listener.address.socket_address.port_value |= DATAGRAM_PORTS
    listener.transparent.CopyFrom(TRUE)
    return listener


def _listener(one: UdpListener, proxy: udp_proxy_pb2.UdpProxyConfig) -> listener_pb2.Listener:
    cluster = one.destination.cluster
    everything = matcher_pb2.Matcher.OnMatch(
        action=extension_pb2.TypedExtensionConfig(name="route", typed_config=pack(route_pb2.Route(cluster=cluster)))
    )
    proxy.stat_prefix = cluster
    proxy.matcher.CopyFrom(matcher_pb2.Matcher(on_no_match=everything))
    return listener_pb2.Listener(
        name=f"udp_{one.address}_{one.port}",
        address=datagrams(one.address, one.port),
        traffic_direction=base_pb2.OUTBOUND,
        listener_filters=[
            listener_components_pb2.ListenerFilter(name="envoy.filters.udp_listener.udp_proxy", typed_config=pack(proxy))
        ],
    )


def _encode(listener: listener_pb2.Listener) -> Encoded:
    return encode(type_urls.LISTENER, listener.name, listener.SerializeToString(deterministic=True))
