"""Names: what the node's DNS answers inside a workload."""

from __future__ import annotations

import msgspec


class Name(msgspec.Struct, frozen=True, omit_defaults=True):
    """A service's `hostname` (full) and its virtual `addresses`; `namespace` and `name` give the short forms.

    `datagrams`, where there are some, are in the place of `addresses` for workloads whose datagrams are captured.
    """

    hostname: str
    name: str
    namespace: str
    addresses: tuple[str, ...] = ()
    datagrams: tuple[str, ...] = ()
