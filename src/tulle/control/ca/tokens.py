"""Join tokens: how a node without a certificate proves, once, that it may have one.

Signatures first; the body follows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from tulle.ports import Store


class Grant(msgspec.Struct, frozen=True):
    """What a redeemed token allows: `identities` as globs over `namespace/serviceaccount`; `node` ("" any) its name."""

    identities: tuple[str, ...]
    node: str


class JoinTokens:
    """Single-use tokens over a store, under `_jointokens`; only a hash is kept. `pin` is `Authority.pin`."""

    def __init__(self, store: Store, pin: Callable[[], str], clock: Callable[[], float] | None = None) -> None: ...

    async def create(self, identities: Sequence[str], lifetime: float, node: str = "") -> str:
        """A new token, shown this once: `tulle.<id>.<secret>.<sha256 of root>`. `lifetime` in seconds."""
        raise NotImplementedError

    async def redeem(self, token: str, node: str) -> Grant:
        """Use the token up; raises `Refused`."""
        raise NotImplementedError
