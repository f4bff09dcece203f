"""Reads: one object, and a list (selected, in pages that all show one revision)."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass
from typing import Any

from tulle.control.apiserver import errors, listing_options
from tulle.control.apiserver.document import shown
from tulle.control.apiserver.listing_options import ListOptions, continue_token, resource_version
from tulle.control.apiserver.negotiation import Form
from tulle.control.apiserver.selectors import Test, everything, name_in, selector
from tulle.control.apiserver.table import metadata_only, table
from tulle.control.apiserver.target import Target
from tulle.ports import Compacted, Future, Store, Stored

Raw = dict[str, Any]

_PATIENCE = 3.0  # seconds for the store to reach a revision that another control plane of the mesh has seen; as in Kubernetes
_NOTHING = "_none"  # a resource without objects: listing it gives the store's revision and nothing else


async def current(store: Store) -> int:
    """The store's revision."""
    return (await store.list(_NOTHING))[1]


async def reached(store: Store, revision: int) -> None:
    """Return when the store has reached a revision; raises a `Denial` (504) where it does not within seconds."""
    since = await current(store)
    if since >= revision:
        return
    try:
        async with asyncio.timeout(_PATIENCE):
            events = store.watch(since)
            async with contextlib.aclosing(events) if isinstance(events, AsyncGenerator) else contextlib.nullcontext():
                async for event in events:
                    if event.revision >= revision:
                        return
    except TimeoutError:
        since = await current(store)
        if since < revision:
            raise errors.version_of_the_future(revision, since) from None


async def get(store: Store, target: Target, query: Mapping[str, str]) -> Raw:
    """The object. Raises a `Denial` where it is absent."""
    if version := resource_version(query.get("resourceVersion", "")):
        await reached(store, version)
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

    @property
    def whole(self) -> bool:
        """Whether all objects of the target's kind and namespace are selected."""
        return self.test is everything and not self.name


def selection(target: Target, query: Mapping[str, str]) -> Selection:
    """The selectors of a query. Raises a `Denial` where one cannot be read."""
    labels, fields = query.get("labelSelector", ""), query.get("fieldSelector", "")
    test = selector(labels, fields, target.kind.resource)
    return Selection(target, test, target.name or name_in(fields))


async def selected(store: Store, chosen: Selection, at: int | None = None) -> tuple[list[Stored], int]:
    """The selected objects, sorted by key, and the revision at which this holds: `at`, where one is asked for."""
    target = chosen.target
    found, revision = await store.list(target.kind.resource, target.namespace or None, at=at)
    if chosen.whole:
        return list(found), revision
    return [item for item in found if (not chosen.name or item.key.name == chosen.name) and chosen.test(item.body)], revision


async def listing(store: Store, target: Target, query: Mapping[str, str], how: Form, now: float) -> Raw:
    """The List; with `limit`, a page and where to continue. Every page shows the first one's revision."""
    options = listing_options.listing(query, target)
    chosen = selection(target, query)
    found, revision = await _consistent(store, chosen, options)
    metadata: Raw = {"resourceVersion": str(revision)}
    if options.start is not None:
        after = options.start.after
        found = [item for item in found if item.key > after]
    if options.limit and len(found) > options.limit:
        metadata["continue"] = continue_token(revision, found[options.limit - 1].key)
        if chosen.whole:
            metadata["remainingItemCount"] = len(found) - options.limit
        found = found[: options.limit]
    bodies = [shown(target, item.body, item.revision) for item in found]
    if how.kind == "Table":
        return table(target.kind, bodies, now, metadata=metadata, include=how.include)
    if how.kind:
        items = [metadata_only(body) for body in bodies]
        return {"kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1", "metadata": metadata, "items": items}
    return {"kind": f"{target.kind.kind}List", "apiVersion": target.api_version, "metadata": metadata, "items": bodies}


async def _consistent(store: Store, chosen: Selection, options: ListOptions) -> tuple[list[Stored], int]:
    """What is selected, as fresh or as old as was asked for. Raises a `Denial` (410, 504)."""
    start = options.start
    at = start.at if start is not None else options.at
    try:
        found, revision = await selected(store, chosen, at)
        if revision < options.least:
            await reached(store, options.least)
            found, revision = await selected(store, chosen)
    except Compacted as error:
        if start is not None:
            raise errors.expired_continue(continue_token(None, start.after)) from error
        raise errors.expired_list() from error
    except Future as error:
        await reached(store, error.asked)
        return await selected(store, chosen, at)
    return found, revision
