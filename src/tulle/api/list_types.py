"""How Kubernetes tells the items of a list apart: the mark that a schema puts on such a list, and the rule that comes with it."""

from __future__ import annotations

import functools
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, GetCoreSchemaHandler, GetJsonSchemaHandler, ValidationInfo
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from tulle.api.fault import Fault


@dataclass(frozen=True, slots=True)
class ListType:
    """Marks a list whose items are told apart by the values of `keys` (JSON names), or by themselves without keys.

    Each is there only once, and server-side apply merges such a list item by item. A list without this mark is atomic: it is
    replaced as a whole.
    """

    keys: tuple[str, ...] = ()

    def faults(self, items: Sequence[Any]) -> Iterator[Fault]:
        """The items that are there before."""
        seen: set[Hashable] = set()
        for index, item in enumerate(items):
            key = self._key(item)
            if key in seen:
                shown = "/".join(map(str, key)) if isinstance(key, tuple) else key
                quoted = f'"{shown}"' if isinstance(shown, str) else shown
                yield Fault((index, *self.keys[:1]), f"found {quoted} twice; needed each only once", "Duplicate")
            seen.add(key)

    def below(self, items: Sequence[Any], *at: str | int) -> Iterator[Fault]:
        """The same, with the list's place before each."""
        for fault in self.faults(items):
            yield fault._replace(at=(*at, *fault.at))

    def _key(self, item: Any) -> Hashable:
        if not isinstance(item, BaseModel):
            return item if isinstance(item, Hashable) else repr(item)
        names = _names(type(item))
        found = tuple(getattr(item, names[key]) for key in self.keys)
        return found if len(found) > 1 else found[0]

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """The list, with the rule where rules are not left for later."""
        return core_schema.with_info_after_validator_function(self._obey, handler(source))

    def _obey(self, items: Sequence[Any], info: ValidationInfo) -> Sequence[Any]:
        later = info.context is not None and info.context.get("rules") == "later"
        if not later and (faults := tuple(self.faults(items))):
            raise PydanticCustomError("rules", "breaks {count} rules", {"count": len(faults), "faults": faults})
        return items

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        """The list's schema with Kubernetes' extensions."""
        made = handler(schema)
        made["x-kubernetes-list-type"] = "map" if self.keys else "set"
        if self.keys:
            made["x-kubernetes-list-map-keys"] = list(self.keys)
        return made


@functools.cache
def _names(model: type[BaseModel]) -> Mapping[str, str]:
    return {field.alias or name: name for name, field in model.model_fields.items()}


def keyed(*keys: str) -> ListType:
    """Marks a list whose items are told apart by these fields (JSON names)."""
    return ListType(keys)


UNIQUE = ListType()
