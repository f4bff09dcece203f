"""Our defaults against those of the CRDs, filled in as kube-apiserver does it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.corpora import corpora
from tests.support.crds import Json, channels, defaulted, places, schemas
from tulle.api.defaults import with_defaults
from tulle.api.object import Kind
from tulle.api.registry import KINDS

CASES = [pytest.param(kind, channel, id=f"{kind.kind}-{channel}") for kind in KINDS for channel in channels(kind)]


def holding(path: tuple[str, ...]) -> Any:
    """The smallest document that has something at the path."""
    if not path:
        return {}
    step, below = path[0], holding(path[1:])
    return [below, below] if step == "[]" else {"any": below} if step == "{}" else {step: below}


def documents(schema: Json) -> Iterator[Any]:
    """Documents that have each object of a schema, empty."""
    for path, place in places(schema):
        if place.get("type") == "object":
            yield holding(path)


@pytest.mark.parametrize(("kind", "channel"), CASES)
def test_defaults_are_upstreams(kind: Kind, channel: str) -> None:
    """`kubectl get -o yaml` would show other values than on Kubernetes, or a controller would read others."""
    corpora("gateway-api/crd" if channel != "istio" else "istio/crds.yaml")
    for version, schema in schemas(kind, channel):
        for document in documents(schema):
            kept = repr(document)
            assert with_defaults(kind, version, document) == defaulted(document, schema)
            assert repr(document) == kept, "the document itself was changed"


def test_there_are_defaults() -> None:
    """The test above would pass if no CRD had a default."""
    corpora("gateway-api/crd")
    stated = {
        (kind.kind, path)
        for kind in KINDS
        for channel in channels(kind)
        for _, schema in schemas(kind, channel)
        for path, place in places(schema)
        if "default" in place
    }
    assert len(stated) > 90


def test_what_is_written_wins() -> None:
    """A default would replace what a person wrote."""
    kind = next(kind for kind in KINDS if kind.kind == "HTTPRoute")
    match = {"path": {"type": "Exact", "value": "/a"}, "headers": []}
    rule = {"matches": [match], "backendRefs": [{"group": "x", "kind": "Y", "name": "z", "weight": 0}]}
    body = {"spec": {"parentRefs": [{"group": "", "kind": "Service", "name": "a"}], "rules": [rule]}}
    assert with_defaults(kind, "v1", body) == body
