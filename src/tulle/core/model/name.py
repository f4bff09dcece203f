"""Names: what the node's DNS answers inside a workload."""

from __future__ import annotations

import msgspec


class Name(msgspec.Struct, frozen=True, omit_defaults=True):
    """A service's `hostname` (full) and its virtual `addresses`; `namespace` and `name` give the short forms.

    `seen_from`: the namespaces to which it is a name; empty: all.
    """

    hostname: str
    name: str
    namespace: str
    addresses: tuple[str, ...] = ()
    seen_from: tuple[str, ...] = ()
