"""A rotation asked for step by step, and who stands in its way."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa

from tests.unit.ca.test_authority import NOW, WORKLOAD, Clock, leaf_of, request
from tulle.control.ca import certificates, files
from tulle.control.ca.authority import Authority
from tulle.control.ca.files import StoredRoots
from tulle.control.ca.ledger import Issued, Ledger, issued
from tulle.control.ca.rotating import Rotation
from tulle.control.ca.rotation import Step
from tulle.control.store.memory import MemoryStore
from tulle.control.store.sealed import Keys
from tulle.kit.errors import Corrupt, Refused

KEYS = Keys([b"k" * 32])


class Mesh:
    """An authority whose mesh is two lists: who has not the bundle, and what was signed."""

    def __init__(self, folder: Path) -> None:
        self.clock = Clock()
        self.authority = Authority.open(folder / "ca", clock=self.clock, seal=KEYS)
        self.waiting: list[str] = []
        self.signed: list[Issued] = []
        self.changes = 0
        self.rotation = Rotation(self.authority, self._keep, self._behind, self._issued, self._changed, self.clock)

    async def _keep(self, stored: StoredRoots) -> None:
        self.authority.keep(stored)

    async def _behind(self) -> Sequence[str]:
        return self.waiting

    async def _issued(self) -> Sequence[Issued]:
        return self.signed

    async def _changed(self) -> None:
        self.changes += 1

    def sign(self, seconds: float) -> Issued:
        chain = self.authority.sign(request(), WORKLOAD, seconds)
        one = issued(chain, "default/reviews", WORKLOAD, "host-1", self.authority.signs, self.clock.now)
        self.signed = [one]
        return one


def root(name: str, key: certificates.SigningKey, length: int | None = 1) -> x509.Certificate:
    """A root that somebody keeps elsewhere."""
    return authority_certificate(name, key, name, key, length)


def authority_certificate(
    name: str,
    key: certificates.SigningKey | certificates.PublicKey,
    by: str,
    by_key: certificates.SigningKey,
    length: int | None,
    ends: float = 1e6,
) -> x509.Certificate:
    """A certificate that signs others."""
    common = x509.oid.NameOID.COMMON_NAME
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(common, name)]))
        .issuer_name(x509.Name([x509.NameAttribute(common, by)]))
        .public_key(key if isinstance(key, certificates.PublicKey) else key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(certificates.moment(NOW - 60))
        .not_valid_after(certificates.moment(NOW + ends))
        .add_extension(x509.BasicConstraints(ca=length is not None, path_length=length), critical=True)
    )
    return builder.sign(by_key, certificates.digest(by_key))


def public(csr: bytes) -> certificates.PublicKey:
    key = x509.load_pem_x509_csr(csr).public_key()
    assert isinstance(key, certificates.PublicKey)
    return key


async def test_each_step_waits_for_everybody(tmp_path: Path) -> None:
    """Broken: a root is activated that a proxy does not trust yet, or retired while a certificate of it is in use."""
    mesh = Mesh(tmp_path)
    old = mesh.sign(500)
    with pytest.raises(Refused, match="activate: found one that signs and no other, so the next step is prepare"):
        await mesh.rotation.step(Step.ACTIVATE)
    await mesh.rotation.step(Step.PREPARE)
    mesh.waiting = ["proxy default/ratings has not acknowledged the bundle"]
    assert (await mesh.rotation.status())["waits"] == mesh.waiting
    before = mesh.authority.signs
    with pytest.raises(Refused, match="1 would be cut off: proxy default/ratings"):
        await mesh.rotation.step(Step.ACTIVATE)
    assert mesh.authority.signs == before
    mesh.waiting = []
    await mesh.rotation.step(Step.ACTIVATE)
    assert mesh.authority.signs != before
    with pytest.raises(Refused, match="default/reviews has a certificate of what is to be retired"):
        await mesh.rotation.step(Step.RETIRE)
    mesh.clock.now = old.not_after + 1
    await mesh.rotation.step(Step.RETIRE)
    assert len(x509.load_pem_x509_certificates(mesh.authority.bundle)) == 1
    assert mesh.changes == 3
    await mesh.rotation.step(Step.PREPARE)
    mesh.waiting = ["node host-9 has not said that it has the bundle"]
    await mesh.rotation.step(Step.ACTIVATE, force=True)


async def test_a_root_that_is_kept_elsewhere(tmp_path: Path) -> None:
    """Broken: the key of an intermediate leaves the control plane, or leaves do not chain to the root that is kept elsewhere."""
    mesh = Mesh(tmp_path)
    csr = await mesh.rotation.request()
    again = await mesh.rotation.request()
    assert public(again) == public(csr), "its key is not made again before the certificate comes"
    elsewhere = certificates.make_key("rsa-2048")
    top = root("offline", elsewhere)
    chain = certificates.pem(authority_certificate("online", public(csr), "offline", elsewhere, 0))
    await mesh.rotation.take(chain, certificates.pem(top))
    before = mesh.authority.bundle
    assert certificates.pem(top) in before
    await mesh.rotation.step(Step.ACTIVATE)
    mesh.clock.now += 10
    reopened = Authority.open(tmp_path / "ca", clock=mesh.clock, seal=KEYS)
    signed = reopened.sign(request(), WORKLOAD, 1e9)
    leaf, intermediate = x509.load_pem_x509_certificates(signed)
    leaf.verify_directly_issued_by(intermediate)
    intermediate.verify_directly_issued_by(top)
    assert leaf.not_valid_after_utc == intermediate.not_valid_after_utc, "within its issuer's"
    assert reopened.pin == certificates.fingerprint(top), "nodes join by the root"
    await mesh.rotation.step(Step.RETIRE)
    assert mesh.authority.bundle == certificates.pem(top)
    assert (await mesh.rotation.status())["next"] == "import", "no root is made where one is kept elsewhere"
    with pytest.raises(Refused, match="its successor is brought too"):
        await mesh.rotation.step(Step.PREPARE)
    with pytest.raises(Refused, match="so the next step is import"):
        await mesh.rotation.step(Step.ACTIVATE)


async def test_intermediates_that_are_refused(tmp_path: Path) -> None:
    """Broken: what signs leaves is a certificate that verifiers do not accept as one that signs."""
    mesh = Mesh(tmp_path)
    top_key, key, other = (certificates.make_key() for _ in range(3))
    top = certificates.pem(root("top", top_key))
    key_pem = certificates.key_pem(key)

    def bring(certificate: x509.Certificate, roots: bytes = top) -> StoredRoots:
        return mesh.authority.after_import(certificates.pem(certificate), roots, key_pem)

    assert bring(authority_certificate("good", key, "top", top_key, 0))
    weak = rsa.generate_private_key(65537, 1024)
    for certificate, roots, why in (
        (authority_certificate("x", key, "top", top_key, None), top, "may not sign others"),
        (authority_certificate("x", other, "top", top_key, 0), top, "another key"),
        (authority_certificate("x", key, "top", other, 0), top, "no root that signed it"),
        (authority_certificate("x", key, "top", top_key, 0, ends=-1), top, "needed one for now"),
        (authority_certificate("x", key, "top", top_key, 0), certificates.pem(root("top", top_key, 0)), "path length of 0"),
        (authority_certificate("x", key, "weak", weak, 0), certificates.pem(root("weak", weak)), "RSA of 2,048 bits or more"),
    ):
        with pytest.raises(Refused, match=why):
            bring(certificate, roots)
    with pytest.raises(Refused, match="no signing request was made here"):
        mesh.authority.after_import(certificates.pem(authority_certificate("x", key, "top", top_key, 0)), top)


def test_the_key_is_sealed(tmp_path: Path) -> None:
    """Broken: whoever reads the disk, or a backup of it, has the mesh's identity; or a file from before sealing is not read."""
    folder = tmp_path / "ca"
    plain = Authority.open(folder)
    assert b"PRIVATE" in (folder / files.NAME).read_bytes()
    sealed = Authority.open(folder, seal=KEYS)
    assert sealed.signs == plain.signs
    assert b"PRIVATE" not in (folder / files.NAME).read_bytes()
    assert (folder / files.NAME).stat().st_mode & 0o777 == 0o600
    newer = Keys([b"n" * 32, b"k" * 32])
    assert Authority.open(folder, seal=newer).signs == plain.signs
    assert Authority.open(folder, seal=Keys([b"n" * 32])).signs == plain.signs, "sealed anew with the newer key"
    with pytest.raises(Corrupt, match="no encryption key"):
        Authority.open(folder)
    with pytest.raises(Refused, match="sealed with the encryption key"):
        Authority.open(folder, seal=KEYS)


@pytest.mark.parametrize("kind", ["ecdsa-p384", "rsa-3072"])
def test_kinds_of_keys(tmp_path: Path, kind: str) -> None:
    """Broken: a mesh whose rules ask for a stronger key gets another, or its leaves do not verify."""
    authority = Authority.open(tmp_path / "ca", clock=Clock(), key_type=kind)
    (top,) = x509.load_pem_x509_certificates(authority.bundle)
    assert top.public_key().key_size == int(kind[-4:].strip("p-"))  # type: ignore[union-attr]
    for key in (certificates.make_key(kind), certificates.make_key()):
        leaf = leaf_of(authority.sign(request(key), WORKLOAD, 60))
        leaf.verify_directly_issued_by(top)


async def test_the_ledger_has_the_newest_of_each() -> None:
    """Broken: nobody can say when a certificate ends, or that it was not renewed."""
    store = MemoryStore()
    ledger = Ledger(store)
    writing = asyncio.create_task(ledger.run())
    one = Issued("default/a", WORKLOAD, "n", "1", "CN=x", "s", "d", issued=100.0, not_after=200.0)
    ledger.note(one)
    assert [it.serial for it in await ledger.all()] == ["1"]
    await anext(store.watch(0, "_certificates"))
    ledger.note(Issued("default/a", WORKLOAD, "n", "2", "CN=x", "s", "d", issued=150.0, not_after=250.0))
    (newest,) = await ledger.all()
    assert (newest.serial, newest.before, newest.due) == ("2", 100.0, 225.0)
    writing.cancel()
