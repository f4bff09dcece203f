"""Random documents of a CRD's schema: mostly right, with values from a short vocabulary so that rules between fields meet."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from functools import cache
from random import Random
from typing import Any

from tests.support.crd_rules import _has_format, _pattern
from tests.support.crds import Json

# Texts that mean something to some rule. Every pattern of the corpora has some among them (a test says so).
WORDS = (
    *"""
    a b web a.b example.com *.example.com * *a a* 10.0.0.1 10.0.0.0/8 2001:db8::1 Reviews 0 80 65536 / /a /a/b a/b //
    /a//b /./a /../a /a/.. /a/. /%2f /%2F /%zz /a#b unix:///run/a.sock unix://@a unix:// unix://a unix:///run/ 1s 10s 0s
    500ms 1us -1s 1h http://a.b https://a.b/c ftp://a.b example.com/a System spiffe://a/b x-a X-A HTTP HTTPS TLS TCP UDP
    IPAddress Hostname NamedAddress Service Gateway gateway.networking.k8s.io GET In Exists True 2026-01-31T23:59:59Z
    1970-01-01T00:00:00.5+02:00 a_b _a .a a.b.c 1a a- ( [a-z]+ http default mesh ns/a ./* */* ~ . source.ip CONNECT GRPC
    5xx CANCELLED 127.0.0.1:80 x.y/z
    """.split(),  # noqa: SIM905
    "",
    "/a b",
    "a" * 64,
    "a" * 300,
)


def document(schema: Json, random: Random, toward: tuple[str, ...] = (), often: float = 0.15) -> Any:
    """A document that has something at the path `toward`; other fields are there `often`, more of them near the path's end."""
    return _value(schema, random, toward, often, depth=0)


def mutated(value: Any, schema: Json, random: Random) -> Any:
    """The value with one small change: something added, left out, repeated or replaced; not always for the worse."""
    places = list(_within(value, schema))
    holder, step, below = random.choice(places[1:] or places)
    changed = copy.deepcopy(value)
    if not holder and step is None:
        return _changed(changed, schema, random)
    at = changed
    for one in holder:
        at = at[one]
    new = _changed(at[step], below, random)
    if new is _GONE:
        del at[step]
    else:
        at[step] = new
    return changed


_GONE = object()


def _within(value: Any, schema: Json, at: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], Any, Json]]:
    """Every place in a value: the way to what holds it, the step in that, and its schema."""
    yield at[:-1], at[-1] if at else None, schema
    if isinstance(value, dict):
        for key, item in value.items():
            below = schema.get("properties", {}).get(key) or schema.get("additionalProperties")
            if isinstance(below, dict):
                yield from _within(item, below, (*at, key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _within(item, schema.get("items", {}), (*at, index))


def _changed(value: Any, schema: Json, random: Random) -> Any:
    if isinstance(value, dict):
        return _changed_object(value, schema, random)
    if isinstance(value, list) and schema.get("items"):
        match random.randrange(4):
            case 0 if value:
                return [*value, copy.deepcopy(random.choice(value))]
            case 1:
                return [*value, _value(schema["items"], random, (), 0.3, 1)]
            case 2:
                return value[1:]
        return _GONE
    if random.random() < 0.15:
        return _GONE
    if isinstance(value, str) and random.random() < 0.4:
        return random.choice(WORDS)
    return _value(schema, random, (), 0.3, 1)


def _changed_object(value: dict[str, Any], schema: Json, random: Random) -> Any:
    if value and random.random() < 0.3:
        return {key: item for key, item in value.items() if key != random.choice(list(value))}
    if properties := schema.get("properties"):
        name = random.choice(list(properties))
        return {**value, name: _value(properties[name], random, (), 0.3, 1)}
    if isinstance(more := schema.get("additionalProperties"), dict):
        return {**value, random.choice(WORDS): _value(more, random, (), 0.3, 1)}
    return value


def _value(schema: Json, random: Random, toward: tuple[str, ...], often: float, depth: int) -> Any:
    if "enum" in schema:
        return random.choice(schema["enum"])
    match schema.get("type"):
        case "object":
            return _object(schema, random, toward, often, depth)
        case "array":
            return _list(schema, random, toward, often, depth)
        case "integer" | "number":
            return _number(schema, random)
        case "boolean":
            return random.random() < 0.5
    if schema.get("x-kubernetes-int-or-string") and random.random() < 0.5:
        return _number(schema, random)
    return random.choice(
        words(schema.get("pattern", ""), schema.get("format", ""), schema.get("minLength", 0), schema.get("maxLength", 9999))
    )


def _object(schema: Json, random: Random, toward: tuple[str, ...], often: float, depth: int) -> dict[str, Any]:
    properties = schema.get("properties", {})
    required = set(schema.get("required", ()))
    made = {}
    near = len(toward) <= 1
    chance = max(often, 0.4) if near and depth else often / (1 + depth / 4)
    for name, below in properties.items():
        if toward[:1] == (name,):
            made[name] = _value(below, random, toward[1:], often, depth + 1)
        elif name in required or random.random() < chance:
            made[name] = _value(below, random, (), often, depth + 1)
    more = schema.get("additionalProperties")
    if isinstance(more, dict):
        for _ in range(random.choice((0, 1, 1, 2)) or (toward[:1] == ("{}",))):
            made[random.choice(WORDS)] = _value(more, random, toward[1:], often, depth + 1)
    return made


def _list(schema: Json, random: Random, toward: tuple[str, ...], often: float, depth: int) -> list[Any]:
    least = max(schema.get("minItems", 0), 1 if toward[:1] == ("[]",) else 0)
    most = min(schema.get("maxItems", 4), least + 2)
    size = random.randint(least, max(least, most))
    items = [_value(schema["items"], random, toward[1:] if index == 0 else (), often, depth + 1) for index in range(size)]
    if len(items) > 1 and random.random() < 0.1:
        items[1] = items[0]
    return items


def _number(schema: Json, random: Random) -> int | float:
    low, high = schema.get("minimum", -1), schema.get("maximum", 2**31 - 1)
    choices = [
        number for number in (low, low + 1, high, 0, 1, 2, 50, 80, 100, 200, 302, 443, 65535, 65536) if low <= number <= high
    ]
    return random.choice(choices)


@cache
def words(pattern: str, form: str, shortest: int, longest: int) -> tuple[str, ...]:
    """The vocabulary's words that a schema takes."""
    fit = [word for word in WORDS if shortest <= len(word) <= longest and (not pattern or _pattern(pattern).search(word))]
    return tuple(word for word in fit if _has_format(word, form)) or ("a",)
