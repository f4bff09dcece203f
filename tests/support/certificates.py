"""A certificate authority for tests, made in memory."""

from __future__ import annotations

import datetime

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

_SIGNS = x509.KeyUsage(
    digital_signature=False,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    key_cert_sign=True,
    crl_sign=True,
    encipher_only=False,
    decipher_only=False,
)


class Roots:
    """One root; `leaf` signs a certificate for a SPIFFE ID."""

    def __init__(self) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, "test roots")])
        builder = self._builder(self._name, self._key.public_key())
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(self._key.public_key()), critical=False)
        self._root = builder.add_extension(_SIGNS, critical=True).sign(self._key, hashes.SHA256())

    @property
    def pem(self) -> bytes:
        """The root certificate."""
        return self._root.public_bytes(serialization.Encoding.PEM)

    def leaf(self, identity: str) -> tuple[bytes, bytes]:
        """A chain and its key for a SPIFFE ID, in PEM."""
        return self._leaf(x509.UniformResourceIdentifier(identity))

    def server(self, *hosts: str, begins: float | None = None, ends: float | None = None) -> tuple[bytes, bytes]:
        """A chain and its key for host names, in PEM; valid between whole seconds since the epoch, or now."""
        return self._leaf(*(x509.DNSName(host) for host in hosts), begins=begins, ends=ends)

    def _leaf(self, *names: x509.GeneralName, begins: float | None = None, ends: float | None = None) -> tuple[bytes, bytes]:
        key = ec.generate_private_key(ec.SECP256R1())
        builder = self._builder(x509.Name([]), key.public_key(), begins, ends)
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=True)
        # Python 3.13 and later ask for it, as RFC 5280 does.
        issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        builder = builder.add_extension(issuer, critical=False)
        chain = builder.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
        return chain, key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )

    def _builder(
        self, subject: x509.Name, key: ec.EllipticCurvePublicKey, begins: float | None = None, ends: float | None = None
    ) -> x509.CertificateBuilder:
        now = datetime.datetime.now(datetime.UTC).timestamp()
        first, last = (now - 300 if begins is None else begins), (now + 3600 if ends is None else ends)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(datetime.datetime.fromtimestamp(first, datetime.UTC))
            .not_valid_after(datetime.datetime.fromtimestamp(last, datetime.UTC))
        )
