"""What Envoy counts under Istio's names: read as protobuf, labelled, written as Prometheus takes it."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.mesh import free_port
from tulle.core.envoy.telemetry import HOW, WHO
from tulle.kit.errors import Unavailable
from tulle.node.metrics.application import Exposition, exposition, fitting
from tulle.node.metrics.families import Family, Histogram, Sample, families
from tulle.node.metrics.standard import UNKNOWN, Who, peer, service, standard
from tulle.node.metrics.text import written
from tulle.pb import message_class

OWN = Who("reviews-v1", "default", "reviews", "v1", "spiffe://cluster.local/ns/default/sa/reviews")
CALLER = "spiffe://cluster.local/ns/shop/sa/cart"
HOST = "reviews.default.svc.cluster.local"


def counted(name: str, value: float | Histogram = 1.0, /, **labels: str) -> Family:
    """What Envoy counted; words that are not said are `-`, as Envoy has it."""
    said = {label: " ".join(labels.pop(word, "-") for word in names) for label, names in (("who", WHO), ("how", HOW))}
    return Family(f"envoy_mesh_{name}", "counter", [Sample(said | labels, value)])


def only(found: Family) -> tuple[str, Sample]:
    family = next(standard([found], OWN))
    (sample,) = family.samples
    return family.name, sample


def test_routes_are_summed_up() -> None:
    """Broken: Prometheus would get one series twice, and take none of the proxy's."""
    said = {"peer": "default/reviews-v1/reviews/v1", "service": HOST, "code": "200"}
    families = [counted("source_duration", Histogram(((500.0, 2.0),), 3, 9.0), **said, route=route) for route in ("a", "b c")]
    both = Family(families[0].name, "histogram", [*families[0].samples, *families[1].samples])
    duration, requests, routed, routed_duration = standard([both], OWN)
    assert [sample.value for sample in requests.samples] == [6]
    assert [sample.value for sample in duration.samples] == [Histogram(((0.5, 4.0),), 6, 0.018)]
    assert (routed.name, routed.kind) == ("tulle_route_requests_total", "counter")
    assert (routed_duration.name, routed_duration.kind) == ("tulle_route_request_duration_milliseconds", "histogram")
    assert {sample.labels["route"]: sample.value for sample in routed.samples} == {"a": 3, "b c": 3}
    assert [sample.value for sample in routed_duration.samples] == [Histogram(((0.5, 2.0),), 3, 0.009)] * 2


def test_a_call_that_came() -> None:
    """Broken: dashboards would show the wrong caller, or call an encrypted call plain."""
    said = {"peer": "UID=shop/cart-7/cart/v2", "principal": CALLER, "service": HOST, "code": "200", "flags": "-", "grpc": "-"}
    duration, requests = standard([counted("destination_duration", Histogram((), 3, 9.0), **said)], OWN)
    assert (duration.name, requests.name) == ("istio_request_duration_milliseconds", "istio_requests_total")
    ((of_duration,), (sample,)) = duration.samples, requests.samples
    assert sample.value == 3
    assert (
        sample.labels
        == of_duration.labels
        == {
            "reporter": "destination",
            "source_workload": "cart-7",
            "source_workload_namespace": "shop",
            "source_principal": CALLER,
            "source_app": "cart",
            "source_version": "v2",
            "source_canonical_service": "cart",
            "source_canonical_revision": "v2",
            "source_cluster": "tulle",
            "destination_workload": "reviews-v1",
            "destination_workload_namespace": "default",
            "destination_principal": OWN.principal,
            "destination_app": "reviews",
            "destination_version": "v1",
            "destination_canonical_service": "reviews",
            "destination_canonical_revision": "v1",
            "destination_cluster": "tulle",
            "destination_service": HOST,
            "destination_service_name": "reviews",
            "destination_service_namespace": "default",
            "request_protocol": "http",
            "grpc_response_status": "",
            "response_code": "200",
            "response_flags": "-",
            "connection_security_policy": "mutual_tls",
        }
    )


def test_a_plaintext_caller_is_unknown() -> None:
    """Broken: who says nothing about itself would be taken for somebody, or the call for an encrypted one."""
    _name, sample = only(counted("destination_duration", service=HOST, code="200"))
    assert {sample.labels[f"source_{what}"] for what in ("workload", "principal", "app", "version", "cluster")} == {UNKNOWN}
    assert sample.labels["destination_principal"] == UNKNOWN
    assert sample.labels["connection_security_policy"] == "none"
    assert sample.labels["destination_workload"] == "reviews-v1"


def test_a_call_that_went() -> None:
    """Broken: a caller's own view would lack whom it reached, or a gRPC call be one of HTTP."""
    said = {"peer": "default/ratings-v1/ratings/", "principal": CALLER, "service": f"outbound|9080|v1|{HOST}"}
    _name, sample = only(counted("source_duration", 1.0, **said, code="200", flags="-", grpc="5"))
    found = sample.labels
    assert (found["reporter"], found["source_workload"], found["destination_workload"]) == ("source", "reviews-v1", "ratings-v1")
    assert (found["destination_version"], found["destination_canonical_revision"]) == (UNKNOWN, "latest")
    assert (found["request_protocol"], found["grpc_response_status"]) == ("grpc", "5")
    assert found["destination_service"] == HOST
    assert found["connection_security_policy"] == UNKNOWN


def test_connections_have_no_codes() -> None:
    """Broken: TCP metrics would have labels that Istio's do not have, and queries count twice."""
    name, sample = only(counted("destination_opened"))
    assert name == "istio_tcp_connections_opened_total"
    assert sample.labels["request_protocol"] == "tcp"
    assert not {"response_code", "response_flags", "grpc_response_status"} & set(sample.labels)
    assert "response_flags" in only(counted("source_sent", flags="UF"))[1].labels


def test_durations_are_milliseconds() -> None:
    """Broken: every latency on every dashboard would be wrong by a thousand."""
    value = Histogram(((500, 1), (1000, 3)), 4, 9500)
    _name, sample = only(counted("source_duration", value))
    assert sample.value == Histogram(((0.5, 1), (1, 3)), 4, 9.5)


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("outbound|80||api.example.com", ("api.example.com", "api.example.com", "shop")),
        ("PassthroughCluster", ("PassthroughCluster", "PassthroughCluster", "shop")),
        ("-", (UNKNOWN, UNKNOWN, "shop")),
    ],
)
def test_services(said: str, expected: tuple[str, str, str]) -> None:
    """Broken: what is outside the mesh would be named as if it were inside, or not at all."""
    assert service(said, Who(namespace="shop")) == expected


@pytest.mark.parametrize("said", ["-", "", "CN=x", "UID=a/b", "a//c/d", "/a/b/c"])
def test_strange_peers_are_unknown(said: str) -> None:
    """Broken: a certificate of another form would break the metrics of everybody whom its owner calls."""
    assert peer(said) == Who()


def message(name: str, kind: int, *rows: dict[str, Any]) -> bytes:
    made: Any = message_class("io.prometheus.client.MetricFamily")(name=name, type=kind)
    for row in rows:
        labels = [{"name": key, "value": value} for key, value in row.pop("labels").items()]
        made.metric.add(label=labels, **row)
    data: bytes = made.SerializeToString()
    assert len(data) > 127, "its length takes two bytes"
    return bytes(((len(data) & 0x7F) | 0x80, len(data) >> 7)) + data


def test_what_envoy_answers() -> None:
    """Broken: counts would be lost, or belong to other labels, on their way through the node."""
    row = {"labels": {"code": "200", "long": "x" * 120}, "counter": {"value": 3}}
    bucket = {"upper_bound": 500, "cumulative_count": 1}
    timed = {"labels": {"long": "y" * 120}, "histogram": {"sample_count": 2, "sample_sum": 9, "bucket": [bucket]}}
    found = list(families(message("a", 0, row) + message("b", 4, timed)))
    assert [(one.name, one.kind) for one in found] == [("a", "counter"), ("b", "histogram")]
    assert found[0].samples == [Sample({"code": "200", "long": "x" * 120}, 3.0)]
    assert found[1].samples[0].value == Histogram(((500, 1),), 2, 9)


@pytest.mark.parametrize("data", [b"\xff", b"\x05abc", b"\xff\xff\xff\xff\x7f", b"\x02\xff\xff"])
def test_an_answer_that_was_cut(data: bytes) -> None:
    """Broken: a dying Envoy would end the node's metrics with it."""
    with pytest.raises(Unavailable, match="metrics"):
        list(families(data))


def test_the_text() -> None:
    """Broken: Prometheus would refuse the whole of a page for one label's sake, or read other numbers."""
    histogram = Histogram(((0.5, 1.0),), 2.0, 1.25)
    rows = [Family("a", "counter", [Sample({"x": 'q"\\\n'}, 3.0)]), Family("b", "histogram", [Sample({}, histogram)])]
    assert written(rows) == (
        '# TYPE a counter\na{x="q\\"\\\\\\n"} 3\n'
        '# TYPE b histogram\nb_bucket{le="0.5"} 1\nb_bucket{le="+Inf"} 2\nb_sum{} 1.25\nb_count{} 2\n'
    )


def test_garbage_of_an_envoy() -> None:
    """Broken: one number that is none would end a node's reports, or every sum that it is in."""
    row = {"labels": {"long": "x" * 140}, "counter": {"value": float("nan")}}
    good = {"labels": {"long": "y" * 140}, "counter": {"value": 2.0}}
    timed = {"labels": {"long": "z" * 140}, "histogram": {"sample_count": 2, "sample_sum": float("inf"), "bucket": []}}
    found = list(families(message("a", 0, row, good) + message("b", 4, timed)))
    assert [[sample.value for sample in one.samples] for one in found] == [[2.0], []]


def test_garbage_of_an_application() -> None:
    """Broken: Prometheus would refuse a workload's page for what its application says, or believe it about calls."""
    good = [
        "# HELP a_total What.",
        "# TYPE a_total counter",
        'a_total{x="q\\"\\\\\\n",y="}"} 1',
        "b 1.5e-3 1700000000000",
        'c_bucket{le="+Inf",} +Inf',
        "d{} NaN",
    ]
    bad = ["<html>", "a b c", 'e{x="1} 2', "f{x=1} 2", "istio_requests_total 1e9", 'envoy_x{a="b"} 1', "g 0x10", "h 1 # {a} 1"]
    text = fitting("\n".join([*good, *bad, "# EOF", "", "# a comment"]))
    assert text.splitlines() == [
        *good,
        "# TYPE tulle_application_lines_left_out gauge",
        f"tulle_application_lines_left_out {len(bad)}",
    ]


def test_what_an_application_says() -> None:
    """Broken: annotations that users bring along would not be followed, or a bad one ask somewhere else."""
    port = str(free_port())
    assert exposition({}) is None
    assert exposition({"prometheus.io/scrape": "true"}, (8080,)) == Exposition(8080)
    notes = {"prometheus.io/scrape": "true", "prometheus.io/port": port, "prometheus.io/path": "stats"}
    assert exposition(notes, (8080,)) == Exposition(int(port), "/stats")
    assert exposition(notes | {"prometheus.io/port": "99999"}) is None
