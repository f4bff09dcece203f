"""Services: nobody behind them, ports of which nobody said what they speak, and datagrams that no policy guards."""

from __future__ import annotations

from collections.abc import Iterator

from tulle.core.analyze.inputs import workloads_known
from tulle.core.compile.endpoints import selected
from tulle.core.compile.guards import is_guarded
from tulle.core.compile.hostname import Key
from tulle.core.compile.mistakes import info, warning
from tulle.core.compile.mtls import Modes, modes
from tulle.core.compile.objects import endpoint_slices, services, workload_entries
from tulle.core.compile.services import protocol_of
from tulle.core.compile.workload_notes import has_sidecar
from tulle.core.flow import Fetch
from tulle.core.model.service import Protocol
from tulle.core.model.workload import MtlsMode
from tulle.kit.problem import Problem


def without_endpoints(fetch: Fetch, key: Key) -> Iterator[Problem]:
    """A selector that selects no workload."""
    row = fetch(services, key)
    if row is None or not row.spec.selector or not fetch(workloads_known, None):
        return
    if fetch(selected, key) or fetch.keys(endpoint_slices, "service", key):
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


def unguarded_datagrams(fetch: Fetch, key: Key) -> Iterator[Problem]:
    """UDP ports of workloads for which policies say who gets in, or that nobody does without mutual TLS."""
    row = fetch(services, key)
    for index, port in enumerate(row.spec.ports if row else ()):
        if row is None or port.protocol != "UDP":
            continue
        for one in fetch(selected, key) or ():
            entry = fetch(workload_entries, one)
            said = _said_of(fetch, one, port.port) if entry and has_sidecar(entry) else ""
            if said:
                message = f"{said} of workload {one[0]}/{one[1]} is for TCP: datagrams reach it in plaintext, whoever sends them"
                yield warning(row.ref, f"spec.ports[{index}].protocol", "Unguarded", f"{message}; needed a check of its own")
                break


def _said_of(fetch: Fetch, workload: Key, port: int) -> str:
    if (fetch(modes, workload) or Modes()).default is MtlsMode.STRICT:
        return "mutual TLS (STRICT)"
    return "the AuthorizationPolicy" if is_guarded(fetch, workload, port) else ""
