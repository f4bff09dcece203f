"""An intermediate that the user brings, in files named as Istio names them, and hot-swapped when they change:

| file | is |
|---|---|
| `ca-cert.pem`, `ca-key.pem` | what signs, and its key (not for others to read) |
| `cert-chain.pem` | the certificates between it and the root, where there are any |
| `root-cert.pem` | what everybody is to trust |

Where everybody trusts its root already it signs at once; else the roots are rotated, step by step, as soon as nobody is cut off.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Protocol

import msgspec
import structlog
from cryptography import x509

from tulle.control.ca import certificates
from tulle.control.ca.rotating import Rotation
from tulle.control.ca.rotation import Slot, Step
from tulle.kit.errors import Refused, TulleError

log = structlog.get_logger("tulle.ca")

_LOOK = 2.0  # seconds between two looks at the files


class Brought(msgspec.Struct, frozen=True):
    """What the files have, PEM."""

    chain: bytes
    roots: bytes
    key: bytes

    def __repr__(self) -> str:
        """Without the key."""
        return "Brought(...)"

    @property
    def certificate(self) -> x509.Certificate:
        """What signs."""
        return certificates.read_chain(self.chain, "ca-cert.pem")[0]


class Empty(Protocol):
    """Whether nobody trusts anything yet."""

    async def __call__(self) -> bool:
        """True where no node has joined."""
        ...


def read(folder: Path) -> Brought:
    """The files of a folder. Raises `Refused` where one cannot be read, or others may read the key."""

    def content(name: str, *, needed: bool = True) -> bytes:
        try:
            return (folder / name).read_bytes()
        except FileNotFoundError:
            if needed:
                raise Refused(f"{folder / name}: there is no such file, needed one (PEM)") from None
            return b""
        except OSError as error:
            raise Refused(f"{folder / name} cannot be read: {error.strerror}") from error

    key = content("ca-key.pem")
    mode = (folder / "ca-key.pem").stat().st_mode & 0o777
    if mode & 0o007:
        raise Refused(f"{folder / 'ca-key.pem'}: found mode {mode:04o}, needed 0600 or 0640: others could read the key")
    certificate, chain = content("ca-cert.pem"), content("cert-chain.pem", needed=False)
    # Istio's chain begins with the certificate itself.
    first = certificates.read_chain(certificate, "ca-cert.pem")[0]
    above = [one for one in certificates.read_chain(chain, "cert-chain.pem") if one != first] if chain.strip() else []
    return Brought(b"".join(certificates.pem(one) for one in (first, *above)), content("root-cert.pem"), key)


class Follower:
    """Brings what is in a folder into a `rotation`, and again whenever it is something else."""

    def __init__(self, folder: Path, rotation: Rotation, empty: Empty) -> None:
        self._folder, self._rotation, self._empty = folder, rotation, empty
        self._said = ""

    async def begin(self) -> None:
        """At the start: sign with it where that cuts nobody off. Raises `Refused` where the files cannot be used."""
        found = await asyncio.to_thread(read, self._folder)
        if await self._at_once(found) and found.certificate != self._rotation.authority.active.certificate:
            await self._rotation.take(found.chain, found.roots, found.key, at_once=True)

    async def look(self) -> None:
        """One step towards what the files say. Raises `Refused` where there is none to be done now."""
        found = await asyncio.to_thread(read, self._folder)
        authority, wanted = self._rotation.authority, found.certificate
        slots = {one.certificate: one.slot for one in authority.issuers}
        if slots.get(wanted) is Slot.ACTIVE:
            if Slot.RETIRING in slots.values():
                await self._rotation.step(Step.RETIRE)
            return
        if slots.get(wanted) is Slot.NEXT:
            await self._rotation.step(Step.ACTIVATE)
            return
        await self._rotation.take(found.chain, found.roots, found.key, at_once=await self._at_once(found))

    async def _at_once(self, found: Brought) -> bool:
        """Whether everybody trusts its roots already, or there is nobody."""
        trusted = set(x509.load_pem_x509_certificates(self._rotation.authority.bundle))
        return trusted.issuperset(certificates.read_chain(found.roots, "root-cert.pem")) or await self._empty()

    async def run(self) -> None:
        """Follow the files, until cancelled."""
        while True:
            try:
                await self.look()
                self._said = ""
            except TulleError as error:
                if error.message != self._said:
                    log.warning("what is brought to sign is not used yet", folder=str(self._folder), why=error.message)
                    self._said = error.message
            await asyncio.sleep(_LOOK)
