"""Our schemas (spec and status, in every version) against the CRDs of Istio and of the Gateway API, field by field."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.corpora import corpora
from tests.support.crds import Json, channels, crds
from tulle.api.decode import INSTEAD
from tulle.api.object import Kind
from tulle.api.openapi import openapi_v3
from tulle.api.openapi_schemas import schema_name
from tulle.api.registry import KINDS

# Where we differ on purpose: (kind, end of the path, what) → why.
EXCEPTIONS = {
    ("VirtualService", "object", "required"): "Istio's webhook refuses one without a spec",
    ("DestinationRule", "object", "required"): "Istio's webhook refuses one without a spec",
    ("Gateway", "object", "required"): "Istio's webhook refuses one without a spec",
}

# A number's format says its bounds.
FORMATS = {"int32": (-(2**31), 2**31 - 1), "int64": (-(2**63), 2**63 - 1)}
COMPARED = (
    "type",
    "format",
    "enum",
    "pattern",
    "minLength",
    "maxLength",
    "minItems",
    "maxItems",
    "minProperties",
    "maxProperties",
    "default",
    "nullable",
    "x-kubernetes-int-or-string",
    "x-kubernetes-preserve-unknown-fields",
    "x-kubernetes-list-type",
    "x-kubernetes-list-map-keys",
    "x-kubernetes-map-type",
)
# What absence says.
IMPLIED = {"x-kubernetes-list-type": "atomic"}


CASES = [pytest.param(kind, channel, id=f"{kind.kind}-{channel}") for kind in KINDS for channel in channels(kind)]


def bounds(schema: Json) -> tuple[Any, Any]:
    """A number's bounds, with those that its format implies."""
    low, high = FORMATS.get(schema.get("format", ""), (None, None))
    return schema.get("minimum", low), schema.get("maximum", high)


class Comparison:
    """Walks two schemas; `differences` are readable lines."""

    def __init__(self, kind: Kind, components: Json, channel: str) -> None:
        self.kind, self.components, self.channel = kind, components, channel
        self.differences: list[str] = []

    def say(self, path: str, what: str, ours: Any = None, theirs: Any = None) -> None:
        for kind, end, field in EXCEPTIONS:
            if kind == self.kind.kind and path.endswith(end) and field == what:
                return
        self.differences.append(f"{path}: {what}: ours {ours}, upstream {theirs}")

    def resolved(self, schema: Json) -> Json:
        if "allOf" in schema:
            return {**self.resolved(schema["allOf"][0]), **{key: value for key, value in schema.items() if key != "allOf"}}
        return self.components[schema["$ref"].rpartition("/")[2]] if "$ref" in schema else schema

    def compare(self, ours: Json, theirs: Json, path: str) -> None:
        ours = self.resolved(ours)
        for key in COMPARED:
            implied = IMPLIED.get(key) if theirs.get("type") == "array" else None
            mine, upstream = ours.get(key, implied), theirs.get(key, implied)
            if key == "format" and mine == "int-or-string":
                continue  # said by the extension of that name, and by Kubernetes' own kinds in both ways
            if key == "enum" and mine and upstream:
                mine, upstream = sorted(map(str, mine)), sorted(map(str, upstream))
            if mine != upstream and not (self.channel == "standard" and self.wider(key, mine, upstream)):
                self.say(path, key, mine, upstream)
        if theirs.get("type") in ("integer", "number") and bounds(ours) != bounds(theirs):
            self.say(path, "bounds", bounds(ours), bounds(theirs))
        self.compare_fields(ours, theirs, path)
        if "items" in theirs:
            self.compare(ours.get("items", {}), theirs["items"], f"{path}[]")
        if isinstance(theirs.get("additionalProperties"), dict):
            self.compare(ours.get("additionalProperties", {}), theirs["additionalProperties"], f"{path}{{}}")

    @staticmethod
    def wider(key: str, mine: Any, upstream: Any) -> bool:
        """Whether ours is the experimental channel's form of what the standard one has less of."""
        return (key == "enum" and set(upstream or ()) < set(mine or ())) or (key == "pattern" and upstream is None)

    def compare_fields(self, ours: Json, theirs: Json, path: str) -> None:
        mine, upstream = ours.get("properties", {}), theirs.get("properties", {})
        for name in upstream:
            if name not in mine:
                self.say(f"{path}.{name}", "missing")
            else:
                self.compare(mine[name], upstream[name], f"{path}.{name}")
        if self.channel != "standard":
            for name in mine:
                if name not in upstream:
                    self.say(f"{path}.{name}", "invented")
        if set(ours.get("required", [])) != set(theirs.get("required", [])):
            self.say(path, "required", sorted(ours.get("required", [])), sorted(theirs.get("required", [])))


def versions(spec: Json) -> Iterator[Json]:
    yield from (version for version in spec["versions"] if version["served"])


@pytest.mark.parametrize(("kind", "channel"), CASES)
def test_schema_is_upstreams(kind: Kind, channel: str) -> None:
    """A field, type, bound, choice or requirement of upstream that we lack, or have and upstream has not."""
    corpora("gateway-api/crd" if channel != "istio" else "istio/crds.yaml")
    differences = []
    for version in versions(crds(channel)[kind.group, kind.kind]):
        if version["name"] not in kind.versions:
            continue
        components = openapi_v3(kind.group, version["name"])["components"]["schemas"]
        ours = components[schema_name(kind, version["name"])]
        theirs = version["schema"]["openAPIV3Schema"]
        comparison = Comparison(kind, components, channel)
        parts = [set(schema["properties"]) - {"apiVersion", "kind", "metadata"} for schema in (ours, theirs)]
        if parts[0] != parts[1]:
            comparison.say("object", "properties", *parts)
        for part in parts[0] & parts[1]:
            comparison.compare(ours["properties"][part], theirs["properties"][part], part)
        if ours.get("required", []) != theirs.get("required", []):
            comparison.say("object", "required", ours.get("required"), theirs.get("required"))
        differences += comparison.differences
    assert not differences, "\n".join(differences)


@pytest.mark.parametrize(("kind", "channel"), CASES)
def test_names_and_versions_are_upstreams(kind: Kind, channel: str) -> None:
    """A plural, short name, category, scope or version with which `kubectl` would not find the kind."""
    corpora("gateway-api/crd" if channel != "istio" else "istio/crds.yaml")
    spec = crds(channel)[kind.group, kind.kind]
    names = spec["names"]
    assert kind.plural == names["plural"]
    assert kind.singular == names["singular"]
    assert list(kind.short_names) == names.get("shortNames", [])
    assert list(kind.categories) == names.get("categories", [])
    assert kind.namespaced == (spec["scope"] == "Namespaced")
    served = {version["name"] for version in versions(spec)}
    assert served <= set(kind.versions), "upstream serves a version that we do not"
    if channel != "standard":
        assert set(kind.versions) <= served, "we serve a version that upstream does not"


def test_the_exceptions_are_few_and_needed() -> None:
    """An exception that no longer excuses anything hides the next difference."""
    corpora("istio/crds.yaml")
    served = {kind.kind for kind in KINDS}
    assert {kind for kind, _, _ in EXCEPTIONS} <= served
    assert len(EXCEPTIONS) < 10


def test_every_upstream_kind_is_served_or_refused_on_purpose() -> None:
    """A kind of Istio that is neither served nor named here would be refused as if it were a typing error."""
    corpora("istio/crds.yaml")
    served = {(kind.group, kind.kind) for kind in KINDS}
    not_served = {kind for group, kind in crds("istio") if (group, kind) not in served}
    assert not_served == set(INSTEAD)


def test_files_are_found() -> None:
    """The tests above would pass on an empty folder."""
    assert isinstance(corpora("istio/crds.yaml"), Path)
    assert len(crds("istio")) > 10
    assert len(crds("experimental")) > 10
