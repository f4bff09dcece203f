"""Sidecar and MeshConfig → what the proxies of a namespace, or of some of its workloads, may call and are called at.

A workload follows the oldest Sidecar of its namespace that selects it, else the oldest that selects nothing, else such a one of
the root namespace. Sidecars that select workloads tell these apart from the others of their namespace: they get tables and
listeners of their own, by a label that only the model knows (`SELECTED`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from tulle.api.istio import Sidecar
from tulle.api.istio.sidecar import EgressListener, IngressListener
from tulle.core.compile.hostname import Key, covers
from tulle.core.compile.mistakes import not_yet, sorted_problems, unsaid
from tulle.core.compile.objects import age, labels_of, mesh_configs, selects, settled, sidecars, workload_entries
from tulle.core.compile.services import registry, service
from tulle.core.flow import Fetch, table
from tulle.core.model.service import PROTOCOLS, Protocol, Service
from tulle.kit.problem import Problem

SELECTED = "tulle.dev/sidecar"
_LOCAL = ("127.0.0.1:", "0.0.0.0:")


def _selector(row: Sidecar) -> dict[str, str]:
    return dict(row.spec.workload_selector.labels) if row.spec.workload_selector else {}


@table
def selecting_sidecar(fetch: Fetch, key: Key) -> str:
    """The Sidecar that selects a workload, by its name; "" where none does."""
    entry = fetch(workload_entries, key)
    if entry is None:
        return ""
    labels = labels_of(entry)
    mine = (row for row in fetch.rows(sidecars, "namespace", key[0]) if _selector(row) and selects(_selector(row), labels))
    first = min(mine, key=age, default=None)
    return first.metadata.name if first else ""


@table
def wide_sidecar(fetch: Fetch, namespace: str) -> Key | None:
    """The Sidecar for those workloads of a namespace that none selects."""
    for space in (namespace, *settled(fetch).root_namespaces):
        first = min((row for row in fetch.rows(sidecars, "namespace", space) if not _selector(row)), key=age, default=None)
        if first is not None:
            return first.metadata.namespace, first.metadata.name
    return None


def sidecar_for(fetch: Fetch, namespace: str, labels: Iterable[tuple[str, str]]) -> Sidecar | None:
    """The Sidecar that callers of a namespace with these labels follow."""
    selected = dict(labels).get(SELECTED)
    key = (namespace, selected) if selected else fetch(wide_sidecar, namespace)
    return fetch(sidecars, key) if key else None


def sidecar_of(fetch: Fetch, key: Key) -> Sidecar | None:
    """The Sidecar that a workload follows."""
    selected = fetch(selecting_sidecar, key)
    return sidecar_for(fetch, key[0], ((SELECTED, selected),) if selected else ())


def registry_only(fetch: Fetch, row: Sidecar | None) -> bool:
    """Whether those who follow a Sidecar (or none) may call nothing that the mesh does not know."""
    if row is not None and row.spec.outbound_traffic_policy is not None:
        return row.spec.outbound_traffic_policy.mode == "REGISTRY_ONLY"
    return any(config.spec.outbound_traffic_policy.mode == "REGISTRY_ONLY" for config in fetch.rows(mesh_configs))


def left_out(fetch: Fetch, row: Sidecar, namespace: str) -> Iterator[tuple[Key, int]]:
    """The services' ports that a Sidecar leaves out for callers of a namespace."""
    egress = row.spec.egress
    if not egress:
        return
    by_port = {one.port.number: one for one in egress if one.port is not None}
    rest = next((one for one in egress if one.port is None), None)
    for key in fetch(registry, None) or ():
        called = fetch(service, key)
        for port in called.ports if called else ():
            assert called is not None
            listener = by_port.get(port.number, rest)
            if listener is None or not _admits(listener, called, namespace):
                yield key, port.number


def _admits(listener: EgressListener, called: Service, namespace: str) -> bool:
    for said in listener.hosts:
        space, _slash, host = said.partition("/")
        here = space in ("*", called.namespace) or (space == "." and namespace == called.namespace)
        if here and covers(host.lower(), called.hostname):
            return True
    return False


def ingress(row: Sidecar | None) -> tuple[tuple[int, int, Protocol], ...] | None:
    """The ports at which workloads are called, each with the application's and what is spoken; None: as services say."""
    if row is None or not row.spec.ingress:
        return None
    return tuple((one.port.number, _behind(one) or one.port.number, _protocol(one)) for one in row.spec.ingress)


def _protocol(listener: IngressListener) -> Protocol:
    return PROTOCOLS.get(listener.port.protocol.upper(), Protocol.TCP)


def _behind(listener: IngressListener) -> int:
    """The application's port; 0 where none, or something else, is said."""
    endpoint = listener.default_endpoint
    return int(endpoint.rpartition(":")[2] or 0) if endpoint.startswith(_LOCAL) else 0


@table
def sidecar_problems(fetch: Fetch, key: Key) -> tuple[Problem, ...]:
    """Fields without effect, hosts that nothing has."""
    row = fetch(sidecars, key)
    return sorted_problems(_problems(fetch, row)) if row else ()


def _problems(fetch: Fetch, row: Sidecar) -> Iterator[Problem]:
    ref, spec = row.ref, row.spec
    yield from unsaid(ref, spec, "spec", ("workload_selector", "ingress", "egress", "outbound_traffic_policy"))
    yield from unsaid(ref, spec.outbound_traffic_policy, "spec.outboundTrafficPolicy", ("mode",))
    for index, listener in enumerate(spec.ingress):
        path = f"spec.ingress[{index}]"
        yield from unsaid(ref, listener, path, ("port", "default_endpoint"))
        yield from unsaid(ref, listener.port, f"{path}.port", ("number", "protocol", "name"))
        if listener.default_endpoint and not _behind(listener):
            yield not_yet(ref, f"{path}.defaultEndpoint", f"{listener.default_endpoint} (it is taken for 127.0.0.1)")
    for index, one in enumerate(spec.egress):
        path = f"spec.egress[{index}]"
        yield from unsaid(ref, one, path, ("port", "hosts"))
        yield from unsaid(ref, one.port, f"{path}.port", ("number", "protocol", "name"))
        if one.port is not None and one.port.number == 0:
            yield not_yet(ref, f"{path}.port.number", "a listener on a Unix socket")


@table
def mesh_config_problems(fetch: Fetch, key: Key) -> tuple[Problem, ...]:
    """Fields without effect."""
    row = fetch(mesh_configs, key)
    return sorted_problems(unsaid(row.ref, row.spec, "spec", ("outbound_traffic_policy",))) if row else ()
