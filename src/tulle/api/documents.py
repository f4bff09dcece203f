"""Files into raw documents: YAML or JSON, several in a file, `List`s unfolded, and the line of every field.

A document that does not parse becomes a Problem with its place, and those beside it are still read. What `decode` finds later is
placed by `Document.locate`.
"""

from __future__ import annotations

import itertools
import json
import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import yaml

from tulle.api import path as paths
from tulle.api.yaml_nodes import BadNode, Construct, Loader, too_deep
from tulle.kit.problem import Location, Problem


@dataclass(frozen=True, slots=True)
class Document:
    """One object as written. `locate` gives the place of a field path, or of the nearest field around it that is written."""

    raw: dict[str, Any]
    locate: Callable[[str], Location | None]


def read_documents(text: str | bytes, file: str) -> tuple[list[Document], list[Problem]]:
    """Every document of a file (`file` is its name for people), in order, and what could not be read. Never raises."""
    problems: list[Problem] = []
    if isinstance(text, bytes):
        decoded = _decoded(text, file, problems)
        if decoded is None:
            return [], problems
        text = decoded
    text = text.removeprefix("\ufeff")
    documents: list[Document] = []
    for first_line, chunk in _chunks(text):
        reader = _Reader(file, first_line, chunk)
        documents += reader.read()
        problems += reader.problems
    return documents, problems


def _decoded(data: bytes, file: str, problems: list[Problem]) -> str | None:
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        problems.append(_problem(Location(file, 1), "BadEncoding", "found UTF-16; needed UTF-8"))
        return None
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        before = data[: error.start]
        column = len(before[before.rfind(b"\n") + 1 :].decode()) + 1
        where = Location(file, before.count(b"\n") + 1, column)
        problems.append(
            _problem(where, "BadEncoding", f"found the byte 0x{data[error.start]:02x}, which is not UTF-8; needed UTF-8 text")
        )
        return None


_SEPARATOR = re.compile(r"^---(?=[ \t\r\n]|\Z)", re.MULTILINE)
_NOTHING = re.compile(r"(?:[ \t]*(?:#[^\n]*)?\r?\n|%[^\n]*\n|---[ \t]*(?:#[^\n]*)?\r?\n)*(?:---)?[ \t]*(?:#[^\n]*)?")


def _chunks(text: str) -> Iterator[tuple[int, str]]:
    """The text between `---` lines, each with the number of its first line; a `---` at a line's start always separates."""
    starts = [0, *(match.start() for match in _SEPARATOR.finditer(text)), len(text)]
    line = 1
    for start, end in itertools.pairwise(starts):
        chunk = text[start:end]
        if not _NOTHING.fullmatch(chunk):
            yield line, chunk
        line += chunk.count("\n")


class _Reader:
    """Reads one chunk; `problems` has what was wrong with it."""

    def __init__(self, file: str, first_line: int, text: str) -> None:
        self.file = file
        self.first_line = first_line
        self.text = text
        self.problems: list[Problem] = []

    def read(self) -> list[Document]:
        """Its documents; nearly always one."""
        as_json = self._json()
        try:
            if why := too_deep(self.text):
                raise BadNode(why, None)
            nodes = self._compose()
        except (yaml.YAMLError, BadNode, ValueError) as error:
            if as_json is not None:
                return self._unfold(as_json, None)
            if not self.problems:
                self.problems.append(self._syntax_problem(error))
            return []
        if as_json is not None and len(nodes) == 1:
            return self._unfold(as_json, nodes[0])
        self.problems.clear()
        return [document for node in nodes for document in self._from_node(node)]

    def _compose(self) -> list[yaml.Node]:
        text = self.text
        for _ in range(_MOST_REPAIRS):
            try:
                return _nodes(text)
            except yaml.MarkedYAMLError as error:
                text = _quoted(text, error)
                if not text:
                    raise
        return _nodes(text)

    def _from_node(self, node: yaml.Node) -> list[Document]:
        construct = Construct(limit=len(self.text) + 100_000)
        try:
            value = construct.value(node)
        except BadNode as error:
            self.problems.append(_problem(self._at(error.mark), error.reason, str(error)))
            return []
        for problem in construct.faults:
            self.problems.append(_problem(self._at(problem.mark), problem.reason, str(problem)))
        if construct.faults or value is None:
            return []
        return self._unfold(value, node)

    def _unfold(self, value: Any, node: yaml.Node | None) -> list[Document]:
        """The document, or the documents in a `List`."""
        if not isinstance(value, dict):
            found = "a list" if isinstance(value, list) else "a single value"
            message = f"found {found}; needed an object with apiVersion, kind and metadata"
            self.problems.append(_problem(self._at(node.start_mark if node else None), "NotAnObject", message))
            return []
        kind, items = value.get("kind"), value.get("items")
        if not (isinstance(kind, str) and kind.endswith("List") and isinstance(items, list)):
            return [Document(value, self._locator(node))]
        inside = _child(node, "items")
        documents = []
        for index, item in enumerate(items):
            item_node = _child(inside, index)
            if isinstance(item, dict) and kind != "List":
                item = {"apiVersion": value.get("apiVersion"), "kind": kind.removesuffix("List")} | item
            documents += self._unfold(item, item_node)
        return documents

    def _locator(self, node: yaml.Node | None) -> Callable[[str], Location | None]:
        def locate(path: str) -> Location | None:
            mark = node.start_mark if node is not None else None
            at = node
            for step in paths.split(path):
                at, found = _step(at, step)
                if found is None:
                    break
                mark = found
            return self._at(mark)

        return locate

    def _at(self, mark: yaml.Mark | None) -> Location:
        if mark is None:
            return Location(self.file, self.first_line)
        return Location(self.file, self.first_line + mark.line, mark.column + 1)

    def _json(self) -> Any:
        """The chunk's value where it is JSON, which YAML reads nearly but not wholly alike; None where it is not.

        Keys that stand there twice are a problem, which YAML places better where it takes the text.
        """
        if not self.text.lstrip().startswith(("{", "[")):
            return None
        duplicates: list[str] = []

        def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
            if len(result := dict(pairs)) < len(pairs):
                keys = [key for key, _ in pairs]
                duplicates.extend(key for index, key in enumerate(keys) if key in keys[:index])
            return result

        try:
            value = json.loads(self.text, object_pairs_hook=unique, parse_float=_finite, parse_constant=_finite)
        except (ValueError, RecursionError):
            return None
        for key in duplicates:
            self.problems.append(_problem(self._at(None), "Duplicate", f'found the key "{key}" twice; needed it only once'))
        return None if duplicates else value

    def _syntax_problem(self, error: Exception) -> Problem:
        if isinstance(error, BadNode):
            return _problem(self._at(error.mark), error.reason, str(error))
        if isinstance(error, yaml.MarkedYAMLError):
            return _problem(self._at(error.problem_mark or error.context_mark), "BadYaml", self._words(error))
        position = getattr(error, "position", None)
        if isinstance(position, int):
            before = self.text.encode()[:position].decode(errors="ignore")
            where = Location(self.file, self.first_line + before.count("\n"), len(before) - before.rfind("\n"))
            character = getattr(error, "character", 0)
            shown = f"U+{character:04X}" if isinstance(character, int) else repr(character)
            return _problem(
                where, "BadYaml", f"found the control character {shown}; needed text (write it as an escape in double quotes)"
            )
        return _problem(self._at(None), "BadYaml", f"found text that is neither YAML nor JSON ({error}); needed a YAML document")

    def _words(self, error: yaml.MarkedYAMLError) -> str:
        """What YAML's parser says, and what usually helps."""
        problem, context = error.problem or "", error.context or ""
        found = problem if problem.startswith("found ") else f"found a mistake in the YAML: {problem or 'it does not parse'}"
        if context:
            found += f", {context}"
        if (
            error.context_mark is not None
            and error.problem_mark is not None
            and error.context_mark.line != error.problem_mark.line
        ):
            found += f" that starts in line {self.first_line + error.context_mark.line}"
        return f"{found}; needed {_needed(problem, self._character(error.problem_mark))}"

    def _character(self, mark: yaml.Mark | None) -> str:
        if mark is None:
            return ""
        lines = self.text.split("\n")
        line = lines[mark.line] if mark.line < len(lines) else ""
        return line[mark.column : mark.column + 1]


_MOST_REPAIRS = 20


def _nodes(text: str) -> list[yaml.Node]:
    loader = Loader(text)
    nodes: list[yaml.Node] = []
    try:
        while loader.check_node():
            node = loader.get_node()
            assert node is not None
            nodes.append(node)
    finally:
        loader.dispose()
    return nodes


def _quoted(text: str, error: yaml.MarkedYAMLError) -> str:
    """The text with quotes around what kubectl's parser takes and libyaml does not, `[fe80::]`; "" where it is not that."""
    if error.problem != "found unexpected ':'" or error.context_mark is None or error.problem_mark is None:
        return ""
    start, colon = error.context_mark.index, error.problem_mark.index
    scalar = text[start : colon + 1]
    if text[colon + 1 : colon + 2] not in (",", "]", "}") or "'" in scalar or "\n" in scalar:
        return ""
    return f"{text[:start]}'{scalar}'{text[colon + 1 :]}"


def _needed(problem: str, character: str) -> str:
    if character == "\t" or "tab" in problem:
        return "spaces instead of the tab"
    if "mapping values are not allowed" in problem:
        return 'one "key: value" a line, with quotes around a value that has ": " in it'
    if "cannot start any token" in problem:
        return f"quotes around a value that starts with {character}"
    if "undefined alias" in problem:
        return "an anchor (&name) before it, or quotes around a value that starts with *"
    if "expected key" in problem or "expected '-' indicator" in problem or "could not find expected ':'" in problem:
        return 'a "key: value" or "- item" at the same indentation as the lines before it'
    if "quoted scalar" in problem or "unexpected end of stream" in problem:
        return "the quote or bracket that closes it"
    return "a YAML document"


def _step(node: yaml.Node | None, step: str | int) -> tuple[yaml.Node | None, yaml.Mark | None]:
    """The node below a node, and where it starts (a field at its key)."""
    if isinstance(node, yaml.MappingNode):
        merged: tuple[yaml.Node | None, yaml.Mark | None] = (None, None)
        for key, value in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value == str(step):
                return value, key.start_mark
            if key.tag == "tag:yaml.org,2002:merge":
                for source in value.value if isinstance(value, yaml.SequenceNode) else [value]:
                    found = _step(source, step)
                    merged = merged if merged[1] is not None else found
        return merged
    if isinstance(node, yaml.SequenceNode) and isinstance(step, int) and step < len(node.value):
        return node.value[step], node.value[step].start_mark
    return None, None


def _child(node: yaml.Node | None, step: str | int) -> yaml.Node | None:
    return _step(node, step)[0]


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(text)
    return number


def _problem(where: Location, reason: str, message: str) -> Problem:
    return Problem(ref=None, path="", reason=reason, message=message, location=where)
