"""What kube-apiserver says of an object of a CRD: its schema, and its CEL rules as the real CEL library evaluates them.

The reference that our own checks are held against. Functions that Kubernetes adds to CEL and the library does not have (`isIP`,
`url`) are written here as Kubernetes documents them.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator
from functools import cache
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from cel_expr_python import cel
from cel_expr_python.ext import ext_strings

from tests.support.crds import Json, defaulted

Path = tuple[str | int, ...]
# Words of CEL that cannot be a field's name; Kubernetes writes such fields with underscores around them.
_RESERVED = frozenset(
    """
    true false null in as break const continue else for function if import let loop package namespace return var void while
    """.split()  # noqa: SIM905
)


class Broken(NamedTuple):
    """Something that kube-apiserver refuses: where, which keyword of the schema, and a rule's text (or the keyword's value)."""

    at: Path
    keyword: str
    rule: str


def broken(schema: Json, body: Any, old: Any = None) -> list[Broken]:
    """Everything that is wrong with an object, after defaults; with `old` an update is judged."""
    whole = defaulted(body, schema)
    return [
        *_schema_faults(whole, schema, ()),
        *_rule_faults(whole, schema, (), defaulted(old, schema) if old is not None else None),
    ]


def rules(schema: Json) -> Iterator[tuple[tuple[str, ...], str, str]]:
    """Every CEL rule of a schema: path (`[]` an item, `{}` a map's value), rule, message."""
    from tests.support.crds import places

    for path, place in places(schema):
        for rule in place.get("x-kubernetes-validations", ()):
            yield path, rule["rule"], rule.get("message", "")


def obeys(rule: str, value: Any, old: Any = None) -> bool:
    """Whether a value obeys a rule; an error in evaluating it is a no, as in Kubernetes."""
    result = _compiled(rule).eval(data={"self": _escaped(value), "oldSelf": _escaped(old)})
    return result.type().name() == "BOOL" and bool(result.plain_value())


def is_transition(rule: str) -> bool:
    """Whether a rule compares with the object as it was."""
    return "oldSelf" in rule


@cache
def _environment() -> Any:
    kind = cel.Type

    def is_ip(text: str) -> bool:
        try:
            ipaddress.ip_address(text)
        except ValueError:
            return False
        return "%" not in text

    def overload(name: str, returns: Any, implementation: Any, member: bool) -> Any:
        return cel.FunctionDecl(name, [cel.Overload(f"{name}_string", returns, [kind.STRING], member, implementation)])

    functions = [
        overload("isIP", kind.BOOL, is_ip, False),
        overload("url", kind.STRING, lambda text: text, False),
        overload("getScheme", kind.STRING, lambda text: urlsplit(text).scheme, True),
    ]
    variables = {"self": kind.DYN, "oldSelf": kind.DYN}
    return cel.NewEnv(variables=variables, extensions=[ext_strings.ExtStrings()], functions=functions)


@cache
def _compiled(rule: str) -> Any:
    return _environment().compile(rule)


def _escaped(value: Any) -> Any:
    if isinstance(value, dict):
        return {f"__{key}__" if key in _RESERVED else key: _escaped(item) for key, item in value.items()}
    return [_escaped(item) for item in value] if isinstance(value, list) else value


def _rule_faults(value: Any, schema: Json, at: Path, old: Any) -> Iterator[Broken]:
    for rule in schema.get("x-kubernetes-validations", ()):
        text = rule["rule"]
        if is_transition(text) and old is None:
            continue
        if not obeys(text, value, old):
            yield Broken(at, "rule", text)
    for step, below, below_schema in _children(value, schema):
        before = old.get(step) if isinstance(old, dict) else None  # lists are atomic here: no rule compares their items
        yield from _rule_faults(below, below_schema, (*at, step), before)


def _children(value: Any, schema: Json) -> Iterator[tuple[str | int, Any, Json]]:
    if isinstance(value, dict):
        more = schema.get("additionalProperties")
        for key, item in value.items():
            if key in schema.get("properties", {}):
                yield key, item, schema["properties"][key]
            elif isinstance(more, dict):
                yield key, item, more
    elif isinstance(value, list) and "items" in schema:
        for index, item in enumerate(value):
            yield index, item, schema["items"]


_TYPES: dict[str, Any] = {"object": dict, "array": list, "string": str, "integer": int, "number": (int, float), "boolean": bool}
_FORMATS = {"int32": (-(2**31), 2**31 - 1), "int64": (-(2**63), 2**63 - 1)}


def _schema_faults(value: Any, schema: Json, at: Path) -> Iterator[Broken]:
    if value is None and schema.get("nullable"):
        return
    kind = schema.get("type")
    if kind and (not isinstance(value, _TYPES[kind]) or (kind in ("integer", "number") and isinstance(value, bool))):
        yield Broken(at, "type", kind)
        return
    if schema.get("x-kubernetes-int-or-string") and (isinstance(value, bool) or not isinstance(value, int | str)):
        yield Broken(at, "type", "int-or-string")
        return
    yield from _value_faults(value, schema, at)
    if isinstance(value, dict):
        properties, more = schema.get("properties", {}), schema.get("additionalProperties")
        for name in schema.get("required", ()):
            if name not in value:
                yield Broken((*at, name), "required", name)
        for key in value:
            if at and key not in properties and more is None and not schema.get("x-kubernetes-preserve-unknown-fields"):
                yield Broken((*at, key), "unknown", key)
    for step, below, below_schema in _children(value, schema):
        yield from _schema_faults(below, below_schema, (*at, step))


def _value_faults(value: Any, schema: Json, at: Path) -> Iterator[Broken]:
    """The keywords that bound a value."""
    if "enum" in schema and value not in schema["enum"]:
        yield Broken(at, "enum", str(schema["enum"]))
    if isinstance(value, str):
        if "pattern" in schema and not _pattern(schema["pattern"]).search(value):
            yield Broken(at, "pattern", schema["pattern"])
        yield from _bounds(len(value), schema, at, "Length")
        if not _has_format(value, schema.get("format", "")):
            yield Broken(at, "format", schema["format"])
    elif isinstance(value, int | float) and not isinstance(value, bool):
        low, high = _FORMATS.get(schema.get("format", ""), (None, None))
        low, high = schema.get("minimum", low), schema.get("maximum", high)
        if (low is not None and value < low) or (high is not None and value > high):
            yield Broken(at, "bounds", f"{low} {high}")
    elif isinstance(value, list):
        yield from _bounds(len(value), schema, at, "Items")
        yield from _list_faults(value, schema, at)
    elif isinstance(value, dict):
        yield from _bounds(len(value), schema, at, "Properties")
    yield from combined(value, schema, at)


def _bounds(size: int, schema: Json, at: Path, what: str) -> Iterator[Broken]:
    if size < schema.get(f"min{what}", 0) or size > schema.get(f"max{what}", size):
        yield Broken(at, what, str(size))


def _list_faults(value: list[Any], schema: Json, at: Path) -> Iterator[Broken]:
    kind, keys = schema.get("x-kubernetes-list-type"), schema.get("x-kubernetes-list-map-keys", ())
    if kind not in ("map", "set"):
        return
    found = [repr([item.get(key) for key in keys]) if isinstance(item, dict) else repr(item) for item in value]
    for index, key in enumerate(found):
        if key in found[:index]:
            yield Broken((*at, index), "duplicate", key)


def combined(value: Any, schema: Json, at: Path) -> Iterator[Broken]:
    """allOf, anyOf, oneOf and not: what is in them says nothing but whether it holds."""
    for keyword in ("allOf", "anyOf", "oneOf"):
        if keyword in schema:
            held = sum(_holds(value, one) for one in schema[keyword])
            if not {"allOf": held == len(schema[keyword]), "anyOf": held > 0, "oneOf": held == 1}[keyword]:
                yield Broken(at, keyword, str(schema[keyword]))
    if "not" in schema and _holds(value, schema["not"]):
        yield Broken(at, "not", str(schema["not"]))


def _holds(value: Any, schema: Json) -> bool:
    if any(True for _ in _value_faults(value, schema, ())):
        return False
    if isinstance(value, dict):
        if any(name not in value for name in schema.get("required", ())):
            return False
        return all(_holds(value[name], below) for name, below in schema.get("properties", {}).items() if name in value)
    kind = schema.get("type")
    return kind is None or isinstance(value, _TYPES[kind])


def _has_format(value: str, form: str) -> bool:
    if form in ("ipv4", "ipv6"):
        try:
            return ipaddress.ip_address(value).version == int(form[3]) and "%" not in value
        except ValueError:
            return False
    if form == "date-time":
        return bool(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)", value))
    return True


@cache
def _pattern(text: str) -> re.Pattern[str]:
    # Go's `$` is the text's end; Python's is before a last line feed, too.
    return re.compile(re.sub(r"\$(?=$|[|)])", r"\\Z", text), re.ASCII)
