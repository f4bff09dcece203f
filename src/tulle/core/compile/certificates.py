"""What a Secret or a ConfigMap holds for TLS: what kinds of certificates, whether they can be used, and these themselves.

The bytes are in a `Material`, which shows nothing of itself and cannot be serialised: a key leaves the tables only in a secret
for the gateway that serves it. Whether a certificate is valid at this time is for the analyzers, who have a clock.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Mapping

import msgspec

_BLOCK = re.compile("-----BEGIN ([A-Z0-9 ]+)-----(.+?)-----END \\1-----", re.DOTALL)
_SEQUENCE = 0x30  # the first byte of every certificate and private key in DER
# Names of a certificate and its key, of the certificates to check others with, and of what they revoked: Kubernetes' first, then
# those that Istio's gateways read too.
PAIRS = (("tls.crt", "tls.key"), ("cert", "key"))
_AUTHORITIES = ("ca.crt", "cacert")
_REVOKED = ("ca.crl", "crl")
_RSA_BITS = 2048  # what Envoy asks for at least
_CURVES = ("secp256r1", "secp384r1", "secp521r1")


class Material:
    """Certificates and keys as PEM. Compares by content, shows a fingerprint only, and is no type that any encoder knows."""

    __slots__ = ("authorities", "chain", "fingerprint", "key", "revoked")

    def __init__(self, chain: bytes = b"", key: bytes = b"", authorities: bytes = b"", revoked: bytes = b"") -> None:
        self.chain, self.key, self.authorities, self.revoked = chain, key, authorities, revoked
        parts = (chain, key, authorities, revoked)
        self.fingerprint = hashlib.sha256(b"".join(hashlib.sha256(part).digest() for part in parts)).hexdigest()[:16]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Material) and self.fingerprint == other.fingerprint

    def __hash__(self) -> int:
        return hash(self.fingerprint)

    def __repr__(self) -> str:
        return f"<certificates {self.fingerprint}>"


class Certificates(msgspec.Struct, frozen=True):
    """`pair`: a certificate and its key; `authorities`: certificates to check others with.

    `fault` is why the pair cannot be served, though it is there; "" where it can.
    """

    pair: bool = False
    authorities: bool = False
    fault: str = ""
    material: Material | None = None


def certificates_in(encoded: Mapping[str, str], plain: Mapping[str, str]) -> Certificates:
    """Read off the data of a Secret (`encoded` in base64, `plain` over it) or of a ConfigMap (`plain` alone)."""
    chain = key = b""
    for names in PAIRS:
        chain, key = (_bytes(name, encoded, plain) for name in names)
        if chain and key:
            break
    pair = "CERTIFICATE" in _labels(chain) and any(label.endswith("PRIVATE KEY") for label in _labels(key))
    roots = next((found for name in _AUTHORITIES if (found := _bytes(name, encoded, plain))), b"")
    authorities = "CERTIFICATE" in _labels(roots)
    if not pair and not authorities:
        return Certificates()
    revoked = next((found for name in _REVOKED if (found := _bytes(name, encoded, plain))), b"")
    return Certificates(
        pair=pair,
        authorities=authorities and not _chain_fault(roots),
        fault=pair_fault(chain, key) if pair else "",
        material=Material(
            chain if pair else b"",
            key if pair else b"",
            roots if authorities else b"",
            revoked if "X509 CRL" in _labels(revoked) else b"",
        ),
    )


def pair_fault(chain: bytes, key: bytes) -> str:
    """Why Envoy would not take a certificate chain with a key; "" where it would."""
    # Who sees no certificate does not wait for these imports.
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key
    from cryptography.x509 import load_pem_x509_certificates

    if fault := _chain_fault(chain):
        return fault
    public = load_pem_x509_certificates(chain)[0].public_key()
    try:
        own = load_pem_private_key(key, password=None).public_key()
    except (ValueError, TypeError, UnsupportedAlgorithm):
        return "its private key cannot be read; needed one in PEM without a password"
    form = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    if own.public_bytes(*form) != public.public_bytes(*form):
        return "its private key is not that of its certificate; needed its own"
    if isinstance(public, RSAPublicKey):
        bits = public.key_size
        return f"its key has {bits} bits; needed RSA with {_RSA_BITS} or more" if bits < _RSA_BITS else ""
    if isinstance(public, EllipticCurvePublicKey) and public.curve.name in _CURVES:
        return ""
    return "its key is of a kind that Envoy does not serve; needed RSA, or ECDSA with P-256, P-384 or P-521"


def _chain_fault(chain: bytes) -> str:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.x509 import load_pem_x509_certificates

    try:
        for one in load_pem_x509_certificates(chain):
            one.public_key()
    except (ValueError, UnsupportedAlgorithm):
        return "its certificate cannot be read; needed -----BEGIN CERTIFICATE----- with a certificate in DER"
    return ""


def _bytes(name: str, encoded: Mapping[str, str], plain: Mapping[str, str]) -> bytes:
    if name in plain:
        return plain[name].encode()
    try:
        return base64.b64decode(encoded.get(name, ""), validate=True)
    except binascii.Error:
        return b""


def _labels(text: bytes) -> set[str]:
    """The labels of the PEM blocks in a text whose content is DER."""
    found: set[str] = set()
    for label, body in _BLOCK.findall(text.decode("ascii", "replace")):
        try:
            der = base64.b64decode("".join(body.split()), validate=True)
        except binascii.Error:
            continue
        if der[:1] == bytes([_SEQUENCE]):
            found.add(label)
    return found
