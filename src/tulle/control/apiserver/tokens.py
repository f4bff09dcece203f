"""API tokens: bearer tokens of service accounts and of named users. Of a token only a hash is kept; it is shown once.

    TokenRequest, `tulle apitoken create` ──▶ ApiTokens.create ──▶ `tulle-api.<id>.<secret>`
    Authorization: Bearer ──▶ ApiTokens.redeem ──▶ User

A service account's token ends with its ServiceAccount, and with the Secret that it is bound to, where it is bound to one.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from tulle.control.apiserver.auth import AUTHENTICATED, User
from tulle.ports import Delete, Key, Put, Store, Stored

RESOURCE = "_apitokens"
AUDIENCE = "tulle"  # who takes a token that names no audience: this API server
LONGEST = 366 * 24 * 3600.0  # seconds
PREFIX = "tulle-api."
_TOKEN = re.compile(r"tulle-api\.([0-9a-f]{16})\.([A-Za-z0-9_-]{43})")
_ABSENT_HASH = "0" * 64


class Bound(msgspec.Struct, frozen=True, omit_defaults=True):
    """An object that a token lives with."""

    resource: str
    namespace: str
    name: str
    uid: str


class ApiToken(msgspec.Struct, frozen=True):
    """What is kept of a token: never the secret. Times are seconds since the epoch; `author` made it."""

    hash: str
    user: str
    groups: tuple[str, ...]
    created: float
    expires: float
    author: str
    audiences: tuple[str, ...] = (AUDIENCE,)
    uid: str = ""
    bound: tuple[Bound, ...] = ()


class ApiTokens:
    """Tokens over a store, under `_apitokens`. `clock`: seconds since the epoch."""

    def __init__(self, store: Store, clock: Callable[[], float]) -> None:
        self._store, self._clock = store, clock

    async def create(
        self,
        user: str,
        groups: Sequence[str],
        lifetime: float,
        author: str,
        *,
        audiences: Sequence[str] = (),
        uid: str = "",
        bound: Sequence[Bound] = (),
    ) -> tuple[str, str, ApiToken]:
        """A new token (shown this once), its id, and what is kept of it. `lifetime` (seconds) is cut at `LONGEST`."""
        await self.sweep()
        number, secret = secrets.token_hex(8), secrets.token_urlsafe(32)
        now = self._clock()
        kept = ApiToken(
            hash=_hash(secret),
            user=user,
            groups=tuple(groups),
            created=now,
            expires=now + min(lifetime, LONGEST),
            author=author,
            audiences=tuple(audiences) or (AUDIENCE,),
            uid=uid,
            bound=tuple(bound),
        )
        await self._store.write([Put(_key(number), msgspec.to_builtins(kept), expect=0)])
        return f"{PREFIX}{number}.{secret}", number, kept

    async def redeem(self, token: str, audiences: Sequence[str] = (AUDIENCE,)) -> tuple[User, tuple[str, ...]] | None:
        """The user of a token, and which of `audiences` it is for; None where it is no (longer a) token for one of them."""
        parts = _TOKEN.fullmatch(token)
        if parts is None:
            return None
        number, secret = parts.groups()
        stored = await self._store.get(_key(number))
        kept = None if stored is None else msgspec.convert(stored.body, ApiToken)
        right = hmac.compare_digest(kept.hash if kept else _ABSENT_HASH, _hash(secret))
        if kept is None or not right or kept.expires <= self._clock():
            return None
        for_ = tuple(one for one in audiences if one in kept.audiences)
        if not for_ or not await self._alive(kept):
            return None
        extra = {"authentication.kubernetes.io/credential-id": (f"TOKEN={number}",)}
        return User(kept.user, (*kept.groups, AUTHENTICATED), "", kept.uid, extra), for_

    async def _alive(self, kept: ApiToken) -> bool:
        for one in kept.bound:
            stored = await self._store.get(Key(one.resource, one.namespace, one.name))
            metadata: dict[str, Any] = stored.body["metadata"] if stored else {}
            if metadata.get("uid") != one.uid or metadata.get("deletionTimestamp"):
                return False
        return True

    async def list(self) -> list[tuple[str, ApiToken]]:
        """All tokens that still are one, by id."""
        found, _ = await self._store.list(RESOURCE)
        kept = [(item.key.name, msgspec.convert(item.body, ApiToken)) for item in found]
        return [(number, one) for number, one in kept if one.expires > self._clock() and await self._alive(one)]

    async def revoke(self, number: str) -> bool:
        """End a token, for every request after this; False where there is none of that id."""
        stored = await self._store.get(_key(number))
        if stored is None:
            return False
        await self._store.write([Delete(stored.key)])
        return True

    async def sweep(self) -> None:
        """Forget tokens that are past their time, or whose service account is gone."""
        found, _ = await self._store.list(RESOURCE)
        old = [Delete(item.key) for item in found if await self._over(item)]
        if old:
            await self._store.write(old)

    async def _over(self, item: Stored) -> bool:
        kept = msgspec.convert(item.body, ApiToken)
        return kept.expires <= self._clock() or not await self._alive(kept)


def service_account_groups(namespace: str) -> tuple[str, ...]:
    """The groups of every service account of a namespace."""
    return ("system:serviceaccounts", f"system:serviceaccounts:{namespace}")


def _key(number: str) -> Key:
    return Key(RESOURCE, "", number)


def _hash(secret: str) -> str:
    # The secret is 256 random bits: nothing is gained by a slow hash.
    return hashlib.sha256(secret.encode()).hexdigest()
