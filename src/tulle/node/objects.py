"""Pure: a workload of this node as the API objects that tell the mesh of it (docs/architecture.md, "Workloads")."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from tulle.client.node_api import WorkloadSpec
from tulle.core.model.workload import Capture, ProxyPorts
from tulle.node.groups import GROUP

NODE = "tulle.dev/node"
CAPTURE = "tulle.dev/capture"
READY = "tulle.dev/ready"
PROXY_PORTS = "tulle.dev/proxy-ports"
APP_PORTS = "tulle.dev/app-ports"
IPV6 = "tulle.dev/ipv6"
METRICS = "tulle.dev/metrics"  # HOST:PORT of its node's metrics, which has this workload's under /workloads/
DATAGRAMS = "tulle.dev/datagrams"
OWNED = "tulle.dev/made-by-node"  # on a Service that no person wrote: it goes with the last workload behind it

Body = dict[str, Any]


class Place(msgspec.Struct, frozen=True):
    """Where a workload is reached: what its sandbox says."""

    capture: Capture
    address: str
    proxy_ports: ProxyPorts = ProxyPorts()
    inbound_ports: dict[int, int] = {}
    app_ports: dict[int, int] = {}
    ipv6: bool = False
    metrics: str = ""
    datagrams: bool = False


def labels(spec: WorkloadSpec) -> dict[str, str]:
    """`app`, `version` and the canonical names, and what the spec adds; the spec's own win."""
    app = spec.labels.get("app") or spec.service or spec.name
    made = {"app": app, "service.istio.io/canonical-name": app}
    if spec.version:
        made |= {"version": spec.version, "service.istio.io/canonical-revision": spec.version}
    return {**made, **spec.labels}


def workload_entry(spec: WorkloadSpec, place: Place, node: str, ready: bool, services: Sequence[Body] = ()) -> Body:
    """The WorkloadEntry. `services` are those of the namespace: their port names are needed where ports differ (`proxy`)."""
    annotations = {**spec.annotations, NODE: node, CAPTURE: place.capture.value, READY: "true" if ready else "false"}
    # A sidecar that has ports of its own for its callers has them for TCP.
    where = {port.bound: place.app_ports if port.is_udp else place.inbound_ports for port in spec.ports}
    reached = {bound: ports.get(bound, bound) for bound, ports in where.items()}
    ports = {port.label: reached[port.bound] for port in spec.ports if port.name}
    if place.capture is Capture.PROXY:
        ports |= {port.label: reached[port.bound] for port in spec.ports}
        ports |= _named(services, labels(spec), reached)
        inside = {reached[port.bound]: place.app_ports.get(port.bound, port.bound) for port in spec.ports}
        annotations[APP_PORTS] = msgspec.json.encode({str(outer): inner for outer, inner in inside.items()}).decode()
    if place.capture is Capture.CGROUP:  # of the same service's workloads on one host, each binds another port
        ports |= {port.label: port.bound for port in spec.ports if port.target}
        ports |= _by_number(services, spec)
    if place.metrics:
        annotations[METRICS] = place.metrics
    if place.ipv6:
        annotations[IPV6] = "true"
    if place.datagrams:
        annotations[DATAGRAMS] = "true"
    if place.proxy_ports != ProxyPorts():
        annotations[PROXY_PORTS] = msgspec.json.encode(place.proxy_ports).decode()
    body: Body = {
        "apiVersion": "networking.istio.io/v1",
        "kind": "WorkloadEntry",
        "metadata": {
            "name": spec.name,
            "namespace": spec.namespace,
            "labels": labels(spec),
            "annotations": annotations,
        },
        "spec": {"address": place.address, "labels": labels(spec), "serviceAccount": spec.service_account},
    }
    ports = {**spec.named_ports, **ports}
    said = {"ports": ports, "locality": spec.locality, "weight": spec.weight}
    body["spec"] |= {field: value for field, value in said.items() if value}
    if spec.group:
        annotations[GROUP] = spec.group
    return body


def _by_number(services: Sequence[Body], spec: WorkloadSpec) -> dict[str, int]:
    """Where this workload binds another port than the Services that select it say: under the names that they give it."""
    bound = {port.number: port.bound for port in spec.ports if port.target}
    return {
        port["name"]: bound[port["port"]]
        for service in services
        if selects(service, {"metadata": {"labels": labels(spec)}})
        for port in service["spec"].get("ports", ())
        if port.get("name") and port["port"] in bound
    }


def _named(services: Sequence[Body], own: Mapping[str, str], reached: Mapping[int, int]) -> dict[str, int]:
    """The sidecar's ports under the names that the Services which select this workload give them."""
    found = {}
    for service in services:
        selector = service.get("spec", {}).get("selector") or {}
        if not selector or any(own.get(key) != value for key, value in selector.items()):
            continue
        for port in service["spec"].get("ports", ()):
            target = port.get("targetPort", port["port"])
            if target in reached and port.get("name"):
                found[port["name"]] = reached[target]
    return found


def service(spec: WorkloadSpec) -> Body:
    """The Service that is written where none stands."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "name": spec.service,
            "namespace": spec.namespace,
            "labels": {"app": labels(spec)["app"]},
            "annotations": {OWNED: "true"},
        },
        "spec": {"selector": {"app": labels(spec)["app"]}, "ports": service_ports(spec)},
    }


def service_ports(spec: WorkloadSpec) -> list[Body]:
    """The ports as a Service has them."""
    made = []
    for port in spec.ports:
        one: Body = {"name": port.label, "port": port.number, "targetPort": port.bound}
        if port.is_udp:
            one["protocol"] = "UDP"
        elif port.protocol:
            one["appProtocol"] = port.protocol
        made.append(one)
    return made


def service_account(spec: WorkloadSpec) -> Body:
    """The ServiceAccount, so that its name is there to be seen and referred to."""
    return {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": {"name": spec.service_account, "namespace": spec.namespace},
    }


def namespace(spec: WorkloadSpec) -> Body:
    """The Namespace."""
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": spec.namespace}}


def missing_ports(standing: Body, spec: WorkloadSpec) -> list[Body]:
    """The ports that a Service made by a node lacks for this workload."""
    there = {port["port"] for port in standing.get("spec", {}).get("ports", ())}
    names = {port.get("name") for port in standing.get("spec", {}).get("ports", ())}
    return [port for port in service_ports(spec) if port["port"] not in there and port["name"] not in names]


def selects(standing: Body, entry: Body) -> bool:
    """Whether a Service selects a WorkloadEntry."""
    selector = standing.get("spec", {}).get("selector") or {}
    own = {**entry.get("metadata", {}).get("labels", {}), **entry.get("spec", {}).get("labels", {})}
    return bool(selector) and all(own.get(key) == value for key, value in selector.items())
