"""Sidecar and MeshConfig → what the proxies of a namespace, or of some of its workloads, may call and are called at.

A workload follows the oldest Sidecar of its namespace that selects it, else the oldest that selects nothing, else such a one of
the root namespace. Sidecars that select workloads tell these apart from the others of their namespace: they get tables and
listeners of their own, by a label that only the model knows (`SELECTED`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from tulle.api.istio import Sidecar
from tulle.api.istio.sidecar import EgressListener, IngressListener
from tulle.core.compile.hostname import Key, covers
from tulle.core.compile.objects import age, mesh_configs, selects, settled, sidecars, workload_entries
from tulle.core.compile.services import registry, service
from tulle.core.compile.traffic_policies import Parts, Policy, read
from tulle.core.compile.workload_notes import labels_of
from tulle.core.flow import Fetch, table
from tulle.core.model.service import PROTOCOLS, Protocol, Service

SELECTED = "tulle.dev/sidecar"
UNIX = "unix://"


def _selector(row: Sidecar) -> dict[str, str]:
    return dict(row.spec.workload_selector.labels) if row.spec.workload_selector else {}


@table
def selecting_sidecar(fetch: Fetch, key: Key) -> str:
    """The Sidecar that selects a workload, by its name; "" where none does."""
    entry = fetch(workload_entries, key)
    if entry is None:
        return ""
    labels = labels_of(entry)
    mine = (row for row in fetch.rows(sidecars, "namespace", key[0]) if _selector(row) and selects(_selector(row), labels))
    first = min(mine, key=age, default=None)
    return first.metadata.name if first else ""


@table
def wide_sidecar(fetch: Fetch, namespace: str) -> Key | None:
    """The Sidecar for those workloads of a namespace that none selects."""
    for space in (namespace, *settled(fetch).root_namespaces):
        first = min((row for row in fetch.rows(sidecars, "namespace", space) if not _selector(row)), key=age, default=None)
        if first is not None:
            return first.metadata.namespace, first.metadata.name
    return None


def sidecar_for(fetch: Fetch, namespace: str, labels: Iterable[tuple[str, str]]) -> Sidecar | None:
    """The Sidecar that callers of a namespace with these labels follow."""
    selected = dict(labels).get(SELECTED)
    key = (namespace, selected) if selected else fetch(wide_sidecar, namespace)
    return fetch(sidecars, key) if key else None


def sidecar_of(fetch: Fetch, key: Key) -> Sidecar | None:
    """The Sidecar that a workload follows."""
    selected = fetch(selecting_sidecar, key)
    return sidecar_for(fetch, key[0], ((SELECTED, selected),) if selected else ())


def registry_only(fetch: Fetch, row: Sidecar | None) -> bool:
    """Whether those who follow a Sidecar (or none) may call nothing that the mesh does not know."""
    if row is not None and row.spec.outbound_traffic_policy is not None:
        return row.spec.outbound_traffic_policy.mode == "REGISTRY_ONLY"
    return any(config.spec.outbound_traffic_policy.mode == "REGISTRY_ONLY" for config in fetch.rows(mesh_configs))


def left_out(fetch: Fetch, row: Sidecar, namespace: str) -> Iterator[tuple[Key, int]]:
    """The services' ports that a Sidecar leaves out for callers of a namespace."""
    egress = row.spec.egress
    if not egress:
        return
    shared = [one for one in egress if not apart(one)]
    by_port = {one.port.number: one for one in shared if one.port is not None}
    rest = next((one for one in shared if one.port is None), None)
    for key in fetch(registry, None) or ():
        called = fetch(service, key)
        for port in (*called.ports, *called.udp) if called else ():
            assert called is not None
            listener = by_port.get(port.number, rest)
            if listener is None or not lets_through(listener, called, namespace):
                yield key, port.number


def narrows(row: Sidecar | None) -> bool:
    """Whether a Sidecar leaves out any services for those who follow it (or may, once there are such)."""
    return row is not None and any(set(listener.hosts) != {"*/*"} for listener in row.spec.egress)


def admits(row: Sidecar | None, called: Service, namespace: str) -> bool:
    """Whether callers of a namespace who follow a Sidecar (or none) know a service at all."""
    return row is None or not row.spec.egress or any(lets_through(one, called, namespace) for one in row.spec.egress)


def apart(listener: EgressListener) -> bool:
    """Whether an egress listener is at an address of its own, and not where the services are."""
    return bool(listener.bind) or listener.capture_mode == "NONE"


def lets_through(listener: EgressListener, called: Service, namespace: str) -> bool:
    """Whether callers of a namespace may call a service by an egress listener."""
    for said in listener.hosts:
        space, _slash, host = said.partition("/")
        here = space in ("*", called.namespace) or (space == "." and namespace == called.namespace)
        if here and covers(host.lower(), called.hostname):
            return True
    return False


def ingress(row: Sidecar | None) -> tuple[IngressListener, ...] | None:
    """The ports at which workloads are called; None: as services say."""
    return row.spec.ingress if row is not None and row.spec.ingress else None


def bound_inside(fetch: Fetch, key: Key) -> frozenset[int]:
    """The ports at which a workload's sidecar listens by itself, whatever is captured."""
    return frozenset(one.port.number for one in ingress(sidecar_of(fetch, key)) or () if one.capture_mode == "NONE")


def inbound_pool(row: Sidecar | None, number: int) -> Policy | None:
    """The bounds of what comes to a port of those who follow a Sidecar: the port's own, else those for all."""
    if row is None:
        return None
    own = next((one.connection_pool for one in row.spec.ingress if one.port.number == number and one.connection_pool), None)
    said = own or row.spec.inbound_connection_pool
    return read(Parts(connection_pool=said)) if said else None


def protocol_of(listener: IngressListener) -> Protocol:
    """What is spoken to an application."""
    return PROTOCOLS.get(listener.port.protocol.upper(), Protocol.TCP)


def behind(listener: IngressListener, instance: str) -> tuple[str, int, str]:
    """Where the application is: address and port, or the path of its Unix socket. `instance` is the workload's own address."""
    endpoint, number = listener.default_endpoint, listener.port.number
    if endpoint.startswith(UNIX):
        return "", number, endpoint.removeprefix(UNIX)
    host, _colon, port = endpoint.rpartition(":")
    address = {"": "127.0.0.1", "[::1]": "::1", "0.0.0.0": instance, "[::]": instance}.get(host, host)  # noqa: S104
    return address, int(port or number), ""
