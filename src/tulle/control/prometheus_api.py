"""`/tulle/v1/prometheus`: where Prometheus finds what to read, as its HTTP service discovery wants it.

    GET /prometheus/workloads        every workload with a proxy, at the metrics of its node
    GET /prometheus/nodes            the nodes themselves
    GET /prometheus/control-planes   the control planes

Mounted beside the API server's paths, which lets in whom a rule with `nonResourceURLs` of the path allows it (the role
`metrics-reader` does). A target that has gone is left out; of an annotation that is no address nothing is said.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any

import msgspec
from aiohttp import web

from tulle.core.model.canonical import app_of, version_of

METRICS = "tulle.dev/metrics"
NODE = "tulle.dev/node"
_ADDRESS = re.compile(r"(\[[0-9a-fA-F:.]{2,45}\]|[A-Za-z0-9.-]{1,253}):[0-9]{1,5}")

Body = Mapping[str, Any]


class Group(msgspec.Struct, frozen=True):
    """Targets that have their labels in common."""

    targets: tuple[str, ...]
    labels: dict[str, str]


def add_prometheus(
    app: web.Application, entries: Callable[[], Awaitable[Iterable[Body]]], planes: Callable[[], Mapping[str, str]]
) -> None:
    """Serve them. `entries` are the WorkloadEntries, `planes` the addresses of the control planes by name."""

    def answered(made: Callable[[], Awaitable[Sequence[Group]]]) -> Callable[[web.Request], Awaitable[web.Response]]:
        async def handle(_request: web.Request) -> web.Response:
            return web.Response(body=msgspec.json.encode(await made()), content_type="application/json")

        return handle

    async def of_workloads() -> Sequence[Group]:
        return workload_targets(await entries())

    async def of_nodes() -> Sequence[Group]:
        return node_targets(await entries())

    async def of_planes() -> Sequence[Group]:
        return [Group((address,), {"instance": name}) for name, address in sorted(planes().items())]

    app.router.add_get("/prometheus/workloads", answered(of_workloads))
    app.router.add_get("/prometheus/nodes", answered(of_nodes))
    app.router.add_get("/prometheus/control-planes", answered(of_planes))


def workload_targets(entries: Iterable[Body]) -> list[Group]:
    """A target for each workload that a node runs."""
    found = []
    for body in entries:
        metadata, notes = body["metadata"], body["metadata"].get("annotations") or {}
        address = notes.get(METRICS, "")
        if not _ADDRESS.fullmatch(address):
            continue
        namespace, name = metadata["namespace"], metadata["name"]
        own = {**(metadata.get("labels") or {}), **(body.get("spec", {}).get("labels") or {})}
        labels = {
            "__metrics_path__": f"/workloads/{namespace}/{name}",
            "instance": f"{namespace}/{name}",
            "namespace": namespace,
            "workload": name,
            "app": app_of(own),
            "version": version_of(own),
            "node": notes.get(NODE, ""),
        }
        found.append(Group((address,), labels))
    return sorted(found, key=lambda group: group.labels["instance"])


def node_targets(entries: Iterable[Body]) -> list[Group]:
    """A target for each node that runs workloads."""
    found: dict[str, str] = {}
    for body in entries:
        notes = body["metadata"].get("annotations") or {}
        address = notes.get(METRICS, "")
        if notes.get(NODE) and _ADDRESS.fullmatch(address):
            found.setdefault(notes[NODE], address)
    return [Group((address,), {"instance": node, "node": node}) for node, address in sorted(found.items())]
