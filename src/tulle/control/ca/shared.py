"""One authority for several control planes: its roots are a record of the store that they share, which `SealedStore` seals.

Whoever comes first makes it, by compare-and-swap; all others, and the same one after a restart, use what is there. A change (a
step of the rotation) is written by one and taken up by all, while they run.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import msgspec
import structlog

from tulle.control.ca.authority import Authority
from tulle.control.ca.certificates import DEFAULT_KEY_TYPE
from tulle.control.ca.files import StoredRoots
from tulle.control.ca.rotation import Step
from tulle.kit.errors import Corrupt, Refused, TulleError
from tulle.ports import Compacted, Conflict, Key, Put, Store

log = structlog.get_logger("tulle.ca")

RESOURCE = "_authority"
KEY = Key(RESOURCE, "", "roots")
_PAUSE = 1.0  # seconds before a store that failed is asked again


class SharedAuthority:
    """Keeps `authority` as the store has it. Make it with `open`."""

    def __init__(self, store: Store, authority: Authority, revision: int) -> None:
        self.store, self.authority, self._revision = store, authority, revision

    @classmethod
    async def open(
        cls,
        store: Store,
        trust_domain: str = "cluster.local",
        clock: Callable[[], float] = time.time,
        key_type: str = DEFAULT_KEY_TYPE,
    ) -> SharedAuthority:
        """What the store has, or a new one. Raises `Corrupt` where what is there cannot be used; it is never overwritten."""
        while True:
            found = await store.get(KEY)
            if found is not None:
                there = Authority(trust_domain, _read(found.body), clock, corrupt=_corrupt, key_type=key_type)
                return cls(store, there, found.revision)
            made = Authority(trust_domain, None, clock, corrupt=_corrupt, key_type=key_type)
            try:
                revision = await store.write([Put(KEY, msgspec.to_builtins(made.stored()), expect=0)])
            except Conflict:  # another control plane was quicker
                continue
            log.info("made a certificate authority", pin=made.pin)
            return cls(store, made, revision)

    async def take(self, step: Step) -> None:
        """Do a step of the rotation, in the store first. Raises `Refused` where another control plane has done one meanwhile."""
        await self.keep(self.authority.after(step))

    async def keep(self, stored: StoredRoots) -> None:
        """Keep these and sign with them, in the store first. Raises `Refused` where another control plane was quicker."""
        try:
            self._revision = await self.store.write([Put(KEY, msgspec.to_builtins(stored), expect=self._revision)])
        except Conflict as conflict:
            raise Refused("the authority was changed by another control plane meanwhile") from conflict
        self.authority.use(stored)

    async def run(self, changed: Callable[[], None]) -> None:
        """Take up what others write, until cancelled; `changed` is called after each."""
        while True:
            try:
                found, since = await self.store.list(RESOURCE)
                for one in found:
                    self._use(one.body, one.revision, changed)
                async for event in self.store.watch(since, RESOURCE):
                    if event.body is not None:
                        self._use(event.body, event.revision, changed)
            except Compacted:
                continue
            except TulleError as error:
                log.warning("the certificate authority cannot be followed", error=error.message)
                await asyncio.sleep(_PAUSE)

    def _use(self, body: dict[str, object], revision: int, changed: Callable[[], None]) -> None:
        if revision <= self._revision:
            return
        before = self.authority.bundle, self.authority.signs
        self.authority.use(_read(body))
        self._revision = revision
        if before != (self.authority.bundle, self.authority.signs):
            log.info("the certificate authority has changed", pin=self.authority.pin)
            changed()


def _read(body: dict[str, object]) -> StoredRoots:
    try:
        return msgspec.convert(body, StoredRoots)
    except msgspec.ValidationError:
        raise _corrupt("it is not what was written") from None  # without the cause: its words may come from the key


def _corrupt(why: str) -> Corrupt:
    return Corrupt(
        f"the certificate authority in the store cannot use its root: {why}",
        hint="--trust-domain and encryption key must be those of the other control planes; else restore the store from a backup",
    )
