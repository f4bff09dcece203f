"""TLS that is no mesh's, towards endpoints with certificates of their own: what is trusted, what is shown, what is asked for.

Authorities that the model has are written into the cluster. Files, and the host's own authorities, are secrets that the proxy
asks its node for (`file_secret`), and a Gateway's own certificate is one that it asks the mesh for: one that is not there, or no
certificate, leaves this one cluster unable to connect, so that its requests fail, and everything else as it is. Written into the
cluster it would make Envoy refuse the cluster.
"""

from __future__ import annotations

from tulle.core.envoy import tls
from tulle.core.envoy.source import seconds
from tulle.core.model.destination import Destination
from tulle.core.model.traffic import Tls
from tulle.pb import pack
from tulle.pb.envoy.config.core.v3 import base_pb2, config_source_pb2
from tulle.pb.envoy.extensions.transport_sockets.tls.v3 import common_pb2, secret_pb2, tls_pb2
from tulle.pb.envoy.type.matcher.v3 import string_pb2

SYSTEM = "system"
# The secret that nobody has: what asks for it trusts nobody.
NOBODY = "file-root:"

# How long (seconds) a cluster waits for a file that is not there before it answers that it cannot.
_PATIENCE = 2.0
_NODE = config_source_pb2.ConfigSource(
    ads=config_source_pb2.AggregatedConfigSource(),
    initial_fetch_timeout=seconds(_PATIENCE),
    resource_api_version=config_source_pb2.ApiVersion.V3,
)
_San = common_pb2.SubjectAltNameMatcher


def originate(said: Tls, destination: Destination, offer: tuple[str, ...]) -> base_pb2.TransportSocket:
    """The caller's end."""
    usual, maximum = destination.handshake, said.maximum or "TLSv1_3"
    minimum = said.minimum or min(usual.minimum, maximum)
    parameters = tls.chosen(minimum, maximum, said.ciphers or usual.ciphers, said.curves or usual.curves)
    common = tls_pb2.CommonTlsContext(tls_params=parameters, alpn_protocols=offer if destination.http else ())
    if said.certificate:
        common.tls_certificate_sds_secret_configs.append(_secret(said.certificate))
    elif said.certificate_file:
        name = file_secret("cert", said.certificate_file, said.key_file)
        common.tls_certificate_sds_secret_configs.append(_secret(name))
    if said.verify:
        _verify(common, said)
    context = tls_pb2.UpstreamTlsContext(common_tls_context=common, sni=said.sni)
    return base_pb2.TransportSocket(name=tls.TLS, typed_config=pack(context))


def named_by_call(said: Tls | None) -> bool:
    """Whether the server's name is the host that was called."""
    return said is not None and not said.sni


def checked_by_call(said: Tls | None) -> bool:
    """Whether the certificate has to be for the host that was called."""
    return said is not None and not said.sni and said.verify and not (said.names or said.uris)


def file_secret(kind: str, *paths: str) -> str:
    """The name of a secret that the node reads from files: `file-root:/a/ca.pem`, `file-cert:/a/chain.pem~/a/key.pem`."""
    return f"file-{kind}:{'~'.join(paths)}"


def _secret(name: str) -> secret_pb2.SdsSecretConfig:
    return secret_pb2.SdsSecretConfig(name=name, sds_config=_NODE)


def _verify(common: tls_pb2.CommonTlsContext, said: Tls) -> None:
    names = said.names or ((said.sni,) if said.sni and not said.uris else ())
    peers = [_San(san_type=_San.DNS, matcher=_name(name)) for name in names]
    peers += [_San(san_type=_San.URI, matcher=string_pb2.StringMatcher(exact=uri)) for uri in said.uris]
    checks = common_pb2.CertificateValidationContext(match_typed_subject_alt_names=peers)
    if said.authorities:
        checks.trusted_ca.inline_string = said.authorities
        common.validation_context.CopyFrom(checks)
        return
    roots = (
        NOBODY
        if said.nobody
        else said.roots or file_secret("root", said.ca_file or SYSTEM, *((said.crl_file,) if said.crl_file else ()))
    )
    common.combined_validation_context.default_validation_context.CopyFrom(checks)
    common.combined_validation_context.validation_context_sds_secret_config.CopyFrom(_secret(roots))


def _name(name: str) -> string_pb2.StringMatcher:
    """A DNS name; Envoy lets a certificate's wildcard be for it. A wildcard here is for the names below."""
    if name.startswith("*."):
        return string_pb2.StringMatcher(suffix=name[1:])
    return string_pb2.StringMatcher(exact=name)
