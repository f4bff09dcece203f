"""1,000 HTTPRoutes from objects to bytes: all of them from cold, and one that changes among them.

At a gateway (each for a host of its own) and in the mesh (each for a Service of its own, whose own rows are there before the
clock starts). In seconds of this process's CPU: others on the machine do not count.
"""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable
from typing import Any

import msgspec

from tests.unit.core.compile.mesh import bookinfo, changes, entry, obj, service
from tulle.api.object import Object
from tulle.core.pipeline import Pipeline

ROUTES = 1000
BACKENDS = 100
Parent = tuple[dict[str, Any], tuple[str, ...], str]


class Routes(msgspec.Struct):
    """Seconds: medians of `rounds`."""

    routes: int
    rounds: int
    gateway_cold: float
    gateway_change: float
    mesh_cold: float
    mesh_change: float


def measure(rounds: int = 9) -> Routes:
    """Both places."""
    gateway = [*(one for one in bookinfo() if one.metadata.namespace == "tulle-system"), _gateway()]
    backends = [service(f"s{n}", address=f"240.240.3.{n + 1}") for n in range(BACKENDS)]
    at_gateway = _measure([*gateway, *backends], _at_gateway, rounds)
    services = [service(f"s{n}", address=f"240.240.{4 + n // 250}.{n % 250 + 1}") for n in range(ROUTES)]
    in_mesh = _measure([*services, entry("caller", "10.0.0.9", {"app": "caller"})], _in_mesh, rounds)
    return Routes(ROUTES, rounds, *at_gateway, *in_mesh)


def _measure(around: list[Object], parent: Callable[[int], Parent], rounds: int) -> tuple[float, float]:
    colds, ones = [], []
    standing = changes(around)
    routes = changes(_route(n, parent(n), "a") for n in range(ROUTES))
    for turn in range(max(1, rounds // 3)):
        pipeline = Pipeline()
        pipeline.commit(standing)
        gc.collect()
        began = time.process_time()
        pipeline.commit(routes)
        colds.append(time.process_time() - began)
        for step in range(3):
            number = (turn * 300 + step * 97) % ROUTES
            change = changes([_route(number, parent(number), f"b{turn}")])
            began = time.process_time()
            published = pipeline.commit(change)
            ones.append(time.process_time() - began)
            assert published.changed, "the change reaches a proxy"
    return statistics.median(colds), statistics.median(ones)


def _gateway() -> Object:
    listener = {"name": "http", "port": 80, "protocol": "HTTP"}
    return obj(
        {
            "apiVersion": "gateway.networking.k8s.io/v1",
            "kind": "Gateway",
            "metadata": {"name": "front"},
            "spec": {"gatewayClassName": "tulle", "listeners": [listener]},
        }
    )


def _at_gateway(number: int) -> Parent:
    return {"name": "front"}, (f"h{number}.example",), f"s{number % BACKENDS}"


def _in_mesh(number: int) -> Parent:
    return {"group": "", "kind": "Service", "name": f"s{number}"}, (), f"s{number}"


def _route(number: int, parent: Parent, value: str) -> Object:
    """Two rules: one by path and header, one for the rest."""
    ref, hosts, backend = parent
    target = [{"name": backend, "port": 9080}]
    match = {"path": {"type": "PathPrefix", "value": "/a"}, "headers": [{"name": "x", "value": value}]}
    spec: dict[str, Any] = {"parentRefs": [ref], "rules": [{"matches": [match], "backendRefs": target}, {"backendRefs": target}]}
    if hosts:
        spec["hostnames"] = list(hosts)
    metadata = {"name": f"r{number}"}
    return obj({"apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute", "metadata": metadata, "spec": spec})
