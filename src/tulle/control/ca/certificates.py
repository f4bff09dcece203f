"""Certificates as values: templates in, signed certificates out, and a second look at what was signed."""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from tulle.core.model.canonical import is_peer
from tulle.kit.errors import Refused

# Certificates are valid from a minute ago, for hosts whose clocks are a little behind.
SKEW = 60.0
ROOT_LIFETIME = 3650 * 24 * 3600.0

SigningKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
PublicKey = ec.EllipticCurvePublicKey | rsa.RSAPublicKey

# Kinds of keys, by the names that settings have for them.
KEY_TYPES: Mapping[str, Callable[[], SigningKey]] = {
    "ecdsa-p256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "ecdsa-p384": lambda: ec.generate_private_key(ec.SECP384R1()),
    "rsa-2048": lambda: rsa.generate_private_key(65537, 2048),
    "rsa-3072": lambda: rsa.generate_private_key(65537, 3072),
    "rsa-4096": lambda: rsa.generate_private_key(65537, 4096),
}
DEFAULT_KEY_TYPE = "ecdsa-p256"


def make_key(kind: str = DEFAULT_KEY_TYPE) -> SigningKey:
    """A new key; raises `Refused` where there is no such kind."""
    try:
        return KEY_TYPES[kind]()
    except KeyError:
        raise Refused(f"key type: found {kind!r}, needed one of {', '.join(KEY_TYPES)}") from None


def digest(key: SigningKey) -> hashes.SHA256 | hashes.SHA384:
    """The hash that goes with a key's strength."""
    strong = isinstance(key, ec.EllipticCurvePrivateKey) and key.key_size > 256
    return hashes.SHA384() if strong else hashes.SHA256()


def key_pem(key: SigningKey) -> bytes:
    """PKCS 8, not encrypted."""
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())


def load_key(data: bytes) -> SigningKey:
    """A private key of PEM, not encrypted; raises `Refused`, whose words have nothing of it."""
    try:
        key = serialization.load_pem_private_key(data, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise Refused("key: found something else, needed a private key in PEM without a passphrase") from None
    check_key(key.public_key(), "key")
    return key  # type: ignore[return-value]  # checked just now


def read_chain(data: bytes, what: str) -> Sequence[x509.Certificate]:
    """Certificates in PEM, at least one; raises `Refused`."""
    try:
        return x509.load_pem_x509_certificates(data)
    except ValueError as error:
        raise Refused(f"{what}: found something else, needed one or more certificates in PEM") from error


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
        .sign(key, digest(key))
    )


def make_request(
    key: SigningKey,
    *,
    uri: str = "",
    names: Sequence[str] = (),
    subject: Sequence[tuple[x509.ObjectIdentifier, str]] = (),
    authority: bool = False,
) -> bytes:
    """A signing request in PEM for what a signer elsewhere is to sign; `authority`: for one that signs leaves itself."""
    builder = x509.CertificateSigningRequestBuilder().subject_name(
        x509.Name([x509.NameAttribute(kind, text) for kind, text in subject])
    )
    alternatives = _alternatives(uri, names)
    if alternatives:
        builder = builder.add_extension(x509.SubjectAlternativeName(alternatives), critical=not subject)
    if authority:
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        builder = builder.add_extension(_usage(signs=True), critical=True)
    return builder.sign(key, digest(key)).public_bytes(serialization.Encoding.PEM)


def requested_key(csr_pem: bytes, uri: str) -> PublicKey:
    """The key of a signing request, which proves with its signature that the requester has it.

    The certificate is made from scratch, for `uri`; but a request that asks for something else is refused and not bent:
    for another name, or for a certificate that signs others. Raises `Refused`, also where it does not parse, is not signed by
    its own key, or the key is too weak or of an unusual kind.
    """
    try:
        csr = x509.load_pem_x509_csr(csr_pem)
        key = csr.public_key()
        signed = csr.is_signature_valid
        asked = [one.value for one in csr.extensions]
    except (ValueError, TypeError, UnsupportedAlgorithm, InvalidSignature) as error:
        raise Refused("csr: found something else, needed a certificate signing request in PEM") from error
    if not signed:
        raise Refused("csr: its signature is not of its own key")
    for one in asked:
        if isinstance(one, x509.SubjectAlternativeName) and list(one) != [x509.UniformResourceIdentifier(uri)]:
            found = ", ".join(str(name.value) for name in one)[:300]
            raise Refused(f"csr: it asks for the names {found!r}, needed none, or {uri!r} alone")
        if isinstance(one, x509.BasicConstraints) and one.ca:
            raise Refused("csr: it asks for a certificate that signs others; leaves only are signed here")
        if isinstance(one, x509.KeyUsage) and (one.key_cert_sign or one.crl_sign):
            raise Refused("csr: it asks for a key that signs certificates; leaves only are signed here")
    check_key(key, "csr")
    return key  # type: ignore[return-value]  # checked just now


def check_key(key: object, what: str) -> None:
    """Raises `Refused` where a public key is too weak or of an unusual kind; `what` has it, for the sentence."""
    if isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, (ec.SECP256R1, ec.SECP384R1)):
        return
    if isinstance(key, rsa.RSAPublicKey) and 2048 <= key.key_size <= 8192:
        return
    raise Refused(f"{what}: found another key, needed ECDSA P-256 or P-384, or RSA of 2,048 bits or more")


def requested_subject(csr_pem: bytes, identity: str) -> list[tuple[x509.ObjectIdentifier, str]]:
    """What a signing request says of the workload, for the metrics of those whom it calls: `namespace/name/app/version` as the
    user id of its subject. It decides nothing. Raises `Refused` where it is of another form, or of another namespace.
    """
    found = x509.load_pem_x509_csr(csr_pem).subject.get_attributes_for_oid(NameOID.USER_ID)
    if not found:
        return []
    said = str(found[0].value)
    namespace = identity.partition("/ns/")[2].partition("/")[0]
    if not is_peer(said) or said.partition("/")[0] != namespace:
        raise Refused(f"csr: found the user id {said[:200]!r}, needed {namespace or 'NAMESPACE'}/NAME/APP/VERSION")
    return [(NameOID.USER_ID, said)]


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
    alternatives = _alternatives(uri, names)
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
    return builder.sign(issuer_key, digest(issuer_key))


def check_leaf(leaf: x509.Certificate, issuer: x509.Certificate, uri: str, now: float, key: PublicKey | None = None) -> None:
    """Look at what was signed, as its readers will, by the rules of SPIFFE's X.509-SVID for leaves: one URI, no CA, a key that
    signs and signs no certificates, a life within its issuer's. `key`: whose it must be. Raises `Refused` where it is not that.
    """
    try:
        leaf.verify_directly_issued_by(issuer)
        extensions = leaf.extensions
        basic = [one.value for one in extensions if isinstance(one.value, x509.BasicConstraints)]
        usage = extensions.get_extension_for_class(x509.KeyUsage)
        usages = [purpose for one in extensions if isinstance(one.value, x509.ExtendedKeyUsage) for purpose in one.value]
        names = [name for one in extensions if isinstance(one.value, x509.SubjectAlternativeName) for name in one.value]
        public = leaf.public_key()
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm, x509.ExtensionNotFound) as error:
        raise Refused(f"{_NOT_MEANT}: it cannot be verified") from error
    uris = [name.value for name in names if isinstance(name, x509.UniformResourceIdentifier)]
    wrong = {
        "it is for another key": key is not None and public != key,
        "it is one that signs others": any(one.ca for one in basic) or usage.value.key_cert_sign or usage.value.crl_sign,
        "its key usage is not critical, or lacks digitalSignature": not usage.critical or not usage.value.digital_signature,
        "its extended key usages lack clientAuth": bool(usages) and ExtendedKeyUsageOID.CLIENT_AUTH not in usages,
        f"its URI names are {uris}": uris != ([uri] if uri else []),
        "it ends after its issuer": leaf.not_valid_after_utc > issuer.not_valid_after_utc,
        "it is not valid now": not leaf.not_valid_before_utc <= moment(now) < leaf.not_valid_after_utc,
    }
    for what, is_so in wrong.items():
        if is_so:
            raise Refused(f"{_NOT_MEANT}: {what}")


def check_issuer(chain: Sequence[x509.Certificate], roots: Sequence[x509.Certificate], now: float) -> None:
    """Raises `Refused` unless `chain` (what signs leaves, then its own issuers) may sign for a mesh that trusts `roots`."""
    certificates = [*chain, *([] if chain[-1] in roots else [issuer_among(chain[-1], roots)])]
    for below, (one, above) in enumerate(zip(certificates, [*certificates[1:], certificates[-1]], strict=True)):
        name = one.subject.rfc4514_string() or "a certificate without a name"
        try:
            one.verify_directly_issued_by(above)
            basic = one.extensions.get_extension_for_class(x509.BasicConstraints).value
            usage = [it.value for it in one.extensions if isinstance(it.value, x509.KeyUsage)]
        except (ValueError, TypeError, InvalidSignature) as error:
            raise Refused(f"{name}: it is not signed by the next one, {above.subject.rfc4514_string()}") from error
        except x509.ExtensionNotFound as error:
            raise Refused(f"{name}: found no basic constraints, needed CA:TRUE") from error
        if not basic.ca or any(not it.key_cert_sign for it in usage):
            raise Refused(f"{name}: found a certificate that may not sign others, needed CA:TRUE and keyCertSign")
        if basic.path_length is not None and basic.path_length < below:
            raise Refused(f"{name}: found a path length of {basic.path_length}, needed {below} or more for what is below it")
        begin, end = one.not_valid_before_utc, one.not_valid_after_utc
        if not begin <= moment(now) < end:
            raise Refused(f"{name}: found a certificate for {begin} to {end}, needed one for now")
        check_key(one.public_key(), name)


def issuer_among(one: x509.Certificate, roots: Sequence[x509.Certificate]) -> x509.Certificate:
    """The one of these that signed a certificate; raises `Refused` where none did."""
    for root in roots:
        try:
            one.verify_directly_issued_by(root)
        except (ValueError, TypeError, InvalidSignature):
            continue
        return root
    raise Refused(f"{one.subject.rfc4514_string()}: found no root that signed it")


_NOT_MEANT = "the certificate that was made is not the one that was meant, and is not given out"


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


def _alternatives(uri: str, names: Sequence[str]) -> list[x509.GeneralName]:
    return [*([x509.UniformResourceIdentifier(uri)] if uri else []), *(_name(name) for name in names)]


def _name(text: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(text))
    except ValueError:
        pass
    try:
        return x509.DNSName(text.encode("idna").decode() if not text.isascii() else text)
    except (ValueError, UnicodeError) as error:
        raise Refused(f"name: found {text!r}, needed a DNS name or an IP address") from error
