"""What the server adds to objects before they are stored: Kubernetes' defaults, and virtual addresses for Services.

A Service has an address of each family that it asks for (`ipFamilies`, `ipFamilyPolicy`), of IPv4 where it does not say. An
address is held by a record of its own (`_clusterips`), written and removed in the same transaction as its Service: two Services
never have the same one, and one that is asked for twice is refused.
"""

from __future__ import annotations

import base64
import hashlib
import ipaddress
from collections.abc import AsyncIterator, Iterable
from typing import Any

from tulle.api.defaults import with_defaults
from tulle.api.object import Kind
from tulle.core.networks import VIRTUAL
from tulle.ports import Delete, Key, Put, Store

Raw = dict[str, Any]

RANGES = dict(zip(("IPv4", "IPv6"), map(ipaddress.ip_network, VIRTUAL), strict=True))
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


def families(spec: Raw) -> list[str]:
    """The families of addresses that a Service asks for, the first one's address being its `clusterIP`."""
    said = spec.get("ipFamilies")
    said = [one for one in said if one in RANGES] if isinstance(said, list) else []
    found = list(dict.fromkeys(said or [family(one) for one in _addresses(spec)] or ["IPv4"]))
    policy = spec.get("ipFamilyPolicy") or ("RequireDualStack" if len(found) > 1 else "SingleStack")
    return found[:1] if policy == "SingleStack" else [*found, *(one for one in RANGES if one not in found)]


def family(address: str) -> str:
    """Of an address."""
    return "IPv6" if ":" in address else "IPv4"


def lacking(body: Raw) -> list[str]:
    """The families of which a Service has no address and should."""
    spec = body["spec"]
    if spec.get("type") == "ExternalName" or spec.get("clusterIP") == "None":
        return []
    there = {family(one) for one in _addresses(spec)}
    return [one for one in families(spec) if one not in there]


def allots(kind: Kind, body: Raw) -> bool:
    """Whether the server adds addresses to an object before it is stored."""
    return kind.resource == "services" and wants_address(body)


def wants_address(body: Raw) -> bool:
    """Whether a Service has no address, of some family, and should."""
    return bool(lacking(body))


def address(body: Raw | None) -> str:
    """A Service's own virtual address, the first where it has two, or ""."""
    return next(iter(addresses(body)), "")


def addresses(body: Raw | None) -> list[str]:
    """All virtual addresses of a Service: `clusterIP` first."""
    return _addresses((body or {}).get("spec") or {})


def _addresses(spec: Raw) -> list[str]:
    others = spec.get("clusterIPs")
    found = [spec.get("clusterIP"), *(others if isinstance(others, list) else ())]
    return list(dict.fromkeys(one for one in found if isinstance(one, str) and one not in ("", "None")))


async def allot(store: Store, key: Key, of: str) -> AsyncIterator[str]:
    """Free addresses of a family for a Service, the first choice always the same for the same name: clients may remember it."""
    seed = int.from_bytes(hashlib.sha256(f"{key.namespace}/{key.name}".encode()).digest()[:8], "big")
    usable = RANGES[of].num_addresses - 2
    for step in range(usable):
        place = str(RANGES[of][1 + (seed + step) % usable])
        if await store.get(Key(CLUSTER_IPS, "", place)) is None:
            yield place


def set_addresses(body: Raw, chosen: Iterable[str]) -> None:
    """Write addresses, one of a family, into a Service, whose `clusterIP` stays the first where it is one of them."""
    spec = body["spec"]
    order = families(spec)
    found = sorted(
        chosen, key=lambda one: (one != spec.get("clusterIP"), order.index(family(one)) if family(one) in order else 2)
    )
    spec["clusterIP"], spec["clusterIPs"] = found[0], found
    spec["ipFamilies"] = [family(one) for one in found]
    spec["ipFamilyPolicy"] = spec.get("ipFamilyPolicy") or ("RequireDualStack" if len(found) > 1 else "SingleStack")


def hold(before: Raw | None, after: Raw | None, key: Key) -> list[Put | Delete]:
    """The operations that move the records of addresses along with their Service."""
    old, new = addresses(before), addresses(after)
    return [
        *(Delete(Key(CLUSTER_IPS, "", one)) for one in old if one not in new),
        *(Put(Key(CLUSTER_IPS, "", one), {"service": f"{key.namespace}/{key.name}"}, expect=0) for one in new if one not in old),
    ]
