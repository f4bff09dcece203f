"""`/openapi/v2` as protobuf, the only form in which kubectl reads it: for kinds that it does not find, and in old versions.

The message is gnostic's `openapi.v2.Document`; written here as far as kubectl looks: every definition, and of the paths the
query parameters of each kind's PATCH (from which it learns that dry runs work).
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable, Mapping
from typing import Any

from tulle.kit.wire import field, tag, varint

MEDIA_TYPE = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf"

Raw = Mapping[str, Any]

_TEXTS = {"$ref": 1, "format": 2, "title": 3, "description": 4, "pattern": 13}
_DOUBLES = {"maximum": 7, "minimum": 9}
_COUNTS = {"maxLength": 11, "minLength": 12, "maxItems": 14, "minItems": 15, "maxProperties": 17, "minProperties": 18}


def document(swagger: Raw) -> bytes:
    """A Swagger document, serialised."""
    info = swagger.get("info") or {}
    definitions = b"".join(field(1, _named(name, _schema(schema))) for name, schema in (swagger.get("definitions") or {}).items())
    paths = b"".join(
        field(2, _named(path, field(7, _operation(item["patch"]))))
        for path, item in (swagger.get("paths") or {}).items()
        if "patch" in item
    )
    head = _text(1, "2.0") + field(2, _text(1, str(info.get("title", ""))) + _text(2, str(info.get("version", ""))))
    return head + field(8, paths) + field(9, definitions)


def _schema(schema: Raw) -> bytes:
    made = b"".join(_text(number, str(schema[word])) for word, number in _TEXTS.items() if word in schema)
    made += b"".join(
        tag(number, 1) + struct.pack("<d", float(schema[word])) for word, number in _DOUBLES.items() if word in schema
    )
    made += b"".join(tag(number, 0) + varint(int(schema[word])) for word, number in _COUNTS.items() if word in schema)
    made += b"".join(_text(19, name) for name in schema.get("required", ()))
    made += b"".join(field(20, _any(value)) for value in schema.get("enum", ()))
    more = schema.get("additionalProperties")
    if isinstance(more, bool):
        made += field(21, tag(2, 0) + varint(int(more)))
    elif isinstance(more, Mapping):
        made += field(21, field(1, _schema(more)))
    if "type" in schema:
        made += field(22, _text(1, schema["type"]))
    if "items" in schema:
        made += field(23, field(1, _schema(schema["items"])))
    made += b"".join(field(24, _schema(one)) for one in schema.get("allOf", ()))
    if schema.get("properties"):
        fields = (field(1, _named(name, _schema(one))) for name, one in schema["properties"].items())
        made += field(25, b"".join(fields))
    return made + _extensions(31, schema)


def _operation(operation: Raw) -> bytes:
    made = b"".join(_text(7, kind) for kind in operation.get("consumes", ()))
    for parameter in operation.get("parameters", ()):
        if parameter["in"] == "query":
            query = _text(2, "query") + _text(4, parameter["name"]) + _text(6, parameter["type"])
            made += field(8, field(1, field(2, field(3, query))))
    return made + _extensions(13, operation)


def _extensions(number: int, holder: Raw) -> bytes:
    found: Iterable[tuple[str, Any]] = ((name, value) for name, value in holder.items() if name.startswith("x-"))
    return b"".join(field(number, _named(name, _any(value))) for name, value in found)


def _any(value: Any) -> bytes:
    return _text(2, json.dumps(value))  # JSON is YAML


def _named(name: str, value: bytes) -> bytes:
    return _text(1, name) + field(2, value)


def _text(number: int, value: str) -> bytes:
    return field(number, value.encode())
