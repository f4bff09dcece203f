"""The three patch languages: JSON patch (RFC 6902), merge patch (RFC 7386), and Kubernetes' strategic merge patch. Pure."""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping
from typing import Any

import msgspec

from tulle.control.apiserver.lists import Merge, Path


class BadPatch(ValueError):
    """A patch that cannot be read, or cannot be applied to this object; `rejected` where only the latter."""

    def __init__(self, message: str, *, rejected: bool = False) -> None:
        super().__init__(message)
        self.rejected = rejected


def merge_patch(target: Any, patch: Any) -> Any:
    """RFC 7386; neither argument is changed."""
    if not isinstance(patch, dict):
        return copy.deepcopy(patch)
    result = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = merge_patch(result.get(key), value)
    return result


MOST_OPERATIONS = 10_000  # of one JSON patch; as in Kubernetes
_MOST_COPIED = 3 * 2**20  # bytes that the `copy` operations of one patch may add together; as in Kubernetes


class TooManyOperations(BadPatch):
    """A JSON patch with more than `MOST_OPERATIONS`."""


def json_patch(target: Any, operations: Any) -> Any:
    """RFC 6902: all operations or none. Raises `BadPatch`."""
    if not isinstance(operations, list):
        raise BadPatch("a JSON patch is a list of operations")
    if len(operations) > MOST_OPERATIONS:
        raise TooManyOperations(f"The allowed maximum operations in a JSON patch is {MOST_OPERATIONS}, got {len(operations)}")
    document, left = copy.deepcopy(target), _MOST_COPIED
    for number, operation in enumerate(operations):
        if not isinstance(operation, dict) or not isinstance(operation.get("path"), str):
            raise BadPatch(f"operation {number}: needed an object with op and path")
        try:
            if operation.get("op") == "copy":
                value = _walk(document, _pointer(_given(operation, "from")))
                left -= len(msgspec.json.encode(value))
                if left < 0:
                    raise BadPatch(f"the copies add more than {_MOST_COPIED} bytes", rejected=True)
                document = _add(document, _pointer(operation["path"]), copy.deepcopy(value))
            else:
                document = _operate(document, operation)
        except (KeyError, IndexError, TypeError, ValueError) as error:
            if isinstance(error, BadPatch) and not error.rejected:
                raise
            why = str(error) if isinstance(error, BadPatch) else "there is no such place"
            raise BadPatch(f"operation {number} ({operation.get('op')} {operation['path']}): {why}", rejected=True) from error
        except RecursionError as error:
            raise BadPatch(f"operation {number}: the object would be nested too deeply", rejected=True) from error
    return document


def _operate(document: Any, operation: Mapping[str, Any]) -> Any:
    path = _pointer(operation["path"])
    match operation.get("op"):
        case "add":
            return _add(document, path, copy.deepcopy(_given(operation, "value")))
        case "remove":
            return _remove(document, path)[0]
        case "replace":
            value = copy.deepcopy(_given(operation, "value"))
            if not path:
                return value
            holder = _walk(document, path[:-1])
            holder[_place(holder, path[-1])] = value
            return document
        case "move":
            start = _pointer(_given(operation, "from"))
            if start == path[: len(start)] and start != path:
                raise BadPatch("a value cannot move into itself", rejected=True)
            document, value = _remove(document, start)
            return _add(document, path, value)
        case "test":
            if not equal(_walk(document, path), operation.get("value")):
                raise BadPatch("the value there is another", rejected=True)
            return document
        case other:
            raise BadPatch(f"found op {other!r}; needed add, remove, replace, move, copy or test")


def equal(one: Any, other: Any) -> bool:
    """Equality of JSON values: `true` is not 1, as it is in Python."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(equal(value, other[key]) for key, value in one.items())
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(equal, one, other))
    return bool(one == other)


def _given(operation: Mapping[str, Any], field: str) -> Any:
    if field not in operation:
        raise BadPatch(f"{operation.get('op')} {operation['path']}: found no {field}")
    return operation[field]


def _pointer(text: Any) -> list[str]:
    if not isinstance(text, str) or (text and not text.startswith("/")):
        raise BadPatch(f"found path {text!r}; needed one that starts with /")
    return [step.replace("~1", "/").replace("~0", "~") for step in text.split("/")[1:]]


def _place(holder: Any, step: str) -> Any:
    """The key or index of something that is there."""
    if isinstance(holder, list):
        index = _index(step)
        if index >= len(holder):
            raise IndexError(step)
        return index
    if not isinstance(holder, dict) or step not in holder:
        raise KeyError(step)
    return step


def _index(step: str) -> int:
    if not re.fullmatch("0|[1-9][0-9]{0,9}", step):
        raise IndexError(step)
    return int(step)


def _walk(document: Any, path: list[str]) -> Any:
    for step in path:
        document = document[_place(document, step)]
    return document


def _add(document: Any, path: list[str], value: Any) -> Any:
    if not path:
        return value
    holder, last = _walk(document, path[:-1]), path[-1]
    if isinstance(holder, list):
        index = len(holder) if last == "-" else _index(last)
        if index > len(holder):
            raise IndexError(last)
        holder.insert(index, value)
    elif isinstance(holder, dict):
        holder[last] = value
    else:
        raise TypeError(last)
    return document


def _remove(document: Any, path: list[str]) -> tuple[Any, Any]:
    if not path:
        return None, document
    holder = _walk(document, path[:-1])
    place = _place(holder, path[-1])
    return document, holder.pop(place)


_ORDER, _DELETE_FROM, _RETAIN, _DIRECTIVE = "$setElementOrder/", "$deleteFromPrimitiveList/", "$retainKeys", "$patch"


def strategic_merge_patch(target: Any, patch: Any, lists: Mapping[Path, Merge]) -> Any:
    """A merge patch that also merges the items of `lists` (see `lists.py`), with its `$patch` directives. Raises `BadPatch`."""
    if not isinstance(patch, dict):
        raise BadPatch("a strategic merge patch is an object")
    return _merge_map(target if isinstance(target, dict) else {}, patch, lists, ())


def _merge_map(target: dict[str, Any], patch: dict[str, Any], lists: Mapping[Path, Merge], path: Path) -> dict[str, Any]:
    match patch.get(_DIRECTIVE, "merge"):
        case "replace":
            return _clean({key: value for key, value in patch.items() if key != _DIRECTIVE})  # type: ignore[no-any-return]
        case "delete":
            return {}
        case "merge":
            pass
        case other:
            raise BadPatch(f"found $patch: {other!r}; needed merge, replace or delete")
    result = dict(target)
    retained = patch.get(_RETAIN)
    if isinstance(retained, list):
        result = {key: value for key, value in result.items() if key in retained}
    for key, value in patch.items():
        if key.startswith("$"):
            if key.startswith(_DELETE_FROM) and isinstance(value, list):
                field = key.removeprefix(_DELETE_FROM)
                if isinstance(here := result.get(field), list):
                    result[field] = [item for item in here if item not in value]
            continue
        at = (*path, key)
        if value is None:
            result.pop(key, None)
        elif isinstance(value, dict):
            here = result.get(key)
            result[key] = _merge_map(here if isinstance(here, dict) else {}, value, lists, at)
        elif isinstance(value, list) and at in lists:
            here = result.get(key)
            result[key] = _merge_list(here if isinstance(here, list) else [], value, lists[at], lists, at)
        else:
            result[key] = _clean(value)
    for key, order in patch.items():
        field = key.removeprefix(_ORDER)
        if key.startswith(_ORDER) and isinstance(order, list) and isinstance(result.get(field), list):
            result[field] = _ordered(result[field], order, lists.get((*path, field), Merge()))
    return result


def _merge_list(target: list[Any], patch: list[Any], merge: Merge, lists: Mapping[Path, Merge], path: Path) -> list[Any]:
    if not merge.keys:
        return target + [item for item in patch if item not in target]
    if any(isinstance(item, dict) and item.get(_DIRECTIVE) == "replace" for item in patch):
        return [_clean(item) for item in patch if not (isinstance(item, dict) and _DIRECTIVE in item)]
    result = list(target)
    for item in patch:
        if not isinstance(item, dict) or any(key not in item for key in merge.keys):
            raise BadPatch(f"{'.'.join(path)}: an item of the patch has no {' and '.join(merge.keys)}")
        found = next((index for index, one in enumerate(result) if merge.key(one) == merge.key(item)), None)
        if item.get(_DIRECTIVE) == "delete":
            if found is not None:
                result = [one for one in result if merge.key(one) != merge.key(item)]
        elif found is None:
            result.append(_merge_map({}, item, lists, path))
        else:
            here = result[found]
            result[found] = _merge_map(here if isinstance(here, dict) else {}, item, lists, path)
    return result


def _ordered(items: list[Any], order: list[Any], merge: Merge) -> list[Any]:
    """In the patch's order; what it does not name keeps its place at the end."""
    keys = [merge.key(one) if merge.keys else one for one in order]

    def rank(item: Any) -> int:
        key = merge.key(item) if merge.keys else item
        return keys.index(key) if key in keys else len(keys)

    return sorted(items, key=rank)


def _clean(value: Any) -> Any:
    """Without nulls and directives: what a patch adds anew."""
    if isinstance(value, dict):
        return {key: _clean(item) for key, item in value.items() if item is not None and not key.startswith("$")}
    if isinstance(value, list):
        return [_clean(item) for item in value]
    return value
