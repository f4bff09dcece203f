"""Paths → templates: `/users/4711/orders/7f3a…` is `/users/{id}/orders/{hex}`, so that calls of one kind have one shape.

A destination has no more than `MOST` templates: what comes beyond is `/*`, as is whatever looks like nobody's template.
"""

from __future__ import annotations

import re
from collections import OrderedDict

MOST = 50  # templates of a destination
_DESTINATIONS = 1000
_SEGMENTS = 12  # of a template; the rest is folded
_LONG = 40  # characters of a word that may still be a name
OTHERS = "/*"

_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", re.IGNORECASE)
_NUMBER = re.compile(r"[+-]?\d+")
_DATE = re.compile(r"\d{4}-\d{2}(-\d{2})?([T_ ]\d{2}([:h.]?\d{2}){0,2}(\.\d+)?(Z|[+-]\d{2}:?\d{2})?)?", re.IGNORECASE)
_HEX = re.compile(r"(0x)?(?=[a-f]*\d)[0-9a-f]{8,}", re.IGNORECASE)
_ADDRESS = re.compile(r"\d{1,3}(\.\d{1,3}){3}")
_MAIL = re.compile(r"[^@\s]+@[^@\s]+\.[^@\s]+")
# A name with a number at its end or in the middle (`user-4711`, `INV_2024_17`): what is left is a name still.
_NUMBERED = re.compile(r"(?P<word>[A-Za-z][A-Za-z_.-]*?)(?P<mark>[-_.:])\d{2,}(?P<rest>([-_.:]\d+)*)")
_TOKEN = re.compile(r"[A-Za-z0-9_\-=.~+%]{20,}")
_VERSION = re.compile(r"v\d+([.-]?(alpha|beta|rc)?\d*)*", re.IGNORECASE)
# `20-characters-and-more` of plain words with dashes is how pages are named: of such, one is many.
_SLUG = re.compile(r"[a-z]+([-_][a-z]+){3,}", re.IGNORECASE)


def template(path: str) -> str:
    """The template of a path (what is behind `?` or `#` is no part of it); that of a template is itself."""
    path = path.partition("?")[0].partition("#")[0]
    if not path.startswith("/"):
        return path if path in ("", "*") else OTHERS
    segments = path.split("/")[1:]
    folded = [segment_template(one) for one in segments[:_SEGMENTS]]
    if len(segments) > _SEGMENTS:
        folded.append("*")
    return "/" + "/".join(folded)


def segment_template(word: str) -> str:
    """What one segment becomes: itself, where it is a name."""
    word, semicolon, _parameters = word.partition(";")
    if not word or (word[0] == "{" and word[-1] == "}") or word == "*":
        return word + (";*" if semicolon and word else "")
    if _MAIL.fullmatch(word.replace("%40", "@")):
        return "{mail}"
    stem, dot, suffix = word.rpartition(".")
    if dot and stem and suffix.isalpha() and len(suffix) <= 5 and (folded := _kind(stem)):
        return f"{folded}.{suffix}"
    return _kind(word) or word


def _kind(word: str) -> str:
    """How a word that differs from call to call is written; "" for a name."""
    if _NUMBER.fullmatch(word):
        return "{id}"
    if _UUID.fullmatch(word):
        return "{uuid}"
    if _DATE.fullmatch(word):
        return "{date}"
    if _HEX.fullmatch(word):
        return "{hex}"
    if _ADDRESS.fullmatch(word):
        return "{address}"
    if _VERSION.fullmatch(word):
        return ""
    if found := _NUMBERED.fullmatch(word):
        return f"{found['word']}{found['mark']}{{id}}"
    if _TOKEN.fullmatch(word) and any(sign.isdigit() for sign in word):
        return "{token}"
    if len(word) > _LONG or (_SLUG.fullmatch(word) and len(word) > _LONG // 2):
        return "{text}"
    return "" if word.isprintable() else "{text}"


class Templates:
    """The templates of destinations, within bounds: the first that come are kept, what comes later is `/*`.

    A destination that was not called for long is forgotten for one that is.
    """

    def __init__(self, most: int = MOST, destinations: int = _DESTINATIONS) -> None:
        self._most, self._destinations = most, destinations
        self._known: OrderedDict[str, set[str]] = OrderedDict()

    def of(self, destination: str, path: str) -> str:
        """The template of a path there, or `/*`."""
        found = template(path)
        known = self._known.setdefault(destination, set())
        self._known.move_to_end(destination)
        if len(self._known) > self._destinations:
            self._known.popitem(last=False)
        if found in known:
            return found
        if len(known) >= self._most:
            return OTHERS if found.startswith("/") else found
        known.add(found)
        return found
