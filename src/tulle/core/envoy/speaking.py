"""What is spoken to a cluster's endpoints: the version of HTTP, the bounds of its connections, and the ALPN that says so."""

from __future__ import annotations

from functools import lru_cache

import msgspec

from tulle.core.envoy import tls
from tulle.core.envoy.balancing import hash_policy
from tulle.core.envoy.origination import checked_by_call, named_by_call
from tulle.core.envoy.source import seconds, uint32
from tulle.core.model.destination import Destination, Transport
from tulle.core.model.service import Protocol
from tulle.core.model.traffic import ANY_CONNECTIONS, ANY_REQUESTS, Connections, Hash, Requests, Upgrade
from tulle.core.model.workload import InboundPort
from tulle.pb import pack
from tulle.pb.envoy.config.cluster.v3 import cluster_pb2
from tulle.pb.envoy.config.common.matcher.v3 import matcher_pb2
from tulle.pb.envoy.config.core.v3 import protocol_pb2
from tulle.pb.envoy.config.route.v3 import route_components_pb2
from tulle.pb.envoy.extensions.upstreams.http.v3 import http_protocol_options_pb2
from tulle.pb.envoy.type.matcher.v3 import string_pb2
from tulle.pb.google.protobuf import any_pb2

_Options = http_protocol_options_pb2.HttpProtocolOptions
OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"

# Extended CONNECT lets WebSockets cross the HTTP/2 between sidecars.
HTTP2_OPTIONS = protocol_pb2.Http2ProtocolOptions(allow_connect=True)
_HTTP1_OPTIONS = protocol_pb2.Http1ProtocolOptions()
HTTP1 = pack(_Options(explicit_http_config=_Options.ExplicitHttpConfig(http_protocol_options=_HTTP1_OPTIONS)))
HTTP2 = pack(_Options(explicit_http_config=_Options.ExplicitHttpConfig(http2_protocol_options=HTTP2_OPTIONS)))
AS_CALLED = pack(
    _Options(
        use_downstream_protocol_config=_Options.UseDownstreamHttpConfig(
            http_protocol_options=_HTTP1_OPTIONS, http2_protocol_options=HTTP2_OPTIONS
        )
    )
)


def speak(cluster: cluster_pb2.Cluster, destination: Destination) -> tuple[str, ...]:
    """Write the options of HTTP into a cluster, where it is HTTP; the ALPN to offer is the answer.

    Where every endpoint has a sidecar, HTTP always travels as HTTP/2 between the sidecars, unless a rule says otherwise. A MIXED
    destination speaks to both kinds of endpoints, so it takes the version that the applications themselves speak.
    """
    if not destination.http and not destination.auto:
        return tls.OFFER_TCP
    wish = destination.requests.upgrade
    # An undeclared application is called in the version of its caller. Connections that carry bytes there say so themselves
    # (`tcp_routes`).
    if destination.auto and destination.transport is not Transport.TLS and wish is Upgrade.DECLARED:
        wish = Upgrade.AS_CALLED
    mesh = destination.transport is Transport.MTLS and not destination.auto
    offer: tuple[str, ...]
    if wish is Upgrade.AS_CALLED:
        version, offer = Upgrade.AS_CALLED, tls.OFFER_HTTP
    elif destination.http2 or wish is Upgrade.HTTP2 or (mesh and wish is not Upgrade.HTTP1):
        version, offer = Upgrade.HTTP2, tls.OFFER_HTTP2
    else:
        version, offer = Upgrade.HTTP1, tls.OFFER_HTTP1
    cluster.typed_extension_protocol_options[OPTIONS].CopyFrom(_options(_Spoken.of(destination, version)))
    if destination.transport is Transport.TLS:
        return {Upgrade.HTTP2: ("h2",), Upgrade.HTTP1: ("http/1.1",)}.get(version, ())
    return offer


def spoken_to_application(port: InboundPort) -> any_pb2.Any | None:
    """What a sidecar speaks to its application; None: HTTP/1 without any bound, or bytes."""
    if port.protocol in (Protocol.HTTP2, Protocol.GRPC):
        version = Upgrade.HTTP2
    elif port.protocol is Protocol.AUTO:
        version = Upgrade.AS_CALLED
    else:
        version = Upgrade.HTTP1
    if port.connections == ANY_CONNECTIONS and port.requests == ANY_REQUESTS:
        return {Upgrade.HTTP2: HTTP2, Upgrade.AS_CALLED: AS_CALLED}.get(version)
    if not port.protocol.may_be_http:
        return None
    return _options(_Spoken(version, port.connections, port.requests, hash=None, codes=(), named=False, checked=False))


class _Spoken(msgspec.Struct, frozen=True):
    """What the options of HTTP depend on: the same for most destinations."""

    version: Upgrade
    connections: Connections
    requests: Requests
    hash: Hash | None
    codes: tuple[int, ...]
    named: bool
    checked: bool

    @classmethod
    def of(cls, destination: Destination, version: Upgrade) -> _Spoken:
        """Of a destination to which that version is spoken."""
        own = destination.tls if destination.transport is Transport.TLS else None
        return cls(
            version=version,
            connections=destination.connections,
            requests=destination.requests,
            hash=destination.hash,
            codes=destination.outlier.codes if destination.outlier else (),
            named=named_by_call(own),
            checked=checked_by_call(own),
        )


@lru_cache(maxsize=256)
def _options(spoken: _Spoken) -> any_pb2.Any:
    connections, requests, version = spoken.connections, spoken.requests, spoken.version
    options = _Options()
    http2 = protocol_pb2.Http2ProtocolOptions(allow_connect=True)
    if requests.max_streams:
        http2.max_concurrent_streams.CopyFrom(uint32(requests.max_streams))
    if connections.ping_interval or connections.ping_timeout:
        # Envoy wants both, with the shorter of them as what a ping may take.
        http2.connection_keepalive.interval.CopyFrom(seconds(connections.ping_interval or connections.ping_timeout))
        http2.connection_keepalive.timeout.CopyFrom(seconds(connections.ping_timeout or connections.ping_interval))
    if version is Upgrade.AS_CALLED:
        options.use_downstream_protocol_config.http_protocol_options.CopyFrom(_HTTP1_OPTIONS)
        options.use_downstream_protocol_config.http2_protocol_options.CopyFrom(http2)
    elif version is Upgrade.HTTP2:
        options.explicit_http_config.http2_protocol_options.CopyFrom(http2)
    else:
        options.explicit_http_config.http_protocol_options.CopyFrom(_HTTP1_OPTIONS)
    if spoken.named:
        options.upstream_http_protocol_options.auto_sni = True
        options.upstream_http_protocol_options.auto_san_validation = spoken.checked
    common = options.common_http_protocol_options
    if connections.idle_timeout is not None:
        common.idle_timeout.CopyFrom(seconds(connections.idle_timeout))
    if connections.max_duration:
        common.max_connection_duration.CopyFrom(seconds(connections.max_duration))
    if requests.max_per_connection:
        common.max_requests_per_connection.CopyFrom(uint32(requests.max_per_connection))
    if spoken.hash:
        # Beside the cluster, and not at the routes to it: one route may lead to several clusters.
        options.hash_policy.append(hash_policy(spoken.hash))
    if spoken.codes:
        options.outlier_detection.error_matcher.CopyFrom(_any_code(spoken.codes))
    packed: any_pb2.Any = pack(options)
    return packed


def _any_code(codes: tuple[int, ...]) -> matcher_pb2.MatchPredicate:
    found = [_code(code) for code in codes]
    return found[0] if len(found) == 1 else matcher_pb2.MatchPredicate(or_match=matcher_pb2.MatchPredicate.MatchSet(rules=found))


def _code(code: int) -> matcher_pb2.MatchPredicate:
    status = route_components_pb2.HeaderMatcher(name=":status", string_match=string_pb2.StringMatcher(exact=str(code)))
    return matcher_pb2.MatchPredicate(http_response_headers_match=matcher_pb2.HttpHeadersMatch(headers=[status]))
