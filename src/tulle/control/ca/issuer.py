"""What signs leaves: a root, or an intermediate with the certificates above it; in memory, and as it is kept."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from cryptography import x509

from tulle.control.ca import certificates
from tulle.control.ca.files import StoredRoot, StoredRoots
from tulle.control.ca.rotation import Root, Slot
from tulle.kit.errors import Corrupt, Refused


class Issuer:
    """A certificate that signs, its key, and its place in the rotation. `above`: the certificates between it and the `anchors`,
    which peers trust; it is its own anchor where it is a root.
    """

    def __init__(
        self,
        certificate: x509.Certificate,
        key: certificates.SigningKey,
        slot: Slot,
        since: float,
        above: Sequence[x509.Certificate] = (),
        anchors: Sequence[x509.Certificate] = (),
    ) -> None:
        self.certificate, self.key, self.slot, self.since = certificate, key, slot, since
        self.above = tuple(one for one in above if one not in anchors)
        self.anchors = tuple(anchors) or (certificate,)
        # What goes with a leaf, so that whoever has the anchors can verify it.
        chain = () if self.is_root else (certificate, *self.above)
        self.presented = b"".join(certificates.pem(one) for one in chain)
        self.not_after = min(one.not_valid_after_utc.timestamp() for one in (certificate, *self.above))

    def __repr__(self) -> str:
        """Without the key."""
        return f"Issuer({self.slot.value}, {self.certificate.subject.rfc4514_string()})"

    def at(self, place: Root) -> Issuer:
        """The same at another place of the rotation."""
        return Issuer(self.certificate, self.key, place.slot, place.since, self.above, self.anchors)

    @property
    def place(self) -> Root:
        """Its place in the rotation."""
        return Root(self.slot, self.since, self.not_after)

    @property
    def is_root(self) -> bool:
        """Whether peers trust it itself."""
        return self.certificate in self.anchors

    @property
    def anchor(self) -> x509.Certificate:
        """The root that its chain leads to."""
        return self.certificate if self.is_root else certificates.issuer_among((self.certificate, *self.above)[-1], self.anchors)


def kept(one: Issuer) -> StoredRoot:
    """As it is kept. Never print it."""
    return StoredRoot(
        slot=one.slot.value,
        since=one.since,
        certificate=certificates.pem(one.certificate).decode(),
        key=certificates.key_pem(one.key).decode(),
        chain=b"".join(certificates.pem(it) for it in one.above).decode(),
        roots="" if one.is_root else b"".join(certificates.pem(it) for it in one.anchors).decode(),
    )


def loaded(stored: StoredRoots, corrupt: Callable[[str], Corrupt]) -> list[Issuer]:
    """What was kept; raises what `corrupt` makes where it cannot be used."""
    issuers: list[Issuer] = []
    for item in stored.roots:
        try:
            certificate = x509.load_pem_x509_certificate(item.certificate.encode())
            key = certificates.load_key(item.key.encode())
            slot = Slot(item.slot)
            above = x509.load_pem_x509_certificates(item.chain.encode()) if item.chain else []
            anchors = x509.load_pem_x509_certificates(item.roots.encode()) if item.roots else []
        except (ValueError, Refused):
            # Without the cause: its words may come from the key.
            raise corrupt("a certificate or key in it does not parse") from None
        if key.public_key() != certificate.public_key():
            raise corrupt("a key in it does not belong to its certificate")
        issuers.append(Issuer(certificate, key, slot, item.since, above, anchors))
    if sorted(one.slot for one in issuers) not in (["active"], ["active", "next"], ["active", "retiring"]):
        raise corrupt("found other slots, needed one active root and at most one more")
    return issuers
