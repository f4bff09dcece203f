"""Certificates → SDS secrets: a workload's own and the roots it trusts, made on the node, whose keys never leave it; and those of
a gateway, made by the control plane of Secrets for that gateway alone.
"""

from __future__ import annotations

from tulle.core import type_urls
from tulle.core.encoded import Encoded, encode
from tulle.core.envoy.tls import ROOTS
from tulle.core.model.roots import Roots
from tulle.pb import pack
from tulle.pb.envoy.config.core.v3 import base_pb2, extension_pb2
from tulle.pb.envoy.extensions.transport_sockets.tls.v3 import common_pb2, secret_pb2, tls_spiffe_validator_config_pb2


def encode_certificate(name: str, chain_pem: bytes, key_pem: bytes) -> Encoded:
    """A certificate chain (leaf first) and its private key; `name` is `default` for a workload's own."""
    certificate = common_pb2.TlsCertificate(
        certificate_chain=base_pb2.DataSource(inline_bytes=chain_pem), private_key=base_pb2.DataSource(inline_bytes=key_pem)
    )
    return _encode(secret_pb2.Secret(name=name, tls_certificate=certificate))


def encode_bundle(name: str, bundle_pem: bytes, revoked_pem: bytes = b"") -> Encoded:
    """The root certificates that peers must chain to, and what those revoked; `name` is `ROOTCA` for the mesh's own."""
    context = common_pb2.CertificateValidationContext(trusted_ca=base_pb2.DataSource(inline_bytes=bundle_pem))
    if revoked_pem:
        context.crl.inline_bytes = revoked_pem
    return _encode(secret_pb2.Secret(name=name, validation_context=context))


def encode_roots(row: Roots) -> Encoded:
    """What peers within the mesh must chain to. Where it believes several trust domains, each only of its own authorities."""
    if not row.domains:
        return encode_bundle(ROOTS, row.bundle.encode())
    config = tls_spiffe_validator_config_pb2.SPIFFECertValidatorConfig(
        trust_domains=[
            tls_spiffe_validator_config_pb2.SPIFFECertValidatorConfig.TrustDomain(
                name=name, trust_bundle=base_pb2.DataSource(inline_bytes=pem.encode())
            )
            for name, pem in row.domains
        ]
    )
    validator = extension_pb2.TypedExtensionConfig(name="envoy.tls.cert_validator.spiffe", typed_config=pack(config))
    context = common_pb2.CertificateValidationContext(custom_validator_config=validator)
    return _encode(secret_pb2.Secret(name=ROOTS, validation_context=context))


def _encode(secret: secret_pb2.Secret) -> Encoded:
    return encode(type_urls.SECRET, secret.name, secret.SerializeToString(deterministic=True))
