"""A body on its way in and out: parsed, checked against its target and its schema, shown in the version that was asked for."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from tulle.api import path as paths
from tulle.api.decode import decode
from tulle.api.object import Object
from tulle.control.apiserver.errors import bad_request, invalid, not_strict
from tulle.control.apiserver.target import Target, Validation
from tulle.kit.problem import Severity

Raw = dict[str, Any]


# Escapes of halves of characters, and numbers of more than 64 bits: rare, and read with care where they stand.
_HALVES = re.compile(r"\\u[dD][89a-fA-F]")
_LONG = re.compile("[0-9]{18}")
# Digits are as good as one another, and so is white space.
_SHAPE = bytes.maketrans(b"123456789\t\n\r", b"000000000   ")
_HOLDERS = (dict, list)
_DEEPEST = 200  # levels of an object; no schema needs more than thirty, and readers that recurse must not fall over it


class Whole(dict[str, Any]):
    """A parsed object that has no nulls in it and is not nested too deeply: nothing of it has to be looked at again."""


class Body:
    """A parsed request body: its `value`, and the paths of the fields that it names twice."""

    def __init__(self, data: bytes) -> None:
        """Raises a `Denial` where `data` is not JSON."""
        self.duplicates: list[str] = []
        self._doubled = False
        try:
            text = data.decode()
            self.value = _plain(data)
            if self.value is None:
                self._read(text)
        except UnicodeDecodeError as error:
            raise bad_request(f"the body is not JSON: byte {error.start} is not UTF-8") from error
        except RecursionError as error:
            raise bad_request("the body is not JSON: it is nested too deeply") from error
        except ValueError as error:
            raise bad_request(f"the body is not JSON: {error}") from error
        shallow = text.count("{") + text.count("[") < _DEEPEST
        if not shallow and _deeper(self.value, 2 * _DEEPEST):  # a patch has levels of its own around its object's
            raise bad_request("the body is not JSON: it is nested too deeply")
        if isinstance(self.value, dict) and "null" not in text and shallow:
            self.value = Whole(self.value)

    def _read(self, text: str) -> None:
        """With all that a reader may take one way or the other."""
        whole = _integer if _LONG.search(text) else None
        self.value = json.loads(
            text, object_pairs_hook=self._pairs, parse_constant=_no_constant, parse_float=_number, parse_int=whole
        )
        if self._doubled:
            self.duplicates = list(_doubled(json.loads(text, object_pairs_hook=_Pairs), ""))
        if _HALVES.search(text):
            self.value = _whole_characters(self.value)

    def _pairs(self, pairs: list[tuple[str, Any]]) -> Raw:
        found = dict(pairs)
        if len(found) < len(pairs):
            self._doubled = True
        return found

    def warnings(self, target: Target, validation: Validation) -> list[str]:
        """What to say of fields that stand twice (the last one counts); refused where validation is strict."""
        said = [f'duplicate field "{path}"' for path in self.duplicates]
        if said and validation == "Strict":
            raise not_strict(target.kind, target.version, said, [])
        return said if validation == "Warn" else []


def _plain(data: bytes) -> Any:
    """The value of a body in which nothing is amiss and no field stands twice, as nearly all are: in a third of the time.

    None: it must be read with care.
    """
    shape = data.translate(_SHAPE)
    if b"0" * 18 in shape or b" :" in shape:  # a number of perhaps more than 64 bits; a name whose end is not `":`
        return None
    try:
        value = msgspec.json.decode(data)
    except (ValueError, RecursionError):
        return None
    # A text holds this too where a quote is escaped in it: there are at least as many as there are fields in `data`.
    return value if isinstance(value, _HOLDERS) and data.count(b'":') == _fields(value) else None


def _fields(value: Any) -> int:
    """How many there are, at every level. What is parsed has no subclasses: they need not be asked for."""
    count = 0
    if value.__class__ is dict:
        count = len(value)
        value = value.values()
    for one in value:
        if one.__class__ is dict or one.__class__ is list:
            count += _fields(one)
    return count


def _deeper(value: Any, most: int) -> bool:
    """Whether there are more levels; how many Python's own reader can take differs from version to version."""
    level, depth = [value], 0
    while level := [one for one in level if isinstance(one, _HOLDERS)]:
        depth += 1
        if depth > most:
            return True
        level = [inner for one in level for inner in (one.values() if isinstance(one, dict) else one)]
    return False


class _Pairs(list[tuple[str, Any]]):
    """An object's fields as they stand."""


def _doubled(value: Any, path: str) -> Iterator[str]:
    """The paths of fields that stand twice in one object."""
    if isinstance(value, _Pairs):
        seen: set[str] = set()
        for key, inner in value:
            at = f"{path}.{key}" if path else key
            if key in seen:
                yield at
            seen.add(key)
            yield from _doubled(inner, at)
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _doubled(inner, f"{path}[{index}]")


def _no_constant(text: str) -> Any:
    raise ValueError(f"{text} is not JSON")


def _number(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"the number {text[:40]} is out of range")
    return number


def _integer(text: str) -> int | float:
    """As Kubernetes reads them: what does not fit into 64 bits becomes a floating-point number."""
    if len(text) < 20 and -(2**63) <= (number := int(text)) < 2**63:
        return number
    return _number(text)


def _whole_characters(value: Any) -> Any:
    """Halves of characters (lone surrogates), which no text can hold, become the replacement character."""
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, dict):
        return {_whole_characters(key): _whole_characters(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_whole_characters(inner) for inner in value]
    return value


def from_yaml(data: bytes, target: Target) -> Any:
    """The one YAML document of a body. Raises a `Denial`; of what may be a Secret it says only where the mistake is."""
    from tulle.api.documents import read_documents

    documents, problems = read_documents(data, "the body")
    if problems and target.kind.secretive:
        raise bad_request(f"{problems[0].location}: found a mistake in the YAML; needed one document")
    if problems or len(documents) != 1:
        raise bad_request(str(problems[0]) if problems else f"found {len(documents)} documents in the body; needed one")
    return documents[0].raw


def addressed(target: Target, value: Any) -> Raw:
    """The body as an object at `target`: kind, version, namespace and name agree with the path, or are taken from it.

    `field: null` says that the field is not there: it is left out. Raises a `Denial`, also where it is nested too deeply.
    """
    if not isinstance(value, dict):
        raise bad_request("the body is not an object")
    body = dict(value)
    for field, needed in (("apiVersion", target.api_version), ("kind", target.kind.kind)):
        if body.get(field) in (None, ""):
            body[field] = needed
        if body[field] != needed:
            what = "API version" if field == "apiVersion" else field
            raise bad_request(f"the {what} in the data ({body[field]}) does not match the expected {what} ({needed})")
    if body.get("metadata") is None:
        body["metadata"] = {}
    if not isinstance(body["metadata"], dict):
        _, problems = decode(body)
        raise invalid(target.kind, target.name, problems)
    metadata = body["metadata"] = dict(body["metadata"])
    if target.kind.namespaced:
        if metadata.get("namespace", target.namespace) not in (target.namespace, "", None):
            raise bad_request("the namespace of the provided object does not match the namespace sent on the request")
        metadata["namespace"] = target.namespace
    if target.name and metadata.setdefault("name", target.name) != target.name:
        found = metadata["name"]
        raise bad_request(f"the name of the object ({found}) does not match the name on the URL ({target.name})")
    return body if isinstance(value, Whole) else _without_nulls(body, _DEEPEST)


def _without_nulls(value: Any, left: int) -> Any:
    if not left:
        raise bad_request(f"the object is nested too deeply: needed at most {_DEEPEST} levels")
    if isinstance(value, dict):
        return {
            key: _without_nulls(item, left - 1) if isinstance(item, _HOLDERS) else item
            for key, item in value.items()
            if item is not None
        }
    if isinstance(value, list):
        return [_without_nulls(item, left - 1) if isinstance(item, _HOLDERS) else item for item in value]
    return value


def check(target: Target, body: Raw, validation: Validation) -> tuple[Object | None, list[str]]:
    """Every mistake at once as a `Denial`; what is only worth a warning is returned, with the object as it was understood.

    Unless validation is strict, unknown fields are no mistake: they are taken out (of `body` itself), with a warning.
    """
    warnings: list[str] = []
    decoded, problems = decode(body)
    unknown = [problem for problem in problems if problem.reason == "UnknownField"]
    if unknown:
        said = [f'unknown field "{problem.path}"' for problem in unknown]
        if validation == "Strict":
            raise not_strict(target.kind, target.version, said, problems)
        for problem in unknown:
            _take_out(body, paths.split(problem.path))
        warnings += said
        decoded, problems = decode(body)
    errors = [problem for problem in problems if problem.severity is Severity.ERROR]
    if errors:
        raise invalid(target.kind, str(body["metadata"].get("name") or body["metadata"].get("generateName") or ""), errors)
    if validation == "Ignore":
        warnings.clear()
    warnings += [f"{problem.path}: {problem.message}" if problem.path else problem.message for problem in problems]
    return decoded, warnings


def _take_out(body: Any, steps: tuple[str | int, ...]) -> None:
    for step in steps[:-1]:
        try:
            body = body[step]
        except (KeyError, IndexError, TypeError):
            return
    if isinstance(body, dict):
        body.pop(steps[-1], None)


def shown(target: Target, body: Mapping[str, Any], revision: int) -> Raw:
    """A stored body in the version that was asked for, with its resource version."""
    metadata = {**body["metadata"]}
    if revision:
        metadata["resourceVersion"] = str(revision)
    return {**body, "apiVersion": target.api_version, "metadata": metadata}
