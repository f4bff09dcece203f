"""TLS as transport sockets: both ends of mutual TLS between sidecars, and the gateway's end towards clients from outside.

Certificates and roots are secrets `default` and `ROOTCA`, asked for over ADS, so that a rotation is one resource and no
listener or cluster changes. Who a server may be is an exact match on its SPIFFE ID; who a client may be is any workload of the
trust domain (policies decide the rest).

ALPN tells mesh traffic from an application's own TLS, in Istio's words: callers offer `istio` and, before it, what is inside.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import cast

from tulle.core.envoy.source import ADS, TRUE, seconds
from tulle.core.model.gateway import SecretRef, ServerTls
from tulle.core.model.handshake import Handshake
from tulle.core.model.traffic import ProxyProtocol
from tulle.pb import pack
from tulle.pb.envoy.config.core.v3 import base_pb2, config_source_pb2, proxy_protocol_pb2
from tulle.pb.envoy.config.listener.v3 import listener_components_pb2
from tulle.pb.envoy.extensions.transport_sockets.proxy_protocol.v3 import upstream_proxy_protocol_pb2
from tulle.pb.envoy.extensions.transport_sockets.quic.v3 import quic_transport_pb2
from tulle.pb.envoy.extensions.transport_sockets.raw_buffer.v3 import raw_buffer_pb2
from tulle.pb.envoy.extensions.transport_sockets.tls.v3 import common_pb2, secret_pb2, tls_pb2
from tulle.pb.envoy.type.matcher.v3 import string_pb2

CERTIFICATE = "default"
ROOTS = "ROOTCA"

# What callers offer, and what listeners recognise them by.
OFFER_HTTP2 = ("istio-h2", "istio", "h2")
OFFER_HTTP1 = ("istio-http/1.1", "istio", "http/1.1")
OFFER_TCP = ("istio",)
# HTTP in the version of the caller: nothing that the two ends could agree on, so that they go by what is said.
OFFER_HTTP = ("istio-h2", "istio-http/1.1", "istio")
MESH_HTTP = ("istio-h2", "istio-http/1.1", "istio-http/1.0")
MESH = (*MESH_HTTP, "istio-peer-exchange", "istio")

TLS = "envoy.transport_sockets.tls"

# How long (seconds) a client may take for its handshake: as long as it takes, it holds memory and has shown nothing.
HANDSHAKE_WITHIN = seconds(15.0)
_CERTIFICATE = secret_pb2.SdsSecretConfig(name=CERTIFICATE, sds_config=ADS)
_ROOTS = secret_pb2.SdsSecretConfig(name=ROOTS, sds_config=ADS)

PLAINTEXT = base_pb2.TransportSocket(name="envoy.transport_sockets.raw_buffer", typed_config=pack(raw_buffer_pb2.RawBuffer()))


_FILES = config_source_pb2.ConfigSource(
    ads=config_source_pb2.AggregatedConfigSource(),
    initial_fetch_timeout=seconds(2.0),
    resource_api_version=config_source_pb2.ApiVersion.V3,
)


def parameters(handshake: Handshake) -> common_pb2.TlsParameters:
    """Both bounds: with the minimum alone, Envoy's upstream default of at most 1.2 stays in force."""
    return common_pb2.TlsParameters(
        tls_minimum_protocol_version=_version(handshake.minimum),
        tls_maximum_protocol_version=common_pb2.TlsParameters.TLSv1_3,
        cipher_suites=handshake.ciphers,
        ecdh_curves=handshake.curves,
    )


def upstream(server_name: str, identities: Iterable[str], offer: Iterable[str], handshake: Handshake) -> base_pb2.TransportSocket:
    """The caller's end: presents this workload's certificate, accepts exactly `identities` (any workload where none is named)."""
    context = tls_pb2.UpstreamTlsContext(
        common_tls_context=_common(
            [_uri(string_pb2.StringMatcher(exact=identity)) for identity in identities],
            offer,
            handshake,
        ),
        sni=server_name,
    )
    return base_pb2.TransportSocket(name=TLS, typed_config=pack(context))


def announced(version: ProxyProtocol, inner: base_pb2.TransportSocket) -> base_pb2.TransportSocket:
    """The same socket, with the PROXY protocol's header sent before anything else; itself where none is asked for."""
    if version is ProxyProtocol.NONE:
        return inner
    spoken = proxy_protocol_pb2.ProxyProtocolConfig(version=version.value)
    socket = upstream_proxy_protocol_pb2.ProxyProtocolUpstreamTransport(config=spoken, transport_socket=inner)
    return base_pb2.TransportSocket(name="envoy.transport_sockets.upstream_proxy_protocol", typed_config=pack(socket))


def downstream(callers: Iterable[str], accept: Iterable[str], handshake: Handshake) -> base_pb2.TransportSocket:
    """The called workload's end: asks for a certificate with a SPIFFE ID that begins so; `accept` are its ALPN protocols."""
    names = [_uri(string_pb2.StringMatcher(prefix=prefix)) for prefix in callers]
    common = _common(names, accept, handshake)
    context = tls_pb2.DownstreamTlsContext(common_tls_context=common, require_client_certificate=TRUE)
    return base_pb2.TransportSocket(name=TLS, typed_config=pack(context))


def cut(chain: listener_components_pb2.FilterChain, number: int) -> listener_components_pb2.FilterChain:
    """The same chain, marked: where the mark becomes another one the connections that stand are drained, and end then."""
    if number:
        chain.metadata.filter_metadata["tulle.revocations"].update({"cut": number})
    return chain


def gateway(row: ServerTls, callers: Iterable[str], handshake: Handshake) -> base_pb2.TransportSocket:
    """The gateway's end towards clients from anywhere: certificates by SDS, so that a renewed one changes no listener.

    `callers` and `handshake` are for clients of the mesh.
    """
    if row.mesh:
        return downstream(callers, row.alpn, handshake)
    return base_pb2.TransportSocket(name=TLS, typed_config=pack(_served(row)))


def quic(row: ServerTls) -> base_pb2.TransportSocket:
    """The same for clients that come by QUIC, with the same certificates."""
    context = _served(row)
    context.common_tls_context.alpn_protocols[:] = ["h3"]
    message = quic_transport_pb2.QuicDownstreamTransport(downstream_tls_context=context)
    return base_pb2.TransportSocket(name="envoy.transport_sockets.quic", typed_config=pack(message))


def _served(row: ServerTls) -> tls_pb2.DownstreamTlsContext:
    common = tls_pb2.CommonTlsContext(
        tls_params=chosen(row.minimum, row.maximum, row.ciphers, row.curves),
        tls_certificate_sds_secret_configs=[_named(one) for one in row.certificates],
        alpn_protocols=row.alpn,
    )
    if row.authorities is not None:
        check = common_pb2.CertificateValidationContext(
            match_typed_subject_alt_names=[matcher for name in row.names for matcher in _alternatives(name)],
            verify_certificate_spki=row.spki,
            verify_certificate_hash=row.hashes,
        )
        if row.fallback:
            check.trust_chain_verification = common_pb2.CertificateValidationContext.ACCEPT_UNTRUSTED
        common.combined_validation_context.CopyFrom(
            tls_pb2.CommonTlsContext.CombinedCertificateValidationContext(
                default_validation_context=check,
                validation_context_sds_secret_config=_named(row.authorities),
            )
        )
    context = tls_pb2.DownstreamTlsContext(common_tls_context=common)
    if row.authorities is not None:
        context.require_client_certificate.value = row.require
    return context


def chosen(
    minimum: str, maximum: str, ciphers: Iterable[str] = (), curves: Iterable[str] = ()
) -> common_pb2.TlsParameters | None:
    """What somebody has chosen of the protocol; None where nothing is."""
    if not (minimum or maximum or ciphers or curves):
        return None
    return common_pb2.TlsParameters(
        tls_minimum_protocol_version=_version(minimum),
        tls_maximum_protocol_version=_version(maximum),
        cipher_suites=ciphers,
        ecdh_curves=curves,
    )


def _named(ref: SecretRef) -> secret_pb2.SdsSecretConfig:
    """Where a secret comes from. A file that is not there must not keep the listener from opening for all others."""
    return secret_pb2.SdsSecretConfig(name=ref.resource, sds_config=_FILES if ref.is_file else ADS)


def _version(name: str) -> common_pb2.TlsParameters.TlsProtocol:
    number = common_pb2.TlsParameters.TlsProtocol.Value(name or "TLS_AUTO")
    return cast("common_pb2.TlsParameters.TlsProtocol", number)


def _alternatives(name: str) -> Iterable[common_pb2.SubjectAltNameMatcher]:
    """A subject alternative name, of whichever kind the certificate has it."""
    kinds = common_pb2.SubjectAltNameMatcher
    for kind in (kinds.URI, kinds.DNS, kinds.EMAIL, kinds.IP_ADDRESS):
        yield common_pb2.SubjectAltNameMatcher(san_type=kind, matcher=string_pb2.StringMatcher(exact=name))


def _common(peers: list[common_pb2.SubjectAltNameMatcher], alpn: Iterable[str], handshake: Handshake) -> tls_pb2.CommonTlsContext:
    return tls_pb2.CommonTlsContext(
        tls_params=parameters(handshake),
        tls_certificate_sds_secret_configs=[_CERTIFICATE],
        combined_validation_context=tls_pb2.CommonTlsContext.CombinedCertificateValidationContext(
            default_validation_context=common_pb2.CertificateValidationContext(match_typed_subject_alt_names=peers),
            validation_context_sds_secret_config=_ROOTS,
        ),
        alpn_protocols=alpn,
    )


def _uri(matcher: string_pb2.StringMatcher) -> common_pb2.SubjectAltNameMatcher:
    return common_pb2.SubjectAltNameMatcher(san_type=common_pb2.SubjectAltNameMatcher.URI, matcher=matcher)
