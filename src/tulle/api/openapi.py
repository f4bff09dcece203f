"""OpenAPI documents of the served kinds, generated from the schemas: what `kubectl` needs to validate, explain and diff.

`openapi_v3` is one group and version (`/openapi/v3/apis/GROUP/VERSION`), `openapi_v2` all. Do not change what they return.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

from tulle.api.object import Kind
from tulle.api.openapi_schemas import kind_schemas, schema_name, shared_schemas
from tulle.api.registry import KINDS, REVIEWS

_PATCHES = ("application/json-patch+json", "application/merge-patch+json", "application/apply-patch+yaml")
_STRATEGIC = "application/strategic-merge-patch+json"
_SERVED = (*KINDS, *REVIEWS)


def group_versions() -> tuple[tuple[str, str], ...]:
    """Every served (group, version), once, in the order of the registry."""
    return tuple(dict.fromkeys((kind.group, version) for kind in _SERVED for version in kind.versions))


def api_path(group: str, version: str) -> str:
    """`api/v1` or `apis/GROUP/VERSION`: the path of a group and version, without a slash at either end."""
    return f"apis/{group}/{version}" if group else f"api/{version}"


@functools.cache
def openapi_v3(group: str, version: str) -> dict[str, Any]:
    """The OpenAPI 3.0 document of one group and version; empty of paths and kinds where it is not served."""
    schemas: dict[str, Any] = {}
    document_paths: dict[str, Any] = {}
    for kind in _kinds_of(group, version):
        schemas |= kind_schemas(kind, version, "#/components/schemas/", v2=False)
        document_paths |= dict(_paths_v3(kind, version))
    if schemas:
        schemas |= shared_schemas("#/components/schemas/")
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
            definitions |= kind_schemas(kind, version, "#/definitions/", v2=True)
            document_paths |= dict(_paths_v2(kind, version))
    definitions |= shared_schemas("#/definitions/")
    return {
        "swagger": "2.0",
        "info": {"title": "tulle", "version": "v1"},
        "paths": document_paths,
        "definitions": definitions,
    }


def _kinds_of(group: str, version: str) -> list[Kind]:
    return [kind for kind in _SERVED if kind.group == group and version in kind.versions]


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
    for suffix, method, action in _VERBS if not kind.review else _VERBS[1:2]:
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
