"""Gateways of both APIs → the ports that a gateway workload binds, and the servers and listeners behind each.

A Gateway says a port as clients name it; the workload binds what the Service in front of it sends that port to (its
`targetPort`), or the port itself where no Service has it. What lands on one bound port is one table.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from tulle.api.gateway import Gateway
from tulle.api.gateway.gateway import Listener
from tulle.api.istio import Gateway as IstioGateway
from tulle.api.istio.gateway import Server
from tulle.core.compile.endpoints import instance
from tulle.core.compile.hostname import Key
from tulle.core.compile.mistakes import not_yet, sorted_problems, unsaid, warning
from tulle.core.compile.objects import gateways, istio_gateways, labels_of, selects, workload_entries
from tulle.core.compile.services import service
from tulle.core.compile.workload_services import services_of
from tulle.core.flow import Fetch, table
from tulle.core.model.route import RouteTableKey
from tulle.core.model.workload import GatewayListener
from tulle.kit.problem import Problem, Ref

# The classes of Gateways that are ours, and the label of the workloads that they are bound to.
CLASSES = ("tulle", "istio")
LABELS = {"istio": "ingressgateway"}

_HTTP = ("HTTP", "HTTP2", "GRPC", "GRPC-WEB")
_ANY = "0.0.0.0"  # noqa: S104 - a gateway is there to be reached


class Bound(msgspec.Struct, frozen=True, order=True):
    """A server or listener (by its index) of a Gateway, bound to a port. `istio` tells the two APIs apart."""

    port: int
    istio: bool
    gateway: Key
    index: int
    address: str = _ANY


def serves(server: Server) -> bool:
    """Whether a server of Istio's Gateway is one that the model can say."""
    return server.port.protocol.upper() in _HTTP and server.tls is None and not server.bind.startswith("unix://")


def listens(listener: Listener) -> bool:
    """Whether a listener of the Gateway API is one that the model can say."""
    return listener.protocol == "HTTP"


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
def bound(fetch: Fetch, key: Key) -> tuple[Bound, ...]:
    """Everything that a gateway workload serves, by port."""
    labels = fetch(gateway_labels, key) or {}
    found: list[Bound] = []
    for one in fetch.keys(istio_gateways):
        row = fetch(istio_gateways, one)
        if row and selects(row.spec.selector, labels):
            for index, server in enumerate(row.spec.servers):
                if serves(server):
                    port = bound_port(fetch, key, server.port.number)
                    found.append(Bound(port, True, one, index, server.bind or _ANY))
    if selects(LABELS, labels):
        for one in fetch.keys(gateways):
            gateway = fetch(gateways, one)
            if gateway and gateway.spec.gateway_class_name in CLASSES:
                for index, listener in enumerate(gateway.spec.listeners):
                    if listens(listener):
                        found.append(Bound(bound_port(fetch, key, listener.port), False, one, index))
    return tuple(sorted(found))


def bound_port(fetch: Fetch, key: Key, number: int) -> int:
    """The port that a gateway workload binds for the port that a Gateway says."""
    here = fetch(instance, key)
    for one in fetch(services_of, key) or ():
        row = fetch(service, one)
        port = row.port(number) if row else None
        if here and port:
            return here.port(port)
    return number


def table_key(key: Key, port: int) -> RouteTableKey:
    """The route table of a gateway workload's port."""
    return RouteTableKey(port=port, namespace=key[0], gateway=f"{key[0]}/{key[1]}")


@table
def gateway_listeners(fetch: Fetch, key: Key) -> tuple[GatewayListener, ...]:
    """The ports that a gateway workload binds. Servers that name different addresses of one port share it on all addresses."""
    addresses: dict[int, set[str]] = {}
    for one in fetch(bound, key) or ():
        addresses.setdefault(one.port, set()).add(one.address)
    return tuple(
        GatewayListener(port=port, table=table_key(key, port), address=next(iter(named)) if len(named) == 1 else _ANY)
        for port, named in sorted(addresses.items())
    )


@table
def istio_gateway_problems(fetch: Fetch, key: Key) -> tuple[Problem, ...]:
    """Servers that are not supported yet, and a selector that selects no gateway."""
    row = fetch(istio_gateways, key)
    return sorted_problems(_istio(fetch, row)) if row else ()


def _istio(fetch: Fetch, row: IstioGateway) -> Iterator[Problem]:
    for index, server in enumerate(row.spec.servers):
        path = f"spec.servers[{index}]"
        if server.port.protocol.upper() not in _HTTP:
            yield not_yet(row.ref, f"{path}.port.protocol", server.port.protocol)
        elif server.tls is not None:
            yield not_yet(row.ref, f"{path}.tls", "tls")
        if server.bind.startswith("unix://"):
            yield not_yet(row.ref, f"{path}.bind", "a Unix socket")
    if not any(selects(row.spec.selector, labels) for labels in _all_labels(fetch)):
        yield _no_workload(row.ref, "spec.selector", row.spec.selector)


def _all_labels(fetch: Fetch) -> Iterator[dict[str, str]]:
    for one in fetch(gateway_workloads, None) or ():
        yield fetch(gateway_labels, one) or {}


def _no_workload(ref: Ref, path: str, labels: dict[str, str]) -> Problem:
    words = ", ".join(f"{key}: {value}" for key, value in sorted(labels.items())) or "any labels"
    return warning(ref, path, "NoGatewayWorkload", f"no gateway workload has the labels {words}; nothing is served until one has")


@table
def gateway_problems(fetch: Fetch, key: Key) -> tuple[Problem, ...]:
    """Listeners that are not supported yet, fields without effect, and a class without a workload."""
    row = fetch(gateways, key)
    if row is None or row.spec.gateway_class_name not in CLASSES:
        return ()
    return sorted_problems(_gateway(fetch, row))


def _gateway(fetch: Fetch, row: Gateway) -> Iterator[Problem]:
    yield from unsaid(row.ref, row.spec, "spec", ("gateway_class_name", "listeners", "infrastructure"))
    for index, listener in enumerate(row.spec.listeners):
        if not listens(listener):
            yield not_yet(row.ref, f"spec.listeners[{index}].protocol", listener.protocol)
    if not any(selects(LABELS, labels) for labels in _all_labels(fetch)):
        yield _no_workload(row.ref, "spec.gatewayClassName", LABELS)
