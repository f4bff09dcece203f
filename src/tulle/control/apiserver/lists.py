"""Which lists are merged item by item, and by what: for server-side apply and for strategic merge patches.

All other lists are replaced as a whole. Paths have field names only (`spec.ports`); they hold for the items of lists on the way.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel

from tulle.api.kind import Kind
from tulle.api.list_types import ListType
from tulle.api.shape import Shape

Path = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Merge:
    """How a list is merged: by the values of `keys` in each item (`defaults` where absent); a set of scalars without keys.

    `whole`: each item is one value, not merged field by field. `atomic`: it is no list but a map, and that is one value.
    """

    keys: tuple[str, ...] = ()
    defaults: Mapping[str, Any] = field(default_factory=dict)
    whole: bool = False
    atomic: bool = False

    def key(self, item: Any) -> dict[str, Any]:
        """What tells the item from the others."""
        return {key: item.get(key, self.defaults.get(key)) for key in self.keys} if isinstance(item, dict) else {}


_ATOMIC = Merge(atomic=True)
_EVERY: Mapping[Path, Merge] = {
    ("metadata", "finalizers"): Merge(),
    ("metadata", "ownerReferences"): Merge(("uid",), whole=True),
}
# What Kubernetes' own types say beyond the types of their lists.
_FURTHER: Mapping[str, Mapping[Path, Merge]] = {
    "services": {
        ("spec", "ports"): Merge(("port", "protocol"), {"protocol": "TCP"}),
        ("spec", "selector"): _ATOMIC,
    },
    "serviceaccounts": {("secrets",): Merge(("name",), whole=True)},
    "events": {("involvedObject",): _ATOMIC, ("related",): _ATOMIC},
    "rolebindings.rbac.authorization.k8s.io": {("roleRef",): _ATOMIC},
    "clusterrolebindings.rbac.authorization.k8s.io": {("roleRef",): _ATOMIC},
}
_STRATEGIC: Mapping[str, Mapping[Path, Merge]] = {
    "services": {("spec", "ports"): Merge(("port",)), ("status", "conditions"): Merge(("type",))},
    "namespaces": {("status", "conditions"): Merge(("type",))},
    "serviceaccounts": {("secrets",): Merge(("name",)), ("imagePullSecrets",): Merge(("name",))},
}


def applied(kind: Kind) -> Mapping[Path, Merge]:
    """The lists that server-side apply merges, and the maps that it does not: as the kind's schema has them."""
    return _applied(kind.model, kind.resource)


@functools.cache
def _applied(model: type[BaseModel], resource: str) -> Mapping[Path, Merge]:
    return {**dict(_below(Shape(model), (), frozenset())), **_EVERY, **_FURTHER.get(resource, {})}


def _below(shape: Shape, path: Path, above: frozenset[type]) -> Iterator[tuple[Path, Merge]]:
    """What the schema says of the fields at a place and below it. Below a list that is replaced as a whole nothing matters."""
    model = shape.model
    if model is None or model in above:
        return
    for name, field_shape in shape.fields.items():
        at = (*path, name)
        if path == () and name == "metadata":
            continue
        mark = next((one for one in field_shape.metadata if isinstance(one, ListType)), None)
        if mark is not None and field_shape.item is not None:
            yield at, Merge(mark.keys)
            yield from _below(field_shape.item, at, above | {model})
        elif _is_atomic(field_shape.model):
            yield at, _ATOMIC
        else:
            yield from _below(field_shape, at, above | {model})


def _is_atomic(model: type[BaseModel] | None) -> bool:
    extra = model.model_config.get("json_schema_extra") if model is not None else None
    return isinstance(extra, dict) and extra.get("x-kubernetes-map-type") == "atomic"


def strategic(kind: Kind) -> Mapping[Path, Merge]:
    """The lists that a strategic merge patch merges: Kubernetes' own `patchMergeKey`s, on which kubectl builds its patches."""
    return {**_EVERY, **_STRATEGIC.get(kind.resource, {})}
