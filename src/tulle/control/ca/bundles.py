"""The trust bundles that the mesh's proxies and applications go by: its own, and those of the trust domains it is federated with.

Nodes ask with the tag of what they have, and are answered when there is something else. The own bundle's sequence is counted in
the store, for other trust domains tell by it which of two is newer.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import Callable, Mapping

import msgspec
import structlog

from tulle.control.ca.jwt_keys import JwtKeys
from tulle.core.trust_bundle import TrustBundle, document, split
from tulle.kit.errors import TulleError
from tulle.ports import Conflict, Key, Put, Signer, Store

log = structlog.get_logger("tulle.ca")

KEY = Key("_trustbundle", "", "own")
_LOOK = 1.0  # seconds between two looks at the roots, which tell nobody that they have changed


class Known(msgspec.Struct, frozen=True):
    """All bundles, as nodes get them: SPIFFE bundle documents by trust domain, and the own trust domain's other names."""

    trust_domain: str
    aliases: tuple[str, ...]
    bundles: dict[str, msgspec.Raw]
    tag: str = ""


class Bundles:
    """`run` it; `foreign` is put there by whoever fetches them, `aliases` by whoever knows the mesh's configuration."""

    def __init__(self, store: Store, authority: Signer, keys: JwtKeys, refresh: Callable[[], float]) -> None:
        """`refresh`: after how many seconds others should look at the own bundle again."""
        self._store, self._authority, self._keys, self._refresh = store, authority, keys, refresh
        self._news, self._changed = asyncio.Event(), asyncio.Condition()
        self.foreign: Mapping[str, TrustBundle] = {}
        self.aliases: tuple[str, ...] = ()
        self.own = self._made(0)
        self.known = self._all()

    def look(self) -> None:
        """Something may have changed."""
        self._news.set()

    def use(self, foreign: Mapping[str, TrustBundle], aliases: tuple[str, ...]) -> None:
        """Trust these trust domains beside the own one, which also goes by these names."""
        if (foreign, aliases) != (self.foreign, self.aliases):
            self.foreign, self.aliases = foreign, aliases
            self._news.set()

    async def run(self) -> None:
        """Follow roots, keys and foreign bundles, until cancelled."""
        while True:
            self._news.clear()
            try:
                await self.settle()
            except TulleError as error:
                log.warning("the trust bundle's sequence cannot be kept; trying again", error=error.message)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LOOK):
                    await self._news.wait()

    async def settle(self) -> None:
        """Bring `own` and `known` up to what is now."""
        made = self._made(self.own.sequence)
        if self.own.sequence == 0 or made != self.own:
            self.own = self._made(await self._sequence(made))
        known = self._all()
        if known != self.known:
            self.known = known
            async with self._changed:
                self._changed.notify_all()

    async def after(self, tag: str, timeout: float) -> Known:
        """What is known, as soon as it is not what `tag` says, and after `timeout` seconds in any case."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout), self._changed:
                await self._changed.wait_for(lambda: self.known.tag != tag)
        return self.known

    def _made(self, sequence: int) -> TrustBundle:
        authority = self._authority
        return TrustBundle(authority.trust_domain, split(authority.bundle), self._keys.public, sequence, self._refresh())

    async def _sequence(self, made: TrustBundle) -> int:
        """The number of what is trusted now: counted on where the store has the number of something else."""
        digest = hashlib.sha256(document(msgspec.structs.replace(made, sequence=0))).hexdigest()
        while True:
            found = await self._store.get(KEY)
            body = found.body if found is not None else {}
            number = int(body.get("sequence", 0))
            if body.get("digest") == digest:
                return number
            try:
                revision = found.revision if found is not None else 0
                await self._store.write([Put(KEY, {"digest": digest, "sequence": number + 1}, expect=revision)])
            except Conflict:
                continue
            return number + 1

    def _all(self) -> Known:
        bundles = {one.trust_domain: msgspec.Raw(document(one)) for one in (*self.foreign.values(), self.own)}
        known = Known(self._authority.trust_domain, self.aliases, bundles)
        return msgspec.structs.replace(known, tag=hashlib.sha256(msgspec.json.encode(known)).hexdigest()[:32])
