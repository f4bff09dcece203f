"""TCP routes as filter chains: Envoy's most specific chain is the first route that holds."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.envoy import validate
from tulle.core import type_urls
from tulle.core.encoded import encode
from tulle.core.envoy.source import socket
from tulle.core.envoy.tcp_routes import chains
from tulle.core.model.destination import DestinationKey
from tulle.core.model.route import WeightedDestination
from tulle.core.model.tcp_route import Carriage, TcpMatch, TcpRoute
from tulle.pb.envoy.config.listener.v3 import listener_components_pb2, listener_pb2

NAMES = ("*", "*.a.example", "b.a.example", "c.a.example", "d.example")
NETWORKS = ("10.0.0.0/8", "10.1.0.0/16", "10.1.2.3", "0.0.0.0/0")
SOURCES = ("10.0.0.0/8", "10.9.0.0/16")


def routes_of(*matches: TcpMatch) -> list[TcpRoute]:
    return [
        TcpRoute(
            name=str(index),
            match=match,
            destinations=(WeightedDestination(DestinationKey(str(index), 1)),),
            carriage=Carriage(told=bool(index % 2)),
        )
        for index, match in enumerate(matches)
    ]


def holds(match: TcpMatch, to: str, name: str, source: str) -> bool:
    """What a match says, as one reads it."""

    def inside(address: str, network: str) -> bool:
        prefix = {"10.0.0.0/8": "10.", "10.1.0.0/16": "10.1.", "10.9.0.0/16": "10.9.", "0.0.0.0/0": ""}.get(network, network)
        return address.startswith(prefix)

    def named(pattern: str) -> bool:
        return pattern == "*" or pattern == name or (pattern.startswith("*.") and name.endswith(pattern[1:]))

    return (
        (not match.networks or any(inside(to, one) for one in match.networks))
        and (not match.names or any(named(one) for one in match.names))
        and (not match.sources or any(inside(source, one) for one in match.sources))
    )


def envoys(made: list[listener_components_pb2.FilterChain], to: str, name: str, source: str) -> str | None:
    """Envoy's choice: property by property, the most specific value of those that fit, and never back."""

    def within(address: str, chain: listener_components_pb2.FilterChain, field: str) -> int:
        ranges = getattr(chain.filter_chain_match, field)
        if not ranges:
            return 0
        text = f"{ranges[0].address_prefix}/{ranges[0].prefix_len.value}"
        match = TcpMatch(networks=(text.removesuffix("/32"),))
        return ranges[0].prefix_len.value + 1 if holds(match, address, "", "") else -1

    def sni(chain: listener_components_pb2.FilterChain) -> int:
        names = list(chain.filter_chain_match.server_names)
        if not names:
            return 0
        return len(names[0]) + 100 * (names[0] == name) if holds(TcpMatch(names=tuple(names)), to, name, "") else -1

    left = made
    for rank in (
        lambda chain: within(to, chain, "prefix_ranges"),
        sni,
        # Every name here is of a TLS connection.
        lambda chain: 1 if chain.filter_chain_match.transport_protocol == "tls" else 0,
        lambda chain: within(source, chain, "source_prefix_ranges"),
    ):
        best = max((rank(chain) for chain in left), default=-1)
        left = [chain for chain in left if rank(chain) == best] if best >= 0 else []
    return left[0].name.partition("|")[0] if left else None


MATCHES = st.builds(
    TcpMatch,
    names=st.lists(st.sampled_from(NAMES), max_size=2).map(tuple),
    networks=st.lists(st.sampled_from(NETWORKS), max_size=2).map(tuple),
    sources=st.lists(st.sampled_from(SOURCES), max_size=2).map(tuple),
)


@settings(deadline=None)  # a shared machine may stall
@given(st.lists(MATCHES, max_size=6))
def test_the_chain_that_envoy_takes_is_the_first_route_that_holds(matches: list[TcpMatch]) -> None:
    """Broken: a wide rule written first would lose to a narrow one, or a connection would fall between the chains."""
    made = list(chains(routes_of(*matches)))
    keys = [chain.filter_chain_match.SerializeToString(deterministic=True) for chain in made]
    assert len(keys) == len(set(keys))  # Envoy refuses a listener with two chains of one match
    for to in ("10.1.2.3", "10.1.9.9", "10.7.7.7", "11.0.0.1"):
        for name in ("b.a.example", "x.a.example", "d.example", "else.example"):
            for source in ("10.9.1.1", "10.8.1.1", "12.0.0.1"):
                first = next((str(at) for at, one in enumerate(matches) if holds(one, to, name, source)), None)
                assert envoys(made, to, name, source) == first


def test_weights_are_shares_of_connections_and_zero_is_none() -> None:
    """Broken: a canary would get another share than was written, or a destination of weight 0 would get connections."""
    shares = tuple(WeightedDestination(DestinationKey(name, 1), weight) for name, weight in (("a", 80), ("b", 20), ("c", 0)))
    (chain,) = chains([TcpRoute(destinations=shares)])
    text = str(chain.filters[-1].typed_config.value)
    assert [name in text for name in ("outbound|1||a", "outbound|1||b", "outbound|1||c")] == [True, True, False]


@pytest.mark.parametrize("port", [None, 443])
def test_envoy_takes_the_chains(tmp_path: Path, port: int | None) -> None:
    """Broken: Envoy would refuse a listener with TCP routes, and its proxy would stay on the configuration before."""
    matches = [
        TcpMatch(names=(name,), networks=(network,), sources=(source,))
        for name in NAMES
        for network in NETWORKS
        for source in SOURCES
    ]
    listener = listener_pb2.Listener(
        name="a", address=socket("127.0.0.1", 1), filter_chains=list(chains(routes_of(*matches, TcpMatch()), port))
    )
    made = encode(type_urls.LISTENER, "a", listener.SerializeToString(deterministic=True), ())
    assert validate([[made]], tmp_path) == ""
