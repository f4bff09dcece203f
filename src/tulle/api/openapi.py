"""OpenAPI documents of the served kinds, generated from the schemas: what `kubectl` needs to validate, explain and diff.

`openapi_v3` is one group and version (`/openapi/v3/apis/GROUP/VERSION`), `openapi_v2` all. Do not change what they return.
"""

from __future__ import annotations

import functools
from typing import Any

from tulle.api.object import Kind
from tulle.api.openapi_paths import paths_v2, paths_v3
from tulle.api.openapi_schemas import kind_schemas, shared_schemas
from tulle.api.registry import KINDS, REVIEWS

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
        document_paths |= paths_v3(kind, version)
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
            document_paths |= paths_v2(kind, version)
    definitions |= shared_schemas("#/definitions/")
    return {
        "swagger": "2.0",
        "info": {"title": "tulle", "version": "v1"},
        "paths": document_paths,
        "definitions": definitions,
    }


def _kinds_of(group: str, version: str) -> list[Kind]:
    return [kind for kind in _SERVED if kind.group == group and version in kind.versions]
