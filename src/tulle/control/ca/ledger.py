"""What was signed, for whoever asks when it ends: the newest certificate of each holder, in the store, and never a key.

Signing does not wait for it: what was signed within a moment is written together. What a crash takes with it is written again at
the next renewal.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import time
from collections.abc import Callable, Sequence

import msgspec
import structlog
from cryptography import x509

from tulle.control.ca import certificates
from tulle.kit.errors import TulleError
from tulle.ports import Delete, Key, Put, Store

log = structlog.get_logger("tulle.ca")

RESOURCE = "_certificates"
_MOMENT = 0.2  # seconds within which writes are put together
_MOST = 100  # records of one write: etcd takes 128 at once
_PATIENCE = 1.0  # seconds before a store that failed is asked again
_KEPT = 24 * 3600.0  # seconds that a certificate that ended is remembered: somebody should have renewed it
_SWEEP = 600.0


class Issued(msgspec.Struct, frozen=True):
    """A certificate that was given out, to `holder`: `namespace/name` of a workload, `node/NAME`, or a SPIFFE ID.

    Times are seconds since the epoch. `before` is when its predecessor was issued, 0 where there was none; `signer` is what
    signed it (`Signer.signs`), `digest` the SHA-256 of its DER, in hex. `older` are predecessors
    that have not ended: by serial number their digest and end.
    """

    holder: str
    identity: str
    node: str
    serial: str
    issuer: str
    signer: str
    digest: str
    issued: float
    not_after: float
    before: float = 0.0
    older: dict[str, tuple[str, float]] = {}

    @property
    def due(self) -> float:
        """By when it should have been renewed: that is tried at half its life, and there is time for some failures."""
        return self.issued + 0.75 * (self.not_after - self.issued)


def issued(chain_pem: bytes, holder: str, identity: str, node: str, signer: str, now: float) -> Issued:
    """The record of a chain that was signed."""
    leaf = x509.load_pem_x509_certificates(chain_pem)[0]
    return Issued(
        holder=holder,
        identity=identity,
        node=node,
        serial=f"{leaf.serial_number:x}",
        issuer=leaf.issuer.rfc4514_string(),
        signer=signer,
        digest=certificates.fingerprint(leaf),
        issued=now,
        not_after=leaf.not_valid_after_utc.timestamp(),
    )


class Ledger:
    """The certificates of a mesh, over the store of its control planes."""

    def __init__(self, store: Store, clock: Callable[[], float] = time.time) -> None:
        self._store, self._clock = store, clock
        self._pending: dict[Key, Issued] = {}
        self._news = asyncio.Event()

    def note(self, one: Issued) -> None:
        """One was given out."""
        self._pending[_key(one)] = one
        self._news.set()

    async def all(self) -> Sequence[Issued]:
        """The newest certificate of every holder, sorted by holder; those of a moment ago too."""
        stored, _ = await self._store.list(RESOURCE)
        found = {one.key: msgspec.convert(one.body, Issued) for one in stored}
        found.update({key: _after(one, found.get(key)) for key, one in self._pending.items()})
        return sorted(found.values(), key=lambda one: (one.holder, one.node))

    async def run(self) -> None:
        """Write what was noted, until cancelled."""
        swept = self._clock()
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_SWEEP):
                    await self._news.wait()
            await asyncio.sleep(_MOMENT)
            self._news.clear()
            try:
                while self._pending:
                    await self._write()
                if self._clock() - swept > _SWEEP:
                    await self._sweep()
                    swept = self._clock()
            except TulleError as error:
                log.warning("what was signed cannot be noted", why=error.message)
                await asyncio.sleep(_PATIENCE)
                self._news.set()

    async def _write(self) -> None:
        now = dict(list(self._pending.items())[:_MOST])
        puts = []
        for key, one in now.items():
            before = await self._store.get(key)
            older = msgspec.convert(before.body, Issued) if before is not None else None
            puts.append(Put(key, msgspec.to_builtins(_after(one, older))))
        await self._store.write(puts)
        for key, one in now.items():
            if self._pending.get(key) is one:
                del self._pending[key]

    async def _sweep(self) -> None:
        """Forget those that ended long ago."""
        stored, _ = await self._store.list(RESOURCE)
        end = self._clock() - _KEPT
        old = [Delete(one.key) for one in stored if msgspec.convert(one.body, Issued).not_after < end]
        for start in range(0, len(old), _MOST):
            await self._store.write(old[start : start + _MOST])


def _after(one: Issued, last: Issued | None) -> Issued:
    """The record of a certificate in the place of the last one."""
    if last is None or last.serial == one.serial:
        return one
    before = {**last.older, last.serial: (last.digest, last.not_after)}
    older = {serial: (digest, end) for serial, (digest, end) in before.items() if end > one.issued}
    return msgspec.structs.replace(one, before=last.issued, older=older)


def _key(one: Issued) -> Key:
    return Key(RESOURCE, "", hashlib.sha256(f"{one.node}\n{one.holder}".encode()).hexdigest()[:32])
