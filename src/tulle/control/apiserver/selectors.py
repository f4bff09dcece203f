"""Label and field selectors: the texts of `-l` and `--field-selector`, parsed once and asked for every object."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from tulle.control.apiserver.errors import bad_request

Raw = Mapping[str, Any]
Test = Callable[[Raw], bool]

_SET = re.compile(r"^(?P<key>[^\s!=,()]+)\s+(?P<op>in|notin)\s*\((?P<values>[^()]*)\)$")
_EQUAL = re.compile(r"^(?P<key>[^\s!=,()]+)\s*(?P<op>==|=|!=)\s*(?P<value>[^\s!=,()]*)$")
_EXISTS = re.compile(r"^(?P<not>!?)\s*(?P<key>[^\s!=,()]+)$")

_FIELDS = {"metadata.name", "metadata.namespace"}
_FIELDS_OF = {
    "namespaces": {"status.phase"},
    "secrets": {"type"},
    "services": {"spec.clusterIP", "spec.type"},
    "events": {
        *(
            f"involvedObject.{field}"
            for field in ("kind", "namespace", "name", "uid", "apiVersion", "resourceVersion", "fieldPath")
        ),
        "reason",
        "reportingComponent",
        "source",
        "type",
    },
}


def selector(labels: str, fields: str, resource: str) -> Test:
    """Whether an object is selected by both texts (empty: everything). Raises a `Denial` where one cannot be read."""
    tests = [_label(part.strip()) for part in _split(labels)] + [_field(part.strip(), resource) for part in _split(fields)]
    return lambda body: all(test(body) for test in tests)


def name_in(fields: str) -> str:
    """The one name that a field selector permits, or "": `kubectl get NAME -w` and `kubectl wait` ask so."""
    found = re.search(r"(?:^|,)metadata\.name==?([^,]+)", fields)
    return found[1] if found else ""


def _split(text: str) -> list[str]:
    """At the commas outside of parentheses."""
    return [part for part in re.split(r",(?![^()]*\))", text) if part.strip()]


def _label(text: str) -> Test:
    if found := _SET.match(text):
        key, values = found["key"], {value.strip() for value in found["values"].split(",")}
        if found["op"] == "in":
            return lambda body: _labels(body).get(key) in values
        return lambda body: _labels(body).get(key) not in values
    if found := _EQUAL.match(text):
        key, value = found["key"], found["value"]
        if found["op"] == "!=":
            return lambda body: _labels(body).get(key) != value
        return lambda body: _labels(body).get(key) == value
    if found := _EXISTS.match(text):
        key, wanted = found["key"], not found["not"]
        return lambda body: (key in _labels(body)) is wanted
    raise bad_request(f"unable to parse requirement: found {text!r}, needed key=value, key!=value, key, !key, key in (a,b)")


def _labels(body: Raw) -> Raw:
    labels = (body.get("metadata") or {}).get("labels")
    return labels if isinstance(labels, Mapping) else {}


def _field(text: str, resource: str) -> Test:
    found = _EQUAL.match(text)
    if not found:
        raise bad_request(f"invalid field selector: found {text!r}, needed field=value or field!=value")
    known = _FIELDS | _FIELDS_OF.get(resource, set())
    if found["key"] not in known:
        raise bad_request(f"field label not supported: {found['key']}; needed one of {', '.join(sorted(known))}")
    steps, value, equal = found["key"].split("."), found["value"], found["op"] != "!="
    return lambda body: (_value(body, steps) == value) is equal


def _value(body: Any, steps: list[str]) -> str:
    for step in steps:
        body = body.get(step) if isinstance(body, Mapping) else None
    if isinstance(body, Mapping):
        body = body.get("component")  # an Event's `source`
    return "" if body is None else str(body)
