"""YAML nodes into JSON values, more strictly than PyYAML: duplicate keys are mistakes, dates and `12:30` stay strings.

Aliases are expanded up to a bound, so that a small document cannot become a large one.
"""

from __future__ import annotations

import math
import re
from typing import Any

import yaml

_TAG = "tag:yaml.org,2002:"
_MAX_DEPTH = 200
_INT = re.compile(r"[-+]?(?:0b[01_]+|0o?[0-7_]+|0x[0-9a-fA-F_]+|0|[1-9][0-9_]*)", re.ASCII)
_FLOAT = re.compile(
    r"[-+]?(?:[0-9][0-9_]*\.[0-9_]*(?:[eE][-+]?[0-9]+)?|\.[0-9][0-9_]*(?:[eE][-+]?[0-9]+)?|[0-9][0-9_]*[eE][-+]?[0-9]+)"
    r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
    re.ASCII,
)
_BOOL = re.compile(r"yes|Yes|YES|no|No|NO|true|True|TRUE|false|False|FALSE|on|On|ON|off|Off|OFF")
_NULL = re.compile(r"~|null|Null|NULL|")


def _whole(pattern: re.Pattern[str]) -> re.Pattern[str]:
    return re.compile(rf"(?:{pattern.pattern})\Z", pattern.flags & re.ASCII)


def _resolvers() -> dict[str, list[tuple[str, re.Pattern[str]]]]:
    """What a plain scalar may be, by its first character."""
    table: dict[str, list[tuple[str, re.Pattern[str]]]] = {}
    for name, pattern, firsts in (
        ("bool", _BOOL, "yYnNtTfFoO"),
        ("int", _INT, "-+0123456789"),
        ("float", _FLOAT, "-+0123456789."),
        ("null", _NULL, "~nN"),
        ("merge", re.compile("<<"), "<"),
    ):
        for first in firsts:
            table.setdefault(first, []).append((_TAG + name, _whole(pattern)))
    table.setdefault("", []).append((_TAG + "null", _whole(_NULL)))
    return table


class Loader(yaml.CSafeLoader):
    """libyaml's parser with our scalars: no timestamps, no base-60 numbers."""

    yaml_implicit_resolvers = _resolvers()


class BadNode(Exception):
    """A node that is YAML and cannot be an object's part: what was found and needed, and where."""

    def __init__(self, message: str, mark: yaml.Mark | None, reason: str = "BadYaml") -> None:
        super().__init__(message)
        self.mark = mark
        self.reason = reason


class Construct:
    """Makes values of nodes. `faults` collects duplicate keys, which do not stop it."""

    def __init__(self, limit: int) -> None:
        self.faults: list[BadNode] = []
        self._left = limit
        self._open: set[int] = set()

    def value(self, node: yaml.Node) -> Any:
        """The node as JSON would have it; raises BadNode."""
        self._left -= 1
        if self._left < 0:
            raise BadNode("found aliases that expand to too much; needed fewer of them", node.start_mark, "TooLarge")
        if isinstance(node, yaml.ScalarNode):
            return _scalar(node)
        if id(node) in self._open:
            raise BadNode("found an alias of something that it is inside of; needed a document without loops", node.start_mark)
        self._open.add(id(node))
        try:
            if isinstance(node, yaml.SequenceNode):
                _expect(node, "seq")
                return [self.value(item) for item in node.value]
            _expect(node, "map")
            return self._mapping(node)
        finally:
            self._open.discard(id(node))

    def _mapping(self, node: yaml.Node) -> dict[str, Any]:
        result: dict[str, Any] = {}
        merged: dict[str, Any] = {}
        lines: dict[str, int] = {}
        for key_node, value_node in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                raise BadNode("found a list or an object as a key; needed a text", key_node.start_mark)
            if key_node.tag == _TAG + "merge":
                for source in value_node.value if isinstance(value_node, yaml.SequenceNode) else [value_node]:
                    more = self.value(source)
                    if not isinstance(more, dict):
                        raise BadNode(
                            "found << with something that is no object; needed an alias of an object", source.start_mark
                        )
                    merged = more | merged
                continue
            key = key_node.value
            if key in lines:
                before = key_node.start_mark.line - lines[key]
                where = "in one line" if before == 0 else f"{before} {'line' if before == 1 else 'lines'} after the first"
                message = f'found the key "{key}" again, {where}; needed it only once'
                self.faults.append(BadNode(message, key_node.start_mark, "Duplicate"))
            lines[key] = key_node.start_mark.line
            result[key] = self.value(value_node)
        return merged | result if merged else result


def _expect(node: yaml.Node, kind: str) -> None:
    if node.tag != _TAG + kind:
        raise BadNode(f"found the tag {_tag(node)}; needed a plain value without a tag", node.start_mark)


def _tag(node: yaml.Node) -> str:
    tag = str(node.tag)
    return f"!!{tag.removeprefix(_TAG)}" if tag.startswith(_TAG) else tag


def _scalar(node: yaml.ScalarNode) -> Any:
    tag, text = node.tag, node.value
    try:
        if tag == _TAG + "str":
            return text
        if tag == _TAG + "int":
            return _integer(text)
        if tag == _TAG + "bool":
            return {"yes": True, "true": True, "on": True, "no": False, "false": False, "off": False}[text.lower()]
        if tag == _TAG + "null":
            return None
        if tag == _TAG + "float":
            number = float(text.replace("_", "").lower().replace(".inf", "inf").replace(".nan", "nan"))
            if not math.isfinite(number):
                raise BadNode(f"found {text}; needed a number", node.start_mark)
            return number
    except (ValueError, KeyError):
        raise BadNode(f'found "{text[:80]}" with the tag {_tag(node)}; needed a value of that kind', node.start_mark) from None
    if tag == _TAG + "merge":
        return text
    raise BadNode(f"found the tag {_tag(node)}; needed a plain value without a tag", node.start_mark)


def _integer(text: str) -> int:
    plain = text.replace("_", "").lower()
    digits = plain.lstrip("+-")
    sign = -1 if plain.startswith("-") else 1
    if len(digits) > 4000:
        raise ValueError(text)
    if digits.startswith(("0x", "0b", "0o")):
        return sign * int(digits, 0)
    if len(digits) > 1 and digits.startswith("0"):
        return sign * int(digits, 8)
    return sign * int(digits)


def too_deep(text: str) -> str:
    """Why the text must not be composed (composing recurses in C, without a bound of its own); "" where it may."""
    brackets = text.count("[") + text.count("{")
    longest = max(map(len, text.split("\n")), default=0)
    # Each level of blocks starts further right, but for lists inside mappings.
    if brackets + 2 * longest < 2000:
        return ""
    message = f"found more than {_MAX_DEPTH} levels of nesting; needed fewer"
    depth = 0
    try:
        for event in yaml.parse(text, Loader=Loader):
            if isinstance(event, yaml.CollectionStartEvent):
                depth += 1
                if depth > _MAX_DEPTH:
                    return message
            elif isinstance(event, yaml.CollectionEndEvent):
                depth -= 1
    except yaml.MarkedYAMLError as error:
        # Newer versions of libyaml have a bound of their own, and read ahead of the events that are counted here.
        if "nesting depth" in (error.problem or ""):
            return message
        raise
    return ""
