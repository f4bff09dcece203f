"""TCP routes → filter chains and the filters that carry bytes.

Envoy takes the chain whose match is the most specific, one property after the other (where to, server name, where from), and does
not go back when a later property fits nothing. Routes are tried in their order. So a chain is made for every combination that
Envoy can arrive at, and gets the first of the routes that hold for all of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from tulle.core.envoy import access_log, calls
from tulle.core.envoy.clusters import BLACK_HOLE
from tulle.core.envoy.finding import server_name
from tulle.core.envoy.source import fitting, seconds, uint32
from tulle.core.envoy.telemetry import Called, of_connections
from tulle.core.model.route import WeightedDestination
from tulle.core.model.tcp_route import ANY_TLS, PLAIN, Carriage, TcpRoute
from tulle.core.model.telemetry import STANDARD, Telemetry
from tulle.core.networks import inside
from tulle.core.networks import network as network_of
from tulle.pb import pack
from tulle.pb.envoy.config.core.v3 import address_pb2, backoff_pb2, base_pb2, substitution_format_string_pb2
from tulle.pb.envoy.config.listener.v3 import listener_components_pb2
from tulle.pb.envoy.extensions.filters.common.set_filter_state.v3 import value_pb2
from tulle.pb.envoy.extensions.filters.network.set_filter_state.v3 import set_filter_state_pb2
from tulle.pb.envoy.extensions.filters.network.tcp_proxy.v3 import tcp_proxy_pb2

_Chain = listener_components_pb2.FilterChain
_Match = listener_components_pb2.FilterChainMatch
_Filter = listener_components_pb2.Filter

# A connection that was not made has told nobody anything: it is tried again, as likely as not elsewhere, and a dead instance is
# not noticed while it is still listed. Envoy passes over no endpoint that has failed already, so once more would not do.
_ATTEMPTS = 5
_PAUSES = backoff_pb2.BackoffStrategy(base_interval=seconds(0.025), max_interval=seconds(0.25))

_ALPN = "envoy.network.application_protocols"

# Between sidecars: the bytes inside are no HTTP, whatever the cluster's own ALPN says.
_BYTES = _Filter(
    name="envoy.filters.network.set_filter_state",
    typed_config=pack(
        set_filter_state_pb2.Config(
            on_new_connection=[
                value_pb2.FilterStateValue(
                    object_key=_ALPN,
                    format_string=substitution_format_string_pb2.SubstitutionFormatString(
                        text_format_source=base_pb2.DataSource(inline_string="istio")
                    ),
                )
            ]
        )
    ),
)


def tcp(
    cluster: str,
    carriage: Carriage = PLAIN,
    called: Called | None = None,
    telemetry: Telemetry = STANDARD,
    *,
    mutual: bool = False,
) -> listener_components_pb2.Filter:
    """Bytes to a cluster, not looked into, for what is `called`; None: they leave. `mutual`: from callers with an identity."""
    proxy = tcp_proxy_pb2.TcpProxy(stat_prefix=cluster, cluster=cluster)
    if mutual:
        _known_first(proxy)
        proxy.max_connect_attempts.CopyFrom(uint32(2))
    return _filter(proxy, carriage, telemetry, called)


def _known_first(proxy: tcp_proxy_pb2.TcpProxy) -> None:
    """Connect only when it is known who calls. (Where policies may shut him out the first attempt is none: see `early`.)"""
    proxy.upstream_connect_mode = tcp_proxy_pb2.ON_DOWNSTREAM_TLS_HANDSHAKE
    proxy.max_early_data_bytes.CopyFrom(uint32(0))  # what comes before is waited with


def tcp_filters(
    destinations: Sequence[WeightedDestination],
    carriage: Carriage = PLAIN,
    telemetry: Telemetry = STANDARD,
    *,
    mutual: bool = False,
) -> list[listener_components_pb2.Filter]:
    """The filters of a chain that shares connections among destinations; without any it closes them. `mutual` as above."""
    shares = [share for share in destinations if share.weight > 0]
    if not shares:
        return [tcp(BLACK_HOLE, telemetry=telemetry)]
    proxy = tcp_proxy_pb2.TcpProxy(stat_prefix=shares[0].destination.cluster)
    if carriage.tunnel is None:  # a proxy that says no would be asked again
        proxy.max_connect_attempts.CopyFrom(uint32(_ATTEMPTS))
        proxy.backoff_options.CopyFrom(_PAUSES)
    if mutual:
        _known_first(proxy)
    if len(shares) == 1:
        proxy.cluster = shares[0].destination.cluster
    else:
        for share, weight in zip(shares, fitting([share.weight for share in shares]), strict=True):
            proxy.weighted_clusters.clusters.add(name=share.destination.cluster, weight=weight)
    named = [server_name(share.named_at) for share in shares if share.named_at][:1]
    return [*([_BYTES] if carriage.told else []), *named, _filter(proxy, carriage, telemetry)]


def leads_to(destinations: Sequence[WeightedDestination], carriage: Carriage) -> str:
    """The cluster of a chain to these destinations where that can wait until it is known who calls; "" where it cannot: there are
    several to choose from, one is yet to be found by its name, or there may not be a second attempt.
    """
    shares = [share for share in destinations if share.weight > 0]
    single = len(shares) == 1 and not shares[0].named_at and may_wait(carriage)
    return shares[0].destination.cluster if single else ""


def may_wait(carriage: Carriage) -> bool:
    """Whether a first attempt may be none, until it is known who calls. A proxy in between is asked only once; and Envoy forgets
    the idle timeout of a connection with the first attempt that fails.
    """
    return carriage.tunnel is None and carriage.idle_timeout is None


def _filter(
    proxy: tcp_proxy_pb2.TcpProxy, carriage: Carriage, telemetry: Telemetry, called: Called | None = None
) -> listener_components_pb2.Filter:
    proxy.access_log.extend((*of_connections(called, telemetry.metrics), calls.of_connections(called)))
    proxy.access_log.extend(access_log.of_connections(telemetry.logs))
    if carriage.idle_timeout is not None:
        proxy.idle_timeout.CopyFrom(seconds(carriage.idle_timeout))
    if carriage.max_duration:
        proxy.max_downstream_connection_duration.CopyFrom(seconds(carriage.max_duration))
    if carriage.tunnel is not None:
        proxy.tunneling_config.hostname = f"{carriage.tunnel.host}:{carriage.tunnel.port}"
        proxy.tunneling_config.use_post = carriage.tunnel.post
    return _Filter(name="envoy.filters.network.tcp_proxy", typed_config=pack(proxy))


def needs_names(routes: Iterable[TcpRoute]) -> bool:
    """Whether the TLS inspector has to look at a connection first."""
    return any(route.match.names for route in routes)


def chains(
    routes: Sequence[TcpRoute], port: int | None = None, *, beside_plaintext: bool = False, telemetry: Telemetry = STANDARD
) -> Iterator[listener_components_pb2.FilterChain]:
    """The chains of a listener's routes; those of one destination `port` of it, where it has several.

    A connection that no route holds for fits no chain: the listener's default chain has it. `beside_plaintext`: the listener has
    another chain for a kind of plaintext, and Envoy, having looked there, would not go back to a chain for any transport.
    """
    for network in _distinct(str(network_of(one)) if one else "" for route in routes for one in route.match.networks or ("",)):
        there = [route for route in routes if _any_in(network, route.match.networks)]
        names = _distinct(name for route in there for name in route.match.names or ("",))
        if beside_plaintext and "" in names:
            names = _distinct([*names, ANY_TLS])
        for name in names:
            named = [route for route in there if _any_named(name, route.match.names)]
            for source in _distinct(
                str(network_of(one)) if one else "" for route in named for one in route.match.sources or ("",)
            ):
                first = next(route for route in named if _any_in(source, route.match.sources))
                yield _chain(first, port, network, name, source, "raw_buffer" if beside_plaintext else "", telemetry)


def _distinct(values: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(values))


def _any_in(network: str, wide: Sequence[str]) -> bool:
    """Whether all of `network` ("": everywhere) is in one of `wide` (none: everywhere)."""
    return not wide or (bool(network) and any(inside(network, one) for one in wide))


def _any_named(name: str, wide: Sequence[str]) -> bool:
    """Whether each connection with such a `name` ("": any connection) has one of `wide` (none: any connection)."""
    return not wide or (bool(name) and any(_names(one, name) for one in wide))


def _names(wide: str, narrow: str) -> bool:
    return wide in (ANY_TLS, narrow) or (wide.startswith("*") and narrow.endswith(wide[1:]))


def _chain(
    route: TcpRoute, port: int | None, network: str, name: str, source: str, nameless: str, telemetry: Telemetry
) -> listener_components_pb2.FilterChain:
    return _Chain(
        name="|".join(filter(None, (route.name, str(port or ""), network, name, source))),
        filter_chain_match=_Match(
            destination_port=uint32(port) if port is not None else None,
            prefix_ranges=[_range(network)] if network else [],
            server_names=[name] if name and name != ANY_TLS else [],
            transport_protocol="tls" if name else nameless,
            source_prefix_ranges=[_range(source)] if source else [],
        ),
        filters=tcp_filters(route.destinations, route.carriage, telemetry),
    )


def _range(text: str) -> address_pb2.CidrRange:
    network = network_of(text)
    return address_pb2.CidrRange(address_prefix=str(network.network_address), prefix_len=uint32(network.prefixlen))
