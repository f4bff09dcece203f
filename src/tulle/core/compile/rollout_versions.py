"""Which backends of a route, and which instances, are a version of a service: for roll-outs."""

from __future__ import annotations

import msgspec

from tulle.core.compile.destination_rules import subset_labels
from tulle.core.compile.endpoints import anywhere, selected
from tulle.core.compile.hostname import Key
from tulle.core.compile.objects import services
from tulle.core.flow import Fetch, table
from tulle.core.model.canonical import version_of
from tulle.core.rollout.steering import Side


class Asked(msgspec.Struct, frozen=True):
    """A version of the Service `target` (of `namespace`): by its label, or by a Service of its own.

    `backends`: the Services of this namespace that a route of the Gateway API names; with None it is a VirtualService.
    """

    namespace: str
    target: str
    version: str = ""
    service: str = ""
    backends: tuple[str, ...] | None = None


@table
def version_side(fetch: Fetch, asked: Asked) -> Side:
    """How the route names it."""
    if asked.service:
        return Side(((asked.namespace, asked.service),))
    if asked.backends is None:
        key = asked.namespace, asked.target
        labels = fetch(subset_labels, key) or {}
        return Side((key,), tuple(name for name, said in labels.items() if said.get("version") == asked.version))
    keys = [(asked.namespace, name) for name in asked.backends]
    rows = [(key, fetch(services, key)) for key in keys]
    return Side(tuple(key for key, row in rows if row is not None and row.spec.selector.get("version") == asked.version))


@table
def version_instances(fetch: Fetch, asked: Asked) -> int | None:
    """How many of its instances take traffic; None where that is not known: the Service is not there, or selects none itself."""
    key: Key = (asked.namespace, asked.service or asked.target)
    row = fetch(services, key)
    if row is None or not row.spec.selector:
        return None
    found = [fetch(anywhere, one) for one in fetch(selected, key) or ()]
    return sum(one is not None and one.healthy and asked.version in ("", version_of(one.labels)) for one in found)
