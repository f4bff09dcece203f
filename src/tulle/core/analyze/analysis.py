"""The findings of a flow, kept up to date; and those of one set of objects."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Mapping

from tulle.api.object import Object
from tulle.api.registry import kind_for
from tulle.core.analyze.findings import object_findings
from tulle.core.analyze.inputs import Scope, analysed, briefs, feed, scope
from tulle.core.analyze.secrets import turns
from tulle.core.compile.hostname import Key
from tulle.core.compile.objects import INPUTS, Settings, row_of, settings
from tulle.core.flow import Flow
from tulle.core.flow.tables import Batch
from tulle.kit.problem import Problem

Row = tuple[str, Key]  # resource and object
_HOUR = 3600.0


class Analysis:
    """What is wrong with the objects of a flow. Computed when asked for, and only what changed since.

    Whoever commits objects to the flow adds what `feed` adds to the batch, and says by `follow` which objects there are.
    """

    def __init__(self, flow: Flow) -> None:
        self._flow = flow
        self._watch = flow.watch()
        self._clock = flow.watch()
        self._clock.add(turns, None)
        self._moments: tuple[float, ...] = ()
        self._here: Scope | None = None
        self._there: set[Row] = set()
        self._found: dict[Row, tuple[Problem, ...]] = {}

    def at(self, here: Scope) -> None:
        """The time, and whether this is a live mesh. Time goes in steps, so that asking often costs nothing."""
        self._here = here
        moments = self._turns()
        passed = bisect_right(moments, here.now)
        step = max(here.now // _HOUR * _HOUR, moments[passed - 1] if passed else 0.0)
        rounded = Scope(step, here.live)
        if self._flow.get(scope, "") != rounded:
            self._flow.commit({scope: {"": rounded}})

    def next_step(self, now: float) -> float:
        """When time goes on, for who wants to know what is wrong then."""
        moments = self._turns()
        passed = bisect_right(moments, now)
        hour = (now // _HOUR + 1) * _HOUR
        return min(hour, moments[passed]) if passed < len(moments) else hour

    def _turns(self) -> tuple[float, ...]:
        for _table, _key, moments in self._clock.take():
            self._moments = moments or ()
        return self._moments

    def follow(self, resource: str, key: Key, there: bool) -> None:
        """An object is there now, or no longer."""
        row = (resource, key)
        if there and analysed(resource):
            self._there.add(row)
            self._watch.add(object_findings, row)
        elif row in self._there:
            self._there.remove(row)
            self._watch.remove(object_findings, row)
            self._found.pop(row, None)

    def settle(self, most: int) -> bool:
        """Judge so many objects more; whether some are left. For those who have other things to do meanwhile."""
        self._take(most)
        return self._watch.waiting > 0

    def found(self) -> Mapping[Row, tuple[Problem, ...]]:
        """The problems of every object that has some, as of now; changed by the next call."""
        self._take(None)
        return self._found

    def _take(self, most: int | None) -> None:
        for _table, key, problems in self._watch.take(most):
            if problems:
                self._found[key] = problems
            else:
                self._found.pop(key, None)

    def of(self, resource: str, key: Key) -> tuple[Problem, ...]:
        """What is wrong with one object as it is."""
        return self._flow.get(object_findings, (resource, key)) or ()

    def alone(self, resource: str, key: Key, one: Object) -> tuple[Problem, ...]:
        """What would be wrong with an object if it were written, without a look at the others. Nothing is changed."""
        undo = self._put({(resource, key): one})
        found = self._flow.get(object_findings, (resource, key)) or ()
        self._flow.commit(undo)
        return found

    def trial(self, changes: Mapping[Row, Object]) -> list[Problem]:
        """What would be wrong if these objects were written: with them, and what they would newly make wrong elsewhere.

        Nothing is changed.
        """
        before = dict(self.found())
        undo = self._put(changes)
        if self._here is not None:
            self.at(self._here)  # a certificate that comes with them may have begun since the last step of time
        new = [row for row in changes if row not in self._there]
        for resource, key in new:
            self.follow(resource, key, True)
        after = dict(self.found())
        self._flow.commit(undo)
        for resource, key in new:
            self.follow(resource, key, False)
        self.found()
        problems: list[Problem] = []
        for row in sorted(after):
            standing = before.get(row, ()) if row not in changes else ()
            problems += (one for one in after[row] if one not in standing)
        return problems

    def _put(self, changes: Mapping[Row, Object]) -> Batch:
        """Commit objects; what has to be committed to undo it."""
        batch: Batch = {}
        for (resource, key), one in changes.items():
            put(batch, resource, key, self._aged(resource, key, one))
        undo = {source: {key: self._flow.get(source, key) for key in rows} for source, rows in batch.items()}
        self._flow.commit(batch)
        return undo

    def _aged(self, resource: str, key: Key, one: Object) -> Object:
        """The object as old as the one that it would replace: the age decides who wins."""
        stands = self._flow.get(briefs, (resource, key))
        if stands is None or stands.created is None or one.metadata.creation_timestamp is not None:
            return one
        return one.model_copy(update={"metadata": one.metadata.model_copy(update={"creation_timestamp": stands.created})})


def put(batch: Batch, resource: str, key: Key, one: Object | None) -> None:
    """Add an object (None: deleted) to a batch: for compile, and for the analyzers."""
    source = INPUTS.get(resource)
    if source is not None:
        batch.setdefault(source, {})[key] = None if one is None else row_of(one)
    feed(batch, resource, key, one)


def analyze(objects: Iterable[Object], here: Scope | None = None, mesh: Settings | None = None) -> list[Problem]:
    """What is wrong with each of the objects, given all of them. Of two with one name the later counts.

    Namespaced objects must have their namespace. What decoding has to say of an object is not repeated.
    """
    flow = Flow()
    batch: Batch = {settings: {"": mesh or Settings()}}
    analysis = Analysis(flow)
    there: dict[Row, None] = {}
    for one in objects:
        kind = kind_for(one.ref.group, one.kind)
        if kind:
            key = (one.metadata.namespace, one.metadata.name)
            put(batch, kind.resource, key, one)
            there[kind.resource, key] = None
    flow.commit(batch)
    analysis.at(here or Scope())
    for resource, key in there:
        analysis.follow(resource, key, True)
    found = analysis.found()
    return [problem for row in sorted(found) for problem in found[row]]
