"""The store of several control planes: an etcd cluster. Writes are etcd transactions, reads and watches come from memory.

    write ──one Txn: compare revisions, put objects, history and mark──▶ etcd ──watch──▶ Cache ──▶ get, list, watch

The store's revision is etcd's. Every transaction compares the revision of each key that it touches, so one whose answer was lost
can be sent again: it holds once at most.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncGenerator, Sequence
from typing import Any, NamedTuple

import grpc
from aetcd import rpc

from tulle.control.store import history
from tulle.control.store.etcd_cache import RANGE, Cache
from tulle.control.store.etcd_cluster import DEADLINE, Answer, Cluster, Method, Place, TlsFiles
from tulle.control.store.etcd_layout import Layout, decode_past, encode_past
from tulle.control.store.state import Row, check, check_distinct, encode_body
from tulle.kit.errors import Refused, TulleError, Unavailable
from tulle.ports import Cause, Change, Compacted, Delete, Event, Key, LeaseLost, Put, Stored

LARGEST = 128  # operations in one Txn: etcd's --max-txn-ops unless told otherwise
COMPACT = 300.0  # seconds; kube-apiserver's
_PAGE = 500  # changes of the past in one answer
_SWEEP = 100  # changes of the past that one transaction forgets

_TXN = Method("KV/Txn", rpc.TxnResponse)
_GRANT = Method("Lease/LeaseGrant", rpc.LeaseGrantResponse)
_LOOK = Method("Lease/LeaseTimeToLive", rpc.LeaseTimeToLiveResponse)
_REVOKE = Method("Lease/LeaseRevoke", rpc.LeaseRevokeResponse)
_RENEW = Method("Lease/LeaseKeepAlive", rpc.LeaseKeepAliveResponse, streams=True)


class _Effect(NamedTuple):
    """An operation that will change something: `body` as it will lie there (None: nothing), `row` what lies there now."""

    operation: Put | Delete
    body: bytes | None
    row: Row | None


class EtcdStore:
    """`ports.Store` under a prefix of an etcd cluster.

    `log`: how many changes are kept in memory for watches. `kept`: how many changes the history has at most (about). `compact`:
    seconds after which etcd forgets old revisions, of everything in it: tulle needs an etcd of its own, as Kubernetes does.
    Nothing here waits longer than a few seconds for etcd: then it is `Unavailable`, until etcd is back.
    """

    def __init__(
        self,
        place: Place,
        files: TlsFiles | None = None,
        *,
        log: int = 5000,
        kept: int = history.COUNT,
        compact: float = COMPACT,
    ) -> None:
        self._kept, self._since_trim = kept, 0
        self._trim: asyncio.Task[int] | None = None
        self._cluster = Cluster(place, files or TlsFiles())
        self._layout = Layout(place.prefix)
        self._cache = Cache(self._cluster, self._layout, log, compact)

    # Objects.

    async def get(self, key: Key) -> Stored | None:
        """The object as the cluster's majority has it, or None."""
        await self._cache.fresh()
        return self._cache.state.get(key)

    async def list(
        self, resource: str | None = None, namespace: str | None = None, *, at: int | None = None
    ) -> tuple[Sequence[Stored], int]:
        """The objects, sorted by key, and the revision at which this list holds. One of long ago is read from etcd."""
        await self._cache.fresh()
        try:
            return self._cache.state.list(resource, namespace, at)
        except Compacted:
            assert at is not None
            return await self._list_past(resource, namespace, at), at

    async def _list_past(self, resource: str | None, namespace: str | None, at: int) -> Sequence[Stored]:
        if at == 0:
            return []  # before the first write; to etcd, 0 means now
        start, end = self._layout.objects(resource, namespace if resource is not None else None)
        try:
            answer, _ = await self._cache.ask(RANGE, rpc.RangeRequest(key=start, range_end=end, revision=at))
        except Answer as error:
            if error.compacted:
                raise Compacted(at, self._cache.state.compacted) from error
            raise self._explained(error) from error
        found = [
            Stored(self._layout.place(kv.key), kv.value, kv.mod_revision) for kv in answer.kvs if kv.key != self._layout.mark
        ]
        if namespace is not None:
            found = [one for one in found if one.key.namespace == namespace]
        return sorted(found, key=lambda one: (one.key.resource, one.key.namespace, one.key.name))

    def watch(self, since: int, resource: str | None = None) -> AsyncGenerator[Event, None]:
        """Every event after revision `since`, in order, without end; raises `Compacted`. It outlives outages of etcd."""
        return self._cache.watch(since, resource)

    async def write(self, operations: Sequence[Put | Delete], cause: Cause | None = None) -> int:
        """All operations at one new revision, or none: raises `Conflict`. A majority has it on disk when this returns.

        Raises `Refused` where it is more than etcd takes at once, `Unavailable` where etcd did not say what became of it.
        """
        check_distinct(operations)
        encoded = [(one, encode_body(one.body) if isinstance(one, Put) else None) for one in operations]
        deadline = asyncio.get_running_loop().time() + DEADLINE
        # Where all is said of what is there, and none of it is wanted for the history, etcd's comparison is look enough.
        sure = cause is None and all(one.expect or (one.expect == 0 and isinstance(one, Put)) for one in operations)
        first = True
        while True:
            mark = 0 if sure and first else await self._cache.fresh(deadline)
            effects = self._effects(encoded, look=not (sure and first))
            if not effects:
                return self._cache.state.revision
            past = self._past(effects, cause)
            held, repeated, revision = await self._transact(effects, past, mark, deadline)
            if held:
                self._trim_at_times(len(past))
                return revision
            if repeated:
                await self._cache.fresh(deadline)
                done = self._done(effects)
                if done is not None:
                    return done
            first = False
            if asyncio.get_running_loop().time() >= deadline:
                raise Unavailable("etcd took too many other writes meanwhile", hint="nothing was written; repeat the change")

    def _effects(self, encoded: Sequence[tuple[Put | Delete, bytes | None]], *, look: bool) -> Sequence[_Effect]:
        """What the operations would do to what is there; raises `Conflict`. Without a `look`, that is what they expect."""
        effects = []
        for operation, body in encoded:
            row = self._cache.state.row(operation.key)
            found = row.revision if row else 0
            if look:
                check(operation, found)
            elif operation.expect != found:
                row = Row(b"", operation.expect) if operation.expect else None
            if body is not None or row is not None:
                effects.append(_Effect(operation, body, row))
        return effects

    def _past(self, effects: Sequence[_Effect], cause: Cause | None) -> Sequence[Any]:
        """The puts that keep these changes in the history."""
        if cause is None:
            return []
        return [
            _put(
                self._layout.new_past(effect.operation.key, cause.time),
                encode_past(effect.row.body if effect.row else None, effect.body, cause),
            )
            for effect in effects
            if history.kept(effect.operation.key)
        ]

    async def _transact(
        self, effects: Sequence[_Effect], past: Sequence[Any], mark: int, deadline: float
    ) -> tuple[bool, bool, int]:
        """Whether it held, whether it was sent more than once, and at which revision."""
        operations: Sequence[Any] = [*(self._operation(effect) for effect in effects), *past]
        if len(operations) < LARGEST:
            compares = [_at(self._layout.key(one.operation.key), one.row.revision if one.row else 0) for one in effects]
        else:
            # Too many to compare one by one: that nobody has written anything since they were looked at says the same.
            mark = mark or await self._cache.fresh(deadline)
            self._effects([(one.operation, one.body) for one in effects], look=True)
            compares = [_at(self._layout.mark, mark)]
            operations = _nested(operations)
        request = rpc.TxnRequest(compare=compares, success=[*operations, _put(self._layout.mark, b"")])
        try:
            answer, repeated = await self._cache.ask(_TXN, request, deadline)
        except Unavailable as error:
            raise Unavailable(
                error.message, hint=f"whether the change was written is not known: look again; {error.hint}"
            ) from error
        except Answer as error:
            if "lease not found" in error.message:
                raise LeaseLost(next(one.operation.lease for one in effects if isinstance(one.operation, Put))) from error
            raise self._explained(error) from error
        return answer.succeeded, repeated, answer.header.revision

    def _operation(self, effect: _Effect) -> Any:
        key = self._layout.key(effect.operation.key)
        if isinstance(effect.operation, Put):
            assert effect.body is not None
            return _put(key, effect.body, effect.operation.lease)
        return rpc.RequestOp(request_delete_range=rpc.DeleteRangeRequest(key=key))

    def _done(self, effects: Sequence[_Effect]) -> int | None:
        """The revision at which an earlier try of this transaction did it; None where it did not."""
        rows = [self._cache.state.row(effect.operation.key) for effect in effects]
        if all((row.body if row else None) == effect.body for row, effect in zip(rows, effects, strict=True)):
            return max((row.revision for row in rows if row), default=self._cache.state.revision)
        return None

    # The past.

    async def history(
        self,
        *,
        resource: str | None = None,
        namespace: str | None = None,
        name: str | None = None,
        since: int = 0,
        limit: int = 0,
    ) -> Sequence[Change]:
        """The changes that had a cause, the newest first; raises `Compacted` where some after `since` were forgotten."""
        narrow = resource is not None and namespace is not None
        start, end = self._layout.past(resource, namespace if resource is not None else None, name if narrow else None)
        request = rpc.RangeRequest(key=start, range_end=end, min_mod_revision=since + 1 if since else 0, limit=_PAGE)
        whole = limit and (narrow or name is None) and (resource is not None or namespace is None)
        if whole:  # etcd can tell which are the newest
            request.limit, request.sort_order, request.sort_target = limit, rpc.RangeRequest.DESCEND, rpc.RangeRequest.MOD
        found: list[Change] = []
        if self._trim is not None:
            await asyncio.wait((self._trim,))
        try:
            if since:
                await self._check_forgotten(since)
            while True:
                answer, _ = await self._cache.ask(RANGE, request)
                for kv in answer.kvs:
                    key = self._layout.place_of_past(kv.key)
                    if history.among(key, resource, namespace, name):
                        found.append(decode_past(key, kv.mod_revision, kv.value))
                if whole or not answer.more:
                    break
                request.key, request.revision = answer.kvs[-1].key + b"\0", answer.header.revision
        except Answer as error:
            raise self._explained(error) from error
        found.sort(key=lambda change: (-change.revision, change.key))
        return found[:limit] if limit else found

    def _trim_at_times(self, added: int) -> None:
        """Every now and then, drop what is more than `kept`."""
        self._since_trim += added
        if self._since_trim > self._kept // 4 and (self._trim is None or self._trim.done()):
            self._since_trim = 0
            self._trim = asyncio.create_task(self.forget(0.0), name="etcd-trim")
            self._trim.add_done_callback(lambda task: task.cancelled() or task.exception())  # it is tried again

    async def _check_forgotten(self, since: int) -> None:
        answer, _ = await self._cache.ask(RANGE, rpc.RangeRequest(key=self._layout.forgotten))
        forgotten = int(answer.kvs[0].value) if answer.kvs else 0
        if since < forgotten:
            raise Compacted(since, forgotten)

    async def forget(self, before: float) -> int:
        """Drop the history of before that time, and what is more than can be kept; how many changes that were."""
        start, end = self._layout.past(None, None, None)
        request = rpc.RangeRequest(key=start, range_end=end, keys_only=True, limit=10 * _PAGE)
        there: list[tuple[int, bytes]] = []
        try:
            while True:
                answer, _ = await self._cache.ask(RANGE, request)
                there += [(kv.mod_revision, kv.key) for kv in answer.kvs]
                if not answer.more:
                    break
                request.key, request.revision = answer.kvs[-1].key + b"\0", answer.header.revision
            there.sort()
            surplus = max(0, len(there) - self._kept)
            old = there[:surplus] + [one for one in there[surplus:] if self._layout.time_of_past(one[1]) < before]
            for begin in range(0, len(old), _SWEEP):
                some = old[begin : begin + _SWEEP]
                deletes = [rpc.RequestOp(request_delete_range=rpc.DeleteRangeRequest(key=key)) for _, key in some]
                note = _put(self._layout.forgotten, str(max(revision for revision, _ in some)).encode())
                await self._cache.ask(_TXN, rpc.TxnRequest(success=[*deletes, note]))
        except Answer as error:
            raise self._explained(error) from error
        return len(old)

    # Leases are etcd's: its members count them, on clocks that only go forward, and delete what is bound to one that ended.

    async def grant(self, seconds: float) -> int:
        """A new lease; etcd counts in whole seconds, and not below twice its election timeout."""
        if seconds <= 0:
            raise ValueError(f"a lease of {seconds} seconds")
        try:
            answer, _ = await self._cache.ask(_GRANT, rpc.LeaseGrantRequest(TTL=math.ceil(seconds)))
        except Answer as error:
            raise self._explained(error) from error
        lease: int = answer.ID
        return lease

    async def renew(self, lease: int) -> None:
        """Keep the lease alive. Raises `LeaseLost`."""
        try:
            answer, _ = await self._cache.ask(_RENEW, rpc.LeaseKeepAliveRequest(ID=lease))
        except Answer as error:
            raise self._explained(error) from error
        if answer.TTL <= 0:
            raise LeaseLost(lease)

    async def revoke(self, lease: int) -> None:
        """End the lease now; its keys are deleted when this returns. Idempotent."""
        try:
            bound, _ = await self._cache.ask(_LOOK, rpc.LeaseTimeToLiveRequest(ID=lease, keys=True))
            await self._cache.ask(_REVOKE, rpc.LeaseRevokeRequest(ID=lease))
            if bound.keys:
                # That was no transaction: leave its mark now, for whoever reads next.
                await self._cache.ask(_TXN, rpc.TxnRequest(success=[_put(self._layout.mark, b"")]))
        except Answer as error:
            if error.status is not grpc.StatusCode.NOT_FOUND:
                raise self._explained(error) from error

    async def close(self) -> None:
        """End the watches and hang up; later calls raise `Unavailable`."""
        if self._trim is not None:
            self._trim.cancel()
        await self._cache.close()

    def _explained(self, error: Answer) -> TulleError:
        """What etcd refused, in words that say what to do."""
        words = error.message
        if "too many operations" in words:
            hint = "make it in smaller parts, or start every etcd member with a larger --max-txn-ops"
            return Refused(f"the change has more operations than etcd takes in one transaction: {words}", hint=hint)
        if "too large" in words or "message larger than max" in words:
            hint = "make it in smaller parts, or start every etcd member with a larger --max-request-bytes"
            return Refused(f"the change is larger than etcd takes in one transaction: {words}", hint=hint)
        if "space exceeded" in words:
            hint = "compact and defragment it, or raise --quota-backend-bytes; then: etcdctl alarm disarm"
            return Unavailable("etcd is full and takes no write", hint=hint)
        return Unavailable(f"etcd refused: {words}", hint="see the log of its members")


def _put(key: bytes, value: bytes, lease: int = 0) -> Any:
    return rpc.RequestOp(request_put=rpc.PutRequest(key=key, value=value, lease=lease))


def _at(key: bytes, revision: int) -> Any:
    """That the key was last written at this revision; 0: is not there."""
    return rpc.Compare(result=rpc.Compare.EQUAL, target=rpc.Compare.MOD, key=key, mod_revision=revision)


def _nested(operations: Sequence[Any]) -> Sequence[Any]:
    """More operations than a Txn may have, as transactions inside of one: each may have what the outer one leaves over.

    So a Txn of 64 with 64 each does 4,000 and more, still all or nothing. Raises `Refused` beyond.
    """
    for outer in range(1, LARGEST // 2):
        inner = LARGEST - outer - 1
        if outer * inner >= len(operations):
            parts = [operations[begin : begin + inner] for begin in range(0, len(operations), inner)]
            return [rpc.RequestOp(request_txn=rpc.TxnRequest(success=part)) for part in parts]
    raise Refused(
        f"the change has {len(operations)} operations; etcd takes {(LARGEST // 2 - 1) * LARGEST // 2} in one transaction",
        hint="make it in smaller parts, for example one namespace or kind after the other (etcd's --max-txn-ops is the limit)",
    )
