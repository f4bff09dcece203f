"""Which lists are merged item by item, and by what: for server-side apply and for strategic merge patches.

All other lists are replaced as a whole. Paths have field names only (`spec.ports`); they hold for the items of lists on the way.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tulle.api.object import Kind

Path = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Merge:
    """How a list is merged: by the values of `keys` in each item (`defaults` where absent); a set of scalars without keys."""

    keys: tuple[str, ...] = ()
    defaults: Mapping[str, Any] = field(default_factory=dict)

    def key(self, item: Any) -> dict[str, Any]:
        """What tells the item from the others."""
        return {key: item.get(key, self.defaults.get(key)) for key in self.keys} if isinstance(item, dict) else {}


_SET = Merge()
_EVERY: Mapping[Path, Merge] = {
    ("metadata", "finalizers"): _SET,
    ("metadata", "ownerReferences"): Merge(("uid",)),
    ("status", "conditions"): Merge(("type",)),
}
_APPLY: Mapping[tuple[str, str], Mapping[Path, Merge]] = {
    ("", "Service"): {("spec", "ports"): Merge(("port", "protocol"), {"protocol": "TCP"})},
    ("", "ServiceAccount"): {("secrets",): Merge(("name",))},
    ("gateway.networking.k8s.io", "Gateway"): {
        ("spec", "listeners"): Merge(("name",)),
        ("status", "listeners"): Merge(("name",)),
        ("status", "listeners", "conditions"): Merge(("type",)),
    },
}
_STRATEGIC: Mapping[tuple[str, str], Mapping[Path, Merge]] = {
    ("", "Service"): {("spec", "ports"): Merge(("port",))},
    ("", "ServiceAccount"): {("secrets",): Merge(("name",)), ("imagePullSecrets",): Merge(("name",))},
}


def applied(kind: Kind) -> Mapping[Path, Merge]:
    """The lists that server-side apply merges."""
    return {**_EVERY, **_APPLY.get((kind.group, kind.kind), {})}


def strategic(kind: Kind) -> Mapping[Path, Merge]:
    """The lists that a strategic merge patch merges: Kubernetes' own `patchMergeKey`s, on which kubectl builds its patches."""
    return {**_EVERY, **_STRATEGIC.get((kind.group, kind.kind), {})}
