"""Labels that a Telemetry adds and takes away: rows become one, and what was too much is under `other`."""

from __future__ import annotations

from tulle.core.envoy.telemetry import TO_LABEL
from tulle.node.metrics.families import Family, Histogram, Sample
from tulle.node.metrics.standard import Who, standard

OWN = Who("reviews-v1", "default", "reviews", "v1", "spiffe://cluster.local/ns/default/sa/reviews")
WHO = {"who": "reviews.default.svc.cluster.local - -"}
FULL = Family("envoy_server_stats_overflow_counter", "counter", [Sample({}, 3.0)])


def family(name: str, *rows: tuple[dict[str, str], float | Histogram]) -> Family:
    return Family(f"envoy_mesh_destination_{name}", "counter", [Sample({**WHO, **said}, value) for said, value in rows])


def how(code: str, grpc: str = "-") -> dict[str, str]:
    return {"how": f"- {code} {grpc}"}


def shown(*found: Family, label: str) -> dict[str, dict[str, float | Histogram]]:
    made = standard(found, OWN)
    return {one.name: {row.labels.get(label, row.labels.get("metric", "")): row.value for row in one.samples} for one in made}


def test_a_label_that_was_taken_away() -> None:
    """Broken: Prometheus would get two rows of the same labels, and refuse the whole page."""
    told = {"without": "response_code,source_app"}
    ((_name, rows),) = shown(
        family("requests", ({**how("200"), **told}, 3.0), ({**how("503"), **told}, 4.0)), label="response_code"
    ).items()
    assert rows == {"": 7.0}
    told = {"without": "response_code"}
    one, two = Histogram(((1.0, 1.0), (5.0, 2.0)), 2.0, 5.0), Histogram(((1.0, 0.0), (5.0, 1.0)), 1.0, 3.0)
    found = family("request_bytes", ({**how("200"), **told}, one), ({**how("503"), **told}, two))
    ((_name, rows),) = shown(found, label="response_code").items()
    assert rows == {"": Histogram(((1.0, 1.0), (5.0, 3.0)), 3.0, 8.0)}


def test_a_label_that_was_added() -> None:
    """Broken: calls would count twice, once with the label and once without."""
    told = {**how("200"), "with": "host"}
    usual = family("requests", (told, 10.0))
    own = family("requests_own", ({**told, "label_host": "a"}, 6.0), ({**told, "label_host": "-"}, 4.0))
    assert shown(usual, own, label="host") == {"istio_requests_total": {"a": 6.0, "unknown": 4.0}}


def test_values_without_end() -> None:
    """Broken: a caller that sends another host each time would make calls vanish from the metrics, or fill the memory."""
    told = {**how("200"), "with": "host"}
    usual = family("requests", (told, 1_000_000.0), ({**told, **how("404")}, 5.0))
    own = family("requests_own", *(({**told, "label_host": str(number)}, 1.0) for number in range(500)))
    found = shown(usual, own, FULL, label="host")
    rows = found["istio_requests_total"]
    assert len(rows) == 501
    assert sum(value for value in rows.values() if isinstance(value, float)) == 500.0 + 5.0, "the last of `other` is seen here"
    totals = [row.value for one in standard((usual, own, FULL), OWN) if one.name == "istio_requests_total" for row in one.samples]
    assert sum(value for value in totals if isinstance(value, float)) == 1_000_005.0
    assert found["tulle_metrics_folded_total"] == {"istio_requests_total": 999_505.0}


def test_times_without_end() -> None:
    """Broken: the times of calls that were folded would be lost, or counted twice."""
    told = {**how("200"), "with": "host"}
    whole, part = Histogram(((500.0, 3.0), (1000.0, 5.0)), 5.0, 4000.0), Histogram(((500.0, 1.0), (1000.0, 2.0)), 2.0, 1500.0)
    found = shown(
        family("duration", (told, whole)), family("duration_own", ({**told, "label_host": "a"}, part)), FULL, label="host"
    )
    rest = Histogram(((0.5, 2.0), (1.0, 3.0)), 3.0, 2.5)
    assert found["istio_requests_total"] == {"a": 2.0, "other": 3.0}
    assert found["istio_request_duration_milliseconds"] == {"a": Histogram(((0.5, 1.0), (1.0, 2.0)), 2.0, 1.5), "other": rest}


def test_messages_of_grpc() -> None:
    """Broken: gRPC streams would have no count of their messages under Istio's names."""
    clusters = {"outbound|90||a.shop.svc.cluster.local": 9.0, "inbound|90||": 4.0, "xds": 7.0}
    # Envoy ends the name of a cluster at its first dot, and has the whole in a label of ours.
    counted = [
        Sample({"envoy_cluster_name": name.partition(".")[0], **({TO_LABEL: name} if "." in name else {})}, value)
        for name, value in clusters.items()
    ]
    (made,) = standard([Family("envoy_cluster_grpc_request_message_count", "counter", counted)], OWN)
    assert made.name == "istio_request_messages_total"
    went, came = made.samples
    said = {"reporter": "source", "source_workload": "reviews-v1", "destination_service_name": "a", "request_protocol": "grpc"}
    assert (went.value, said.items() <= went.labels.items()) == (9.0, True)
    said = {"reporter": "destination", "destination_workload": "reviews-v1", "source_workload": "unknown"}
    assert (came.value, said.items() <= came.labels.items()) == (4.0, True)
    assert "response_code" not in came.labels
