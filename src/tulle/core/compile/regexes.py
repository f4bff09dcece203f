"""Substitutions of regular expressions, as far as Envoy would refuse one."""

from __future__ import annotations

import re

_GROUP = re.compile(r"\\.|\[(?:\\.|[^\]\\])*\]|\((?!\?)|\(\?P?<(?![=!])", re.DOTALL)
_REFERENCE = re.compile(r"\\(.?)", re.DOTALL)


def groups(pattern: str) -> int:
    """How many groups an RE2 expression captures."""
    return sum(1 for found in _GROUP.finditer(pattern) if found.group().startswith("("))


def substitution_fault(pattern: str, substitution: str) -> str:
    """Why a substitution does not fit an expression; "" where it does."""
    most = groups(pattern)
    for found in _REFERENCE.finditer(substitution):
        letter = found.group(1)
        if letter == "\\":
            continue
        if not letter.isdigit() or not letter.isascii():
            return f"found {found.group()}; needed a group such as \\1, or \\\\ for a backslash"
        if int(letter) > most:
            return f"found \\{letter} where the expression has {most} groups; needed one of those"
    return ""
