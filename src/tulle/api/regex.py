"""Whether a regular expression is RE2, as far as that is cheaply told without RE2.

RE2 has no look-around, back-references, atomic groups or possessive quantifiers, and bounds repetition by 1000, also of what is
itself repeated. What Python's own parser refuses is refused too, after the few spellings that RE2 has and Python has not are
rewritten. RE2 never runs away at a text; what explodes is the program that it makes of an expression, and a proxy bounds that.
"""

from __future__ import annotations

import functools
import re
import warnings
from collections.abc import Iterator

from tulle.api.object import Fault

_NOT_RE2 = (
    (re.compile(r"\(\?(?:=|!|<=|<!)"), "look-around"),
    (re.compile(r"\(\?>"), "an atomic group"),
    (re.compile(r"\(\?\("), "a conditional group"),
    (re.compile(r"\(\?#"), "a comment group"),
    (re.compile(r"\(\?P="), "a back-reference"),
    (re.compile(r"\\[1-9]"), "a back-reference"),
    (re.compile(r"\\Z"), "\\Z (write \\z)"),
    (re.compile(r"(?:[*+?]|\{\d+(?:,\d*)?\})\+"), "a possessive quantifier"),
)
_CLASS = re.compile(r"\[\^?\]?(?:\\.|\[:\^?\w+:\]|[^\]\\])*\]", re.DOTALL)
_ESCAPE = re.compile(r"\\[\\\[\](){}*+?.|^$/-]")
_POSIX = re.compile(r"\[:\^?\w+:\]")
_UNICODE_CLASS = re.compile(r"\\[pP](?:\{\^?\w+\}|\w)")
_QUOTED = re.compile(r"\\Q.*?(?:\\E|$)", re.DOTALL)
# The pieces of an expression, as far as its size depends on them.
_PIECE = re.compile(
    rf"(?P<quoted>{_QUOTED.pattern})|(?P<set>{_CLASS.pattern})|(?P<letter>\\(?:[pP](?:\{{\^?\w+\}}|\w)|x\{{\w+\}}|.))"
    r"|(?P<open>\((?:\?(?:P?<\w+>|[a-zA-Z-]*:))?)|(?P<flags>\(\?[a-zA-Z-]*\))|(?P<close>\))"
    r"|(?P<repeat>\{(?P<least>\d+)(?P<up>,(?P<most>\d*))?\})|(?P<some>[*+?])|(?P<one>.)",
    re.DOTALL,
)
# What a proxy takes (`core.envoy.bootstrap`), in instructions of RE2.
MOST_INSTRUCTIONS = 32768
_MOST_REPEATED = 1000


@functools.lru_cache(maxsize=4096)
def why_not_re2(expression: str) -> str:
    """Why RE2 would refuse the expression; "" where it seems to accept it."""
    if len(expression) > 16384:
        return f"an expression of {len(expression)} characters (at most 16384)"
    # Escapes and classes hide what looks like syntax in them.
    bare = _CLASS.sub("x", _ESCAPE.sub("x", _QUOTED.sub("x", expression)))
    for pattern, name in _NOT_RE2:
        if pattern.search(bare):
            return name
    size, repeated = _size(expression)
    if repeated > _MOST_REPEATED:
        return f"a part that is repeated {repeated} times (at most {_MOST_REPEATED})"
    if size > MOST_INSTRUCTIONS:
        return f"repetitions that make it about {size} steps long (at most {MOST_INSTRUCTIONS})"
    python = _QUOTED.sub("x", expression)
    python = _UNICODE_CLASS.sub(r"\\w", _POSIX.sub("a-z", python)).replace(r"\z", r"\Z").replace(r"\C", ".")
    python = re.sub(r"\(\?<(?=[A-Za-z_])", "(?P<", python)
    python = re.sub(r"\(\?([a-zA-Z-]*)U([a-zA-Z-]*[:)])", r"(?\1\2", python).replace("(?)", "").replace("(?-)", "")
    # RE2 takes flags anywhere, Python only at the start.
    python = re.sub(r"\(\?[ims]+(?:-[ims]+)?\)|\(\?-[ims]+\)", "", python)
    python = re.sub(r"\\x\{([0-9A-Fa-f]{1,6})\}", "x", python)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            re.compile(python)
    except (re.error, OverflowError, RecursionError) as error:
        return f"a mistake in it ({error})"
    return ""


def _size(expression: str) -> tuple[int, int]:
    """How many instructions RE2 makes of an expression at most, and how often a part is repeated, in all repetitions together."""
    groups: list[tuple[int, int]] = []  # the size of what stands before each open group, and how often parts of that are repeated
    total, repeats = 4, 1
    size, depth = 0, 1  # of the piece that a repetition would be of
    for piece in _PIECE.finditer(expression):
        kind = piece.lastgroup
        if kind == "open":
            groups.append((total, repeats))
            total, repeats, size, depth = 0, 1, 0, 1
            continue
        if kind == "close" and groups:
            size, depth = total + 2, repeats
            before, outer = groups.pop()
            total, repeats = before + size, max(outer, depth)
            continue
        if kind == "repeat":
            least, most = int(piece["least"]), int(piece["most"] or 0)
            bound = max(least, most)
            times = bound if most or not piece["up"] else least + 1
            more, depth = (size + 2) * max(times, 1), depth * max(bound, 1)
            total, size, repeats = total - size + more, more, max(repeats, depth)
            continue
        if kind == "some":
            total, size = total + 2, size + 2
            continue
        size, depth = _width(kind, piece.group()), 1
        total += size
    return total, repeats


def _width(kind: str | None, text: str) -> int:
    """How many instructions a piece is at most."""
    if kind == "flags":
        return 0
    if kind == "set":
        return len(text) + 8 * (text.count("\\") + text.count("[:") + 1)
    if kind == "letter":
        return 12
    return len(text.encode())


def regex_fault(expression: str, *at: str | int) -> Iterator[Fault]:
    """The fault of an expression at that place, if it has one."""
    if why := why_not_re2(expression):
        yield Fault(at, f'found "{expression}", with {why}; needed an RE2 regular expression', "BadRegex")
