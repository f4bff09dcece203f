"""MeshConfig's settings for proxies, and the annotation of a workload over them."""

from __future__ import annotations

from typing import Any

from tests.unit.core.compile.mesh import changes, obj
from tulle.core.compile.proxy_settings import ANNOTATION
from tulle.core.model.edge import ENVOYS_LIMITS, NOBODY_IN_FRONT, Edge, Limits
from tulle.core.pipeline import Pipeline


def entry(text: str | None, capture: str = "none") -> Any:
    """A workload with a proxy, whose annotation says this."""
    notes = {"tulle.dev/capture": capture, "tulle.dev/node": "host", **({ANNOTATION: text} if text is not None else {})}
    metadata = {"name": "edge", "namespace": "default", "annotations": notes}
    return obj(
        {"apiVersion": "networking.istio.io/v1", "kind": "WorkloadEntry", "metadata": metadata, "spec": {"address": "10.0.0.9"}}
    )


def config(**settings: Any) -> Any:
    """The MeshConfig."""
    spec = {"defaultConfig": settings}
    return obj({"apiVersion": "tulle.dev/v1alpha1", "kind": "MeshConfig", "metadata": {"name": "mesh"}, "spec": spec})


def compiled(*objects: Any) -> tuple[Edge, Limits, list[tuple[str, str]]]:
    """What a workload's proxy takes, and the problems."""
    pipeline = Pipeline()
    pipeline.commit(changes(objects))
    row = pipeline.workload("default/edge")
    assert row is not None
    return row.edge, row.limits, [(problem.path, problem.reason) for problem in pipeline.problems()]


def test_nothing_is_believed_unasked() -> None:
    """A gateway without settings would take a client's word."""
    edge, limits, problems = compiled(entry(None))
    assert edge is NOBODY_IN_FRONT
    assert limits is ENVOYS_LIMITS
    assert not problems


def test_fields_of_the_annotation_go_before_those_of_the_mesh() -> None:
    """A gateway could not be told apart from the others, or would lose what holds for all of them."""
    mesh = config(
        gatewayTopology={"numTrustedProxies": 2, "forwardClientCertDetails": "SANITIZE"},
        requestLimits={"maxRequestHeadersKb": 96, "maxHeadersCount": 200},
    )
    assert compiled(mesh, entry(None))[:2] == (Edge(2, "SANITIZE"), Limits(96, 200))
    text = "gatewayTopology: {numTrustedProxies: 0, proxyProtocol: {}}\nrequestLimits: {maxHeadersCount: 300, maxRequestBytes: 5}"
    assert compiled(mesh, entry(text)) == (Edge(0, "SANITIZE", announced=True), Limits(96, 300, 5), [])


def test_a_mistake_in_the_annotation_has_its_field() -> None:
    """A misspelt setting would be in force in somebody's mind only."""
    note = f'metadata.annotations["{ANNOTATION}"]'
    assert compiled(entry("a: [")) == (NOBODY_IN_FRONT, ENVOYS_LIMITS, [(note, "BadAnnotation")])
    assert compiled(entry("{}\n---\n{}"))[2] == [(note, "BadAnnotation")]
    assert compiled(entry("gatewayTopology: {numTrustedProxy: 1}"))[2] == [
        (f"{note}.gatewayTopology.numTrustedProxy", "UnknownField")
    ]
    assert compiled(entry("concurrency: 2\nholdApplicationUntilProxyStarts: true"))[2] == [
        (f"{note}.concurrency", "NotYetSupported"),
        (f"{note}.holdApplicationUntilProxyStarts", "NotYetSupported"),
    ]


def test_a_sidecar_has_limits_of_headers_alone() -> None:
    """A sidecar would be said to be behind a load balancer, and would not act on it."""
    edge, limits, problems = compiled(
        entry("gatewayTopology: {numTrustedProxies: 1}\nrequestLimits: {maxRequestHeadersKb: 8, maxRequestBytes: 5}", "netns")
    )
    note = f'metadata.annotations["{ANNOTATION}"]'
    assert edge is NOBODY_IN_FRONT
    assert limits.header_kb == 8
    assert problems == [
        (f"{note}.gatewayTopology", "NotYetSupported"),
        (f"{note}.requestLimits.maxRequestBytes", "NotYetSupported"),
    ]
