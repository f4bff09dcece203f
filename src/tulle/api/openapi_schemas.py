"""Schemas as Kubernetes writes them in OpenAPI, generated from our classes: defaults, list types and a word for every field."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from pydantic import BaseModel

from tulle.api.defaults import stated
from tulle.api.kind import Kind
from tulle.api.object import Metadata, Schema
from tulle.api.shape import Shape

META = "io.k8s.apimachinery.pkg.apis.meta.v1"

# Lists that a strategic merge patch merges by a key: (schema, field) → key. Only Kubernetes' own kinds have such.
_MERGE_KEYS = {
    ("ServiceSpec", "ports"): "port",
    ("ServiceAccount", "secrets"): "name",
}
_DROPPED = ("title", "default", "const", "anyOf", "$ref", "properties", "additionalProperties", "items", "prefixItems", "pattern")


def schema_name(kind: Kind, version: str) -> str:
    """`io.istio.networking.v1.VirtualService`: the component that describes a kind."""
    if kind.built_in:
        return f"io.k8s.api.{kind.group.split('.')[0] or 'core'}.{version}.{kind.kind}"
    return f"{'.'.join(reversed(kind.group.split('.')))}.{version}.{kind.kind}"


def kind_schemas(kind: Kind, version: str, prefix: str, *, v2: bool) -> dict[str, Any]:
    """A kind's schema in a version, its list's, and those of its parts. `v2`: as OpenAPI 2.0 can say it."""
    name = schema_name(kind, version)
    ours = {"group": kind.group, "version": version}

    def ref(definition: str) -> str:
        return prefix + (f"{META}.ObjectMeta" if definition == "Metadata" else f"{name}.{definition}")

    model = kind.model_in(version)
    cleaner = _Cleaner(model, ref, v2)
    whole = model.model_json_schema(by_alias=True, ref_template="{model}")
    parts = whole.pop("$defs", {})
    result: dict[str, Any] = {}
    for part, schema in parts.items():
        if part not in ("Metadata", "OwnerReference"):
            result[f"{name}.{part}"] = cleaner.model(schema, part)
            # `kubectl explain` shows it of the fields, and would show it twice.
            result[f"{name}.{part}"].pop("description", None)
    top = cleaner.model(whole, model.__name__)
    for constant in ("apiVersion", "kind"):
        top["properties"][constant] = {"type": "string", "description": _CONSTANTS[constant]}
    top["required"] = [field for field in top.get("required", []) if field not in ("apiVersion", "kind", "metadata")]
    if not top["required"]:
        del top["required"]
    top["x-kubernetes-group-version-kind"] = [{**ours, "kind": kind.kind}]
    result[name] = top
    result[f"{name}List"] = {
        "type": "object",
        "description": f"A list of {kind.kind} objects.",
        "required": ["items"],
        "properties": {
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            "metadata": {"$ref": f"{prefix}{META}.ListMeta"},
            "items": {"type": "array", "items": {"$ref": prefix + name}},
        },
        "x-kubernetes-group-version-kind": [{**ours, "kind": f"{kind.kind}List"}],
    }
    return result


_CONSTANTS = {"apiVersion": "The group and version of the kind.", "kind": "The kind."}


def shared_schemas(prefix: str) -> dict[str, Any]:
    """ObjectMeta and what belongs to it."""
    whole = Metadata.model_json_schema(by_alias=True, ref_template="{model}")
    parts = whole.pop("$defs", {})
    cleaner = _Cleaner(Metadata, lambda part: f"{prefix}{META}.{part}", v2=True)
    result = {f"{META}.{part}": cleaner.model(schema, part) for part, schema in parts.items()}
    result[f"{META}.ObjectMeta"] = cleaner.model(whole, "Metadata")
    result[f"{META}.ListMeta"] = {
        "type": "object",
        "description": "Metadata of a list.",
        "properties": {
            "continue": {"type": "string"},
            "remainingItemCount": {"type": "integer", "format": "int64"},
            "resourceVersion": {"type": "string"},
            "selfLink": {"type": "string"},
        },
    }
    result[f"{META}.Status"] = {
        "type": "object",
        "description": "What became of a request that gives no object.",
        "properties": {
            **{word: {"type": "string"} for word in ("apiVersion", "kind", "status", "reason", "message")},
            "code": {"type": "integer", "format": "int32"},
            "details": {"type": "object"},
            "metadata": {"$ref": f"{prefix}{META}.ListMeta"},
        },
    }
    result[f"{META}.DeleteOptions"] = {
        "type": "object",
        "description": "How an object is to be deleted.",
        "properties": {
            **{word: {"type": "string"} for word in ("apiVersion", "kind")},
            "dryRun": {"type": "array", "items": {"type": "string", "enum": ["All"]}},
            "gracePeriodSeconds": {"type": "integer", "format": "int64"},
            "orphanDependents": {"type": "boolean"},
            "preconditions": {
                "type": "object",
                "properties": {"uid": {"type": "string"}, "resourceVersion": {"type": "string"}},
            },
            "propagationPolicy": {"type": "string", "enum": ["Orphan", "Background", "Foreground"]},
        },
    }
    return result


class _Cleaner:
    """pydantic's JSON Schema as Kubernetes writes OpenAPI: no null, no const, references into the components."""

    def __init__(self, model: type[Schema], ref: Callable[[str], str], v2: bool) -> None:
        self.ref, self.v2 = ref, v2
        self.models = dict(_models(Shape(model), set()))

    def model(self, schema: Mapping[str, Any], name: str) -> dict[str, Any]:
        """The schema of a class."""
        model = self.models[name]
        result = self.place(schema)
        shapes = Shape(model).fields
        defaults = stated(model) if issubclass(model, Schema) else {}
        for field, value in schema.get("properties", {}).items():
            made = self.place(value)
            if key := _MERGE_KEYS.get((name, field)):
                made |= {"x-kubernetes-patch-strategy": "merge", "x-kubernetes-patch-merge-key": key}
            if "$ref" in made and not self.v2:
                made = {"allOf": [made]}  # beside a reference nothing counts, but for the readers of OpenAPI 2.0
            made.setdefault("description", _description(shapes[field]))
            if field in defaults and "$ref" not in made:
                made["default"] = defaults[field]
            result["properties"][field] = made
        return result

    def place(self, schema: Mapping[str, Any]) -> dict[str, Any]:
        """The schema of a place. Properties are left for `model`."""
        if "$ref" in schema:
            return {"$ref": self.ref(schema["$ref"])}
        if "anyOf" in schema:
            rest = [one for one in schema["anyOf"] if one.get("type") != "null"]
            if len(rest) == 1:
                return self.place({**rest[0], **_beside(schema)})
        result = {key: value for key, value in schema.items() if key not in _DROPPED}
        if self.v2:
            result.pop("nullable", None)
        if result.pop("x-kubernetes-int-or-string", False):
            return self._int_or_string()
        if "const" in schema:
            result["enum"] = [schema["const"]]
        if "pattern" in schema:
            result["pattern"] = schema["pattern"]
        if "properties" in schema:
            result["properties"] = {}
        if "items" in schema:
            result["items"] = self.place(schema["items"])
        more = schema.get("additionalProperties")
        if isinstance(more, dict):
            result["additionalProperties"] = self.place(more)
        elif more is True:
            result["x-kubernetes-preserve-unknown-fields"] = True
        return result

    def _int_or_string(self) -> dict[str, Any]:
        if self.v2:
            return {"type": "string", "format": "int-or-string", "x-kubernetes-int-or-string": True}
        forms = [{"type": "integer"}, {"type": "string"}]
        return {"format": "int-or-string", "oneOf": forms, "x-kubernetes-int-or-string": True}


def _models(shape: Shape, seen: set[type]) -> Iterator[tuple[str, type[BaseModel]]]:
    """Every class of a schema by its name, which no two of a kind share."""
    model = shape.model
    if model is not None and model not in seen:
        seen.add(model)
        yield model.__name__, model
        for field in shape.fields.values():
            yield from _models(field, seen)
    for below in (shape.item, shape.value):
        if below is not None:
            yield from _models(below, seen)


def _description(shape: Shape) -> str:
    """A word for a field: that of what is in it where it is an object or a list of them, else which values it takes."""
    below = shape.item or shape.value or shape
    if below.model is not None and (text := inspect.getdoc(below.model)):
        return text
    words = shape.words if below is shape or below.words == "another value" else f"{shape.words}, each {below.words}"
    return words[:1].upper() + words[1:] + "."


def _beside(schema: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in schema.items() if key not in ("anyOf", "title", "default")}
