"""Field paths as people write them: `spec.http[0].match[0].headers["x.y"]`, made from and read into keys and indices."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable

_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*", re.ASCII)
_STEP = re.compile(r'\.?([A-Za-z_][A-Za-z0-9_-]*)|\[(\d+)\]|\[("(?:[^"\\]|\\.)*")\]', re.ASCII)


def join(steps: Iterable[str | int]) -> str:
    """The path of these keys and indices; keys that are no plain words stand quoted in brackets."""
    path = ""
    for step in steps:
        if isinstance(step, int):
            path += f"[{step}]"
        elif _PLAIN.fullmatch(step):
            path += f".{step}" if path else step
        else:
            path += f"[{json.dumps(step, ensure_ascii=not printable(step))}]"
    return path


def split(path: str) -> tuple[str | int, ...]:
    """The keys and indices of a path; what cannot be read ends it."""
    steps: list[str | int] = []
    position = 0
    while match := _STEP.match(path, position):
        word, index, quoted = match.groups()
        steps.append(word if word is not None else int(index) if index is not None else json.loads(quoted))
        position = match.end()
    return tuple(steps)


def printable(text: str) -> bool:
    """Whether the text can be written to a terminal or a log as it is: no control characters, no lone surrogates."""
    return text.isprintable()
