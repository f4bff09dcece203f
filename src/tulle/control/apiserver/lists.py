"""Which lists are merged item by item, and by what: for server-side apply and for strategic merge patches.

All other lists are replaced as a whole. Paths have field names only (`spec.ports`); they hold for the items of lists on the way.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tulle.api.object import Kind

Path = tuple[str, ...]


# Groups of Kubernetes itself; the others are those of custom resources, which know no strategic merge patch.
_BUILTIN = frozenset(("", "coordination.k8s.io", "discovery.k8s.io", "rbac.authorization.k8s.io"))


def builtin(kind: Kind) -> bool:
    """Whether the kind is one of Kubernetes itself, and not served by a CustomResourceDefinition there."""
    return kind.group in _BUILTIN


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


_SET, _ATOMIC = Merge(), Merge(atomic=True)
_BY_NAME, _BY_TYPE = Merge(("name",)), Merge(("type",))
_EVERY: Mapping[Path, Merge] = {
    ("metadata", "finalizers"): _SET,
    ("metadata", "ownerReferences"): Merge(("uid",), whole=True),
    ("status", "conditions"): _BY_TYPE,
}
_GATEWAY_API = "gateway.networking.k8s.io"
_LISTENERS: Mapping[Path, Merge] = {
    ("spec", "listeners"): _BY_NAME,
    ("spec", "listeners", "allowedRoutes", "namespaces", "selector"): _ATOMIC,
    ("status", "listeners"): _BY_NAME,
    ("status", "listeners", "conditions"): _BY_TYPE,
}
_BINDING: Mapping[Path, Merge] = {("roleRef",): _ATOMIC}
_APPLY: Mapping[tuple[str, str], Mapping[Path, Merge]] = {
    ("", "Service"): {
        ("spec", "ports"): Merge(("port", "protocol"), {"protocol": "TCP"}),
        ("spec", "selector"): _ATOMIC,
    },
    ("", "ServiceAccount"): {("secrets",): Merge(("name",), whole=True)},
    ("", "Event"): {("involvedObject",): _ATOMIC, ("related",): _ATOMIC},
    ("rbac.authorization.k8s.io", "RoleBinding"): _BINDING,
    ("rbac.authorization.k8s.io", "ClusterRoleBinding"): _BINDING,
    ("networking.istio.io", "ServiceEntry"): {("spec", "ports"): _BY_NAME},
    (_GATEWAY_API, "GatewayClass"): {("status", "supportedFeatures"): _BY_NAME},
    (_GATEWAY_API, "ListenerSet"): _LISTENERS,
    (_GATEWAY_API, "Gateway"): {
        **_LISTENERS,
        ("spec", "allowedListeners", "namespaces", "selector"): _ATOMIC,
        ("spec", "tls", "frontend", "perPort"): Merge(("port",)),
    },
}
_STRATEGIC: Mapping[tuple[str, str], Mapping[Path, Merge]] = {
    ("", "Service"): {("spec", "ports"): Merge(("port",))},
    ("", "ServiceAccount"): {("secrets",): _BY_NAME, ("imagePullSecrets",): _BY_NAME},
}


@functools.cache
def _tables(group: str, kind: str) -> tuple[Mapping[Path, Merge], Mapping[Path, Merge]]:
    return {**_EVERY, **_APPLY.get((group, kind), {})}, {**_EVERY, **_STRATEGIC.get((group, kind), {})}


def applied(kind: Kind) -> Mapping[Path, Merge]:
    """The lists that server-side apply merges, and the maps that it does not: as upstream's schemas have them."""
    return _tables(kind.group, kind.kind)[0]


def strategic(kind: Kind) -> Mapping[Path, Merge]:
    """The lists that a strategic merge patch merges: Kubernetes' own `patchMergeKey`s, on which kubectl builds its patches."""
    return _tables(kind.group, kind.kind)[1]
