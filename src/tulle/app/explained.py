"""Why a request got its status, as of the configuration of that moment: the objects as the history has them then."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from tulle.api.registry import KINDS
from tulle.control.telemetry.recorded import Failure
from tulle.core.explain import Explanation, deciding, explain
from tulle.core.explain.known import known
from tulle.core.explain.paragraph import value_at
from tulle.core.pipeline import Pipeline
from tulle.ports import Key, Store

_KINDS = {kind.kind: kind.resource for kind in KINDS}


async def explained(pipeline: Pipeline, store: Store, hops: Sequence[Failure]) -> Explanation:
    """Of a request, as each proxy on its way saw it."""
    shape, example = deciding(hops)
    found = explain(hops, known(pipeline, shape, example))
    key = _key(found.object)
    if key is None:
        return found
    body, changed = await _then(store, key, example.time)
    value = value_at(body, found.field) if body and found.field else ""
    return msgspec.structs.replace(found, value=value, changed=changed)


def _key(named: str) -> Key | None:
    """The key of `Kind namespace/name`; None where that is no object."""
    kind, _space, rest = named.partition(" ")
    namespace, slash, name = rest.partition("/")
    resource = _KINDS.get(kind)
    return Key(resource, namespace, name) if resource and slash and "," not in name else None


async def _then(store: Store, key: Key, time: float) -> tuple[dict[str, Any] | None, str]:
    """An object as it was then, and what has become of it since."""
    now = await store.get(key)
    later = [
        change
        for change in await store.history(resource=key.resource, namespace=key.namespace, name=key.name, limit=50)
        if change.cause.time > time
    ]
    if later:
        first = later[-1]
        if first.previous != (now.body if now else None):
            by = f"by {first.cause.author} " if first.cause.author else ""
            what = "was changed" if now else "was deleted"
            return first.previous, f"It {what} since ({by}at revision {first.revision}); this is about how it was then"
    return (now.body if now else None), ""
