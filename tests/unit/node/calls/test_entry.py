"""What an Envoy tells of a call → its shape and an example: without secrets, within bounds."""

from __future__ import annotations

from typing import Any

from tulle.core.envoy import calls
from tulle.core.envoy.telemetry import Called
from tulle.core.explain.causes import SHUT_OUT, cause
from tulle.core.model.authorization import NOWHERE
from tulle.core.model.recorded import HEADERS
from tulle.core.recorded.paths import Templates
from tulle.node.calls import intake
from tulle.node.calls.entry import entry, failed, rule_of
from tulle.node.calls.recorder import Recorder
from tulle.node.metrics.standard import Who
from tulle.pb import message_class

OWN = Who("productpage-v1", "default", "productpage", "v1", "spiffe://cluster.local/ns/default/sa/productpage")
SAID = {
    "side": "source",
    "code": "200",
    "flags": "-",
    "details": "via_upstream",
    "grpc": "-",
    "us": "7300",
    "id": "5f1d0c3a-7a2e-4d56-9a1c-0d1e2f3a4b5c",
    "method": "GET",
    "authority": "reviews:9080",
    "path": "/reviews/17",
    "cluster": "outbound|9080|v1|reviews.default.svc.cluster.local",
    "endpoint": "10.1.2.3:9080",
    "attempts": "1",
    "port": "9080",
    "service": "reviews.default.svc.cluster.local",
    "origin": "VirtualService default/reviews",
    "field": "spec.http[0]",
    "peer": "default/reviews-v1/reviews/v1",
    "principal": "spiffe://cluster.local/ns/default/sa/reviews",
    "header.user-agent": "curl/8",
    "header.content-type": "-",
}


def batch(*calls: dict[str, str], time: float = 1000.0) -> bytes:
    """As Envoy sends it."""
    request: Any = message_class("opentelemetry.proto.collector.logs.v1.ExportLogsServiceRequest")()
    records = request.resource_logs.add().scope_logs.add().log_records
    for said in calls:
        record = records.add(time_unix_nano=int(time * 1e9))
        for key, value in said.items():
            record.attributes.add(key=key).value.string_value = value
    data: bytes = request.SerializeToString()
    return data


def test_a_call() -> None:
    """Broken: who called whom, how, and what came of it would be wrong in the record."""
    found = entry(SAID, 1000.0, OWN, Templates(), 0.5)
    shape, example = found.shape, found.example
    assert (shape.source, shape.destination) == ("default/productpage-v1", "default/reviews-v1")
    assert (shape.service, shape.port, shape.protocol) == ("reviews.default.svc.cluster.local", 9080, "http")
    assert (shape.method, shape.path, shape.code, shape.flags) == ("GET", "/reviews/{id}", "200", "")
    assert (shape.mutual, shape.origin, shape.field) == (True, "VirtualService default/reviews", "spec.http[0]")
    assert (example.id, example.path, example.milliseconds, example.share) == (SAID["id"], "/reviews/17", 7.3, 0.5)
    assert example.headers == {"user-agent": "curl/8"}
    assert not found.failed


def test_a_denied_call_and_its_rule() -> None:
    """Broken: it would not be known which policy decided."""
    details = "rbac_access_denied_matched_policy[ns[shop]-policy[no-one]-rule[2]]"
    said = {**SAID, "side": "destination", "code": "403", "details": details, "peer": "UID=default/curl/curl/", "path": "/x"}
    found = entry(said, 1.0, OWN, Templates(), 1.0)
    assert found.failed
    assert found.shape.policy == "shop/no-one rule 2"
    assert (found.shape.source, found.shape.destination) == ("default/curl", "default/productpage-v1")
    assert rule_of("none") == ""


def test_grpc_and_tcp() -> None:
    """Broken: calls of other protocols would be requests of HTTP that went well."""
    grpc = {**SAID, "header.content-type": "application/grpc+proto", "grpc": "14"}
    found = entry(grpc, 1.0, OWN, Templates(), 1.0)
    assert (found.shape.protocol, found.shape.grpc, found.failed) == ("grpc", "14", True)
    tcp = {name: value for name, value in SAID.items() if name not in ("method", "path", "us")} | {"ms": "12", "code": "0"}
    found = entry(tcp, 1.0, OWN, Templates(), 1.0)
    assert (found.shape.protocol, found.shape.path, found.shape.code) == ("tcp", "", "")
    assert found.example.milliseconds == 12
    early = entry({**tcp, "side": "destination", "cluster": NOWHERE, "flags": "URX"}, 1.0, OWN, Templates(), 1.0)
    assert cause(early.shape.details, early.shape.flags, early.shape.code) is SHUT_OUT, "not that its server does not answer"


def test_garbage() -> None:
    """Broken: an Envoy that says something else than it was told to would stop the record."""
    recorder = Recorder("n")
    recorder.take(b"\xff\xff\xff", OWN)
    recorder.take(batch({}, {"code": "x", "us": "y", "cluster": "outbound|a|b|c", "port": "-1", "method": "\x00"}), OWN)
    assert failed({}) is False


def test_nothing_secret_is_asked_for() -> None:
    """Broken: tokens, cookies or queries would leave the proxy."""
    for logger in (calls.of_requests(None), calls.of_requests(Called("a")), calls.of_connections(None)):
        told = logger.SerializeToString().decode("latin-1").lower()
        assert "authorization" not in told
        assert "cookie" not in told
        assert "%req(:path)" not in told
    assert not {"authorization", "cookie", "set-cookie", "proxy-authorization", "referer", "x-api-key"} & set(HEADERS)


def test_a_query_that_came_all_the_same_is_cut() -> None:
    """Broken: a value of a query would be kept for days."""
    found = entry({**SAID, "path": "/a?token=secret"}, 1.0, OWN, Templates(), 1.0)
    assert "secret" not in repr(found)


def test_what_is_too_much_is_counted() -> None:
    """Broken: a storm of calls would take the node's processor, or pass without a word."""
    recorder = Recorder("n", budget=10)
    recorder.take(batch(*[SAID] * 100), OWN)
    report = recorder.told()
    assert sum(record.count.calls for _shape, record in report.rows) == 20
    assert report.dropped == 80
    (record,) = (record for _shape, record in report.rows)
    assert record.estimate > 20


def test_failures_first() -> None:
    """Broken: the one call that failed would be among those that there was no room for."""
    recorder = Recorder("n", budget=10)
    recorder.take(batch(*[SAID] * 100, {**SAID, "code": "503"}), OWN)
    report = recorder.told()
    assert [shape.code for shape, _example in report.failures] == ["503"]
    assert len(report.failures) == 1


def test_the_bucket() -> None:
    """Broken: more than the budget would be looked at."""
    now = [0.0]
    bucket = intake.Bucket(10, lambda: now[0])
    assert bucket.take(100) == 20
    assert bucket.take(1) == 0
    now[0] = 0.5
    assert bucket.take(100) == 5
    now[0] = 1000
    assert bucket.take(100) == 20
