"""The certificate authority: a root of its own, or an intermediate that was brought, and leaves signed from CSRs.

    control/ca/http.py ──csr──▶ Authority.sign ──▶ certificates.make_leaf, check_leaf ──▶ PEM chain
                                  │ roots.json (0600), or a sealed record of the store  ◀── rotating.Rotation

Of a CSR only the key is used. The signing key is in one file (or record) and in this object; it is in no log, error or `repr`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from cryptography import x509
from cryptography.x509.oid import NameOID

from tulle.control.ca import certificates, files
from tulle.control.ca.files import Seal, StoredRoots
from tulle.control.ca.identity import check_identity, check_trust_domain
from tulle.control.ca.issuer import Issuer, kept, loaded
from tulle.control.ca.rotation import Schedule, Slot, Step, advance, next_step
from tulle.kit.errors import Corrupt, Refused
from tulle.ports import KeyPair
from tulle.xds.credentials import SERVER_NAME

# The longest life (s) that a leaf may be asked for.
LONGEST = 366 * 24 * 3600.0


class Authority:
    """Signs for one trust domain. Make it with `open`, or by `shared.py` over a store."""

    def __init__(
        self,
        trust_domain: str,
        stored: StoredRoots | None = None,
        clock: Callable[[], float] = time.time,
        *,
        corrupt: Callable[[str], Corrupt],
        keep: Callable[[StoredRoots], None] = lambda stored: None,
        key_type: str = certificates.DEFAULT_KEY_TYPE,
    ) -> None:
        """With what signs as `stored`, or with a new root (None), which is not kept yet.

        `keep` writes them, `corrupt` makes the error of roots that cannot be used, which this raises. `key_type`: of new roots.
        """
        check_trust_domain(trust_domain)
        self._trust_domain, self._clock, self._key_type = trust_domain, clock, key_type
        self._corrupt, self._keep = corrupt, keep
        self._request = ""
        if stored is None:
            self._issuers = [self._new_root(Slot.ACTIVE)]
        else:
            self.use(stored)

    @classmethod
    def open(
        cls,
        directory: Path,
        trust_domain: str = "cluster.local",
        clock: Callable[[], float] = time.time,
        seal: Seal | None = None,
        key_type: str = certificates.DEFAULT_KEY_TYPE,
    ) -> Authority:
        """Load what signs from `directory` (made 0700), or make a root at the first start. `seal`: what the file is sealed with.

        Raises `Corrupt` where what lies there cannot be used, `Refused` where the directory cannot be; nothing that is there
        is ever overwritten by a new root.
        """
        check_trust_domain(trust_domain)
        stored = files.load(directory, seal)
        corrupt, keep = partial(files.corrupt, directory), partial(files.save, directory, seal=seal)
        made = cls(trust_domain, stored, clock, corrupt=corrupt, keep=keep, key_type=key_type)
        if stored is None:
            keep(made.stored())
        return made

    def use(self, stored: StoredRoots) -> None:
        """Sign with these from now on. Raises `Corrupt` where they cannot be used; nothing is changed then."""
        if stored.trust_domain != self._trust_domain:
            raise self._corrupt(f"it is for trust domain {stored.trust_domain!r}, needed {self._trust_domain!r}")
        self._issuers = loaded(stored, self._corrupt)
        self._request = stored.request

    def keep(self, stored: StoredRoots) -> None:
        """Keep these, on disk first, and sign with them. Raises `Refused` where the disk does not take it; nothing is changed."""
        self._keep(stored)
        self.use(stored)

    def stored(self) -> StoredRoots:
        """What signs, as it is kept. Never print it."""
        return self._stored(self._issuers, self._request)

    @property
    def trust_domain(self) -> str:
        """The SPIFFE trust domain, without the scheme."""
        return self._trust_domain

    @property
    def bundle(self) -> bytes:
        """PEM certificates that peers are to trust: those of what signs first, and others while rotating."""
        issuers = sorted(self._issuers, key=lambda one: one.slot is not Slot.ACTIVE)
        anchors = dict.fromkeys(anchor for one in issuers for anchor in one.anchors)
        return b"".join(certificates.pem(anchor) for anchor in anchors)

    @property
    def pin(self) -> str:
        """SHA-256 (hex) of the active root certificate's DER: what a join token carries."""
        return certificates.fingerprint(self.active.anchor)

    @property
    def signs(self) -> str:
        """SHA-256 (hex) of the certificate that signs leaves now: whose leaf is of another gets a new one."""
        return certificates.fingerprint(self.active.certificate)

    @property
    def not_after(self) -> float:
        """When what signs ends (seconds since the epoch)."""
        return self.active.not_after

    @property
    def issuers(self) -> Sequence[Issuer]:
        """What signs, will sign and has signed; they have their keys."""
        return self._issuers

    @property
    def active(self) -> Issuer:
        """What signs now."""
        return next(one for one in self._issuers if one.slot is Slot.ACTIVE)

    def sign(self, csr_pem: bytes, identity: str, lifetime: float) -> bytes:
        """A PEM chain for the CSR's key with `identity` as its one URI SAN, for `lifetime` seconds; nothing else of the CSR is
        used. Raises `Refused` where the CSR, the identity or the lifetime cannot be accepted. Who may have which identity is
        the caller's question.
        """
        check_identity(identity, self._trust_domain)
        key, subject = certificates.requested_key(csr_pem, identity), certificates.requested_subject(csr_pem, identity)
        return self._issue(key, lifetime, uri=identity, subject=subject)

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
        return KeyPair(certificates.key_pem(key), self._issue(key.public_key(), lifetime, subject=client_subject(name, groups)))

    def next_step(self, schedule: Schedule) -> tuple[Step, float]:
        """What the rotation of the root does next, and when (seconds since the epoch)."""
        return next_step([one.place for one in self._issuers], schedule, self._clock())

    def take(self, step: Step) -> None:
        """Do a step of the rotation, on disk first. Raises `Refused` where the disk does not take it; nothing is changed then."""
        self.keep(self.after(step))

    def after(self, step: Step) -> StoredRoots:
        """What signs as it would be after a step; `PREPARE` makes a root."""
        places = advance([one.place for one in self._issuers], step, self._clock())
        issuers = [one.at(place) for one, place in zip(self._issuers, places, strict=True) if place is not None]
        if step is Step.PREPARE:
            issuers.append(self._new_root(Slot.NEXT))
        return self._stored(issuers, self._request)

    def after_request(self) -> tuple[StoredRoots, bytes]:
        """What is kept after a signing request for an intermediate was made, and the request (PEM): the same one again until
        its certificate is imported. Its key leaves this authority never.
        """
        made = self._request or certificates.key_pem(certificates.make_key(self._key_type)).decode()
        key = certificates.load_key(made.encode())
        subject = [(NameOID.ORGANIZATION_NAME, self._trust_domain[:64]), (NameOID.COMMON_NAME, "tulle intermediate")]
        csr = certificates.make_request(key, uri=f"spiffe://{self._trust_domain}", subject=subject, authority=True)
        return self._stored(self._issuers, made), csr

    def after_import(self, chain_pem: bytes, roots_pem: bytes, key_pem: bytes = b"", *, at_once: bool = False) -> StoredRoots:
        """What signs after an intermediate was brought: `chain_pem` is its certificate and those above it, `roots_pem` what peers
        are to trust, `key_pem` its key (empty: that of the signing request that was made here). It is prepared, to be activated
        when everybody trusts its roots; `at_once`: it signs from now on, in the place of what does.

        Raises `Refused` where it may not sign, is not of these roots, or is for another key.
        """
        chain, roots = certificates.read_chain(chain_pem, "chain"), certificates.read_chain(roots_pem, "roots")
        key_pem = key_pem or self._request.encode()
        if not key_pem:
            raise Refused("no signing request was made here, so there is no key for this certificate", hint="tulle ca csr")
        key = certificates.load_key(key_pem)
        if key.public_key() != chain[0].public_key():
            raise Refused("the first certificate of the chain is for another key")
        now = self._clock()
        certificates.check_issuer(chain, roots, now)
        slot = Slot.ACTIVE if at_once else Slot.NEXT
        issuers = [one for one in self._issuers if one.slot not in (slot, Slot.NEXT)]
        brought = Issuer(chain[0], key, slot, now, chain[1:], roots)
        return self._stored([*issuers, brought], "" if key_pem == self._request.encode() else self._request)

    def _stored(self, issuers: Sequence[Issuer], request: str) -> StoredRoots:
        return StoredRoots(version=1, trust_domain=self._trust_domain, roots=[kept(one) for one in issuers], request=request)

    def _new_root(self, slot: Slot) -> Issuer:
        key, now = certificates.make_key(self._key_type), self._clock()
        return Issuer(certificates.make_root(key, self._trust_domain, now), key, slot, now)

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
        issuer = self.active
        leaf = certificates.make_leaf(
            issuer.certificate,
            issuer.key,
            key,
            now,
            min(lifetime, LONGEST, max(0.0, issuer.not_after - now)),
            uri=uri,
            names=names,
            subject=subject,
            server=bool(uri) or not subject,  # people's certificates are for clients only
        )
        certificates.check_leaf(leaf, issuer.certificate, uri, now, key)
        return certificates.pem(leaf) + issuer.presented


def client_subject(name: str, groups: Sequence[str]) -> Sequence[tuple[x509.ObjectIdentifier, str]]:
    """The subject of a person's certificate."""
    return [*((NameOID.ORGANIZATION_NAME, group) for group in groups), (NameOID.COMMON_NAME, name)]
