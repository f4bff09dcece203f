"""The registry → what a workload's DNS answers for it."""

from __future__ import annotations

from tulle.core.compile.endpoints import instances
from tulle.core.compile.hostname import Key, is_address
from tulle.core.compile.mesh_udp import bound_addresses
from tulle.core.compile.services import service
from tulle.core.flow import Fetch, table
from tulle.core.model.name import Name


@table
def name(fetch: Fetch, key: Key) -> Name | None:
    """The virtual IP; a headless Service answers with the addresses of its ready workloads, as does one without a port of TCP
    where no datagrams are captured: only a sidecar can answer at a virtual IP.

    A host of a ServiceEntry without an address is none of the mesh's names: the world's DNS knows it.
    """
    row = fetch(service, key)
    if row is None or (row.entry and not row.address):
        return None
    own = tuple(one for one in (row.address, row.address6) if one)
    for_udp = bound_addresses(row) if row.udp and not row.ports else ()
    addresses = own if row.ports and own else _addresses(fetch, key)
    return Name(hostname=row.hostname, name=row.name, namespace=row.namespace, addresses=addresses, datagrams=for_udp)


def _addresses(fetch: Fetch, key: Key) -> tuple[str, ...]:
    found = {instance.address for instance in fetch(instances, key) or () if instance.healthy}
    return tuple(sorted(filter(is_address, found)))
