"""A signer elsewhere: every signing request goes there, and what comes back is looked at before it is given out.

    control/ca/http.py ──csr──▶ ExternalSigner ──Remote.sign──▶ an HTTP PKI (`vault.py`)
                                     └── roots in a file: what the mesh trusts is said here, never there

The signer decides what it signs; this side decides whether that is what was asked for, and is of the roots that it knows.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import structlog
from cryptography import x509

from tulle.control.ca import certificates
from tulle.control.ca.authority import client_subject
from tulle.control.ca.identity import check_identity, check_trust_domain
from tulle.kit.errors import Refused
from tulle.ports import KeyPair, Signer
from tulle.xds.credentials import SERVER_NAME

log = structlog.get_logger("tulle.ca")

_LOOK = 5.0  # seconds between two looks at the file with the roots


class Remote(Protocol):
    """The whole protocol: one request, one chain."""

    async def sign(self, csr_pem: bytes, uri: str, names: Sequence[str], lifetime: float, *, server: bool) -> bytes:
        """A PEM chain (leaf first, up to a root or just below it) for a CSR which says all of it: the key, the SPIFFE ID `uri` or
        "", DNS names and addresses, the subject. `lifetime` is in seconds; `server`: it is to be one for servers too.

        Raises `Refused` where the signer will not, `Unavailable` where it cannot be asked.
        """
        ...


class ExternalSigner:
    """`ports.Signer` over a `Remote`; `roots` is a PEM file with what peers trust, followed while `run` runs."""

    def __init__(self, trust_domain: str, remote: Remote, roots: Path, clock: Callable[[], float] = time.time) -> None:
        """Raises `Refused` where the roots cannot be read."""
        check_trust_domain(trust_domain)
        self._trust_domain, self._remote, self._file, self._clock = trust_domain, remote, roots, clock
        self._roots = _read(roots)
        self._end = min(one.not_valid_after_utc.timestamp() for one in self._roots)

    @property
    def trust_domain(self) -> str:
        """The SPIFFE trust domain."""
        return self._trust_domain

    @property
    def bundle(self) -> bytes:
        """What peers are to trust: the file, as it was read last."""
        return b"".join(certificates.pem(one) for one in self._roots)

    @property
    def pin(self) -> str:
        """What a join token carries: of the first root of the file."""
        return certificates.fingerprint(self._roots[0])

    @property
    def signs(self) -> str:
        """Becomes another text with the roots."""
        return hashlib.sha256(self.bundle).hexdigest()

    @property
    def not_after(self) -> float:
        """When the first of what has signed, or of the roots, ends."""
        return self._end

    async def sign(self, csr_pem: bytes, identity: str, lifetime: float) -> bytes:
        """A chain for the CSR's key; the CSR has to name the identity, for the signer goes by it."""
        check_identity(identity, self._trust_domain)
        key = certificates.requested_key(csr_pem, identity)
        certificates.requested_subject(csr_pem, identity)
        return await self._signed(csr_pem, key, lifetime, uri=identity)

    async def issue_server(self, names: Sequence[str], lifetime: float, identity: str = "") -> KeyPair:
        """A new key and a server certificate."""
        key, names = certificates.make_key(), sorted({*names, SERVER_NAME})
        csr = certificates.make_request(key, uri=identity, names=names)
        return KeyPair(certificates.key_pem(key), await self._signed(csr, key.public_key(), lifetime, uri=identity, names=names))

    async def issue_client(self, name: str, groups: Sequence[str], lifetime: float) -> KeyPair:
        """A new key and a person's certificate."""
        key = certificates.make_key()
        csr = certificates.make_request(key, subject=client_subject(name, groups))
        return KeyPair(certificates.key_pem(key), await self._signed(csr, key.public_key(), lifetime, server=False))

    async def run(self, changed: Callable[[], None]) -> None:
        """Follow the file with the roots, until cancelled; `changed` is called when they are others."""
        while True:
            await asyncio.sleep(_LOOK)
            try:
                found = await asyncio.to_thread(_read, self._file)
            except Refused as refusal:
                log.warning("the roots of the mesh cannot be read; those of before hold", why=refusal.message)
                continue
            if found != self._roots:
                self._roots = found
                self._end = min(one.not_valid_after_utc.timestamp() for one in found)
                log.info("the roots of the mesh have changed", pin=self.pin)
                changed()

    async def _signed(
        self,
        csr: bytes,
        key: certificates.PublicKey,
        lifetime: float,
        *,
        uri: str = "",
        names: Sequence[str] = (),
        server: bool = True,
    ) -> bytes:
        lifetime = min(lifetime, self._end - self._clock() - 1.0)  # nobody asks for what outlives its issuer
        chain = certificates.read_chain(await self._remote.sign(csr, uri, names, lifetime, server=server), "the signer's answer")
        leaf, above = chain[0], [one for one in chain[1:] if one not in self._roots]
        issuers = above or [certificates.issuer_among(leaf, self._roots)]
        now = self._clock()
        certificates.check_issuer(issuers, self._roots, now)
        certificates.check_leaf(leaf, issuers[0], uri, now, key)
        self._end = min(self._end, *(one.not_valid_after_utc.timestamp() for one in issuers))
        return b"".join(certificates.pem(one) for one in (leaf, *above))


def external_status(signer: Signer) -> dict[str, Any]:
    """What is trusted, for people: as `Rotation.status`, without a step to do."""
    roots = x509.load_pem_x509_certificates(signer.bundle)
    issuers = [
        {
            "slot": "trusted",
            "since": one.not_valid_before_utc.timestamp(),
            "subject": one.subject.rfc4514_string(),
            "kind": "elsewhere",
            "root": one.subject.rfc4514_string(),
            "fingerprint": certificates.fingerprint(one),
            "notAfter": one.not_valid_after_utc.timestamp(),
        }
        for one in roots
    ]
    return {"trustDomain": signer.trust_domain, "issuers": issuers, "next": "", "waits": []}


def _read(path: Path) -> Sequence[x509.Certificate]:
    try:
        return certificates.read_chain(path.read_bytes(), str(path))
    except OSError as error:
        raise Refused(f"{path}: the roots cannot be read: {error.strerror}") from error
