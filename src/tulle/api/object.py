"""What every kind has in common: the strict schema base, metadata, and the registration record of a kind.

A kind is one pydantic class (its fields in snake_case, read and written in camelCase) and one `Kind` record in the registry.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from tulle.kit.problem import Problem, Ref


class Schema(BaseModel):
    """A part of an object: unknown fields are mistakes, values do not change after decoding."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="forbid", frozen=True, strict=True)


class Metadata(Schema):
    """Kubernetes' ObjectMeta, as far as it is read; the rest is kept by the API server as it came."""

    model_config = ConfigDict(extra="ignore")

    name: str = ""
    namespace: str = ""
    labels: dict[str, str] = Field(default_factory=dict)
    annotations: dict[str, str] = Field(default_factory=dict)
    uid: str = ""
    resource_version: str = ""
    generation: int = 0
    creation_timestamp: str | None = None


class Object(Schema):
    """An API object. Subclasses add `spec` (or what their kind has instead)."""

    api_version: str
    kind: str
    metadata: Metadata
    status: dict[str, Any] | None = None

    @property
    def ref(self) -> Ref:
        """The object's name for problems and origins."""
        group = self.api_version.rpartition("/")[0]
        return Ref(kind=self.kind, namespace=self.metadata.namespace, name=self.metadata.name, group=group)


@dataclass(frozen=True, slots=True)
class Column:
    """A column of `kubectl get`: `value` reads it from the object's JSON body."""

    name: str
    value: Callable[[Mapping[str, Any]], str]
    wide: bool = False  # only with -o wide


@dataclass(frozen=True, slots=True)
class Kind:
    """One registration: everything that the decoder, the API server and the command line need to serve a kind.

    `versions` are served in this order, the first preferred; all have one schema. `check` finds mistakes that a schema cannot
    say (a sum of weights); it gets the decoded object. `resource` is `plural.group`.
    """

    group: str
    versions: tuple[str, ...]
    kind: str
    plural: str
    model: type[Object]
    namespaced: bool = True
    short_names: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    columns: tuple[Column, ...] = ()
    check: Callable[[Any], list[Problem]] = field(default=lambda _object: [])

    @property
    def resource(self) -> str:
        """`virtualservices.networking.istio.io`; `services` in the core group."""
        return f"{self.plural}.{self.group}" if self.group else self.plural

    @property
    def singular(self) -> str:
        """As `kubectl get virtualservice` has it."""
        return self.kind.lower()
