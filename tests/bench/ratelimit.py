"""What a rate limit costs a request: none, one that Envoy counts itself (local, shares), one that is counted exactly.

One Envoy with a listener for each (the filters that the mesh makes, where Envoy counts), before one that answers; beside it, as
processes of their own, what the node agent does for an exact limit and what the control plane does, without TLS between them.
Limits are so high that nothing is refused.
"""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import grpc
import msgspec
from google.protobuf import json_format

from tests.bench.scene import Taken, cpu, load, medians, ratios
from tests.support.mesh import free_port
from tulle.control.ratelimits.counter import OwnCounter
from tulle.control.ratelimits.service import RateLimitService
from tulle.core.envoy.rate_limits import encode_costs, encode_limited
from tulle.core.model.rate_limit import DOMAIN, RULE_ENTRY, Costs, Counter, Counting, Limit, Limited, price
from tulle.core.ratelimit.buckets import Rate, Rule
from tulle.node.limiter import Limiter
from tulle.pb import pool
from tulle.pb.binary import envoy_path
from tulle.pb.envoy.config.core.v3 import extension_pb2
from tulle.xds.client import Upstream

RULE = Rule("default/bench/0", Rate(1_000_000))
VARIANTS = ("none", "local", "shares", "exact", "redis")
_TYPE = "type.googleapis.com/envoy."


class RateLimited(msgspec.Struct):
    """Medians over the rounds; of exact limits also milliseconds of CPU a 1,000 requests of the node agent and control plane."""

    rate: float
    connections: int
    rows: dict[str, Taken]
    ratios: dict[str, dict[str, float]]
    node: dict[str, float]
    plane: dict[str, float]


async def _plane(socket: str, redis: str) -> None:
    counter: Any = OwnCounter()
    if redis:
        from tulle.control.ratelimits.redis import RedisCounter

        counter = RedisCounter(redis)
    service = RateLimitService(counter, {RULE.id: RULE}.get, lambda _peer, _proxy: None)
    await _serve(service.handlers, socket)


async def _node(socket: str, above: str) -> None:
    await _serve(Limiter(Upstream(f"unix:{above}"), "default/bench").handlers, socket)


async def _serve(handlers: tuple[grpc.GenericRpcHandler, ...], socket: str) -> None:
    server = grpc.aio.server()
    server.add_generic_rpc_handlers(handlers)
    server.add_insecure_port(f"unix:{socket}")
    await server.start()
    await server.wait_for_termination()


def _listener(name: str, port: int, filters: list[dict[str, Any]], to: dict[str, Any]) -> dict[str, Any]:
    router = {"name": "router", "typed_config": {"@type": f"{_TYPE}extensions.filters.http.router.v3.Router"}}
    manager = {
        "@type": f"{_TYPE}extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": name,
        "route_config": {"virtual_hosts": [{"name": name, "domains": ["*"], "routes": [{"match": {"prefix": "/"}, **to}]}]},
        "http_filters": [*filters, router],
    }
    return {
        "name": name,
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": port}},
        "filter_chains": [{"filters": [{"name": "http", "typed_config": manager}]}],
    }


def _exact(cluster: str) -> dict[str, Any]:
    entry = {"generic_key": {"descriptor_key": RULE_ENTRY, "descriptor_value": RULE.id}}
    return {
        "name": "limit",
        "typed_config": {
            "@type": f"{_TYPE}extensions.filters.http.ratelimit.v3.RateLimit",
            "domain": DOMAIN,
            "timeout": "1s",
            "failure_mode_deny": True,
            "rate_limits": [{"actions": [entry]}],
            "rate_limit_service": {"grpc_service": {"envoy_grpc": {"cluster_name": cluster}}, "transport_api_version": "V3"},
        },
    }


def _own(counting: Counting) -> list[dict[str, Any]]:
    """The filters that the mesh itself makes of a limit that Envoy counts."""
    limit = Limit(RULE.id, RULE.rate.limit, counting=counting)
    at = Counter("bench", shared=counting is Counting.SHARED)
    made = encode_limited(Limited(at, (limit,), {limit.id: 3}))
    if at.shared:
        made = (*encode_costs(Costs(at, {limit.id: price(limit, 3).at(1 / 3)})), *made)
    configs = [extension_pb2.TypedExtensionConfig.FromString(one.value) for one in made]
    return [json_format.MessageToDict(one, preserving_proto_field_name=True, descriptor_pool=pool()) for one in configs]


def _app(port: int) -> dict[str, Any]:
    at = {"endpoint": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": port}}}}
    return {"name": "app", "type": "STATIC", "load_assignment": {"cluster_name": "app", "endpoints": [{"lb_endpoints": [at]}]}}


def _cluster(name: str, path: str) -> dict[str, Any]:
    options = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
    return {
        "name": name,
        "type": "STATIC",
        "typed_extension_protocol_options": {
            options: {"@type": f"type.googleapis.com/{options}", "explicit_http_config": {"http2_protocol_options": {}}}
        },
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": {"pipe": {"path": path}}}}]}],
        },
    }


class _Scene:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.children: dict[str, subprocess.Popen[bytes]] = {}
        self.ports = {name: free_port() for name in VARIANTS}

    def start(self) -> None:
        redis = self.folder / "redis.sock"
        self._spawn("redis", "redis-server", "--port", "0", "--unixsocket", str(redis), "--save", "")
        for name in ("exact", "redis"):
            above, below = str(self.folder / f"{name}.plane"), str(self.folder / f"{name}.node")
            url = f"unix://{redis}" if name == "redis" else ""
            self._spawn(f"{name} plane", sys.executable, "-m", "tests.bench.ratelimit", "plane", above, url)
            self._spawn(f"{name} node", sys.executable, "-m", "tests.bench.ratelimit", "node", below, above)
        filters = {
            "none": [],
            "local": _own(Counting.LOCAL),
            "shares": _own(Counting.SHARED),
            "exact": [_exact("exact")],
            "redis": [_exact("redis")],
        }
        app = free_port()
        bootstrap = {
            "static_resources": {
                "listeners": [
                    _listener("app", app, [], {"direct_response": {"status": 200}}),
                    *(_listener(name, port, filters[name], {"route": {"cluster": "app"}}) for name, port in self.ports.items()),
                ],
                "clusters": [_app(app), *(_cluster(name, str(self.folder / f"{name}.node")) for name in ("exact", "redis"))],
            }
        }
        file = self.folder / "envoy.json"
        file.write_text(json.dumps(bootstrap))
        options = ("--concurrency", "1", "--use-dynamic-base-id", "-l", "error")
        self._spawn("envoy", str(envoy_path()), "-c", str(file), *options)
        for name in VARIANTS:
            self._until(name)

    def pid(self, name: str) -> int:
        return self.children[name].pid

    def _spawn(self, name: str, *argv: str) -> None:
        with (self.folder / "spawned.log").open("ab") as log:
            self.children[name] = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=os.getcwd())

    def _until(self, name: str) -> None:
        deadline = time.monotonic() + 30
        while True:
            argv = ["curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", f"http://127.0.0.1:{self.ports[name]}/"]
            if subprocess.run(argv, capture_output=True, text=True, check=False).stdout == "200":
                return
            if time.monotonic() > deadline:
                raise RuntimeError(f"{name} did not come up: {(self.folder / 'spawned.log').read_text()[-500:]}")
            time.sleep(0.1)

    def stop(self) -> None:
        for child in self.children.values():
            child.terminate()
        for child in self.children.values():
            child.wait(10)


def measure(rounds: int = 9, seconds: float = 5, rate: float = 500, connections: int = 16) -> RateLimited:
    """All in turn, so many times."""
    taken: dict[str, list[Taken]] = {name: [] for name in VARIANTS}
    python: dict[tuple[str, str], list[float]] = {}
    with tempfile.TemporaryDirectory(prefix="tulle-bench-") as name:
        scene = _Scene(Path(name))
        try:
            scene.start()
            for _ in range(rounds):
                for variant in VARIANTS:
                    parts = [part for part in ("node", "plane") if f"{variant} {part}" in scene.children]
                    before = {part: cpu([scene.pid(f"{variant} {part}")]) for part in parts}
                    url = f"http://127.0.0.1:{scene.ports[variant]}/"
                    told = load(url, "bench", [scene.pid("envoy")], rate=rate, connections=connections, seconds=seconds)
                    taken[variant].append(told)
                    for part in parts:
                        spent = cpu([scene.pid(f"{variant} {part}")]) - before[part]
                        python.setdefault((variant, part), []).append(spent / (rate * seconds) * 1000)
        finally:
            scene.stop()
    figures = {key: statistics.median(spent) for key, spent in python.items()}
    return RateLimited(
        rate,
        connections,
        {name: medians(rows) for name, rows in taken.items()},
        {name: ratios(taken[name], taken["none"]) for name in VARIANTS[1:]},
        {name: figures[name, "node"] for name in ("exact", "redis")},
        {name: figures[name, "plane"] for name in ("exact", "redis")},
    )


if __name__ == "__main__":
    part, own, other = sys.argv[1:4]
    asyncio.run(_plane(own, other) if part == "plane" else _node(own, other))
