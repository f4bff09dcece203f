"""Certificates as values: templates in, signed certificates out, and a second look at what was signed."""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from tulle.kit.errors import Refused

# Certificates are valid from a minute ago, for hosts whose clocks are a little behind.
SKEW = 60.0
ROOT_LIFETIME = 3650 * 24 * 3600.0

SigningKey = ec.EllipticCurvePrivateKey
PublicKey = ec.EllipticCurvePublicKey | rsa.RSAPublicKey


def make_key() -> SigningKey:
    """A new P-256 key."""
    return ec.generate_private_key(ec.SECP256R1())


def key_pem(key: SigningKey) -> bytes:
    """PKCS 8, not encrypted."""
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())


def pem(certificate: x509.Certificate) -> bytes:
    """The certificate in PEM."""
    return certificate.public_bytes(serialization.Encoding.PEM)


def fingerprint(certificate: x509.Certificate) -> str:
    """SHA-256 over the DER, in hex."""
    return hashlib.sha256(certificate.public_bytes(serialization.Encoding.DER)).hexdigest()


def moment(seconds: float) -> datetime:
    """Seconds since the epoch as certificates have it: UTC, whole seconds."""
    return datetime.fromtimestamp(int(seconds), UTC)


def make_root(key: SigningKey, trust_domain: str, now: float) -> x509.Certificate:
    """A self-signed root for a trust domain; it signs leaves only."""
    # Two roots that are trusted at once must not have the same name: verifiers look an issuer up by it.
    number = x509.SubjectKeyIdentifier.from_public_key(key.public_key()).digest.hex()[:16]
    organization = x509.NameAttribute(NameOID.ORGANIZATION_NAME, trust_domain[:64])
    name = x509.Name([organization, x509.NameAttribute(NameOID.COMMON_NAME, f"tulle root {number}")])
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(moment(now - SKEW))
        .not_valid_after(moment(now + ROOT_LIFETIME))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.SubjectAlternativeName([x509.UniformResourceIdentifier(f"spiffe://{trust_domain}")]), critical=False)
        .sign(key, hashes.SHA256())
    )


def requested_key(csr_pem: bytes) -> PublicKey:
    """The key of a signing request, which proves with its signature that the requester has it. Nothing else is read of it.

    Raises `Refused` where it does not parse, is not signed by its own key, or the key is too weak or of an unusual kind.
    """
    try:
        csr = x509.load_pem_x509_csr(csr_pem)
        key = csr.public_key()
        signed = csr.is_signature_valid
    except (ValueError, TypeError, UnsupportedAlgorithm, InvalidSignature) as error:
        raise Refused("csr: found something else, needed a certificate signing request in PEM") from error
    if not signed:
        raise Refused("csr: its signature is not of its own key")
    if isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, (ec.SECP256R1, ec.SECP384R1)):
        return key
    if isinstance(key, rsa.RSAPublicKey) and 2048 <= key.key_size <= 8192:
        return key
    raise Refused("csr: found another key, needed ECDSA P-256 or P-384, or RSA of 2,048 bits or more")


def make_leaf(
    issuer: x509.Certificate,
    issuer_key: SigningKey,
    key: PublicKey,
    now: float,
    lifetime: float,
    *,
    uri: str = "",
    names: Sequence[str] = (),
    subject: Sequence[tuple[x509.ObjectIdentifier, str]] = (),
    server: bool = True,
) -> x509.Certificate:
    """A leaf of our template, within its issuer's life. `names` are DNS names and IP addresses. Raises `Refused`."""
    end = min(moment(now + lifetime), issuer.not_valid_after_utc)
    if lifetime <= 0 or end <= moment(now):
        raise Refused(f"lifetime: found {lifetime:.0f} s, needed more than 0 and a root that has not expired")
    alternatives: list[x509.GeneralName] = [x509.UniformResourceIdentifier(uri)] if uri else []
    alternatives += [_name(name) for name in names]
    usages = [ExtendedKeyUsageOID.CLIENT_AUTH, *([ExtendedKeyUsageOID.SERVER_AUTH] if server else [])]
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(kind, text) for kind, text in subject]))
        .issuer_name(issuer.subject)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(max(moment(now - SKEW), issuer.not_valid_before_utc))
        .not_valid_after(end)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False)
    )
    if alternatives:
        # A certificate without a subject must say so: its names are critical then.
        builder = builder.add_extension(x509.SubjectAlternativeName(alternatives), critical=not subject)
    return builder.sign(issuer_key, hashes.SHA256())


def check_leaf(leaf: x509.Certificate, issuer: x509.Certificate, uri: str, now: float) -> None:
    """Look at what was signed, as its readers will; raises `Refused` where it is more than was meant. A bug, then."""
    leaf.verify_directly_issued_by(issuer)
    extensions = leaf.extensions
    basic = extensions.get_extension_for_class(x509.BasicConstraints).value
    usage = extensions.get_extension_for_class(x509.KeyUsage).value
    names = [name for one in extensions if isinstance(one.value, x509.SubjectAlternativeName) for name in one.value]
    wrong = (
        basic.ca
        or usage.key_cert_sign
        or usage.crl_sign
        or not usage.digital_signature
        or [name.value for name in names if isinstance(name, x509.UniformResourceIdentifier)] != ([uri] if uri else [])
        or leaf.not_valid_after_utc > issuer.not_valid_after_utc
        or not leaf.not_valid_before_utc <= moment(now) < leaf.not_valid_after_utc
        or leaf.not_valid_after_utc - leaf.not_valid_before_utc <= timedelta(0)
    )
    if wrong:
        raise Refused("the certificate that was made is not the one that was meant; it is not given out")


def _usage(signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs,
        crl_sign=signs,
        encipher_only=False,
        decipher_only=False,
    )


def _name(text: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(text))
    except ValueError:
        pass
    try:
        return x509.DNSName(text.encode("idna").decode() if not text.isascii() else text)
    except (ValueError, UnicodeError) as error:
        raise Refused(f"name: found {text!r}, needed a DNS name or an IP address") from error
