"""Sets of field paths, as `metadata.managedFields` keeps them (FieldsV1): who set which field of an object. Pure.

A path is a tuple of FieldsV1's own steps: `f:NAME` a field, `k:{...}` an item of a list that is merged by keys, `v:...` a member
of a set of scalars. A set holds the paths of leaves (scalars, whole lists, empty maps) and of list items.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from tulle.control.apiserver.lists import Merge
from tulle.control.apiserver.lists import Path as Names

Path = tuple[str, ...]
Lists = Mapping[Names, Merge]

ITEM = object()  # what `leaves` gives for a list item: it is there, whatever it holds

# What the server itself sets, and what names the object: nobody's fields.
_NOBODYS = frozenset(
    {
        "name",
        "namespace",
        "generateName",
        "uid",
        "resourceVersion",
        "generation",
        "creationTimestamp",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "selfLink",
        "managedFields",
    }
)


def owned_part(body: Mapping[str, Any]) -> dict[str, Any]:
    """The object without what is nobody's."""
    part = {key: value for key, value in body.items() if key not in ("apiVersion", "kind", "metadata")}
    metadata = {key: value for key, value in (body.get("metadata") or {}).items() if key not in _NOBODYS}
    return part | ({"metadata": metadata} if metadata else {})


def leaves(body: Mapping[str, Any], lists: Lists) -> dict[Path, Any]:
    """Every leaf and list item of an object (see `owned_part`) by its path."""
    found: dict[Path, Any] = {}
    for key, value in body.items():
        _walk(value, (f"f:{key}",), (key,), lists, found)
    return found


def _walk(value: Any, path: Path, names: Names, lists: Lists, found: dict[Path, Any]) -> None:
    merge = lists.get(names)
    if isinstance(value, dict) and value and not (merge is not None and merge.atomic):
        for key, item in value.items():
            _walk(item, (*path, f"f:{key}"), (*names, key), lists, found)
    elif isinstance(value, list) and value and merge is not None and not merge.atomic:
        for item in value:
            step = (*path, item_step(item, merge))
            found[step] = ITEM if merge.keys and not merge.whole else item
            if isinstance(item, dict) and merge.keys and not merge.whole:
                for key, inner in item.items():
                    _walk(inner, (*step, f"f:{key}"), (*names, key), lists, found)
    else:
        found[path] = value


def item_step(item: Any, merge: Merge) -> str:
    """The step that names a list's item."""
    if merge.keys:
        return "k:" + json.dumps(merge.key(item), sort_keys=True, separators=(",", ":"))
    return "v:" + json.dumps(item)


def doubled(body: Mapping[str, Any], lists: Lists) -> Iterator[Path]:
    """The items that stand twice in lists which are merged item by item."""
    for names, merge in lists.items():
        for path, items in _lists_at(body, names, ()):
            seen: set[str] = set()
            for item in items:
                step = item_step(item, merge)
                if step in seen:
                    yield (*path, step)
                seen.add(step)


def _lists_at(value: Any, names: Names, path: Path) -> Iterator[tuple[Path, list[Any]]]:
    if isinstance(value, list):
        if not names:
            yield path, value
        for index, item in enumerate(value if names else ()):
            yield from _lists_at(item, names, (*path, f"i:{index}"))
    elif isinstance(value, dict) and names and names[0] in value:
        yield from _lists_at(value[names[0]], names[1:], (*path, f"f:{names[0]}"))


def encode(paths: Iterable[Path]) -> dict[str, Any]:
    """The set as FieldsV1."""
    members = set(paths)
    root: dict[str, Any] = {}
    for path in sorted(members):
        node = root
        for depth, step in enumerate(path, start=1):
            node = node.setdefault(step, {})
            if depth < len(path) and path[:depth] in members:
                node.setdefault(".", {})
    return root


def decode(fields: Any) -> set[Path]:
    """FieldsV1 as a set; what is not FieldsV1 is left out."""
    found: set[Path] = set()

    def walk(node: Any, path: Path) -> None:
        if not isinstance(node, dict):
            return
        if path and (not node or "." in node):
            found.add(path)
        for step, inner in node.items():
            if isinstance(step, str) and step[:2] in ("f:", "k:", "v:") and len(path) < 64:
                walk(inner, (*path, step))

    walk(fields, ())
    return found


def shown(path: Path) -> str:
    """The path as kubectl prints a conflict: `.spec.ports[port=80,protocol="TCP"].name`."""
    text = ""
    for step in path:
        what, value = step[:2], step[2:]
        if what == "f:":
            text += f".{value}"
        elif what == "i:":
            text += f"[{value}]"
        elif what == "k:":
            text += "[" + ",".join(f"{key}={json.dumps(item)}" for key, item in json.loads(value).items()) + "]"
        else:
            text += f"[={value}]"
    return text
