"""Signers elsewhere, and intermediates that are brought."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509

from tests.support.pki import Pki, authority
from tests.unit.ca.test_rotating import Mesh
from tulle.control.ca import brought, certificates
from tulle.control.ca.brought import Follower
from tulle.control.ca.external import ExternalSigner
from tulle.control.ca.rotation import Slot
from tulle.control.ca.vault import VaultPki
from tulle.kit.errors import Refused, Unavailable
from tulle.ports import Signer

WORKLOAD = "spiffe://cluster.local/ns/default/sa/reviews"


@pytest.fixture
def pki(tmp_path: Path) -> Iterator[Pki]:
    with Pki(tmp_path / "pki", time.time()).serve() as running:
        yield running


class Asking:
    """A signer over the PKI, and one request."""

    def __init__(self, pki: Pki) -> None:
        self.remote = VaultPki(pki.url, pki.token_file, pki.ca_file)
        self.signer: Signer = ExternalSigner("cluster.local", self.remote, pki.root_file)
        self.key = certificates.make_key()

    async def sign(self, identity: str = WORKLOAD, asked: str = WORKLOAD) -> list[x509.Certificate]:
        csr = certificates.make_request(self.key, uri=asked)
        return x509.load_pem_x509_certificates(await self.signer.sign(csr, identity, 3600))


async def test_everything_is_signed_elsewhere(pki: Pki) -> None:
    """Broken: a mesh whose rules want all signed by one PKI has certificates of another, or its nodes cannot verify them."""
    one = Asking(pki)
    leaf, issuer = await one.sign()
    leaf.verify_directly_issued_by(issuer)
    issuer.verify_directly_issued_by(pki.root[0])
    assert leaf.public_key() == one.key.public_key()
    assert one.signer.bundle == certificates.pem(pki.root[0])
    assert one.signer.pin == certificates.fingerprint(pki.root[0])
    assert one.signer.not_after <= issuer.not_valid_after_utc.timestamp()
    server = await one.signer.issue_server(
        ["localhost", "10.0.0.1"], 60, "spiffe://cluster.local/ns/tulle-system/sa/control-plane"
    )
    names = x509.load_pem_x509_certificates(server.chain)[0].extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert "tulle.tulle-system.svc" in names.get_values_for_type(x509.DNSName)
    person = x509.load_pem_x509_certificates((await one.signer.issue_client("ada", ["admin"], 60)).chain)[0]
    assert person.subject.rfc4514_string() == "CN=ada,O=admin"
    assert pki.asked[0]["ttl"] == "3600s"
    assert pki.asked[0]["uri_sans"] == WORKLOAD
    await one.remote.close()


@pytest.mark.parametrize(
    ("mode", "why"),
    [
        ("another key", "for another key"),
        ("another name", "its URI names are"),
        ("two names", "its URI names are"),
        ("an authority", "signs others"),
        ("expired", "not valid now"),
        ("another root", "cannot be verified"),
        ("nonsense", "no certificate"),
        ("no", "refuses: role does not allow it"),
    ],
)
async def test_what_the_signer_makes_is_looked_at(pki: Pki, mode: str, why: str) -> None:
    """Broken: a signer that errs, or was taken over, gives out identities that nobody asked for."""
    pki.mode = mode
    one = Asking(pki)
    with pytest.raises(Refused, match=why):
        await one.sign()
    await one.remote.close()


async def test_a_signer_that_is_away(pki: Pki, tmp_path: Path) -> None:
    """Broken: a node takes an outage of the signer for a refusal and gives up, or a renewed token is not read."""
    one = Asking(pki)
    pki.mode = "down"
    with pytest.raises(Unavailable, match="Vault is sealed"):
        await one.sign()
    pki.mode = ""
    pki.token_file.write_text("old")
    with pytest.raises(Unavailable, match="permission denied"):
        await one.sign()
    pki.token_file.write_text("hvs.s3cr3t")
    assert await one.sign()
    with pytest.raises(Refused, match="asks for the names"):
        await one.sign(identity=WORKLOAD, asked="spiffe://cluster.local/ns/default/sa/admin")
    assert len(pki.asked) == 2, "what is refused here is not asked there"
    stranger = VaultPki(pki.url, pki.token_file, None)
    with pytest.raises(Unavailable, match="certificate is not trusted"):
        await ExternalSigner("cluster.local", stranger, pki.root_file).issue_client("a", [], 60)
    with pytest.raises(Refused, match="needed https"):
        VaultPki("http://localhost/v1", pki.token_file, None)
    await one.remote.close()
    await stranger.close()


def files(folder: Path, made: tuple[x509.Certificate, object], *roots: x509.Certificate) -> None:
    folder.mkdir(exist_ok=True)
    (folder / "ca-cert.pem").write_bytes(certificates.pem(made[0]))
    (folder / "ca-key.pem").write_bytes(certificates.key_pem(made[1]))  # type: ignore[arg-type]
    (folder / "ca-key.pem").chmod(0o600)
    (folder / "root-cert.pem").write_bytes(b"".join(certificates.pem(one) for one in roots))


async def test_an_intermediate_is_brought_and_swapped(tmp_path: Path) -> None:
    """Broken: a new intermediate in the files is not used, or one of a root that nobody trusts yet signs."""
    mesh, folder = Mesh(tmp_path), tmp_path / "brought"
    now, empty = mesh.clock.now, True

    async def is_empty() -> bool:
        return empty

    top, newer = authority("top", length=1, now=now), authority("newer", length=1, now=now)
    first, second, third = (authority(f"i{i}", length=0, by=by, now=now) for i, by in enumerate((top, top, newer)))
    follower = Follower(folder, mesh.rotation, is_empty)
    files(folder, first, top[0])
    await follower.begin()
    assert mesh.authority.active.certificate == first[0], "nobody has joined: it signs from the start"
    assert mesh.authority.bundle == certificates.pem(top[0])
    empty = False
    files(folder, second, top[0])
    await follower.look()
    assert mesh.authority.active.certificate == second[0], "of a root that everybody trusts: at once"
    files(folder, third, newer[0])
    mesh.waiting = ["proxy default/a has not acknowledged the bundle"]
    await follower.look()
    assert mesh.authority.active.certificate == second[0]
    assert certificates.pem(newer[0]) in mesh.authority.bundle
    with pytest.raises(Refused, match="would be cut off"):
        await follower.look()
    mesh.waiting = []
    await follower.look()
    assert mesh.authority.active.certificate == third[0]
    await follower.look()
    assert [one.slot for one in mesh.authority.issuers] == [Slot.ACTIVE]
    assert mesh.authority.bundle == certificates.pem(newer[0])
    (folder / "ca-key.pem").chmod(0o644)
    with pytest.raises(Refused, match="others could read the key"):
        brought.read(folder)
    (folder / "root-cert.pem").unlink()
    (folder / "ca-key.pem").chmod(0o600)
    with pytest.raises(Refused, match="no such file"):
        await follower.begin()
