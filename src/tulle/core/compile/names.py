"""Services → what a workload's DNS answers for them."""

from __future__ import annotations

from tulle.core.compile.endpoints import instances
from tulle.core.compile.hostname import Key, is_address
from tulle.core.compile.services import service
from tulle.core.flow import Fetch, table
from tulle.core.model.name import Name


@table
def name(fetch: Fetch, key: Key) -> Name | None:
    """The virtual IP; a headless Service answers with the addresses of its ready workloads."""
    row = fetch(service, key)
    if row is None:
        return None
    addresses = (row.address,) if row.address else _addresses(fetch, key)
    return Name(hostname=row.hostname, name=row.name, namespace=row.namespace, addresses=addresses)


def _addresses(fetch: Fetch, key: Key) -> tuple[str, ...]:
    found = {instance.address for instance in fetch(instances, key) or () if instance.healthy}
    return tuple(sorted(filter(is_address, found)))
