"""What stands in single resources: the choices that no validation would miss."""

from __future__ import annotations

import pytest

from tulle.core import type_urls
from tulle.core.envoy.clusters import encode_cluster, encode_workload_clusters
from tulle.core.envoy.endpoints import encode_endpoints
from tulle.core.envoy.listeners import encode_outbound, encode_workload
from tulle.core.envoy.routes import encode_host, encode_table
from tulle.core.model.destination import Destination, DestinationKey, Endpoint, EndpointSet, Locality, Transport
from tulle.core.model.route import (
    DEFAULT_RETRY,
    MatchKind,
    NamedMatch,
    Retry,
    Route,
    RouteMatch,
    RouteTableKey,
    TextMatch,
    VirtualHost,
    WeightedDestination,
)
from tulle.core.model.service import Protocol
from tulle.core.model.workload import Capture, InboundPort, MtlsMode, Outbound, Workload
from tulle.pb.envoy.config.cluster.v3 import cluster_pb2
from tulle.pb.envoy.config.core.v3 import health_check_pb2
from tulle.pb.envoy.config.endpoint.v3 import endpoint_pb2
from tulle.pb.envoy.config.listener.v3 import listener_pb2
from tulle.pb.envoy.config.route.v3 import route_components_pb2
from tulle.pb.envoy.extensions.transport_sockets.tls.v3 import tls_pb2

REVIEWS = DestinationKey("reviews.default.svc.cluster.local", 9080, "v1")
TABLE = RouteTableKey(9080, "default")


def inbound(mode: MtlsMode, others: MtlsMode, protocol: Protocol = Protocol.HTTP) -> listener_pb2.Listener:
    one = Workload(
        id="default/a",
        namespace="default",
        name="a",
        identity="spiffe://cluster.local/ns/default/sa/a",
        address="10.0.0.1",
        mtls=others,
        inbound=(InboundPort(9080, 9080, protocol, mode),),
    )
    encoded = next(item for item in encode_workload(one) if item.name == "virtualInbound")
    return listener_pb2.Listener.FromString(encoded.value)


def test_a_cluster_names_its_server_and_its_endpoints() -> None:
    """Broken: a caller would accept another service's certificate, or ask for endpoints nobody has."""
    identity = "spiffe://cluster.local/ns/default/sa/bookinfo-reviews"
    encoded = encode_cluster(Destination(REVIEWS, http=True, transport=Transport.MTLS, identities=(identity,)))
    assert encoded.name == "outbound|9080|v1|reviews.default.svc.cluster.local"
    assert encoded.refs == ((type_urls.ENDPOINT, encoded.name),)
    cluster = cluster_pb2.Cluster.FromString(encoded.value)
    context = tls_pb2.UpstreamTlsContext.FromString(cluster.transport_socket.typed_config.value)
    assert context.sni == "outbound_.9080_.v1_.reviews.default.svc.cluster.local"
    names = context.common_tls_context.combined_validation_context.default_validation_context.match_typed_subject_alt_names
    assert [name.matcher.exact for name in names] == [identity]
    assert list(context.common_tls_context.alpn_protocols) == ["istio-h2", "istio", "h2"]


def test_unready_endpoints_get_nothing_and_still_are_listed() -> None:
    """Broken: requests would reach a process that is starting or ending."""
    endpoints = (Endpoint("10.0.0.1", 1, "default/a", mtls=True), Endpoint("10.0.0.2", 2, healthy=False))
    assignment = endpoint_pb2.ClusterLoadAssignment.FromString(encode_endpoints(EndpointSet(REVIEWS, endpoints)).value)
    first, second = assignment.endpoints[0].lb_endpoints
    assert first.metadata.filter_metadata["envoy.transport_socket_match"].fields["tlsMode"].string_value == "istio"
    assert second.health_status == health_check_pb2.UNHEALTHY
    cluster = cluster_pb2.Cluster.FromString(encode_cluster(Destination(REVIEWS)).value)
    assert cluster.common_lb_config.HasField("healthy_panic_threshold")
    assert cluster.common_lb_config.healthy_panic_threshold.value == 0


def test_strict_has_no_way_round() -> None:
    """Broken: plaintext would get in by a chain meant for other ports, and mTLS would be decoration."""
    for protocol in Protocol:
        listener = inbound(MtlsMode.STRICT, MtlsMode.PERMISSIVE, protocol)
        assert not listener.HasField("default_filter_chain")
        chains = [chain for chain in listener.filter_chains if chain.filter_chain_match.destination_port.value == 9080]
        assert chains
        for chain in chains:
            context = tls_pb2.DownstreamTlsContext.FromString(chain.transport_socket.typed_config.value)
            assert chain.filter_chain_match.transport_protocol == "tls"
            assert context.require_client_certificate.value


def test_undeclared_ports_follow_the_workload() -> None:
    """Broken: a port that no service declares would be open in a STRICT workload."""
    strict = [chain for chain in inbound(MtlsMode.STRICT, MtlsMode.STRICT).filter_chains if chain.name.endswith("plaintext")]
    assert strict == []
    permissive = inbound(MtlsMode.STRICT, MtlsMode.PERMISSIVE).filter_chains
    assert "virtualInbound-plaintext" in [chain.name for chain in permissive]


def test_servers_that_speak_first_are_not_held() -> None:
    """Broken: a MySQL or SMTP client in plaintext would wait for the TLS inspector, and STRICT would guess at slow clients."""
    assert inbound(MtlsMode.PERMISSIVE, MtlsMode.STRICT).continue_on_listener_filters_timeout
    assert not inbound(MtlsMode.STRICT, MtlsMode.STRICT).HasField("listener_filters_timeout")
    disabled = inbound(MtlsMode.DISABLE, MtlsMode.STRICT)
    assert disabled.listener_filters[1].filter_disabled.destination_port_range.start == 9080
    assert [one.name for one in inbound(MtlsMode.DISABLE, MtlsMode.DISABLE).listener_filters] == [
        "envoy.filters.listener.original_dst"
    ]


def test_hosts_are_named_as_their_resources() -> None:
    """Broken: a deleted VirtualService would go on routing, for Envoy removes virtual hosts by resource name."""
    encoded = encode_host(TABLE, VirtualHost("reviews", ("reviews",), (Route(status=404),)))
    assert encoded.name == "9080.default/reviews"
    assert route_components_pb2.VirtualHost.FromString(encoded.value).name == encoded.name
    assert encode_table(TABLE).refs == ((type_urls.VIRTUAL_HOST, "9080.default"),)


def test_shares_of_nothing_are_not_sent_anything() -> None:
    """Broken: a weight of zero would still get requests, or a single remaining share would be an invalid split."""
    other = DestinationKey("other", 80)
    routes = (
        Route(destinations=(WeightedDestination(REVIEWS, 100), WeightedDestination(other, 0))),
        Route(destinations=(WeightedDestination(other, 0),)),
    )
    host = route_components_pb2.VirtualHost.FromString(encode_host(TABLE, VirtualHost("a", ("a",), routes)).value)
    safe, unsafe, nothing = host.routes
    assert [one.route.cluster for one in (safe, unsafe)] == [REVIEWS.cluster] * 2
    assert nothing.direct_response.status == 500


@pytest.mark.parametrize(
    ("retry", "expected"),
    [
        (DEFAULT_RETRY, [("GET|HEAD|OPTIONS", True), ("", False)]),
        (Retry(1, ("connect-failure",)), [("", False)]),
        (Retry(1, ("reset",)), [("", True)]),
        (None, [("", False)]),
    ],
)
def test_what_may_have_been_acted_on_is_repeated_only_of_safe_methods(
    retry: Retry | None, expected: list[tuple[str, bool]]
) -> None:
    """Broken: an order would be given twice when an instance dies, or a reader see the death; or a rule be overruled."""
    routes = (Route(destinations=(WeightedDestination(REVIEWS),), retry=retry),)
    host = route_components_pb2.VirtualHost.FromString(encode_host(TABLE, VirtualHost("a", ("a",), routes)).value)
    found = [
        (
            "".join(header.string_match.safe_regex.regex for header in one.match.headers),
            "reset" in one.route.retry_policy.retry_on.split(","),
        )
        for one in host.routes
    ]
    assert found == expected


def test_weights_beyond_what_envoy_takes_are_in_proportion() -> None:
    """Broken: weights that an API allows would be refused by Envoy, with everything else that came in the message."""
    largest = 2**32 - 1
    places = [Endpoint("10.0.0.1", 80, weight=largest), Endpoint("10.0.0.2", 80, weight=largest), Endpoint("10.0.0.3", 80)]
    encoded = encode_endpoints(EndpointSet(REVIEWS, tuple(places), ((Locality(), largest),)))
    (group,) = endpoint_pb2.ClusterLoadAssignment.FromString(encoded.value).endpoints
    weights = [one.load_balancing_weight.value for one in group.lb_endpoints]
    assert sum(weights) <= largest
    assert (weights[0], weights[2]) == (weights[1], 1)
    assert weights[0] > largest / 2.01
    assert group.load_balancing_weight.value <= largest
    shares = tuple(WeightedDestination(DestinationKey(name, 80), 2**31 - 1) for name in ("a", "b", "c"))
    host = encode_host(TABLE, VirtualHost("a", ("a",), (Route(destinations=shares, retry=None),)))
    (route,) = route_components_pb2.VirtualHost.FromString(host.value).routes
    assert sum(one.weight.value for one in route.route.weighted_clusters.clusters) <= largest


def test_an_inverted_match_holds_for_an_absent_header() -> None:
    """Broken: `withoutHeaders` would not match requests without that header, its most common meaning."""
    named = NamedMatch("end-user", TextMatch(MatchKind.EXACT, "jason"), invert=True)
    route = Route(match=RouteMatch(headers=(named,)), destinations=(WeightedDestination(REVIEWS),))
    host = route_components_pb2.VirtualHost.FromString(encode_host(TABLE, VirtualHost("a", ("a",), (route,))).value)
    matcher = host.routes[0].match.headers[0]
    assert matcher.invert_match
    assert matcher.treat_missing_header_as_empty


def test_passthrough_only_where_there_is_an_original_destination() -> None:
    """Broken: the forward proxy would send unknown hosts to itself."""
    everything = VirtualHost("allow_any", ("*",), passthrough=True)
    sidecar = route_components_pb2.VirtualHost.FromString(encode_host(TABLE, everything).value)
    assert sidecar.routes[0].route.cluster == "PassthroughCluster"
    forward = route_components_pb2.VirtualHost.FromString(encode_host(RouteTableKey(0, "default"), everything).value)
    assert forward.routes[0].direct_response.status == 502


def test_proxy_capture_binds_what_callers_reach() -> None:
    """Broken: without redirection, nobody would answer on the workload's ports."""
    one = Workload(
        id="default/a",
        namespace="default",
        name="a",
        identity="spiffe://cluster.local/ns/default/sa/a",
        address="127.0.0.1",
        capture=Capture.PROXY,
        inbound=(InboundPort(31000, 9080, Protocol.HTTP),),
    )
    listeners = {item.name: item for item in encode_workload(one)}
    assert set(listeners) == {"127.0.0.1_15001", "127.0.0.1_31000"}
    assert listeners["127.0.0.1_15001"].refs == ((type_urls.ROUTE, "0.default"),)
    assert {item.name for item in encode_workload_clusters(one)} == {"BlackHoleCluster", "NowhereCluster", "inbound|31000||"}


def test_equal_rows_are_equal_bytes() -> None:
    """Broken: unchanged configuration would be sent again, and proxies would drain listeners for nothing."""
    assert encode_outbound(Outbound("default", (TABLE,))) == encode_outbound(Outbound("default", (TABLE,)))
    mixed = Destination(REVIEWS, transport=Transport.MIXED)
    assert encode_cluster(mixed) == encode_cluster(Destination(REVIEWS, transport=Transport.MIXED))
