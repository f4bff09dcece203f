"""Server-side apply, and the book-keeping of field managers for every other write. Pure.

An applied configuration owns the fields that it names. Applying it again removes what it owned and no longer names, takes what
is nobody's, shares what is equal, and conflicts over fields that others own with another value.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tulle.control.apiserver import fields
from tulle.control.apiserver.fields import Lists, Path
from tulle.control.apiserver.lists import Path as Names

Raw = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Manager:
    """Who writes: `name` (kubectl's `--field-manager`), in which `api_version`, to which `subresource` (or ""), at `time`."""

    name: str
    api_version: str
    subresource: str
    time: str


class FieldConflict(Exception):
    """Fields of other managers would be overwritten: (manager, field path) each."""

    def __init__(self, causes: Sequence[tuple[str, str]]) -> None:
        super().__init__(str(causes))
        self.causes = causes


def _is(entry: Mapping[str, Any], manager: Manager, operation: str) -> bool:
    found = (entry.get("manager"), entry.get("operation"), entry.get("subresource", ""))
    return found == (manager.name, operation, manager.subresource)


def _entry(manager: Manager, operation: str, paths: set[Path]) -> Raw:
    entry: Raw = {
        "manager": manager.name,
        "operation": operation,
        "apiVersion": manager.api_version,
        "time": manager.time,
        "fieldsType": "FieldsV1",
        "fieldsV1": fields.encode(paths),
    }
    return entry | ({"subresource": manager.subresource} if manager.subresource else {})


def _entries(body: Mapping[str, Any] | None) -> list[Raw]:
    entries = ((body or {}).get("metadata") or {}).get("managedFields")
    return [one for one in entries if isinstance(one, dict) and one.get("manager")] if isinstance(entries, list) else []


def _with(entry: Raw, paths: set[Path]) -> Raw:
    return {**entry, "fieldsV1": fields.encode(paths)}


def after_update(live: Raw | None, new: Raw, manager: Manager, lists: Lists) -> list[Raw]:
    """The managed fields after a create, update or patch: what changed is now the writer's, and only the writer's.

    A body that brings other managed fields than the live object has its own way: that is how managers are renamed or reset.
    """
    given = (new.get("metadata") or {}).get("managedFields")
    entries = _entries(new) if isinstance(given, list) else _entries(live)
    before = fields.leaves(fields.owned_part(live or {}), lists)
    after = fields.leaves(fields.owned_part(new), lists)
    changed = {path for path, value in after.items() if path not in before or before[path] != value}
    removed = before.keys() - after.keys()
    if not changed and not removed:
        return entries
    result, mine = [], False
    for entry in entries:
        paths = fields.decode(entry.get("fieldsV1"))
        if _is(entry, manager, "Update"):
            mine = True
            paths = (paths - removed) | changed
            entry = {**entry, "time": manager.time, "apiVersion": manager.api_version}
        else:
            paths -= removed | changed
        if paths:
            result.append(_with(entry, paths))
    if not mine and changed:
        result.append(_entry(manager, "Update", changed))
    return result


def apply(live: Raw | None, config: Raw, manager: Manager, lists: Lists, *, force: bool) -> Raw:
    """The object after `config` was applied, with its managed fields. Raises `FieldConflict` unless `force`."""
    wanted = fields.leaves(fields.owned_part(config), lists)
    before = fields.leaves(fields.owned_part(live or {}), lists)
    mine: set[Path] = set()
    others: list[tuple[Raw, set[Path]]] = []
    conflicts: list[tuple[str, str]] = []
    for entry in _entries(live):
        paths = fields.decode(entry.get("fieldsV1"))
        if _is(entry, manager, "Apply"):
            mine = paths
            continue
        contested = {path for path in paths & wanted.keys() if before.get(path) != wanted[path]}
        conflicts += [(str(entry["manager"]), fields.shown(path)) for path in sorted(contested)]
        others.append((entry, paths - contested))
    if conflicts and not force:
        raise FieldConflict(conflicts)
    merged: Raw = _merge(copy.deepcopy(live) if live else {}, config, lists, ())
    theirs = set().union(*(paths for _, paths in others))
    for path in sorted(mine - wanted.keys() - theirs, key=len):  # an item goes before the fields that name it
        _remove(merged, path, lists, theirs | wanted.keys())
    entries = [_with(entry, paths) for entry, paths in others if paths]
    if wanted:
        entries.append(_entry(manager, "Apply", set(wanted)))
    merged.setdefault("metadata", {})["managedFields"] = entries
    return merged


def _merge(live: Any, config: Any, lists: Lists, names: Names) -> Any:
    if isinstance(live, dict) and isinstance(config, dict):
        merged = dict(live)
        for key, value in config.items():
            merged[key] = _merge(live.get(key), value, lists, (*names, key))
        return merged
    if isinstance(live, list) and isinstance(config, list) and (merge := lists.get(names)) is not None:
        there = {fields.item_step(item, merge): item for item in live}
        given = {fields.item_step(item, merge): item for item in config}
        order = given if there.keys() <= given.keys() else there | given
        return [_merge(there.get(step), given[step], lists, names) if step in given else there[step] for step in order]
    return copy.deepcopy(config)


def _remove(body: Raw, path: Path, lists: Lists, kept: set[Path]) -> None:
    """Take one owned path out, then the maps that this leaves empty (never `spec` itself)."""
    holders: list[tuple[Any, Any]] = []  # each container and the key or index taken in it
    here: Any = body
    names: Names = ()
    for step in path:
        what, value = step[:2], step[2:]
        place: Any = None
        if what == "f:" and isinstance(here, dict) and value in here:
            place, names = value, (*names, value)
        elif isinstance(here, list) and (merge := lists.get(names)) is not None:
            place = next((index for index, item in enumerate(here) if fields.item_step(item, merge) == step), None)
        if place is None:
            return
        holders.append((here, place))
        here = here[place]
    if path[-1].startswith("k:") and any(other[: len(path)] == path for other in kept):
        return  # somebody else still has fields in this item
    if len(path) > 1 and path[-2].startswith("k:") and path[-1][2:] in json.loads(path[-2][2:]):
        return  # the item stays, and with it what names it
    holder, place = holders.pop()
    del holder[place]
    while len(holders) > 1 and not holders[-1][0][holders[-1][1]] and isinstance(holders[-1][1], str):
        holder, place = holders.pop()
        del holder[place]


def same(one: Raw, other: Raw) -> bool:
    """Whether two objects are equal but for the times of their field managers: then there is nothing to write."""
    return _timeless(one) == _timeless(other)


def _timeless(body: Raw) -> Raw:
    metadata = dict(body.get("metadata") or {})
    entries = metadata.pop("managedFields", None) or []
    metadata["managedFields"] = sorted(
        json.dumps({key: value for key, value in entry.items() if key != "time"}, sort_keys=True) for entry in entries
    )
    return {**body, "metadata": metadata}
