"""RateLimit in real traffic: who is let through, counted; what the refused see; a change under load."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.commands import run
from tests.support.mesh import Mesh, fetch
from tests.support.serving import serving

SPOKEN = str(Path(__file__).resolve().parents[1] / "support" / "spoken.py")
# Calls of a real gRPC client, so many of each way of counting: their codes, and what the last refusal said.
GRPC_CALLS = """
import grpc, json, sys
options = [("grpc.enable_retries", 0), ("grpc.default_authority", "rpc")]
call = grpc.insecure_channel(sys.argv[1], options).unary_unary("/spoken.Spoken/Unary")
seen = {}
for way in ("local", "shares", "exact"):
    codes, said = [], {}
    for _ in range(5):
        try:
            _answer, made = call.with_call(b"a", timeout=20, metadata=[("x-way", way)])
            codes.append("OK")
        except grpc.RpcError as error:
            codes.append(error.code().name)
            said = {"details": error.details(), **dict(error.initial_metadata() or ()), **dict(error.trailing_metadata() or ())}
    seen[way] = [codes, {name: str(value) for name, value in said.items()}]
print(json.dumps(seen))
"""
RATINGS = "http://ratings:9080/ratings/0"
REVIEWS = "http://reviews:9080/reviews/0"


class Limits:
    """RateLimits of one test."""

    def __init__(self, mesh: Mesh) -> None:
        self.mesh = mesh
        self.applied: dict[tuple[str, str], dict[str, Any]] = {}

    def apply(self, target: dict[str, Any], *rules: dict[str, Any], name: str = "limit", namespace: str = "default") -> None:
        """A RateLimit, once every proxy has it."""
        metadata = {"name": name, "namespace": namespace}
        spec = {"targetRefs": [target], "rules": list(rules)}
        one = {"apiVersion": "tulle.dev/v1alpha1", "kind": "RateLimit", "metadata": metadata, "spec": spec}
        self.mesh.kubectl("apply", "-f", "-", stdin=json.dumps(one))
        self.applied[namespace, name] = one
        self.mesh.synced()

    def service(self, name: str, *rules: dict[str, Any]) -> None:
        self.apply({"kind": "Service", "name": name}, *rules)

    def asks(self, url: str, count: int, *flags: str) -> Counter[str]:
        """How often each status was the answer to so many requests of `curl`, one after the other."""
        said = ["-s", "-o", "/dev/null", "-w", "%{http_code}\n", *flags, f"{url}?[1-{count}]"]
        return Counter(self.mesh.inside("curl", *said, check=False).out.split())

    def head(self, url: str, *flags: str) -> str:
        """An answer, with its headers in small letters."""
        return self.mesh.inside("curl", "-si", *flags, url).out.replace("\r", "").lower()


@pytest.fixture
def limits(mesh: Mesh) -> Iterator[Limits]:
    made = Limits(mesh)
    yield made
    for namespace, name in made.applied:
        mesh.kubectl("delete", "ratelimit", name, "-n", namespace, "--ignore-not-found")
    mesh.synced()


def test_a_limit_changes_under_load(limits: Limits) -> None:
    """Broken: a limit that is made, raised or dropped would cost requests that it allows, or connections."""
    everything: Counter[str] = Counter()
    ends = threading.Event()

    def load() -> None:
        while not ends.is_set():
            everything.update(limits.asks(RATINGS, 200))

    thread = threading.Thread(target=load)
    thread.start()
    try:
        for rate in (1_000_000, 2_000_000, 3_000_000):
            limits.service("ratings", {"limit": rate})
        assert set(everything) <= {"200"}, everything
        limits.service("ratings", {"limit": 1, "window": "1h"})
        end = time.monotonic() + 30
        while not everything["429"]:
            assert time.monotonic() < end
            time.sleep(0.05)
    finally:
        ends.set()
        thread.join()
    assert set(everything) == {"200", "429"}, everything


@pytest.fixture(scope="module")
def counted(mesh: Mesh) -> Iterator[None]:
    """All workloads count already: a connection that stood before the first limit of its port ends with its next request, which
    nobody counts. (That this one is not lost is tested above.)
    """
    spec = {"selector": {"matchLabels": {}}, "rules": [{"limit": 1_000_000, "shadow": True}]}
    metadata = {"name": "everything", "namespace": "default"}
    one = {"apiVersion": "tulle.dev/v1alpha1", "kind": "RateLimit", "metadata": metadata, "spec": spec}
    mesh.kubectl("apply", "-f", "-", stdin=json.dumps(one))
    mesh.synced()
    for url in (RATINGS, REVIEWS):
        mesh.inside("curl", "-s", "-o", "/dev/null", f"{url}?[1-20]", check=False)
    yield
    mesh.kubectl("delete", "ratelimit", "everything", "-n", "default")


@pytest.mark.usefixtures("counted")
def test_each_client_has_its_own(limits: Limits) -> None:
    """Broken: one client would use up what is there for all; the refused would not learn when to come again; gold is not gold."""
    rule = {"limit": 5, "window": "1h", "key": {"type": "Header", "header": "X-Client"}}
    refusal = {"body": '{"error": "slower"}', "contentType": "application/json"}
    limits.service("ratings", {**rule, "overrides": [{"values": ["gold"], "limit": 20}], "refusal": refusal})
    assert limits.asks(RATINGS, 8, "-H", "X-Client: a") == {"200": 5, "429": 3}
    assert limits.asks(RATINGS, 5, "-H", "X-Client: b") == {"200": 5}
    assert limits.asks(RATINGS, 21, "-H", "X-Client: gold") == {"200": 20, "429": 1}
    assert limits.asks(RATINGS, 6) == {"200": 5, "429": 1}
    refused = limits.head(RATINGS, "-H", "X-Client: a")
    assert refused.startswith("http/1.1 429")
    assert "retry-after: " in refused
    assert "ratelimit-limit: 5\n" in refused
    assert "ratelimit-remaining: 0\n" in refused
    assert "content-type: application/json\n" in refused
    assert refused.endswith('\n\n{"error": "slower"}')
    assert "tulle-" not in refused
    grpc = limits.head(RATINGS, "-H", "X-Client: a", "-H", "content-type: application/grpc")
    assert "grpc-status: 8\n" in grpc


@pytest.mark.usefixtures("counted")
def test_who_calls_and_what(limits: Limits) -> None:
    """Broken: a limit of writes, or of one caller, would be one of everything; identities would not tell callers apart."""
    mine = {"sources": [{"namespace": "default"}], "path": {"value": "/ratings"}, "methods": ["GET"]}
    limits.service(
        "ratings",
        {
            "name": "others",
            "limit": 1,
            "window": "1h",
            "match": [{"sources": [{"service": "productpage"}]}, {"methods": ["PUT"]}],
        },
        {"name": "mine", "limit": 3, "window": "1h", "match": [mine], "key": {"type": "Identity", "absent": "Skip"}},
        {"name": "tried", "limit": 1, "window": "1h", "shadow": True},
    )
    assert limits.asks(RATINGS, 5) == {"200": 3, "429": 2}
    assert limits.asks("http://ratings:9080/health", 5) == {"200": 5}
    assert limits.asks(RATINGS, 2, "-X", "PUT")["429"] == 1


@pytest.mark.usefixtures("counted")
def test_replicas_share_a_limit(limits: Limits) -> None:
    """Broken: three replicas would let through three times what the limit says, or a third."""
    limits.service("reviews", {"limit": 60, "window": "1h", "scope": "global"})
    seen = limits.asks(REVIEWS, 300)
    assert set(seen) == {"200", "429"}
    assert abs(seen["200"] - 60) <= 3, seen  # 5%


@pytest.mark.usefixtures("counted")
def test_at_the_gateway(limits: Limits, mesh: Mesh) -> None:
    """Broken: what comes from outside would have no limit, or one that ends with the connection; a route that of another."""
    at = {"group": "gateway.networking.k8s.io", "name": "demo"}
    limits.apply({**at, "kind": "Gateway"}, {"limit": 6, "window": "1h", "key": {"type": "SourceIP"}})
    seen = Counter(reply.status for reply in fetch(f"{mesh.base}/productpage", 20))
    assert seen == {200: 6, 429: 14}
    refusal = {"statusCode": 503, "body": "later"}
    limits.apply({**at, "kind": "HTTPRoute"}, {"limit": 7, "window": "1h", "scope": "global", "refusal": refusal})
    replies = fetch(f"{mesh.base}/productpage", 20)
    assert Counter(reply.status for reply in replies) == {200: 7, 503: 13}
    refused = [reply for reply in replies if reply.status == 503]
    assert {reply.body for reply in refused} == {"later"}
    assert all("Retry-After" in reply.headers for reply in refused), refused[0].headers


@pytest.mark.usefixtures("counted")
def test_a_route_of_the_mesh(limits: Limits, mesh: Mesh) -> None:
    """Broken: a limit of a route would be one of its Service, by whatever way this is called; or of nothing."""
    to = {"backendRefs": [{"name": "ratings", "port": 9080}]}
    counted = {"name": "counted", "matches": [{"path": {"value": "/ratings/7"}}], **to}
    spec = {"parentRefs": [{"group": "", "kind": "Service", "name": "ratings"}], "rules": [counted, to]}
    metadata = {"name": "ratings", "namespace": "default"}
    route = {"apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute", "metadata": metadata, "spec": spec}
    mesh.kubectl("apply", "-f", "-", stdin=json.dumps(route))
    try:
        at = {"group": "gateway.networking.k8s.io", "kind": "HTTPRoute", "name": "ratings", "sectionName": "counted"}
        limits.apply(at, {"limit": 4, "window": "1h"})
        assert limits.asks("http://ratings:9080/ratings/7", 9) == {"200": 4, "429": 5}
        assert limits.asks(RATINGS, 9) == {"200": 9}
    finally:
        mesh.kubectl("delete", "httproute", "ratings", "--ignore-not-found")


def _each_way(limit: int) -> Iterator[dict[str, Any]]:
    """A rule of each way of counting, for requests that name it."""
    for way, scope in (("local", "local"), ("shares", "global"), ("exact", "global")):
        match = [{"headers": [{"name": "x-way", "value": way}]}]
        more = {"precision": way, "onFailure": "deny"} if way == "exact" else {}
        yield {"name": way, "limit": limit, "window": "1h", "scope": scope, "match": match, **more}


@pytest.mark.usefixtures("counted")
def test_grpc_is_refused_as_grpc(limits: Limits, mesh: Mesh) -> None:
    """Broken: a gRPC client would see UNAVAILABLE or UNKNOWN, or not learn when to come again; at a gateway as well."""
    calls = (sys.executable, "-c", GRPC_CALLS)

    def judged(seen: dict[str, Any], passed: int) -> None:
        assert set(seen) == {"local", "shares", "exact"}
        for way, (codes, said) in seen.items():
            assert codes == ["OK"] * passed + ["RESOURCE_EXHAUSTED"] * (5 - passed), (way, codes, said)
            assert said["details"] == "rate limited", (way, said)
            assert (said["ratelimit-limit"], said["ratelimit-remaining"]) == (str(passed), "0"), (way, said)
            assert 0 < int(said["retry-after"]) <= 3600, (way, said)
            assert int(said["ratelimit-reset"]) > 0, (way, said)
            assert not [name for name in said if name.startswith(("x-tulle", "x-ratelimit"))], (way, said)

    ready = [
        sys.executable,
        "-c",
        "import grpc; grpc.insecure_channel('rpc:50051').unary_unary('/spoken.Spoken/Unary')(b'', timeout=5)",
    ]
    with serving(mesh, "rpc", "50051:grpc", [sys.executable, SPOKEN, "serve-grpc", "50051"], ready):
        limits.service("rpc", {"limit": 1_000_000, "scope": "global"})
        mesh.inside(*ready)  # the last on a connection that stood before the first shared limit
        limits.service("rpc", *_each_way(3))
        judged(json.loads(mesh.inside(*calls, "rpc:50051").out), 3)
        limits.service("rpc", {"limit": 1_000_000})
        at = {"group": "gateway.networking.k8s.io", "kind": "GRPCRoute", "name": "rpc"}
        rules = [{"backendRefs": [{"name": "rpc", "port": 50051}]}]
        spec = {"parentRefs": [{"name": "demo"}], "hostnames": ["rpc"], "rules": rules}
        metadata = {"name": "rpc", "namespace": "default"}
        route = {"apiVersion": f"{at['group']}/v1", "kind": "GRPCRoute", "metadata": metadata, "spec": spec}
        mesh.kubectl("apply", "-f", "-", stdin=json.dumps(route))
        try:
            limits.apply(at, *_each_way(2), name="route")
            judged(json.loads(run([*calls, f"127.0.0.1:{mesh.ingress_port}"], mesh.env).out), 2)
        finally:
            mesh.kubectl("delete", "grpcroute", "rpc", "--ignore-not-found")


def test_connections(limits: Limits, mesh: Mesh) -> None:
    """Broken: connections would not be counted, or those that stand would end with a new limit."""
    at = {"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "demo"}
    limits.apply(at, {"unit": "Connections", "limit": 4, "window": "1h"})
    seen = Counter(fetch(f"{mesh.base}/productpage")[0].status for _ in range(7))
    assert seen == {200: 4, 0: 3}
    limits.apply(at, {"unit": "Connections", "limit": 1000}, {"unit": "ConcurrentConnections", "limit": 3})
    assert Counter(reply.status for reply in fetch(f"{mesh.base}/static/bookinfo.css", 3, parallel=1)) == {200: 3}
