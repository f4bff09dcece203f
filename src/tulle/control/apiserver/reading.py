"""Reads: one object, a list (selected, in pages), and what a watch sends."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tulle.control.apiserver import errors
from tulle.control.apiserver.document import shown
from tulle.control.apiserver.selectors import Test, name_in, selector
from tulle.control.apiserver.table import metadata_only, table
from tulle.control.apiserver.target import Target, number
from tulle.ports import Key, Store, Stored

Raw = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Form:
    """How objects are to be shown: `kind` is `Table`, `PartialObjectMetadata` or "" (as they are).

    `include`: what a table's rows carry of their objects.
    """

    kind: str = ""
    include: str = "Metadata"


def form(accept: str, query: Mapping[str, str]) -> Form:
    """The form that an `Accept` header prefers, of those served."""
    for part in accept.split(","):
        media, *parameters = [piece.strip() for piece in part.split(";")]
        wanted = dict(piece.partition("=")[::2] for piece in parameters)
        if media not in ("application/json", "application/*", "*/*", ""):
            continue
        asked = wanted.get("as", "")
        if not asked:
            return Form()
        if wanted.get("g", "meta.k8s.io") == "meta.k8s.io" and wanted.get("v", "v1") == "v1":
            kind = asked.removesuffix("List")
            if kind in ("Table", "PartialObjectMetadata"):
                return Form(kind, query.get("includeObject") or "Metadata")
    return Form()


async def get(store: Store, target: Target) -> Raw:
    """The object. Raises a `Denial` where it is absent."""
    stored = await store.get(target.key)
    if stored is None:
        raise errors.not_found(target.kind, target.name)
    return shown(target, stored.body, stored.revision)


def one(target: Target, body: Raw, how: Form, now: float) -> Raw:
    """An object in the form that was asked for."""
    if how.kind == "Table":
        metadata = {"resourceVersion": body["metadata"].get("resourceVersion", "")}
        return table(target.kind, [body], now, metadata=metadata, include=how.include)
    return metadata_only(body) if how.kind else body


@dataclass(frozen=True, slots=True)
class Selection:
    """What a list or watch is about: objects of `target` that pass `test`; only `name` where it is not ""."""

    target: Target
    test: Test
    name: str


def selection(target: Target, query: Mapping[str, str]) -> Selection:
    """The selectors of a query. Raises a `Denial` where one cannot be read."""
    labels, fields = query.get("labelSelector", ""), query.get("fieldSelector", "")
    test = selector(labels, fields, target.kind.resource)
    return Selection(target, test, target.name or name_in(fields))


async def selected(store: Store, chosen: Selection) -> tuple[list[Stored], int]:
    """The selected objects, sorted by key, and the revision at which this holds."""
    target = chosen.target
    found, revision = await store.list(target.kind.resource, target.namespace or None)
    return [item for item in found if (not chosen.name or item.key.name == chosen.name) and chosen.test(item.body)], revision


async def listing(store: Store, target: Target, query: Mapping[str, str], how: Form, now: float) -> Raw:
    """The List; with `limit`, a page and where to continue.

    Pages after the first show the objects as they are then, under the first page's resource version: a watch from there
    sends everything that changed between the pages.
    """
    found, revision = await selected(store, selection(target, query))
    metadata: Raw = {"resourceVersion": str(revision)}
    if token := query.get("continue", ""):
        first, after = _continued(token, target)
        metadata["resourceVersion"] = str(first)
        found = [item for item in found if item.key > after]
    limit = number(query, "limit")
    if limit and len(found) > limit:
        metadata["continue"] = _continue(int(metadata["resourceVersion"]), found[limit - 1].key)
        metadata["remainingItemCount"] = len(found) - limit
        found = found[:limit]
    bodies = [shown(target, item.body, item.revision) for item in found]
    if how.kind == "Table":
        return table(target.kind, bodies, now, metadata=metadata, include=how.include)
    if how.kind:
        items = [metadata_only(body) for body in bodies]
        return {"kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1", "metadata": metadata, "items": items}
    return {"kind": f"{target.kind.kind}List", "apiVersion": target.api_version, "metadata": metadata, "items": bodies}


def _continue(revision: int, last: Key) -> str:
    return base64.urlsafe_b64encode(json.dumps([revision, last.namespace, last.name]).encode()).decode()


def _continued(token: str, target: Target) -> tuple[int, Key]:
    try:
        revision, namespace, name = json.loads(base64.urlsafe_b64decode(token))
        return int(revision), Key(target.kind.resource, str(namespace), str(name))
    except (ValueError, TypeError) as error:
        raise errors.bad_request("continue: found something else than a list's own token") from error
