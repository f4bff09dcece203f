"""Gateways of both APIs → the ports that a gateway workload binds, and the servers and listeners behind each.

A Gateway says a port as clients name it; the workload binds what the Service in front of it sends that port to (its
`targetPort`), or the port itself where no Service has it. What lands on one bound port is one table.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from tulle.api.gateway import Gateway
from tulle.api.istio import Gateway as IstioGateway
from tulle.api.istio.gateway import Server
from tulle.core.compile.gateway_workloads import (
    LABELS,
    bound_port,
    chosen_workloads,
    gateway_labels,
    gateway_workloads,
    is_ours,
)
from tulle.core.compile.hostname import Key
from tulle.core.compile.listeners import gateway_fault, verdicts_of
from tulle.core.compile.mistakes import not_yet, sorted_problems, unsaid, warning
from tulle.core.compile.objects import gateways, istio_gateways, selects
from tulle.core.flow import Fetch, table
from tulle.core.model.route import RouteTableKey
from tulle.core.model.workload import GatewayListener
from tulle.kit.problem import Problem, Ref

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
            if key in (fetch(chosen_workloads, one) or ()):
                found += _listeners(fetch, key, one)
    return tuple(sorted(found))


def _listeners(fetch: Fetch, key: Key, name: Key) -> Iterator[Bound]:
    """The listeners of a Gateway of ours that are served, bound by a gateway workload."""
    row = fetch(gateways, name)
    fault, verdicts = fetch(gateway_fault, name), fetch(verdicts_of, name)
    if row is None or fault:
        return
    for index, verdict in enumerate(verdicts or ()):
        if verdict.served:
            yield Bound(bound_port(fetch, key, row.spec.listeners[index].port), False, name, index)


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
    if row is None or not fetch(is_ours, row.spec.gateway_class_name):
        return ()
    return sorted_problems(_gateway(fetch, key, row))


_SAID = ("gateway_class_name", "listeners", "infrastructure", "addresses")


def _gateway(fetch: Fetch, key: Key, row: Gateway) -> Iterator[Problem]:
    yield from unsaid(row.ref, row.spec, "spec", _SAID)
    yield from unsaid(row.ref, row.spec.infrastructure, "spec.infrastructure", ("parameters_ref",))
    if (fault := fetch(gateway_fault, key)) and fault.reason != "ListenersNotValid":
        yield warning(row.ref, fault.path, fault.reason, f"{fault.message}; nothing of the Gateway is served")
        return
    verdicts = fetch(verdicts_of, key)
    for index, verdict in enumerate(verdicts or ()):
        path = f"spec.listeners[{index}]"
        if verdict.conflict:
            yield warning(row.ref, f"{path}.port", verdict.conflict.reason, f"{verdict.conflict.message}; neither is served")
        elif verdict.refused and verdict.refused.reason == "PortUnavailable":
            yield warning(row.ref, f"{path}.port", verdict.refused.reason, verdict.refused.message)
        elif verdict.refused:
            yield not_yet(row.ref, f"{path}.protocol", row.spec.listeners[index].protocol)
    if not any(selects(LABELS, labels) for labels in _all_labels(fetch)):
        yield _no_workload(row.ref, "spec.gatewayClassName", LABELS)
