"""Which objects speak of a Service, of both APIs, whether or not what they say has an effect."""

from __future__ import annotations

from collections.abc import Iterator

from tulle.core.compile.hostname import Key, covers, full_name
from tulle.core.compile.objects import ROUTES, destination_rules, virtual_services
from tulle.core.flow import Fetch, table
from tulle.kit.problem import Ref


@table
def speakers(fetch: Fetch, key: Key) -> tuple[Ref, ...]:
    """The routes with the Service as parent, then the VirtualServices and DestinationRules with a host that means it."""
    return tuple(dict.fromkeys(_speakers(fetch, key)))


def _speakers(fetch: Fetch, key: Key) -> Iterator[Ref]:
    parent = ("", "Service", *key)
    for source in (ROUTES["HTTPRoute"], ROUTES["GRPCRoute"]):
        yield from sorted(row.ref for row in fetch.rows(source, "parent", parent))
    name = full_name(key)
    wide = (row for row in fetch.rows(virtual_services, "host", "*") if any(covers(host, name) for host in row.spec.hosts))
    yield from sorted(row.ref for row in (*fetch.rows(virtual_services, "host", key), *wide))
    rules = (row for row in fetch.rows(destination_rules, "host", "*") if covers(row.spec.host, name))
    yield from sorted(row.ref for row in (*fetch.rows(destination_rules, "host", key), *rules))
