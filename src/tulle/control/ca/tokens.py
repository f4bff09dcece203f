"""Join tokens: how a node without a certificate proves, once, that it may have one.

A token is `tulle.<id>.<secret>.<sha256 of root>`: the store finds it by its id and compares a hash of the secret, the node
checks the control plane that it talks to against the root's hash. It is shown once, to the person who asked for it.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import time
from collections.abc import Callable, Sequence

import msgspec

from tulle.kit.errors import Refused
from tulle.ports import Conflict, Delete, Key, Put, Store, Stored

RESOURCE = "_jointokens"
_TOKEN = re.compile(r"tulle\.([0-9a-f]{16})\.([A-Za-z0-9_-]{43})\.([0-9a-f]{64})")
_GLOB = re.compile(r"[A-Za-z0-9.*?_\[\]!-]+/[A-Za-z0-9.*?_\[\]!-]+")
_UNUSABLE = "join token: it does not exist, was used before, or is past its lifetime"
_HINT = "make a new one: tulle token create"


class Grant(msgspec.Struct, frozen=True):
    """What a redeemed token allows: `identities` as globs over `namespace/serviceaccount`; `node` ("" any) its name."""

    identities: tuple[str, ...]
    node: str


class _Record(msgspec.Struct, frozen=True):
    """What is kept of a token: never the secret. `expires` is seconds since the epoch; `pin` is the root that it names."""

    hash: str
    expires: float
    identities: tuple[str, ...]
    node: str
    pin: str = ""


class JoinTokens:
    """Single-use tokens over a store, under `_jointokens`; only a hash is kept. `pin` gives `Authority.pin`."""

    def __init__(self, store: Store, pin: Callable[[], str], clock: Callable[[], float] = time.time) -> None:
        self._store, self._pin, self._clock = store, pin, clock

    async def create(self, identities: Sequence[str], lifetime: float, node: str = "") -> str:
        """A new token, shown this once. `identities` are globs over `namespace/serviceaccount` for the node's workloads,
        `lifetime` is in seconds, `node` ties it to one node's name. Raises `Refused` where these make no sense.
        """
        for glob in identities:
            if not _GLOB.fullmatch(glob):
                raise Refused(f"identities: found {glob!r}, needed `namespace/serviceaccount`, where * stands for any")
        if not 0 < lifetime <= 365 * 24 * 3600:
            raise Refused(f"lifetime: found {lifetime:.0f} s, needed more than 0 and at most a year")
        await self._sweep()
        number, secret = secrets.token_hex(8), secrets.token_urlsafe(32)
        pin = self._pin()
        record = _Record(_hash(secret), self._clock() + lifetime, tuple(identities), node, pin)
        await self._store.write([Put(_key(number), msgspec.to_builtins(record), expect=0)])
        return f"tulle.{number}.{secret}.{pin}"

    async def redeem(self, token: str, node: str) -> Grant:
        """Use the token up. Raises `Refused`, with one sentence for all that may be wrong with it.

        Of two that redeem the same token at once, one is refused: the record is deleted at the revision that was read.
        """
        stored, record = await self._usable(token, node)
        try:
            await self._store.write([Delete(stored.key, expect=stored.revision)])
        except Conflict:
            raise Refused(_UNUSABLE, hint=_HINT) from None
        return Grant(record.identities, record.node)

    async def check(self, token: str, node: str) -> None:
        """Raises as `redeem` would, and uses nothing up."""
        await self._usable(token, node)

    async def unused(self) -> tuple[int, int]:
        """How many there are that nobody has used: of the root that signs now, and of one that does not any more. A node that
        shows one of these cannot tell the control plane from a stranger, and does not join.
        """
        stored, _ = await self._store.list(RESOURCE)
        records = (msgspec.convert(one.body, _Record) for one in stored)
        pin, pins = self._pin(), [one.pin for one in records if one.expires > self._clock()]
        good = sum(1 for one in pins if one in ("", pin))
        return good, len(pins) - good

    async def _usable(self, token: str, node: str) -> tuple[Stored, _Record]:
        parts = _TOKEN.fullmatch(token)
        if parts is None:
            raise Refused("join token: found something else, needed `tulle.<id>.<secret>.<root>`", hint=_HINT)
        number, secret, _ = parts.groups()
        stored = await self._store.get(_key(number))
        record = msgspec.convert(stored.body, _Record) if stored is not None else _Record("", 0.0, (), "")
        right = hmac.compare_digest(record.hash.ljust(64), _hash(secret))
        if stored is None or not right or record.expires <= self._clock():
            raise Refused(_UNUSABLE, hint=_HINT)
        if record.node not in ("", node):
            raise Refused(f"join token: it is for node {record.node!r}, not for {node!r}")
        return stored, record

    async def _sweep(self) -> None:
        """Forget tokens that nobody used in time."""
        stored, _ = await self._store.list(RESOURCE)
        now = self._clock()
        old = [Delete(item.key) for item in stored if msgspec.convert(item.body, _Record).expires <= now]
        if old:
            await self._store.write(old)


def is_join_token(token: str) -> bool:
    """Whether it looks like one of these."""
    return token.startswith("tulle.")


def _key(number: str) -> Key:
    return Key(RESOURCE, "", number)


def _hash(secret: str) -> str:
    # The secret is 256 random bits: nothing is gained by a slow hash.
    return hashlib.sha256(secret.encode()).hexdigest()
