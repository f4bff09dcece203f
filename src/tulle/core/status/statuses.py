"""The statuses of all objects, kept up to date on a flow: which became others, and of which generation of the object each is."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from tulle.api.object import Object
from tulle.core.compile.hostname import Key
from tulle.core.flow import Flow, Watch
from tulle.core.status.objects import BY_RESOURCE, SUMS, object_status
from tulle.core.status.rows import Status

Row = tuple[str, Key]  # resource, object


class Seen(msgspec.Struct, frozen=True):
    """An object as it was taken in: its `uid` and `generation`, and the `revision` at which these last became others."""

    uid: str
    generation: int
    revision: int


class Statuses:
    """Rows are computed when asked for, and only those that something touched. `Pipeline.commit` tells what it took in."""

    def __init__(self, flow: Flow) -> None:
        self._flow = flow
        self._watch = flow.watch()
        self._last = flow.watch()  # objects whose status sums up that of others: theirs first, so that no row takes long
        self._seen: dict[Row, Seen] = {}
        self._renewed: dict[Row, None] = {}
        self.newest = 0  # the revision at which an object was last seen in a new generation

    def saw(self, resource: str, key: Key, one: Object | None, revision: int) -> None:
        """An object was written (None: deleted) at `revision`."""
        if resource not in BY_RESOURCE:
            return
        row = (resource, key)
        if one is None:
            self._watch_of(resource).remove(object_status, row)
            self._seen.pop(row, None)
            self._renewed.pop(row, None)
            return
        self._watch_of(resource).add(object_status, row)
        metadata, before = one.metadata, self._seen.get(row)
        if before is None or (before.uid, before.generation) != (metadata.uid, metadata.generation):
            self._seen[row] = Seen(metadata.uid, metadata.generation, revision)
            self.newest = revision
            self._renewed[row] = None  # the same status, of another generation

    def all(self) -> list[Row]:
        """Every object that has a status of ours."""
        return sorted(self._seen)

    def seen(self, row: Row) -> Seen | None:
        """The object as it was taken in; None where there is none."""
        return self._seen.get(row)

    def status(self, row: Row) -> Status | None:
        """The status now; None where it is not ours."""
        return self._flow.get(object_status, row)

    def take(self, most: int) -> Iterator[Row]:
        """Objects whose status, or generation, became another since they were last taken. Computes at most so many rows."""
        watch = self._watch if self._watch.waiting else self._last
        changed = dict.fromkeys(key for _table, key, _row in watch.take(most))
        renewed, self._renewed = self._renewed, {}
        yield from {**changed, **renewed}

    @property
    def waiting(self) -> bool:
        """Whether there is more to take."""
        return bool(self._watch.waiting or self._last.waiting or self._renewed)

    def _watch_of(self, resource: str) -> Watch:
        return self._last if resource in SUMS else self._watch
