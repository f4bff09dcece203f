"""Declarations of tables: what they are called and how a row is made. They hold no rows; a `Flow` does."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from typing import TYPE_CHECKING, Any, Generic, TypeVar

if TYPE_CHECKING:
    from tulle.core.flow.graph import Fetch

K = TypeVar("K", bound=Hashable)
R = TypeVar("R")


class Input(Generic[K, R]):
    """Rows that come from outside, by key. Keys of one input must be of one type that sorts.

    `indexes` name functions from key and row to the buckets in which the row lies, so that a derivation can depend on one bucket
    only. The index "" has all rows in its one bucket None.
    """

    def __init__(self, name: str, **indexes: Callable[[K, R], Iterable[Hashable]]) -> None:
        self.name = name
        self.indexes = indexes

    def buckets(self, key: K, row: R | None) -> set[tuple[str, Hashable]]:
        """The (index, value) pairs of the buckets that a row lies in, beside that of all rows; absent, it lies in none."""
        if row is None:
            return set()
        return {(index, value) for index, of in self.indexes.items() for value in of(key, row)}

    def __repr__(self) -> str:
        return f"Input({self.name!r})"


class Table(Generic[K, R]):
    """Rows that are made by a pure function of a key and of what it fetches; None is no row."""

    def __init__(self, make: Callable[[Fetch, K], R | None], name: str = "") -> None:
        self.make = make
        self.name = name or make.__name__
        self.__doc__ = make.__doc__

    def __repr__(self) -> str:
        return f"Table({self.name!r})"


def table(make: Callable[[Fetch, K], R | None]) -> Table[K, R]:
    """Decorator: the function becomes the table that it makes the rows of."""
    return Table(make)


Batch = dict[Input[Any, Any], dict[Any, Any]]
