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
from tulle.control.apiserver.patch import equal

Raw = dict[str, Any]

LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"
_KUBECTL = "kubectl"  # the manager of `kubectl apply --server-side`
_BEFORE, _ANCIENT = "before-first-apply", "ancient-changes"
_MOST_UPDATERS = 10


@dataclass(frozen=True, slots=True)
class Manager:
    """Who writes: `name` (kubectl's `--field-manager`), in which `api_version`, to which `subresource` (or ""), at `time`."""

    name: str
    api_version: str
    subresource: str
    time: str


class BadConfiguration(Exception):
    """An applied configuration that has no meaning, whatever the object is."""


class FieldConflict(Exception):
    """Fields of other managers would be overwritten: (who, field path) each."""

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


def _who(entry: Mapping[str, Any]) -> str:
    """A manager in words: `"kubectl-edit" using v1 at 2026-01-01T00:00:00Z`."""
    said = json.dumps(str(entry["manager"]))
    if entry.get("subresource"):
        said += f" with subresource {json.dumps(str(entry['subresource']))}"
    if entry.get("operation") == "Update":
        said += f" using {entry.get('apiVersion')}" + (f" at {entry['time']}" if entry.get("time") else "")
    return said


def _with(entry: Raw, paths: set[Path]) -> Raw:
    return {**entry, "fieldsV1": fields.encode(paths)}


def after_update(live: Raw | None, new: Raw, manager: Manager, lists: Lists) -> list[Raw]:
    """The managed fields after a create, update or patch: what changed is now the writer's, and only the writer's.

    A body that brings other managed fields than the live object has its own way: that is how managers are renamed, or (with one
    empty entry) reset. An empty list says nothing: clients that do not know the field must not reset it.
    """
    given = (new.get("metadata") or {}).get("managedFields")
    entries = _entries(new) if isinstance(given, list) and given else _entries(live)
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
    return _bounded(result)


def _bounded(entries: list[Raw]) -> list[Raw]:
    """At most `_MOST_UPDATERS` managers of updates: the oldest become one, as in Kubernetes."""
    updates = [entry for entry in entries if entry.get("operation") == "Update" and not entry.get("subresource")]
    surplus = len(updates) - _MOST_UPDATERS
    if surplus <= 0:
        return entries
    old = sorted(updates, key=lambda entry: (entry["manager"] != _ANCIENT, str(entry.get("time", ""))))[: surplus + 1]
    merged = {**old[-1], "manager": _ANCIENT}
    paths = set().union(*(fields.decode(entry.get("fieldsV1")) for entry in old))
    gone = {id(entry) for entry in old}
    return [*(entry for entry in entries if id(entry) not in gone), _with(merged, paths)]


def apply(live: Raw | None, config: Raw, manager: Manager, lists: Lists, *, force: bool) -> Raw:
    """The object after `config` was applied, with its managed fields.

    Raises `FieldConflict` unless `force`, and `BadConfiguration` where a list that is merged by keys has one of them twice.
    """
    for path in fields.doubled(config, lists):
        raise BadConfiguration(f"{fields.shown(path[:-1])}: duplicate entries for key {fields.shown(path[-1:])}")
    wanted = fields.leaves(fields.owned_part(config), lists)
    before = fields.leaves(fields.owned_part(live or {}), lists)
    mine: set[Path] = set()
    others: list[tuple[Raw, set[Path]]] = []
    conflicts: list[tuple[str, Path]] = []
    for entry in _entries(live) or _unmanaged(live, before, manager):
        paths = fields.decode(entry.get("fieldsV1"))
        if _is(entry, manager, "Apply"):
            mine = paths
            continue
        contested = {path for path in paths & wanted.keys() if before.get(path) != wanted[path]}
        conflicts += [(_who(entry), path) for path in sorted(contested)]
        others.append((entry, paths - contested))
    if conflicts and not force:
        free = _last_applied(live, before, lists) if manager.name == _KUBECTL else set()
        if refused := [(who, fields.shown(path)) for who, path in conflicts if path not in free]:
            raise FieldConflict(refused)
    merged: Raw = _merge(copy.deepcopy(live) if live else {}, config, lists, ())
    theirs = set().union(*(paths for _, paths in others))
    for path in sorted(mine - wanted.keys() - theirs, key=len):  # an item goes before the fields that name it
        _remove(merged, path, lists, theirs | wanted.keys())
    entries = [_with(entry, paths) for entry, paths in others if paths]
    if wanted:
        entries.append(_entry(manager, "Apply", set(wanted)))
    merged.setdefault("metadata", {})["managedFields"] = _bounded(entries)
    if manager.name == _KUBECTL:
        _tell_client_side(live, merged, config)
    return merged


def _unmanaged(live: Raw | None, before: Mapping[Path, Any], manager: Manager) -> list[Raw]:
    """An object without any manager (they were reset) belongs to `before-first-apply`: an apply takes nothing by chance."""
    if live is None or not before:
        return []
    return [_entry(Manager(_BEFORE, manager.api_version, "", manager.time), "Update", set(before))]


def _annotation(body: Mapping[str, Any] | None) -> Raw | None:
    """What kubectl applied on the client's side, as it noted it; None where it did not."""
    text = (((body or {}).get("metadata") or {}).get("annotations") or {}).get(LAST_APPLIED)
    try:
        found = json.loads(text) if isinstance(text, str) else None
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def _last_applied(live: Raw | None, before: Mapping[Path, Any], lists: Lists) -> set[Path]:
    """Fields that kubectl applied from the client's side and that still are so: they are kubectl's own, whoever is noted."""
    noted = _annotation(live)
    if noted is None:
        return set()
    metadata = noted.get("metadata")
    applied = fields.leaves(fields.owned_part({**noted, "metadata": metadata if isinstance(metadata, dict) else {}}), lists)
    return {path for path, value in applied.items() if path in before and before[path] == value}


def _tell_client_side(live: Raw | None, merged: Raw, config: Raw) -> None:
    """Keep kubectl's note of what it applied true, so that a later client-side apply removes what it should."""
    if _annotation(live) is None:
        return
    metadata = {key: value for key, value in config["metadata"].items() if key not in ("managedFields", "resourceVersion", "uid")}
    if "annotations" in metadata:
        metadata["annotations"] = {key: value for key, value in metadata["annotations"].items() if key != LAST_APPLIED}
    annotations = merged["metadata"].setdefault("annotations", {})
    annotations[LAST_APPLIED] = json.dumps({**config, "metadata": metadata}, separators=(",", ":"), sort_keys=True) + "\n"


def _merge(live: Any, config: Any, lists: Lists, names: Names) -> Any:
    merge = lists.get(names)
    if isinstance(live, dict) and isinstance(config, dict) and not (merge is not None and merge.atomic):
        merged = dict(live)
        for key, value in config.items():
            merged[key] = _merge(live.get(key), value, lists, (*names, key))
        return merged
    if isinstance(live, list) and isinstance(config, list) and merge is not None and not merge.atomic:
        there = {fields.item_step(item, merge): item for item in live}
        given = {fields.item_step(item, merge): item for item in config}
        order = given if there.keys() <= given.keys() else there | given
        if merge.whole:
            return [copy.deepcopy(given.get(step, there.get(step))) for step in order]
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
    if any(other[: len(path)] == path for other in kept):
        return  # there are fields in it: somebody else's in an item, or in a map that was empty
    if len(path) > 1 and path[-2].startswith("k:") and path[-1][2:] in json.loads(path[-2][2:]):
        return  # the item stays, and with it what names it
    holder, place = holders.pop()
    del holder[place]
    while len(holders) > 1 and not holders[-1][0][holders[-1][1]] and isinstance(holders[-1][1], str):
        holder, place = holders.pop()
        del holder[place]


def same(one: Raw, other: Raw) -> bool:
    """Whether two objects are equal but for the times of their field managers: then there is nothing to write."""
    first, second = _timeless(one), _timeless(other)
    return first == second and equal(first, second)


def _timeless(body: Raw) -> Raw:
    metadata = dict(body.get("metadata") or {})
    entries = metadata.pop("managedFields", None) or []
    metadata["managedFields"] = sorted(
        json.dumps({key: value for key, value in entry.items() if key != "time"}, sort_keys=True) for entry in entries
    )
    return {**body, "metadata": metadata}
