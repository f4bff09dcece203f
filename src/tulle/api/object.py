"""What every kind's schema has in common: the strict base, rules between fields, and metadata.

A kind is one pydantic class (its fields in snake_case, read and written in camelCase) and one `Kind` record in the registry.
Rules between fields stand in the class they concern (`Ruled.faults`), so that all of them are found in one pass with their paths.
"""

from __future__ import annotations

import functools
import types
import typing
from abc import abstractmethod
from collections.abc import Iterator
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, model_validator
from pydantic.alias_generators import to_camel
from pydantic_core import PydanticCustomError

from tulle.api.fault import Fault
from tulle.api.kind import Column, Kind
from tulle.api.list_types import ListType
from tulle.api.values import Int64, Many, Map
from tulle.kit.problem import Ref

__all__ = [
    "RULES_LATER",
    "Column",
    "Fault",
    "Kind",
    "Metadata",
    "Object",
    "OwnerReference",
    "Ruled",
    "Schema",
    "faults_below",
]


class Schema(BaseModel):
    """A part of an object: unknown fields are mistakes, values do not change after decoding."""

    # Validators are built at first use: a command that reads one kind does not wait for all the others.
    model_config = ConfigDict(
        alias_generator=to_camel, populate_by_name=True, extra="forbid", frozen=True, strict=True, defer_build=True
    )

    @model_validator(mode="before")
    @classmethod
    def _drop_nulls(cls, data: Any) -> Any:
        """`field: null` means that the field was not written, as in Kubernetes and protobuf JSON."""
        if isinstance(data, dict) and None in data.values():
            return {key: value for key, value in data.items() if value is not None}
        return data


class Ruled(Schema):
    """A schema with rules between its fields. They run when the fields themselves are right."""

    @abstractmethod
    def faults(self) -> Iterator[Fault]:
        """Every broken rule of this part (not of the parts below it)."""

    @model_validator(mode="after")
    def _obey(self, info: ValidationInfo) -> Self:
        if info.context is RULES_LATER:
            return self
        if faults := tuple(self.faults()):
            raise PydanticCustomError("rules", "breaks {count} rules", {"count": len(faults), "faults": faults})
        return self


def faults_below(schema: Schema) -> list[Fault]:
    """Every broken rule in a schema and the parts below it, with whole paths; for what was read with `RULES_LATER`."""
    found: list[Fault] = []
    _add_faults(schema, (), found)
    return found


def _add_faults(schema: Schema, at: tuple[str | int, ...], found: list[Fault]) -> None:
    """Every object that is written passes here: the fields that nothing can be wrong with are not looked at."""
    ruled, fields = _rules_in(type(schema))
    if ruled:
        found += [fault._replace(at=(*at, *fault.at)) for fault in schema.faults()]  # type: ignore[attr-defined] # a `Ruled`
    values, there = schema.__dict__, schema.model_fields_set
    for name, alias, list_type in fields:
        if name not in there or not (value := values[name]):
            continue
        if list_type is not None:
            found += list_type.below(value, *at, alias)
        if isinstance(value, tuple):
            for index, item in enumerate(value):
                if isinstance(item, Schema):
                    _add_faults(item, (*at, alias, index), found)
        elif isinstance(value, dict):
            for key, item in value.items():
                if isinstance(item, Schema):
                    _add_faults(item, (*at, alias, key), found)
        elif isinstance(value, Schema):
            _add_faults(value, (*at, alias), found)


@functools.cache
def _rules_in(model: type[Schema]) -> tuple[bool, tuple[tuple[str, str, ListType | None], ...]]:
    """Whether it has rules itself, and the fields, with their JSON names, in or below which one may be broken."""
    hints = typing.get_type_hints(model, include_extras=True)
    fields = [(name, field.alias or name, _list_type(hints[name])) for name, field in model.model_fields.items()]
    return issubclass(model, Ruled), tuple(field for field in fields if _may_have_rules(hints[field[0]], set()))


def _may_have_rules(hint: Any, seen: set[Any]) -> bool:
    if isinstance(hint, ListType):
        return True
    if isinstance(hint, type) and issubclass(hint, Schema) and hint not in seen:
        seen.add(hint)
        hints = typing.get_type_hints(hint, include_extras=True).values()
        return issubclass(hint, Ruled) or any(_may_have_rules(one, seen) for one in hints)
    return any(_may_have_rules(one, seen) for one in (*typing.get_args(hint), *getattr(hint, "__metadata__", ())))


def _list_type(hint: Any) -> ListType | None:
    """The mark of a list, which may be absent or not be a list at all."""
    if typing.get_origin(hint) is Annotated:
        marks = [one for one in hint.__metadata__ if isinstance(one, ListType)]
        return marks[0] if marks else _list_type(typing.get_args(hint)[0])
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return next((found for one in typing.get_args(hint) if (found := _list_type(one))), None)
    return None


# Read without rules: a broken rule below would otherwise hide those above it. `faults_below` finds them all afterwards.
RULES_LATER = {"rules": "later"}


class OwnerReference(Schema):
    """Another object in whose place this one stands; gone with it."""

    api_version: str
    kind: str
    name: str
    uid: str
    controller: bool | None = None
    block_owner_deletion: bool | None = None


class Metadata(Schema):
    """An object's name, namespace, labels and annotations, and what the server keeps of it."""

    name: str = ""
    generate_name: str = ""
    namespace: str = ""
    labels: Map[str] = Field(default_factory=dict)
    annotations: Map[str] = Field(default_factory=dict)
    uid: str = ""
    resource_version: str = ""
    generation: Int64 = 0
    creation_timestamp: str | None = None
    deletion_timestamp: str | None = None
    deletion_grace_period_seconds: Int64 | None = None
    finalizers: Many[str] = ()
    owner_references: Many[OwnerReference] = ()
    managed_fields: Many[dict[str, Any]] = ()
    self_link: str = ""


class Object(Schema):
    """An API object. Subclasses add `spec` (or what their kind has instead), and `status` where somebody writes one."""

    api_version: str
    kind: str
    metadata: Metadata

    @property
    def ref(self) -> Ref:
        """The object's name for problems and origins."""
        group = self.api_version.rpartition("/")[0]
        return Ref(kind=self.kind, namespace=self.metadata.namespace, name=self.metadata.name, group=group)
