"""The certificate authority: a root of its own, and leaves signed from CSRs.

Signatures first; the body follows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec


class KeyPair(msgspec.Struct, frozen=True):
    """A private key and its certificate chain, leaf first, in PEM. Never print it."""

    key: bytes
    chain: bytes


class Authority:
    """Signs for one trust domain; implements `ports.Signer`. Make it with `open`."""

    @classmethod
    def open(cls, directory: Path, trust_domain: str = "cluster.local", clock: Callable[[], float] | None = None) -> Authority:
        """Load the root from `directory` (made 0700), or make one at the first start. Raises `Corrupt` where what lies there
        cannot be used; nothing is overwritten.
        """
        raise NotImplementedError

    @property
    def trust_domain(self) -> str:
        """The SPIFFE trust domain, without the scheme."""
        raise NotImplementedError

    @property
    def bundle(self) -> bytes:
        """PEM certificates that peers are to trust."""
        raise NotImplementedError

    @property
    def pin(self) -> str:
        """SHA-256 (hex) of the active root certificate's DER: what a join token carries."""
        raise NotImplementedError

    def sign(self, csr_pem: bytes, identity: str, lifetime: float) -> bytes:
        """A PEM chain for the CSR's key with `identity` as its one URI SAN; nothing else of the CSR is used. Raises `Refused`."""
        raise NotImplementedError

    def issue_server(self, names: Sequence[str], lifetime: float, identity: str = "") -> KeyPair:
        """A new key and a server certificate for DNS names and IP addresses; the control plane's own."""
        raise NotImplementedError

    def issue_client(self, name: str, groups: Sequence[str], lifetime: float) -> KeyPair:
        """A new key and a client certificate for a person: CN `name`, O `groups`, as kubeconfigs have it."""
        raise NotImplementedError
