"""The certificate authority: what it signs, what it refuses, what it keeps."""

from __future__ import annotations

import resource
import stat
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

from tulle.control.ca.authority import Authority
from tulle.control.ca.rotation import Schedule, Step
from tulle.kit.errors import Corrupt, Refused

NOW = 1_800_000_000.0
WORKLOAD = "spiffe://cluster.local/ns/default/sa/bookinfo-reviews"


class Clock:
    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> float:
        return self.now


def request(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | None = None, **wish: bool) -> bytes:
    """A CSR that asks for more than it will get."""
    key = key or ec.generate_private_key(ec.SECP256R1())
    builder = x509.CertificateSigningRequestBuilder().subject_name(
        x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "system:admin")])
    )
    if wish.get("greedy"):
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True).add_extension(
            x509.SubjectAlternativeName(
                [x509.UniformResourceIdentifier("spiffe://cluster.local/ns/x/sa/y"), x509.DNSName("tulle.tulle-system.svc")]
            ),
            critical=False,
        )
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def leaf_of(chain: bytes) -> x509.Certificate:
    return x509.load_pem_x509_certificates(chain)[0]


def test_only_the_key_of_a_request_counts(tmp_path: Path) -> None:
    """Would fail if a CSR could bring its own names or rights into a certificate."""
    authority = Authority.open(tmp_path / "ca", clock=Clock())
    leaf = leaf_of(authority.sign(request(), WORKLOAD, 3600))
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    assert [(type(name), name.value) for name in names.value] == [(x509.UniformResourceIdentifier, WORKLOAD)]
    assert names.critical, "without a subject the names are critical"
    assert list(leaf.subject) == []
    assert leaf.extensions.get_extension_for_class(x509.BasicConstraints).value.ca is False
    usage = leaf.extensions.get_extension_for_class(x509.KeyUsage).value
    assert usage.digital_signature
    assert not usage.key_cert_sign
    assert leaf.not_valid_before_utc.timestamp() == NOW - 60
    assert leaf.not_valid_after_utc.timestamp() == NOW + 3600
    leaf.verify_directly_issued_by(x509.load_pem_x509_certificates(authority.bundle)[0])


def test_a_leaf_does_not_outlive_its_root(tmp_path: Path) -> None:
    """Would fail if certificates were valid that nobody can verify any more, or an expired root still signed."""
    clock = Clock()
    authority = Authority.open(tmp_path / "ca", clock=clock)
    root = x509.load_pem_x509_certificates(authority.bundle)[0]
    end = root.not_valid_after_utc.timestamp()
    clock.now = end - 100
    assert leaf_of(authority.sign(request(), WORKLOAD, 3600)).not_valid_after_utc == root.not_valid_after_utc
    clock.now = end + 1
    with pytest.raises(Refused, match="lifetime"):
        authority.sign(request(), WORKLOAD, 3600)


@pytest.mark.parametrize(
    "identity",
    [
        "",
        "reviews",
        "spiffe://other.domain/ns/a/sa/b",
        "spiffe://cluster.local",
        "spiffe://cluster.local/",
        "spiffe://cluster.local/ns//sa/b",
        "spiffe://cluster.local/ns/../sa/b",
        "spiffe://cluster.local/ns/a/sa/b?x=1",
        "spiffe://cluster.local/ns/a/sa/b\n",
        "spiffe://cluster.local/" + "a" * 3000,
        "SPIFFE://cluster.local/ns/a/sa/b",
    ],
)
def test_identities_that_are_none(tmp_path: Path, identity: str) -> None:
    """Would fail if a certificate could carry a name that a peer might read differently."""
    with pytest.raises(Refused, match="identity"):
        Authority.open(tmp_path / "ca").sign(request(), identity, 3600)


def test_requests_that_are_refused(tmp_path: Path) -> None:
    """Would fail if weak keys, foreign keys or garbage could be signed."""
    authority = Authority.open(tmp_path / "ca")
    good = request()
    body = x509.load_pem_x509_csr(good).public_bytes(serialization.Encoding.DER)
    forged = bytearray(body)
    forged[-1] ^= 1
    from base64 import encodebytes

    bad_signature = b"-----BEGIN CERTIFICATE REQUEST-----\n" + encodebytes(bytes(forged)) + b"-----END CERTIFICATE REQUEST-----\n"
    weak = request(rsa.generate_private_key(65537, 1024))
    unusual = request(ec.generate_private_key(ec.SECP521R1()))
    for csr in (b"", b"garbage", b"\xff\xfe", bad_signature, weak, unusual, authority.bundle):
        with pytest.raises(Refused, match="csr"):
            authority.sign(csr, WORKLOAD, 3600)
    for lifetime in (0, -1):
        with pytest.raises(Refused, match="lifetime"):
            authority.sign(good, WORKLOAD, lifetime)


def test_the_root_stays(tmp_path: Path) -> None:
    """Would fail if a restart made a new root (every node would have to join again), or its key could be read by others."""
    first = Authority.open(tmp_path / "ca")
    again = Authority.open(tmp_path / "ca")
    assert again.bundle == first.bundle
    assert again.pin == first.pin
    (file,) = (tmp_path / "ca").iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "ca").stat().st_mode) == 0o700
    assert b"PRIVATE" not in first.bundle
    assert "PRIVATE" not in repr(vars(again))


@pytest.mark.parametrize("damage", ["empty", "half", "flipped", "no key", "other key", "other domain", "gone"])
def test_a_damaged_root_is_not_replaced(tmp_path: Path, damage: str) -> None:
    """Would fail if a damaged file cost the mesh its root, or its content showed in the error."""
    folder = tmp_path / "ca"
    Authority.open(folder)
    file = folder / "roots.json"
    data = file.read_bytes()
    if damage == "gone":
        (folder / "other").write_bytes(data)
        file.unlink()
    elif damage == "other key":
        Authority.open(tmp_path / "b")
        import msgspec

        from tulle.control.ca.files import StoredRoots

        one, two = (msgspec.json.decode(text, type=StoredRoots) for text in (data, (tmp_path / "b/roots.json").read_bytes()))
        mixed = msgspec.structs.replace(one.roots[0], key=two.roots[0].key)
        file.write_bytes(msgspec.json.encode(msgspec.structs.replace(one, roots=[mixed])))
    else:
        file.write_bytes(
            {
                "empty": b"",
                "half": data[: len(data) // 2],
                "flipped": data.replace(b"BEGIN CERT", b"BEGIN CORT"),
                "no key": data.replace(b"PRIVATE", b"PUBLIC"),
                "other domain": data.replace(b'"cluster.local"', b'"other.local"'),
            }[damage]
        )
    before = file.read_bytes() if file.exists() else b""
    with pytest.raises(Corrupt) as caught:
        Authority.open(folder)
    assert str(folder) in caught.value.message
    assert caught.value.hint
    assert "BEGIN" not in caught.value.message
    assert caught.value.__cause__ is None
    assert (file.read_bytes() if file.exists() else b"") == before


def test_a_key_that_others_can_read(tmp_path: Path) -> None:
    """Would fail if a key file with loose permissions were used without a word."""
    Authority.open(tmp_path / "ca")
    (tmp_path / "ca/roots.json").chmod(0o644)
    with pytest.raises(Refused, match="0644"):
        Authority.open(tmp_path / "ca")


def test_a_full_disk_leaves_the_root(tmp_path: Path) -> None:
    """Would fail if a write that the disk does not take damaged the root, or changed what is signed with."""
    authority = Authority.open(tmp_path / "ca")
    bundle = authority.bundle
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))  # the hundred-and-first byte of a file does not fit
    try:
        with pytest.raises(Refused, match="cannot be kept"):
            authority.take(Step.PREPARE)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert authority.bundle == bundle
    assert Authority.open(tmp_path / "ca").bundle == bundle
    assert [file.name for file in (tmp_path / "ca").iterdir()] == ["roots.json"]


def test_servers_and_people(tmp_path: Path) -> None:
    """Would fail if the control plane's certificate did not fit its addresses, or a person's passed for a server or workload."""
    authority = Authority.open(tmp_path / "ca")
    control_plane = "spiffe://cluster.local/ns/tulle-system/sa/control-plane"
    server = leaf_of(authority.issue_server(["localhost", "127.0.0.1", "::1"], 3600, control_plane).chain)
    names = server.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["localhost", "tulle.tulle-system.svc"]
    assert [str(address) for address in names.get_values_for_type(x509.IPAddress)] == ["127.0.0.1", "::1"]
    assert names.get_values_for_type(x509.UniformResourceIdentifier) == [control_plane]
    pair = authority.issue_client("admin", ["system:masters"], 3600)
    person = leaf_of(pair.chain)
    assert person.subject.rfc4514_string() == "CN=admin,O=system:masters"
    usages = person.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usages) == [x509.oid.ExtendedKeyUsageOID.CLIENT_AUTH]
    with pytest.raises(x509.ExtensionNotFound):
        person.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    assert "PRIVATE" not in repr(pair)


def test_the_root_rotates(tmp_path: Path) -> None:
    """Would fail if at any moment of a root's rotation a certificate in use were of a root that is not trusted."""
    clock = Clock()
    authority = Authority.open(tmp_path / "ca", clock=clock)
    schedule = Schedule(root_lifetime=1000.0, spread=100.0, leaf_lifetime=500.0)
    leaves = [leaf_of(authority.sign(request(), WORKLOAD, 500))]
    pins = {authority.pin}
    done: list[Step] = []
    for _ in range(6):
        step, due = authority.next_step(schedule)
        clock.now = max(clock.now, due)
        authority.take(step)
        done.append(step)
        authority = Authority.open(tmp_path / "ca", clock=clock)  # a restart at any point changes nothing
        pins.add(authority.pin)
        leaves.append(leaf_of(authority.sign(request(), WORKLOAD, 500)))
        trusted = {root.subject for root in x509.load_pem_x509_certificates(authority.bundle)}
        now = datetime.fromtimestamp(clock.now, UTC)
        for leaf in leaves:
            assert leaf.issuer in trusted or leaf.not_valid_after_utc <= now
    assert done == [Step.PREPARE, Step.ACTIVATE, Step.RETIRE] * 2
    assert len(pins) == 3


@pytest.mark.parametrize(
    ("extension", "why"),
    [
        (x509.BasicConstraints(ca=True, path_length=None), "signs others"),
        (x509.SubjectAlternativeName([x509.UniformResourceIdentifier("spiffe://cluster.local/ns/x/sa/y")]), "asks for the names"),
        (x509.SubjectAlternativeName([x509.DNSName("tulle.tulle-system.svc")]), "asks for the names"),
        (
            x509.SubjectAlternativeName(
                [x509.UniformResourceIdentifier(WORKLOAD), x509.UniformResourceIdentifier("spiffe://b/c")]
            ),
            "asks for the names",
        ),
        (x509.KeyUsage(True, False, False, False, False, True, False, False, False), "signs certificates"),
    ],
)
def test_requests_for_more_are_refused(tmp_path: Path, extension: x509.ExtensionType, why: str) -> None:
    """Broken: a request for somebody else, or for an authority, is bent to something that looks like success."""
    authority = Authority.open(tmp_path / "ca", clock=Clock())
    key = ec.generate_private_key(ec.SECP256R1())
    csr = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).add_extension(extension, critical=True)
    with pytest.raises(Refused, match=why):
        authority.sign(csr.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM), WORKLOAD, 60)
