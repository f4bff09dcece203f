"""What one stream has of one type: what the client wants, was told and has yet to answer. `stream.py` decides over it."""

from __future__ import annotations

import re

import msgspec

from tulle.xds.messages import WILDCARD


class Flight(msgspec.Struct, frozen=True):
    """A response that waits for its answer."""

    nonce: str
    revision: int
    resources: tuple[str, ...]
    gone: tuple[str, ...]


class Subscription:
    """One type on one stream. Small: there are thousands of these, so names and versions are shared strings.

    `held` is what the client was told: name → version, "" where it was told that there is nothing, None where it has not been
    told yet. `explicit` is what it asked for by name; None means every key of `held` (so that a stream of five hundred
    endpoints keeps one dict and not a set beside it). `due` is what to look at in this wave (True: send even if unchanged),
    `later` in the next one, `gone` what waits for the removals. `greet` are wildcards and tables that have had no answer yet.
    `late`: the answer to `flight` is overdue. `batch`: no more than so many at once, while one that is refused is looked for.
    """

    __slots__ = (
        "acked",
        "batch",
        "due",
        "explicit",
        "flight",
        "gone",
        "greet",
        "held",
        "late",
        "later",
        "refused",
        "sent",
        "tables",
        "wildcard",
    )

    def __init__(self) -> None:
        self.held: dict[str, str | None] = {}
        self.explicit: set[str] | None = None
        self.wildcard = False
        self.tables: frozenset[str] = frozenset()
        self.due: dict[str, bool] = {}
        self.later: set[str] = set()
        self.gone: set[str] = set()
        self.greet: frozenset[str] = frozenset()
        self.refused: dict[str, str] = {}
        self.flight: Flight | None = None
        self.late = False
        self.batch = 0
        self.sent = self.acked = 0

    def named(self, name: str) -> bool:
        """Whether the client asked for it by name."""
        return name in (self.held if self.explicit is None else self.explicit)

    def covered(self, name: str) -> bool:
        """Whether a wildcard or a table has it."""
        return self.wildcard or (bool(self.tables) and name.rpartition("/")[0] in self.tables)

    @property
    def waits(self) -> bool:
        """Whether this type keeps others from going on."""
        return not self.late and (self.flight is not None or bool(self.due))

    def wants(self, name: str) -> bool:
        """Whether the client is to hear of it."""
        return self.covered(name) or self.named(name)

    def add_named(self, name: str) -> None:
        """The client asks for it by name."""
        if self.explicit is not None:
            self.explicit.add(name)
        self.held.setdefault(name, None)

    def split(self) -> set[str]:
        """From now on names that were not asked for can be held too."""
        if self.explicit is None:
            self.explicit = set(self.held)
        return self.explicit

    def look(self, name: str, force: bool) -> None:
        """Put it on the list for this wave."""
        self.due[name] = force or self.due.get(name, False)

    def take_due(self) -> dict[str, bool]:
        """What to look at now; the rest stays due."""
        due, self.due = self.due, {}
        if self.batch:
            names = sorted(due)
            self.due = {name: due[name] for name in names[self.batch :]}
            due = {name: due[name] for name in names[: self.batch]}
        return due

    def forget(self, name: str) -> None:
        """The client dropped it: it need not hear of it again."""
        self.held.pop(name, None)
        self.due.pop(name, None)
        self.later.discard(name)
        self.gone.discard(name)
        self.refused.pop(name, None)

    def told_absent(self, name: str) -> None:
        """The client hears that there is none (any more)."""
        if self.named(name):
            self.held[name] = ""
        else:
            self.held.pop(name, None)
        self.refused.pop(name, None)


def matches(pattern: str, name: str) -> bool:
    """Whether a wildcard, or a table of virtual hosts, has this name."""
    return pattern == WILDCARD or name.startswith(pattern + "/")


def mentions(text: str, name: str) -> bool:
    """Whether a refusal names this resource: the whole name, not a part of a longer one."""
    return re.search(rf"(?<![\w|./:-]){re.escape(name)}(?![\w|/-]|[.:]\w)", text) is not None
