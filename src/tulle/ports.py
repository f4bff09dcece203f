"""Every protocol between the edges on one page. `app/` picks the implementations; tests use fakes that pass the same suites."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from typing import Any, Protocol

import msgspec

from tulle.kit.errors import TulleError

_decode = msgspec.json.Decoder(dict[str, Any]).decode
_encode = msgspec.json.Encoder().encode


class Key(msgspec.Struct, frozen=True, order=True):
    """Where an object lies in the store.

    `resource` is `plural.group` as kubectl prints it (`virtualservices.networking.istio.io`, `services`); internal records
    use a `resource` that starts with `_` (`_jointokens`). `namespace` is empty for cluster-scoped kinds.
    """

    resource: str
    namespace: str
    name: str


class Cause(msgspec.Struct, frozen=True):
    """Who made a write, for the history.

    `author` is the user's name, `address` the source address ("" for the control plane itself), `time` seconds since the
    epoch, `verb` as Kubernetes has it (create, update, patch, apply, delete), or `rollback`.
    """

    author: str
    address: str
    time: float
    verb: str = ""


class Stored:
    """An object as stored: its `body`, and the `revision` of the store at which it was last written.

    `body` is decoded when it is first asked for, and is then the caller's own. `json` are the bytes as they are kept. `lease`
    is the lease that the key is bound to, 0 for none; a list of an earlier revision does not know it and has 0.
    """

    __slots__ = ("_body", "_json", "key", "lease", "revision")

    def __init__(self, key: Key, body: dict[str, Any] | bytes, revision: int, lease: int = 0) -> None:
        """`body`: decoded, or as JSON that is known to be an object."""
        self.key, self.revision, self.lease = key, revision, lease
        self._json: bytes | None = body if isinstance(body, bytes) else None
        self._body: dict[str, Any] | None = None if isinstance(body, bytes) else body

    @property
    def body(self) -> dict[str, Any]:
        """The object."""
        if self._body is None:
            assert self._json is not None
            self._body = _decode(self._json)
        return self._body

    @property
    def json(self) -> bytes:
        """The object as JSON."""
        return _encode(self._body) if self._json is None else self._json

    def __repr__(self) -> str:
        """Without the body: it may be a Secret."""
        return f"Stored({self.key}, revision={self.revision})"


class Put(msgspec.Struct, frozen=True):
    """Write `body`. `expect`: the revision that the key must have now; 0: must not exist; None: whatever is there.

    Bound to a `lease` (0: to none) the key goes, with a delete event, when the lease ends; each `Put` decides that anew.
    """

    key: Key
    body: dict[str, Any]
    expect: int | None = None
    lease: int = 0


class Delete(msgspec.Struct, frozen=True):
    """Remove the key. `expect` as in `Put`; deleting what is not there raises `Conflict` unless `expect` is None."""

    key: Key
    expect: int | None = None


class Event:
    """A change, in the order of `revision`. `body` is None for a delete; `previous` is the body before, None for a create.

    Both are decoded when they are first asked for, once for all watchers: whoever changes them changes them for the others, so
    nobody does. Take a copy.
    """

    __slots__ = ("_body", "_previous", "key", "revision")

    def __init__(
        self, key: Key, revision: int, body: dict[str, Any] | bytes | None, previous: dict[str, Any] | bytes | None = None
    ) -> None:
        """`body` and `previous`: decoded, or as JSON that is known to be an object."""
        self.key, self.revision = key, revision
        self._body, self._previous = body, previous

    @property
    def created(self) -> bool:
        """Whether there was no object before."""
        return self._previous is None

    @property
    def deleted(self) -> bool:
        """Whether there is none now."""
        return self._body is None

    @property
    def json(self) -> bytes | None:
        """The object as JSON; None where it was deleted."""
        return self._body if self._body is None or isinstance(self._body, bytes) else _encode(self._body)

    @property
    def body(self) -> dict[str, Any] | None:
        """The object as it was written; None where it was deleted."""
        if isinstance(self._body, bytes):
            self._body = _decode(self._body)
        return self._body

    @property
    def previous(self) -> dict[str, Any] | None:
        """The object before; None where there was none."""
        if isinstance(self._previous, bytes):
            self._previous = _decode(self._previous)
        return self._previous

    def __eq__(self, other: object) -> bool:
        """Equal where all of it is."""
        if not isinstance(other, Event):
            return NotImplemented
        mine = (self.key, self.revision, self.body, self.previous)
        return mine == (other.key, other.revision, other.body, other.previous)

    def __hash__(self) -> int:
        """By where and when."""
        return hash((self.key, self.revision))

    def __repr__(self) -> str:
        """Without the bodies: they may be a Secret's."""
        return f"Event({self.key}, revision={self.revision})"


class Change(msgspec.Struct, frozen=True):
    """One write of the past: `previous` is the body before (None: it was created), `body` after (None: it was deleted)."""

    key: Key
    revision: int
    previous: dict[str, Any] | None
    body: dict[str, Any] | None
    cause: Cause


class Conflict(TulleError):
    """A write's expectation did not hold: `key`, what was `expected` and the `found` revision (0: absent)."""

    code = "conflict"

    def __init__(self, key: Key, expected: int, found: int) -> None:
        super().__init__(f"{key}: expected revision {expected}, found {found}")
        self.key, self.expected, self.found = key, expected, found


class Compacted(TulleError):
    """A revision was `asked` for that is no longer kept; `oldest` is the first that is. Watchers list again."""

    code = "compacted"

    def __init__(self, asked: int, oldest: int) -> None:
        super().__init__(f"revision {asked} is compacted; the oldest kept is {oldest}")
        self.asked, self.oldest = asked, oldest


class Future(TulleError):
    """A list was `asked` for at a revision that is not there yet; the store is at `current`."""

    code = "future"

    def __init__(self, asked: int, current: int) -> None:
        super().__init__(f"revision {asked} is not there yet; the newest is {current}")
        self.asked, self.current = asked, current


class LeaseLost(TulleError):
    """The `lease` ended, or never was; what was bound to it is gone, or about to go."""

    code = "lease-lost"

    def __init__(self, lease: int) -> None:
        super().__init__(f"lease {lease:x} has ended")
        self.lease = lease


class Store(Protocol):
    """Objects under keys, one growing revision over all of them, optimistic concurrency, watch from a revision.

    An acknowledged write is on disk (where the implementation has a disk). Every method is safe to call concurrently.
    """

    async def get(self, key: Key) -> Stored | None:
        """The object, or None."""
        ...

    async def list(
        self, resource: str | None = None, namespace: str | None = None, *, at: int | None = None
    ) -> tuple[Sequence[Stored], int]:
        """The objects of a resource (None: of all) in a namespace (None: in all), sorted by key, and the revision of that.

        With `at`, as they were at that revision: the further pages of a list that began there. Raises `Compacted` where that
        is no longer kept, `Future` where it has not been reached.
        """
        ...

    async def write(self, operations: Sequence[Put | Delete], cause: Cause | None = None) -> int:
        """All of them at one new revision, which is returned, or none: raises `Conflict`, or `LeaseLost`.

        With a `cause` the changes are kept in the history (see `history`).
        """
        ...

    def watch(self, since: int, resource: str | None = None) -> AsyncGenerator[Event, None]:
        """Every event with a revision above `since`, in order, without end; raises `Compacted`. Closing it frees it.

        A revision that is not there yet is waited for.
        """
        ...

    async def history(
        self,
        *,
        resource: str | None = None,
        namespace: str | None = None,
        name: str | None = None,
        since: int = 0,
        limit: int = 0,
    ) -> Sequence[Change]:
        """The changes that had a cause, the newest first; at most `limit` (0: all that are kept).

        With `since`, those with a revision above it, all of them: raises `Compacted` where some were forgotten. Never in it:
        internal records (their resource starts with `_`), Leases and Events.
        """
        ...

    async def forget(self, before: float) -> int:
        """Drop the history of before that time (seconds since the epoch); how many changes that were."""
        ...

    async def grant(self, seconds: float) -> int:
        """A new lease that lives that long, and that long again from each `renew`. By a clock that only goes forward."""
        ...

    async def renew(self, lease: int) -> None:
        """Keep the lease alive. Raises `LeaseLost`."""
        ...

    async def revoke(self, lease: int) -> None:
        """End the lease now: the keys that are bound to it are deleted when this returns. Idempotent."""
        ...

    async def close(self) -> None:
        """Flush and release."""
        ...


class Clock(Protocol):
    """Time, so that tests can turn it."""

    def now(self) -> float:
        """Seconds: since the epoch, or on a clock that only goes forward, as the user of the clock says."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Return after that long."""
        ...


class KeyPair(msgspec.Struct, frozen=True):
    """A private key and its certificate chain, leaf first, in PEM. Never print it."""

    key: bytes
    chain: bytes

    def __repr__(self) -> str:
        """Without the key."""
        return "KeyPair(...)"


class Signer(Protocol):
    """A certificate authority as the control plane sees it: its own (`control.ca.authority`), or one elsewhere."""

    @property
    def trust_domain(self) -> str:
        """The SPIFFE trust domain, without the scheme."""
        ...

    @property
    def bundle(self) -> bytes:
        """The PEM certificates that peers are to trust: those of what signs first, and others while rotating."""
        ...

    @property
    def pin(self) -> str:
        """SHA-256 (hex) of the root certificate's DER that what signs chains to: what a join token carries."""
        ...

    @property
    def signs(self) -> str:
        """What signs now, as a text that becomes another with it."""
        ...

    @property
    def not_after(self) -> float:
        """When what signs ends (seconds since the epoch)."""
        ...

    async def sign(self, csr_pem: bytes, identity: str, lifetime: float) -> bytes:
        """A PEM chain (leaf first) for the CSR's key, with `identity` as its one URI SAN; raises `Refused`, `Unavailable`."""
        ...

    async def issue_server(self, names: Sequence[str], lifetime: float, identity: str = "") -> KeyPair:
        """A new key and a server certificate for DNS names and IP addresses; raises as `sign`."""
        ...

    async def issue_client(self, name: str, groups: Sequence[str], lifetime: float) -> KeyPair:
        """A new key and a client certificate for a person: CN `name`, O `groups`; raises as `sign`."""
        ...
