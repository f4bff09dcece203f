"""1,000 AuthorizationPolicies from objects to bytes: all of them from cold, and one that changes among them.

Of 1,000 workloads each has a policy of its own; and one workload has all 1,000. In seconds of this process's CPU: others on the
machine do not count.
"""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable

import msgspec

from tests.unit.core.compile.mesh import changes, entry, obj, service
from tulle.api.object import Object
from tulle.core.pipeline import Pipeline

POLICIES = 1000


class Policies(msgspec.Struct):
    """Seconds: medians of `rounds`."""

    policies: int
    rounds: int
    apart_cold: float
    apart_change: float
    together_cold: float
    together_change: float


def measure(rounds: int = 9) -> Policies:
    """Both ways to have them."""
    each = [entry(f"w{n}", f"10.1.{n // 250}.{n % 250 + 1}", {"app": f"a{n}"}) for n in range(POLICIES)]
    apart = _measure([*each, service("web")], rounds, lambda n: f"a{n}")
    together = _measure([entry("web", "10.1.0.1", {"app": "web"}), service("web")], rounds, lambda _n: "web")
    return Policies(POLICIES, rounds, *apart, *together)


def _measure(around: list[Object], rounds: int, app: Callable[[int], str]) -> tuple[float, float]:
    colds, ones = [], []
    standing = changes(around)
    policies = changes(_policy(n, app(n), app(0)) for n in range(POLICIES))
    for turn in range(max(1, rounds // 3)):
        pipeline = Pipeline()
        pipeline.commit(standing)
        gc.collect()
        began = time.process_time()
        pipeline.commit(policies)
        colds.append(time.process_time() - began)
        for step in range(3):
            number = (turn * 300 + step * 97) % POLICIES
            change = changes([_policy(number, app(number), f"b{turn}{step}")])
            began = time.process_time()
            published = pipeline.commit(change)
            ones.append(time.process_time() - began)
            assert published.changed, "the change reaches a proxy"
    return statistics.median(colds), statistics.median(ones)


def _policy(number: int, app: str, value: str) -> Object:
    """One caller, one method, one path."""
    rule = {
        "from": [{"source": {"principals": [f"cluster.local/ns/default/sa/s{number}"]}}],
        "to": [{"operation": {"methods": ["GET"], "paths": [f"/{value}/*"]}}],
    }
    spec = {"selector": {"matchLabels": {"app": app}}, "rules": [rule]}
    metadata = {"name": f"p{number}"}
    return obj({"apiVersion": "security.istio.io/v1", "kind": "AuthorizationPolicy", "metadata": metadata, "spec": spec})
