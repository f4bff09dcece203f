"""Label and field selectors: the texts of `-l` and `--field-selector`, parsed once and asked for every object."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from typing import Any

from tulle.api.metadata import is_label_name, is_label_value
from tulle.control.apiserver.errors import bad_request

Raw = Mapping[str, Any]
Test = Callable[[Raw], bool]

_TOKEN = re.compile(r"\s*(==|!=|[=!><(),]|[^\s=!><(),]+)\s*")
_SIGNS = frozenset(("==", "!=", "=", "!", ">", "<", "(", ")", ","))

_FIELDS = ("metadata.name", "metadata.namespace")
_FIELDS_OF: Mapping[str, Collection[str]] = {
    "namespaces": ("status.phase",),
    "secrets": ("type",),
    "services": ("spec.clusterIP", "spec.type"),
    "events": (
        *(
            f"involvedObject.{field}"
            for field in ("kind", "namespace", "name", "uid", "apiVersion", "resourceVersion", "fieldPath")
        ),
        "reason",
        "reportingComponent",
        "source",
        "type",
    ),
}


def everything(_body: Raw) -> bool:
    """The test of empty selectors."""
    return True


def selector(labels: str, fields: str, resource: str) -> Test:
    """Whether an object is selected by both texts (empty: everything). Raises a `Denial` where one cannot be read."""
    tests = [*_labels(labels), *(_field(field, operator, value, resource) for field, operator, value in _terms(fields))]
    if not tests:
        return everything
    return tests[0] if len(tests) == 1 else lambda body: all(test(body) for test in tests)


def name_in(fields: str) -> str:
    """The one name that a field selector permits, or "": `kubectl get NAME -w` and `kubectl wait` ask so."""
    return next((value for field, operator, value in _terms(fields) if (field, operator) == ("metadata.name", "=")), "")


class _Tokens:
    """A label selector's words and signs, one after the other."""

    def __init__(self, text: str) -> None:
        self.text, self.at = text, 0
        self.words = _TOKEN.findall(text)

    def refuse(self, why: str) -> Exception:
        return bad_request(f"unable to parse requirement: {why} in {self.text!r}")

    def peek(self) -> str:
        return self.words[self.at] if self.at < len(self.words) else ""

    def next(self) -> str:
        word = self.peek()
        self.at += 1
        return word

    def need(self, sign: str) -> None:
        found = self.next()
        if found != sign:
            raise self.refuse(f"found {found or 'the end'!r}, needed {sign!r}")

    def word(self) -> str:
        """The next word; "" where a sign or the end stands."""
        return "" if self.peek() in _SIGNS else self.next()


def _labels(text: str) -> list[Test]:
    """Kubernetes' grammar: `key`, `!key`, `key=a`, `key==a`, `key!=a`, `key>1`, `key in (a,b)`, `key notin (a)`, with commas."""
    if not text.strip():
        return []
    tokens = _Tokens(text)
    tests = [_requirement(tokens)]
    while tokens.peek():
        tokens.need(",")
        tests.append(_requirement(tokens))
    return tests


def _requirement(tokens: _Tokens) -> Test:
    absent = tokens.peek() == "!"
    if absent:
        tokens.next()
    key = tokens.word()
    if not is_label_name(key):
        raise tokens.refuse(f"found {key or tokens.peek() or 'the end'!r}, needed the name of a label")
    if absent:
        return lambda body: key not in _of(body)
    operator = tokens.peek()
    if operator in ("", ","):
        return lambda body: key in _of(body)
    tokens.next()
    if operator in ("in", "notin"):
        values = _values(tokens)
    elif operator in ("=", "==", "!=", ">", "<"):
        values = {_value(tokens)}
    else:
        raise tokens.refuse(f"found operator {operator!r}, needed one of in, notin, =, ==, !=, > and <")
    if operator in (">", "<"):
        return _compare(key, operator, values.pop(), tokens)
    if operator in ("in", "=", "=="):
        return lambda body: _of(body).get(key) in values
    return lambda body: _of(body).get(key) not in values


def _values(tokens: _Tokens) -> set[str]:
    tokens.need("(")
    values = {_value(tokens)}
    while tokens.peek() == ",":
        tokens.next()
        values.add(_value(tokens))
    tokens.need(")")
    return values


def _value(tokens: _Tokens) -> str:
    value = tokens.word()
    if value and not is_label_value(value):
        raise tokens.refuse(f"found {value!r}, needed the value of a label")
    return value


def _compare(key: str, operator: str, text: str, tokens: _Tokens) -> Test:
    if not _is_integer(text):
        raise tokens.refuse(f"found {text or 'nothing'!r} after {operator}, needed an integer")
    bound = int(text)

    def test(body: Raw) -> bool:
        found = _of(body).get(key)
        return isinstance(found, str) and _is_integer(found) and (int(found) > bound if operator == ">" else int(found) < bound)

    return test


def _is_integer(text: Any) -> bool:
    return isinstance(text, str) and re.fullmatch("-?[0-9]{1,18}", text) is not None


def _of(body: Raw) -> Raw:
    labels = (body.get("metadata") or {}).get("labels")
    return labels if isinstance(labels, Mapping) else {}


def _terms(text: str) -> list[tuple[str, str, str]]:
    """Field, `=` or `!=`, and value of each term; commas, equal signs and backslashes in values stand after a backslash."""
    terms = []
    for term in re.findall(r"(?:[^,\\]|\\.)+", text):
        found = re.fullmatch(r"(?P<field>[^=!\\]*?)\s*(?P<sign>==|!=|=)(?P<value>(?:[^\\]|\\.)*)", term.strip())
        if not found:
            raise bad_request(f"invalid selector: found {term!r}, needed field=value or field!=value")
        value = re.sub(r"\\(.)", r"\1", found["value"].strip())
        terms.append((found["field"].strip(), "!=" if found["sign"] == "!=" else "=", value))
    return terms


def _field(field: str, operator: str, value: str, resource: str) -> Test:
    known = (*_FIELDS, *_FIELDS_OF.get(resource, ()))
    if field not in known:
        raise bad_request(f"field label not supported: {field}; needed one of {', '.join(sorted(known))}")
    steps, equal = field.split("."), operator == "="
    return lambda body: (_at(body, steps) == value) is equal


def _at(body: Any, steps: list[str]) -> str:
    for step in steps:
        body = body.get(step) if isinstance(body, Mapping) else None
    if isinstance(body, Mapping):
        body = body.get("component")  # an Event's `source`
    return "" if body is None else str(body)


def labels_match(chosen: Raw, labels: Raw) -> bool:
    """Whether a LabelSelector (`matchLabels`, `matchExpressions`) selects an object with these labels. Empty selects all."""
    if any(labels.get(key) != value for key, value in (chosen.get("matchLabels") or {}).items()):
        return False
    return all(_expression(one, labels) for one in chosen.get("matchExpressions") or ())


def _expression(expression: Raw, labels: Raw) -> bool:
    key, values = str(expression.get("key", "")), expression.get("values") or ()
    match expression.get("operator"):
        case "In":
            return labels.get(key) in values
        case "NotIn":
            return labels.get(key) not in values
        case "Exists":
            return key in labels
        case "DoesNotExist":
            return key not in labels
    return False
