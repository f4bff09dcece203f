"""Rules between fields that many schemas share; each yields the faults that it finds."""

from __future__ import annotations

import functools
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from typing import TypeVar

from tulle.api.object import Fault, Schema

T = TypeVar("T")


def written(schema: Schema, *names: str) -> list[str]:
    """Those of the fields (by their JSON names) that have a value."""
    fields, there = _by_json_name(type(schema)), schema.model_fields_set
    return [name for name in names if (field := fields[name]) in there and getattr(schema, field) is not None]


@functools.cache
def _by_json_name(model: type[Schema]) -> Mapping[str, str]:
    return {field.alias or name: name for name, field in model.model_fields.items()}


def at_most_one(schema: Schema, *names: str) -> Iterator[Fault]:
    """Of the fields (JSON names) none or one is written."""
    found = written(schema, *names)
    if len(found) > 1:
        yield Fault((), f"found {_and(found)}; needed at most one of {_or(names)}", "OneOf")


def exactly_one(schema: Schema, *names: str) -> Iterator[Fault]:
    """Of the fields (JSON names) one is written."""
    found = written(schema, *names)
    if not found:
        yield Fault((), f"found none of {_and(names)}; needed one of them", "OneOf")
    yield from at_most_one(schema, *names)


def distinct(items: Iterable[T], key: Callable[[T], Hashable], at: tuple[str | int, ...], field: str) -> Iterator[Fault]:
    """No two items of the list at `at` have the same key; `field` is where a person would change it. None is no key."""
    seen: set[Hashable] = set()
    for index, item in enumerate(items):
        value = key(item)
        if value is not None and value in seen:
            shown = f'"{value}"' if isinstance(value, str) else str(value)
            where = (*at, index, field) if field else (*at, index)
            yield Fault(where, f"found {shown} twice; needed each only once", "Duplicate")
        seen.add(value)


def _and(names: Iterable[str]) -> str:
    return _join(list(names), "and")


def _or(names: Iterable[str]) -> str:
    return _join(list(names), "or")


def _join(names: list[str], word: str) -> str:
    return f" {word} ".join(names) if len(names) < 3 else f"{', '.join(names[:-1])} {word} {names[-1]}"
