"""Which identities a node may ask certificates for, as its join token said; kept in the store under `_nodes`."""

from __future__ import annotations

import msgspec

from tulle.ports import Key, Put, Store

RESOURCE = "_nodes"


class NodeRecord(msgspec.Struct, frozen=True):
    """A node that joined: `identities` are globs over `namespace/serviceaccount`, `joined` is seconds since the epoch."""

    identities: tuple[str, ...]
    joined: float


class Nodes:
    """The nodes that joined."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def get(self, node: str) -> NodeRecord | None:
        """What a node may have, or None where none of that name joined."""
        stored = await self._store.get(Key(RESOURCE, "", node))
        return msgspec.convert(stored.body, NodeRecord) if stored is not None else None

    async def identities(self, node: str) -> tuple[str, ...] | None:
        """The globs of a node, or None where none of that name joined."""
        record = await self.get(node)
        return None if record is None else record.identities

    async def put(self, node: str, record: NodeRecord) -> None:
        """Note that a node joined; a token that it joins with again replaces what an earlier one said."""
        await self._store.write([Put(Key(RESOURCE, "", node), msgspec.to_builtins(record))])
