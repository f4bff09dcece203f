"""A DestinationRule's annotations on how callers find out who is well."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.core.compile.mesh import Mesh, bookinfo, obj
from tulle.core.compile.destinations import destination
from tulle.core.model.destination import Destination


def rule(**notes: str) -> Any:
    annotations = {f"tulle.dev/{name.replace('_', '-')}": text for name, text in notes.items()}
    metadata = {"name": "reviews", "annotations": annotations}
    body = {"apiVersion": "networking.istio.io/v1", "kind": "DestinationRule", "metadata": metadata}
    return obj({**body, "spec": {"host": "reviews", "subsets": [{"name": "v1", "labels": {"version": "v1"}}]}})


def reached(mesh: Mesh, subset: str = "") -> Destination:
    row = mesh.pipeline.flow.get(destination, (("default", "reviews"), 9080, subset))
    assert row is not None
    return row


@pytest.mark.parametrize("subset", ["", "v1"])
def test_they_hold_for_the_host_and_its_subsets(subset: str) -> None:
    """Broken: a check would be for a part of a host, or end the outlier detection that Envoy's words leave alone."""
    mesh = Mesh([*bookinfo(), rule(health_check='{"path": "/healthz"}', outlier_detection='{"failurePercentage": {}}')])
    assert mesh.problems() == []
    found = reached(mesh, subset)
    assert found.check is not None
    assert (found.check.path, found.check.interval, found.check.unhealthy_after) == ("/healthz", 5.0, 3)
    assert found.outlier is not None
    assert found.outlier.failure_percentage is not None
    assert (found.outlier.failure_percentage.threshold, found.outlier.success_rate) == (85, None)


def test_a_check_of_another_port() -> None:
    """Broken: a port that speaks something else would be asked, and all of its endpoints be taken for ill."""
    mesh = Mesh([*bookinfo(), rule(health_check='{"path": "/healthz", "port": 8001}')])
    assert reached(mesh).check is None


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("health_check", '{"path": "/a", "tcp": true}', "found 2 of path, grpc and tcp"),
        ("health_check", '{"path": "a"}', "path: "),
        ("health_check", '{"tcp": true, "interval": "soon"}', "interval: "),
        ("health_check", "/healthz", "such as"),
        ("outlier_detection", "{}", "needed successRate or failurePercentage"),
        ("outlier_detection", '{"failurePercentage": {"threshold": 101}}', "failurePercentage.threshold: "),
        ("outlier_detection", '{"successrate": {}}', "successrate: "),
    ],
)
def test_what_cannot_be_read_is_said(name: str, text: str, words: str) -> None:
    """Broken: somebody would rely on a check that nobody makes."""
    mesh = Mesh([*bookinfo(), rule(**{name: text})])
    (found,) = mesh.problems()
    assert (found.path, found.reason) == (f"metadata.annotations[tulle.dev/{name.replace('_', '-')}]", "BadAnnotation")
    assert words in found.message
    assert "tulle.dev" not in found.message
    assert reached(mesh).check is None
