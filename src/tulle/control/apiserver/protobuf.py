"""Kubernetes' protobuf bodies for its own kinds, into the same JSON: `kubectl create namespace` and its like send nothing else.

Only requests: every client that sends protobuf takes JSON answers. The tables follow the field numbers of Kubernetes'
published `generated.proto`s; a field that is not in them is refused, not lost.
"""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime
from typing import Any

from tulle.control.apiserver.errors import bad_request
from tulle.control.apiserver.protobuf_messages import MESSAGES, OPTIONS, Message
from tulle.control.apiserver.table import timestamp
from tulle.kit.wire import fields

Raw = dict[str, Any]

MEDIA_TYPE = "application/vnd.kubernetes.protobuf"
_MAGIC = b"k8s\x00"


def decode(data: bytes) -> Raw:
    """The object in a body of type `MEDIA_TYPE`. Raises a `Denial` where it cannot be read or its kind is not in the tables."""
    if not data.startswith(_MAGIC):
        raise bad_request("the body is not Kubernetes protobuf")
    try:
        envelope = dict(fields(data[len(_MAGIC) :]))
        named = {number: bytes(value).decode() for number, value in fields(envelope.get(1, b"")) if isinstance(value, bytes)}
        api_version, kind = named.get(1, ""), named.get(2, "")
        message = OPTIONS if kind == "DeleteOptions" else MESSAGES.get((api_version.rpartition("/")[0], kind))
        if message is None:
            raise bad_request(f"{kind or 'the object'} cannot be read as protobuf here; send JSON")
        return {"apiVersion": api_version, "kind": kind} | _message(envelope.get(2, b""), message)
    except (ValueError, IndexError, TypeError, OverflowError, OSError) as error:
        raise bad_request(f"the body is not Kubernetes protobuf: {error}") from error


def _message(data: Any, message: Message) -> Raw:
    found: Raw = {}
    for number, value in fields(data):
        field = message.get(number)
        if field is None:
            raise bad_request(f"field {number} of the protobuf body is not known here; send JSON")
        if field.kind in ("map", "bytes-map"):
            entry = dict(fields(value))
            text = entry.get(2, b"")
            key = bytes(entry.get(1, b"")).decode()
            found.setdefault(field.name, {})[key] = (
                base64.b64encode(text).decode() if field.kind == "bytes-map" else bytes(text).decode()
            )
        elif field.kind == "texts-map":
            entry = dict(fields(value))
            texts = [bytes(text).decode() for _, text in fields(entry.get(2, b""))]
            found.setdefault(field.name, {})[bytes(entry.get(1, b"")).decode()] = texts
        elif field.kind != "ignored":
            made = _value(value, field.kind)
            if field.many:
                found.setdefault(field.name, []).append(made)
            elif field.said or (made not in ("", None, {}) and not (field.kind == "int" and made == 0)):
                found[field.name] = made  # Go writes every field, also what was not set
    return found


def _value(value: Any, kind: str | Message) -> Any:
    match kind:
        case "string":
            return bytes(value).decode()
        case "int":
            return int(value) - (1 << 64 if value >> 63 else 0)
        case "bool":
            return bool(value)
        case "micro":
            parts = dict(fields(value))
            moment = datetime.fromtimestamp(parts.get(1, 0), UTC) if parts.get(1) else None
            return moment and f"{moment:%Y-%m-%dT%H:%M:%S}.{parts.get(2, 0) // 1000:06}Z"
        case "time":
            seconds = dict(fields(value)).get(1, 0)
            return timestamp(float(seconds)) if seconds else None
        case "json":
            return json.loads(bytes(dict(fields(value)).get(1, b"null")))
        case "int-or-string":
            parts = dict(fields(value))
            return bytes(parts.get(3, b"")).decode() if parts.get(1) else parts.get(2) or None
        case str():
            raise ValueError(kind)
        case message:
            return _message(value, message)
