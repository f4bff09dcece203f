"""What there is in the mesh, for people: services, workloads, and which belong to which. Read off the rows that are served."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from tulle.core.compile.endpoints import Instance, anywhere, identity_of, instances
from tulle.core.compile.hostname import Key
from tulle.core.compile.objects import settled, workload_entries
from tulle.core.compile.services import registry, service
from tulle.core.compile.workload_notes import CAPTURE, NODE, has_proxy, labels_of
from tulle.core.compile.workload_services import services_of
from tulle.core.flow import Fetch, table
from tulle.core.model.canonical import app_of, version_of
from tulle.core.pipeline import Pipeline


class WorkloadItem(msgspec.Struct, frozen=True):
    """A workload (`id` is `namespace/name`); `services` are those that select it. `proxy`: it has one of ours."""

    id: str
    app: str
    version: str
    identity: str
    node: str
    address: str
    ready: bool
    proxy: bool
    gateway: bool
    services: tuple[str, ...] = ()
    labels: dict[str, str] = {}


class PortItem(msgspec.Struct, frozen=True):
    """A port of a service."""

    number: int
    name: str
    protocol: str


class ServiceItem(msgspec.Struct, frozen=True):
    """A service (`id` is `namespace/name`, of a ServiceEntry its host); `ready` of its `endpoints` take calls."""

    id: str
    kind: str
    namespace: str
    name: str
    hostname: str
    address: str
    ports: tuple[PortItem, ...] = ()
    endpoints: int = 0
    ready: int = 0
    workloads: tuple[str, ...] = ()


class Inventory(msgspec.Struct, frozen=True):
    """Of the mesh, or of one namespace; sorted."""

    services: tuple[ServiceItem, ...] = ()
    workloads: tuple[WorkloadItem, ...] = ()


@table
def _item(fetch: Fetch, key: Key) -> WorkloadItem | None:
    entry = fetch(workload_entries, key)
    if entry is None:
        return None
    labels, notes = labels_of(entry), entry.metadata.annotations
    app = app_of(labels) or key[1]
    known = fetch(anywhere, key)
    return WorkloadItem(
        id=f"{key[0]}/{key[1]}",
        app=app,
        version=version_of(labels),
        identity=identity_of(entry, settled(fetch).trust_domain),
        node=notes.get(NODE, ""),
        address=entry.spec.address,
        ready=known is None or known.healthy,
        proxy=has_proxy(entry),
        gateway=notes.get(CAPTURE) == "none",
        services=tuple(f"{one[0]}/{one[1]}" for one in fetch(services_of, key) or ()),
        labels=dict(labels),
    )


@table
def _entries(fetch: Fetch, _key: None) -> tuple[Key, ...]:
    return tuple(sorted(fetch.keys(workload_entries)))


def inventory(pipeline: Pipeline, namespace: str = "") -> Inventory:
    """What there is now."""
    keys: tuple[Key, ...] = pipeline.flow.get(_entries, None) or ()
    items = (pipeline.flow.get(_item, key) for key in keys if namespace in ("", key[0]))
    return Inventory(tuple(_services(pipeline, namespace)), tuple(item for item in items if item is not None))


def _services(pipeline: Pipeline, namespace: str) -> Iterator[ServiceItem]:
    keys: tuple[Key, ...] = pipeline.flow.get(registry, None) or ()
    for key in sorted(keys):
        row = pipeline.flow.get(service, key)
        if row is None or namespace not in ("", row.namespace):
            continue
        here: tuple[Instance, ...] = pipeline.flow.get(instances, key) or ()
        yield ServiceItem(
            id=row.hostname if row.entry else f"{row.namespace}/{row.name}",
            kind="ServiceEntry" if row.entry else "Service",
            namespace=row.namespace,
            name=row.entry or row.name,
            hostname=row.hostname,
            address=row.address,
            ports=tuple(PortItem(port.number, port.name, str(port.protocol)) for port in row.ports),
            endpoints=len(here),
            ready=sum(one.healthy for one in here),
            workloads=tuple(sorted({one.workload for one in here if one.workload})),
        )
