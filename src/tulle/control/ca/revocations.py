"""Identities and certificates that were taken back: kept in the store, followed by every control plane.

revoke ──▶ store ──▶ nothing is signed for it (any control plane, at once)
                └──▶ `changed` ──▶ proxies deny it; streams and API requests of it end
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Callable, Mapping, Sequence

import msgspec
import structlog

from tulle.control.ca.identity import check_identity
from tulle.control.ca.ledger import Issued
from tulle.kit.errors import Refused, TulleError
from tulle.ports import Compacted, Conflict, Delete, Key, Put, Store

log = structlog.get_logger("tulle.ca")

RESOURCE = "_revocations"
_CUT = Key(RESOURCE, "", "cut")
_PAUSE = 1.0  # seconds before a store that failed is asked again


class Revocation(msgspec.Struct, frozen=True):
    """An `identity` that is nobody's any more; or, with a `serial`, one certificate of it, by its `digest` (SHA-256, hex).

    Times are seconds since the epoch: `until` is when the certificate ends by itself, 0 for an identity.
    """

    identity: str
    since: float
    by: str
    reason: str = ""
    serial: str = ""
    digest: str = ""
    until: float = 0.0


class Revocations:
    """`current` is what is revoked, as far as this control plane has heard; `cut` as in `core.compile.revoked`."""

    def __init__(self, store: Store, trust_domain: str, clock: Callable[[], float] = time.time) -> None:
        self._store, self._trust_domain, self._clock = store, trust_domain, clock
        self._records: dict[Key, Revocation] = {}
        self.cut = 0

    @property
    def current(self) -> Sequence[Revocation]:
        """What is revoked, the newest last."""
        return sorted(self._records.values(), key=lambda one: (one.since, one.identity, one.serial))

    def is_revoked(self, identity: str, serial: str = "") -> bool:
        """Whether a caller with this identity and certificate (its serial number in hex) is nobody."""
        number = serial.lower().lstrip("0")
        return any(
            one.serial == number if one.serial else bool(identity) and one.identity == identity for one in self._records.values()
        )

    async def check(self, identity: str) -> None:
        """Raises `Refused` where nothing is to be signed for an identity: as the store has it at this moment."""
        if await self._store.get(_key(identity)) is not None:
            raise Refused(f"identity: {identity} is revoked", hint=f"tulle identity restore {identity}")

    async def revoke(self, identity: str, by: str, reason: str = "", certificate: Issued | None = None, cut: bool = True) -> None:
        """Take an identity back, or one `certificate` of it. Idempotent. Raises `Refused` where there is none such.

        `cut`: connections that stand are to end, everywhere, for nobody can tell whose they are.
        """
        check_identity(identity, self._trust_domain)
        if identity == f"spiffe://{self._trust_domain}/ns/tulle-system/sa/control-plane":
            raise Refused("identity: without the control plane's own nothing is signed for anybody")
        now = self._clock()
        made = Revocation(identity, now, by, reason)
        if certificate is not None:
            made = Revocation(identity, now, by, reason, certificate.serial, certificate.digest, certificate.not_after)
        number = {"cut": int(now * 1000)}
        puts = [Put(_key(identity, made.serial), msgspec.to_builtins(made)), *([Put(_CUT, number)] if cut else [])]
        await self._store.write(puts)
        log.warning("an identity was revoked", identity=identity, serial=made.serial, by=by, reason=reason)

    async def restore(self, identity: str, serial: str = "") -> None:
        """Give it back. Raises `Refused` where it was not revoked."""
        try:
            stored = await self._store.get(_key(identity, serial))
            await self._store.write([Delete(_key(identity, serial), expect=stored.revision if stored else 1)])
        except Conflict:
            raise Refused(f"identity: {identity} {serial}".rstrip() + " is not revoked") from None
        log.warning("an identity was restored", identity=identity, serial=serial)

    async def load(self) -> int:
        """Read all; the revision of that."""
        found, since = await self._store.list(RESOURCE)
        self._records = {}
        for one in found:
            self._heard(one.key, one.body)
        return since

    async def run(self, changed: Callable[[], None]) -> None:
        """Follow what is revoked, until cancelled; `changed` is called after each change."""
        while True:
            try:
                since = await self.load()
                await self._sweep()
                changed()
                async for event in self._store.watch(since, RESOURCE):
                    self._heard(event.key, event.body)
                    changed()
            except Compacted:
                continue
            except TulleError as error:
                log.warning("revocations cannot be followed", error=error.message)
                await asyncio.sleep(_PAUSE)

    def _heard(self, key: Key, body: Mapping[str, object] | None) -> None:
        if key == _CUT:
            self.cut = int(str((body or {}).get("cut", 0)))
        elif body is None:
            self._records.pop(key, None)
        else:
            self._records[key] = msgspec.convert(body, Revocation)

    async def _sweep(self) -> None:
        """Forget certificates that have ended by themselves."""
        now = self._clock()
        old = [key for key, one in self._records.items() if 0 < one.until < now]
        if old:
            await self._store.write([Delete(key) for key in old])


def _key(identity: str, serial: str = "") -> Key:
    return Key(RESOURCE, "", hashlib.sha256(f"{identity}\n{serial}".encode()).hexdigest()[:32])
