"""Durations, regular expressions, the registry and OpenAPI."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from tulle.api.object import Kind
from tulle.api.openapi import group_versions, openapi_v2, openapi_v3
from tulle.api.openapi_schemas import schema_name
from tulle.api.regex import why_not_re2
from tulle.api.registry import KINDS, kind_for, kind_of_resource
from tulle.api.values import seconds

# As much as is let in: what repeats is long, and repeated as often as RE2 does it.
LARGEST = (
    "a{1000}",
    "(a{100}){10}",
    f"({'a' * 25}){{1000}}",
    ".{0,1000}" * 8,
    r"(\pL{10}\W){90}",
    "(a*)*b",
    "(?:[a-z0-9-]{1,63}[.]){1,8}",
)


@pytest.mark.parametrize(
    ("text", "length"),
    [
        ("7s", 7),
        ("0.5s", 0.5),
        ("1m30s", 90),
        ("1h", 3600),
        ("500ms", 0.5),
        ("10us", 1e-5),
        ("0", 0),
        ("0s", 0),
        ("-1s", -1),
        (".5s", 0.5),
    ],
)
def test_durations(text: str, length: float) -> None:
    """A timeout would be another than the one written."""
    assert seconds(text) == pytest.approx(length)


@pytest.mark.parametrize("text", ["", "7", "s", "7 s", "1d", "5sec", "1m 30s", "٣s", "9" * 400 + "s", "1.2.3s"])
def test_no_durations(text: str) -> None:
    """What is no duration would be read as one."""
    with pytest.raises(ValueError):
        seconds(text)


@pytest.mark.parametrize(
    "expression",
    ["", ".*", "^/a/[^/]+$", "(?i)abc", "a(?i:b)c", r"\d+\.\d+", r"\p{L}+", "[[:alpha:]]+", "(?P<n>a)", "(?<n>a)", "a{1,1000}",
     r"\z",
     r"\Qa(\E", "[)(]", r"[\]]", "a|b", "(?s).", "(?U)a+", r"\x{10FFFF}", "a(?i)b", "x*?", "[]a]", r"\\1", r"[(?=]", r"\(?=a\)",
     *LARGEST],
)  # fmt: skip
def test_re2_expressions(expression: str) -> None:
    """An expression that Envoy takes would be refused."""
    assert why_not_re2(expression) == ""


@pytest.mark.parametrize(
    "expression",
    [
        "(?=a)",
        "(?!a)",
        "(?<=a)b",
        "(?<!a)b",
        r"(a)\1",
        "a++",
        "(?>a)",
        "a{1001}",
        "(a{100}){11}",
        "(a|b{500}){3}",
        "(?:(x{10}y){10}){11}",
        f"({'a' * 40}){{1000}}",
        f"[{'a-b' * 30}]{{999}}",
        ".{1000}" * 30,
        "(a",
        "a)",
        "[a",
        "(?P=n)",
        r"\Z",
    ],
)
def test_not_re2_expressions(expression: str) -> None:
    """Envoy would refuse a whole listener for one route's expression."""
    assert why_not_re2(expression)


def test_the_registry_is_consistent() -> None:
    """Two kinds under one name: one of them could not be reached."""
    assert len({(kind.group, kind.kind) for kind in KINDS}) == len(KINDS)
    assert len({kind.resource for kind in KINDS}) == len(KINDS)
    for kind in KINDS:
        assert kind_for(kind.group, kind.kind) is kind
        assert kind_of_resource(kind.resource) is kind
        assert kind.model.model_fields["kind"].default == kind.kind
    assert kind_for("", "Nothing") is None
    assert kind_of_resource("nothing") is None
    for group in {kind.group for kind in KINDS}:
        names = [name for kind in KINDS if kind.group == group for name in (kind.plural, kind.singular, *kind.short_names)]
        assert len(set(names) - {"telemetry"}) == len([name for name in names if name != "telemetry"])


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.resource)
def test_columns_read_any_body(kind: Kind) -> None:
    """`kubectl get` would fail on an object that lacks what a column shows."""
    bodies: list[dict[str, Any]] = [
        {},
        {"spec": {}},
        {"spec": None, "status": None},
        {"spec": {"http": None, "ports": None}, "status": {"conditions": []}},
    ]
    for body in bodies:
        for column in kind.columns:
            assert isinstance(column.value(body), str)


def test_columns_show_what_matters() -> None:
    """`kubectl get vs -o wide` would not show hosts and weights."""
    kind = kind_of_resource("virtualservices.networking.istio.io")
    assert kind is not None
    route = [{"destination": {"host": "reviews", "subset": s}, "weight": w} for s, w in (("v1", 80), ("v3", 20))]
    body: dict[str, Any] = {"spec": {"hosts": ["reviews"], "gateways": ["a", "mesh"], "http": [{"route": route}]}}
    assert {column.name: column.value(body) for column in kind.columns} == {
        "Gateways": '["a","mesh"]',
        "Hosts": '["reviews"]',
        "Weights": "reviews/v1=80,reviews/v3=20",
    }


def test_a_route_says_whether_its_parents_accept_it() -> None:
    """`kubectl get httproutes` would show a route that nobody serves like one that works."""
    kind = kind_of_resource("httproutes.gateway.networking.k8s.io")
    assert kind is not None
    (accepted,) = (column for column in kind.columns if column.name == "Accepted")

    def shown(*statuses: str) -> str:
        parents = [{"conditions": [{"type": "Accepted", "status": one}]} for one in statuses]
        return accepted.value({"status": {"parents": parents}})

    assert [shown(), shown("True"), shown("False", "False"), shown("True", "False")] == ["", "True", "False", "1/2"]
    assert accepted.value({"status": {"parents": [None, {"conditions": "x"}]}}) == ""


def references(document: Any) -> set[str]:
    return set(re.findall(r'"\$ref": "#/(?:components/schemas|definitions)/([^"]+)"', json.dumps(document)))


@pytest.mark.parametrize(("group", "version"), group_versions())
def test_openapi_is_closed(group: str, version: str) -> None:
    """kubectl would fail on a reference to nothing."""
    document = openapi_v3(group, version)
    schemas = document["components"]["schemas"]
    assert references(document) <= set(schemas)
    text = json.dumps(document)
    for word in ('"anyOf"', '"null"', '"const"', '"$defs"', '"title"', '"prefixItems"'):
        assert word not in text.replace('"title": "tulle"', "")
    for kind in KINDS:
        if kind.group == group and version in kind.versions:
            schema = schemas[schema_name(kind, version)]
            assert schema["x-kubernetes-group-version-kind"] == [{"group": group, "version": version, "kind": kind.kind}]
            reference = {"$ref": "#/components/schemas/io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"}
            assert schema["properties"]["metadata"]["allOf"] == [reference]


def test_openapi_says_what_the_server_validates() -> None:
    """kubectl would validate by itself, or not at all: it looks for these parameters of PATCH."""
    document = openapi_v3("networking.istio.io", "v1")
    patch = document["paths"]["/apis/networking.istio.io/v1/namespaces/{namespace}/virtualservices/{name}"]["patch"]
    assert {"fieldValidation", "dryRun", "fieldManager"} <= {one["name"] for one in patch["parameters"] if one["in"] == "query"}
    assert patch["x-kubernetes-group-version-kind"] == {"group": "networking.istio.io", "version": "v1", "kind": "VirtualService"}


def test_openapi_v2_is_closed() -> None:
    """Older kubectls would fail on a reference to nothing."""
    document = openapi_v2()
    assert references(document) <= set(document["definitions"])
    assert "io.istio.networking.v1alpha3.DestinationRule" in document["definitions"]
    ports = document["definitions"]["io.k8s.api.core.v1.Service.ServicePort"]["properties"]
    target = {"type": "string", "format": "int-or-string", "x-kubernetes-int-or-string": True}
    assert ports["targetPort"] == {**target, "description": "An integer or a string."}


def test_what_is_not_served_is_empty() -> None:
    """A request for a group that is not there would end in an error of ours."""
    assert openapi_v3("nothing.example.com", "v1")["paths"] == {}


@pytest.mark.parametrize(("group", "version"), group_versions())
def test_every_field_is_described(group: str, version: str) -> None:
    """`kubectl explain` would say "<no description>", or nothing at all of a field."""
    for name, schema in openapi_v3(group, version)["components"]["schemas"].items():
        for field, one in schema.get("properties", {}).items():
            if not name.startswith("io.k8s.apimachinery") and not name.endswith("List"):
                assert one.get("description"), (name, field)
            assert "$ref" not in one or set(one) == {"$ref"}, "what stands beside a reference does not count"
