"""The certificate authority: a root of its own, and leaves signed from CSRs.

    control/ca/http.py ──csr──▶ Authority.sign ──▶ certificates.make_leaf, check_leaf ──▶ PEM chain
                                  │ roots.json (0600), or a sealed record of the store  ◀── rotation.next_step

Of a CSR only the key is used. The root's key is in one file (or record) and in this object; it is in no log, error or `repr`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import msgspec
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tulle.control.ca import certificates, files
from tulle.control.ca.files import StoredRoot, StoredRoots
from tulle.control.ca.identity import check_identity, check_trust_domain
from tulle.control.ca.rotation import Root, Schedule, Slot, Step, advance, next_step
from tulle.kit.errors import Corrupt
from tulle.xds.credentials import SERVER_NAME

# The longest life (s) that a leaf may be asked for.
LONGEST = 366 * 24 * 3600.0


class KeyPair(msgspec.Struct, frozen=True):
    """A private key and its certificate chain, leaf first, in PEM. Never print it."""

    key: bytes
    chain: bytes

    def __repr__(self) -> str:
        """Without the key."""
        return "KeyPair(...)"


class _Root:
    """A root in use: its certificate, its key, and its place in the rotation."""

    def __init__(self, certificate: x509.Certificate, key: certificates.SigningKey, slot: Slot, since: float) -> None:
        self.certificate, self.key, self.slot, self.since = certificate, key, slot, since

    @property
    def place(self) -> Root:
        return Root(self.slot, self.since, self.certificate.not_valid_after_utc.timestamp())


class Authority:
    """Signs for one trust domain; implements `ports.Signer`. Make it with `open`, or by `shared.py` over a store."""

    def __init__(
        self,
        trust_domain: str,
        stored: StoredRoots | None = None,
        clock: Callable[[], float] = time.time,
        *,
        corrupt: Callable[[str], Corrupt],
        keep: Callable[[StoredRoots], None] = lambda stored: None,
    ) -> None:
        """With the roots that are `stored`, or with a new one (None), which is not kept yet.

        `keep` writes them, `corrupt` makes the error of roots that cannot be used, which this raises.
        """
        check_trust_domain(trust_domain)
        self._trust_domain, self._clock = trust_domain, clock
        self._corrupt, self._keep = corrupt, keep
        self._roots = [_new_root(trust_domain, Slot.ACTIVE, clock())]
        if stored is not None:
            self.use(stored)

    @classmethod
    def open(cls, directory: Path, trust_domain: str = "cluster.local", clock: Callable[[], float] = time.time) -> Authority:
        """Load the root from `directory` (made 0700), or make one at the first start.

        Raises `Corrupt` where what lies there cannot be used, `Refused` where the directory cannot be; nothing that is there
        is ever overwritten by a new root.
        """
        check_trust_domain(trust_domain)
        stored = files.load(directory)
        corrupt, keep = partial(files.corrupt, directory), partial(files.save, directory)
        made = cls(trust_domain, stored, clock, corrupt=corrupt, keep=keep)
        if stored is None:
            keep(made.stored())
        return made

    def use(self, stored: StoredRoots) -> None:
        """Sign with these roots from now on. Raises `Corrupt` where they cannot be used; nothing is changed then."""
        if stored.trust_domain != self._trust_domain:
            raise self._corrupt(f"it is for trust domain {stored.trust_domain!r}, needed {self._trust_domain!r}")
        self._roots = _loaded(stored, self._corrupt)

    def stored(self) -> StoredRoots:
        """The roots, as they are kept. Never print it."""
        return _stored(self._trust_domain, self._roots)

    @property
    def trust_domain(self) -> str:
        """The SPIFFE trust domain, without the scheme."""
        return self._trust_domain

    @property
    def bundle(self) -> bytes:
        """PEM certificates that peers are to trust: the active root first, and a second one while rotating."""
        roots = sorted(self._roots, key=lambda root: root.slot is not Slot.ACTIVE)
        return b"".join(certificates.pem(root.certificate) for root in roots)

    @property
    def pin(self) -> str:
        """SHA-256 (hex) of the active root certificate's DER: what a join token carries."""
        return certificates.fingerprint(self._active.certificate)

    def sign(self, csr_pem: bytes, identity: str, lifetime: float) -> bytes:
        """A PEM chain for the CSR's key with `identity` as its one URI SAN, for `lifetime` seconds; nothing else of the CSR is
        used. Raises `Refused` where the CSR, the identity or the lifetime cannot be accepted. Who may have which identity is
        the caller's question.
        """
        check_identity(identity, self._trust_domain)
        return self._issue(certificates.requested_key(csr_pem), lifetime, uri=identity)

    def issue_server(self, names: Sequence[str], lifetime: float, identity: str = "") -> KeyPair:
        """A new key and a server certificate for DNS names and IP addresses; the control plane's own.

        `xds.credentials.SERVER_NAME`, by which nodes know the control plane, is always among the names.
        """
        if identity:
            check_identity(identity, self._trust_domain)
        key = certificates.make_key()
        chain = self._issue(key.public_key(), lifetime, uri=identity, names=sorted({*names, SERVER_NAME}))
        return KeyPair(certificates.key_pem(key), chain)

    def issue_client(self, name: str, groups: Sequence[str], lifetime: float) -> KeyPair:
        """A new key and a client certificate for a person: CN `name`, O `groups`, as kubeconfigs have it. No SPIFFE ID."""
        key = certificates.make_key()
        subject = [*((NameOID.ORGANIZATION_NAME, group) for group in groups), (NameOID.COMMON_NAME, name)]
        return KeyPair(certificates.key_pem(key), self._issue(key.public_key(), lifetime, subject=subject))

    def next_step(self, schedule: Schedule) -> tuple[Step, float]:
        """What the rotation of the root does next, and when (seconds since the epoch)."""
        return next_step([root.place for root in self._roots], schedule, self._clock())

    def take(self, step: Step) -> None:
        """Do a step of the rotation, on disk first. Raises `Refused` where the disk does not take it; nothing is changed then."""
        stored = self.after(step)
        self._keep(stored)
        self.use(stored)

    def after(self, step: Step) -> StoredRoots:
        """The roots as they would be after a step."""
        now = self._clock()
        places = advance([root.place for root in self._roots], step, now)
        roots = [
            _Root(root.certificate, root.key, place.slot, place.since)
            for root, place in zip(self._roots, places, strict=True)
            if place is not None
        ]
        if step is Step.PREPARE:
            roots.append(_new_root(self._trust_domain, Slot.NEXT, now))
        return _stored(self._trust_domain, roots)

    @property
    def _active(self) -> _Root:
        return next(root for root in self._roots if root.slot is Slot.ACTIVE)

    def _issue(
        self,
        key: certificates.PublicKey,
        lifetime: float,
        *,
        uri: str = "",
        names: Sequence[str] = (),
        subject: Sequence[tuple[x509.ObjectIdentifier, str]] = (),
    ) -> bytes:
        now = self._clock()
        root = self._active
        leaf = certificates.make_leaf(
            root.certificate,
            root.key,
            key,
            now,
            min(lifetime, LONGEST),
            uri=uri,
            names=names,
            subject=subject,
            server=not subject,  # people's certificates are for clients only
        )
        certificates.check_leaf(leaf, root.certificate, uri, now)
        return certificates.pem(leaf)


def _stored(trust_domain: str, roots: Sequence[_Root]) -> StoredRoots:
    kept = [
        StoredRoot(
            slot=root.slot.value,
            since=root.since,
            certificate=certificates.pem(root.certificate).decode(),
            key=certificates.key_pem(root.key).decode(),
        )
        for root in roots
    ]
    return StoredRoots(version=1, trust_domain=trust_domain, roots=kept)


def _new_root(trust_domain: str, slot: Slot, now: float) -> _Root:
    key = certificates.make_key()
    return _Root(certificates.make_root(key, trust_domain, now), key, slot, now)


def _loaded(stored: StoredRoots, corrupt: Callable[[str], Corrupt]) -> list[_Root]:
    roots: list[_Root] = []
    for item in stored.roots:
        try:
            certificate = x509.load_pem_x509_certificate(item.certificate.encode())
            key = serialization.load_pem_private_key(item.key.encode(), password=None)
            slot = Slot(item.slot)
        except (ValueError, TypeError, UnsupportedAlgorithm):
            # Without the cause: its words may come from the key.
            raise corrupt("a certificate or key in it does not parse") from None
        if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != certificate.public_key():
            raise corrupt("a key in it does not belong to its certificate")
        roots.append(_Root(certificate, key, slot, item.since))
    if sorted(root.slot for root in roots) not in (["active"], ["active", "next"], ["active", "retiring"]):
        raise corrupt("found other slots, needed one active root and at most one more")
    return roots
