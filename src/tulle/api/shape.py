"""What a schema has at a place: the fields, item or choices there, and words for what is needed."""

from __future__ import annotations

import functools
import types
import typing
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import annotated_types
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from tulle.api.values import WORDS, Words


class Shape:
    """One place in a schema. `annotation` is its type with `metadata` (bounds) beside it."""

    def __init__(self, annotation: Any, metadata: Iterable[Any] = ()) -> None:
        self.metadata = list(metadata)
        while True:
            origin = get_origin(annotation)
            if origin is Annotated:
                annotation, *more = get_args(annotation)
                for one in more:
                    self.metadata += one.metadata if isinstance(one, FieldInfo) else [one]
            elif (
                origin in (Union, types.UnionType) and len(rest := [a for a in get_args(annotation) if a is not type(None)]) == 1
            ):
                annotation = rest[0]
            else:
                break
        self.annotation = annotation

    @property
    def model(self) -> type[BaseModel] | None:
        """The schema class that stands here, if one does."""
        return self.annotation if isinstance(self.annotation, type) and issubclass(self.annotation, BaseModel) else None

    @property
    def fields(self) -> Mapping[str, Shape]:
        """The fields by their JSON names."""
        return _fields(self.model) if self.model is not None else {}

    @property
    def item(self) -> Shape | None:
        """What a list here has in it; None where there is no list."""
        if get_origin(self.annotation) in (tuple, list):
            return Shape(get_args(self.annotation)[0])
        return None

    @property
    def value(self) -> Shape | None:
        """What a map here has as its values; None where there is no map."""
        if get_origin(self.annotation) is dict:
            return Shape(get_args(self.annotation)[1])
        return None

    @property
    def choices(self) -> tuple[Any, ...]:
        """The values that are allowed; empty where any are."""
        return get_args(self.annotation) if get_origin(self.annotation) is Literal else ()

    def below(self, step: str | int) -> Shape | None:
        """The shape of a field, of an item or of a map's value."""
        if isinstance(step, int):
            return self.item
        return self.fields.get(step) or self.value

    def at(self, path: Iterable[str | int]) -> Shape:
        """The shape at a path; an unknown one where the path leaves the schema."""
        here: Shape = self
        for step in path:
            below = here.below(step)
            if below is None:
                return Shape(Any)
            here = below
        return here

    @property
    def stated(self) -> str:
        """The words that the schema itself has for what is needed here; "" where it has none."""
        return next((one.text for one in self.metadata if isinstance(one, Words)), "")

    @property
    def words(self) -> str:
        """What is needed here, for a person."""
        if self.stated:
            return self.stated
        if choices := self.choices:
            return str(choices[0]) if len(choices) == 1 else f"one of {', '.join(map(str, choices))}"
        if self.item is not None:
            return "a list"
        if self.annotation in (int, float):
            return self._number()
        if self.annotation is str:
            patterns = (getattr(one, "pattern", None) for one in self.metadata)
            return next((WORDS[pattern] for pattern in patterns if pattern in WORDS), "a string")
        if self.annotation is bool:
            return "true or false"
        if self.model is not None or self.value is not None:
            return "an object"
        return "another value"

    def _number(self) -> str:
        name = "an integer" if self.annotation is int else "a number"
        low = high = None
        for bound in self.metadata:
            if isinstance(bound, annotated_types.Ge):
                low = bound.ge
            if isinstance(bound, annotated_types.Le):
                high = bound.le
        if low is not None and high is not None:
            return f"{name} from {low} to {high}"
        return f"{name} of at least {low}" if low is not None else name


@functools.cache
def _fields(model: type[BaseModel]) -> Mapping[str, Shape]:
    hints = typing.get_type_hints(model, include_extras=True)
    return {field.alias or name: Shape(hints[name], field.metadata) for name, field in model.model_fields.items()}
