"""Any order of writes, leases, snapshots, watches and questions about the past, against a model that is a few dictionaries."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from tests.conformance.store.conftest import STORES
from tests.conformance.store.steps import take
from tulle.ports import Cause, Change, Compacted, Conflict, Delete, Event, Key, LeaseLost, Put, Store

LOG = 5  # changes that the store keeps at least
KEYS = [
    Key("services", "default", "a"),
    Key("services", "other", "a"),
    Key("secrets", "default", "a"),
    Key("_leader", "", "a"),
    Key("leases.coordination.k8s.io", "default", "a"),
]
KEPT = KEYS[:3]  # in the history
_OPERATION = st.tuples(
    st.sampled_from(KEYS), st.sampled_from(["put", "put", "delete"]), st.sampled_from("---==0!"), st.booleans()
)
_WRITE = st.lists(_OPERATION, min_size=1, max_size=3, unique_by=lambda operation: operation[0])
_RESOURCE = st.sampled_from([None, "services", "secrets", "_leader", "nothing"])
_NAMESPACE = st.sampled_from([None, "default", "other", ""])

State = Mapping[Key, tuple[dict[str, Any], int]]


class Machine(RuleBasedStateMachine):
    """A store beside its model: `states` by revision, `events` and `changes` as they should come."""

    def __init__(self, runner: asyncio.Runner, make: Callable[[], Store]) -> None:
        super().__init__()
        self.runner = runner
        self.store = self.runner.run(self._made(make))
        _, start = self.runner.run(self.store.list())
        self.start = self.revision = start
        self.states: dict[int, State] = {start: {}}
        self.events: list[Event] = []
        self.changes: list[Change] = []
        self.bound: dict[Key, int] = {}
        self.lease = 0
        self.count = 0
        self.seen: list[Event] = []
        self.more = asyncio.Event()
        self.following = self.runner.run(self._started())

    async def _started(self) -> asyncio.Task[None]:
        return asyncio.create_task(self._follow())

    async def _follow(self) -> None:
        """A watcher that stays, of one resource, while others are busy, too."""
        async for event in self.store.watch(self.start, "services"):
            self.seen.append(event)
            self.more.set()

    async def _caught_up(self, count: int) -> None:
        async with asyncio.timeout(10):
            while len(self.seen) < count:
                self.more.clear()
                await self.more.wait()

    @staticmethod
    async def _made(make: Callable[[], Store]) -> Store:
        return make()

    def teardown(self) -> None:
        wanted = [event for event in self.events if event.key.resource == "services"]
        self.runner.run(self._caught_up(len(wanted)))
        assert sorted(self.seen, key=_order) == sorted(wanted, key=_order)
        assert [event.revision for event in self.seen] == [event.revision for event in wanted]
        self.following.cancel()
        self.runner.run(self.store.close())

    @property
    def state(self) -> State:
        return self.states[self.revision]

    @rule(operations=_WRITE, caused=st.booleans())
    def write(self, operations: Sequence[tuple[Key, str, str, bool]], caused: bool) -> None:
        """`-` whatever is there, `=` as it is, `0` absent, `!` a revision that is not it."""
        made: list[Put | Delete] = []
        fits = True
        for key, verb, expectation, leased in operations:
            found = self.state.get(key, ({}, 0))[1]
            expect = {"-": None, "=": found, "0": 0, "!": found + 1}[expectation]
            fits &= expect is None or (expect == found and (verb == "put" or found != 0))
            self.count += 1
            lease = self.lease if leased else 0
            made.append(Put(key, {"n": self.count}, expect, lease) if verb == "put" else Delete(key, expect))
        cause = Cause("anna", "192.0.2.1", float(self.count), "update") if caused else None
        conflict: Conflict | None
        try:
            revision = self.runner.run(self.store.write(made, cause))
        except Conflict as error:
            conflict = error
        else:
            conflict = None
        if conflict is not None:
            assert not fits
            assert conflict.found == self.state.get(conflict.key, ({}, 0))[1]
            return
        assert fits
        happened = [one for one in made if isinstance(one, Put) or one.key in self.state]
        if happened:
            assert revision > self.revision
            self._took(happened, revision, cause)
            self._listed(None, None, 1)
            self._reconnected(None, 2)
        for one in happened:
            self.bound.pop(one.key, None)
            if isinstance(one, Put) and one.lease:
                self.bound[one.key] = one.lease

    def _took(self, operations: Sequence[Put | Delete], revision: int, cause: Cause | None) -> None:
        state = dict(self.state)
        changes = []
        for one in operations:
            before = state.get(one.key, (None, 0))[0]
            after = one.body if isinstance(one, Put) else None
            self.events.append(Event(one.key, revision, after, before))
            if cause is not None and one.key in KEPT:
                changes.append(Change(one.key, revision, before, after, cause))
            if isinstance(one, Put):
                state[one.key] = (one.body, revision)
            else:
                state.pop(one.key)
        self.changes[:0] = changes
        self.states[revision] = state
        self.revision = revision

    @precondition(lambda self: self.lease == 0)
    @rule()
    def grant(self) -> None:
        self.lease = self.runner.run(self.store.grant(1000))

    @precondition(lambda self: self.lease != 0)
    @rule()
    def renew(self) -> None:
        self.runner.run(self.store.renew(self.lease))

    @precondition(lambda self: self.lease != 0)
    @rule()
    def revoke(self) -> None:
        ended, self.lease = self.lease, 0
        self.runner.run(self.store.revoke(ended))
        with contextlib.suppress(LeaseLost):
            self.runner.run(self.store.renew(ended))
            raise AssertionError("a revoked lease was renewed")
        gone = {key for key, lease in self.bound.items() if lease == ended}
        if not gone:
            return
        events = self._watched(self.revision, None, len(gone))
        assert {event.key for event in events} == gone
        assert len({event.revision for event in events}) == 1
        self._took([Delete(event.key) for event in events], events[0].revision, None)
        for key in gone:
            del self.bound[key]

    @rule(resource=_RESOURCE, namespace=_NAMESPACE, back=st.none() | st.integers(0, 12))
    def lists(self, resource: str | None, namespace: str | None, back: int | None) -> None:
        self._listed(resource, namespace, back)

    def _listed(self, resource: str | None, namespace: str | None, back: int | None) -> None:
        """Now, or `back` revisions of ours ago."""
        revisions = sorted(self.states)
        at = None if back is None else revisions[max(0, len(revisions) - 1 - back)]
        try:
            found, revision = self.runner.run(self.store.list(resource, namespace, at=at))
        except Compacted:
            assert at is not None
            assert sum(event.revision > at for event in self.events) > LOG
            return
        wanted = self.state if at is None else self.states[at]
        assert [(one.key, one.body, one.revision) for one in found] == [
            (key, *wanted[key])
            for key in sorted(wanted)
            if resource in (None, key.resource) and namespace in (None, key.namespace)
        ]
        assert revision >= self.revision if at is None else revision == at

    @rule(resource=_RESOURCE, back=st.integers(0, 12))
    def watches(self, resource: str | None, back: int) -> None:
        self._reconnected(resource, back)

    def _reconnected(self, resource: str | None, back: int) -> None:
        """As one that connects anew `back` revisions of ours late: each event once, in order."""
        revisions = sorted(self.states)
        since = revisions[max(0, len(revisions) - 1 - back)]
        wanted = [event for event in self.events if event.revision > since and resource in (None, event.key.resource)]
        if not wanted:
            return
        try:
            found = self._watched(since, resource, len(wanted))
        except Compacted:
            assert sum(event.revision > since for event in self.events) > LOG
            return
        assert sorted(found, key=_order) == sorted(wanted, key=_order)
        assert [event.revision for event in found] == [event.revision for event in wanted]

    def _watched(self, since: int, resource: str | None, count: int) -> list[Event]:
        async def watched() -> list[Event]:
            async with contextlib.aclosing(self.store.watch(since, resource)) as events:
                return await take(events, count)

        return self.runner.run(watched())

    @rule(key=st.sampled_from(KEPT), whole=st.booleans(), limit=st.sampled_from([0, 0, 2]), back=st.none() | st.integers(1, 12))
    def remembers(self, key: Key, whole: bool, limit: int, back: int | None) -> None:
        revisions = sorted(self.states)
        since = 0 if back is None else revisions[max(0, len(revisions) - 1 - back)]
        where = {} if whole else {"resource": key.resource, "namespace": key.namespace, "name": key.name}
        found = list(self.runner.run(self.store.history(**where, since=since, limit=limit)))
        wanted = [change for change in self.changes if change.revision > since and (whole or change.key == key)]
        if limit:
            assert len(found) == min(limit, len(wanted))
            assert [change.revision for change in found] == [change.revision for change in wanted[:limit]]
        else:
            assert sorted(found, key=_order) == sorted(wanted, key=_order)
            assert [change.revision for change in found] == [change.revision for change in wanted]

    @invariant()
    def every_object_is_as_it_should_be(self) -> None:
        for key in KEYS:
            found = self.runner.run(self.store.get(key))
            assert (found and (found.body, found.revision)) == self.state.get(key)
            assert (found.lease if found else 0) == self.bound.get(key, 0)


def _order(item: Event | Change) -> tuple[int, Key]:
    """Within one transaction the order is the store's own."""
    return (item.revision, item.key)


def test_like_a_plain_model(kind: str, tmp_path: Path) -> None:
    """Whatever the other tests do not think of: a combination of features that loses, repeats or invents something."""
    numbers = itertools.count()

    def machine() -> Machine:
        return Machine(runner, lambda: STORES[kind](tmp_path / str(next(numbers)), {"log": LOG}))

    with asyncio.Runner() as runner:  # one loop for all examples: gRPC mixes up those of one after the other
        run_state_machine_as_test(
            machine,  # type: ignore[arg-type]  # a function that makes one does, too
            settings=settings(
                max_examples=40 if kind == "memory" else 15,
                stateful_step_count=40,
                deadline=None,
                phases=[Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink],
                suppress_health_check=list(HealthCheck),
            ),
        )
