"""Telemetry and its inheritance: what a workload's proxy counts, logs and traces."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.core.compile.mesh import bookinfo, changes, entry, obj, service
from tulle.core import type_urls
from tulle.core.compile.telemetry_taken import taken_away
from tulle.core.model.destination import DestinationKey
from tulle.core.model.telemetry import STANDARD_SIDES, AccessLog, Counting, Labels, Metric, Sides, SpanTag, Tracing
from tulle.core.pipeline import Pipeline

REVIEWS = {"selector": {"matchLabels": {"app": "reviews"}}}
ROOT = "tulle-system"


def telemetry(name: str, spec: dict[str, Any], namespace: str = "default", created: str | None = None) -> Any:
    metadata = {"name": name, "namespace": namespace, "creationTimestamp": created}
    return obj({"apiVersion": "telemetry.istio.io/v1", "kind": "Telemetry", "metadata": metadata, "spec": spec})


def mesh_config(spec: dict[str, Any]) -> Any:
    return obj({"apiVersion": "tulle.dev/v1alpha1", "kind": "MeshConfig", "metadata": {"name": "mesh"}, "spec": spec})


@pytest.fixture
def pipeline() -> Pipeline:
    made = Pipeline()
    made.commit(changes([*bookinfo(), service("otel", ports=({"port": 4317, "name": "grpc"},), address="240.240.9.9")]))
    return made


def told(pipeline: Pipeline, proxy: str = "default/reviews-v1") -> Sides:
    found = pipeline.workload(proxy)
    assert found is not None
    return found.telemetry


def off(metric: str, **match: str) -> dict[str, Any]:
    return {"metrics": [{"overrides": [{"match": {"metric": metric, **match}, "disabled": True}]}]}


def test_nothing_is_said(pipeline: Pipeline) -> None:
    """Broken: a mesh without Telemetry would not be measured, or write logs that nobody asked for."""
    assert told(pipeline) == STANDARD_SIDES


def test_the_narrower_one_counts_and_the_rest_is_inherited(pipeline: Pipeline) -> None:
    """Broken: a workload's own Telemetry would undo the mesh's, or the mesh's that of the workload."""
    wide = {
        **off("REQUEST_SIZE"),
        "accessLogging": [{"providers": [{"name": "envoy"}]}],
        "tracing": [{"randomSamplingPercentage": 7}],
    }
    own = {**REVIEWS, **off("RESPONSE_SIZE"), "accessLogging": [{"filter": {"expression": "response.code >= 400"}}]}
    own["tracing"] = [{"customTags": {"team": {"literal": {"value": "a"}}}}]
    pipeline.commit(changes([telemetry("mesh", wide, ROOT), telemetry("space", off("TCP_SENT_BYTES")), telemetry("own", own)]))
    sent, size, answers = Metric.TCP_SENT_BYTES, Metric.REQUEST_SIZE, Metric.RESPONSE_SIZE
    mine, others = told(pipeline), told(pipeline, "default/ratings-v1")
    for side in (mine.client, mine.server):
        assert side.metrics == Counting(off=(size, answers, sent))
        assert side.logs == (AccessLog("envoy", path="/dev/stdout", filter="response.code >= 400"),)
        assert side.tracing == Tracing(sampling=7, tags=(SpanTag("team", "literal", "a"),))
    assert others.server.metrics == Counting(off=(size, sent))
    assert others.server.logs == (AccessLog("envoy", path="/dev/stdout"),)
    assert told(pipeline, f"{ROOT}/ingress").client.metrics == Counting(off=(size,))


def test_the_oldest_of_those_for_the_same(pipeline: Pipeline) -> None:
    """Broken: a second Telemetry would take over, or both would, and nobody could tell which."""
    first = telemetry("z", {**REVIEWS, **off("REQUEST_SIZE")}, created="2026-01-01T00:00:00Z")
    second = telemetry("a", {**REVIEWS, **off("RESPONSE_SIZE")}, created="2026-01-02T00:00:00Z")
    pipeline.commit(changes([second, first]))
    assert told(pipeline).client.metrics == Counting(off=(Metric.REQUEST_SIZE,))


def test_what_a_prometheus_lacks(pipeline: Pipeline) -> None:
    """Broken: whoever reads figures from Prometheus would take what an object took away for calls that never were."""
    assert pipeline.flow.get(taken_away, None) == ""
    removed = {"source_app": {"operation": "REMOVE"}, "destination_canonical_revision": {"operation": "REMOVE"}}
    labels = {"metrics": [{"overrides": [{"match": {"metric": "REQUEST_COUNT"}, "tagOverrides": removed}]}]}
    sizes = telemetry("sizes", off("REQUEST_SIZE"))
    pipeline.commit(changes([telemetry("times", off("REQUEST_DURATION")), telemetry("labels", labels), sizes]))
    assert pipeline.flow.get(taken_away, None) == (
        "Telemetry default/labels takes away source_app of REQUEST_COUNT; Telemetry default/times takes away REQUEST_DURATION"
    )
    pipeline.commit(changes([telemetry(f"many-{at}", off("REQUEST_COUNT")) for at in range(4)]))
    assert (pipeline.flow.get(taken_away, None) or "").endswith("; and 3 more Telemetry objects")


def test_sides(pipeline: Pipeline) -> None:
    """Broken: what is switched off where calls are made would be off where they come in."""
    pipeline.commit(changes([telemetry("own", {**REVIEWS, **off("ALL_METRICS", mode="CLIENT")})]))
    assert told(pipeline).client.metrics == Counting(off=tuple(Metric))
    assert told(pipeline).server.metrics == Counting()


def test_labels(pipeline: Pipeline) -> None:
    """Broken: a label would be missing, or be there that was taken away; or one of what is without bounds."""
    tags = {
        "request_host": {"value": "request.host"},
        "port": {"value": "string(destination.port)"},
        "path": {"value": "request.path"},
        "broken": {"value": "request."},
        "reporter": {"operation": "REMOVE"},
        "response_flags": {"operation": "REMOVE"},
    }
    overrides = [{"match": {"metric": "REQUEST_COUNT"}, "tagOverrides": tags}]
    pipeline.commit(changes([telemetry("own", {**REVIEWS, "metrics": [{"overrides": overrides}]})]))
    labels = Labels(removed=("response_flags",), added=(("port", "destination.port"), ("request_host", "request.host")))
    assert told(pipeline).server.metrics == Counting(labels=((Metric.REQUEST_COUNT, labels),))


def test_what_is_called_by_a_service(pipeline: Pipeline) -> None:
    """Broken: a Telemetry for a Service would be for nobody, or for all that its workloads do."""
    target = {"targetRefs": [{"kind": "Service", "name": "reviews"}]}
    pipeline.commit(changes([telemetry("service", {**target, **off("REQUEST_SIZE")})]))
    found = pipeline.workload("default/reviews-v1")
    assert found is not None
    assert [port.telemetry.metrics for port in found.inbound] == [Counting(off=(Metric.REQUEST_SIZE,))]
    assert found.telemetry == STANDARD_SIDES


def test_what_comes_by_a_gateway(pipeline: Pipeline) -> None:
    """Broken: a Telemetry for a Gateway would not be for what comes by it, or for another Gateway's calls too."""
    api = "gateway.networking.k8s.io"
    gateways = [
        obj(
            {
                "apiVersion": f"{api}/v1",
                "kind": "Gateway",
                "metadata": {"name": name, "namespace": ROOT},
                "spec": {"gatewayClassName": "tulle", "listeners": [{"name": "a", "port": port, "protocol": "HTTP"}]},
            }
        )
        for name, port in (("one", 81), ("two", 82))
    ]
    target = {"targetRefs": [{"group": api, "kind": "Gateway", "name": "one"}]}
    gate = entry("gate", "10.0.0.9", {"istio": "ingressgateway"}, ROOT, "gate", capture="none")
    pipeline.commit(changes([*gateways, gate, telemetry("gateway", {**target, **off("REQUEST_SIZE")}, ROOT)]))
    found = pipeline.workload(f"{ROOT}/gate")
    assert found is not None
    by_port = {one.port: chain.telemetry.metrics for one in found.listeners for chain in one.chains}
    assert by_port[81] == Counting(off=(Metric.REQUEST_SIZE,))
    assert by_port[82] == Counting()


def test_providers(pipeline: Pipeline) -> None:
    """Broken: logs and traces would go elsewhere than MeshConfig says, or nowhere."""
    service_ = {"service": "otel.default.svc.cluster.local", "port": 4317}
    providers = [
        {"name": "traces", "opentelemetry": {**service_, "maxTagLength": 64}},
        {"name": "logs", "envoyOtelAls": {**service_, "logFormat": {"labels": {"code": "%RESPONSE_CODE%"}}}},
        {"name": "file", "envoyFileAccessLog": {"path": "a.log", "logFormat": {"text": "%PROTOCOL%"}}},
        {"name": "lost", "opentelemetry": {"service": "nowhere.default", "port": 1}},
    ]
    defaults = {"accessLogging": ["file", "logs"], "tracing": ["traces"]}
    pipeline.commit(changes([mesh_config({"extensionProviders": providers, "defaultProviders": defaults})]))
    there = DestinationKey("otel.default.svc.cluster.local", 4317)
    found = told(pipeline).client
    assert found.logs == (
        AccessLog("file", path="a.log", text="%PROTOCOL%"),
        AccessLog("logs", collector=there, name="otel_envoy_accesslog", fields=(("code", "%RESPONSE_CODE%"),), json=True),
    )
    assert found.tracing == Tracing(provider="traces", collector=there, longest=64)
    assert any(one.path == "spec.extensionProviders[3].opentelemetry.service" for one in pipeline.problems())


_BY_GRPC: dict[str, Any] = {"service": "otel.default.svc.cluster.local", "port": 4317}
_BY_HTTP: dict[str, Any] = {**_BY_GRPC, "http": {"path": "/v1/traces"}}


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (_BY_GRPC, {**_BY_GRPC, "service": "other.default.svc.cluster.local"}),
        (_BY_GRPC, {**_BY_GRPC, "port": 4318}),
        (_BY_GRPC, {**_BY_GRPC, "timeout": "3s"}),
        (_BY_GRPC, {**_BY_GRPC, "maxTagLength": 99}),
        (_BY_HTTP, {**_BY_GRPC, "http": {"path": "/otlp"}}),
        (_BY_HTTP, {**_BY_GRPC, "http": {"path": "/v1/traces", "timeout": "3s"}}),
    ],
    ids=["service", "port", "timeout", "maxTagLength", "http.path", "http.timeout"],
)
def test_every_field_of_a_collector_of_traces_acts(pipeline: Pipeline, before: Any, after: Any) -> None:
    """Broken: a field of the provider that a Telemetry names would be ignored in silence (test_silence.py cannot see these)."""
    ports = ({"port": 4317, "name": "grpc"}, {"port": 4318, "name": "grpc-more"})
    there = [service(name, ports=ports, address=f"240.240.9.{at}") for at, name in enumerate(("otel", "other"), 9)]
    pipeline.commit(changes(there))
    pipeline.commit(changes([telemetry("traced", {"tracing": [{"providers": [{"name": "mine"}]}]})]))
    tables = []
    for provider in (before, after):
        pipeline.commit(changes([mesh_config({"extensionProviders": [{"name": "mine", "opentelemetry": provider}]})]))
        assert told(pipeline).client.tracing.provider == "mine"
        tables.append(dict(pipeline.table("namespace/default", type_urls.LISTENER)))
    assert tables[0] != tables[1]


def test_istio_tags_act_and_a_reporting_interval_is_warned_of(pipeline: Pipeline) -> None:
    """Broken: the same of `enableIstioTags`; or somebody would believe that metrics are sent at the interval that he wrote."""
    pipeline.commit(changes([mesh_config({"extensionProviders": [{"name": "mine", "opentelemetry": _BY_GRPC}]})]))
    tables = []
    for wanted in (True, False):
        tracing = [{"providers": [{"name": "mine"}], "enableIstioTags": wanted}]
        pipeline.commit(changes([telemetry("traced", {"tracing": tracing, "metrics": [{"reportingInterval": "5s"}]})]))
        tables.append(dict(pipeline.table("namespace/default", type_urls.LISTENER)))
    assert tables[0] != tables[1]
    assert any(one.path == "spec.metrics[0].reportingInterval" for one in pipeline.problems())


def test_another_provider_takes_the_place_of_prometheus(pipeline: Pipeline) -> None:
    """Broken: a namespace that wants no metrics would have them all the same."""
    pipeline.commit(changes([telemetry("none", {"metrics": [{"providers": [{"name": "elsewhere"}]}]})]))
    assert told(pipeline).client.metrics == Counting(off=tuple(Metric))


def test_only_the_listeners_of_those_concerned_become_others(pipeline: Pipeline) -> None:
    """Broken: a Telemetry for one workload would double the routes of its namespace, or change what others count."""
    before = pipeline.table("namespace/default", type_urls.LISTENER)
    pipeline.commit(changes([telemetry("own", {**REVIEWS, **off("ALL_METRICS")})]))
    assert pipeline.layers("default/reviews-v1")[-2] == "told/default/own/"
    assert "told/default/own/" not in pipeline.layers("default/ratings-v1")
    assert pipeline.table("namespace/default", type_urls.LISTENER) == before
    assert set(pipeline.table("told/default/own/", type_urls.LISTENER)) == set(before)
    pipeline.commit({("telemetries.telemetry.istio.io", "default", "own"): None})
    assert "told/default/own/" not in pipeline.layers("default/reviews-v1")
