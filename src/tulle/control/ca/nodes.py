"""Which identities a node may ask certificates for, as its join token said, and what it trusts: `_nodes` in the store."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Mapping

import msgspec

from tulle.control.ca.revocations import Revocations
from tulle.ports import Conflict, Key, Put, Store

RESOURCE = "_nodes"


class NodeRecord(msgspec.Struct, frozen=True):
    """A node that joined: `identities` are globs over `namespace/serviceaccount`, `joined` is seconds since the epoch.

    `until` is when its newest certificate ends; `trusts` is the `fingerprint` of the roots that it said it has.
    """

    identities: tuple[str, ...]
    joined: float
    until: float = 0.0
    trusts: str = ""


def fingerprint(bundle: bytes) -> str:
    """Tells bundles apart, whatever the order of their certificates."""
    parts = bundle.replace(b"\r", b"").split(b"-----END CERTIFICATE-----")
    return hashlib.sha256(b"".join(sorted(part.strip() for part in parts))).hexdigest()[:16]


class Nodes:
    """The nodes that joined. `revocations`: what is to be signed for nobody."""

    def __init__(self, store: Store, revocations: Revocations | None = None) -> None:
        self._store, self._revocations = store, revocations

    async def check(self, identity: str) -> None:
        """Raises `Refused` where an identity is revoked."""
        if self._revocations is not None:
            await self._revocations.check(identity)

    async def get(self, node: str) -> NodeRecord | None:
        """What a node may have, or None where none of that name joined."""
        stored = await self._store.get(Key(RESOURCE, "", node))
        return msgspec.convert(stored.body, NodeRecord) if stored is not None else None

    async def identities(self, node: str) -> tuple[str, ...] | None:
        """The globs of a node, or None where none of that name joined."""
        record = await self.get(node)
        return None if record is None else record.identities

    async def all(self) -> Mapping[str, NodeRecord]:
        """Every node that joined, by its name."""
        stored, _ = await self._store.list(RESOURCE)
        return {one.key.name: msgspec.convert(one.body, NodeRecord) for one in stored}

    async def told(self, node: str, trusts: str) -> None:
        """Note what a node trusts; written only where that is news."""
        stored = await self._store.get(Key(RESOURCE, "", node))
        if stored is None:
            return
        record = msgspec.convert(stored.body, NodeRecord)
        if record.trusts != trusts:
            with contextlib.suppress(Conflict):  # it joined again at this moment, and tells again
                said = msgspec.structs.replace(record, trusts=trusts)
                await self._store.write([Put(stored.key, msgspec.to_builtins(said), expect=stored.revision)])

    async def put(self, node: str, record: NodeRecord) -> None:
        """Note that a node joined; a token that it joins with again replaces what an earlier one said."""
        await self._store.write([Put(Key(RESOURCE, "", node), msgspec.to_builtins(record))])
