"""RE2 expressions by Python's `re`: the same language, where the two write or read it differently.

Proxies match in time that grows with the text; Python may take very long for an expression with nested repetitions. So what is
decided here is decided in the process of whoever asks, never in the control plane.
"""

from __future__ import annotations

import functools
import re
import unicodedata

_REPEAT = re.compile(r"\{\d+(?:,\d*)?\}")
_FLAGS = re.compile(r"\(\?([imsU]*)(?:-([imsU]*))?([:)])")
_UNICODE = re.compile(r"\\([pP])(?:\{(\^?)(\w+)\}|(\w))")
_HEX = re.compile(r"\\x\{([0-9A-Fa-f]{1,6})\}")
_NAMED = re.compile(r"\(\?P?<(\w+)>")
_SPACE = r"\t\n\f\r "
_POSIX = {
    "alnum": "0-9A-Za-z",
    "alpha": "A-Za-z",
    "ascii": r"\x00-\x7f",
    "blank": r"\t ",
    "cntrl": r"\x00-\x1f\x7f",
    "digit": "0-9",
    "graph": "!-~",
    "lower": "a-z",
    "print": " -~",
    "punct": r"!-/:-@\[-`{-~",
    "space": r"\t\n\v\f\r ",
    "upper": "A-Z",
    "word": r"0-9A-Za-z_",
    "xdigit": "0-9A-Fa-f",
}


@functools.lru_cache(maxsize=1024)
def compiled(expression: str, ignore_case: bool = False) -> re.Pattern[str]:
    """The expression as Python has it. Raises `re.error` for what is none."""
    return re.compile(_Translation(expression).text(), re.ASCII | (re.IGNORECASE if ignore_case else 0))


def full_match(expression: str, text: str, ignore_case: bool = False) -> bool:
    """Whether the expression holds for the whole text."""
    return compiled(expression, ignore_case).fullmatch(text) is not None


class _Translation:
    """One pass over an expression. RE2 sets flags for the rest of a group, across `|`; Python only for a group of their own."""

    def __init__(self, expression: str) -> None:
        self.source = expression
        self.place = 0
        self.out: list[str] = []
        # For each open group: the flags that were set within it, and whether `^` and `$` are about lines before it.
        self.groups: list[tuple[list[str], bool]] = [([], False)]
        self.lines = False

    def text(self) -> str:
        while self.place < len(self.source):
            self._step()
        self.out.append(")" * len(self.groups[0][0]))
        return "".join(self.out)

    def _take(self, count: int) -> str:
        self.place += count
        return self.source[self.place - count : self.place]

    def _step(self) -> None:
        here = self.source[self.place]
        if here == "\\":
            self.out.append(self._escape(in_class=False))
        elif here == "[":
            self.out.append(self._class())
        elif here == "(":
            self._open()
        elif here == ")":
            flags, self.lines = self.groups.pop() if len(self.groups) > 1 else self.groups[0]
            self.out.append(")" * (len(flags) + 1))
            self.place += 1
        elif here == "|":
            flags = self.groups[-1][0]
            self.out.append(")" * len(flags) + "|" + "".join(flags))
            self.place += 1
        elif here == "$":
            self.out.append("$" if self.lines else r"\Z")
            self.place += 1
        elif here == "{" and not _REPEAT.match(self.source, self.place):
            self.out.append(r"\{")
            self.place += 1
        else:
            self.out.append(self._take(1))

    def _open(self) -> None:
        if found := _FLAGS.match(self.source, self.place):
            self.place = found.end()
            on, off = found[1].replace("U", ""), (found[2] or "").replace("U", "")
            opening = f"(?{on}{'-' + off if off else ''}:"
            before = self.lines
            self.lines = ("m" in on or self.lines) and "m" not in off
            if found[3] == ":":
                self.groups.append(([], before))
            else:
                self.groups[-1][0].append(opening)
            self.out.append(opening)
            return
        named = _NAMED.match(self.source, self.place)
        self.groups.append(([], self.lines))
        if named:
            self.place = named.end()
            self.out.append(f"(?P<{named[1]}>")
        else:
            self.out.append(self._take(1))

    def _escape(self, in_class: bool) -> str:
        if found := _UNICODE.match(self.source, self.place):
            self.place = found.end()
            negative = (found[1] == "P") ^ bool(found[2])
            inner = _unicode(found[3] or found[4], negative)
            return inner if in_class else f"[{inner}]"
        if found := _HEX.match(self.source, self.place):
            self.place = found.end()
            return f"\\U{int(found[1], 16):08x}"
        if self.source.startswith(r"\Q", self.place):
            end = self.source.find(r"\E", self.place)
            quoted = self.source[self.place + 2 : end if end >= 0 else None]
            self.place = end + 2 if end >= 0 else len(self.source)
            return re.escape(quoted)
        pair = self._take(2)
        known = {r"\z": r"\Z", r"\C": r"[\s\S]", r"\s": _SPACE if in_class else f"[{_SPACE}]"}
        if not in_class:
            known[r"\S"] = f"[^{_SPACE}]"
        return known.get(pair, pair)

    def _class(self) -> str:
        out = [self._take(1)]
        if self.source.startswith("^", self.place):
            out.append(self._take(1))
        if self.source.startswith("]", self.place):
            out.append("\\" + self._take(1))
        while self.place < len(self.source) and self.source[self.place] != "]":
            posix = re.compile(r"\[:(\^?)(\w+):\]").match(self.source, self.place)
            if posix:
                self.place = posix.end()
                inside = _POSIX.get(posix[2], "")
                out.append(_without(inside) if posix[1] else inside)
            elif self.source[self.place] == "\\":
                out.append(self._escape(in_class=True))
            else:
                one = self._take(1)
                out.append("\\" + one if one in "[&~|" else one)
        return "".join([*out, self._take(1)])


def _without(inside: str) -> str:
    """Everything but a class, as the inside of another."""
    pattern = re.compile(f"[{inside}]")
    return _ranges([code for code in range(0x80) if not pattern.match(chr(code))]) + "\x80-\U0010ffff"


@functools.lru_cache(maxsize=64)
def _unicode(name: str, negative: bool) -> str:
    """A general category or a script, as far as the basic plane goes, as the inside of a class."""

    def of(code: int) -> bool:
        one = chr(code)
        if name == "Any":
            return True
        if len(name) <= 2:
            return unicodedata.category(one).startswith(name)
        return unicodedata.name(one, "").startswith(name.upper() + " ")

    return _ranges([code for code in range(0x10000) if of(code) is not negative])


def _ranges(codes: list[int]) -> str:
    found: list[list[int]] = []
    for code in codes:
        if found and found[-1][1] == code - 1:
            found[-1][1] = code
        else:
            found.append([code, code])
    return "".join(f"\\u{first:04x}-\\u{last:04x}" for first, last in found)
