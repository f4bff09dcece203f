"""Whatever comes in: decode and read_documents answer with problems, and never raise."""

from __future__ import annotations

import copy
import json
from typing import Any

import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from tulle.api import path as paths
from tulle.api.decode import decode
from tulle.api.documents import read_documents
from tulle.api.registry import KINDS
from tulle.kit.problem import Severity

scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4), max_leaves=15
)
kinds = st.sampled_from(KINDS)

VALID: list[dict[str, Any]] = [
    {
        "apiVersion": "networking.istio.io/v1",
        "kind": "VirtualService",
        "metadata": {"name": "reviews", "labels": {"a": "b"}},
        "spec": {
            "hosts": ["reviews"],
            "http": [
                {
                    "match": [{"headers": {"end-user": {"exact": "jason"}}, "uri": {"regex": "/a.*"}}],
                    "fault": {"delay": {"percentage": {"value": 100.0}, "fixedDelay": "7s"}},
                    "route": [
                        {"destination": {"host": "reviews", "subset": "v1", "port": {"number": 9080}}, "weight": 80},
                        {"destination": {"host": "reviews", "subset": "v2"}, "weight": 20},
                    ],
                    "retries": {"attempts": 3, "perTryTimeout": "2s", "retryOn": "5xx"},
                    "timeout": "10s",
                }
            ],
        },
    },
    {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "HTTPRoute",
        "metadata": {"name": "reviews", "namespace": "default"},
        "spec": {
            "parentRefs": [{"name": "gateway", "sectionName": "http"}],
            "hostnames": ["*.example.com"],
            "rules": [
                {
                    "matches": [{"path": {"type": "PathPrefix", "value": "/"}, "headers": [{"name": "a", "value": "b"}]}],
                    "filters": [
                        {"type": "RequestHeaderModifier", "requestHeaderModifier": {"set": [{"name": "a", "value": "b"}]}}
                    ],
                    "backendRefs": [{"name": "reviews", "port": 9080, "weight": 1}],
                    "timeouts": {"request": "10s", "backendRequest": "2s"},
                }
            ],
        },
    },
    {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "reviews"},
        "spec": {"selector": {"app": "reviews"}, "ports": [{"name": "http", "port": 9080, "targetPort": "http"}]},
    },
]


def places(value: Any, at: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    """Every place in a document."""
    found = [at]
    if isinstance(value, dict):
        for key, inner in value.items():
            found += places(inner, (*at, key))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            found += places(inner, (*at, index))
    return found


def replaced(value: Any, at: tuple[str | int, ...], new: Any) -> Any:
    result = copy.deepcopy(value)
    inner = result
    for step in at[:-1]:
        inner = inner[step]
    inner[at[-1]] = new
    return result


def well_worded(raw: Any) -> None:
    """Decoding answers either with an object or with errors, each with found and needed, and each writable."""
    found, problems = decode(raw)
    errors = [problem for problem in problems if problem.severity is Severity.ERROR]
    assert (found is None) == bool(errors)
    for problem in problems:
        assert "found" in problem.message
        assert "needed" in problem.message
        str(problem).encode()


@given(values)
@settings(deadline=None)
def test_any_json(raw: Any) -> None:
    """The API server would answer 500 to a body."""
    well_worded(raw)


@given(kinds, values, values)
@settings(deadline=None)
def test_any_spec_of_a_kind(kind: Any, metadata: Any, spec: Any) -> None:
    """A kind's own rules would fail on what they did not expect."""
    version = f"{kind.group}/{kind.versions[0]}" if kind.group else kind.versions[0]
    well_worded({"apiVersion": version, "kind": kind.kind, "metadata": metadata, "spec": spec})


@given(st.data())
@settings(deadline=None, max_examples=150)
def test_a_good_document_with_one_change(data: st.DataObject) -> None:
    """A small mistake would raise, or be found where it is not."""
    document = data.draw(st.sampled_from(VALID))
    at = data.draw(st.sampled_from([place for place in places(document) if place]))
    changed = replaced(document, at, data.draw(values))
    well_worded(changed)
    for problem in decode(changed)[1]:
        if at[0] in ("metadata", "spec") and problem.severity is Severity.ERROR:
            assert problem.path.startswith(str(at[0]))


def test_the_good_documents_are_good() -> None:
    """The test above would prove little if they were not."""
    for document in VALID:
        assert decode(document)[1] == []


@given(st.text(max_size=200) | st.binary(max_size=200))
@settings(deadline=None)
def test_any_text(text: str | bytes) -> None:
    """A file would end in a traceback."""
    documents, problems = read_documents(text, "f")
    for problem in problems:
        assert problem.location is not None
        assert problem.location.line >= 1
        assert "found" in problem.message
    for document in documents:
        well_worded(document.raw)


@given(st.text(alphabet="ab:-[]{}'\"\n \t#&*!|>%@,0.~<", max_size=60))
@settings(deadline=None, max_examples=150)
def test_any_text_like_yaml(text: str) -> None:
    """What is nearly YAML would end in a traceback."""
    read_documents(text, "f")


json_keys = st.text(alphabet=st.characters(codec="utf-8", exclude_categories=("Cs", "Cc")), max_size=10)
json_scalars = st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.text(max_size=20)
json_values = st.recursive(
    json_scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(json_keys, inner, max_size=4), max_leaves=12
)


@given(st.dictionaries(json_keys, json_values, max_size=4))
@settings(deadline=None)
def test_json_is_read_as_json(value: dict[str, Any]) -> None:
    """A manifest in JSON would be read as something else than it is."""
    for text in (json.dumps(value), json.dumps(value, ensure_ascii=False, indent=2)):
        documents, problems = read_documents(text, "f")
        assert not problems
        assert [document.raw for document in documents] == [value]


@given(st.lists(st.sampled_from(VALID), min_size=1, max_size=4), st.data())
@settings(deadline=None, max_examples=50)
def test_every_field_has_its_line(objects: list[dict[str, Any]], data: st.DataObject) -> None:
    """Line numbers would be off: after a separator, inside of lists, in flow style."""
    flow = data.draw(st.sampled_from([None, True, False]))
    texts = [yaml.safe_dump(one, default_flow_style=flow, sort_keys=False) for one in objects]
    text = "---\n".join(texts)
    lines = text.split("\n")
    documents, problems = read_documents(text, "f")
    assert not problems
    first = 1
    for document, one, own in zip(documents, objects, texts, strict=True):
        for at in places(one):
            location = document.locate(paths.join(at))
            assert location is not None
            assert first <= location.line < first + own.count("\n") + 1
            if at and isinstance(at[-1], str):
                assert lines[location.line - 1][location.column - 1 :].startswith(at[-1])
        first += own.count("\n") + 1


@given(st.lists(st.text(max_size=8) | st.integers(0, 99), max_size=6))
def test_paths_are_read_as_they_are_written(steps: list[str | int]) -> None:
    """A problem's place would be looked up under another key."""
    assert list(paths.split(paths.join(steps))) == steps
