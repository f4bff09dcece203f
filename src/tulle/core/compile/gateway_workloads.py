"""Gateway workloads: the Envoys to which Gateways are bound, and which ports of theirs a Gateway's ports are."""

from __future__ import annotations

from tulle.core.compile.endpoints import instance
from tulle.core.compile.hostname import Key
from tulle.core.compile.objects import gateway_classes, gateways, selects, workload_entries
from tulle.core.compile.services import service
from tulle.core.compile.workload_notes import NODE, PROXY_PORTS, json_note, labels_of
from tulle.core.compile.workload_services import services_of
from tulle.core.flow import Fetch, table
from tulle.core.model.workload import ProxyPorts

# What a GatewayClass names for its Gateways to be ours; the first is the name under which we write status.
CONTROLLERS = ("tulle.dev/gateway-controller", "istio.io/gateway-controller")
CONTROLLER = CONTROLLERS[0]
# The classes that are ours without a GatewayClass that says so.
CLASSES = ("tulle", "istio")
# The label of the workloads to which the Gateways of our classes are bound.
LABELS = {"istio": "ingressgateway"}
# The label of a workload that is for one Gateway of its namespace alone, by name; as Istio and the Gateway API have it.
GATEWAY_NAME = "gateway.networking.k8s.io/gateway-name"
# The label of a workload that a node started because a Gateway asked for it, and ends when that does (`gateway_starts`).
STARTED = "tulle.dev/started"


@table
def is_ours(fetch: Fetch, name: str) -> bool:
    """Whether Gateways of a class are ours: by its GatewayClass, or where there is none by its name."""
    row = fetch(gateway_classes, ("", name))
    if row is None:
        return name in CLASSES
    return row.spec.controller_name in CONTROLLERS and row.spec.parameters_ref is None


@table
def gateway_workloads(fetch: Fetch, _key: None) -> tuple[Key, ...]:
    """The WorkloadEntries that are gateways."""
    return fetch.keys(workload_entries, "role", "gateway")


@table
def gateway_labels(fetch: Fetch, key: Key) -> dict[str, str]:
    """The labels of a gateway workload."""
    entry = fetch(workload_entries, key)
    return labels_of(entry) if entry else {}


@table
def gateway_address(fetch: Fetch, key: Key) -> str:
    """The address of a gateway workload; "" where it has no IP address."""
    here = fetch(instance, key)
    return here.address if here else ""


@table
def gateway_ports(fetch: Fetch, key: Key) -> ProxyPorts | None:
    """The proxy's own ports of a gateway workload."""
    entry = fetch(workload_entries, key)
    return (json_note(entry, PROXY_PORTS, ProxyPorts) or ProxyPorts()) if entry else None


@table
def chosen_workloads(fetch: Fetch, key: Key) -> tuple[Key, ...]:
    """The gateway workloads for a Gateway of the Gateway API: those that are for it alone, where there are any, else all of ours.

    Where it asks for addresses, only those that have one of them. One that names a node has those only that are for it alone.
    """
    own, shared = _candidates(fetch, key)
    return own or shared


@table
def standing_workloads(fetch: Fetch, key: Key) -> tuple[tuple[Key, ...], tuple[Key, ...]]:
    """The same without those that were started for it: those that are for it alone, and all others that would serve it."""
    own, shared = _candidates(fetch, key)
    return tuple(one for one in own if STARTED not in (fetch(gateway_labels, one) or {})), shared


def _candidates(fetch: Fetch, key: Key) -> tuple[tuple[Key, ...], tuple[Key, ...]]:
    row = fetch(gateways, key)
    if row is None or not fetch(is_ours, row.spec.gateway_class_name):
        return (), ()
    wanted = {address.value for address in row.spec.addresses if address.value}
    own: list[Key] = []
    shared: list[Key] = []
    for one in fetch(gateway_workloads, None) or ():
        labels, address = fetch(gateway_labels, one) or {}, fetch(gateway_address, one)
        if wanted and address not in wanted:
            continue
        if GATEWAY_NAME in labels:
            if (one[0], labels[GATEWAY_NAME]) == key:
                own.append(one)
        elif selects(LABELS, labels) and NODE not in row.metadata.annotations:
            shared.append(one)
    return tuple(own), tuple(shared)


def own_ports(fetch: Fetch, key: Key) -> tuple[int, ...]:
    """The ports that a gateway workload's proxy has for itself: a listener there could not be opened."""
    ports = fetch(gateway_ports, key)
    return (ports.health, ports.metrics) if ports else ()


def bound_port(fetch: Fetch, key: Key, number: int, *, udp: bool = False) -> int:
    """The port that a gateway workload binds for the port that a Gateway says."""
    here = fetch(instance, key)
    for one in fetch(services_of, key) or ():
        row = fetch(service, one)
        port = (row.datagrams(number) if udp else row.port(number)) if row else None
        if here and port:
            return here.port(port)
    return number
