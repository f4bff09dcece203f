"""Every protocol between the edges on one page. `app/` picks the implementations; tests use fakes that pass the same suites."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any, Protocol

import msgspec

from tulle.kit.errors import TulleError


class Key(msgspec.Struct, frozen=True, order=True):
    """Where an object lies in the store.

    `resource` is `plural.group` as kubectl prints it (`virtualservices.networking.istio.io`, `services`); internal records
    use a `resource` that starts with `_` (`_jointokens`). `namespace` is empty for cluster-scoped kinds.
    """

    resource: str
    namespace: str
    name: str


class Stored(msgspec.Struct, frozen=True):
    """An object as stored: the JSON `body` and the `revision` of the store at which it was last written."""

    key: Key
    body: dict[str, Any]
    revision: int


class Put(msgspec.Struct, frozen=True):
    """Write `body`. `expect`: the revision that the key must have now; 0: must not exist; None: whatever is there."""

    key: Key
    body: dict[str, Any]
    expect: int | None = None


class Delete(msgspec.Struct, frozen=True):
    """Remove the key. `expect` as in `Put`; deleting what is not there raises `Conflict` unless `expect` is None."""

    key: Key
    expect: int | None = None


class Event(msgspec.Struct, frozen=True):
    """A change, in the order of `revision`. `body` is None for a delete; `previous` is the body before, None for a create."""

    key: Key
    revision: int
    body: dict[str, Any] | None
    previous: dict[str, Any] | None = None


class Conflict(TulleError):
    """A write's expectation did not hold: `key`, what was `expected` and the `found` revision (0: absent)."""

    code = "conflict"

    def __init__(self, key: Key, expected: int, found: int) -> None:
        super().__init__(f"{key}: expected revision {expected}, found {found}")
        self.key, self.expected, self.found = key, expected, found


class Compacted(TulleError):
    """A watch asked for a revision that is no longer kept; list again. `oldest` is the first that can be watched from."""

    code = "compacted"

    def __init__(self, asked: int, oldest: int) -> None:
        super().__init__(f"revision {asked} is compacted; the oldest kept is {oldest}")
        self.asked, self.oldest = asked, oldest


class Store(Protocol):
    """Objects under keys, one growing revision over all of them, optimistic concurrency, watch from a revision.

    An acknowledged write is on disk (where the implementation has a disk). Every method is safe to call concurrently.
    """

    async def get(self, key: Key) -> Stored | None:
        """The object, or None."""
        ...

    async def list(self, resource: str | None = None, namespace: str | None = None) -> tuple[Sequence[Stored], int]:
        """The objects of a resource (None: of all), sorted by key, and the store's revision at which this list holds."""
        ...

    async def write(self, operations: Sequence[Put | Delete]) -> int:
        """All of them at one new revision, which is returned, or none: raises `Conflict`."""
        ...

    def watch(self, since: int, resource: str | None = None) -> AsyncIterator[Event]:
        """Every event with a revision above `since`, in order, without end; raises `Compacted`. Closing it frees it."""
        ...

    async def close(self) -> None:
        """Flush and release."""
        ...


class Clock(Protocol):
    """Time, so that tests can turn it."""

    def now(self) -> float:
        """Seconds since the epoch."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Return after that long."""
        ...


class Signer(Protocol):
    """A certificate authority as the control plane and its API server see it."""

    @property
    def trust_domain(self) -> str:
        """The SPIFFE trust domain, without the scheme."""
        ...

    @property
    def bundle(self) -> bytes:
        """The PEM certificates that peers are to trust: one root, or two while rotating."""
        ...

    def sign(self, csr_pem: bytes, identity: str, lifetime: float) -> bytes:
        """A PEM chain (leaf first) for the CSR's key, with `identity` as its one URI SAN; raises `Refused`."""
        ...
