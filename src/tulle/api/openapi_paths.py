"""What can be done at which path, as OpenAPI says it: for `kubectl` (dry runs, validation), client generators and fuzzers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from tulle.api.kind import Kind
from tulle.api.openapi_schemas import META, schema_name

_PATCHES = ("application/json-patch+json", "application/merge-patch+json", "application/apply-patch+yaml")
_STRATEGIC = "application/strategic-merge-patch+json"

# What each action takes in its query.
_SELECTS = ("labelSelector", "fieldSelector")
_WRITES = ("dryRun", "fieldManager", "fieldValidation")
_DELETES = ("dryRun", "gracePeriodSeconds", "orphanDependents", "propagationPolicy")
_QUERY = {
    "list": (
        *_SELECTS,
        *("limit", "continue", "resourceVersion", "resourceVersionMatch", "watch", "allowWatchBookmarks", "sendInitialEvents"),
        "timeoutSeconds",
    ),
    "post": _WRITES,
    "get": ("resourceVersion",),
    "put": _WRITES,
    "patch": (*_WRITES, "force"),
    "delete": _DELETES,
    "deletecollection": (*_SELECTS, *_DELETES),
}
_METHODS = {"list": "get", "deletecollection": "delete"}  # the others are named as their methods
_TYPES: dict[str, dict[str, Any]] = {
    "limit": {"type": "integer"},
    "timeoutSeconds": {"type": "integer"},
    "gracePeriodSeconds": {"type": "integer"},
    "watch": {"type": "boolean"},
    "allowWatchBookmarks": {"type": "boolean"},
    "sendInitialEvents": {"type": "boolean"},
    "force": {"type": "boolean"},
    "orphanDependents": {"type": "boolean"},
    "dryRun": {"type": "string", "enum": ["All"]},
    "fieldValidation": {"type": "string", "enum": ["Ignore", "Warn", "Strict"]},
    "resourceVersionMatch": {"type": "string", "enum": ["Exact", "NotOlderThan"]},
    "propagationPolicy": {"type": "string", "enum": ["Orphan", "Background", "Foreground"]},
    "resourceVersion": {"type": "string", "pattern": "^[0-9]{0,18}$"},
    "fieldManager": {"type": "string", "maxLength": 128},
}
_STATUSES = {"post": ("201",), "put": ("200", "201"), "patch": ("200", "201"), "delete": ("200", "202")}
_WORDS = {"200": "OK", "201": "Created", "202": "Accepted"}


class _Operation(NamedTuple):
    path: str
    action: str

    @property
    def method(self) -> str:
        return _METHODS.get(self.action, self.action)

    @property
    def in_path(self) -> list[str]:
        return [name for name in ("name", "namespace") if f"{{{name}}}" in self.path]


def _operations(kind: Kind, version: str) -> Iterator[_Operation]:
    root = f"/apis/{kind.group}/{version}" if kind.group else f"/api/{version}"
    collection = f"{root}/namespaces/{{namespace}}/{kind.plural}" if kind.namespaced else f"{root}/{kind.plural}"
    yield _Operation(collection, "post")
    if kind.review:
        return
    yield _Operation(collection, "list")
    yield _Operation(collection, "deletecollection")
    if kind.namespaced:
        yield _Operation(f"{root}/{kind.plural}", "list")
    for action in ("get", "put", "patch", "delete"):
        yield _Operation(f"{collection}/{{name}}", action)
    if "status" in kind.model.model_fields:
        for action in ("get", "put", "patch"):
            yield _Operation(f"{collection}/{{name}}/status", action)


def _common(kind: Kind, version: str, action: str) -> dict[str, Any]:
    gvk = {"group": kind.group, "version": version, "kind": kind.kind}
    return {"x-kubernetes-action": action, "x-kubernetes-group-version-kind": gvk}


def _patches(kind: Kind) -> list[str]:
    return [*_PATCHES, _STRATEGIC] if kind.built_in else [*_PATCHES]


def paths_v3(kind: Kind, version: str) -> dict[str, dict[str, Any]]:
    """The paths of a kind in OpenAPI 3.0."""
    schemas = "#/components/schemas/"
    name = schemas + schema_name(kind, version)
    status = {"$ref": f"{schemas}{META}.Status"}
    paths: dict[str, dict[str, Any]] = {}
    for one in _operations(kind, version):
        parameters = [{"name": word, "in": "path", "required": True, "schema": {"type": "string"}} for word in one.in_path]
        parameters += [
            {"name": word, "in": "query", "schema": _TYPES.get(word, {"type": "string"})} for word in _QUERY[one.action]
        ]
        shown: dict[str, Any] = {"$ref": f"{name}List" if one.action in ("list", "deletecollection") else name}
        if one.action == "delete":
            shown = {"type": "object", "description": "The Status of success, or the object where it is still there."}
        answers = {code: _answer(_WORDS[code], shown) for code in _STATUSES.get(one.action, ("200",))}
        operation: dict[str, Any] = {
            **_common(kind, version, one.action),
            "parameters": parameters,
            "responses": {**answers, "default": _answer("Refused, or failed: the reason, and a sentence", status)},
        }
        if one.action in ("post", "put"):
            operation["requestBody"] = {"required": True, "content": {"application/json": {"schema": {"$ref": name}}}}
        elif one.action == "patch":
            bodies = {media: {"schema": _patch_schema(media)} for media in _patches(kind)}
            operation["requestBody"] = {"required": True, "content": bodies}
        elif one.method == "delete":
            options = {"$ref": f"{schemas}{META}.DeleteOptions"}
            operation["requestBody"] = {"content": {"application/json": {"schema": options}}}
        paths.setdefault(one.path, {})[one.method] = operation
    return paths


def _answer(words: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"description": words, "content": {"application/json": {"schema": schema}}}


def _patch_schema(media: str) -> dict[str, Any]:
    return {"type": "array", "items": {"type": "object"}} if media == _PATCHES[0] else {"type": "object"}


def paths_v2(kind: Kind, version: str) -> dict[str, dict[str, Any]]:
    """The paths of a kind in OpenAPI 2.0."""
    name = f"#/definitions/{schema_name(kind, version)}"
    paths: dict[str, dict[str, Any]] = {}
    for one in _operations(kind, version):
        parameters: list[dict[str, Any]] = [
            {"name": word, "in": "path", "required": True, "type": "string"} for word in one.in_path
        ]
        parameters += [{"name": word, "in": "query", **_TYPES.get(word, {"type": "string"})} for word in _QUERY[one.action]]
        shown = f"{name}List" if one.action in ("list", "deletecollection") else name
        operation: dict[str, Any] = {
            **_common(kind, version, one.action),
            "produces": ["application/json"],
            "parameters": parameters,
            "responses": {
                code: {"description": _WORDS[code], "schema": {"$ref": shown}} for code in _STATUSES.get(one.action, ("200",))
            },
        }
        if one.action in ("post", "put"):
            parameters.append({"name": "body", "in": "body", "required": True, "schema": {"$ref": name}})
        if one.action == "patch":
            parameters.append({"name": "body", "in": "body", "required": True, "schema": {"type": "object"}})
            operation["consumes"] = _patches(kind)
        paths.setdefault(one.path, {})[one.method] = operation
    return paths
