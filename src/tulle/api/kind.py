"""The registration record of a kind. Knows no schema library, so that a command that only needs names starts quickly."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from tulle.kit.problem import Problem

if TYPE_CHECKING:
    from tulle.api.object import Object


# The API groups that are Kubernetes' own.
BUILT_IN = frozenset({"", "discovery.k8s.io", "coordination.k8s.io", "rbac.authorization.k8s.io"})


@dataclass(frozen=True, slots=True)
class Column:
    """A column of `kubectl get`: `value` reads it from the object's JSON body."""

    name: str
    value: Callable[[Mapping[str, Any]], str]
    wide: bool = False  # only with -o wide
    age: bool = False  # the value is a time, and how long ago that was is shown


NAME = Column("Name", lambda body: str(body["metadata"]["name"]))
AGE = Column("Age", lambda body: str(body["metadata"].get("creationTimestamp") or ""), age=True)


@dataclass(frozen=True, slots=True)
class Kind:
    """One registration: everything that the decoder, the API server and the command line need to serve a kind.

    `versions` are served in this order, the first preferred. `schema` names the class (`module:Class`) of the internal form; it
    takes what any version takes, and versions whose own rules are tighter have a subclass in `tighter`. Objects are stored in a
    version that has none (`stored`). `check` finds mistakes that a schema cannot say (a sum of weights); it gets the decoded
    object. `resource` is `plural.group`.
    """

    group: str
    versions: tuple[str, ...]
    kind: str
    plural: str
    schema: str
    namespaced: bool = True
    short_names: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    columns: tuple[Column, ...] = ()
    check: Callable[[Any], list[Problem]] = field(default=lambda _object: [])
    names: Literal["subdomain", "label", "rfc1035", "path"] = "subdomain"  # what `metadata.name` must be
    named: bool = True  # False: `kubectl get` shows no names, for they say nothing (Events)
    aged: bool = True  # False: `kubectl get` shows when an object was made (a column of its own), not how old it is
    tighter: Mapping[str, str] = field(default_factory=dict, hash=False)
    secretive: bool = False  # True: no message repeats a value of such an object, wherever in it the value stands
    review: bool = False  # True: a question that is answered and not kept; it can be created, and nothing else
    acted_on: bool = True  # False: served and stored, and every object of it warns that the mesh does not act on it yet

    @property
    def table(self) -> tuple[Column, ...]:
        """The columns of `kubectl get` in their order: the name, the kind's own, the age, and what only `-o wide` shows."""
        own, wide = (tuple(one for one in self.columns if one.wide is more) for more in (False, True))
        return (*((NAME,) if self.named else ()), *own, *((AGE,) if self.aged else ()), *wide)

    @property
    def model(self) -> type[Object]:
        """The class of the kind's objects in their internal form. Importing it takes a while: it waits until it is needed."""
        return _model(self.schema)

    def model_in(self, version: str) -> type[Object]:
        """The class that reads a version: `model`, or a subclass of it."""
        return _model(self.tighter.get(version, self.schema))

    @property
    def stored(self) -> str:
        """The version that objects are stored in."""
        return next((version for version in self.versions if version not in self.tighter), self.versions[0])

    @property
    def resource(self) -> str:
        """`virtualservices.networking.istio.io`; `services` in the core group."""
        return f"{self.plural}.{self.group}" if self.group else self.plural

    @property
    def built_in(self) -> bool:
        """Whether the kind is of Kubernetes itself: its clients send strategic merge patches."""
        return self.group in BUILT_IN

    @property
    def singular(self) -> str:
        """As `kubectl get virtualservice` has it."""
        return self.kind.lower()


@functools.cache
def _model(schema: str) -> type[Object]:
    module, _, name = schema.partition(":")
    found: type[Object] = getattr(importlib.import_module(module), name)
    return found
