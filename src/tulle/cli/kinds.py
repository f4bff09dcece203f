"""Kinds as a person types them: `vs`, `virtualservice`, `virtualservices.networking.istio.io`, `vs,dr`, a category."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

import click

from tulle.api.kind import Kind
from tulle.api.registry import KINDS


def kinds(words: str) -> list[Kind]:
    """The kinds that a word, or words with commas between, stand for; raises a usage error with the nearest that is one."""
    found: list[Kind] = []
    for word in words.split(","):
        for kind in _kinds_of(word.strip()):
            if kind not in found:
                found.append(kind)
    return found


def targets(words: Sequence[str]) -> list[tuple[Kind, str]]:
    """(kind, name) of `KIND NAME...` or of `KIND/NAME...`; a name is "" where all of the kind are meant."""
    if not words:
        raise click.UsageError("Missing argument 'KIND'.")
    if any("/" in word for word in words):
        pairs = []
        for word in words:
            kind, slash, name = word.partition("/")
            if not slash or not name:
                raise click.UsageError(f"found {word!r} beside KIND/NAME; needed KIND/NAME each time, or KIND NAME...")
            pairs.append((only(kind), name))
        return pairs
    if len(words) == 1:
        return [(kind, "") for kind in kinds(words[0])]
    return [(only(words[0]), name) for name in words[1:]]


def only(word: str) -> Kind:
    """The one kind of a word."""
    found = kinds(word)
    if len(found) != 1:
        raise click.UsageError(f"found {word!r} ({len(found)} kinds), needed one kind")
    return found[0]


def _kinds_of(word: str) -> list[Kind]:
    name, _, group = word.lower().partition(".")
    by_name = [kind for kind in KINDS if name in (kind.plural, kind.singular, *kind.short_names)]
    if group:
        by_name = [kind for kind in by_name if group == kind.group or group in [f"{it}.{kind.group}" for it in kind.versions]]
    if by_name:
        # One word, two groups (gateway): the first group by name, as kubectl's discovery has them.
        return [min(by_name, key=lambda kind: kind.group)]
    if word == "all":
        return [kind for kind in KINDS if kind.kind != "Event"]
    if by_category := [kind for kind in KINDS if word in kind.categories]:
        return by_category
    known = [known for kind in KINDS for known in (kind.plural, kind.singular, *kind.short_names)]
    near = difflib.get_close_matches(name, known, n=1)
    meant = f" Did you mean {near[0]!r}?" if near else f" Known: {', '.join(sorted(kind.plural for kind in KINDS))}."
    raise click.UsageError(f"No such kind {word!r}.{meant}")
