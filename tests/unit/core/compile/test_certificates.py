"""What a Secret or ConfigMap holds for TLS, what of it Envoy takes, and that none of it gets out."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from tests.support.certificates import Roots
from tests.unit.core.compile.mesh import obj
from tulle.core.compile.certificates import Certificates, Material, certificates_in
from tulle.core.compile.objects import row_of


def encoded(**files: bytes) -> dict[str, str]:
    return {name.replace("_", "."): base64.b64encode(data).decode() for name, data in files.items()}


@pytest.fixture(scope="module")
def pair() -> tuple[bytes, bytes]:
    return Roots().leaf("spiffe://cluster.local/ns/default/sa/a")


def test_a_pair_and_authorities(pair: tuple[bytes, bytes]) -> None:
    """A listener with a good certificate would be told that it has none."""
    chain, key = pair
    found = certificates_in(encoded(tls_crt=chain, tls_key=key), {})
    assert found == Certificates(pair=True, material=Material(chain, key))
    assert found == certificates_in(encoded(cert=chain, key=key), {}), "Istio's names"
    roots = Roots().pem
    assert certificates_in({}, {"ca.crt": roots.decode()}) == Certificates(authorities=True, material=Material(authorities=roots))
    assert certificates_in({}, {"tls.crt": chain.decode(), "tls.key": key.decode()}).pair


@pytest.mark.parametrize(
    "files",
    [
        {},
        {"tls_crt": b"Hello world\n", "tls_key": b"Hello world\n"},
        {"tls_crt": b"-----BEGIN CERTIFICATE-----\n!!!\n-----END CERTIFICATE-----\n"},
        {"tls_crt": b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"},
        {"tls_crt": b"-----BEGIN CERTIFICATE-----\nMAAA\n-----END PRIVATE KEY-----\n", "tls_key": b"\xff\xfe"},
    ],
)
def test_what_is_none(files: dict[str, bytes]) -> None:
    """A Secret that no Envoy could use would be called resolved."""
    assert certificates_in(encoded(**files), {}) == Certificates()
    assert certificates_in({"tls.crt": "not base64"}, {}) == Certificates()


def test_a_key_alone_is_no_pair(pair: tuple[bytes, bytes]) -> None:
    """A certificate without its key would be called resolved."""
    chain, key = pair
    assert not certificates_in(encoded(tls_crt=chain), {}).pair
    assert not certificates_in(encoded(tls_key=key), {}).pair
    assert not certificates_in(encoded(tls_crt=chain, tls_key=chain), {}).pair


def test_a_key_leaves_the_tables_in_no_other_way(pair: tuple[bytes, bytes]) -> None:
    """A private key would be in logs, in dumps and in goldens for as long as its Secret is there."""
    chain, key = pair
    raw = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "data": encoded(tls_crt=chain, tls_key=key)}
    row = row_of(obj(raw))
    assert "PRIVATE" not in f"{row!r} {row} {vars(row) if hasattr(row, '__dict__') else ''}"
    with pytest.raises(TypeError, match="Material is unsupported"):
        msgspec.json.encode(row)
    with pytest.raises(TypeError):
        json.dumps(row)


def make(key: Any, own: Any = None) -> tuple[bytes, bytes]:
    """A certificate for one key, with the private key of another (or its own)."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a")])
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(1).not_valid_before(now).not_valid_after(now + timedelta(days=1))
    signing = None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    private = (own or key).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return builder.sign(key, signing).public_bytes(Encoding.PEM), private


P256, RSA = ec.generate_private_key(ec.SECP256R1()), rsa.generate_private_key(65537, 2048)
UNSERVABLE = {
    "is not that of its certificate": make(P256, RSA),
    "1024 bits": make(rsa.generate_private_key(65537, 1024)),
    "of a kind that Envoy does not serve": make(ed25519.Ed25519PrivateKey.generate()),
    "P-256, P-384 or P-521": make(ec.generate_private_key(ec.SECP256K1())),
    "private key cannot be read": (make(P256)[0], b"-----BEGIN PRIVATE KEY-----\nMAAA\n-----END PRIVATE KEY-----\n"),
    "certificate cannot be read": (b"-----BEGIN CERTIFICATE-----\nMAAA\n-----END CERTIFICATE-----\n", make(P256)[1]),
}


@pytest.mark.parametrize("words", UNSERVABLE)
def test_what_envoy_would_refuse_is_not_served(words: str) -> None:
    """Envoy would refuse the secret, and the listener with it would not open."""
    chain, key = UNSERVABLE[words]
    found = certificates_in(encoded(tls_crt=chain, tls_key=key), {})
    assert found.pair
    assert words in found.fault


@pytest.mark.parametrize("key", [P256, RSA, ec.generate_private_key(ec.SECP384R1()), ec.generate_private_key(ec.SECP521R1())])
def test_what_envoy_takes_is_served(key: Any) -> None:
    """A good certificate would be kept back."""
    chain, private = make(key)
    assert certificates_in(encoded(tls_crt=chain + chain, tls_key=private), {}).fault == ""
