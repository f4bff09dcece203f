"""Gateways of both APIs: two for one port and host, and classes that nobody serves."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from tulle.core.compile.gateway_workloads import CLASSES, is_ours
from tulle.core.compile.hostname import Key
from tulle.core.compile.mistakes import warning
from tulle.core.compile.objects import age, gateway_classes, gateways, istio_gateways
from tulle.core.flow import Fetch
from tulle.kit.problem import Problem


def istio_gateway_conflicts(fetch: Fetch, key: Key) -> Iterator[Problem]:
    """Older Gateways with the same port and host on workloads that both may select."""
    row = fetch(istio_gateways, key)
    for index, server in enumerate(row.spec.servers if row else ()):
        for at, host in enumerate(server.hosts):
            name = host.rpartition("/")[2]
            for other in fetch.rows(istio_gateways, "server", (server.port.number, name)):
                if row and age(other) < age(row) and _together(row.spec.selector, other.spec.selector):
                    message = f"the older {other.ref} has {name} on port {server.port.number} too; needed it in one of the two"
                    yield warning(row.ref, f"spec.servers[{index}].hosts[{at}]", "Conflict", message)
                    break


def _together(one: Mapping[str, str], other: Mapping[str, str]) -> bool:
    """Whether a workload may have the labels of both."""
    return all(other.get(label, value) == value for label, value in one.items())


def gateway_conflicts(fetch: Fetch, key: Key) -> Iterator[Problem]:
    """Older Gateways of ours with the same port and hostname: all of them are on the same gateway workloads."""
    row = fetch(gateways, key)
    if row is None or not fetch(is_ours, row.spec.gateway_class_name):
        return
    for index, listener in enumerate(row.spec.listeners):
        name = listener.hostname or "*"
        for other in fetch.rows(gateways, "listener", (listener.port, name)):
            if age(other) < age(row) and fetch(is_ours, other.spec.gateway_class_name):
                message = f"the older {other.ref} has {name} on port {listener.port} too; needed it in one of the two"
                yield warning(row.ref, f"spec.listeners[{index}]", "Conflict", message)
                break


def gateway_class(fetch: Fetch, key: Key) -> Iterator[Problem]:
    """A class that is neither ours nor another controller's."""
    row = fetch(gateways, key)
    if row is None:
        return
    name = row.spec.gateway_class_name
    if name not in CLASSES and fetch(gateway_classes, ("", name)) is None:
        message = f"no GatewayClass {name}; needed {' or '.join(CLASSES)}, or a GatewayClass of that name"
        yield warning(row.ref, "spec.gatewayClassName", "ClassNotFound", message)
