"""Services: nobody behind them, and ports of which nobody said what they speak."""

from __future__ import annotations

from collections.abc import Iterator

from tulle.core.analyze.inputs import workloads_known
from tulle.core.compile.endpoints import selected
from tulle.core.compile.hostname import Key
from tulle.core.compile.mistakes import info
from tulle.core.compile.objects import services
from tulle.core.compile.services import protocol_of
from tulle.core.flow import Fetch
from tulle.core.model.service import Protocol
from tulle.kit.problem import Problem


def without_endpoints(fetch: Fetch, key: Key) -> Iterator[Problem]:
    """A selector that selects no workload."""
    row = fetch(services, key)
    if row is None or not row.spec.selector or not fetch(workloads_known, None):
        return
    if fetch(selected, key):
        return
    words = ", ".join(f"{name}: {value}" for name, value in sorted(row.spec.selector.items()))
    yield info(row.ref, "spec.selector", "NoEndpoints", f"no workload of namespace {key[0]} has the labels {words}; needed one")


def undeclared_ports(fetch: Fetch, key: Key) -> Iterator[Problem]:
    """Ports without appProtocol and without a protocol in their name."""
    row = fetch(services, key)
    for index, port in enumerate(row.spec.ports if row and row.spec.type != "ExternalName" else ()):
        if row and port.protocol == "TCP" and protocol_of(port) is Protocol.AUTO:
            found = f'appProtocol "{port.app_protocol}"' if port.app_protocol else f'the name "{port.name or ""}"'
            message = f"found {found}, which says no protocol; needed appProtocol: http, grpc, tcp, ... (HTTP/1 is recognized)"
            yield info(row.ref, f"spec.ports[{index}]", "ProtocolNotDeclared", message)
