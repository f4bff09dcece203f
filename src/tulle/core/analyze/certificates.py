"""Secret → what it is for TLS: whether it has a certificate, whether the key is its own, how long it is valid. No key is kept."""

from __future__ import annotations

import base64
import binascii
from typing import TYPE_CHECKING

import msgspec

from tulle.kit.problem import Ref

if TYPE_CHECKING:
    from tulle.api.object import Object

TLS = "kubernetes.io/tls"
# Names of the certificate and its key: Kubernetes', and those that Istio's gateways read too.
_PAIRS = (("tls.crt", "tls.key"), ("cert", "key"))
_AUTHORITIES = ("ca.crt", "cacert")


class Certificate(msgspec.Struct, frozen=True):
    """What a Secret is for TLS. `begins` and `ends` are seconds since the epoch, of its first certificate.

    `fault` is (field, reason, message) of what makes it unusable. `pair`: it has a certificate and a key, right or wrong;
    `authorities`: it has certificates to check others with.
    """

    ref: Ref
    type: str
    pair: bool = False
    authorities: bool = False
    begins: float = 0.0
    ends: float = 0.0
    fault: tuple[str, str, str] | None = None


def read(secret: Object) -> Certificate:
    """Of a Secret, what is about TLS."""
    data: dict[str, str] = getattr(secret, "data", {})
    plain: dict[str, str] = getattr(secret, "string_data", {})
    kind = str(getattr(secret, "type", ""))
    there = {*data, *plain}
    found = Certificate(secret.ref, kind, authorities=any(name in there for name in _AUTHORITIES))
    pair = next(((crt, key) for crt, key in _PAIRS if crt in there and key in there), None)
    if pair is None:
        if kind != TLS:
            return found
        missing = next(name for name in _PAIRS[0] if name not in there)
        return msgspec.structs.replace(found, fault=("data", "BadCertificate", f"found no {missing}; needed tls.crt and tls.key"))
    found = msgspec.structs.replace(found, pair=True)
    return _judged(found, pair, _bytes(pair[0], data, plain), _bytes(pair[1], data, plain))


def _bytes(name: str, data: dict[str, str], plain: dict[str, str]) -> bytes:
    if name in plain:
        return plain[name].encode()
    try:
        return base64.b64decode(data[name], validate=True)
    except binascii.Error:
        return b""


def _judged(found: Certificate, names: tuple[str, str], certificate: bytes, key: bytes) -> Certificate:
    # A command that sees no Secret does not wait for this import.
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key
    from cryptography.x509 import load_pem_x509_certificates

    def faulty(field: str, reason: str, message: str) -> Certificate:
        return msgspec.structs.replace(found, fault=(f'data["{field}"]' if "." in field else f"data.{field}", reason, message))

    try:
        first = load_pem_x509_certificates(certificate)[0]
        public = first.public_key()
    except (ValueError, UnsupportedAlgorithm):
        return faulty(names[0], "BadCertificate", "found no certificate in PEM; needed -----BEGIN CERTIFICATE-----")
    begins, ends = first.not_valid_before_utc.timestamp(), first.not_valid_after_utc.timestamp()
    found = msgspec.structs.replace(found, begins=begins, ends=ends)
    try:
        own = load_pem_private_key(key, password=None).public_key()
    except (ValueError, TypeError, UnsupportedAlgorithm):
        return faulty(names[1], "BadCertificate", "found no private key in PEM; needed one without a password")
    form = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    if own.public_bytes(*form) != public.public_bytes(*form):
        return faulty(names[1], "KeyMismatch", f"the key is not that of the certificate in {names[0]}; needed its own")
    return found
