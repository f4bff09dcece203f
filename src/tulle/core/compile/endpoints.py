"""WorkloadEntries that a Service selects → its endpoints, all of them and by subset."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from tulle.api.istio import WorkloadEntry
from tulle.core.compile.destination_rules import subset_labels
from tulle.core.compile.hostname import Key, full_name, is_address
from tulle.core.compile.mistakes import error, not_yet, sorted_problems
from tulle.core.compile.mtls import Modes, modes
from tulle.core.compile.objects import (
    APP_PORTS,
    CAPTURE,
    PROXY_PORTS,
    READY,
    REGION,
    SUBZONE,
    ZONE,
    app_ports,
    chosen_label,
    has_sidecar,
    json_note,
    labels_of,
    selects,
    services,
    settled,
    workload_entries,
)
from tulle.core.compile.services import service
from tulle.core.flow import Fetch, table
from tulle.core.model.destination import DestinationKey, Endpoint, EndpointSet, Locality
from tulle.core.model.service import ServicePort
from tulle.core.model.workload import Capture, MtlsMode, ProxyPorts
from tulle.kit.problem import Problem


class Instance(msgspec.Struct, frozen=True):
    """A workload as its callers see it, whatever Service they call it by."""

    workload: str
    address: str
    identity: str
    labels: dict[str, str]
    ports: dict[str, int]
    app_ports: dict[int, int]
    mtls: bool
    weight: int
    locality: Locality
    healthy: bool

    def port(self, port: ServicePort) -> int:
        """Where a service's port is reached there: by the port's name, else by the target's number or name."""
        if port.name in self.ports:
            return self.ports[port.name]
        if isinstance(port.target, int):
            return port.target
        return self.ports.get(port.target, port.number)


def identity_of(entry: WorkloadEntry, trust_domain: str) -> str:
    """The SPIFFE ID of a workload; the account `default` where none is named, as in Kubernetes."""
    account = entry.spec.service_account or "default"
    return f"spiffe://{trust_domain}/ns/{entry.metadata.namespace}/sa/{account}"


def locality_of(entry: WorkloadEntry) -> Locality:
    """Where a workload stands: as its entry says outright, else as its `topology` labels do."""
    if entry.spec.locality:
        region, zone, subzone, *_rest = (*entry.spec.locality.split("/"), "", "", "")
        return Locality(region=region, zone=zone, subzone=subzone)
    labels = labels_of(entry)
    return Locality(region=labels.get(REGION, ""), zone=labels.get(ZONE, ""), subzone=labels.get(SUBZONE, ""))


@table
def instance(fetch: Fetch, key: Key) -> Instance | None:
    """A WorkloadEntry with an IP address."""
    entry = fetch(workload_entries, key)
    if entry is None or not is_address(entry.spec.address):
        return None
    return Instance(
        workload=f"{key[0]}/{key[1]}",
        address=entry.spec.address,
        identity=identity_of(entry, settled(fetch).trust_domain),
        labels=labels_of(entry),
        ports=dict(entry.spec.ports),
        app_ports=app_ports(entry),
        mtls=has_sidecar(entry),
        weight=entry.spec.weight or 1,
        locality=locality_of(entry),
        healthy=entry.metadata.annotations.get(READY) != "false",
    )


@table
def selected(fetch: Fetch, key: Key) -> tuple[Key, ...]:
    """The WorkloadEntries that a Service selects, in its namespace; none without a selector."""
    row = fetch(services, key)
    chosen = chosen_label(row.spec.selector) if row else None
    if row is None or chosen is None:
        return ()
    found: list[Key] = []
    for candidate in fetch.keys(workload_entries, "label", (key[0], *chosen)):
        entry = fetch(workload_entries, candidate)
        if entry and selects(row.spec.selector, labels_of(entry)):
            found.append(candidate)
    return tuple(found)


@table
def instances(fetch: Fetch, key: Key) -> tuple[Instance, ...]:
    """The workloads behind a Service."""
    return tuple(row for one in fetch(selected, key) or () if (row := fetch(instance, one)))


@table
def members(fetch: Fetch, key: tuple[Key, int, str]) -> tuple[tuple[Endpoint, str], ...] | None:
    """The endpoints of (service, port, subset), each with its identity; None where the port or the subset is not there."""
    service_key, number, subset = key
    row = fetch(service, service_key)
    port = row.port(number) if row else None
    labels = (fetch(subset_labels, service_key) or {}).get(subset) if subset else {}
    if port is None or labels is None:
        return None
    found = [_endpoint(fetch, one, port) for one in fetch(instances, service_key) or () if selects(labels, one.labels)]
    return tuple(sorted(found))


def _endpoint(fetch: Fetch, one: Instance, port: ServicePort) -> tuple[Endpoint, str]:
    reached = one.port(port)
    namespace, _slash, name = one.workload.partition("/")
    # A workload that takes no mutual TLS (DISABLE) is called as if it had no sidecar.
    mtls = (
        one.mtls
        and (fetch(modes, (namespace, name)) or Modes()).of(reached, one.app_ports.get(reached, reached)) is not MtlsMode.DISABLE
    )
    endpoint = Endpoint(
        address=one.address,
        port=reached,
        workload=one.workload,
        mtls=mtls,
        weight=one.weight,
        locality=one.locality,
        healthy=one.healthy,
    )
    return endpoint, one.identity


@table
def endpoints(fetch: Fetch, key: tuple[Key, int, str]) -> EndpointSet | None:
    """The endpoints of (service, port, subset)."""
    found = fetch(members, key)
    if found is None:
        return None
    service_key, number, subset = key
    return EndpointSet(
        key=DestinationKey(full_name(service_key), number, subset), endpoints=tuple(endpoint for endpoint, _identity in found)
    )


@table
def workload_entry_problems(fetch: Fetch, key: Key) -> tuple[Problem, ...]:
    """Addresses and annotations that cannot be used, and fields that have no effect."""
    entry = fetch(workload_entries, key)
    return sorted_problems(_problems(entry)) if entry else ()


def _problems(entry: WorkloadEntry) -> Iterator[Problem]:
    spec = entry.spec
    if not is_address(spec.address):
        yield not_yet(entry.ref, "spec.address", f"{spec.address!r} (an address that is no IP address)")
    if spec.network:
        yield not_yet(entry.ref, "spec.network")
    for note, shape, needed in (
        (APP_PORTS, dict[int, int], '{"<port>": <port of the application>}'),
        (PROXY_PORTS, ProxyPorts, '{"outbound": 15001, "inbound": 15006, "health": 15021, "metrics": 15090}'),
    ):
        if note in entry.metadata.annotations and json_note(entry, note, shape) is None:
            found = entry.metadata.annotations[note]
            yield error(
                entry.ref, f"metadata.annotations[{note}]", "BadAnnotation", f"found {found!r}; needed JSON such as {needed}"
            )
    capture = entry.metadata.annotations.get(CAPTURE, "netns")
    if capture not in set(Capture):
        message = f"found {capture!r}; needed one of {', '.join(Capture)}"
        yield error(entry.ref, f"metadata.annotations[{CAPTURE}]", "BadAnnotation", message)
