"""The keys that JWT-SVIDs are signed with, rotated with overlap: one record of the store that all control planes share.

    next (published) ──▶ active (signs) ──▶ retiring (published, until its last token has ended)

It is the rotation of the roots (`rotation.py`) with a shorter life. The store seals the record; a private key is in no log,
error or `repr`.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
import time
from collections.abc import Callable, Sequence
from typing import Any

import jwt
import msgspec
import structlog
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tulle.control.ca import certificates
from tulle.control.ca.identity import check_identity
from tulle.control.ca.rotation import Root, Schedule, Slot, Step, advance, next_step
from tulle.core.trust_bundle import public_key
from tulle.kit.errors import Corrupt, Refused, TulleError
from tulle.ports import Compacted, Conflict, Key, Put, Store

log = structlog.get_logger("tulle.ca")

RESOURCE = "_jwtkeys"
KEY = Key(RESOURCE, "", "keys")

LIFETIME = 300.0  # seconds that a token lives: nobody can take one back
_KEY_LIFETIME = 7 * 24 * 3600.0
_SPREAD = 900.0  # seconds in which everybody learns of a key: other trust domains ask every five minutes
_PAUSE = 1.0
_AUDIENCE = re.compile(r"[\x21-\x7e]{1,1024}")
_MOST = 32  # audiences of a token
_FOREVER = float("inf")


class _StoredKey(msgspec.Struct, frozen=True):
    """A key as kept: PEM, its slot, and since when (seconds since the epoch)."""

    slot: str
    since: float
    key: str

    def __repr__(self) -> str:
        """Without the key: this may end up in a traceback."""
        return f"_StoredKey(slot={self.slot!r})"


class _Key:
    """A key in use."""

    def __init__(self, key: ec.EllipticCurvePrivateKey, slot: Slot, since: float) -> None:
        self.key, self.slot, self.since = key, slot, since
        public = public_key(key.public_key())
        thumb = json.dumps({name: public[name] for name in ("crv", "kty", "x", "y")}, separators=(",", ":"))
        self.public = {**public, "kid": hashlib.sha256(thumb.encode()).hexdigest()[:32]}

    @property
    def place(self) -> Root:
        return Root(self.slot, self.since, _FOREVER)

    def stored(self) -> _StoredKey:
        return _StoredKey(self.slot.value, self.since, certificates.key_pem(self.key).decode())


class JwtKeys:
    """Signs tokens for one trust domain. Make it with `open`, and `run` it."""

    def __init__(self, store: Store, trust_domain: str, clock: Callable[[], float], schedule: Schedule) -> None:
        self._store, self._trust_domain, self._clock, self._schedule = store, trust_domain, clock, schedule
        self._keys: list[_Key] = []
        self._revision = 0

    @classmethod
    async def open(
        cls,
        store: Store,
        trust_domain: str = "cluster.local",
        clock: Callable[[], float] = time.time,
        *,
        lifetime: float = LIFETIME,
        key_lifetime: float = _KEY_LIFETIME,
        spread: float = _SPREAD,
    ) -> JwtKeys:
        """What the store has, or a new key. `lifetime` (s) is that of tokens, `key_lifetime` that of a key that signs them, and
        `spread` the time in which everybody learns of one. Raises `Corrupt` where what is there cannot be used.
        """
        made = cls(store, trust_domain, clock, Schedule(key_lifetime, spread, lifetime))
        while not await made._read():
            try:
                await made._write([_Key(ec.generate_private_key(ec.SECP256R1()), Slot.ACTIVE, clock())])
            except Conflict:  # another control plane was quicker
                continue
            log.info("made a key for tokens", kid=made.public[0]["kid"])
        return made

    @property
    def public(self) -> tuple[dict[str, Any], ...]:
        """The JWKs by which tokens are checked, the signing one first."""
        keys = sorted(self._keys, key=lambda one: one.slot is not Slot.ACTIVE)
        return tuple(one.public for one in keys)

    def sign(self, identity: str, audience: Sequence[str]) -> tuple[str, float]:
        """A JWT-SVID for a SPIFFE ID, and when it ends (seconds since the epoch). Raises `Refused` where identity or audience
        cannot be. Who may have which is the caller's question.
        """
        check_identity(identity, self._trust_domain)
        if not 0 < len(audience) <= _MOST:
            raise Refused(f"audience: found {len(audience)}, needed 1 to {_MOST}")
        for one in audience:
            if not _AUDIENCE.fullmatch(one):
                raise Refused(f"audience: found {one[:100]!r}, needed 1 to 1,024 visible characters")
        now = self._clock()
        ends = int(now + self._schedule.leaf_lifetime)
        active = next(one for one in self._keys if one.slot is Slot.ACTIVE)
        claims = {"sub": identity, "aud": list(audience), "iat": int(now), "exp": ends}
        return jwt.encode(claims, active.key, algorithm="ES256", headers={"kid": active.public["kid"]}), float(ends)

    async def run(self, changed: Callable[[], None]) -> None:
        """Rotate, and take up what others have rotated, until cancelled; `changed` is called after each."""
        while True:
            step, due = next_step([one.place for one in self._keys], self._schedule, self._clock())
            await asyncio.sleep(min(max(_PAUSE, due - self._clock()), 60.0))
            try:
                before = self.public
                await self._read()
                if before == self.public:
                    await self.step()
                if before != self.public:
                    log.info("the keys of tokens have changed", kids=[one["kid"] for one in self.public], step=step)
                    changed()
            except (TulleError, Compacted, Conflict) as error:
                log.warning("the keys of tokens cannot be rotated; trying again", error=str(error))

    async def step(self) -> None:
        """Do the next step of the rotation, if it is due."""
        now = self._clock()
        places = [one.place for one in self._keys]
        step, due = next_step(places, self._schedule, now)
        if due > now:
            return
        after = advance(places, step, now)
        keys = [_Key(one.key, place.slot, place.since) for one, place in zip(self._keys, after, strict=True) if place]
        if step is Step.PREPARE:
            keys.append(_Key(ec.generate_private_key(ec.SECP256R1()), Slot.NEXT, now))
        await self._write(keys)

    async def _write(self, keys: list[_Key]) -> None:
        body = {"keys": [msgspec.to_builtins(one.stored()) for one in keys]}
        self._revision = await self._store.write([Put(KEY, body, expect=self._revision)])
        self._keys = keys

    async def _read(self) -> bool:
        """Take what the store has; False where it has nothing."""
        found = await self._store.get(KEY)
        if found is None:
            self._revision = 0
            return False
        if found.revision != self._revision:
            self._keys = [_loaded(one) for one in _parsed(found.body)]
            self._revision = found.revision
            if sum(one.slot is Slot.ACTIVE for one in self._keys) != 1:
                raise _corrupt("needed one key that signs")
        return True


def _parsed(body: dict[str, object]) -> list[_StoredKey]:
    try:
        return msgspec.convert(body.get("keys"), list[_StoredKey])
    except msgspec.ValidationError:
        raise _corrupt("it is not what was written") from None  # without the cause: its words may come from the key


def _loaded(stored: _StoredKey) -> _Key:
    try:
        key = serialization.load_pem_private_key(stored.key.encode(), password=None)
        slot = Slot(stored.slot)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise _corrupt("a key in it does not parse") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise _corrupt("a key in it is of another kind")
    return _Key(key, slot, stored.since)


def _corrupt(why: str) -> Corrupt:
    return Corrupt(f"the keys of JWT-SVIDs in the store cannot be used: {why}", hint="restore the store from a backup")
