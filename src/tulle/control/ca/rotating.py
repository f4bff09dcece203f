"""The rotation of what signs, step by step, as people ask for it; and what stands in the way of the next step.

    prepare (or import) ─▶ everybody has the bundle ─▶ activate ─▶ everybody has a certificate of the new one ─▶ retire

Each step is refused while somebody would be cut off by it: who has not acknowledged the bundle, or still shows a certificate of
what is to be retired. `force` goes on without them.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import structlog

from tulle.control.ca import certificates
from tulle.control.ca.authority import Authority
from tulle.control.ca.files import StoredRoots
from tulle.control.ca.ledger import Issued
from tulle.control.ca.rotation import Slot, Step
from tulle.kit.errors import Refused

log = structlog.get_logger("tulle.ca")

IMPORT = "import"  # the step in the place of PREPARE where no root can be made here
_SHOWN = 5  # of those who wait, in a sentence


class Rotation:
    """`keep` writes what signs, where all control planes find it. `behind` tells who has not the bundle of now, each with a word
    of why; `issued` what was signed, as far as it is in use. `changed` is called after each step.
    """

    def __init__(
        self,
        authority: Authority,
        keep: Callable[[StoredRoots], Awaitable[None]],
        behind: Callable[[], Awaitable[Sequence[str]]],
        issued: Callable[[], Awaitable[Sequence[Issued]]],
        changed: Callable[[], Awaitable[None]],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.authority = authority
        self._keep, self._behind, self._issued, self._changed, self._clock = keep, behind, issued, changed, clock

    async def status(self) -> dict[str, Any]:
        """What signs, what will and what did; the step that comes next, and who it waits for."""
        step = self._next()
        return {
            "trustDomain": self.authority.trust_domain,
            "issuers": [
                {
                    "slot": one.slot.value,
                    "since": one.since,
                    "subject": one.certificate.subject.rfc4514_string(),
                    "kind": "root" if one.is_root else "intermediate",
                    "root": one.anchor.subject.rfc4514_string(),
                    "fingerprint": certificates.fingerprint(one.certificate),
                    "notAfter": one.not_after,
                }
                for one in sorted(self.authority.issuers, key=lambda it: it.slot.value)
            ],
            "next": self._called(step),
            "waits": list(await self._waits(step)),
        }

    async def step(self, step: Step, *, force: bool = False) -> None:
        """Do a step. Raises `Refused` where another one is next, or somebody is not ready for it."""
        if step is not self._next():
            raise Refused(f"{step.value}: found {self._found()}, so the next step is {self._called(self._next())}")
        if self._called(step) == IMPORT:
            raise Refused(
                "prepare: what signs is an intermediate that was brought; its successor is brought too",
                hint="tulle ca csr, have it signed, and tulle ca import",
            )
        await self._ready(step, force)
        await self._take(self.authority.after(step), step.value, force)

    async def request(self) -> bytes:
        """A signing request (PEM) for an intermediate whose key is made and stays here."""
        stored, csr = self.authority.after_request()
        await self._keep(stored)
        return csr

    async def take(self, chain: bytes, roots: bytes, key: bytes = b"", *, at_once: bool = False) -> None:
        """Bring an intermediate: it is prepared; `at_once`: it signs from now on, in the place of what does. Raises `Refused`."""
        if not at_once and any(one.slot is Slot.RETIRING for one in self.authority.issuers):
            raise Refused("import: the last rotation has not ended", hint="tulle ca rotate retire")
        await self._take(self.authority.after_import(chain, roots, key, at_once=at_once), "import", False)

    async def _take(self, stored: StoredRoots, what: str, forced: bool) -> None:
        await self._keep(stored)
        log.info("the certificate authority has changed", step=what, forced=forced, pin=self.authority.pin)
        await self._changed()

    async def _ready(self, step: Step, force: bool) -> None:
        waits = () if force else await self._waits(step)
        if waits:
            more = f" and {len(waits) - _SHOWN} more" if len(waits) > _SHOWN else ""
            raise Refused(
                f"{step.value}: {len(waits)} would be cut off: {'; '.join(waits[:_SHOWN])}{more}",
                hint="`tulle ca status` shows who is left; `tulle identity revoke node:NAME` leaves a dead node out, --force all",
            )

    async def _waits(self, step: Step) -> Sequence[str]:
        """Who is not ready for a step."""
        if step is Step.PREPARE:
            return ()
        waits = list(await self._behind())
        if step is Step.RETIRE:
            now, signs = self._clock(), self.authority.signs
            waits += [
                f"{one.holder} has a certificate of what is to be retired, until {certificates.moment(one.not_after):%F %T}Z"
                for one in await self._issued()
                if one.signer != signs and one.not_after > now
            ]
        return waits

    def _next(self) -> Step:
        slots = {one.slot for one in self.authority.issuers}
        return Step.RETIRE if Slot.RETIRING in slots else Step.ACTIVATE if Slot.NEXT in slots else Step.PREPARE

    def _called(self, step: Step) -> str:
        """The word for a step: the successor of an intermediate that was brought is brought, too."""
        return IMPORT if step is Step.PREPARE and not self.authority.active.is_root else step.value

    def _found(self) -> str:
        others = [one.slot.value for one in self.authority.issuers if one.slot is not Slot.ACTIVE]
        return f"one that is {others[0]}" if others else "one that signs and no other"
