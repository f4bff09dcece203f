"""OpenAPI documents of the served kinds, generated from the schemas: what `kubectl` needs to validate, explain and diff.

`openapi_v3` is one group and version (`/openapi/v3/apis/GROUP/VERSION`), `openapi_v2` all. Do not change what they return.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any

from tulle.api.object import Kind, Metadata
from tulle.api.registry import KINDS

_META = "io.k8s.apimachinery.pkg.apis.meta.v1"
_PATCHES = ("application/json-patch+json", "application/merge-patch+json", "application/apply-patch+yaml")
_STRATEGIC = "application/strategic-merge-patch+json"
# Where lists are merged by a key instead of replaced: (schema, field) → key. Only Kubernetes' own kinds have such.
_MERGE_KEYS = {
    ("Service.ServiceSpec", "ports"): "port",
    ("ServiceAccount", "secrets"): "name",
    ("ServiceAccount", "imagePullSecrets"): "name",
}


def group_versions() -> tuple[tuple[str, str], ...]:
    """Every served (group, version), once, in the order of the registry."""
    return tuple(dict.fromkeys((kind.group, version) for kind in KINDS for version in kind.versions))


def api_path(group: str, version: str) -> str:
    """`api/v1` or `apis/GROUP/VERSION`: the path of a group and version, without a slash at either end."""
    return f"apis/{group}/{version}" if group else f"api/{version}"


@functools.cache
def openapi_v3(group: str, version: str) -> dict[str, Any]:
    """The OpenAPI 3.0 document of one group and version; empty of paths and kinds where it is not served."""
    schemas: dict[str, Any] = {}
    document_paths: dict[str, Any] = {}
    for kind in _kinds_of(group, version):
        schemas |= _schemas(kind, version, "#/components/schemas/", v2=False)
        document_paths |= dict(_paths_v3(kind, version))
    if schemas:
        schemas |= _shared_schemas("#/components/schemas/")
    return {
        "openapi": "3.0.0",
        "info": {"title": "tulle", "version": f"{group}/{version}" if group else version},
        "paths": document_paths,
        "components": {"schemas": schemas},
    }


@functools.cache
def openapi_v2() -> dict[str, Any]:
    """The OpenAPI 2.0 ("swagger") document of everything."""
    definitions: dict[str, Any] = {}
    document_paths: dict[str, Any] = {}
    for group, version in group_versions():
        for kind in _kinds_of(group, version):
            definitions |= _schemas(kind, version, "#/definitions/", v2=True)
            document_paths |= dict(_paths_v2(kind, version))
    definitions |= _shared_schemas("#/definitions/")
    return {
        "swagger": "2.0",
        "info": {"title": "tulle", "version": "v1"},
        "paths": document_paths,
        "definitions": definitions,
    }


def schema_name(kind: Kind, version: str) -> str:
    """`io.istio.networking.v1.VirtualService`: the component that describes a kind."""
    if kind.built_in:
        return f"io.k8s.api.{kind.group.split('.')[0] or 'core'}.{version}.{kind.kind}"
    return f"{'.'.join(reversed(kind.group.split('.')))}.{version}.{kind.kind}"


def _kinds_of(group: str, version: str) -> list[Kind]:
    return [kind for kind in KINDS if kind.group == group and version in kind.versions]


def _schemas(kind: Kind, version: str, prefix: str, *, v2: bool) -> dict[str, Any]:
    """A kind's schema, its list's, and those of its parts."""
    name = schema_name(kind, version)
    ours = {"group": kind.group, "version": version}

    def ref(definition: str) -> str:
        return prefix + (f"{_META}.ObjectMeta" if definition == "Metadata" else f"{name}.{definition}")

    whole = kind.model.model_json_schema(by_alias=True, ref_template="{model}")
    parts = whole.pop("$defs", {})
    result: dict[str, Any] = {}
    for part, schema in parts.items():
        if part not in ("Metadata", "OwnerReference"):
            result[f"{name}.{part}"] = _cleaned(schema, ref, f"{kind.kind}.{part}", v2)
    top = _cleaned(whole, ref, kind.kind, v2)
    for constant in ("apiVersion", "kind"):
        top["properties"][constant] = {"type": "string"}
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
            "metadata": {"$ref": f"{prefix}{_META}.ListMeta"},
            "items": {"type": "array", "items": {"$ref": prefix + name}},
        },
        "x-kubernetes-group-version-kind": [{**ours, "kind": f"{kind.kind}List"}],
    }
    return result


def _shared_schemas(prefix: str) -> dict[str, Any]:
    """ObjectMeta and what belongs to it."""
    whole = Metadata.model_json_schema(by_alias=True, ref_template="{model}")
    parts = whole.pop("$defs", {})
    result = {
        f"{_META}.{name}": _cleaned(schema, lambda part: f"{prefix}{_META}.{part}", name, v2=True)
        for name, schema in {**parts, "ObjectMeta": whole}.items()
    }
    result[f"{_META}.ListMeta"] = {
        "type": "object",
        "description": "Metadata of a list.",
        "properties": {
            "continue": {"type": "string"},
            "remainingItemCount": {"type": "integer", "format": "int64"},
            "resourceVersion": {"type": "string"},
            "selfLink": {"type": "string"},
        },
    }
    return result


_DROPPED = ("title", "default", "const", "anyOf", "$ref", "properties", "additionalProperties", "items", "prefixItems", "pattern")


def _cleaned(schema: dict[str, Any], ref: Callable[[str], str], name: str, v2: bool) -> dict[str, Any]:
    """pydantic's JSON Schema as Kubernetes writes OpenAPI: no null, no const, references into the components."""
    if "$ref" in schema:
        return {"$ref": ref(schema["$ref"])}
    if "anyOf" in schema:
        rest = [one for one in schema["anyOf"] if one.get("type") != "null"]
        if len(rest) == 1:
            return _cleaned({**rest[0], **_beside(schema)}, ref, name, v2)
    result = {key: value for key, value in schema.items() if key not in _DROPPED}
    if result.pop("x-kubernetes-int-or-string", False):
        if v2:
            return {"type": "string", "format": "int-or-string"}
        return {"format": "int-or-string", "oneOf": [{"type": "integer"}, {"type": "string"}]}
    if "const" in schema:
        result["enum"] = [schema["const"]]
    if "pattern" in schema:
        result["pattern"] = schema["pattern"]
    if "properties" in schema:
        result["properties"] = {
            field: _field(_cleaned(value, ref, f"{name}.{field}", v2), (name, field))
            for field, value in schema["properties"].items()
        }
    if "items" in schema:
        result["items"] = _cleaned(schema["items"], ref, name, v2)
    more = schema.get("additionalProperties")
    if isinstance(more, dict):
        result["additionalProperties"] = _cleaned(more, ref, name, v2)
    elif more is True:
        result["x-kubernetes-preserve-unknown-fields"] = True
    return result


def _beside(schema: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in schema.items() if key not in ("anyOf", "title", "default")}


def _field(schema: dict[str, Any], place: tuple[str, str]) -> dict[str, Any]:
    if key := _MERGE_KEYS.get(place):
        schema |= {
            "x-kubernetes-patch-strategy": "merge",
            "x-kubernetes-patch-merge-key": key,
            "x-kubernetes-list-type": "map",
            "x-kubernetes-list-map-keys": [key],
        }
    return schema


def _collection(kind: Kind, version: str) -> str:
    root = f"/{api_path(kind.group, version)}"
    return f"{root}/namespaces/{{namespace}}/{kind.plural}" if kind.namespaced else f"{root}/{kind.plural}"


# What each verb takes in its query.
_QUERY = {
    "list": (
        "labelSelector",
        "fieldSelector",
        "limit",
        "continue",
        "resourceVersion",
        "resourceVersionMatch",
        "watch",
        "timeoutSeconds",
    ),
    "post": ("dryRun", "fieldManager", "fieldValidation"),
    "get": (),
    "put": ("dryRun", "fieldManager", "fieldValidation"),
    "patch": ("dryRun", "fieldManager", "fieldValidation", "force"),
    "delete": ("dryRun", "gracePeriodSeconds", "orphanDependents", "propagationPolicy"),
}
_VERBS = (
    ("", "get", "list"),
    ("", "post", "post"),
    ("/{name}", "get", "get"),
    ("/{name}", "put", "put"),
    ("/{name}", "patch", "patch"),
    ("/{name}", "delete", "delete"),
)
_TYPES = {
    "limit": "integer",
    "timeoutSeconds": "integer",
    "gracePeriodSeconds": "integer",
    "watch": "boolean",
    "force": "boolean",
}


def _operations(kind: Kind, version: str) -> Iterator[tuple[str, str, str, dict[str, Any], list[str]]]:
    """Path, method, action, what both versions of OpenAPI have of an operation, and the names in its path."""
    gvk = {"group": kind.group, "version": version, "kind": kind.kind}
    for suffix, method, action in _VERBS:
        path = _collection(kind, version) + suffix
        common = {"x-kubernetes-action": action, "x-kubernetes-group-version-kind": gvk}
        yield path, method, action, common, [name for name in ("name", "namespace") if f"{{{name}}}" in path]


def _paths_v3(kind: Kind, version: str) -> Iterator[tuple[str, dict[str, Any]]]:
    name = f"#/components/schemas/{schema_name(kind, version)}"
    paths: dict[str, dict[str, Any]] = {}
    for path, method, action, common, in_path in _operations(kind, version):
        parameters = [{"name": one, "in": "path", "required": True, "schema": {"type": "string"}} for one in in_path]
        parameters += [{"name": one, "in": "query", "schema": {"type": _TYPES.get(one, "string")}} for one in _QUERY[action]]
        answer = {"$ref": f"{name}List" if action == "list" else name}
        operation: dict[str, Any] = {
            **common,
            "parameters": parameters,
            "responses": {"200": {"description": "OK", "content": {"application/json": {"schema": answer}}}},
        }
        if action in ("post", "put"):
            operation["requestBody"] = {"content": {"application/json": {"schema": {"$ref": name}}}}
        if action == "patch":
            kinds = (*_PATCHES, _STRATEGIC) if kind.built_in else _PATCHES
            operation["requestBody"] = {"content": {one: {"schema": {"type": "object"}} for one in kinds}}
        paths.setdefault(path, {})[method] = operation
    yield from paths.items()


def _paths_v2(kind: Kind, version: str) -> Iterator[tuple[str, dict[str, Any]]]:
    name = f"#/definitions/{schema_name(kind, version)}"
    paths: dict[str, dict[str, Any]] = {}
    for path, method, action, common, in_path in _operations(kind, version):
        parameters: list[dict[str, Any]] = [{"name": one, "in": "path", "required": True, "type": "string"} for one in in_path]
        parameters += [{"name": one, "in": "query", "type": _TYPES.get(one, "string")} for one in _QUERY[action]]
        operation: dict[str, Any] = {
            **common,
            "produces": ["application/json"],
            "parameters": parameters,
            "responses": {"200": {"description": "OK", "schema": {"$ref": f"{name}List" if action == "list" else name}}},
        }
        if action in ("post", "put"):
            parameters.append({"name": "body", "in": "body", "required": True, "schema": {"$ref": name}})
        if action == "patch":
            parameters.append({"name": "body", "in": "body", "required": True, "schema": {"type": "object"}})
            operation["consumes"] = [*_PATCHES, _STRATEGIC] if kind.built_in else [*_PATCHES]
        paths.setdefault(path, {})[method] = operation
    yield from paths.items()
