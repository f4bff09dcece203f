"""WorkloadEntries that a service selects, and endpoints that are written out (in EndpointSlices, in ServiceEntries) → its
endpoints, all of them and by subset.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import msgspec

from tulle.api.istio import ServiceEntry, WorkloadEntry
from tulle.api.istio.entries import WorkloadEntrySpec
from tulle.core.compile.callers import Source
from tulle.core.compile.destination_rules import subset_labels, subset_labels_of
from tulle.core.compile.endpoint_slices import Written, written
from tulle.core.compile.hostname import Key, full_name, is_address
from tulle.core.compile.mistakes import error, not_yet, sorted_problems
from tulle.core.compile.mtls import Modes, modes
from tulle.core.compile.objects import (
    NETWORK,
    REGION,
    SUBZONE,
    ZONE,
    chosen_label,
    selects,
    service_entries,
    services,
    settled,
    workload_entries,
)
from tulle.core.compile.proxy_settings import Own, own_settings
from tulle.core.compile.service_entries import entries_of
from tulle.core.compile.services import service
from tulle.core.compile.sidecars import bound_inside
from tulle.core.compile.workload_notes import (
    APP_PORTS,
    CAPTURE,
    PROXY_PORTS,
    READY,
    TLS_MODE,
    app_ports,
    has_sidecar,
    json_note,
    labels_of,
)
from tulle.core.compile.workload_services import services_of
from tulle.core.flow import Fetch, table
from tulle.core.model import interception
from tulle.core.model.canonical import app_of, version_of
from tulle.core.model.destination import DestinationKey, Endpoint, EndpointSet, Locality
from tulle.core.model.service import Resolution, Service, ServicePort
from tulle.core.model.workload import Capture, MtlsMode, ProxyPorts
from tulle.kit.problem import Problem

# Endpoints, each with its identity.
Members = tuple[tuple[Endpoint, str], ...]


class Instance(msgspec.Struct, frozen=True):
    """A workload as its callers see it, whatever service they call it by.

    `serves`: only these ports of the service; empty: all.
    """

    address: str
    workload: str = ""
    identity: str = ""
    labels: dict[str, str] = {}
    ports: dict[str, int] = {}
    app_ports: dict[int, int] = {}
    mtls: bool = False
    chosen: interception.Interception = interception.Interception()  # what of its traffic meets its sidecar
    weight: int = 1
    locality: Locality = Locality()
    healthy: bool = True
    serves: tuple[int, ...] = ()
    network: str = ""

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
    return _locality(entry.spec.locality, labels_of(entry))


def network_of(spec: WorkloadEntrySpec) -> str:
    """The network that an entry says it is in; "" where it says none."""
    return spec.network or spec.labels.get(NETWORK, "")


def _locality(said: str, labels: Mapping[str, str]) -> Locality:
    if said:
        region, zone, subzone, *_rest = (*said.split("/"), "", "", "")
        return Locality(region=region, zone=zone, subzone=subzone)
    return Locality(region=labels.get(REGION, ""), zone=labels.get(ZONE, ""), subzone=labels.get(SUBZONE, ""))


@table
def instance(fetch: Fetch, key: Key) -> Instance | None:
    """A WorkloadEntry with an IP address."""
    found = fetch(anywhere, key)
    return found if found and is_address(found.address) else None


@table
def anywhere(fetch: Fetch, key: Key) -> Instance | None:
    """A WorkloadEntry with an address of whatever kind: hosts of ServiceEntries may be found by names, too."""
    entry = fetch(workload_entries, key)
    if entry is None or not entry.spec.address:
        return None
    return Instance(
        workload=f"{key[0]}/{key[1]}",
        address=entry.spec.address,
        identity=identity_of(entry, settled(fetch).trust_domain),
        labels=labels_of(entry),
        ports=dict(entry.spec.ports),
        app_ports=app_ports(entry),
        mtls=has_sidecar(entry),
        chosen=interception.read(entry.metadata.annotations)[0],
        weight=entry.spec.weight or 1,
        locality=locality_of(entry),
        healthy=entry.metadata.annotations.get(READY) != "false",
        network=network_of(entry.spec),
    )


@table
def selected(fetch: Fetch, key: Key) -> tuple[Key, ...]:
    """The WorkloadEntries that a Service selects, in its namespace; none without a selector."""
    row = fetch(services, key)
    return _selected(fetch, key[0], row.spec.selector) if row else ()


def _selected(fetch: Fetch, namespace: str, selector: dict[str, str]) -> tuple[Key, ...]:
    chosen = chosen_label(selector)
    if chosen is None:
        return ()
    found: list[Key] = []
    for candidate in fetch.keys(workload_entries, "label", (namespace, *chosen)):
        entry = fetch(workload_entries, candidate)
        if entry and selects(selector, labels_of(entry)):
            found.append(candidate)
    return tuple(found)


@table
def instances(fetch: Fetch, key: Key) -> tuple[Instance, ...]:
    """The workloads behind a service."""
    row = fetch(service, key)
    if row is not None and row.entry:
        return _of_entries(fetch, key, row)
    found = [made for one in fetch(selected, key) or () if (made := fetch(instance, one))]
    return tuple(found + [_of_slice(fetch, key[0], one) for one in written(fetch, key, row.ports)] if row else found)


def _of_slice(fetch: Fetch, namespace: str, one: Written) -> Instance:
    """An endpoint of a slice: the one workload of its namespace that has the address, else something outside the mesh."""
    there = fetch.keys(workload_entries, "address", (namespace, one.address))
    known = fetch(instance, there[0]) if len(there) == 1 else None
    found = known or Instance(address=one.address, locality=_locality("", one.topology))
    ready = one.ready and found.healthy
    return msgspec.structs.replace(found, ports=dict(one.ports), serves=one.serves, healthy=ready)


def _of_entries(fetch: Fetch, key: Key, row: Service) -> tuple[Instance, ...]:
    """Those of each ServiceEntry of a host, for the ports that it names; the host itself where DNS is to find it."""
    found: list[Instance] = []
    for one in fetch(entries_of, key) or ():
        entry = fetch(service_entries, one)
        assert entry is not None
        selector = entry.spec.workload_selector.labels if entry.spec.workload_selector else {}
        here = [made for name in _selected(fetch, one[0], selector) if (made := fetch(anywhere, name))]
        here += (_written(fetch, entry, spec) for spec in entry.spec.endpoints if spec.address)
        by_dns = row.resolution in (Resolution.DNS, Resolution.LOGICAL_DNS)
        if by_dns and not here and "*" not in row.hostname:
            here = [Instance(address=row.hostname)]
        serves = tuple(port.number for port in entry.spec.ports)
        found += (
            msgspec.structs.replace(made, serves=serves, mtls=made.mtls and not row.external)
            for made in here
            if by_dns or _is_place(made.address)
        )
    return tuple(found) if row.resolution.has_endpoints else ()


def _is_place(address: str) -> bool:
    """Whether a proxy can connect to an address without asking DNS."""
    return is_address(address) or address.startswith("unix://")


def _written(fetch: Fetch, row: ServiceEntry, spec: WorkloadEntrySpec) -> Instance:
    """An endpoint of a ServiceEntry. Its label says whether a sidecar answers there, as in Istio."""
    account = f"spiffe://{settled(fetch).trust_domain}/ns/{row.metadata.namespace}/sa/{spec.service_account}"
    return Instance(
        address=spec.address,
        identity=account if spec.service_account else "",
        labels=dict(spec.labels),
        ports=dict(spec.ports),
        mtls=spec.labels.get(TLS_MODE) == "istio",
        weight=spec.weight or 1,
        locality=_locality(spec.locality, spec.labels),
        network=network_of(spec),
    )


@table
def datagram_endpoints(fetch: Fetch, key: tuple[Key, int]) -> tuple[Endpoint, ...]:
    """The endpoints of (service, UDP port). Sidecars have no part in it: the applications themselves are reached."""
    service_key, number = key
    row = fetch(service, service_key)
    port = row.datagrams(number) if row else None
    if row is None or port is None:
        return ()
    found = [made for one in fetch(selected, service_key) or () if (made := fetch(instance, one))]
    slices = (_of_slice(fetch, service_key[0], one) for one in written(fetch, service_key, row.udp, "UDP"))
    found += (one for one in slices if number in one.serves)
    return tuple(
        sorted(
            Endpoint(one.address, one.port(port), one.workload, weight=one.weight, locality=one.locality, healthy=one.healthy)
            for one in found
        )
    )


@table
def members(fetch: Fetch, key: tuple[Key, int, str]) -> Members | None:
    """The endpoints of (service, port, subset), each with its identity; None where the port or the subset is not there."""
    labels = (fetch(subset_labels, key[0]) or {}).get(key[2]) if key[2] else {}
    return _having(fetch, key, labels)


@table
def members_of(fetch: Fetch, key: tuple[tuple[Key, int, str], Source]) -> Members | None:
    """The same as some callers have them, by whose own rules a subset may be another one."""
    place, source = key
    if not is_meant_otherwise(fetch, place, source):
        found: Members | None = fetch(members, place)
        return found
    return _having(fetch, place, (fetch(subset_labels_of, (place[0], source)) or {}).get(place[2]))


def is_meant_otherwise(fetch: Fetch, place: tuple[Key, int, str], source: Source) -> bool:
    """Whether some callers' rules define a subset otherwise than others' of the same name."""
    service_key, _port, subset = place
    if not subset:
        return False
    own: dict[str, dict[str, str]] = fetch(subset_labels_of, (service_key, source)) or {}
    return own.get(subset) != (fetch(subset_labels, service_key) or {}).get(subset)


def _having(fetch: Fetch, key: tuple[Key, int, str], labels: Mapping[str, str] | None) -> Members | None:
    """The endpoints of a port that have some labels; None where there is no such port, or no subset that says any."""
    service_key, number, _subset = key
    row = fetch(service, service_key)
    port = row.port(number) if row else None
    if port is None or labels is None:
        return None
    found = [
        _endpoint(fetch, one, port)
        for one in fetch(instances, service_key) or ()
        if selects(labels, one.labels) and (not one.serves or number in one.serves)
    ]
    # One that is asked of DNS anew for each connection can only be one.
    return tuple(sorted(found)[:1] if row and row.resolution is Resolution.LOGICAL_DNS else sorted(found))


def _endpoint(fetch: Fetch, one: Instance, port: ServicePort) -> tuple[Endpoint, str]:
    reached = one.port(port)
    namespace, _slash, name = one.workload.partition("/")
    # A workload that takes no mutual TLS (DISABLE), or whose sidecar does not see the port, is called as if it had no sidecar.
    mtls = (
        one.mtls
        and (one.chosen.enters(reached) or reached in bound_inside(fetch, (namespace, name)))
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
        network=one.network,
        app=app_of(one.labels) if one.workload else "",
        version=version_of(one.labels) if one.workload else "",
    )
    return endpoint, one.identity


@table
def endpoints(fetch: Fetch, key: tuple[Key, int, str]) -> EndpointSet | None:
    """The endpoints of (service, port, subset); None for those that the callers' proxies find themselves."""
    return _set(fetch, key, fetch(members, key))


@table
def endpoints_of(fetch: Fetch, key: tuple[tuple[Key, int, str], Source]) -> EndpointSet | None:
    """The same as some callers have them (`members_of`)."""
    return _set(fetch, key[0], fetch(members_of, key))


def _set(fetch: Fetch, key: tuple[Key, int, str], found: Members | None) -> EndpointSet | None:
    row = fetch(service, key[0])
    if found is None or row is None or row.resolution is not Resolution.KNOWN:
        return None
    service_key, number, subset = key
    return EndpointSet(
        key=DestinationKey(full_name(service_key), number, subset), endpoints=tuple(endpoint for endpoint, _identity in found)
    )


@table
def workload_entry_problems(fetch: Fetch, key: Key) -> tuple[Problem, ...]:
    """Addresses and annotations that cannot be used, and fields that have no effect."""
    entry = fetch(workload_entries, key)
    return sorted_problems(_problems(fetch, key, entry)) if entry else ()


def _by_name(fetch: Fetch, key: Key) -> bool:
    """Whether callers ask DNS for the endpoints of a service."""
    row = fetch(service, key)
    return row is not None and row.resolution in (Resolution.DNS, Resolution.LOGICAL_DNS)


def _problems(fetch: Fetch, key: Key, entry: WorkloadEntry) -> Iterator[Problem]:
    spec = entry.spec
    if not is_address(spec.address) and not any(_by_name(fetch, one) for one in fetch(services_of, key) or ()):
        what = f"{spec.address!r} (an address that is no IP address, without a ServiceEntry that resolves it by DNS)"
        yield not_yet(entry.ref, "spec.address", what)
    yield from (fetch(own_settings, key) or Own()).problems
    for mistake in interception.read(entry.metadata.annotations)[1]:
        yield error(entry.ref, f"metadata.annotations[{mistake.annotation}]", "BadAnnotation", mistake.message)
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
