"""What the server adds to objects before they are stored: Kubernetes' defaults, and virtual addresses for Services.

An address is held by a record of its own (`_clusterips`), written and removed in the same transaction as its Service: two
Services never have the same one, and one that is asked for twice is refused.
"""

from __future__ import annotations

import base64
import hashlib
import ipaddress
from collections.abc import AsyncIterator
from typing import Any

from tulle.api.defaults import with_defaults
from tulle.api.object import Kind
from tulle.ports import Delete, Key, Put, Store

Raw = dict[str, Any]

RANGE = ipaddress.ip_network("240.240.0.0/16")
CLUSTER_IPS = "_clusterips"


def default(kind: Kind, body: Raw) -> None:
    """Fill in what Kubernetes would; what cannot be read is left for the decoder to say."""
    body.update(with_defaults(kind, str(body.get("apiVersion")).rpartition("/")[2], body))
    if kind.resource == "secrets":
        _fold_text(body)


def _fold_text(body: Raw) -> None:
    """A Secret's `stringData` becomes part of its `data`; it is never read back."""
    text, data = body.get("stringData"), body.get("data", {})
    if isinstance(text, dict) and isinstance(data, dict) and all(isinstance(value, str) for value in text.values()):
        body["data"] = {**data, **{key: base64.b64encode(value.encode()).decode() for key, value in text.items()}}
        del body["stringData"]


def keep_addresses(live: Raw, new: Raw) -> None:
    """An update that does not name a Service's addresses keeps them."""
    before, after = live.get("spec"), new.get("spec")
    if not isinstance(before, dict) or not isinstance(after, dict) or after.get("type") == "ExternalName":
        return
    if not after.get("clusterIP") and before.get("clusterIP"):
        for field in ("clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"):
            if field in before and not after.get(field):
                after[field] = before[field]


def wants_address(body: Raw) -> bool:
    """Whether a Service has no address and should."""
    spec = body["spec"]
    return spec.get("type") != "ExternalName" and not spec.get("clusterIP")


def address(body: Raw | None) -> str:
    """A Service's own virtual address, or ""."""
    found = ((body or {}).get("spec") or {}).get("clusterIP")
    return found if isinstance(found, str) and found not in ("", "None") else ""


async def allot(store: Store, key: Key) -> AsyncIterator[str]:
    """Free addresses for a Service, the first choice always the same for the same name: clients may remember it."""
    seed = int.from_bytes(hashlib.sha256(f"{key.namespace}/{key.name}".encode()).digest()[:8], "big")
    usable = RANGE.num_addresses - 2
    for step in range(usable):
        place = str(RANGE[1 + (seed + step) % usable])
        if await store.get(Key(CLUSTER_IPS, "", place)) is None:
            yield place


def set_address(body: Raw, chosen: str) -> None:
    """Write an allotted address into a Service."""
    spec = body["spec"]
    spec["clusterIP"] = chosen
    spec["clusterIPs"] = [chosen]
    spec.setdefault("ipFamilies", ["IPv4"])
    spec.setdefault("ipFamilyPolicy", "SingleStack")


def hold(before: Raw | None, after: Raw | None, key: Key) -> list[Put | Delete]:
    """The operations that move the record of an address along with its Service."""
    old, new = address(before), address(after)
    if old == new:
        return []
    operations: list[Put | Delete] = []
    if old:
        operations.append(Delete(Key(CLUSTER_IPS, "", old)))
    if new:
        operations.append(Put(Key(CLUSTER_IPS, "", new), {"service": f"{key.namespace}/{key.name}"}, expect=0))
    return operations
