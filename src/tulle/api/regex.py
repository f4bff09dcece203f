"""Whether a regular expression is RE2, as far as that is cheaply told without RE2.

RE2 has no look-around, back-references, atomic groups or possessive quantifiers, and bounds repetition by 1000. What Python's own
parser refuses is refused too, after the few spellings that RE2 has and Python has not are rewritten.
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
_REPEAT = re.compile(r"\{(\d+)(?:,(\d*))?\}")
_CLASS = re.compile(r"\[\^?\]?(?:\\.|\[:\^?\w+:\]|[^\]\\])*\]", re.DOTALL)
_ESCAPE = re.compile(r"\\[\\\[\](){}*+?.|^$/-]")
_POSIX = re.compile(r"\[:\^?\w+:\]")
_UNICODE_CLASS = re.compile(r"\\[pP](?:\{\^?\w+\}|\w)")
_QUOTED = re.compile(r"\\Q.*?(?:\\E|$)", re.DOTALL)


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
    for repeat in _REPEAT.finditer(bare):
        if any(int(bound) > 1000 for bound in repeat.groups() if bound):
            return f"the repetition {repeat.group()} (at most 1000)"
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


def regex_fault(expression: str, *at: str | int) -> Iterator[Fault]:
    """The fault of an expression at that place, if it has one."""
    if why := why_not_re2(expression):
        yield Fault(at, f'found "{expression}", with {why}; needed an RE2 regular expression', "BadRegex")
