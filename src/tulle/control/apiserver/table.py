"""`kubectl get`'s tables, made by the server: NAME, the kind's own columns, AGE, and what only `-o wide` shows."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from tulle.api.kind import NAME, Column, Kind

Raw = dict[str, Any]


def table(kind: Kind, bodies: Sequence[Raw], now: float, *, metadata: Raw, include: str, columns: bool = True) -> Raw:
    """A `Table` of the objects. `include`: what each row carries of its object: `Metadata`, `Object` or `None`.

    `metadata` is the list's; `columns` False leaves the definitions out, as in all but the first event of a watch.
    """
    shown = kind.table
    definitions = [_column(one.name, "string", int(one.wide), "name" if one is NAME else "") for one in shown]
    rows = [{"cells": [cell(one, body, now) for one in shown], "object": _carried(body, include)} for body in bodies]
    return {
        "kind": "Table",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": metadata,
        "columnDefinitions": definitions if columns else [],
        "rows": rows,
    }


def cell(column: Column, body: Raw, now: float) -> str:
    """What a column shows of an object at the time `now`."""
    value = column.value(body)
    return _age(value, now) if column.age else value


def _column(name: str, kind: str, priority: int, form: str = "") -> Raw:
    return {"name": name, "type": kind, "format": form, "description": name, "priority": priority}


def _carried(body: Raw, include: str) -> Raw | None:
    if include == "None":
        return None
    return body if include == "Object" else metadata_only(body)


def metadata_only(body: Raw) -> Raw:
    """The object's `PartialObjectMetadata`."""
    return {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": body["metadata"]}


def _age(time: str, now: float) -> str:
    try:
        then = datetime.fromisoformat(time)
    except ValueError:
        return "<unknown>"
    return human(max(0, int(now - then.timestamp())))


def human(seconds: int) -> str:
    """A duration as kubectl shows ages: two units at most, fewer as it grows (`45s`, `3m20s`, `5h`, `12d`, `2y30d`)."""
    minutes, hours, days = seconds // 60, seconds // 3600, seconds // 86400
    if seconds < 120:
        return f"{seconds}s"
    if minutes < 10:
        return f"{minutes}m" + (f"{seconds % 60}s" if seconds % 60 else "")
    if minutes < 180:
        return f"{minutes}m"
    if hours < 8:
        return f"{hours}h" + (f"{minutes % 60}m" if minutes % 60 else "")
    if hours < 48:
        return f"{hours}h"
    if days < 8:
        return f"{days}d" + (f"{hours % 24}h" if hours % 24 else "")
    if days < 730:
        return f"{days}d"
    if days < 365 * 8:
        return f"{days // 365}y" + (f"{days % 365}d" if days % 365 else "")
    return f"{days // 365}y"


def timestamp(now: float) -> str:
    """RFC 3339 in UTC, whole seconds, as Kubernetes writes times."""
    return _second(int(now))


@functools.lru_cache(maxsize=8)
def _second(now: int) -> str:
    return datetime.fromtimestamp(now, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
