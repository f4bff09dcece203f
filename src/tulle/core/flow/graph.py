"""The rows and what they were made of: `Flow` settles doubtful rows on demand. The package's docstring tells how."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import Counter
from collections.abc import Hashable, Mapping
from typing import Any, TypeVar

from tulle.core.flow.tables import Input, Table

K = TypeVar("K", bound=Hashable)
R = TypeVar("R")

_NEVER = -1
_ALL = ("", None)  # the bucket of all rows


class CycleError(RuntimeError):
    """A row needs itself to be made: a mistake in the tables, never in the data."""


class _Node:
    """One row (of an input, of a table, or an index bucket) and its place in the graph."""

    __slots__ = ("busy", "changed", "doubtful", "key", "needs", "table", "used_by", "value", "verified", "watches")

    def __init__(self, table: Table[Any, Any] | None, key: Any) -> None:
        self.table = table  # None: an input row or a bucket, which `commit` writes
        self.key = key  # of a table's row: its key; else (where the node is kept, its key there)
        self.value: Any = None
        self.changed = _NEVER  # the revision at which the value last became another
        self.verified = _NEVER  # the revision at which the value was last known to be right
        self.doubtful = table is not None
        self.busy = False
        self.needs: tuple[_Node, ...] = ()
        self.used_by: dict[_Node, None] = {}
        self.watches: tuple[Watch, ...] = ()  # of most rows none


class _Rows:
    """The state of one input: its rows, and the sorted keys of each bucket of an index."""

    __slots__ = ("buckets", "rows")

    def __init__(self) -> None:
        self.rows: dict[Any, Any] = {}
        self.buckets: dict[tuple[str, Hashable], list[Any]] = {}


class Fetch:
    """What a table's function reads through; every reading is a dependency of the row being made."""

    __slots__ = ("_flow", "_read")

    def __init__(self, flow: Flow) -> None:
        self._flow = flow
        self._read: dict[_Node, None] = {}

    def __call__(self, source: Input[K, R] | Table[K, R], key: K) -> R | None:
        """The row of that key, or None where there is none."""
        flow = self._flow
        try:
            node = flow._nodes[source][key]  # as nearly always: without a call
        except KeyError:
            node = flow._node(source, key)
        if node.doubtful:
            flow._settle(node)
        self._read[node] = None
        value: R | None = node.value
        return value

    def keys(self, source: Input[K, R], index: str = "", value: Hashable = None) -> tuple[K, ...]:
        """The keys in an index bucket (by default: all keys), sorted. Depends on which they are, not on their rows."""
        node = self._flow._bucket(source, index, value)
        self._read[node] = None
        keys: tuple[K, ...] = node.value
        return keys

    def rows(self, source: Input[K, R], index: str = "", value: Hashable = None) -> tuple[R, ...]:
        """The rows in an index bucket, in the order of their keys."""
        found = (self(source, key) for key in self.keys(source, index, value))
        return tuple(row for row in found if row is not None)


class Watch:
    """A set of rows that somebody outside wants, and which of them changed since last asked. Made by `Flow.watch`."""

    def __init__(self, flow: Flow) -> None:
        self._flow = flow
        self._doubtful: dict[_Node, None] = {}
        self._seen: dict[_Node, int] = {}

    def add(self, source: Table[K, Any], key: K) -> None:
        """Want this row; the next `take` reports it."""
        node = self._flow._node(source, key)
        if node not in self._seen:
            self._seen[node] = _NEVER
            node.watches = (*node.watches, self)
            self._doubtful[node] = None

    def remove(self, source: Table[K, Any], key: K) -> None:
        """Want it no longer. A row that was not wanted is no error."""
        node = self._flow._node(source, key)
        if self._seen.pop(node, None) is not None:
            node.watches = tuple(one for one in node.watches if one is not self)
            self._doubtful.pop(node, None)
        self._flow._loose[node] = None

    @property
    def waiting(self) -> int:
        """How many rows are doubtful: what the next `take` looks at."""
        return len(self._doubtful)

    def take(self, most: int | None = None) -> list[tuple[Table[Any, Any], Any, Any]]:
        """Settle every doubtful row; the (table, key, row) of those that are another than at the last take.

        With `most`, so many are settled at once and the rest the next time: see `waiting`.
        """
        changed: list[tuple[Table[Any, Any], Any, Any]] = []
        while self._doubtful and most != 0:
            most = None if most is None else most - 1
            node = next(iter(self._doubtful))
            if node.doubtful:
                self._flow._settle(node)
            del self._doubtful[node]
            if self._seen[node] < node.changed:
                self._seen[node] = node.changed
                assert node.table is not None
                changed.append((node.table, node.key, node.value))
        self._flow._sweep()
        return changed


class Flow:
    """Rows of inputs and of derived tables. `revision` counts commits; `computed` counts calls by table name, for tests."""

    def __init__(self) -> None:
        self.revision = 0
        self.computed: Counter[str] = Counter()
        self._inputs: dict[Input[Any, Any], _Rows] = {}
        self._nodes: dict[object, dict[Any, _Node]] = {}
        self._loose: dict[_Node, None] = {}

    def commit(self, batch: Mapping[Input[Any, Any], Mapping[Any, Any]]) -> int:
        """Write input rows (None deletes) and mark what depends on them doubtful; the new revision.

        A row that is equal to the one that stands changes nothing.
        """
        self._sweep()
        self.revision += 1
        touched: list[_Node] = []
        for source, rows in batch.items():
            for key, row in rows.items():
                touched += self._write(source, key, row)
        self._doubt(touched)
        return self.revision

    def get(self, source: Input[K, R] | Table[K, R], key: K) -> R | None:
        """The row of that key now, or None. A row that only this asked for is dropped at the next commit."""
        node = self._node(source, key)
        if node.doubtful:
            self._settle(node)
        if not node.used_by and not node.watches:
            self._loose[node] = None
        value: R | None = node.value
        return value

    def watch(self) -> Watch:
        """A new, empty set of wanted rows."""
        return Watch(self)

    @property
    def size(self) -> int:
        """How many derived rows are held."""
        return sum(len(nodes) for source, nodes in self._nodes.items() if isinstance(source, Table))

    # -- inputs --

    def _write(self, source: Input[Any, Any], key: Any, row: Any) -> list[_Node]:
        state = self._inputs.setdefault(source, _Rows())
        before = state.rows.get(key)
        if row is before or row == before:
            return []
        if row is None:
            del state.rows[key]
        else:
            state.rows[key] = row
        touched = self._changed(source, key, row)
        if before is None or row is None:
            touched += self._renumbered(source, key, there=row is not None)
        were, are = source.buckets(key, before), source.buckets(key, row)
        for bucket in were - are:
            keys = state.buckets[bucket]
            del keys[bisect_left(keys, key)]
            if not keys:
                del state.buckets[bucket]
            touched += self._rekeyed(source, bucket, keys)
        for bucket in are - were:
            keys = state.buckets.setdefault(bucket, [])
            insort(keys, key)
            touched += self._rekeyed(source, bucket, keys)
        return touched

    def _renumbered(self, source: Input[Any, Any], key: Any, *, there: bool) -> list[_Node]:
        """A row came or went. All keys of an input are sorted only where somebody reads them."""
        home = (source, "buckets")
        node = self._nodes.get(home, {}).get(_ALL)
        if node is None:
            return []
        keys = list(node.value)
        if there:
            insort(keys, key)
        else:
            del keys[bisect_left(keys, key)]
        return self._changed(home, _ALL, tuple(keys))

    def _rekeyed(self, source: Input[Any, Any], bucket: Any, keys: list[Any]) -> list[_Node]:
        """The keys of a bucket are others. They are many: copied only where somebody reads them."""
        home = (source, "buckets")
        return self._changed(home, bucket, tuple(keys)) if bucket in self._nodes.get(home, ()) else []

    def _changed(self, source: object, key: Any, value: Any) -> list[_Node]:
        node = self._nodes.get(source, {}).get(key)
        if node is None:
            return []
        node.value, node.changed, node.verified = value, self.revision, self.revision
        return [node]

    # -- graph --

    def _node(self, source: Input[Any, Any] | Table[Any, Any], key: Any) -> _Node:
        nodes = self._nodes.get(source)
        if nodes is None:
            nodes = self._nodes[source] = {}
        node = nodes.get(key)
        if node is None:
            if isinstance(source, Table):
                node = _Node(source, key)
            else:
                node = _Node(None, (source, key))
                state = self._inputs.get(source)
                node.value = state.rows.get(key) if state else None
                node.changed = node.verified = 0
            nodes[key] = node
        return node

    def _bucket(self, source: Input[Any, Any], index: str, value: Hashable) -> _Node:
        if index and index not in source.indexes:
            raise KeyError(f"{source.name} has no index {index!r}")
        home, bucket = (source, "buckets"), (index, value)
        nodes = self._nodes.setdefault(home, {})
        node = nodes.get(bucket)
        if node is None:
            node = nodes[bucket] = _Node(None, (home, bucket))
            state = self._inputs.get(source)
            keys = () if state is None else sorted(state.rows) if bucket == _ALL else state.buckets.get(bucket, ())
            node.value = tuple(keys)
            node.changed = node.verified = 0
        return node

    def _doubt(self, touched: list[_Node]) -> None:
        """Everything above a changed node becomes doubtful. What is doubtful already has all above it doubtful already."""
        stack = touched
        while stack:
            for user in stack.pop().used_by:
                if not user.doubtful:
                    user.doubtful = True
                    for watch in user.watches:
                        watch._doubtful[user] = None
                    stack.append(user)

    def _settle(self, node: _Node) -> None:
        """Make a doubtful row right: by finding that nothing it needs has changed, or by making it again."""
        if node.busy:
            raise CycleError(f"{node.table} row {node.key!r} needs itself")
        node.busy = True
        try:
            if node.verified == _NEVER:
                self._make(node)
            else:
                # In the order of reading: whether a later row is needed at all may depend on the value of an earlier one.
                for need in node.needs:
                    if need.doubtful:
                        self._settle(need)
                    if need.changed > node.verified:
                        self._make(node)
                        break
            node.verified = self.revision
            node.doubtful = False
        finally:
            node.busy = False

    def _make(self, node: _Node) -> None:
        assert node.table is not None
        self.computed[node.table.name] += 1
        fetch = Fetch(self)
        value = node.table.make(fetch, node.key)
        read = fetch._read
        for need in node.needs:
            if need not in read:
                need.used_by.pop(node, None)
                if not need.used_by and not need.watches:
                    self._loose[need] = None
        for need in read:
            need.used_by[node] = None
        node.needs = tuple(read)
        if node.changed == _NEVER or value != node.value:
            node.value, node.changed = value, self.revision

    def _sweep(self) -> None:
        """Drop what nobody uses, and then what only that used."""
        loose = list(self._loose)
        self._loose.clear()
        while loose:
            node = loose.pop()
            if node.used_by or node.watches:
                continue
            source, key = (node.table, node.key) if node.table is not None else node.key
            nodes = self._nodes.get(source)
            if nodes is None or nodes.get(key) is not node:
                continue
            del nodes[key]
            if not nodes:
                del self._nodes[source]
            for need in node.needs:
                need.used_by.pop(node, None)
                loose.append(need)
            node.needs = ()
