"""Which services would notice if plaintext were refused: their modes, and what proxies have counted of calls to them.

A service without calls in the window would refuse nobody that is known; `since` says how much that is worth.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import msgspec

from tulle.core.compile.endpoints import Instance, instances
from tulle.core.compile.hostname import Key, full_name
from tulle.core.compile.mtls import Modes, modes
from tulle.core.compile.objects import services, workload_entries
from tulle.core.compile.services import registry, service
from tulle.core.flow import Fetch, table
from tulle.core.model.calls import Count, Edge
from tulle.core.model.workload import MtlsMode
from tulle.core.pipeline import Pipeline


class Caller(msgspec.Struct, frozen=True, omit_defaults=True):
    """Who calls in plaintext, and how often: the `workload` (`namespace/name`) that has the `address`, where one has it."""

    address: str
    calls: int
    workload: str = ""


class Security(msgspec.Struct, frozen=True, omit_defaults=True):
    """A service (`namespace/name`): the `modes` of its workloads with a sidecar, how many are `without` one, and its calls.

    `calls` were counted by their sidecars, `mutual` of them came with mutual TLS; `plaintext` says who did not.
    """

    service: str
    modes: tuple[str, ...] = ()
    proxies: int = 0
    without: int = 0
    calls: int = 0
    mutual: int = 0
    plaintext: tuple[Caller, ...] = ()
    selector: dict[str, str] = {}

    @property
    def refused(self) -> bool:
        """Whether STRICT would refuse calls such as there were."""
        return bool(self.plaintext) or self.mutual < self.calls


class Securities(msgspec.Struct, frozen=True):
    """The services, and since when (seconds since the epoch) their calls are known."""

    since: float
    services: tuple[Security, ...] = ()


@table
def addresses(fetch: Fetch, _key: None) -> dict[str, str]:
    """The workload (`namespace/name`) at each address."""
    found = ((key, fetch(workload_entries, key)) for key in fetch.keys(workload_entries))
    return {entry.spec.address: f"{key[0]}/{key[1]}" for key, entry in found if entry is not None}


def addresses_of(pipeline: Pipeline, account: str) -> tuple[str, ...]:
    """The addresses of the workloads of a service account (`namespace/name`)."""
    namespace, _slash, name = account.partition("/")
    found: dict[str, str] = pipeline.flow.get(addresses, None) or {}
    made = ((address, pipeline.workload(workload)) for address, workload in found.items())
    of = f"/ns/{namespace}/sa/{name}"
    return tuple(sorted(address for address, one in made if one is not None and one.identity.endswith(of)))


def security(pipeline: Pipeline, calls: Mapping[Edge, Count], namespace: str = "") -> Iterator[Security]:
    """Every Service with a workload in the mesh, sorted; those of one namespace where it is named."""
    by_address = pipeline.flow.get(addresses, None) or {}
    told: dict[str, list[tuple[Edge, Count]]] = {}
    for edge, count in calls.items():
        if edge.reporter != "source":
            told.setdefault(edge.service, []).append((edge, count))
    keys: tuple[Key, ...] | None = pipeline.flow.get(registry, None)
    for key in sorted(keys or ()):
        row = pipeline.flow.get(service, key)
        if row is None or row.entry or namespace not in ("", key[0]):
            continue
        here: tuple[Instance, ...] = pipeline.flow.get(instances, key) or ()
        proxies = [one for one in here if one.mtls]
        if not proxies:
            continue
        said = pipeline.flow.get(services, key)
        rows = told.get(full_name(key), [])
        ended = [(edge, count.calls) for edge, count in rows if edge.reporter == "destination"]
        plain: dict[str, int] = {}
        for edge, count in rows:
            if edge.reporter == "plaintext":
                plain[edge.address] = plain.get(edge.address, 0) + count.calls
        yield Security(
            service=f"{key[0]}/{key[1]}",
            modes=tuple(sorted({str(mode) for one in proxies for mode in _modes(pipeline, one)})),
            proxies=len(proxies),
            without=len(here) - len(proxies),
            calls=sum(calls for _edge, calls in ended),
            mutual=sum(calls for edge, calls in ended if edge.mutual),
            plaintext=tuple(
                Caller(address, calls, by_address.get(address, ""))
                for address, calls in sorted(plain.items(), key=lambda one: (-one[1], one[0]))
            ),
            selector=dict(said.spec.selector) if said else {},
        )


def _modes(pipeline: Pipeline, one: Instance) -> set[MtlsMode]:
    """The modes of a workload's ports that services call, and of the rest."""
    namespace, _slash, name = one.workload.partition("/")
    found = pipeline.flow.get(modes, (namespace, name)) or Modes()
    return {found.default, *found.ports.values()}
