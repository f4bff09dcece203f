"""The authority of this control plane as a `ports.Signer`; `external.py` has one elsewhere."""

from __future__ import annotations

from collections.abc import Sequence

from tulle.control.ca.authority import Authority
from tulle.ports import KeyPair


class OwnSigner:
    """Signs with the key that is here: at once, in this thread (some 100 µs a leaf)."""

    def __init__(self, authority: Authority) -> None:
        self.authority = authority

    @property
    def trust_domain(self) -> str:
        """The SPIFFE trust domain."""
        return self.authority.trust_domain

    @property
    def bundle(self) -> bytes:
        """What peers are to trust."""
        return self.authority.bundle

    @property
    def pin(self) -> str:
        """What a join token carries."""
        return self.authority.pin

    @property
    def signs(self) -> str:
        """What signs now."""
        return self.authority.signs

    @property
    def not_after(self) -> float:
        """When that ends."""
        return self.authority.not_after

    async def sign(self, csr_pem: bytes, identity: str, lifetime: float) -> bytes:
        """A chain for the CSR's key."""
        return self.authority.sign(csr_pem, identity, lifetime)

    async def issue_server(self, names: Sequence[str], lifetime: float, identity: str = "") -> KeyPair:
        """A new key and a server certificate."""
        return self.authority.issue_server(names, lifetime, identity)

    async def issue_client(self, name: str, groups: Sequence[str], lifetime: float) -> KeyPair:
        """A new key and a person's certificate."""
        return self.authority.issue_client(name, groups, lifetime)
